//! What a service acts through: everything its loop owns. `sockets.rs` is how connections come about, `output.rs` what
//! is done with them, `timers.rs` what happens later.

mod output;
mod sockets;
mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

pub(crate) use self::timers::{Due, Timers};
use crate::address::Address;
use crate::buffers::{Buffers, Extras};
use crate::config::Config;
use crate::dial::Dials;
use crate::error::CloseReason;
use crate::id::{ConnectionId, ListenerId};
use crate::mailbox::{Inlet, Mailbox};
use crate::net::{Clock, Listener, Network, Poller, Stream};
use crate::pool::HandOver;
use crate::rate::Groups;
use crate::service::Service;
use crate::slot::{Flags, NO_LISTENER, Slot};
use crate::socket::SocketOptions;
use crate::stats::{Counters, Stats, Watch};
use crate::stopper::Stopper;
#[cfg(feature = "tls")]
use crate::tls;
use crate::wheel::{self, Nodes, Wheel};

/// Everything that a loop owns: connections, timers, listeners, its clock and its end of the mailbox.
///
/// A context belongs to its loop's thread and is lent to the service for each call. An id that is stale is
/// harmless everywhere: nothing is found, nothing is done.
pub struct Context<S: Service> {
    pub(crate) config: Config,
    pub(crate) network: Network,
    pub(crate) poller: Poller,
    pub(crate) clock: Clock,
    pub(crate) now: Duration,
    pub(crate) slots: Slots<S::Connection>,
    pub(crate) deadlines: Wheel,
    pub(crate) timers: Timers<S::Timer>,
    pub(crate) listeners: Vec<Accepting>,
    pub(crate) dials: Dials,
    pub(crate) groups: Groups,
    pub(crate) inlet: Inlet<S::Message>,
    pub(crate) deferred: VecDeque<S::Message>,
    pub(crate) stopper: Stopper,
    pub(crate) draining_until: Option<Duration>,
    pub(crate) read_buffer: Vec<u8>,
    #[cfg(feature = "tls")]
    pub(crate) plain_buffer: Vec<u8>,
    /// The connection whose input the service is looking at. What it leaves is not in its inbox yet.
    pub(crate) receiving: Option<u32>,
    pub(crate) to_read: Vec<u32>,
    pub(crate) to_flush: Vec<u32>,
    pub(crate) closing: Vec<(u32, CloseReason)>,
    /// Of connections that have one of their own.
    pub(crate) lingers: BTreeMap<ConnectionId, Duration>,
    #[allow(clippy::vec_box)] // the boxes themselves move between here and the slots
    pub(crate) pool: Vec<Box<Buffers>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) hand_over: Option<HandOver<S::Message>>,
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
        counters: Arc<Counters>,
    ) -> Self {
        let clock = network.clock();
        let now = clock.now();
        Self {
            read_buffer: vec![0; config.read_buffer_bytes.max(1)],
            #[cfg(feature = "tls")]
            plain_buffer: Vec::new(),
            config,
            poller,
            clock,
            now,
            slots: Slots(Slab::new()),
            deadlines: Wheel::default(),
            timers: Timers::default(),
            listeners: Vec::new(),
            dials: Dials::default(),
            groups: Groups::default(),
            inlet,
            deferred: VecDeque::new(),
            stopper,
            draining_until: None,
            receiving: None,
            to_read: Vec::new(),
            to_flush: Vec::new(),
            closing: Vec::new(),
            lingers: BTreeMap::new(),
            pool: Vec::new(),
            counters,
            hand_over: None,
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

    /// 128 random bits of the operating system's, good for secrets. `None` where it has none to give.
    pub fn secret(&self) -> Option<[u8; 16]> {
        self.network.secret()
    }

    /// The loop's limits.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the loop has done so far.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// What the loop does, to be looked at from any thread.
    pub fn watch(&self) -> Watch {
        Watch { counters: self.counters.clone() }
    }

    /// A way for others to post to this loop.
    pub fn mailbox(&self) -> Mailbox<S::Message> {
        self.inlet.mailbox().clone()
    }

    /// Lets the service have a message from itself, ahead of the mailbox's: in this tick, or, where its mail has been
    /// handled already, in the next. Unlike a post it always succeeds.
    pub fn defer(&mut self, message: S::Message) {
        self.deferred.push_back(message);
    }

    /// A way for others to stop this loop.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Starts to go down, as a signal would make it.
    pub fn stop(&mut self) {
        self.stopper.stop();
    }

    /// Whether the loop is going down.
    pub fn is_draining(&self) -> bool {
        self.draining_until.is_some()
    }

    /// Whether the connection is there and not closed by this side.
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.slots.find(id).is_some_and(Slot::is_open)
    }

    /// How many connections there are, those that are just beginning or ending included.
    pub fn connections(&self) -> usize {
        self.slots.0.len()
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

    /// Where the other end of a connection is. Asks the system.
    pub fn peer_addr(&self, id: ConnectionId) -> Option<Address> {
        self.slots.find(id)?.stream.peer_addr().ok()
    }

    /// Where this end of a connection is. Asks the system.
    pub fn local_addr(&self, id: ConnectionId) -> Option<Address> {
        self.slots.find(id)?.stream.local_addr().ok()
    }

    /// The listener that accepted a connection; `None` for one that none did.
    pub fn listener(&self, id: ConnectionId) -> Option<ListenerId> {
        let listener = self.slots.find(id)?.listener;
        (listener != NO_LISTENER).then_some(ListenerId(u32::from(listener)))
    }

    /// What TLS agreed on; `None` while it has not, and for a connection without.
    #[cfg(feature = "tls")]
    pub fn tls(&self, id: ConnectionId) -> Option<tls::Agreed> {
        let extras = self.slots.find(id)?.buffers.as_ref()?.extras.as_ref()?;
        extras.tls.as_ref()?.agreed()
    }

    /// Ends a connection with this tick. The first reason given is the one that is told, unless output is lost: then its
    /// peer sees a reset, and the service is told what cut the output off.
    pub(crate) fn end_now(&mut self, index: u32, reason: CloseReason) {
        let slot = &mut self.slots.0[index as usize];
        if slot.is(Flags::CLOSING) {
            return;
        }
        let loses_output =
            slot.has_unsent() || reason == CloseReason::OutputFull && !fault!("overfull-queue-lost-silently");
        if loses_output && !fault!("output-lost-silently") {
            slot.stream.reset_on_close();
        }
        let tells_loss = loses_output && !fault!("lost-output-reported-closed");
        let reason = if slot.is(Flags::FINISHING) && !tells_loss { slot.finish_reason() } else { reason };
        slot.set(Flags::CLOSING);
        self.closing.push((index, reason));
        if !fault!("deadline-outlives-connection") {
            self.deadlines.cancel(&mut self.slots, index);
        }
    }

    /// Gives a connection its slot; its socket may come later.
    pub(crate) fn insert(&mut self, stream: Stream, flags: Flags, state: S::Connection) -> ConnectionId {
        let serial = self.next_serial();
        let index = self.slots.0.insert(Slot::new(stream, serial, flags, state)) as u32;
        self.counters.connections.set(self.slots.0.len() as u64);
        ConnectionId { slot: index, serial }
    }

    /// Gives a connection that is there its slot, and registers it. What came with it is read in this tick.
    pub(crate) fn insert_connected(&mut self, mut stream: Stream, state: S::Connection) -> io::Result<ConnectionId> {
        self.poller.add_stream(&mut stream, self.slots.0.vacant_key())?;
        let id = self.insert(stream, Flags::READABLE | Flags::WRITABLE | Flags::TO_READ, state);
        self.to_read.push(id.slot);
        Ok(id)
    }

    #[allow(clippy::unnecessary_box_returns)] // the box is what is pooled
    pub(crate) fn take_buffers(&mut self) -> Box<Buffers> {
        self.pool.pop().unwrap_or_default()
    }

    /// What only some connections have, made where it is not there yet.
    pub(crate) fn extras(&mut self, id: ConnectionId) -> Option<&mut Extras> {
        let missing = self.slots.find(id)?.buffers.is_none();
        let fresh = missing.then(|| self.take_buffers());
        let slot = self.slots.find_mut(id)?;
        Some(slot.buffers.get_or_insert_with(|| fresh.unwrap_or_default()).extras_mut())
    }

    /// Returns a connection's buffers to the pool once they are empty.
    pub(crate) fn recycle(&mut self, index: u32) {
        let Some(slot) = self.slots.0.get_mut(index as usize) else { return };
        if slot.buffers.as_ref().is_some_and(|buffers| buffers.is_empty()) {
            let buffers = slot.buffers.take();
            self.pool_buffers(buffers);
        }
    }

    /// Returns the bytes of memory in buffers that no connection needs now, and that are kept for those that will: up to
    /// [`pooled_buffers_max`](crate::Config::pooled_buffers_max) of them.
    pub fn pooled_bytes(&self) -> usize {
        self.pool.iter().map(|buffers| buffers.held_bytes()).sum()
    }

    pub(crate) fn pool_buffers(&mut self, buffers: Option<Box<Buffers>>) {
        let Some(mut buffers) = buffers else { return };
        if self.pool.len() < self.config.pooled_buffers_max {
            buffers.reset(self.config.pooled_buffer_bytes_max);
            self.pool.push(buffers);
        }
    }

    /// Lets a connection be read in this tick, or the next where this one has read.
    pub(crate) fn will_read(&mut self, index: u32) {
        if self.slots.0[index as usize].raise(Flags::TO_READ) {
            self.to_read.push(index);
        }
    }

    /// Lets what is queued for a connection be sent at the end of the tick.
    pub(crate) fn will_flush(&mut self, index: u32) {
        if self.slots.0[index as usize].raise(Flags::TO_FLUSH) {
            self.to_flush.push(index);
        }
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
            .field("timers", &self.timers())
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

/// Tokens from here on name listeners; below, attempts to connect.
pub(crate) const LISTENERS: usize = usize::MAX / 2;
/// Tokens from here on name attempts to connect; below, connections' slots.
pub(crate) const ATTEMPTS: usize = LISTENERS / 2;

/// A listener, and what holds for those that it accepts.
#[derive(Debug)]
pub(crate) struct Accepting {
    /// `None` on a loop of a pool for which another accepts, and once the loop is going down.
    pub(crate) listener: Option<Listener>,
    /// Connections may be waiting. Edge-triggered: the kernel says so once.
    pub(crate) ready: bool,
    /// Accepting failed for want of descriptors or places; not to be tried before this.
    pub(crate) after: Option<Duration>,
    pub(crate) connections: usize,
    pub(crate) connections_max: usize,
    /// Accepts for all loops of the pool, not for this one alone.
    pub(crate) for_all: bool,
    pub(crate) socket: SocketOptions,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tls::Acceptor>,
}

impl Accepting {
    /// Where it listens.
    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }
}

#[derive(Debug)]
pub(crate) struct Slots<C>(pub(crate) Slab<Slot<C>>);

impl<C> Slots<C> {
    pub(crate) fn find(&self, id: ConnectionId) -> Option<&Slot<C>> {
        self.0.get(id.slot as usize).filter(|slot| fault!("generation-not-checked") || slot.serial == id.serial)
    }

    pub(crate) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Slot<C>> {
        self.0.get_mut(id.slot as usize).filter(|slot| slot.serial == id.serial)
    }

    pub(crate) fn id_at(&self, index: u32) -> ConnectionId {
        ConnectionId { slot: index, serial: self.0[index as usize].serial }
    }
}

/// A loop that is dropped before it has drained loses what is queued, and the peers are to see that.
impl<C> Drop for Slots<C> {
    fn drop(&mut self) {
        for (_, slot) in &mut self.0 {
            if slot.has_unsent() && !fault!("dropped-loop-ends-whole") {
                slot.stream.reset_on_close();
            }
        }
    }
}

impl<C> Nodes for Slots<C> {
    fn node(&mut self, key: u32) -> &mut wheel::Node {
        &mut self.0[key as usize].deadline
    }
}
