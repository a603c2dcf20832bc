//! Several loops, one a core, that share nothing but their mailboxes.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::event_loop::{EventLoop, SIGNALS, WAKER};
use crate::mailbox::{Inlet, Mailbox};
use crate::net::{Listener, Network, Poller, Waker};
use crate::service::Service;
use crate::signal::Signals;
use crate::stopper::{Attendance, Stopper};

/// A loop's place in its pool, given to the service that is made for it.
#[derive(Debug, Clone)]
pub struct Place<M> {
    /// Which of the loops it is, from 0.
    pub index: usize,
    /// The mailboxes of all loops of the pool, its own among them, in order.
    pub mailboxes: Vec<Mailbox<M>>,
    /// Stops the whole pool.
    pub stopper: Stopper,
}

/// Several event loops, each on its own thread with a service of its own.
///
/// Every loop listens on every address; the kernel spreads the connections over them (`SO_REUSEPORT`).
#[derive(Debug)]
pub struct Pool<M> {
    config: Config,
    network: Network,
    seats: Vec<Seat<M>>,
    stopper: Stopper,
    addresses: Vec<SocketAddr>,
    signals: Option<Signals>,
}

/// What a loop needs before its thread exists.
#[derive(Debug)]
struct Seat<M> {
    poller: Poller,
    inlet: Inlet<M>,
    listeners: Vec<Listener>,
    attendance: Attendance,
}

impl<M: Send + 'static> Pool<M> {
    /// A pool of so many loops. `None`: one for each core.
    pub fn new(config: Config, loops: Option<NonZeroUsize>) -> Result<Self> {
        let loops = loops.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        Self::on(Network::System, config, loops)
    }

    pub(crate) fn on(network: Network, config: Config, loops: usize) -> Result<Self> {
        let mut wakers: Vec<Waker> = Vec::new();
        let mut halves = Vec::new();
        for _ in 0..loops {
            let poller = network.poller().map_err(Error::Create)?;
            let waker = poller.waker(WAKER).map_err(Error::Create)?;
            wakers.push(waker.clone());
            halves.push((poller, Inlet::new(waker, config.mailbox_messages_max)));
        }
        let stopper = Stopper::new(wakers);
        let seat = |(poller, inlet)| {
            let attendance = Attendance::new(stopper.clone());
            Seat { poller, inlet, listeners: Vec::new(), attendance }
        };
        let seats = halves.into_iter().map(seat).collect();
        Ok(Self { config, network, seats, stopper, addresses: Vec::new(), signals: None })
    }

    /// The limits of each loop, to be changed before it listens.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Listens on a TCP address with every loop. Port 0 lets the system choose one. Returns the address.
    pub fn listen(&mut self, address: SocketAddr) -> Result<SocketAddr> {
        let failed = |source| Error::Listen { address, source };
        let shared = self.seats.len() > 1;
        let mut bound = if shared { self.network.reserve_port(address).map_err(failed)? } else { address };
        for seat in &mut self.seats {
            let Config { backlog, silence_max, .. } = self.config;
            let listener = self.network.bind(bound, shared, backlog, silence_max);
            let listener = listener.map_err(failed)?;
            bound = listener.local_addr().map_err(failed)?;
            seat.listeners.push(listener);
        }
        self.addresses.push(bound);
        Ok(bound)
    }

    /// The addresses listened on, in the order of their [`ListenerId`](crate::ListenerId)s.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How many loops there are.
    pub fn loops(&self) -> usize {
        self.seats.len()
    }

    /// Lets SIGINT and SIGTERM stop the pool, from now on: all loops drain within the limit, and a second signal ends
    /// that limit.
    pub fn stop_on_signals(&mut self) -> Result<()> {
        let registry = self.seats[0].poller.registry();
        self.signals = Some(registry.and_then(|registry| Signals::catch(registry, SIGNALS)).map_err(Error::Signal)?);
        Ok(())
    }

    /// Stops the whole pool, from any thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// The loops' mailboxes, in order.
    pub fn mailboxes(&self) -> Vec<Mailbox<M>> {
        self.seats.iter().map(|seat| seat.inlet.mailbox().clone()).collect()
    }

    /// Runs all loops until they have been stopped and have drained; the first of them on this thread. `service`
    /// is called once for each, on the loop's own thread, so that what it makes need not be `Send`.
    pub fn run<S, F>(self, service: F) -> Result<()>
    where
        S: Service<Message = M>,
        F: Fn(Place<M>) -> S + Send + Sync + 'static,
    {
        let service = Arc::new(service);
        let mailboxes = self.mailboxes();
        let mut seats = self.seats.into_iter().enumerate();
        let first = seats.next();
        let mut threads = Vec::new();
        for (index, seat) in seats {
            let place = Place { index, mailboxes: mailboxes.clone(), stopper: self.stopper.clone() };
            let (service, config, network) = (service.clone(), self.config.clone(), self.network.clone());
            let started = thread::Builder::new().name(format!("loop {index}")).spawn(move || {
                let _guard = StopAll(place.stopper.clone());
                run_seat(config, network, seat, place, None, &*service)
            });
            match started {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    self.stopper.stop();
                    return Err(Error::Thread(error));
                }
            }
        }
        let mut outcome = Ok(());
        if let Some((index, seat)) = first {
            let place = Place { index, mailboxes, stopper: self.stopper.clone() };
            let _guard = StopAll(place.stopper.clone());
            outcome = run_seat(self.config, self.network, seat, place, self.signals, &*service);
        }
        for thread in threads {
            outcome = outcome.and(thread.join().unwrap_or(Err(Error::Panicked)));
        }
        outcome
    }
}

#[cfg(feature = "sim")]
impl<M: Send + 'static> Pool<M> {
    /// The loops themselves, for whoever turns them on one thread.
    pub(crate) fn into_loops<S: Service<Message = M>>(
        self,
        service: &impl Fn(Place<M>) -> S,
    ) -> Result<Vec<EventLoop<S>>> {
        let mailboxes = self.mailboxes();
        let seats = self.seats.into_iter().enumerate();
        let make = |(index, seat)| {
            let place = Place { index, mailboxes: mailboxes.clone(), stopper: self.stopper.clone() };
            make_loop(self.config.clone(), self.network.clone(), seat, place, service)
        };
        seats.map(make).collect()
    }
}

fn run_seat<S: Service>(
    config: Config,
    network: Network,
    seat: Seat<S::Message>,
    place: Place<S::Message>,
    signals: Option<Signals>,
    service: &impl Fn(Place<S::Message>) -> S,
) -> Result<()> {
    let mut event_loop = make_loop(config, network, seat, place, service)?;
    event_loop.signals = signals;
    event_loop.run()
}

fn make_loop<S: Service>(
    config: Config,
    network: Network,
    seat: Seat<S::Message>,
    place: Place<S::Message>,
    service: &impl Fn(Place<S::Message>) -> S,
) -> Result<EventLoop<S>> {
    let stopper = place.stopper.clone();
    let Seat { poller, inlet, listeners, attendance } = seat;
    let mut event_loop = EventLoop::assemble(config, network, poller, inlet, stopper, attendance, service(place));
    for listener in listeners {
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let failed = |source: io::Error| Error::Listen { address, source };
        event_loop.add_listener(listener).map_err(failed)?;
    }
    Ok(event_loop)
}

/// Stops the other loops when one ends, though it be by a panic: half a pool would answer half of the clients.
struct StopAll(Stopper);

impl Drop for StopAll {
    fn drop(&mut self) {
        if self.0.calls() == 0 {
            self.0.stop();
        }
    }
}
