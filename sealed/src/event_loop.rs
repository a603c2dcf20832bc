//! The loop itself: the steps of one tick, and their order. `hosted.rs` is a service's part in each
//! step. Of that part, `accepting.rs` and `dialing.rs` make connections, `reading.rs` passes input
//! to the service, `delivering.rs` messages, `closing.rs` sends output and ends connections, and
//! `datagrams.rs` serves datagram sockets.

mod accepting;
pub(crate) mod closing;
mod datagrams;
mod delivering;
mod dialing;
mod hosted;
pub(crate) mod reading;

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, mem};

pub(crate) use self::hosted::{Hosted, Tenant};
use crate::config::Config;
use crate::context::{Base, Context};
use crate::error::{Error, Result};
use crate::mailbox::{Inlet, Mailbox};
use crate::net::{Network, Poller, Readiness};
use crate::read_buffers::ReadBuffers;
use crate::service::Service;
use crate::signal::Signals;
use crate::socket::{Bound, Listen};
use crate::stats::{Counters, Watch};
use crate::stopper::{Attendance, Stopper};
use crate::token::Registered;

/// The longest time of one wait.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs a service over its connections, on one thread, and further services beside it.
///
/// ```
/// use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service};
///
/// struct Echo;
///
/// impl Service for Echo {
///     type Connection = ();
///     type Message = ();
///     type Timer = ();
///
///     fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
///         cx.write(id, input.take_all());
///     }
/// }
///
/// let mut event_loop = EventLoop::new(Config { connections_max: 1_000, ..Config::default() }, Echo)?;
/// event_loop.listen("127.0.0.1:0")?;
/// // The admin port echoes, too. It has its own limits.
/// let admin = event_loop.add_service(Config { connections_max: 10, ..Config::default() }, Echo)?;
/// println!("admin port at {}", admin.listen("127.0.0.1:0")?.address);
/// # event_loop.stopper().stop();
/// event_loop.run()?;
/// # Ok::<(), sealed::Error>(())
/// ```
///
/// # Ticks
///
/// Before its first wait, the loop calls [`started`](Service::started). A tick waits for events,
/// calls [`draining`](Service::draining) and [`signalled`](Service::signalled) if there is reason
/// to, and then goes through four steps, always in this order:
///
/// 1. Connections are accepted and made.
/// 2. Input is read: of connections, then of datagram sockets. After it, the readiness of
///    [sources](Service::ready) is reported.
/// 3. Messages are delivered, futures are polled, and then deadlines and timers expire.
/// 4. [`turned`](Service::turned) is called. Then output is flushed, and connections are closed and
///    freed. A connection that a call closes stays addressable until here.
///
/// # Several services
///
/// A loop is created with one service, and [`add_service`](Self::add_service) adds others: an HTTP
/// server, its client, a custom protocol and an admin port can share a loop. Each service has its
/// own connections, listeners, timers, messages and limits, and a [`Context`] of its own. Never
/// use an id with another context: ids carry no mark of their service, so it may find an unrelated
/// connection. The services take turns in each of the four steps of a tick, in the order in which
/// they were added, so no call is made from within another. They
/// communicate by [`Mailbox`]: a question contains an id and the mailbox for the answer, as in
/// `services` among the repository's examples. An idle connection costs the same as on a loop of
/// its own.
pub struct EventLoop<S: Service> {
    first: Hosted<S>,
    /// The services that were added. The index of each is its number, minus 1.
    others: Vec<Box<dyn Tenant + Send>>,
    pub(crate) poller: Poller,
    ready: Vec<Readiness>,
    buffers: ReadBuffers,
    pub(crate) signals: Signals,
    /// Signals to deliver to the first service in this tick.
    pub(crate) signalled: Vec<i32>,
    stops_seen: u32,
    attendance: Attendance,
    /// Set while a tick is running, and after a panic has unwound out of a tick at an unknown
    /// point.
    is_turning: bool,
}

impl<S: Service> EventLoop<S> {
    /// Creates a loop that does not listen on any address yet.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Create`] if the system cannot provide a readiness queue or a waker.
    pub fn new(config: Config, service: S) -> Result<Self> {
        Self::on(Network::System, config, service)
    }

    pub(crate) fn on(network: Network, config: Config, service: S) -> Result<Self> {
        let poller = network.poller().map_err(Error::Create)?;
        let waker = poller.waker().map_err(Error::Create)?;
        let registry = poller.registry().map_err(Error::Create)?;
        let inlet = Inlet::new(waker.clone(), config.mailbox_messages_max);
        let stopper = Stopper::new(vec![waker]);
        let attendance = Attendance::new(stopper.clone());
        let base = Base { clock: network.clock(), network, registry, stopper };
        let cx = Context::new(config, base, inlet, Arc::new(Counters::default()));
        Ok(Self::assemble(poller, cx, attendance, service))
    }

    pub(crate) fn assemble(poller: Poller, cx: Context<S>, attendance: Attendance, service: S) -> Self {
        Self {
            buffers: ReadBuffers::new(cx.config.read_buffer_bytes),
            first: Hosted::new(cx, service),
            others: Vec::new(),
            poller,
            ready: Vec::new(),
            signals: Signals::default(),
            signalled: Vec::new(),
            stops_seen: 0,
            attendance,
            is_turning: false,
        }
    }

    /// Listens on an address for the first service, as [`Context::listen`] does. With port 0 the
    /// system chooses a port.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if the address cannot be resolved, bound or listened on.
    pub fn listen(&mut self, listen: impl Into<Listen>) -> Result<Bound> {
        self.first.cx.listen(listen)
    }

    /// Adds a service to the loop, and returns the context of that service, to listen, to connect,
    /// and to get its mailbox. See [`Context::add_service`], which adds one while the loop runs.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Create`] if the loop has 256 services.
    pub fn add_service<T>(&mut self, config: Config, service: T) -> Result<&mut Context<T>>
    where
        T: Service<Connection: Send, Timer: Send> + Send,
    {
        self.first.cx.add_service(config, service)
    }

    /// Makes SIGINT and SIGTERM stop the loop: the loop drains within its drain limit, and a second
    /// signal makes that limit expire at once. This holds for the whole process until it ends:
    /// after [`run`](Self::run) has returned, the signals have no effect any more.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Signal`] if the signals cannot be caught, of the kind `Unsupported` on
    /// systems other than Unix and in a simulation.
    pub fn stop_on_signals(&mut self) -> Result<()> {
        let (registry, token) = self.poller.signals().map_err(Error::Signal)?;
        self.signals.catch_stops(registry, token).map_err(Error::Signal)
    }

    /// Delivers these signals to the first service, by [`signalled`](Service::signalled), instead
    /// of the default action of the process. Several signals of one number that arrive together may
    /// be delivered once.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Signal`] if the signals cannot be caught, as SIGKILL and a few others never
    /// can, and of the kind `Unsupported` on systems other than Unix and in a simulation.
    pub fn deliver_signals(&mut self, signals: &[i32]) -> Result<()> {
        let (registry, token) = self.poller.signals().map_err(Error::Signal)?;
        signals.iter().try_for_each(|signal| self.signals.catch(*signal, registry, token)).map_err(Error::Signal)
    }

    /// Returns a mailbox through which any thread can post to the first service.
    pub fn mailbox(&self) -> Mailbox<S::Message> {
        self.first.cx.mailbox()
    }

    /// Returns a stopper through which any thread can stop this loop.
    pub fn stopper(&self) -> Stopper {
        self.first.cx.stopper()
    }

    /// Returns a handle that reads the counters of the first service from any thread.
    pub fn watch(&self) -> Watch {
        self.first.cx.watch()
    }

    /// Returns the service, to inspect it between ticks.
    pub fn service(&self) -> &S {
        &self.first.service
    }

    /// Returns the service and its context, to start connections or timers between ticks.
    pub fn parts(&mut self) -> (&mut S, &mut Context<S>) {
        self.first.parts()
    }

    /// Returns the first of the added services that has this type, and its context, or `None` if
    /// there is none. Services that have not [started](Service::started) start here, unless a panic
    /// has ended the loop.
    pub fn parts_of<T: Service>(&mut self) -> Option<(&mut T, &mut Context<T>)> {
        // After a panic, no service starts any more.
        let _ = self.adopt();
        self.others.iter_mut().find_map(|other| other.as_any_mut().downcast_mut::<Hosted<T>>()).map(Hosted::parts)
    }

    /// Runs until the loop has been stopped and has drained. After that, posts to its mailboxes are
    /// refused with [`PostError::Gone`](crate::PostError::Gone).
    ///
    /// # Errors
    ///
    /// Returns [`Error::Panicked`] if a call of the service panicked (see [`Service::panicked`]),
    /// and [`Error::Wait`] if the readiness queue fails.
    pub fn run(&mut self) -> Result<()> {
        while self.turn(None)? {}
        Ok(())
    }

    /// Runs one tick, which waits at most `wait` for an event; `None` waits without limit. Returns
    /// whether another tick is to follow. Once it has returned false, do not call it again.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Panicked`] if a call of the service panicked, or if an earlier tick was
    /// broken off by a panic outside such a call, and from then on in every call. Returns
    /// [`Error::Wait`] if the readiness queue fails.
    pub fn turn(&mut self, wait: Option<Duration>) -> Result<bool> {
        let outcome = self.turn_once(wait);
        if !matches!(outcome, Ok(true)) && !fault!("posts-taken-after-end") {
            self.each(Tenant::end);
        }
        outcome
    }

    fn turn_once(&mut self, wait: Option<Duration>) -> Result<bool> {
        self.check_panic()?;
        if self.is_turning && !fault!("broken-loop-turns-on") {
            return Err(Error::Panicked("an earlier tick was broken off".to_owned()));
        }
        self.is_turning = true;
        let outcome = self.tick(wait);
        self.each(Tenant::end_tick);
        self.is_turning = false;
        outcome
    }

    fn tick(&mut self, wait: Option<Duration>) -> Result<bool> {
        self.first.start();
        self.adopt()?;
        self.wait(wait)?;
        self.heed_stops()?;
        for signal in mem::take(&mut self.signalled) {
            self.first.signal(signal);
        }
        self.check_panic()?;
        self.step(Tenant::establish)?;
        let mut buffers = mem::take(&mut self.buffers);
        let read = self.step(|tenant| tenant.read(&mut buffers));
        self.buffers = buffers;
        read?;
        self.step(Tenant::deliver)?;
        let mut has_shrunk = false;
        self.calls(|tenant| has_shrunk |= tenant.finish());
        if has_shrunk {
            self.ready.shrink_to_fit();
            self.buffers.shrink();
        }
        self.check_panic()?;
        let cx = &self.first.cx;
        cx.counters.tick(cx.clock.now().saturating_sub(cx.now));
        if !cx.is_draining() {
            return Ok(true);
        }
        let mut busy = false;
        self.each(|tenant| {
            busy |= tenant.delays_shutdown() && !(tenant.number() > 0 && fault!("added-service-cut-off"));
            // A service that was added in this tick still has to start, and may have connections.
            busy |= tenant.has_added() && !fault!("last-added-not-started");
        });
        Ok(self.attendance.anyone_busy(busy))
    }

    /// Adopts the services that were added, and starts them.
    fn adopt(&mut self) -> Result<()> {
        loop {
            self.check_panic()?;
            let mut added = Vec::new();
            self.each(|tenant| added.append(&mut tenant.take_added()));
            if added.is_empty() {
                return Ok(());
            }
            added.sort_by_key(|tenant| tenant.number());
            let left = self.first.cx.draining_until.map(|until| until.saturating_sub(self.first.cx.clock.now()));
            for tenant in &mut added {
                if !fault!("added-service-not-started") {
                    tenant.start();
                }
                if let Some(limit) = left.filter(|_| !fault!("late-service-not-drained")) {
                    tenant.begin_drain(limit, true);
                }
                if tenant.panic_message().is_some() && !fault!("services-started-after-panic") {
                    break;
                }
            }
            self.others.append(&mut added);
            // A service that was added may have added others, whose numbers come between.
            if !fault!("added-services-out-of-order") {
                self.others.sort_by_key(|tenant| tenant.number());
            }
        }
    }

    /// Visits the services in order.
    #[inline]
    fn each(&mut self, mut visit: impl FnMut(&mut dyn Tenant)) {
        visit(&mut self.first);
        self.others.iter_mut().for_each(|other| visit(&mut **other));
    }

    /// Lets the services make their calls in order, until one of them has panicked.
    #[inline]
    fn calls(&mut self, mut step: impl FnMut(&mut dyn Tenant)) {
        step(&mut self.first);
        let mut is_sound = self.first.panic_message().is_none();
        for other in &mut self.others {
            if is_sound || fault!("called-after-panic") {
                step(&mut **other);
                is_sound = other.panic_message().is_none();
            }
        }
    }

    /// Runs one step of a tick, and ends the tick here if a call has panicked.
    #[inline]
    fn step(&mut self, step: impl FnMut(&mut dyn Tenant)) -> Result<()> {
        self.calls(step);
        self.first.cx.clock.pass();
        self.check_panic()
    }

    /// Returns the error of the panic that has ended the loop, if one has.
    fn check_panic(&self) -> Result<()> {
        let of_others = || self.others.iter().find_map(|other| other.panic_message());
        let message = self.first.panic_message().or_else(of_others);
        message.map_or(Ok(()), |message| Err(Error::Panicked(message.to_owned())))
    }

    fn wait(&mut self, wait: Option<Duration>) -> Result<()> {
        // The timeouts of some systems have few bits: a longer wait is split by empty ticks.
        let timeout = earliest(wait, self.sleep()).map(|timeout| timeout.min(WAIT_MAX));
        self.poller.wait(timeout, &mut self.ready).map_err(Error::Wait)?;
        let now = self.first.cx.clock.now();
        self.each(|tenant| tenant.begin_tick(now));
        let mut ready_list = mem::take(&mut self.ready);
        for ready in ready_list.drain(..) {
            match Registered::of(ready.token) {
                (_, Registered::Waker) => {}
                (_, Registered::Signals) => self.take_signals(),
                (0, source) => self.first.note(source, &ready),
                (service, source) => {
                    if let Some(other) = self.others.get_mut(service - 1) {
                        other.note(source, &ready);
                    }
                }
            }
        }
        self.ready = ready_list;
        Ok(())
    }

    fn take_signals(&mut self) {
        for _ in 0..self.signals.take_stops() {
            self.first.cx.stopper.stop();
        }
        self.signals.take(&mut self.signalled);
    }

    /// Returns when the loop runs next if no event occurs.
    #[cfg(feature = "sim")]
    pub(crate) fn wake_time(&self) -> Option<Duration> {
        self.sleep().map(|wait| self.first.cx.clock.now().saturating_add(wait))
    }

    /// Returns how long, from now on, the loop can wait for an event; `None` means without limit.
    fn sleep(&self) -> Option<Duration> {
        if !self.signalled.is_empty() || self.first.cx.stopper.calls() != self.stops_seen {
            return Some(Duration::ZERO);
        }
        let others = self.others.iter().filter(|_| !fault!("added-service-not-awaited"));
        others.fold(self.first.sleep(), |wait, other| earliest(wait, other.sleep()))
    }

    fn heed_stops(&mut self) -> Result<()> {
        let calls = self.first.cx.stopper.calls();
        if calls != self.stops_seen {
            let is_first = self.stops_seen == 0;
            self.stops_seen = calls;
            let limit = if is_first && calls == 1 { self.first.cx.config.drain_limit } else { Duration::ZERO };
            self.calls(|tenant| tenant.begin_drain(limit, is_first));
            self.check_panic()?;
        }
        self.calls(Tenant::end_drain);
        self.check_panic()
    }
}

impl<S: Service> fmt::Debug for EventLoop<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop")
            .field("context", &self.first.cx)
            .field("other_services", &self.others.len())
            .finish_non_exhaustive()
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}
