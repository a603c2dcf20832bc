//! The context through which a service acts: everything that its loop owns for it. `sockets.rs`
//! creates connections, `output.rs` acts on them, `datagrams.rs` holds datagram sockets,
//! `timers.rs` holds deadlines and timers, `services.rs` adds services to the loop, `works.rs`
//! passes work to other threads, `futures.rs` runs futures.

mod datagrams;
mod futures;
mod output;
mod services;
mod sockets;
mod tied;
mod timers;
mod works;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::datagrams::Datagrams;
use self::futures::Futures;
use self::tied::Tied;
pub(crate) use self::timers::{Due, Timers};
use self::works::Work;
use crate::address::Address;
use crate::config::Config;
use crate::connections::Connections;
use crate::dial::Dials;
use crate::event_loop::Tenant;
use crate::hand_over::HandOver;
use crate::id::{ConnectionId, ListenerId};
use crate::mailbox::{Inlet, Mailbox};
use crate::net::{Clock, Listener, Network, Registry, Stream};
use crate::rate::Groups;
use crate::read_buffers::ReadBuffers;
use crate::service::Service;
use crate::slot::{Flags, NO_LISTENER, Slot};
use crate::socket::SocketOptions;
use crate::source::Sources;
use crate::stats::{Counters, Stats, Watch};
use crate::stopper::Stopper;
use crate::tls;
use crate::token::Registered;

/// Everything that a loop owns for a service: connections, datagram sockets, timers, listeners, the
/// clock and the end of a mailbox.
///
/// A context belongs to the thread of its loop and is lent to its service for each call. A stale id
/// is harmless in every method: it finds nothing, and the call has no effect. Ids carry no mark of
/// their context, so never use the id of another service or another loop: it may find an unrelated
/// connection.
///
/// # How a connection ends
///
/// ```text
///          half_close
///   open ─────────────▶ half-closed: output ends after the queue, input goes on
///    │                       │
///    │ close                 │ the peer ends too
///    ├───────────────────────┤
///    │                       ▼
///    │                   closing: sends the queue and this side's end, discards input,
///    │                       │    and waits for the peer's end
///    │                       │
///    │                       ├─▶ the peer ends, or the linger time is over: Closed or Ended
///    │                       ╰─▶ output is left, and the peer takes none for the linger time: TimedOut
///    │
///    ╰─▶ at once: abort, reset (Aborted), time_out (TimedOut), a failure (Failed), a full queue
///        (OutputFull), the drain limit (Shutdown), a panic (Panicked)
/// ```
///
/// A half-closed or closing connection can also end at once. However a connection ends,
/// [`Service::closed`] is called once, at the end of the tick, with the
/// [reason](crate::CloseReason); from the next tick on the id is stale. The peer sees an ordinary
/// end only if the kernel has taken all output, and a reset otherwise.
///
/// | the service | calls | the reason is |
/// | --- | --- | --- |
/// | has nothing more to send | [`close`](Self::close) | `Closed`, or `Ended` if the peer had [ended](Service::ended) before |
/// | has nothing more to send, but still reads | [`half_close`](Self::half_close) | `Ended`, when the peer has ended too |
/// | gives the connection up | [`abort`](Self::abort) | `Aborted` |
/// | gives it up because its [deadline](Service::timed_out) has passed | [`time_out`](Self::time_out) | `TimedOut` |
/// | wants the peer to see a failure | [`reset`](Self::reset) | `Aborted` |
pub struct Context<S: Service> {
    pub(crate) config: Config,
    pub(crate) network: Network,
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    pub(crate) now: Duration,
    pub(crate) connections: Connections<S::Connection>,
    pub(crate) timers: Timers<S::Timer>,
    pub(crate) listeners: Vec<Accepting>,
    pub(crate) dials: Dials,
    pub(crate) works: Tied<Work>,
    pub(crate) futures: Futures<S::Message>,
    pub(crate) datagrams: Datagrams,
    pub(crate) groups: Groups,
    pub(crate) inlet: Inlet<S::Message>,
    pub(crate) deferred: VecDeque<S::Message>,
    pub(crate) sources: Sources,
    pub(crate) stopper: Stopper,
    pub(crate) draining_until: Option<Duration>,
    /// The loop's buffers, while the service reads.
    pub(crate) buffers: ReadBuffers,
    /// The connection whose input the service is handling. Bytes that the service leaves are not in
    /// the inbox of this connection yet.
    pub(crate) receiving: Option<u32>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) hand_over: Option<HandOver<S::Message>>,
    /// Services that the loop adopts before its next wait.
    pub(crate) added: Vec<Box<dyn Tenant + Send>>,
    serial: u32,
    random: u64,
}

/// The state that the services of a loop share.
pub(crate) struct Base {
    pub(crate) network: Network,
    pub(crate) clock: Clock,
    /// The registry of the service that the context belongs to.
    pub(crate) registry: Registry,
    pub(crate) stopper: Stopper,
}

impl<S: Service> Context<S> {
    pub(crate) fn new(config: Config, base: Base, inlet: Inlet<S::Message>, counters: Arc<Counters>) -> Self {
        let Base { network, clock, registry, stopper } = base;
        let now = clock.now();
        // Above the high mark, no queue would ever be reported as drained.
        let output_low_bytes = config.output_low_bytes.min(config.output_high_bytes.saturating_sub(1));
        // With none of these, what waits would wait for ever, and some of it would keep the loop
        // busy.
        let config = Config {
            output_low_bytes,
            read_bytes_per_tick: config.read_bytes_per_tick.max(1),
            datagrams_per_tick: config.datagrams_per_tick.max(1),
            accepts_per_tick: config.accepts_per_tick.max(1),
            messages_per_tick: config.messages_per_tick.max(1),
            input_bytes_max: config.input_bytes_max.max(1),
            ..config
        };
        Self {
            buffers: ReadBuffers::default(),
            connections: Connections::new(&config),
            config,
            registry,
            clock,
            now,
            timers: Timers::default(),
            listeners: Vec::new(),
            dials: Dials::default(),
            works: Tied::default(),
            futures: Futures::default(),
            datagrams: Datagrams::default(),
            groups: Groups::default(),
            inlet,
            deferred: VecDeque::new(),
            sources: Sources::default(),
            stopper,
            draining_until: None,
            receiving: None,
            counters,
            hand_over: None,
            added: Vec::new(),
            serial: 0,
            random: network.entropy(),
            network,
        }
    }
}

/// The loop: its clock, its mailbox, its counters and its end.
impl<S: Service> Context<S> {
    /// Returns the time since the loop's clock was started. It never goes back and does not change
    /// within a tick.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Returns the time since 1970. Each call reads the calendar clock, which can be set back.
    pub fn unix_time(&self) -> Duration {
        self.clock.unix_time()
    }

    /// Adds a remark to the trace of a simulation (the feature `sim`), where it appears with the
    /// number of the loop, between the events of the network. On the network of the operating
    /// system it does nothing, and `text` is not called.
    #[cfg_attr(not(feature = "sim"), doc = "```ignore")]
    #[cfg_attr(feature = "sim", doc = "```")]
    /// # use sealed::{Config, ConnectionId, Context, Input, Service};
    /// struct Counter(u64);
    ///
    /// impl Service for Counter {
    ///     type Connection = ();
    ///     type Message = ();
    ///     type Timer = ();
    ///
    ///     fn received(&mut self, cx: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
    ///         self.0 += input.take_all().len() as u64;
    ///         cx.note(|| format!("{} bytes so far", self.0));
    ///     }
    /// }
    ///
    /// let sim = sealed::sim::Simulation::new(1);
    /// let mut event_loop = sim.event_loop(Config::default(), Counter(0))?;
    /// let address = event_loop.listen("10.0.0.1:80")?.address;
    /// sim.start(event_loop);
    /// let mut peer = sim.connect(address);
    /// peer.send("hello");
    /// sim.settle();
    /// assert!(sim.trace().contains("5 bytes so far"));
    /// # Ok::<(), sealed::Error>(())
    /// ```
    #[inline]
    pub fn note(&self, text: impl FnOnce() -> String) {
        self.clock.note(text);
    }

    /// Returns 64 random bits, suitable for jitter and for identifiers that need not be secret.
    pub fn random(&mut self) -> u64 {
        split_mix(&mut self.random)
    }

    /// Returns 128 random bits from the operating system, suitable for secrets. Returns `None` if
    /// the system cannot provide them.
    pub fn secret(&self) -> Option<[u8; 16]> {
        self.network.secret()
    }

    /// Returns the limits of this service.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the counters of this service as of now.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Returns a handle that reads the counters of this service from any thread.
    pub fn watch(&self) -> Watch {
        Watch { counters: self.counters.clone(), clock: self.clock.clone() }
    }

    /// Returns a mailbox through which any thread can post to this service.
    pub fn mailbox(&self) -> Mailbox<S::Message> {
        self.inlet.mailbox().clone()
    }

    /// Queues a message from the service to itself. The loop delivers it before messages from the
    /// mailbox: in this tick, or, if this tick has already delivered its messages, in the next.
    /// Unlike a post, it always succeeds.
    pub fn defer(&mut self, message: S::Message) {
        self.deferred.push_back(message);
    }

    /// Returns a stopper through which any thread can stop this loop, or all loops of its pool.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Starts the shutdown of this loop, or of all loops of its pool, as a stop signal does. Call it
    /// once: a second call makes the drain limit expire at once, and cuts off the connections that
    /// are left.
    pub fn stop(&mut self) {
        self.stopper.stop();
    }

    /// Returns whether the loop is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining_until.is_some()
    }
}

/// Connections and their state.
impl<S: Service> Context<S> {
    /// Returns whether the connection exists and this side has not closed it.
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.connections.find(id).is_some_and(Slot::is_open)
    }

    /// Returns the number of connections, including those that are being made or are ending.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Returns the ids of all open connections. Costs a walk over the table of connections.
    pub fn connection_ids(&self) -> Vec<ConnectionId> {
        let open = self.connections.iter().filter(|(_, slot)| slot.is_open());
        open.map(|(index, slot)| ConnectionId { slot: index, serial: slot.serial }).collect()
    }

    /// Returns the service's state of a connection.
    pub fn state(&self, id: ConnectionId) -> Option<&S::Connection> {
        self.connections.find(id).map(|slot| &slot.state)
    }

    /// Returns the service's state of a connection, mutably.
    pub fn state_mut(&mut self, id: ConnectionId) -> Option<&mut S::Connection> {
        self.connections.find_mut(id).map(|slot| &mut slot.state)
    }

    /// Returns the address of the remote end of a connection. Makes a system call.
    pub fn peer_addr(&self, id: ConnectionId) -> Option<Address> {
        self.connections.find(id)?.stream.peer_addr().ok()
    }

    /// Returns the address of the local end of a connection. Makes a system call.
    pub fn local_addr(&self, id: ConnectionId) -> Option<Address> {
        self.connections.find(id)?.stream.local_addr().ok()
    }

    /// Returns the listener that accepted a connection; `None` if no listener did.
    pub fn listener(&self, id: ConnectionId) -> Option<ListenerId> {
        let listener = self.connections.find(id)?.listener;
        (listener != NO_LISTENER).then_some(ListenerId(u32::from(listener)))
    }

    /// Allocates the slot of a connection; its socket may be added later.
    pub(crate) fn insert(&mut self, stream: Stream, flags: Flags, state: S::Connection) -> ConnectionId {
        let serial = self.next_serial();
        let id = self.connections.insert(stream, serial, flags, state);
        self.counters.connections.set(self.connections.len() as u64);
        id
    }

    /// Allocates the slot of a connected socket and registers the socket. The loop reads from it in
    /// this tick.
    pub(crate) fn insert_connected(&mut self, mut stream: Stream, state: S::Connection) -> io::Result<ConnectionId> {
        self.registry.add_stream(&mut stream, Registered::Connection(self.connections.next_index()))?;
        let id = self.insert(stream, Flags::READABLE | Flags::WRITABLE, state);
        self.connections.will_read(id.slot);
        Ok(id)
    }

    /// Returns the bytes of memory in the pooled buffers, which no connection uses at the moment.
    /// The pool keeps up to [`pooled_buffers_max`](crate::Config::pooled_buffers_max) of them for
    /// reuse.
    pub fn pooled_bytes(&self) -> usize {
        self.connections.spares.bytes()
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

/// Returns the next number of a `SplitMix64` generator.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A listener, and the settings of the connections that it accepts.
#[derive(Debug)]
pub(crate) struct Accepting {
    /// `None` on a loop of a pool if another loop accepts for it, and once the loop is shutting
    /// down.
    pub(crate) listener: Option<Listener>,
    /// Whether connections may be waiting. Readiness is edge-triggered: the kernel reports it once.
    pub(crate) ready: bool,
    /// Set after accepting failed for lack of file descriptors or free slots: do not accept before
    /// this time.
    pub(crate) after: Option<Duration>,
    pub(crate) connections: usize,
    pub(crate) connections_max: usize,
    /// Accepts for all loops of the pool, not only for this one.
    pub(crate) for_all: bool,
    pub(crate) socket: SocketOptions,
    pub(crate) tls: Option<tls::Acceptor>,
}

impl Accepting {
    /// Returns the address on which it listens.
    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }
}
