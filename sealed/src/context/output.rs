//! What a service does with a connection: write, close, pause, hold back.

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

/// Slices handed to the kernel in one write-through.
const SLICES_MAX: usize = 64;

/// From so many bytes on, a call to the kernel is cheaper than a copy: what else comes in the tick gains nothing by going
/// with them.
const AT_ONCE_MIN: usize = 32 * 1024;

impl<S: Service> Context<S> {
    /// Queues a copy of `bytes`, to be sent at the end of the tick together with all else that is queued. Of much, with
    /// nothing queued before it, a copy is made of that only which the kernel does not take at once.
    ///
    /// Returns whether there is room for more: false where [`Config::output_high_bytes`](crate::Config::output_high_bytes)
    /// or more are queued, or the connection takes nothing any more. What was given is queued all the same; wait for
    /// [`drained`](Service::drained) before giving more. A write that would make the queue pass
    /// [`Config::output_bytes_max`](crate::Config::output_bytes_max) is not queued: it resets the connection, which ends with
    /// [`CloseReason::OutputFull`].
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

    /// Whether a connection takes more, as [`write`](Self::write) would tell.
    pub fn has_room(&self, id: ConnectionId) -> bool {
        let high = self.config.output_high_bytes;
        self.slots.find(id).is_some_and(|slot| slot.is_writable() && slot.output_len() < high)
    }

    /// Queues shared bytes without copying them, to be sent at the end of the tick. Returns what
    /// [`write`](Self::write) does.
    pub fn write_bytes(&mut self, id: ConnectionId, bytes: Bytes) -> bool {
        let high = self.config.output_high_bytes;
        if bytes.is_empty() {
            return self.has_room(id);
        }
        let Some(buffers) = self.output(id, bytes.len()).and_then(|slot| slot.buffers.as_mut()) else { return false };
        buffers.outbox.push(bytes);
        buffers.outbox.len() < high
    }

    /// Hands shared bytes to the kernel at once, in one vectored write, and queues what it does not take. Meant for
    /// [`turned`](Service::turned), where a batch is complete and goes to many: nothing is allocated for a peer that keeps up.
    ///
    /// Returns whether all of it is with the kernel. If not, [`drained`](Service::drained) will be called when it is, or
    /// when little enough is left. Where TLS or a rate stands between, all is queued.
    pub fn write_through(&mut self, id: ConnectionId, chunks: &[Bytes]) -> bool {
        let Some(slot) = self.slots.find_mut(id).filter(|slot| slot.is_writable()) else { return true };
        let mut taken = 0;
        let has_extras = slot.has_extras() && !fault!("write-through-passes-rate");
        if slot.is(Flags::WRITABLE) && slot.output_len() == 0 && !has_extras {
            match write_once(&mut slot.stream, chunks) {
                Ok(count) => taken = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => slot.clear(Flags::WRITABLE),
                Err(error) => {
                    self.end_now(id.slot, CloseReason::Failed(error.kind()));
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
        self.slots.find(id).is_none_or(|slot| slot.output_len() == 0)
    }

    /// Bytes queued for a connection, which the kernel has not taken yet.
    pub fn queued(&self, id: ConnectionId) -> usize {
        self.slots.find(id).map_or(0, Slot::output_len)
    }

    /// Returns how many bytes were received from a connection and not taken yet. While [`received`](Service::received) is called for it, its
    /// [`Input`](crate::Input) tells how many those are.
    pub fn input_len(&self, id: ConnectionId) -> usize {
        self.slots.find(id).and_then(|slot| slot.buffers.as_ref()).map_or(0, |buffers| buffers.inbox.len())
    }

    /// Stops reading from a connection; its peer is slowed down by TCP. The end of its bytes is not seen meanwhile.
    pub fn pause(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slots.find_mut(id) {
            slot.set(Flags::PAUSED);
        }
    }

    /// Whether a connection is paused.
    pub fn is_paused(&self, id: ConnectionId) -> bool {
        self.slots.find(id).is_some_and(|slot| slot.is(Flags::PAUSED))
    }

    /// Goes on reading, and shows the service input that it left untaken, even if nothing more has come.
    pub fn resume(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.find_mut(id) else { return };
        let has_leftovers = slot.buffers.as_ref().is_some_and(|buffers| !buffers.inbox.is_empty());
        let is_receiving = self.receiving == Some(id.slot);
        if !has_leftovers && !is_receiving && !slot.is(Flags::PAUSED) {
            return;
        }
        slot.clear(Flags::PAUSED);
        slot.set(Flags::AGAIN);
        // Whether anything is left to be shown again is known when the service has looked.
        if !is_receiving {
            self.will_read(id.slot);
        }
    }

    /// Tells the peer, behind what is queued for it, that no more will come, and goes on reading. What is written after
    /// that is thrown away. Once both sides have ended, the connection is closed, with
    /// [`CloseReason::Ended`]; from then on its peer has the [linger](Self::set_linger) for what is still queued, as after
    /// [`close`](Self::close). Before that, no limit holds but one that is set with [`set_deadline`](Self::set_deadline).
    ///
    /// A connection that is still being made may be half-closed too: it is made, and what was written before is sent.
    pub fn half_close(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.find_mut(id).filter(|slot| slot.is_writable()) else { return };
        slot.set(Flags::SHUT);
        self.will_flush(id.slot);
    }

    /// Closes a connection after what is queued for it has been sent. What still comes from the peer is
    /// thrown away, so that it can read the last bytes before it hears of the end.
    ///
    /// A peer that takes nothing of what is queued for as long as the [linger](Self::set_linger), 5 s by default, loses the
    /// rest: it sees a reset, and the service is told [`CloseReason::TimedOut`]. Where the system has taken all of it, the
    /// peer has that long again to end its side; the reason is then [`CloseReason::Closed`] in any case.
    pub fn close(&mut self, id: ConnectionId) {
        self.finish(id, CloseReason::Closed);
    }

    /// Sets how long the peer of this connection may take nothing once it is closed, in place of
    /// [`Config::linger`](crate::Config::linger). For a connection that is closed already it counts from now on.
    pub fn set_linger(&mut self, id: ConnectionId, linger: Duration) {
        let Some(slot) = self.slots.find(id).filter(|slot| !slot.is(Flags::CLOSING)) else { return };
        let is_finishing = slot.is(Flags::FINISHING);
        if !fault!("own-linger-forgotten") {
            self.lingers.insert(id, linger);
        }
        if is_finishing {
            self.arm_linger(id.slot);
        }
    }

    /// Closes a connection at once. Where something is queued for it, that is lost, and its peer sees a reset; otherwise, an
    /// ordinary end, unless bytes of its own were left unread.
    pub fn abort(&mut self, id: ConnectionId) {
        self.abort_because(id, CloseReason::Aborted);
    }

    /// Closes a connection at once, and lets its peer see that it failed, as it would if this side had broken down (a TCP
    /// reset): so does a proxy pass a failure on. What is queued for it is lost, and so is what is still on its way.
    /// Unix sockets know no resets: their peers see an ordinary end.
    pub fn reset(&mut self, id: ConnectionId) {
        self.reset_because(id, CloseReason::Aborted);
    }

    pub(crate) fn reset_because(&mut self, id: ConnectionId, reason: CloseReason) {
        if let Some(slot) = self.slots.find_mut(id).filter(|slot| !slot.is(Flags::CLOSING)) {
            slot.stream.reset_on_close();
            // Even if it was closed before: what is on its way is lost.
            if !fault!("panicked-reported-closed") {
                slot.clear(Flags::FINISHING);
            }
            self.end_now(id.slot, reason);
        }
    }

    /// Closes all connections, each after what is queued for it has been sent.
    pub fn close_all(&mut self) {
        for id in self.connection_ids() {
            self.close(id);
        }
    }

    /// Holds a connection to these rates, in place of earlier ones. It is read from, and sent to, as bytes may pass.
    pub fn set_rates(&mut self, id: ConnectionId, rates: Rates) {
        let now = self.now;
        if let Some(pace) = self.pace(id) {
            pace.set_rates(rates, now);
        }
        self.settle_pace(id);
    }

    /// Makes a group whose connections share these rates. It stays until it is [removed](Self::remove_group), with connections
    /// in it or without.
    pub fn add_group(&mut self, rates: Rates) -> GroupId {
        self.groups.add(rates, self.now)
    }

    /// Frees a group. Connections that are in it are held to their own rates alone from then on, as are those that are put
    /// into it later by the stale id. Returns false if it has been removed before.
    pub fn remove_group(&mut self, group: GroupId) -> bool {
        self.groups.remove(group)
    }

    /// Returns how many connections a group has: 0 if it has been removed.
    pub fn members(&mut self, group: GroupId) -> usize {
        self.groups.get(group).map_or(0, |group| group.members)
    }

    /// Holds a group to other rates.
    pub fn set_group_rates(&mut self, group: GroupId, rates: Rates) {
        self.groups.set_rates(group, rates, self.now);
    }

    /// Puts a connection into a group, or takes it out of the one it is in. Its own rates hold besides.
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
        self.slots.find(id).filter(|slot| slot.is_open())?;
        Some(self.extras(id)?.pace.get_or_insert_with(|| Pace::new(now)))
    }

    /// Forgets a pace that holds nothing back, and lets the connection go on as far as it may.
    pub(crate) fn settle_pace(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.find_mut(id) else { return };
        let Some(extras) = slot.extras() else { return };
        if extras.pace.as_ref().is_some_and(Pace::is_free) {
            extras.pace = None;
        }
        if let Some(buffers) = &mut slot.buffers {
            buffers.trim();
        }
        self.recycle(id.slot);
        if !fault!("lifted-rate-holds-on") {
            self.will_read(id.slot);
            self.will_flush(id.slot);
        }
    }

    pub(crate) fn finish(&mut self, id: ConnectionId, reason: CloseReason) {
        let Some(slot) = self.slots.find_mut(id).filter(|slot| slot.is_open()) else { return };
        slot.set(Flags::FINISHING);
        if reason == CloseReason::Ended {
            slot.set(Flags::ENDING);
        }
        self.will_flush(id.slot);
        self.arm_linger(id.slot);
    }

    /// Lets a closed connection end when its peer has taken nothing for so long.
    pub(crate) fn arm_linger(&mut self, index: u32) {
        let own = if self.lingers.is_empty() { None } else { self.lingers.get(&self.slots.id_at(index)).copied() };
        self.deadlines.arm(&mut self.slots, index, self.now, own.unwrap_or(self.config.linger));
    }

    pub(crate) fn abort_because(&mut self, id: ConnectionId, reason: CloseReason) {
        if self.slots.find(id).is_some() {
            self.end_now(id.slot, reason);
        }
    }

    /// An open connection that is about to be given `more` bytes to send, with buffers to queue them in.
    fn output(&mut self, id: ConnectionId, more: usize) -> Option<&mut Slot<S::Connection>> {
        let slot = self.slots.find(id).filter(|slot| slot.is_writable())?;
        if slot.output_len() + more > self.config.output_bytes_max {
            self.end_now(id.slot, CloseReason::OutputFull);
            return None;
        }
        let fresh = if slot.buffers.is_none() { Some(self.take_buffers()) } else { None };
        let slot = self.slots.find_mut(id)?;
        if slot.raise(Flags::TO_FLUSH) {
            self.to_flush.push(id.slot);
        }
        if fresh.is_some() {
            slot.buffers = fresh;
        }
        Some(slot)
    }
}

impl<C> Slot<C> {
    /// Hands the kernel bytes that would be the first in the queue, and tells how many it took. Where that fails none are
    /// taken, and the flush at the tick's end meets the same error.
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
