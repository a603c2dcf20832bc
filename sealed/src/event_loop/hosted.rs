//! A service with its context, and its part in each step of a tick.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;
use std::{io, mem};

use crate::caught;
use crate::context::{Accepting, Context, Due};
use crate::error::{CloseReason, Error};
use crate::event_loop::earliest;
use crate::id::ConnectionId;
use crate::mailbox::Mail;
use crate::net::Readiness;
use crate::read_buffers::ReadBuffers;
use crate::service::{Panic, Service};
use crate::slot::Flags;
use crate::stats::Step;
use crate::token::Registered;

/// Capacity up to which an empty list is kept for reuse.
const SPARE_MAX: usize = 1024;

/// A service of a loop, with everything that is its own.
#[derive(Debug)]
pub(crate) struct Hosted<S: Service> {
    pub(crate) service: S,
    pub(crate) cx: Context<S>,
    has_started: bool,
    /// An empty list, to replace a list while its entries are handled and new ones are added.
    pub(super) spare: Vec<u32>,
    /// Messages in transit from the mailbox to the service. Empty between ticks.
    pub(super) mail: Vec<Mail<S::Message>>,
    /// Connection attempts for which an event was reported.
    pub(super) answered: Vec<usize>,
    /// The message of the panic after which the service gets no more calls.
    panicked: Option<String>,
}

/// The requests of a loop to each of its services, whatever their types. The order of the methods
/// is that of a tick.
pub(crate) trait Tenant: Any {
    /// Returns the number of the service on its loop.
    fn number(&self) -> usize;
    /// Takes the services that this one has added since the last call.
    fn take_added(&mut self) -> Vec<Box<dyn Tenant + Send>>;
    /// Returns whether the service has added others that the loop has not adopted yet.
    fn has_added(&self) -> bool;
    /// Returns how long, from now on, the service can wait for an event; `None` means without
    /// limit.
    fn sleep(&self) -> Option<Duration>;
    fn begin_tick(&mut self, now: Duration);
    fn end_tick(&mut self);
    /// Records an event of one of the service's sources.
    fn note(&mut self, source: Registered, ready: &Readiness);
    /// Calls [`Service::started`], once.
    fn start(&mut self);
    /// Closes the listeners. The connections have the time `limit` to end.
    fn begin_drain(&mut self, limit: Duration, is_first: bool);
    /// Ends the connections and the datagram sockets if the time limit of draining has passed.
    fn end_drain(&mut self);
    /// Accepts connections, and completes those that the service makes.
    fn establish(&mut self);
    /// Reads from connections, and reports the readiness of other sources.
    fn read(&mut self, lent: &mut ReadBuffers);
    /// Delivers messages, and expires timers.
    fn deliver(&mut self);
    /// Calls [`Service::turned`], sends output and frees connections. Returns whether so many were
    /// freed that the loop can release memory as well.
    fn finish(&mut self) -> bool;
    /// Returns the message of the panic after which there are no more calls.
    fn panic_message(&self) -> Option<&str>;
    /// Returns whether the service has connections for which a loop that is shutting down waits.
    fn delays_shutdown(&self) -> bool;
    /// Refuses messages from now on, and closes the datagram sockets.
    fn end(&mut self);
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<S: Service> Tenant for Hosted<S> {
    fn number(&self) -> usize {
        self.cx.registry.service()
    }

    fn take_added(&mut self) -> Vec<Box<dyn Tenant + Send>> {
        mem::take(&mut self.cx.added)
    }

    fn has_added(&self) -> bool {
        !self.cx.added.is_empty()
    }

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

    fn begin_tick(&mut self, now: Duration) {
        self.cx.now = now;
        self.cx.counters.begin_tick(now);
    }

    fn end_tick(&mut self) {
        self.cx.counters.end_tick();
    }

    fn note(&mut self, source: Registered, ready: &Readiness) {
        match source {
            Registered::Listener(index) => {
                if let Some(held) = self.cx.listeners.get_mut(index) {
                    held.ready = true;
                }
            }
            Registered::Attempt(attempt) if ready.writable || ready.failed || ready.ended => {
                self.answered.push(attempt);
            }
            Registered::Connection(slot) => self.note_connection(slot as u32, ready),
            Registered::Datagram(slot) => self.note_datagram(slot as u32, ready),
            Registered::Foreign(slot) => self.cx.sources.note(slot, ready),
            Registered::Attempt(_) | Registered::Waker | Registered::Signals => {}
        }
    }

    fn start(&mut self) {
        if !mem::replace(&mut self.has_started, true) {
            self.cx.now = self.cx.clock.now();
            if !fault!("starting-not-watched") {
                self.cx.counters.begin_tick(self.cx.now);
            }
            self.cx.counters.enter(Step::Starting);
            self.call(None, Service::started);
            self.cx.counters.end_tick();
        }
    }

    fn begin_drain(&mut self, limit: Duration, is_first: bool) {
        let now = self.cx.now;
        let until = if fault!("drain-limit-overflows") { now + limit } else { now.saturating_add(limit) };
        self.cx.draining_until = Some(until);
        for held in &mut self.cx.listeners {
            held.ready = false;
            if let Some(mut listener) = held.listener.take() {
                // The listener is dropped next, so an error here has no effect.
                let _ = self.cx.registry.remove_listener(&mut listener);
            }
        }
        if is_first {
            self.cx.counters.enter(Step::Draining);
            self.call(None, |service, cx| service.draining(cx, limit));
            self.cx.counters.leave();
        }
    }

    fn end_drain(&mut self) {
        if self.cx.draining_until.is_some_and(|until| until <= self.cx.now) && !fault!("drain-limit-not-kept") {
            self.cx.counters.enter(Step::Draining);
            let left: Vec<u32> = self.cx.connections.iter().map(|(index, _)| index).collect();
            for index in left {
                // Send what the kernel takes at once before the connection ends.
                if !fault!("shutdown-drops-at-once") {
                    self.ask_again(index);
                }
                self.cx.connections.end_now(index, CloseReason::Shutdown);
            }
            if !fault!("datagrams-open-past-drain-limit") {
                self.cx.close_datagrams();
            }
            self.cx.counters.leave();
        }
    }

    fn establish(&mut self) {
        self.cx.counters.enter(Step::Connecting);
        self.accept();
        self.complete_dials();
        self.cx.counters.leave();
    }

    fn read(&mut self, lent: &mut ReadBuffers) {
        self.cx.counters.enter(Step::Reading);
        mem::swap(&mut self.cx.buffers, lent);
        self.read_all();
        self.serve_datagrams();
        mem::swap(&mut self.cx.buffers, lent);
        self.report_sources();
        self.cx.counters.leave();
    }

    fn deliver(&mut self) {
        self.cx.counters.enter(Step::Messages);
        self.mail();
        self.poll_futures();
        self.cx.counters.enter(Step::Timers);
        self.expire();
        self.cx.counters.leave();
    }

    fn finish(&mut self) -> bool {
        self.cx.counters.enter(Step::Turned);
        self.call(None, Service::turned);
        self.cx.counters.enter(Step::Flushing);
        self.flush();
        self.cx.counters.enter(Step::Closing);
        let has_shrunk = self.close();
        self.cx.counters.leave();
        has_shrunk
    }

    fn panic_message(&self) -> Option<&str> {
        self.panicked.as_deref()
    }

    fn delays_shutdown(&self) -> bool {
        let is_waited_for = self.cx.config.delays_shutdown || fault!("every-service-delays-shutdown");
        is_waited_for && self.cx.connections.len() > 0
    }

    fn end(&mut self) {
        self.cx.inlet.close();
        if !fault!("queued-datagrams-lost-at-end") {
            self.cx.close_datagrams();
        }
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl<S: Service> Hosted<S> {
    pub(crate) fn new(cx: Context<S>, service: S) -> Self {
        Self {
            service,
            cx,
            has_started: false,
            spare: Vec::new(),
            mail: Vec::new(),
            answered: Vec::new(),
            panicked: None,
        }
    }

    /// Returns the service and its context, between ticks.
    pub(super) fn parts(&mut self) -> (&mut S, &mut Context<S>) {
        // Time has passed since the last tick.
        self.cx.now = self.cx.clock.now();
        (&mut self.service, &mut self.cx)
    }

    /// Delivers a signal of the process.
    pub(super) fn signal(&mut self, signal: i32) {
        self.cx.counters.enter(Step::Signals);
        self.call(None, |service, cx| service.signalled(cx, signal));
        self.cx.counters.leave();
    }

    /// Calls the service, unless it has panicked. A panic resets at least the connection of the
    /// call; the service decides about the loop.
    #[inline]
    pub(super) fn call(&mut self, id: Option<ConnectionId>, call: impl FnOnce(&mut S, &mut Context<S>)) {
        if self.panicked.is_some() && !fault!("called-after-panic") {
            // The call owns its message.
            return caught::discard(call);
        }
        let (service, cx) = (&mut self.service, &mut self.cx);
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| call(service, cx))) {
            self.judge(id, payload);
        }
    }

    /// Lets the service decide about a panic, unless an earlier one has ended the loop.
    #[cold]
    pub(super) fn judge(&mut self, id: Option<ConnectionId>, payload: Panic) {
        if self.panicked.is_some() && !fault!("judged-after-panic") {
            return caught::discard(payload);
        }
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
                    self.panicked = Some(message);
                }
                caught::discard(payload);
            }
        }
    }

    /// Keeps an empty list for reuse, so that a tick allocates none, unless a burst has made the
    /// list long.
    pub(super) fn keep_spare(&mut self, list: Vec<u32>) {
        if list.capacity() <= SPARE_MAX {
            self.spare = list;
        }
    }

    /// Returns whether work is left that no event will announce.
    fn has_work(&self) -> bool {
        let cx = &self.cx;
        !self.has_started
            || cx.listeners.iter().any(Accepting::can_accept)
            || cx.connections.has_work()
            || !cx.datagrams.to_serve.is_empty()
            || !cx.inlet.is_empty()
            || !cx.deferred.is_empty() && !fault!("deferred-left-waiting")
            || !cx.added.is_empty()
            || cx.futures.is_any_woken() && !fault!("woken-future-sleeps")
            || cx.sources.due() > 0 && !fault!("ready-again-sleeps")
    }

    /// Returns the time from the start of the last tick until the next timer or time limit.
    fn next_time(&self) -> Option<Duration> {
        let cx = &self.cx;
        let until = |time: Duration| time.saturating_sub(cx.now);
        let wheels = earliest(cx.connections.next_wait(cx.now), cx.timers.wheel.next_wait(cx.now));
        // When this limit has passed, all connections are gone and the loop waits only for other
        // loops.
        let limit = cx.draining_until.filter(|limit| *limit > cx.now || fault!("drained-loop-spins"));
        let after = cx.listeners.iter().filter_map(|held| held.after).min();
        earliest(earliest(wheels, after.map(until)), limit.map(until))
    }

    /// Records an event that the kernel reported for a connection.
    fn note_connection(&mut self, index: u32, ready: &Readiness) {
        let Some(slot) = self.cx.connections.get_mut(index) else { return };
        if ready.failed {
            let kind = slot.stream.take_error().err().map_or(io::ErrorKind::ConnectionReset, |error| error.kind());
            return self.cx.connections.end_now(index, CloseReason::Failed(kind));
        }
        if ready.ended {
            slot.set(Flags::END_SEEN);
        }
        if ready.readable || ready.ended {
            slot.set(Flags::READABLE);
            self.cx.connections.will_read(index);
        }
        if ready.writable {
            let slot = &mut self.cx.connections[index];
            slot.set(Flags::WRITABLE);
            let has_output = slot.output_len() > 0 && !fault!("output-left-when-ready");
            // A connection with extras may have output that is not in its outbox.
            if has_output || slot.is(Flags::FINISHING | Flags::SHUT) || slot.has_extras() {
                self.cx.connections.will_flush(index);
            }
        }
    }

    /// Calls the service for each source for which something was reported, or a call requested.
    /// Calls that are requested from now on come in the next tick.
    fn report_sources(&mut self) {
        let due = if fault!("ready-again-same-tick") { usize::MAX } else { self.cx.sources.due() };
        for _ in 0..due {
            let Some(source) = self.cx.sources.next() else { break };
            if let Some(ready) = self.cx.sources.take(source) {
                self.call(None, |service, cx| service.ready(cx, source, ready));
            }
        }
    }

    fn expire(&mut self) {
        while let Some(index) = self.cx.connections.next_expired(self.cx.now) {
            let id = self.cx.connections.id_at(index);
            if !fault!("kernel-not-asked-again") && self.ask_again(index) {
                continue;
            }
            if self.cx.is_open(id) {
                self.call(Some(id), |service, cx| service.timed_out(cx, id));
            } else {
                // The connection was closed, and its time to send the rest has passed.
                self.cx.connections.end_now(index, CloseReason::TimedOut);
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
