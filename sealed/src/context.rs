//! What a service acts through: everything its loop owns.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes};
use slab::Slab;

use crate::buffers::Buffers;
use crate::config::Config;
use crate::error::{CloseReason, Error, Result};
use crate::id::{ConnectionId, ListenerId, TimerId};
use crate::mailbox::{Inlet, Mailbox};
use crate::net::{Clock, Listener, Network, Poller, Stream};
use crate::service::Service;
use crate::slot::{Flags, Slot};
use crate::stats::Stats;
use crate::stopper::Stopper;
use crate::wheel::{self, Nodes, Wheel};

/// Slices handed to the kernel in one write-through.
const SLICES_MAX: usize = 64;

/// Everything that a loop owns: connections, timers, listeners, its clock and its end of the mailbox.
///
/// A context belongs to its loop's thread and is lent to the service for each call. An id that is stale is
/// harmless everywhere: nothing is found, nothing is done.
pub struct Context<S: Service> {
    pub(crate) config: Config,
    network: Network,
    pub(crate) poller: Poller,
    pub(crate) clock: Clock,
    pub(crate) now: Duration,
    pub(crate) slots: Slots<S::Connection>,
    pub(crate) deadlines: Wheel,
    pub(crate) timers: Timers,
    pub(crate) alarms: Wheel,
    pub(crate) listeners: Vec<Accepting>,
    pub(crate) inlet: Inlet<S::Message>,
    pub(crate) stopper: Stopper,
    pub(crate) draining_until: Option<Duration>,
    pub(crate) read_buffer: Vec<u8>,
    pub(crate) to_read: Vec<u32>,
    pub(crate) to_flush: Vec<u32>,
    pub(crate) closing: Vec<u32>,
    #[allow(clippy::vec_box)] // the boxes themselves move between here and the slots
    pub(crate) pool: Vec<Box<Buffers>>,
    pub(crate) stats: Stats,
    pub(crate) freed_since_shrink: usize,
    serial: u32,
    random: u64,
}

impl<S: Service> Context<S> {
    pub(crate) fn new(
        config: Config,
        network: Network,
        poller: Poller,
        inlet: Inlet<S::Message>,
        stopper: Stopper,
    ) -> Self {
        let clock = network.clock();
        let now = clock.now();
        Self {
            read_buffer: vec![0; config.read_buffer_bytes.max(1)],
            config,
            poller,
            clock,
            now,
            slots: Slots(Slab::new()),
            deadlines: Wheel::default(),
            timers: Timers(Slab::new()),
            alarms: Wheel::default(),
            listeners: Vec::new(),
            inlet,
            stopper,
            draining_until: None,
            to_read: Vec::new(),
            to_flush: Vec::new(),
            closing: Vec::new(),
            pool: Vec::new(),
            stats: Stats::default(),
            freed_since_shrink: 0,
            serial: 0,
            random: network.entropy(),
            network,
        }
    }

    /// Time since the loop's clock was started. It never goes back, and stands still within a tick.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Time since 1970 by the calendar clock, read anew; it can be set back.
    pub fn unix_time(&self) -> Duration {
        self.clock.unix_time()
    }

    /// 64 random bits, good for jitter and for names that need not be secret.
    pub fn random(&mut self) -> u64 {
        split_mix(&mut self.random)
    }

    /// The loop's limits.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the loop has done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// A way for others to post to this loop.
    pub fn mailbox(&self) -> Mailbox<S::Message> {
        self.inlet.mailbox().clone()
    }

    /// A way for others to stop this loop.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Whether the loop is going down.
    pub fn is_draining(&self) -> bool {
        self.draining_until.is_some()
    }

    /// Listens on a TCP address. Port 0 lets the system choose one, which [`local_addr`](Self::local_addr) tells.
    pub fn listen(&mut self, address: SocketAddr) -> Result<ListenerId> {
        let failed = |source| Error::Listen { address, source };
        let Config { backlog, silence_max, .. } = self.config;
        let listener = self.network.bind(address, false, backlog, silence_max).map_err(failed)?;
        self.add_listener(listener).map_err(failed)
    }

    /// The address of a listener; `None` once the loop is going down.
    pub fn local_addr(&self, listener: ListenerId) -> Option<SocketAddr> {
        self.listeners.get(listener.index())?.listener.local_addr().ok()
    }

    /// Starts a connection, with state of its own. The outcome comes later, as
    /// [`connected`](Service::connected) or [`closed`](Service::closed). What is written before is sent then.
    pub fn connect(&mut self, address: SocketAddr, state: S::Connection) -> Result<ConnectionId> {
        let failed = |source| Error::Connect { address, source };
        if self.slots.0.len() >= self.config.connections_max {
            return Err(failed(io::Error::other("the loop has all the connections it may have")));
        }
        let stream = self.network.connect(address).map_err(failed)?;
        self.adopt(stream, Flags::CONNECTING, state).map_err(failed)
    }

    /// Whether the connection is there and not closed by this side.
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.slots.find(id).is_some_and(Slot::is_open)
    }

    /// How many connections there are, those that are just ending included.
    pub fn connections(&self) -> usize {
        self.slots.0.len()
    }

    /// How many timers are set.
    pub fn timers(&self) -> usize {
        self.timers.0.len()
    }

    /// The ids of all open connections. Costs a walk over the slab.
    pub fn connection_ids(&self) -> Vec<ConnectionId> {
        let open = self.slots.0.iter().filter(|(_, slot)| slot.is_open());
        open.map(|(index, slot)| ConnectionId { slot: index as u32, serial: slot.serial }).collect()
    }

    /// The service's state of a connection.
    pub fn state(&self, id: ConnectionId) -> Option<&S::Connection> {
        self.slots.find(id).map(|slot| &slot.state)
    }

    /// The service's state of a connection, to be changed.
    pub fn state_mut(&mut self, id: ConnectionId) -> Option<&mut S::Connection> {
        self.slots.find_mut(id).map(|slot| &mut slot.state)
    }

    /// Queues a copy of `bytes`, to be sent at the end of the tick together with all else that is queued.
    pub fn write(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(buffers) = self.output(id, bytes.len()) {
            buffers.outbox.push_copy(bytes);
        }
    }

    /// Queues shared bytes without copying them, to be sent at the end of the tick.
    pub fn write_bytes(&mut self, id: ConnectionId, bytes: Bytes) {
        if let Some(buffers) = self.output(id, bytes.len()) {
            buffers.outbox.push(bytes);
        }
    }

    /// Hands shared bytes to the kernel at once, in one vectored write, and queues what it does not take. Meant for
    /// [`turned`](Service::turned), where a batch is complete and goes to many: nothing is allocated for a peer that keeps up.
    ///
    /// Returns whether all of it is with the kernel. If not, [`drained`](Service::drained) will be called when it is.
    pub fn write_through(&mut self, id: ConnectionId, chunks: &[Bytes]) -> bool {
        let Some(slot) = self.slots.find_mut(id).filter(|slot| slot.is_open()) else { return true };
        let mut taken = 0;
        if slot.is(Flags::WRITABLE) && slot.output_len() == 0 {
            match write_once(&mut slot.stream, chunks) {
                Ok(count) => taken = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => slot.clear(Flags::WRITABLE),
                Err(error) => {
                    self.end_now(id.slot, CloseReason::Failed(error.kind()));
                    return true;
                }
            }
            self.stats.bytes_sent += taken as u64;
        }
        for chunk in chunks {
            if taken >= chunk.len() {
                taken -= chunk.len();
                continue;
            }
            let mut rest = chunk.clone();
            rest.advance(taken);
            taken = 0;
            self.write_bytes(id, rest);
        }
        self.slots.find(id).is_none_or(|slot| slot.output_len() == 0)
    }

    /// Bytes queued for a connection, which the kernel has not taken yet.
    pub fn queued(&self, id: ConnectionId) -> usize {
        self.slots.find(id).map_or(0, Slot::output_len)
    }

    /// Stops reading from a connection; its peer is slowed down by TCP. The end of its bytes is not seen meanwhile.
    pub fn pause(&mut self, id: ConnectionId) {
        if let Some(slot) = self.slots.find_mut(id) {
            slot.set(Flags::PAUSED);
        }
    }

    /// Goes on reading, and shows the service input that it left untaken, even if nothing more has come.
    pub fn resume(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.find_mut(id) else { return };
        let has_leftovers = slot.buffers.as_ref().is_some_and(|buffers| !buffers.inbox.is_empty());
        if !has_leftovers && !slot.is(Flags::PAUSED) {
            return;
        }
        slot.clear(Flags::PAUSED);
        slot.set(Flags::AGAIN);
        if slot.raise(Flags::TO_READ) {
            self.to_read.push(id.slot);
        }
    }

    /// Closes a connection after what is queued for it has been sent. What still comes from the peer is
    /// thrown away, so that it can read the last bytes before it hears of the end.
    pub fn close(&mut self, id: ConnectionId) {
        self.finish(id, CloseReason::Closed);
    }

    /// Closes a connection at once; what is queued for it is lost.
    pub fn abort(&mut self, id: ConnectionId) {
        self.abort_because(id, CloseReason::Aborted);
    }

    /// Closes all connections, each after what is queued for it has been sent.
    pub fn close_all(&mut self) {
        for id in self.connection_ids() {
            self.close(id);
        }
    }

    /// Sets the deadline of a connection, in place of an earlier one. When it passes,
    /// [`timed_out`](Service::timed_out) is called, once. At most about 24 days.
    pub fn set_deadline(&mut self, id: ConnectionId, delay: Duration) {
        if self.slots.find(id).is_some_and(Slot::is_open) {
            self.deadlines.arm(&mut self.slots, id.slot, self.now, delay);
        }
    }

    /// Takes the deadline of a connection away.
    pub fn clear_deadline(&mut self, id: ConnectionId) {
        if self.slots.find(id).is_some_and(Slot::is_open) {
            self.deadlines.cancel(&mut self.slots, id.slot);
        }
    }

    /// Sets a timer, for which [`expired`](Service::expired) is called once. At most about 24 days.
    pub fn set_timer(&mut self, delay: Duration) -> TimerId {
        let serial = self.next_serial();
        let slot = self.timers.0.insert(Timer { node: wheel::Node::default(), serial }) as u32;
        self.alarms.arm(&mut self.timers, slot, self.now, delay);
        TimerId { slot, serial }
    }

    /// Cancels a timer. One that has run out is not there any more, and nothing happens.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        if self.timers.0.get(timer.slot as usize).is_some_and(|held| held.serial == timer.serial) {
            self.alarms.cancel(&mut self.timers, timer.slot);
            self.timers.0.remove(timer.slot as usize);
        }
    }

    /// Starts to go down, as a signal would make it.
    pub fn stop(&mut self) {
        self.stopper.stop();
    }

    pub(crate) fn finish(&mut self, id: ConnectionId, reason: CloseReason) {
        let Some(slot) = self.slots.find_mut(id).filter(|slot| slot.is_open()) else { return };
        slot.set(Flags::FINISHING);
        slot.reason = reason;
        if slot.raise(Flags::TO_FLUSH) {
            self.to_flush.push(id.slot);
        }
        self.deadlines.arm(&mut self.slots, id.slot, self.now, self.config.linger);
    }

    pub(crate) fn abort_because(&mut self, id: ConnectionId, reason: CloseReason) {
        if self.slots.find(id).is_some() {
            self.end_now(id.slot, reason);
        }
    }

    /// Ends a connection with this tick. The first reason given is the one that is told.
    pub(crate) fn end_now(&mut self, index: u32, reason: CloseReason) {
        let slot = &mut self.slots.0[index as usize];
        if slot.is(Flags::CLOSING) {
            return;
        }
        if !slot.is(Flags::FINISHING) {
            slot.reason = reason;
        }
        slot.set(Flags::CLOSING);
        self.closing.push(index);
        self.deadlines.cancel(&mut self.slots, index);
    }

    pub(crate) fn add_listener(&mut self, mut listener: Listener) -> io::Result<ListenerId> {
        let index = self.listeners.len();
        self.poller.add_listener(&mut listener, LISTENERS + index)?;
        self.listeners.push(Accepting { listener, ready: true });
        Ok(ListenerId(index as u32))
    }

    pub(crate) fn adopt(&mut self, mut stream: Stream, flags: Flags, state: S::Connection) -> io::Result<ConnectionId> {
        let entry = self.slots.0.vacant_entry();
        let index = entry.key();
        self.poller.add_stream(&mut stream, index)?;
        self.serial = self.serial.wrapping_add(1);
        let id = ConnectionId { slot: index as u32, serial: self.serial };
        entry.insert(Slot::new(stream, self.serial, flags, state));
        Ok(id)
    }

    #[allow(clippy::unnecessary_box_returns)] // the box is what is pooled
    pub(crate) fn take_buffers(&mut self) -> Box<Buffers> {
        self.pool.pop().unwrap_or_default()
    }

    /// Returns a connection's buffers to the pool once they are empty.
    pub(crate) fn recycle(&mut self, index: u32) {
        let Some(slot) = self.slots.0.get_mut(index as usize) else { return };
        if slot.buffers.as_ref().is_some_and(|buffers| buffers.is_empty()) {
            let buffers = slot.buffers.take();
            self.pool_buffers(buffers);
        }
    }

    pub(crate) fn pool_buffers(&mut self, buffers: Option<Box<Buffers>>) {
        let Some(mut buffers) = buffers else { return };
        if self.pool.len() < self.config.pooled_buffers_max {
            buffers.reset(self.config.pooled_buffer_bytes_max);
            self.pool.push(buffers);
        }
    }

    /// The buffers of an open connection that is about to be given `more` bytes to send.
    fn output(&mut self, id: ConnectionId, more: usize) -> Option<&mut Buffers> {
        let slot = self.slots.find(id).filter(|slot| slot.is_open() && more > 0)?;
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
        slot.buffers.as_deref_mut()
    }

    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }
}

impl<S: Service> std::fmt::Debug for Context<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("now", &self.now)
            .field("connections", &self.connections())
            .field("timers", &self.timers.0.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// The next number of a `SplitMix64` generator.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
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

/// Tokens from here on name listeners; below, connections' slots.
pub(crate) const LISTENERS: usize = usize::MAX / 2;

#[derive(Debug)]
pub(crate) struct Accepting {
    pub(crate) listener: Listener,
    /// Connections may be waiting. Edge-triggered: the kernel says so once.
    pub(crate) ready: bool,
}

#[derive(Debug)]
pub(crate) struct Slots<C>(pub(crate) Slab<Slot<C>>);

impl<C> Slots<C> {
    pub(crate) fn find(&self, id: ConnectionId) -> Option<&Slot<C>> {
        self.0.get(id.slot as usize).filter(|slot| slot.serial == id.serial)
    }

    pub(crate) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Slot<C>> {
        self.0.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial)
    }

    pub(crate) fn id_at(&self, index: u32) -> ConnectionId {
        ConnectionId { slot: index, serial: self.0[index as usize].serial }
    }
}

impl<C> Nodes for Slots<C> {
    fn node(&mut self, key: u32) -> &mut wheel::Node {
        &mut self.0[key as usize].deadline
    }
}

#[derive(Debug)]
pub(crate) struct Timer {
    node: wheel::Node,
    pub(crate) serial: u32,
}

#[derive(Debug)]
pub(crate) struct Timers(pub(crate) Slab<Timer>);

impl Nodes for Timers {
    fn node(&mut self, key: u32) -> &mut wheel::Node {
        &mut self.0[key as usize].node
    }
}
