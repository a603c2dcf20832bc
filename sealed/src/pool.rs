//! Pools: several loops, one per core, that share nothing but their mailboxes.

use std::io;
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use crate::address::Address;
use crate::caught;
use crate::config::Config;
use crate::context::{Base, Context};
use crate::error::{Error, Result};
use crate::event_loop::EventLoop;
use crate::hand_over::HandOver;
use crate::id::ListenerId;
use crate::mailbox::{Inlet, Mailbox};
use crate::net::{Clock, Listener, Network, Poller, Waker};
use crate::service::{Panic, Service};
use crate::signal::Signals;
use crate::socket::{Bound, Listen, ListeningSocket};
use crate::stats::{Counters, Watch};
use crate::stopper::{Attendance, Stopper};

/// The place of a loop in its pool, passed to the function that creates its service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Place<M> {
    /// The index of the loop, from 0.
    pub index: usize,
    /// The mailboxes of all loops of the pool, in order, including the loop's own.
    pub mailboxes: Vec<Mailbox<M>>,
    /// Stops the whole pool.
    pub stopper: Stopper,
}

/// How the connections of a pool's listeners are distributed over its loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Every loop listens on the same port, and the kernel distributes the connections
    /// (`SO_REUSEPORT`). No loop waits for another, but one loop may get more than its share. Needs
    /// Unix; elsewhere listening fails with the kind `Unsupported`.
    SharedPort,
    /// The first loop accepts, and sends each connection to the loop with the fewest connections.
    LeastLoaded,
}

impl Default for Spread {
    /// Returns `SharedPort` on Linux and `LeastLoaded` elsewhere, because other kernels distribute
    /// connections unevenly or not at all.
    fn default() -> Self {
        if cfg!(target_os = "linux") { Self::SharedPort } else { Self::LeastLoaded }
    }
}

/// Several event loops, each on its own thread with its own service.
///
/// Every loop has the same listeners, no matter how their connections are [distributed](Spread).
/// The loops share nothing: services send each other messages, through the mailboxes of their
/// [`Place`].
///
/// ```
/// use sealed::{Config, ConnectionId, Context, Input, Mailbox, Place, Pool, Service};
///
/// /// Shouts each line to the clients of all loops.
/// struct Shout {
///     mailboxes: Vec<Mailbox<String>>,
/// }
///
/// impl Service for Shout {
///     type Connection = ();
///     type Message = String;
///     type Timer = ();
///
///     fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
///         while let Some(line) = input.take_until(b'\n') {
///             let line = String::from_utf8_lossy(line).to_uppercase();
///             for mailbox in &self.mailboxes {
///                 // A loop that is overloaded misses the line.
///                 let _ = mailbox.post(line.clone());
///             }
///         }
///     }
///
///     fn message(&mut self, cx: &mut Context<Self>, line: String) {
///         for id in cx.connection_ids() {
///             cx.write(id, line.as_bytes());
///         }
///     }
/// }
///
/// let mut pool = Pool::new(Config::default(), None)?;
/// println!("listening on {}", pool.listen("127.0.0.1:0")?.address);
/// # pool.stopper().stop();
/// pool.run(|place: Place<String>| Shout { mailboxes: place.mailboxes })?;
/// # Ok::<(), sealed::Error>(())
/// ```
#[derive(Debug)]
pub struct Pool<M> {
    config: Config,
    network: Network,
    seats: Vec<Seat<M>>,
    stopper: Stopper,
    listens: Vec<Listens>,
    spread: Spread,
    #[cfg(feature = "pin")]
    pinned: bool,
    signals: Signals,
}

/// An address that a pool listens on, and how its connections are distributed.
#[derive(Debug, Clone)]
struct Listens {
    listen: Listen,
    spread: Spread,
    address: Address,
}

/// The parts of a loop that exist before its thread starts.
#[derive(Debug)]
struct Seat<M> {
    poller: Poller,
    inlet: Inlet<M>,
    listeners: Vec<Option<Listener>>,
    attendance: Attendance,
    counters: Arc<Counters>,
    clock: Clock,
}

/// The parts that all loops of a pool are built from.
#[derive(Debug)]
struct Plan<M> {
    config: Config,
    network: Network,
    listens: Vec<Listens>,
    mailboxes: Vec<Mailbox<M>>,
    counters: Vec<Arc<Counters>>,
    stopper: Stopper,
    #[cfg(feature = "pin")]
    pinned: bool,
}

impl<M: Send + 'static> Pool<M> {
    /// Creates a pool of `loops` loops; `None` creates one loop per core.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Create`] if the system cannot provide a readiness queue or a waker.
    pub fn new(config: Config, loops: Option<NonZeroUsize>) -> Result<Self> {
        let loops = loops.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        Self::on(Network::System, config, loops)
    }

    pub(crate) fn on(network: Network, config: Config, loops: usize) -> Result<Self> {
        let mut wakers: Vec<Waker> = Vec::new();
        let mut halves = Vec::new();
        for _ in 0..loops {
            let poller = network.poller().map_err(Error::Create)?;
            let waker = poller.waker().map_err(Error::Create)?;
            wakers.push(waker.clone());
            halves.push((poller, Inlet::new(waker, config.mailbox_messages_max)));
        }
        let stopper = Stopper::new(wakers);
        let seat = |(poller, inlet)| {
            let attendance = Attendance::new(stopper.clone());
            Seat { poller, inlet, listeners: Vec::new(), attendance, counters: Arc::default(), clock: network.clock() }
        };
        let seats = halves.into_iter().map(seat).collect();
        Ok(Self {
            config,
            network,
            seats,
            stopper,
            listens: Vec::new(),
            spread: Spread::default(),
            #[cfg(feature = "pin")]
            pinned: false,
            signals: Signals::default(),
        })
    }

    /// Returns the limits of each loop, mutably. Change them before the pool listens.
    /// [`mailbox_messages_max`](Config::mailbox_messages_max) is fixed already, because the
    /// mailboxes exist.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Sets how the connections of listeners added from now on are distributed. Connections of Unix
    /// sockets always go to the loop with the fewest connections, because a Unix socket cannot be
    /// shared.
    pub fn spread(&mut self, spread: Spread) {
        self.spread = spread;
    }

    /// Pins the thread of each loop to a processor of its own, as far as there are enough
    /// processors. This works on Linux; elsewhere the system places the threads. Needs the feature
    /// `pin`.
    #[cfg(feature = "pin")]
    pub fn pin(&mut self, pinned: bool) {
        self.pinned = pinned;
    }

    /// Listens on an address with every loop. With port 0 the system chooses a port.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if the address cannot be resolved, bound or listened on.
    pub fn listen(&mut self, listen: impl Into<Listen>) -> Result<Bound> {
        let listen = listen.into();
        let bound = listen.at.clone().find(|address| self.bind(address, &listen));
        bound.map_err(|source| Error::Listen { address: listen.at.name, source })
    }

    /// Listens on a socket that is already listening, such as one passed by socket activation. The
    /// first loop accepts for all loops. `how` holds the settings of the connections; its address
    /// serves only as the name of the socket in errors.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if the socket cannot be taken over.
    pub fn adopt_listener(&mut self, socket: impl Into<ListeningSocket>, how: Listen) -> Result<Bound> {
        let socket = socket.into();
        let options = how.socket.clone().unwrap_or_else(|| self.config.socket.clone());
        let adopted =
            socket.local_addr().and_then(|address| Ok((address, self.network.adopt_listener(socket, &options)?)));
        let (address, listener) = match adopted {
            Ok(adopted) => adopted,
            Err(source) => return Err(Error::Listen { address: how.at.name, source }),
        };
        let mut listener = Some(listener);
        for seat in &mut self.seats {
            seat.listeners.push(listener.take());
        }
        Ok(self.record(Listens { listen: how, spread: Spread::LeastLoaded, address }))
    }

    fn bind(&mut self, mut address: Address, listen: &Listen) -> io::Result<Bound> {
        let (mut spread, mut reuse_port) = (self.spread, listen.reuse_port);
        match address {
            Address::Inet(asked_for) if self.seats.len() > 1 && spread == Spread::SharedPort => {
                address = self.network.reserve_port(asked_for)?.into();
                reuse_port = true;
            }
            _ if fault!("unix-socket-each") => {}
            _ => spread = Spread::LeastLoaded,
        }
        let options = listen.socket.clone().unwrap_or_else(|| self.config.socket.clone());
        let backlog = listen.backlog.unwrap_or(self.config.backlog);
        let mut bound = Vec::new();
        for index in 0..self.seats.len() {
            if index > 0 && spread == Spread::LeastLoaded {
                bound.push(None);
                continue;
            }
            let listener = self.network.bind(&address, reuse_port, backlog, &options)?;
            address = listener.local_addr()?;
            bound.push(Some(listener));
        }
        for (seat, listener) in self.seats.iter_mut().zip(bound) {
            seat.listeners.push(listener);
        }
        Ok(self.record(Listens { listen: listen.clone(), spread, address }))
    }

    fn record(&mut self, held: Listens) -> Bound {
        let bound = Bound { listener: ListenerId(self.listens.len() as u32), address: held.address.clone() };
        self.listens.push(held);
        bound
    }

    /// Returns the listeners of the pool and their addresses, in the order in which they were
    /// added. A listener has the same id on every loop.
    pub fn listeners(&self) -> impl Iterator<Item = (ListenerId, &Address)> {
        self.listens.iter().enumerate().map(|(index, held)| (ListenerId(index as u32), &held.address))
    }

    /// Returns the number of loops.
    pub fn loops(&self) -> usize {
        self.seats.len()
    }

    /// Makes SIGINT and SIGTERM stop the pool from now on: all loops drain within the drain limit,
    /// and a second signal makes that limit expire at once.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Signal`] if the signals cannot be caught.
    pub fn stop_on_signals(&mut self) -> Result<()> {
        let (registry, token) = self.seats[0].poller.signals().map_err(Error::Signal)?;
        self.signals.catch_stops(registry, token).map_err(Error::Signal)
    }

    /// Delivers these signals to the service of the first loop, as [`EventLoop::deliver_signals`]
    /// does.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Signal`] if the signals cannot be caught.
    pub fn deliver_signals(&mut self, signals: &[i32]) -> Result<()> {
        let (registry, token) = self.seats[0].poller.signals().map_err(Error::Signal)?;
        signals.iter().try_for_each(|signal| self.signals.catch(*signal, registry, token)).map_err(Error::Signal)
    }

    /// Returns a stopper of the whole pool, usable from any thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Returns 128 random bits from the operating system, suitable for secrets; in a simulation,
    /// bits that its seed determines. Returns `None` if the system cannot provide them.
    pub fn secret(&self) -> Option<[u8; 16]> {
        self.network.secret()
    }

    /// Returns the mailboxes of the loops, in order.
    pub fn mailboxes(&self) -> Vec<Mailbox<M>> {
        self.seats.iter().map(|seat| seat.inlet.mailbox().clone()).collect()
    }

    /// Returns one watch per loop, in order, that reads its counters from any thread.
    pub fn watches(&self) -> Vec<Watch> {
        self.seats.iter().map(|seat| Watch { counters: seat.counters.clone(), clock: seat.clock.clone() }).collect()
    }

    fn plan(&self) -> Plan<M> {
        Plan {
            config: self.config.clone(),
            network: self.network.clone(),
            listens: self.listens.clone(),
            mailboxes: self.mailboxes(),
            counters: self.seats.iter().map(|seat| seat.counters.clone()).collect(),
            stopper: self.stopper.clone(),
            #[cfg(feature = "pin")]
            pinned: self.pinned,
        }
    }

    /// Runs all loops until they have been stopped and have drained. The first loop runs on this
    /// thread. `service` is called once per loop, on the thread of that loop, so the service need
    /// not be `Send`.
    ///
    /// # Errors
    ///
    /// If a loop ends with an error, or if it or `service` panics ([`Error::Panicked`]), the other
    /// loops are stopped, and the error of the first such loop is returned. Returns
    /// [`Error::Thread`] if a thread cannot be started; the loops that have started are stopped.
    pub fn run<S, F>(self, service: F) -> Result<()>
    where
        S: Service<Message = M>,
        F: Fn(Place<M>) -> S + Send + Sync + 'static,
    {
        let service = Arc::new(service);
        let plan = Arc::new(self.plan());
        let mut seats = self.seats.into_iter().enumerate();
        let mut first = seats.next();
        let (mut threads, mut outcome) = (Vec::new(), Ok(()));
        for (index, seat) in seats {
            let (service, plan) = (service.clone(), plan.clone());
            let started = thread::Builder::new().name(format!("loop {index}")).spawn(move || {
                let _guard = StopAll(plan.stopper.clone());
                plan.run(index, seat, Signals::default(), &*service)
            });
            match started {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    self.stopper.stop();
                    outcome = Err(Error::Thread(error));
                    // The loops that run wait for those that have not left.
                    first = None;
                    break;
                }
            }
        }
        if let Some((index, seat)) = first {
            let _guard = StopAll(plan.stopper.clone());
            let signals = self.signals;
            let run = AssertUnwindSafe(|| plan.run(index, seat, signals, &*service));
            outcome = panic::catch_unwind(run).unwrap_or_else(|payload| Err(failure(payload)));
        }
        for thread in threads {
            outcome = outcome.and(thread.join().unwrap_or_else(|payload| Err(failure(payload))));
        }
        outcome
    }
}

#[cfg(feature = "sim")]
impl<M: Send + 'static> Pool<M> {
    /// Returns the loops themselves, for a simulation that runs them on one thread.
    pub(crate) fn into_loops<S: Service<Message = M>>(
        self,
        service: &impl Fn(Place<M>) -> S,
    ) -> Result<Vec<EventLoop<S>>> {
        let plan = self.plan();
        let seats = self.seats.into_iter().enumerate();
        seats.map(|(index, seat)| plan.make_loop(index, seat, service)).collect()
    }
}

impl<M: Send + 'static> Plan<M> {
    fn run<S: Service<Message = M>>(
        &self,
        index: usize,
        seat: Seat<M>,
        signals: Signals,
        service: &impl Fn(Place<M>) -> S,
    ) -> Result<()> {
        #[cfg(feature = "pin")]
        if self.pinned {
            crate::net::system::pin_to_processor(index).map_err(Error::Thread)?;
        }
        let mut event_loop = self.make_loop(index, seat, service)?;
        event_loop.signals = signals;
        let outcome = event_loop.run();
        // What is left for the service, such as a future, can panic while it is dropped.
        let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(event_loop)));
        outcome.and(dropped.map_err(failure))
    }

    fn make_loop<S: Service<Message = M>>(
        &self,
        index: usize,
        seat: Seat<M>,
        service: &impl Fn(Place<M>) -> S,
    ) -> Result<EventLoop<S>> {
        let Seat { poller, inlet, listeners, attendance, counters, clock } = seat;
        let place = Place { index, mailboxes: self.mailboxes.clone(), stopper: self.stopper.clone() };
        let base = Base {
            network: self.network.clone(),
            clock,
            registry: poller.registry().map_err(Error::Create)?,
            stopper: self.stopper.clone(),
        };
        let mut cx = Context::new(self.config.clone(), base, inlet, counters);
        for (listener, Listens { listen, spread, address }) in listeners.into_iter().zip(&self.listens) {
            let for_all = listener.is_some() && *spread == Spread::LeastLoaded && self.mailboxes.len() > 1;
            let added = cx.add_listener(listener, listen);
            let added = added.map_err(|source| Error::Listen { address: address.to_string(), source })?;
            cx.listeners[added.index()].for_all = for_all;
        }
        cx.hand_over = Some(HandOver::new(index, self.mailboxes.clone(), self.counters.clone()));
        Ok(EventLoop::assemble(poller, cx, attendance, service(place)))
    }
}

/// Returns the error for a panic, whose payload may panic itself when it is dropped.
fn failure(payload: Panic) -> Error {
    let error = Error::of_panic(&*payload);
    caught::discard(payload);
    error
}

/// Stops the other loops when one ends, even by a panic: half a pool would serve half of the
/// clients.
struct StopAll(Stopper);

impl Drop for StopAll {
    fn drop(&mut self) {
        if self.0.calls() == 0 {
            self.0.stop();
        }
    }
}
