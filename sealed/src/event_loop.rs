//! The loop itself: what happens in one tick, and in which order. `reading.rs` is how input gets to the service.

mod reading;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use std::{io, mem};

use slab::Slab;

use crate::config::Config;
use crate::context::{Accepting, Context, LISTENERS};
use crate::error::{CloseReason, Error, Result};
use crate::id::{ListenerId, TimerId};
use crate::mailbox::{Inlet, Mailbox};
use crate::net::{Listener, Network, Poller, Readiness};
use crate::service::Service;
use crate::signal::Signals;
use crate::slot::Flags;
use crate::stopper::{Attendance, Stopper};

pub(crate) const WAKER: usize = usize::MAX;
pub(crate) const SIGNALS: usize = usize::MAX - 1;

/// Runs one service over its connections, on one thread.
///
/// A tick is always: wait, accept, read, mail, timers, [`turned`](Service::turned), flush, close, free. What one
/// call closes stays addressable until the tick's end.
#[derive(Debug)]
pub struct EventLoop<S: Service> {
    service: S,
    cx: Context<S>,
    ready: Vec<Readiness>,
    connecting: Vec<u32>,
    pub(crate) signals: Option<Signals>,
    stops_seen: u32,
    attendance: Attendance,
    /// Accepting failed for want of descriptors or places; not to be tried before this.
    accept_after: Option<Duration>,
}

impl<S: Service> EventLoop<S> {
    /// Makes a loop that listens nowhere yet.
    pub fn new(config: Config, service: S) -> Result<Self> {
        Self::on(Network::System, config, service)
    }

    pub(crate) fn on(network: Network, config: Config, service: S) -> Result<Self> {
        let poller = network.poller().map_err(Error::Create)?;
        let waker = poller.waker(WAKER).map_err(Error::Create)?;
        let inlet = Inlet::new(waker.clone(), config.mailbox_messages_max);
        let stopper = Stopper::new(vec![waker]);
        let attendance = Attendance::new(stopper.clone());
        Ok(Self::assemble(config, network, poller, inlet, stopper, attendance, service))
    }

    pub(crate) fn assemble(
        config: Config,
        network: Network,
        poller: Poller,
        inlet: Inlet<S::Message>,
        stopper: Stopper,
        attendance: Attendance,
        service: S,
    ) -> Self {
        Self {
            service,
            cx: Context::new(config, network, poller, inlet, stopper),
            ready: Vec::new(),
            connecting: Vec::new(),
            signals: None,
            stops_seen: 0,
            attendance,
            accept_after: None,
        }
    }

    /// Listens on a TCP address; of several that a name stands for, on the first that can be had.
    pub fn listen(&mut self, address: impl ToSocketAddrs) -> Result<SocketAddr> {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut failure = Error::Listen { address: unspecified, source: io::ErrorKind::NotFound.into() };
        let addresses = address.to_socket_addrs().map_err(|source| Error::Listen { address: unspecified, source })?;
        for address in addresses {
            match self.cx.listen(address) {
                Ok(listener) => return Ok(self.cx.local_addr(listener).unwrap_or(address)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    pub(crate) fn add_listener(&mut self, listener: Listener) -> io::Result<ListenerId> {
        self.cx.add_listener(listener)
    }

    /// Lets SIGINT and SIGTERM stop the loop: it drains within its limit, and a second signal ends that limit.
    pub fn stop_on_signals(&mut self) -> Result<()> {
        let registry = self.cx.poller.registry();
        self.signals = Some(registry.and_then(|registry| Signals::catch(registry, SIGNALS)).map_err(Error::Signal)?);
        Ok(())
    }

    /// A way for others to post to this loop.
    pub fn mailbox(&self) -> Mailbox<S::Message> {
        self.cx.mailbox()
    }

    /// A way for others to stop this loop.
    pub fn stopper(&self) -> Stopper {
        self.cx.stopper()
    }

    /// The service, to be looked at between ticks.
    pub fn service(&self) -> &S {
        &self.service
    }

    #[cfg(feature = "sim")]
    pub(crate) fn poller(&self) -> &Poller {
        &self.cx.poller
    }

    /// The service and its context, to start connections or timers from outside a tick.
    pub fn parts(&mut self) -> (&mut S, &mut Context<S>) {
        (&mut self.service, &mut self.cx)
    }

    /// Runs until the loop, and with it the pool that it may be of, has been stopped and has drained.
    pub fn run(&mut self) -> Result<()> {
        while self.turn(None)? {}
        Ok(())
    }

    /// One tick, which waits at most `wait` for something to happen. Returns whether there is to be another.
    pub fn turn(&mut self, wait: Option<Duration>) -> Result<bool> {
        self.wait(wait)?;
        self.heed_stops();
        self.accept();
        self.establish();
        self.read();
        self.mail();
        self.expire();
        self.service.turned(&mut self.cx);
        self.flush();
        self.close();
        self.cx.stats.ticks += 1;
        if !self.cx.is_draining() {
            return Ok(true);
        }
        let busy = !self.cx.slots.0.is_empty();
        Ok(self.attendance.anyone_busy(busy))
    }

    fn wait(&mut self, wait: Option<Duration>) -> Result<()> {
        let timeout = earliest(wait, self.next_wait());
        self.cx.poller.wait(timeout, &mut self.ready).map_err(Error::Wait)?;
        self.cx.now = self.cx.clock.now();
        let mut ready_list = mem::take(&mut self.ready);
        for ready in ready_list.drain(..) {
            match ready.token {
                WAKER => {}
                SIGNALS => {
                    let count = self.signals.as_mut().map_or(0, Signals::take);
                    for _ in 0..count {
                        self.cx.stopper.stop();
                    }
                }
                LISTENERS.. => self.cx.listeners[ready.token - LISTENERS].ready = true,
                slot => self.note(slot as u32, &ready),
            }
        }
        self.ready = ready_list;
        Ok(())
    }

    /// When the loop goes on though nothing happen.
    #[cfg(feature = "sim")]
    pub(crate) fn wake_time(&self) -> Option<Duration> {
        self.next_wait().map(|wait| self.cx.now + wait)
    }

    /// How long there is nothing to do unless something happens; for ever, if `None`.
    fn next_wait(&self) -> Option<Duration> {
        if self.has_work() { Some(Duration::ZERO) } else { self.next_time() }
    }

    /// Whether something was left over that no event will announce.
    fn has_work(&self) -> bool {
        let accepting = self.accept_after.is_none() && self.cx.listeners.iter().any(|held| held.ready);
        let cx = &self.cx;
        accepting
            || !cx.to_read.is_empty()
            || !cx.to_flush.is_empty()
            || !cx.closing.is_empty()
            || !cx.inlet.is_empty()
            || cx.stopper.calls() != self.stops_seen
    }

    /// The wait until something falls due.
    fn next_time(&self) -> Option<Duration> {
        let cx = &self.cx;
        let until = |time: Duration| time.saturating_sub(cx.now);
        let wheels = earliest(cx.deadlines.next_wait(cx.now), cx.alarms.next_wait(cx.now));
        // When it has passed, all are gone, and only other loops are waited for.
        let limit = cx.draining_until.filter(|limit| *limit > cx.now);
        earliest(earliest(wheels, self.accept_after.map(until)), limit.map(until))
    }

    /// Notes what the kernel reported of a connection.
    fn note(&mut self, index: u32, ready: &Readiness) {
        let Some(slot) = self.cx.slots.0.get_mut(index as usize) else { return };
        if slot.is(Flags::CONNECTING) {
            if ready.writable || ready.failed || ready.ended {
                self.connecting.push(index);
            }
            return;
        }
        if ready.failed {
            let kind = slot.stream.take_error().err().map_or(io::ErrorKind::ConnectionReset, |error| error.kind());
            return self.cx.end_now(index, CloseReason::Failed(kind));
        }
        if ready.ended {
            slot.set(Flags::END_SEEN);
        }
        if ready.readable || ready.ended {
            slot.set(Flags::READABLE);
            if slot.raise(Flags::TO_READ) {
                self.cx.to_read.push(index);
            }
        }
        if ready.writable {
            slot.set(Flags::WRITABLE);
            if (slot.output_len() > 0 || slot.is(Flags::FINISHING)) && slot.raise(Flags::TO_FLUSH) {
                self.cx.to_flush.push(index);
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
        self.cx.draining_until = Some(self.cx.now + limit);
        for Accepting { listener, .. } in &mut self.cx.listeners {
            // It is dropped next; an error here changes nothing.
            let _ = self.cx.poller.remove_listener(listener);
        }
        self.cx.listeners.clear();
        if first {
            self.service.draining(&mut self.cx, limit);
        }
        self.end_drain();
    }

    fn end_drain(&mut self) {
        if self.cx.draining_until.is_some_and(|until| until <= self.cx.now) {
            let left: Vec<u32> = self.cx.slots.0.iter().map(|(index, _)| index as u32).collect();
            for index in left {
                self.cx.end_now(index, CloseReason::Shutdown);
            }
        }
    }

    fn accept(&mut self) {
        if self.accept_after.is_some_and(|after| self.cx.now < after) {
            return;
        }
        self.accept_after = None;
        for index in 0..self.cx.listeners.len() {
            let mut budget = self.cx.config.accepts_per_tick;
            while budget > 0 && self.accept_after.is_none() && self.cx.listeners[index].ready {
                self.accept_one(index);
                budget -= 1;
            }
        }
    }

    fn accept_one(&mut self, index: usize) {
        if self.cx.slots.0.len() >= self.cx.config.connections_max.min(LISTENERS).min(u32::MAX as usize) {
            return self.pause_accepting();
        }
        let held = &mut self.cx.listeners[index];
        let (stream, peer) = match held.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    held.ready = false;
                    return;
                }
                // The peer gave up while it waited; others may be behind it.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => return,
                _ => return self.pause_accepting(),
            },
        };
        match self.cx.adopt(stream, Flags::READABLE | Flags::WRITABLE, S::Connection::default()) {
            Ok(id) => {
                self.cx.stats.accepted += 1;
                // What came with the connection is read in this tick.
                if self.cx.slots.0[id.slot as usize].raise(Flags::TO_READ) {
                    self.cx.to_read.push(id.slot);
                }
                self.service.accepted(&mut self.cx, id, ListenerId(index as u32), peer);
            }
            Err(_) => self.pause_accepting(),
        }
    }

    /// Lets the backlog hold who comes until a connection is freed, or a while has passed: the kernel would report
    /// the same failure at once, for ever.
    fn pause_accepting(&mut self) {
        self.cx.stats.accept_pauses += 1;
        self.accept_after = Some(self.cx.now + self.cx.config.accept_retry);
    }

    /// Settles outgoing connections of which something was heard.
    fn establish(&mut self) {
        for index in mem::take(&mut self.connecting) {
            let Some(slot) = self.cx.slots.0.get_mut(index as usize) else { continue };
            if !slot.is(Flags::CONNECTING) || slot.is(Flags::CLOSING) {
                continue;
            }
            let outcome = slot.stream.take_error().and_then(|()| slot.stream.peer_addr());
            match outcome {
                Ok(_) => {
                    slot.clear(Flags::CONNECTING);
                    slot.set(Flags::READABLE | Flags::WRITABLE);
                    if slot.raise(Flags::TO_READ) {
                        self.cx.to_read.push(index);
                    }
                    if slot.raise(Flags::TO_FLUSH) {
                        self.cx.to_flush.push(index);
                    }
                    let id = self.cx.slots.id_at(index);
                    if self.cx.is_open(id) {
                        self.service.connected(&mut self.cx, id);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                Err(error) => self.cx.end_now(index, CloseReason::NotConnected(error.kind())),
            }
        }
    }

    fn mail(&mut self) {
        // In every tick, mail or none: whoever posts takes effect in steps, so a wake-up may come after its message was taken.
        self.cx.inlet.rearm();
        for _ in 0..self.cx.config.messages_per_tick {
            let Some(message) = self.cx.inlet.take() else { break };
            self.cx.stats.messages += 1;
            self.service.message(&mut self.cx, message);
        }
    }

    fn expire(&mut self) {
        while let Some(index) = self.cx.deadlines.expire(&mut self.cx.slots, self.cx.now) {
            let id = self.cx.slots.id_at(index);
            if self.cx.is_open(id) {
                self.service.timed_out(&mut self.cx, id);
            } else {
                // It was closed and had its time to send the rest.
                self.cx.end_now(index, CloseReason::TimedOut);
            }
        }
        while let Some(slot) = self.cx.alarms.expire(&mut self.cx.timers, self.cx.now) {
            let timer = self.cx.timers.0.remove(slot as usize);
            self.service.expired(&mut self.cx, TimerId { slot, serial: timer.serial });
        }
    }

    fn flush(&mut self) {
        for index in mem::take(&mut self.cx.to_flush) {
            let cx = &mut self.cx;
            let slot = &mut cx.slots.0[index as usize];
            slot.clear(Flags::TO_FLUSH);
            if slot.is(Flags::CLOSING | Flags::CONNECTING) || !slot.is(Flags::WRITABLE) {
                continue;
            }
            let mut drained = false;
            if let Some(buffers) = slot.buffers.as_mut().filter(|buffers| !buffers.outbox.is_empty()) {
                let queued = buffers.outbox.len();
                match buffers.outbox.flush(&mut slot.stream, &mut cx.stats.bytes_sent) {
                    Ok(true) => drained = true,
                    Ok(false) => {
                        let moved = buffers.outbox.len() < queued;
                        slot.clear(Flags::WRITABLE);
                        if moved && slot.is(Flags::FINISHING) {
                            // It is slow, not dead.
                            cx.deadlines.arm(&mut cx.slots, index, cx.now, cx.config.linger);
                        }
                        continue;
                    }
                    Err(error) => {
                        cx.end_now(index, CloseReason::Failed(error.kind()));
                        continue;
                    }
                }
            }
            if slot.is(Flags::FINISHING) {
                self.linger(index);
            } else if drained {
                cx.recycle(index);
                let id = cx.slots.id_at(index);
                self.service.drained(cx, id);
            }
        }
    }

    /// Tells the peer that no more will come, and waits for its end: closing with input unread would make the
    /// kernel reset the connection, and the peer might lose the last bytes.
    fn linger(&mut self, index: u32) {
        let cx = &mut self.cx;
        let slot = &mut cx.slots.0[index as usize];
        let over = slot.is(Flags::ENDED) || slot.stream.shut_down_writing().is_err();
        slot.set(Flags::LINGERING);
        if over {
            return cx.end_now(index, CloseReason::Closed);
        }
        cx.deadlines.arm(&mut cx.slots, index, cx.now, cx.config.linger);
        let slot = &mut cx.slots.0[index as usize];
        if slot.raise(Flags::TO_READ) {
            cx.to_read.push(index);
        }
    }

    /// Tells the service of each connection that ended in this tick, then frees their slots.
    fn close(&mut self) {
        let mut told = 0;
        while told < self.cx.closing.len() {
            let index = self.cx.closing[told];
            told += 1;
            let id = self.cx.slots.id_at(index);
            let slot = &mut self.cx.slots.0[index as usize];
            assert!(slot.raise(Flags::CLOSED), "closed is told once");
            let (state, reason) = (mem::take(&mut slot.state), slot.reason);
            self.service.closed(&mut self.cx, id, state, reason);
        }
        if told == 0 {
            return;
        }
        let cx = &mut self.cx;
        let mut closing = mem::take(&mut cx.closing);
        for index in &closing {
            let slot = cx.slots.0.remove(*index as usize);
            cx.pool_buffers(slot.buffers);
        }
        // Lists may name slots that are gone; they are short, and nothing ended in most ticks.
        let gone = |index: &u32| cx.slots.0.contains(*index as usize);
        cx.to_read.retain(gone);
        cx.to_flush.retain(gone);
        cx.stats.closed += closing.len() as u64;
        cx.freed_since_shrink += closing.len();
        closing.clear();
        closing.shrink_to(64);
        cx.closing = closing;
        self.accept_after = None;
        self.shrink();
    }

    /// Gives memory back once most of it has fallen idle; the cost is spread over the connections that ended.
    fn shrink(&mut self) {
        let cx = &mut self.cx;
        let (held, used) = (cx.slots.0.capacity(), cx.slots.0.len());
        if held < 64 || used * 4 > held || cx.freed_since_shrink * 2 < held {
            return;
        }
        cx.freed_since_shrink = 0;
        if used == 0 {
            cx.slots.0 = Slab::new();
            cx.pool.truncate(16);
        } else {
            cx.slots.0.shrink_to_fit();
        }
        for list in [&mut cx.to_read, &mut cx.to_flush] {
            list.shrink_to_fit();
        }
        self.ready.shrink_to_fit();
    }
}

fn earliest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}
