//! A simulated network with virtual time, to test services; enabled by the feature `sim`.
//!
//! The loops of a [`Simulation`] run the same code as in production; only the implementation behind
//! `net/` is replaced. All loops run on one thread. Their order, like every random choice, comes
//! from one seed: the same seed gives the same run, to the last byte. Time passes only when all
//! loops wait, so a simulated minute costs nothing.
//!
//! ```
//! use std::time::Duration;
//! use sealed::sim::{Faults, Simulation};
//! use sealed::{Config, ConnectionId, Context, Input, Service};
//!
//! struct Echo;
//!
//! impl Service for Echo {
//!     type Connection = ();
//!     type Message = ();
//!     type Timer = ();
//!
//!     fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
//!         cx.write(id, input.take_all());
//!     }
//! }
//!
//! let sim = Simulation::new(7);
//! sim.set_faults(Faults { short_read: 0.5, short_write: 0.5, would_block: 0.2, ..Faults::default() });
//! let mut event_loop = sim.event_loop(Config::default(), Echo)?;
//! let address = event_loop.listen("10.0.0.1:7777")?.address;
//! sim.start(event_loop);
//!
//! let mut ann = sim.connect(address);
//! ann.send("hello");
//! ann.expect("hello");
//! sim.run_for(Duration::from_secs(3600));
//! ann.send("still there?");
//! ann.expect("still there?");
//! ann.finish();
//! ann.expect_end();
//! # Ok::<(), sealed::Error>(())
//! ```
//!
//! # Many seeds
//!
//! One run meets few of the possible faults and orders of events. [`check`] runs a test for each
//! seed of a range, on all cores. It reduces the first failure to the few random faults that it
//! needs, and reports how to repeat it.
//!
//! # What is simulated
//!
//! - Stream sockets with the edge-triggered readiness of Linux, listeners that share a port,
//!   backlogs, and buffers that fill up.
//! - Latency and bandwidth ([`Link`]), resets, half-closed connections, peers that fall silent, and
//!   kernels that give up on them; [hosts](Simulation::on_host), and
//!   [partitions](Simulation::partition) between them.
//! - Datagram sockets of loops and of tests ([`DatagramPeer`]), with multicast groups, refused
//!   datagrams, and buffers that fill up; datagrams that are lost, duplicated or overtaken.
//! - By chance ([`Faults`]) or on demand ([`Peer`]): reads and writes of any length, would-block at
//!   any point, accepts that fail, wake-ups that are late or duplicated, loops that stall, take
//!   long for a tick or are interrupted in the middle of [`Mailbox::post`](crate::Mailbox::post),
//!   and a clock that jumps.
//! - [Workers](Simulation::workers) whose work takes time, and [names](Simulation::set_name) whose
//!   lookup fails.
//! - On Unix, descriptors of other objects ([`SimSource`]): the test sets their readiness, and
//!   faults make the loop report it late, or report it although there is none.
//! - With the feature `disk`, disks that lose power, fill up and fail.
//!
#![cfg_attr(feature = "disk", doc = include_str!("disk/guide.md"))]
//!
//! # Limits of the simulation
//!
//! Bytes that a [`Peer`] sends leave the peer at once, no matter how many; buffers fill up only on
//! the way from a loop. The buffers of Unix datagram sockets never fill up, and the interface of a
//! multicast group makes no difference. A tick takes at most 50 µs plus the time of its
//! interruptions, whatever it does, unless [`Faults::slow_tick`] or a service's call of
//! [`Simulation::spend`] makes it longer. Sockets created elsewhere cannot be adopted, nor can
//! other real descriptors be [sources](crate::Service::ready). Loops are stopped with their
//! [`Stopper`](crate::Stopper). A simulation belongs to one thread; [`check`] runs several at once,
//! each on a thread of its own.
//!
//! By chance, a connection between two loops is reset or delayed, but it never falls silent for
//! good: [`Faults::vanish`] and [`Peer::vanish`] concern peers of the test. A test that wants this
//! calls [`Simulation::power_off`]. Between two instructions of a service nothing else runs, so
//! races of threads that share memory stay hidden; test those with loom or shuttle. The
//! repository's `docs/simulation-compared.md` compares this simulation with others, by bugs that
//! each finds or misses.

mod check;
mod datagrams;
#[cfg(feature = "disk")]
mod disk;
mod faults;
mod handles;
mod hosts;
mod network;
mod occurrences;
mod peer;
mod random;
mod schedule;
#[cfg(unix)]
mod sources;
mod trace;
mod workers;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use check::{Check, check};
pub use datagrams::DatagramPeer;
pub(crate) use datagrams::DatagramSocket;
#[cfg(feature = "disk")]
pub(crate) use disk::{Directory, Disk, File, Lock};
#[cfg(feature = "disk")]
pub use disk::{DiskFaults, SimDisk};
pub use faults::{Faults, Link};
pub(crate) use handles::{Handle, Listener, Poller, Stream, Waker};
pub use peer::{Peer, PeerListener};
pub use random::Random;
#[cfg(unix)]
pub use sources::SimSource;
pub(crate) use workers::Crew;

use crate::address::Address;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event_loop::EventLoop;
use crate::net::{self, Network};
use crate::pool::{Place, Pool};
use crate::service::Service;
use crate::workers::Workers;
use network::Net;
use schedule::Schedule;
use trace::Entry;

/// Simulated time after which [`Simulation::settle`] and [`Peer`]s give up.
const PATIENCE: Duration = Duration::from_secs(600);

/// A network, its clock, and the loops that run on it. Clones refer to the same simulation.
#[derive(Clone)]
pub struct Simulation {
    schedule: Rc<Schedule>,
    /// The host of the loops, pools and peers that are created with this handle.
    host: IpAddr,
    seed: u64,
}

/// Identifies a loop of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoopId(usize);

impl Simulation {
    /// Creates an empty simulation. All random choices come from `seed`.
    pub fn new(seed: u64) -> Self {
        let host = IpAddr::from([127, 0, 0, 1]);
        Self { schedule: Rc::new(Schedule::new(Handle::new(Net::new(seed)))), host, seed }
    }

    /// Returns the seed of the simulation.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Sets the random faults from now on. Initially there are none.
    pub fn set_faults(&self, faults: Faults) {
        self.net(|net| net.faults = faults);
    }

    /// Sets the link of connections made from now on.
    pub fn set_link(&self, link: Link) {
        self.net(|net| net.link = Arc::new(link));
    }

    /// Sets the maximum number of open sockets of all loops together; beyond it, accepting and
    /// connecting fail. Initially there is no limit.
    pub fn set_descriptors_max(&self, descriptors_max: usize) {
        self.net(|net| net.descriptors_max = descriptors_max);
    }

    /// Returns the number of open sockets of all loops, including listeners.
    pub fn descriptors(&self) -> usize {
        self.net(|net| net.descriptors())
    }

    /// Makes an address unreachable for the rest of the simulation: attempts to connect to it get
    /// no answer, as behind a firewall.
    pub fn set_unreachable(&self, address: impl Into<Address>) {
        let address = address.into();
        self.net(|net| net.unreachable.push(address));
    }

    /// Makes the next `count` attempts to accept fail for lack of file descriptors.
    pub fn fail_accepts(&self, count: u32) {
        self.net(|net| net.accepts_to_fail = count);
    }

    // Loops.

    /// Creates a loop on this network; pass it to [`start`](Self::start) when it is ready.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`EventLoop::new`].
    pub fn event_loop<S: Service>(&self, config: Config, service: S) -> Result<EventLoop<S>> {
        EventLoop::on(self.network(), config, service)
    }

    /// Creates a pool on this network; pass it to [`start_pool`](Self::start_pool) when it is
    /// ready.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`Pool::new`].
    pub fn pool<M: Send + 'static>(&self, config: Config, loops: usize) -> Result<Pool<M>> {
        Pool::on(self.network(), config, loops.max(1))
    }

    /// Creates workers on this network, with at least one thread. A piece of work occupies its
    /// thread for some simulated time, and then runs in one moment: its reports and its result come
    /// together, and work that is cancelled before that moment does not run. So work cannot see
    /// there that it [is cancelled](crate::Job::is_cancelled); test that with threads. The work
    /// must not wait for other work, or for a loop of the simulation. The work of a loop that is
    /// [killed](Self::kill) is lost if it has not run.
    pub fn workers(&self, threads: usize, waiting_max: usize) -> Workers {
        Workers::simulated(Crew::new(self.schedule.handle.clone(), threads.max(1), waiting_max))
    }

    /// Gives a host these addresses, in place of earlier ones, for every
    /// [`Resolver`](crate::Resolver) on workers of this simulation. Other names are unknown. The
    /// case of letters does not matter, nor does a dot at the end.
    pub fn set_name(&self, host: impl Into<String>, addresses: impl IntoIterator<Item = IpAddr>) {
        let (host, addresses) = (host.into(), addresses.into_iter().collect());
        self.net(|net| net.names.insert(workers::canonical_name(&host), addresses));
    }

    /// Starts a loop of this network. It runs as soon as simulated time passes.
    ///
    /// # Panics
    ///
    /// Panics if the loop belongs to the operating system's network.
    pub fn start<S: Service>(&self, event_loop: EventLoop<S>) -> LoopId {
        let poller = match &event_loop.poller {
            net::Poller::Simulated(poller) => poller.index(),
            net::Poller::System(_) => panic!("the loop was not made by a simulation"),
        };
        LoopId(self.schedule.add(Box::new(event_loop), poller))
    }

    /// Starts the loops of a pool of this network.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if a listener cannot be added to a loop.
    pub fn start_pool<S: Service>(
        &self,
        pool: Pool<S::Message>,
        service: impl Fn(Place<S::Message>) -> S,
    ) -> Result<Vec<LoopId>> {
        let loops = pool.into_loops(&service)?;
        Ok(loops.into_iter().map(|event_loop| self.start(event_loop)).collect())
    }

    /// Delivers a signal to the service of a loop, as if the service had requested it.
    pub fn signal(&self, id: LoopId, signal: i32) {
        self.schedule.signal(id.0, signal);
    }

    /// Ends a loop abruptly, as if its process were killed: the kernel closes its sockets, and the
    /// loop makes no further calls. Call this between steps of the simulation, not from within a
    /// loop.
    pub fn kill(&self, id: LoopId) {
        let killed = self.schedule.remove(id.0);
        // A kernel that closes the sockets of a dead process knows nothing of output queued in the
        // process.
        self.net(|net| net.is_killing = true);
        drop(killed);
        self.net(|net| net.is_killing = false);
        if let Some(poller) = self.schedule.poller(id.0) {
            // The threads of the process are gone, too.
            let forgotten = self.net(|net| net.forget_work(poller));
            drop(forgotten);
        }
    }

    /// Returns whether a loop is running: it has neither ended nor been killed.
    pub fn is_running(&self, id: LoopId) -> bool {
        self.schedule.is_running(id.0)
    }

    /// Calls `look` with a running loop, between two ticks. Returns `None` if the loop has ended.
    ///
    /// # Panics
    ///
    /// Panics if `S` is not the type of the loop's service.
    #[allow(clippy::expect_used)] // a mistake of the test
    pub fn with<S: Service, R>(&self, id: LoopId, look: impl FnOnce(&mut EventLoop<S>) -> R) -> Option<R> {
        self.schedule.with(id.0, |any| look(any.downcast_mut().expect("the loop's own service")))
    }

    /// Returns the number of ticks of all loops so far.
    pub fn turns(&self) -> u64 {
        self.schedule.turns()
    }

    /// Returns the highest number of reads, writes and accepts in one tick so far, including those
    /// of ticks that interrupted it.
    pub fn busiest_tick(&self) -> u64 {
        self.schedule.busiest()
    }

    // Time.

    /// Returns the time since the simulation was created.
    pub fn now(&self) -> Duration {
        self.schedule.handle.now()
    }

    /// Returns the time since 1970 by the simulated calendar clock.
    pub fn unix_time(&self) -> Duration {
        self.schedule.handle.unix_time()
    }

    /// Sets the calendar clock, forward or back, and leaves the monotonic clock unchanged.
    pub fn set_unix_time(&self, unix_time: Duration) {
        self.net(|net| net.calendar_start = unix_time.saturating_sub(net.now));
    }

    /// Moves the monotonic clock ahead at once, as if the machine had been suspended.
    pub fn jump(&self, by: Duration) {
        self.net(|net| {
            net.note(Entry::Jumps { by });
            net.now += by;
        });
    }

    /// Lets this much time pass within a call of a service, as if the call took that long: other
    /// loops and peers run meanwhile, and [`Context::now`](crate::Context::now) does not change.
    /// Outside such a call it is the same as [`run_for`](Self::run_for), except that the next step
    /// reports a loop that failed.
    pub fn spend(&self, time: Duration) {
        self.schedule.spend(time);
    }

    /// Lets this much time pass.
    ///
    /// # Panics
    ///
    /// Panics with the trace if a loop ends with an error.
    #[track_caller]
    pub fn run_for(&self, time: Duration) {
        let until = self.now() + time;
        while self.step(until) {}
    }

    /// Lets time pass until the condition holds, but at most `longest`. Returns whether the
    /// condition holds.
    ///
    /// # Panics
    ///
    /// Panics with the trace if a loop ends with an error.
    #[track_caller]
    pub fn run_until(&self, longest: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let until = self.now() + longest;
        loop {
            if condition() {
                return true;
            }
            if !self.step(until) {
                return condition();
            }
        }
    }

    /// Lets time pass until every byte has arrived and every loop sleeps. Does not wait for timers
    /// and deadlines that are more than a millisecond away, nor for what a
    /// [partition](Self::partition) holds up.
    ///
    /// # Panics
    ///
    /// Panics if this takes more than ten minutes of simulated time, which means that some activity
    /// never ends. Panics also if a loop ends with an error.
    #[track_caller]
    pub fn settle(&self) {
        let settled = || self.net(|net| net.is_quiet()) && self.schedule.is_idle();
        assert!(self.run_until(PATIENCE, settled), "no rest within {PATIENCE:?}\n{}", self.trace_of_panic());
    }

    #[track_caller]
    fn step(&self, limit: Duration) -> bool {
        let goes_on = self.schedule.step(limit);
        if let Some(error) = self.schedule.take_failure() {
            if matches!(error, Error::Panicked(_)) {
                check::loop_panicked();
            }
            panic!("a loop ended with an error: {error}\n{}", self.trace_of_panic());
        }
        goes_on
    }

    /// Returns the trace for the message of a panic; nothing in a check, whose report has it.
    fn trace_of_panic(&self) -> String {
        if check::is_recording() { String::new() } else { self.trace() }
    }

    // Peers.

    /// Connects a peer, from 127.0.0.1 or from [`on_host`](Self::on_host).
    pub fn connect(&self, address: impl Into<Address>) -> Peer {
        self.connect_from(self.host, address)
    }

    /// Connects a peer from this IP address.
    pub fn connect_from(&self, from: IpAddr, address: impl Into<Address>) -> Peer {
        Peer::new(self.clone(), self.peer(from, &address.into(), None))
    }

    /// Connects a peer over its own link.
    pub fn connect_over(&self, link: Link, address: impl Into<Address>) -> Peer {
        Peer::new(self.clone(), self.peer(self.host, &address.into(), Some(link)))
    }

    fn peer(&self, from: IpAddr, address: &Address, link: Option<Link>) -> trace::End {
        let from = match address {
            Address::Inet(_) => Address::Inet(SocketAddr::new(from, 0)),
            Address::Unix(_) => Address::unix(""),
        };
        self.schedule.handle.peer(address, &from, link)
    }

    /// Listens for connections of loops, with the test at the other end. With port 0 the network
    /// chooses a port.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if the address is in use or the limit of open sockets is reached.
    pub fn listen(&self, address: impl Into<Address>) -> Result<PeerListener> {
        let address = address.into();
        let bound = self.net(|net| net.listen_for_peers(&address));
        let (key, bound) = bound.map_err(|source| Error::Listen { address: address.to_string(), source })?;
        Ok(PeerListener::new(self.clone(), key, bound))
    }

    // What happened.

    /// Returns a digest of all events so far, including every byte.
    pub fn digest(&self) -> u64 {
        self.net(|net| net.trace.digest())
    }

    /// Sets how many of the newest trace entries are kept. Initially 4,096.
    pub fn keep_trace(&self, entries_max: usize) {
        self.net(|net| net.trace.kept_max = entries_max);
    }

    /// Returns the newest trace entries, one per line.
    pub fn trace(&self) -> String {
        self.schedule.handle.trace(usize::MAX)
    }

    /// Adds a remark to the trace.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        self.net(|net| net.note(Entry::Says { text }));
    }

    /// Returns a stream of random numbers that depends only on the seed and on `stream`, not on
    /// past events.
    pub fn random(&self, stream: u64) -> Random {
        Random::new(self.seed.rotate_left(32) ^ stream.wrapping_add(1))
    }

    fn network(&self) -> Network {
        Network::Simulated(self.schedule.handle.clone(), self.host)
    }

    fn net<R>(&self, look: impl FnOnce(&mut Net) -> R) -> R {
        look(&mut self.schedule.handle.lock())
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation").field("seed", &self.seed).field("now", &self.now()).finish_non_exhaustive()
    }
}
