//! The loop itself: the steps of one tick, and their order. `accepting.rs` and `dialing.rs` make
//! connections, `reading.rs` passes input to the service, `closing.rs` sends output and ends
//! connections.

mod accepting;
pub(crate) mod closing;
mod dialing;
mod reading;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use crate::address::Address;
use crate::config::Config;
use crate::context::{ATTEMPTS, Accepting, Context, Due, LISTENERS};
use crate::error::{CloseReason, Error, Result};
use crate::id::ConnectionId;
use crate::mailbox::{BATCH, Inlet, Mail, Mailbox};
use crate::net::{Network, Readiness};
use crate::service::{Panic, Service};
use crate::signal::Signals;
use crate::slot::Flags;
use crate::socket::Listen;
use crate::stats::{Counters, Watch};
use crate::stopper::{Attendance, Stopper};

/// The longest time of one wait.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Capacity up to which an empty list is kept for reuse.
const SPARE_MAX: usize = 1024;

pub(crate) const WAKER: usize = usize::MAX;
pub(crate) const SIGNALS: usize = usize::MAX - 1;

/// Runs one service over its connections, on one thread.
///
/// The order of a tick is always: wait, accept, read, deliver messages, expire timers,
/// [`turned`](Service::turned), flush, close, free. A connection that a call closes stays
/// addressable until the end of the tick.
#[derive(Debug)]
pub struct EventLoop<S: Service> {
    service: S,
    pub(crate) cx: Context<S>,
    ready: Vec<Readiness>,
    /// An empty list, to replace a list while its entries are handled and new ones are added.
    spare: Vec<u32>,
    /// Messages in transit from the mailbox to the service. Empty between ticks.
    mail: Vec<Mail<S::Message>>,
    /// Connection attempts for which an event was reported.
    answered: Vec<usize>,
    pub(crate) signals: Signals,
    /// Signals to deliver to the service in this tick.
    pub(crate) signalled: Vec<i32>,
    stops_seen: u32,
    attendance: Attendance,
    state: State,
}

/// Whether a loop can continue.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Between two ticks.
    Sound,
    /// In a tick; or a panic has unwound out of a tick, at an unknown point.
    Turning,
    /// A call of the service panicked, with this message.
    Panicked(String),
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
        let waker = poller.waker(WAKER).map_err(Error::Create)?;
        let inlet = Inlet::new(waker.clone(), config.mailbox_messages_max);
        let stopper = Stopper::new(vec![waker]);
        let attendance = Attendance::new(stopper.clone());
        let cx = Context::new(config, network, poller, inlet, stopper, Arc::new(Counters::default()));
        Ok(Self::assemble(cx, attendance, service))
    }

    pub(crate) fn assemble(cx: Context<S>, attendance: Attendance, service: S) -> Self {
        Self {
            service,
            cx,
            ready: Vec::new(),
            spare: Vec::new(),
            mail: Vec::new(),
            answered: Vec::new(),
            signals: Signals::default(),
            signalled: Vec::new(),
            stops_seen: 0,
            attendance,
            state: State::Sound,
        }
    }

    /// Listens on an address, as [`Context::listen`] does, and returns the address. With port 0 the
    /// system chooses a port, which the returned address contains.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Listen`] if the address cannot be resolved, bound or listened on.
    pub fn listen(&mut self, listen: impl Into<Listen>) -> Result<Address> {
        let listen = listen.into();
        let name = listen.at.name.clone();
        let listener = self.cx.listen(listen)?;
        self.cx.listeners[listener.index()].local_addr().map_err(|source| Error::Listen { address: name, source })
    }

    /// Makes SIGINT and SIGTERM stop the loop: the loop drains within its drain limit, and a second
    /// signal ends that limit.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Signal`] if the signals cannot be caught.
    pub fn stop_on_signals(&mut self) -> Result<()> {
        let registry = self.cx.poller.registry().map_err(Error::Signal)?;
        self.signals.catch_stops(registry, SIGNALS).map_err(Error::Signal)
    }

    /// Delivers these signals to the service, by [`signalled`](Service::signalled), instead of the
    /// default action of the process. Works on Unix only; several signals of one number that arrive
    /// together may be delivered once.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Signal`] if the signals cannot be caught.
    pub fn deliver_signals(&mut self, signals: &[i32]) -> Result<()> {
        let registry = self.cx.poller.registry().map_err(Error::Signal)?;
        signals.iter().try_for_each(|signal| self.signals.catch(*signal, registry, SIGNALS)).map_err(Error::Signal)
    }

    /// Returns a mailbox through which any thread can post to this loop.
    pub fn mailbox(&self) -> Mailbox<S::Message> {
        self.cx.mailbox()
    }

    /// Returns a stopper through which any thread can stop this loop.
    pub fn stopper(&self) -> Stopper {
        self.cx.stopper()
    }

    /// Returns a handle that reads the loop's counters from any thread.
    pub fn watch(&self) -> Watch {
        self.cx.watch()
    }

    /// Returns the service, to inspect it between ticks.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Returns the service and its context, to start connections or timers between ticks.
    pub fn parts(&mut self) -> (&mut S, &mut Context<S>) {
        // Time has passed since the last tick.
        self.cx.now = self.cx.clock.now();
        (&mut self.service, &mut self.cx)
    }

    /// Runs until the loop has been stopped and has drained. A loop of a pool also waits for the
    /// other loops of the pool. After that, posts to the loop's mailbox are refused with
    /// [`PostError::Gone`](crate::PostError::Gone).
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
    /// whether another tick is to follow.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Panicked`] if a call of the service panicked, and from then on in every
    /// call. Returns [`Error::Wait`] if the readiness queue fails.
    pub fn turn(&mut self, wait: Option<Duration>) -> Result<bool> {
        match &self.state {
            State::Sound => self.state = State::Turning,
            State::Turning if fault!("broken-loop-turns-on") => {}
            State::Turning => return Err(Error::Panicked("an earlier tick was broken off".to_owned())),
            State::Panicked(message) => return Err(Error::Panicked(message.clone())),
        }
        let outcome = self.tick(wait);
        if self.state == State::Turning {
            self.state = State::Sound;
        }
        if !matches!(outcome, Ok(true)) && !fault!("posts-taken-after-end") {
            self.cx.inlet.close();
        }
        outcome
    }

    fn tick(&mut self, wait: Option<Duration>) -> Result<bool> {
        self.wait(wait)?;
        self.heed_stops();
        for signal in mem::take(&mut self.signalled) {
            self.call(None, |service, cx| service.signalled(cx, signal));
        }
        self.accept();
        self.establish();
        self.go_on()?;
        self.read();
        self.go_on()?;
        self.mail();
        self.expire();
        self.go_on()?;
        self.call(None, Service::turned);
        self.flush();
        self.close();
        if let State::Panicked(message) = &self.state {
            return Err(Error::Panicked(message.clone()));
        }
        let length = self.cx.clock.now().saturating_sub(self.cx.now);
        self.cx.counters.tick(length);
        if !self.cx.is_draining() {
            return Ok(true);
        }
        let busy = !self.cx.slots.0.is_empty();
        Ok(self.attendance.anyone_busy(busy))
    }

    /// Runs between two steps of a tick: ends the tick here if a call has panicked.
    fn go_on(&mut self) -> Result<()> {
        self.cx.clock.pass();
        match &self.state {
            State::Panicked(message) => Err(Error::Panicked(message.clone())),
            _ => Ok(()),
        }
    }

    /// Calls the service, unless it has panicked. A panic resets at least the connection of the
    /// call; the service decides about the loop.
    #[inline]
    fn call(&mut self, id: Option<ConnectionId>, call: impl FnOnce(&mut S, &mut Context<S>)) {
        if self.state != State::Turning && !fault!("called-after-panic") {
            return;
        }
        let (service, cx) = (&mut self.service, &mut self.cx);
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| call(service, cx))) {
            self.panicked(id, payload);
        }
    }

    #[cold]
    fn panicked(&mut self, id: Option<ConnectionId>, payload: Panic) {
        let (service, cx) = (&mut self.service, &mut self.cx);
        let judged = panic::catch_unwind(AssertUnwindSafe(|| service.panicked(cx, id, payload)));
        match judged.and_then(|judged| judged) {
            Ok(()) => {
                if let Some(id) = id.filter(|_| !fault!("panicked-connection-goes-on")) {
                    self.cx.reset_because(id, CloseReason::Panicked);
                }
            }
            Err(payload) => {
                if let Error::Panicked(message) = Error::of_panic(&*payload) {
                    self.state = State::Panicked(message);
                }
            }
        }
    }

    fn wait(&mut self, wait: Option<Duration>) -> Result<()> {
        // The timeouts of some systems have few bits: a longer wait is split by empty ticks.
        let timeout = earliest(wait, self.sleep()).map(|timeout| timeout.min(WAIT_MAX));
        self.cx.poller.wait(timeout, &mut self.ready).map_err(Error::Wait)?;
        self.cx.now = self.cx.clock.now();
        let mut ready_list = mem::take(&mut self.ready);
        for ready in ready_list.drain(..) {
            match ready.token {
                WAKER => {}
                SIGNALS => self.take_signals(),
                LISTENERS.. => self.cx.listeners[ready.token - LISTENERS].ready = true,
                ATTEMPTS.. if ready.writable || ready.failed || ready.ended => {
                    self.answered.push(ready.token - ATTEMPTS);
                }
                ATTEMPTS.. => {}
                slot => self.note(slot as u32, &ready),
            }
        }
        self.ready = ready_list;
        Ok(())
    }

    /// Keeps an empty list for reuse, so that a tick allocates none, unless a burst has made the
    /// list long.
    fn keep_spare(&mut self, list: Vec<u32>) {
        if list.capacity() <= SPARE_MAX {
            self.spare = list;
        }
    }

    fn take_signals(&mut self) {
        for _ in 0..self.signals.take_stops() {
            self.cx.stopper.stop();
        }
        self.signals.take(&mut self.signalled);
    }

    /// Returns when the loop runs next if no event occurs.
    #[cfg(feature = "sim")]
    pub(crate) fn wake_time(&self) -> Option<Duration> {
        self.sleep().map(|wait| self.cx.clock.now().saturating_add(wait))
    }

    /// Returns how long, from now on, the loop can wait for an event; `None` means without limit.
    fn sleep(&self) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        if fault!("timer-late-by-tick") {
            return self.next_time();
        }
        // Due times are relative to the start of the last tick: subtract the time since then.
        self.next_time().map(|wait| self.cx.now.saturating_add(wait).saturating_sub(self.cx.clock.now()))
    }

    /// Returns whether work is left that no event will announce.
    fn has_work(&self) -> bool {
        let cx = &self.cx;
        cx.listeners.iter().any(Accepting::can_accept)
            || !cx.to_read.is_empty()
            || !cx.to_flush.is_empty()
            || !cx.closing.is_empty()
            || !cx.inlet.is_empty()
            || !cx.deferred.is_empty() && !fault!("deferred-left-waiting")
            || !self.signalled.is_empty()
            || cx.stopper.calls() != self.stops_seen
    }

    /// Returns the time from the start of the last tick until the next timer or time limit.
    fn next_time(&self) -> Option<Duration> {
        let cx = &self.cx;
        let until = |time: Duration| time.saturating_sub(cx.now);
        let wheels = earliest(cx.deadlines.next_wait(cx.now), cx.timers.wheel.next_wait(cx.now));
        // When this limit has passed, all connections are gone and the loop waits only for other
        // loops.
        let limit = cx.draining_until.filter(|limit| *limit > cx.now || fault!("drained-loop-spins"));
        let after = cx.listeners.iter().filter_map(|held| held.after).min();
        earliest(earliest(wheels, after.map(until)), limit.map(until))
    }

    /// Records an event that the kernel reported for a connection.
    fn note(&mut self, index: u32, ready: &Readiness) {
        let Some(slot) = self.cx.slots.0.get_mut(index as usize) else { return };
        if ready.failed {
            let kind = slot.stream.take_error().err().map_or(io::ErrorKind::ConnectionReset, |error| error.kind());
            return self.cx.end_now(index, CloseReason::Failed(kind));
        }
        if ready.ended {
            slot.set(Flags::END_SEEN);
        }
        if ready.readable || ready.ended {
            slot.set(Flags::READABLE);
            self.cx.will_read(index);
        }
        if ready.writable {
            let slot = &mut self.cx.slots.0[index as usize];
            slot.set(Flags::WRITABLE);
            let has_output = slot.output_len() > 0 && !fault!("output-left-when-ready");
            // A connection with extras may have output that is not in its outbox.
            if has_output || slot.is(Flags::FINISHING | Flags::SHUT) || slot.has_extras() {
                self.cx.will_flush(index);
            }
        }
    }

    fn heed_stops(&mut self) {
        let calls = self.cx.stopper.calls();
        if calls == self.stops_seen {
            return self.end_drain();
        }
        let first = self.stops_seen == 0;
        self.stops_seen = calls;
        let limit = if first && calls == 1 { self.cx.config.drain_limit } else { Duration::ZERO };
        let now = self.cx.now;
        let until = if fault!("drain-limit-overflows") { now + limit } else { now.saturating_add(limit) };
        self.cx.draining_until = Some(until);
        for held in &mut self.cx.listeners {
            held.ready = false;
            if let Some(mut listener) = held.listener.take() {
                // The listener is dropped next, so an error here has no effect.
                let _ = self.cx.poller.remove_listener(&mut listener);
            }
        }
        if first {
            self.call(None, |service, cx| service.draining(cx, limit));
        }
        self.end_drain();
    }

    fn end_drain(&mut self) {
        if self.cx.draining_until.is_some_and(|until| until <= self.cx.now) && !fault!("drain-limit-not-kept") {
            let left: Vec<u32> = self.cx.slots.0.iter().map(|(index, _)| index as u32).collect();
            for index in left {
                // Send what the kernel takes at once before the connection ends.
                if !fault!("shutdown-drops-at-once") {
                    self.ask_again(index);
                }
                self.cx.end_now(index, CloseReason::Shutdown);
            }
        }
    }

    fn mail(&mut self) {
        let deferred = if fault!("deferred-done-same-tick") { usize::MAX } else { self.cx.deferred.len() };
        for _ in 0..deferred {
            let Some(message) = self.cx.deferred.pop_front() else { break };
            self.call(None, |service, cx| service.message(cx, message));
        }
        // Rearm in every tick, even without messages: a post is not atomic, so its wake-up may come
        // after its message was taken.
        if fault!("rearmed-with-mail-only") && self.cx.inlet.is_empty() {
            return;
        }
        let rearms_late = fault!("mailbox-rearmed-late") && !self.cx.inlet.is_empty();
        if !fault!("mailbox-rearmed-late") {
            self.cx.inlet.rearm();
        }
        let mut batch = mem::take(&mut self.mail);
        let mut budget = self.cx.config.messages_per_tick;
        while budget > 0 {
            let taken = self.cx.inlet.take(&mut batch, budget.min(BATCH));
            if taken == 0 {
                if rearms_late {
                    self.cx.inlet.rearm();
                }
                break;
            }
            budget -= taken;
            for mail in batch.drain(..) {
                match mail {
                    Mail::Message(message) => {
                        self.cx.counters.messages.add(1);
                        self.call(None, |service, cx| service.message(cx, message));
                    }
                    Mail::Connection(handed) => self.take_over(*handed),
                }
            }
        }
        self.mail = batch;
    }

    fn expire(&mut self) {
        while let Some(index) = self.cx.deadlines.expire(&mut self.cx.slots, self.cx.now) {
            let id = self.cx.slots.id_at(index);
            if !fault!("kernel-not-asked-again") && self.ask_again(index) {
                continue;
            }
            if self.cx.is_open(id) {
                self.call(Some(id), |service, cx| service.timed_out(cx, id));
            } else {
                // The connection was closed, and its time to send the rest has passed.
                self.cx.end_now(index, CloseReason::TimedOut);
            }
        }
        while let Some((timer, due)) = self.cx.timers.expire(self.cx.now) {
            match due {
                Due::Once(value) | Due::Repeated(value, _) => {
                    self.cx.counters.timers_expired.add(1);
                    self.call(None, |service, cx| service.expired(cx, timer, value));
                }
                Due::Dial(_) if fault!("silent-address-holds-up") => {}
                Due::Dial(id) => self.dial_on(id),
                Due::Limit(id) => self.limit_passed(id),
                Due::Pace(id, way) => self.cx.go_on(id, way),
            }
        }
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}
