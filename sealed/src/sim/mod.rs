//! A simulated network with virtual time, to test services on: the feature `sim`.
//!
//! Loops made by a [`Simulation`] are those that ship; only what `net/` hands them is exchanged. All of them run on one
//! thread, in an order that, like everything that happens by chance, comes from one seed: the same seed gives the
//! same run, to the last byte. Time passes only when everybody waits, so that a minute costs nothing.
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
//! let address = event_loop.listen("10.0.0.1:7777")?;
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
//! # What is simulated
//!
//! Stream sockets with edge-triggered readiness as Linux has it, listeners that share a port, backlogs, buffers that
//! fill up, latency and bandwidth ([`Link`]), resets, half-closed connections, peers that fall silent, kernels that give
//! up on them. By chance ([`Faults`]) or on demand ([`Peer`]): reads and writes of any length, would-block at any point,
//! accepting that fails, wake-ups that come late or twice, loops that stall, take long for a tick or are interrupted in the
//! middle of [`Mailbox::post`](crate::Mailbox::post), a clock that jumps.
//!
//! What a [`Peer`] sends is taken from it at once, however much it is; buffers fill up on the way from a loop only. A
//! tick takes at most 50 µs and what interrupts it, whatever it does, unless [`Faults::slow_tick`] or a service's own
//! [`Simulation::spend`] makes it longer. Sockets made elsewhere cannot be adopted. Loops are
//! stopped with their [`Stopper`](crate::Stopper). A simulation belongs to one thread; run several at once on several.

mod faults;
mod handles;
mod network;
mod peer;
mod random;
mod schedule;
mod trace;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use faults::{Faults, Link};
pub(crate) use handles::{Handle, Listener, Poller, Stream, Waker};
pub use peer::{Host, Peer};
pub use random::Random;

use crate::address::Address;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event_loop::EventLoop;
use crate::net::{self, Network};
use crate::pool::{Place, Pool};
use crate::service::Service;
use network::Net;
use schedule::Schedule;
use trace::Entry;

/// How long something may take by the simulation's clock before [`Simulation::settle`] and [`Peer`]s give up.
const PATIENCE: Duration = Duration::from_secs(600);

/// A network, its clock, and the loops that run on it. Clones are the same simulation.
#[derive(Clone)]
pub struct Simulation {
    schedule: Rc<Schedule>,
    seed: u64,
}

/// Names a loop of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoopId(usize);

impl Simulation {
    /// Starts an empty simulation. All that happens by chance comes from the seed.
    pub fn new(seed: u64) -> Self {
        Self { schedule: Rc::new(Schedule::new(Handle::new(Net::new(seed)))), seed }
    }

    /// The seed it was started with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What goes wrong by chance from now on. At first, nothing.
    pub fn set_faults(&self, faults: Faults) {
        self.net(|net| net.faults = faults);
    }

    /// The way of connections made from now on.
    pub fn set_link(&self, link: Link) {
        self.net(|net| net.link = Arc::new(link));
    }

    /// How many sockets all loops together may have open; accepting and connecting fail beyond. At first, any number.
    pub fn set_descriptors_max(&self, descriptors_max: usize) {
        self.net(|net| net.descriptors_max = descriptors_max);
    }

    /// How many sockets loops have open, listeners included.
    pub fn descriptors(&self) -> usize {
        self.net(|net| net.descriptors())
    }

    /// Lets attempts to connect to an address be lost, as behind a firewall: no answer comes. For good.
    pub fn set_unreachable(&self, address: impl Into<Address>) {
        let address = address.into();
        self.net(|net| net.unreachable.push(address));
    }

    /// Lets the next so many attempts to accept fail for want of descriptors.
    pub fn fail_accepts(&self, count: u32) {
        self.net(|net| net.accepts_to_fail = count);
    }

    // Loops.

    /// Makes a loop on this network, to be started when it is ready.
    pub fn event_loop<S: Service>(&self, config: Config, service: S) -> Result<EventLoop<S>> {
        EventLoop::on(self.network(), config, service)
    }

    /// Makes a pool on this network.
    pub fn pool<M: Send + 'static>(&self, config: Config, loops: usize) -> Result<Pool<M>> {
        Pool::on(self.network(), config, loops.max(1))
    }

    /// Lets a loop of this network run, from when time goes on.
    ///
    /// # Panics
    ///
    /// Where the loop is one of the operating system's.
    pub fn start<S: Service>(&self, event_loop: EventLoop<S>) -> LoopId {
        let poller = match &event_loop.cx.poller {
            net::Poller::Simulated(poller) => poller.index(),
            net::Poller::System(_) => panic!("the loop was not made by a simulation"),
        };
        LoopId(self.schedule.add(Box::new(event_loop), poller))
    }

    /// Lets the loops of a pool of this network run.
    pub fn start_pool<S: Service>(
        &self,
        pool: Pool<S::Message>,
        service: impl Fn(Place<S::Message>) -> S,
    ) -> Result<Vec<LoopId>> {
        let loops = pool.into_loops(&service)?;
        Ok(loops.into_iter().map(|event_loop| self.start(event_loop)).collect())
    }

    /// Lets a loop's service hear of a signal, as though it had asked for it.
    pub fn signal(&self, id: LoopId, signal: i32) {
        self.schedule.signal(id.0, signal);
    }

    /// Ends a loop where it stands, as when its process is killed: its sockets are closed by the kernel, and nothing
    /// else is done. To be called between two things that happen, not from within a loop.
    pub fn kill(&self, id: LoopId) {
        let killed = self.schedule.remove(id.0);
        // A kernel that closes a dead process's sockets knows nothing of what it had queued.
        self.net(|net| net.is_killing = true);
        drop(killed);
        self.net(|net| net.is_killing = false);
    }

    /// Whether a loop has neither ended nor been killed.
    pub fn is_running(&self, id: LoopId) -> bool {
        self.schedule.is_running(id.0)
    }

    /// Looks at a running loop, or does something with it between two ticks. `None` once it has ended.
    ///
    /// # Panics
    ///
    /// Where `S` is not the loop's service.
    #[allow(clippy::expect_used)] // a test's mistake
    pub fn with<S: Service, R>(&self, id: LoopId, look: impl FnOnce(&mut EventLoop<S>) -> R) -> Option<R> {
        self.schedule.with(id.0, |any| look(any.downcast_mut().expect("the loop's own service")))
    }

    /// Ticks of all loops so far.
    pub fn turns(&self) -> u64 {
        self.schedule.turns()
    }

    /// The most reads, writes and accepts of one tick so far, those of ticks that interrupted it included.
    pub fn busiest_tick(&self) -> u64 {
        self.schedule.busiest()
    }

    // Time.

    /// Time since the simulation was started.
    pub fn now(&self) -> Duration {
        self.schedule.handle.now()
    }

    /// Time since 1970 by the simulated calendar.
    pub fn unix_time(&self) -> Duration {
        self.schedule.handle.unix_time()
    }

    /// Moves the calendar, forth or back, and leaves the monotonic clock alone.
    pub fn set_unix_time(&self, unix_time: Duration) {
        self.net(|net| net.calendar_start = unix_time.saturating_sub(net.now));
    }

    /// Lets the monotonic clock jump ahead at once, as when the machine was suspended.
    pub fn jump(&self, by: Duration) {
        self.net(|net| {
            net.note(Entry::Jumps { by });
            net.now += by;
        });
    }

    /// Lets this time pass within a callback of a service, as though the callback took that long: other loops and peers go on
    /// meanwhile, and [`Context::now`](crate::Context::now) stands still. Outside a callback it is [`run_for`](Self::run_for).
    pub fn spend(&self, time: Duration) {
        self.schedule.spend(time);
    }

    /// Lets this time pass.
    pub fn run_for(&self, time: Duration) {
        let until = self.now() + time;
        while self.step(until) {}
    }

    /// Lets time pass until the condition holds, but no longer than `longest`. Returns whether it holds.
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

    /// Lets time pass until every byte has arrived and every loop sleeps; timers and deadlines that are more than a
    /// millisecond away are not waited for.
    ///
    /// # Panics
    ///
    /// If that is not so after ten minutes of simulated time: something goes round and round.
    pub fn settle(&self) {
        let settled = || self.net(|net| net.is_quiet()) && self.schedule.is_idle();
        assert!(self.run_until(PATIENCE, settled), "no rest within {PATIENCE:?}\n{}", self.trace());
    }

    fn step(&self, limit: Duration) -> bool {
        let goes_on = self.schedule.step(limit);
        if let Some(error) = self.schedule.take_failure() {
            panic!("a loop ended with an error: {error}\n{}", self.trace());
        }
        goes_on
    }

    // Peers.

    /// Connects a peer, from 127.0.0.1.
    pub fn connect(&self, address: impl Into<Address>) -> Peer {
        self.connect_from(IpAddr::from([127, 0, 0, 1]), address)
    }

    /// Connects a peer that has this address.
    pub fn connect_from(&self, from: IpAddr, address: impl Into<Address>) -> Peer {
        Peer::new(self.clone(), self.peer(from, &address.into(), None))
    }

    /// Connects a peer over a way of its own.
    pub fn connect_over(&self, link: Link, address: impl Into<Address>) -> Peer {
        Peer::new(self.clone(), self.peer(IpAddr::from([127, 0, 0, 1]), &address.into(), Some(link)))
    }

    fn peer(&self, from: IpAddr, address: &Address, link: Option<Link>) -> trace::End {
        let from = match address {
            Address::Tcp(_) => Address::Tcp(SocketAddr::new(from, 0)),
            Address::Unix(_) => Address::unix(""),
        };
        self.schedule.handle.peer(address, &from, link)
    }

    /// Listens for connections that loops make, with a test at the other end. Port 0 lets the network choose.
    pub fn listen(&self, address: impl Into<Address>) -> Result<Host> {
        let address = address.into();
        let bound = self.net(|net| net.listen_for_peers(&address));
        let (key, bound) = bound.map_err(|source| Error::Listen { address: address.to_string(), source })?;
        Ok(Host::new(self.clone(), key, bound))
    }

    // What happened.

    /// A digest of everything that happened so far, every byte included.
    pub fn digest(&self) -> u64 {
        self.net(|net| net.trace.digest())
    }

    /// Keeps so many entries of what happens, the newest ones. At first 4,096.
    pub fn keep_trace(&self, entries_max: usize) {
        self.net(|net| net.trace.kept_max = entries_max);
    }

    /// The newest of what happened, a line each.
    pub fn trace(&self) -> String {
        self.net(|net| net.trace.text())
    }

    /// Adds a remark to what happened.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        self.net(|net| net.note(Entry::Says { text }));
    }

    /// A random stream that depends on the seed alone, not on what happened so far. Streams of different numbers differ.
    pub fn random(&self, stream: u64) -> Random {
        Random::new(self.seed.rotate_left(32) ^ stream.wrapping_add(1))
    }

    fn network(&self) -> Network {
        Network::Simulated(self.schedule.handle.clone())
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
