//! The operations on a connection: write, close, pause, limit.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes};

use super::Context;
use crate::error::CloseReason;
use crate::id::ConnectionId;
use crate::net::Stream;
use crate::rate::{GroupId, Pace, Rates};
use crate::service::Service;
use crate::slot::{Flags, Slot};

/// Maximum number of slices in one vectored write of a write-through.
const SLICES_MAX: usize = 64;

/// From this many bytes on, a system call is cheaper than a copy: sending them together with later
/// output of the tick would gain nothing.
const AT_ONCE_MIN: usize = 32 * 1024;

/// Output, input and the end of a connection.
impl<S: Service> Context<S> {
    /// Queues a copy of `bytes`. The loop sends it at the end of the tick, together with all other
    /// queued output; what is written while output is sent, in [`drained`](Service::drained) or
    /// [`closed`](Service::closed), is sent in the next tick. If `bytes` has 32 KiB or more and no
    /// output is queued before it, the kernel is offered the bytes at once, and only the part that
    /// it does not take is copied.
    ///
    /// Returns whether there is room for more: false if
    /// [`Config::output_high_bytes`](crate::Config::output_high_bytes) or more are queued, or if
    /// the connection accepts no more output. In the first case the bytes have been queued
    /// nevertheless; wait for [`drained`](Service::drained) before writing more. A write that would
    /// make the queue exceed [`Config::output_bytes_max`](crate::Config::output_bytes_max) is not
    /// queued: it resets the connection, which ends with [`CloseReason::OutputFull`].
    #[inline]
    pub fn write(&mut self, id: ConnectionId, bytes: &[u8]) -> bool {
        let high = self.config.output_high_bytes;
        if bytes.is_empty() {
            return self.has_room(id);
        }
        let Some(slot) = self.output(id, bytes.len()) else { return false };
        let at_once = if bytes.len() >= AT_ONCE_MIN { slot.send_at_once(bytes) } else { 0 };
        let Some(buffers) = &mut slot.buffers else { return false };
        buffers.outbox.push_copy(&bytes[at_once..]);
        buffers.outbox.len() < high
    }

    /// Returns whether a connection has room for more output, as [`write`](Self::write) does.
    pub fn has_room(&self, id: ConnectionId) -> bool {
        let high = self.config.output_high_bytes;
        self.connections.find(id).is_some_and(|slot| slot.is_writable() && slot.output_len() < high)
    }

    /// Queues shared bytes without copying them, to be sent at the end of the tick. Returns the
    /// same as [`write`](Self::write).
    pub fn write_bytes(&mut self, id: ConnectionId, bytes: Bytes) -> bool {
        let high = self.config.output_high_bytes;
        if bytes.is_empty() {
            return self.has_room(id);
        }
        let Some(buffers) = self.output(id, bytes.len()).and_then(|slot| slot.buffers.as_mut()) else { return false };
        buffers.outbox.push(bytes);
        buffers.outbox.len() < high
    }

    /// Writes shared bytes to the kernel at once, in one vectored write, and queues the part that
    /// the kernel does not take. Meant for [`turned`](Service::turned), where a batch is complete
    /// and is sent to many connections: nothing is allocated for a peer that keeps up.
    ///
    /// Returns false if more than [`output_low_bytes`](crate::Config::output_low_bytes) are left in
    /// the queue, by default if any are; [`drained`](Service::drained) is then called when the
    /// queue has fallen to that mark. Returns true otherwise, also if the
    /// connection accepts no output: nothing is left to wait for. At most 64 chunks are offered to
    /// the kernel, and later ones are queued. If the connection uses TLS or a rate limit, all bytes
    /// are queued.
    pub fn write_through(&mut self, id: ConnectionId, chunks: &[Bytes]) -> bool {
        let Some(slot) = self.connections.find_mut(id).filter(|slot| slot.is_writable()) else { return true };
        let mut taken = 0;
        let has_extras = slot.has_extras() && !fault!("write-through-passes-rate");
        if slot.is(Flags::WRITABLE) && slot.output_len() == 0 && !has_extras {
            match write_once(&mut slot.stream, chunks) {
                Ok(count) => taken = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => slot.clear(Flags::WRITABLE),
                Err(error) => {
                    self.connections.end_now(id.slot, CloseReason::Failed(error.kind()));
                    return true;
                }
            }
            self.counters.bytes_sent.add(taken as u64);
        }
        for chunk in chunks {
            if taken >= chunk.len() {
                taken -= chunk.len();
                continue;
            }
            let mut rest = chunk.clone();
            if !fault!("batch-queued-whole") {
                rest.advance(taken);
            }
            taken = 0;
            self.write_bytes(id, rest);
        }
        let low = if fault!("little-left-awaited") { 0 } else { self.config.output_low_bytes };
        self.connections.find(id).is_none_or(|slot| !slot.is_writable() || slot.output_len() <= low)
    }

    /// Returns the number of queued bytes that the kernel has not taken yet. With TLS, up to 64 KiB
    /// that have been encrypted, and that the kernel has not taken either, are not counted.
    pub fn queued(&self, id: ConnectionId) -> usize {
        self.connections.find(id).map_or(0, Slot::output_len)
    }

    /// Returns the number of bytes that were received from a connection and not taken yet. During a
    /// call of [`received`](Service::received) for this connection, use its [`Input`](crate::Input)
    /// instead.
    pub fn input_len(&self, id: ConnectionId) -> usize {
        self.connections.find(id).and_then(|slot| slot.buffers.as_ref()).map_or(0, |buffers| buffers.inbox.len())
    }

    /// Returns bytes of the current call's [`Input`](crate::Input), or of its datagram, as a value
    /// that can outlive the call: to be sent to another thread, or to be queued by
    /// [`write_bytes`](Self::write_bytes).
    ///
    /// Copies `part`, unless it is large and has just been read: if it has at least 4 KiB and fills
    /// at least half of the read buffer
    /// ([`Config::read_buffer_bytes`](crate::Config::read_buffer_bytes)), the result shares the
    /// buffer, and the loop reads into another. So the result keeps at most twice its length in
    /// memory. Input that was left by an earlier call is copied, as are bytes that are not input.
    /// The loop keeps up to 32 shared buffers for reuse, until it frees memory after a burst of
    /// connections.
    ///
    /// ```
    /// use sealed::{Bytes, ConnectionId, Context, Input, Service, Workers};
    ///
    /// struct Archive {
    ///     workers: Workers,
    /// }
    ///
    /// fn store(bytes: &Bytes) {}
    ///
    /// impl Service for Archive {
    ///     type Connection = ();
    ///     type Message = ();
    ///     type Timer = ();
    ///
    ///     fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
    ///         let bytes = cx.share(input.take_all());
    ///         if cx.offload_for(id, &self.workers, move |_| store(&bytes)).is_err() {
    ///             cx.abort(id);
    ///         }
    ///     }
    /// }
    /// ```
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.buffers.share(part)
    }

    /// Stops reading from a connection; TCP flow control then slows its peer down. While paused,
    /// the loop does not notice the end of the peer's output.
    pub fn pause(&mut self, id: ConnectionId) {
        if let Some(slot) = self.connections.find_mut(id) {
            slot.set(Flags::PAUSED);
        }
    }

    /// Returns whether a connection is paused.
    pub fn is_paused(&self, id: ConnectionId) -> bool {
        self.connections.find(id).is_some_and(|slot| slot.is(Flags::PAUSED))
    }

    /// Resumes reading, and shows the service the input that it left untaken, even if no more has
    /// come: in this tick if the loop has not read yet, and otherwise in the next. It never calls
    /// the service itself.
    pub fn resume(&mut self, id: ConnectionId) {
        let Some(slot) = self.connections.find_mut(id) else { return };
        let has_leftovers = slot.buffers.as_ref().is_some_and(|buffers| !buffers.inbox.is_empty());
        let is_receiving = self.receiving == Some(id.slot);
        if !has_leftovers && !is_receiving && !slot.is(Flags::PAUSED) {
            return;
        }
        slot.clear(Flags::PAUSED);
        slot.set(Flags::AGAIN);
        // Only after the service returns is it known whether any input is left to show again.
        if !is_receiving {
            self.connections.will_read(id.slot);
        }
    }

    /// Half-closes a connection: sends the end of this side's output after the queued output, and
    /// continues to read. Later writes are discarded. Once both sides have ended, the connection is
    /// closed with [`CloseReason::Ended`]; from then on the [linger time](Self::set_linger) applies
    /// to output that is still queued, as after [`close`](Self::close). Before that there is no
    /// time limit except one that the service sets with [`set_deadline`](Self::set_deadline).
    ///
    /// A connection that is still being made can be half-closed too: it is made nevertheless, and
    /// output that was written before is sent.
    pub fn half_close(&mut self, id: ConnectionId) {
        let Some(slot) = self.connections.find_mut(id).filter(|slot| slot.is_writable()) else { return };
        slot.set(Flags::SHUT);
        self.connections.will_flush(id.slot);
    }

    /// Closes a connection after its queued output has been sent. Input that still arrives is
    /// discarded, so that the peer can read the last bytes before it sees the end. A connection
    /// that is still being made has the linger time to be made and to take the output;
    /// [`connected`](Service::connected) is not called for it any more.
    ///
    /// If the peer accepts no queued output for the [linger time](Self::set_linger), 5 s by
    /// default, the rest is lost: the peer sees a reset, and the service gets
    /// [`CloseReason::TimedOut`]. Once the system has taken all output, the peer has the same time
    /// again to end its side; the reason is then [`CloseReason::Closed`] in any case, or
    /// [`CloseReason::Ended`] if the peer had ended before this call.
    pub fn close(&mut self, id: ConnectionId) {
        let Some(slot) = self.connections.find_mut(id).filter(|slot| slot.is_open()) else { return };
        let has_ended = slot.is(Flags::ENDED | Flags::TLS_ENDED) && !fault!("ended-reported-closed");
        slot.set(if has_ended { Flags::FINISHING | Flags::ENDING } else { Flags::FINISHING });
        self.connections.will_flush(id.slot);
        self.connections.arm_linger(id.slot, self.now);
    }

    /// Sets the linger time of a connection, in place of [`Config::linger`](crate::Config::linger):
    /// after [`close`](Self::close), how long the peer may go without taking output, and then how
    /// long it has to end its side. If the connection is already closed, the time starts now.
    pub fn set_linger(&mut self, id: ConnectionId, linger: Duration) {
        let Some(slot) = self.connections.find(id).filter(|slot| !slot.is(Flags::CLOSING)) else { return };
        let is_finishing = slot.is(Flags::FINISHING);
        if !fault!("own-linger-forgotten") {
            self.connections.set_linger(id, linger);
        }
        if is_finishing {
            self.connections.arm_linger(id.slot, self.now);
        }
    }

    /// Closes a connection at once. If output is queued, that output is lost and the peer sees a
    /// reset. Otherwise the peer sees an ordinary end, unless input from it is left unread in the
    /// kernel.
    pub fn abort(&mut self, id: ConnectionId) {
        self.abort_because(id, CloseReason::Aborted);
    }

    /// Aborts a connection whose deadline has passed, as [`abort`](Self::abort) does, with the
    /// reason [`CloseReason::TimedOut`]. This is what [`Service::timed_out`] does by default; a
    /// service that overrides it calls this unless it lets the connection go on.
    pub fn time_out(&mut self, id: ConnectionId) {
        self.abort_because(id, CloseReason::TimedOut);
    }

    /// Closes a connection at once with a TCP reset, so that the peer sees a failure. A proxy uses
    /// this to pass a failure on. Queued output is lost, as is output that is still in transit.
    /// Unix sockets have no resets: their peers see an ordinary end.
    pub fn reset(&mut self, id: ConnectionId) {
        self.reset_because(id, CloseReason::Aborted);
    }

    pub(crate) fn reset_because(&mut self, id: ConnectionId, reason: CloseReason) {
        if let Some(slot) = self.connections.find_mut(id).filter(|slot| !slot.is(Flags::CLOSING)) {
            slot.stream.reset_on_close();
            // The real reason is reported even if the connection was closed before, since output in
            // transit is lost.
            if !fault!("panicked-reported-closed") {
                slot.clear(Flags::FINISHING);
            }
            self.connections.end_now(id.slot, reason);
        }
    }

    /// Closes all connections, each after its queued output has been sent.
    pub fn close_all(&mut self) {
        for id in self.connection_ids() {
            self.close(id);
        }
    }
}

/// Rate limits, of connections and of groups of connections.
impl<S: Service> Context<S> {
    /// Limits a connection to these rates, in place of earlier ones. The loop reads from it, and
    /// sends to it, as fast as the rates allow. New rates begin with a full
    /// [burst](crate::Rate::burst_bytes). With TLS, encrypted bytes are counted when they are read,
    /// and plain ones when they are sent.
    pub fn set_rates(&mut self, id: ConnectionId, rates: Rates) {
        let now = self.now;
        if let Some(pace) = self.pace(id) {
            pace.set_rates(rates, now);
        }
        self.settle_pace(id);
    }

    /// Creates a group whose connections share these rates. The group exists until it is
    /// [removed](Self::remove_group), even while it has no connections.
    ///
    /// ```
    /// use sealed::{ConnectionId, Context, Rate, Rates, Service};
    ///
    /// /// Lets two connections share one megabyte per second.
    /// fn share<S: Service>(cx: &mut Context<S>, one: ConnectionId, other: ConnectionId) {
    ///     let group = cx.add_group(Rates { write: Some(Rate::per_second(1_000_000)), ..Rates::default() });
    ///     cx.set_group(one, Some(group));
    ///     cx.set_group(other, Some(group));
    /// }
    /// ```
    pub fn add_group(&mut self, rates: Rates) -> GroupId {
        self.groups.add(rates, self.now)
    }

    /// Removes a group. Its connections are then limited only by their own rates, as are
    /// connections that are later put into it by the stale id. Returns false if the group has been
    /// removed before.
    pub fn remove_group(&mut self, group: GroupId) -> bool {
        self.groups.remove(group)
    }

    /// Returns the number of connections in a group; 0 if the group has been removed.
    pub fn members(&mut self, group: GroupId) -> usize {
        self.groups.get(group).map_or(0, |group| group.members)
    }

    /// Sets new rates for a group.
    pub fn set_group_rates(&mut self, group: GroupId, rates: Rates) {
        self.groups.set_rates(group, rates, self.now);
    }

    /// Moves a connection into a group, or, with `None`, out of its group. The connection's own
    /// rates apply as well.
    pub fn set_group(&mut self, id: ConnectionId, group: Option<GroupId>) {
        let group = group.filter(|group| self.groups.get(*group).is_some());
        let Some(pace) = self.pace(id) else { return };
        let before = std::mem::replace(&mut pace.group, group);
        if let Some(left) = before.and_then(|group| self.groups.get(group)) {
            left.members -= 1;
        }
        if let Some(entered) = group.and_then(|group| self.groups.get(group)) {
            entered.members += 1;
        }
        self.settle_pace(id);
    }

    fn pace(&mut self, id: ConnectionId) -> Option<&mut Pace> {
        let now = self.now;
        self.connections.find(id).filter(|slot| slot.is_open())?;
        Some(self.connections.extras(id)?.pace.get_or_insert_with(|| Pace::new(now)))
    }

    /// Drops a pace that has no effect, and lets the connection continue as far as it may.
    pub(crate) fn settle_pace(&mut self, id: ConnectionId) {
        let Some(slot) = self.connections.find_mut(id) else { return };
        let Some(extras) = slot.extras() else { return };
        if extras.pace.as_ref().is_some_and(Pace::is_free) {
            extras.pace = None;
        }
        if let Some(buffers) = &mut slot.buffers {
            buffers.trim();
        }
        self.connections.recycle(id.slot);
        if !fault!("lifted-rate-holds-on") {
            self.connections.will_read(id.slot);
            self.connections.will_flush(id.slot);
        }
    }

    pub(crate) fn abort_because(&mut self, id: ConnectionId, reason: CloseReason) {
        if self.connections.find(id).is_some() {
            self.connections.end_now(id.slot, reason);
        }
    }

    /// Prepares a connection to queue `more` bytes: returns its slot, with buffers, or `None` if it
    /// accepts no more output.
    fn output(&mut self, id: ConnectionId, more: usize) -> Option<&mut Slot<S::Connection>> {
        let slot = self.connections.find(id).filter(|slot| slot.is_writable())?;
        if slot.output_len() + more > self.config.output_bytes_max {
            self.connections.end_now(id.slot, CloseReason::OutputFull);
            return None;
        }
        self.connections.will_flush(id.slot);
        self.connections.buffers_mut(id.slot);
        self.connections.get_mut(id.slot)
    }
}

impl<C> Slot<C> {
    /// Writes bytes that would be first in the queue to the kernel, and returns how many bytes the
    /// kernel took. On an error it returns 0, and the flush at the end of the tick meets the same
    /// error.
    fn send_at_once(&mut self, bytes: &[u8]) -> usize {
        if !self.is(Flags::WRITABLE) || self.is(Flags::CONNECTING) {
            return 0;
        }
        let Some(buffers) = self.buffers.as_mut().filter(|buffers| buffers.is_idle()) else { return 0 };
        let taken = self.stream.write(bytes).unwrap_or(0);
        buffers.outbox.sent_ahead = taken;
        taken
    }
}

fn write_once(stream: &mut Stream, chunks: &[Bytes]) -> io::Result<usize> {
    if let [only] = chunks {
        return stream.write(only);
    }
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = chunks.len().min(SLICES_MAX);
    for (slice, chunk) in slices.iter_mut().zip(chunks) {
        *slice = IoSlice::new(chunk);
    }
    stream.write_vectored(&slices[..count])
}
