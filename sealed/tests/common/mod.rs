//! A service that records its calls, on the simulated network; tests act through its context.

#![allow(dead_code)] // each test file uses a part of it

pub(crate) mod datagrams;
#[cfg(feature = "disk")]
pub(crate) mod disks;

use std::net::SocketAddr;
use std::time::Duration;

use sealed::sim::{Faults, LoopId, Simulation};
use sealed::{Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service, TimerId};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn address(text: &str) -> Address {
    Address::Inet(text.parse::<SocketAddr>().expect("an address"))
}

/// Returns the faults of a network that splits and delays everything, and loses nothing.
pub(crate) fn rough() -> Faults {
    Faults {
        short_read: 0.3,
        short_write: 0.3,
        would_block: 0.2,
        late_wake: 0.2,
        delay_max: ms(3),
        ..Faults::default()
    }
}

/// Panics when it is dropped, with a payload that does the same, this many times.
pub(crate) struct Bomb(pub(crate) u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if let Some(left) = self.0.checked_sub(1)
            && !std::thread::panicking()
        {
            std::panic::panic_any(Self(left));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Accepted(ConnectionId, Address),
    Connected(ConnectionId),
    Ended(ConnectionId),
    Drained(ConnectionId),
    Closed(ConnectionId, CloseReason),
    Message(u32),
    Expired(u32),
    Signal(i32),
}

/// Sends back what it receives if `echoes` is set, and records each call with its time.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) echoes: bool,
    /// Closes when the peer ends, as services do by default.
    pub(crate) ends: bool,
    /// Pauses the connection after each input.
    pub(crate) pauses: bool,
    /// Sets this deadline for a connection whenever it has drained.
    pub(crate) deadline_when_drained: Option<Duration>,
    pub(crate) calls: Vec<(Duration, Call)>,
    pub(crate) received: Vec<u8>,
}

impl Book {
    fn note(&mut self, cx: &Context<Self>, call: Call) {
        self.calls.push((cx.now(), call));
    }
}

impl Service for Book {
    type Connection = ();
    type Message = u32;
    type Timer = u32;

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, peer: &Address) {
        self.note(cx, Call::Accepted(id, peer.clone()));
    }

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.note(cx, Call::Connected(id));
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let bytes = input.take_all();
        self.received.extend_from_slice(bytes);
        if self.pauses {
            cx.pause(id);
        }
        if self.echoes {
            cx.write(id, bytes);
        }
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.note(cx, Call::Ended(id));
        if self.ends {
            cx.close(id);
        }
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.note(cx, Call::Drained(id));
        if let Some(delay) = self.deadline_when_drained {
            cx.set_deadline(id, delay);
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, (): (), reason: CloseReason) {
        self.note(cx, Call::Closed(id, reason));
    }

    fn message(&mut self, cx: &mut Context<Self>, message: u32) {
        self.note(cx, Call::Message(message));
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, value: u32) {
        self.note(cx, Call::Expired(value));
    }

    fn signalled(&mut self, cx: &mut Context<Self>, signal: i32) {
        self.note(cx, Call::Signal(signal));
    }
}

/// A loop with a [`Book`] in a simulation.
pub(crate) struct Node {
    pub(crate) sim: Simulation,
    pub(crate) id: LoopId,
}

impl Node {
    pub(crate) fn start(sim: &Simulation, config: Config, book: Book) -> Self {
        let event_loop = sim.event_loop(config, book).expect("a loop");
        Self { sim: sim.clone(), id: sim.start(event_loop) }
    }

    /// Starts an echo server on an address.
    pub(crate) fn echo(sim: &Simulation, at: &Address) -> Self {
        let node = Self::start(sim, Config::default(), Book { echoes: true, ends: true, ..Book::default() });
        node.act(|cx| cx.listen(at).expect("it is free"));
        node
    }

    /// Calls `act` with the context between two ticks.
    pub(crate) fn act<R>(&self, act: impl FnOnce(&mut Context<Book>) -> R) -> R {
        self.look(|_, cx| act(cx))
    }

    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Book, &mut Context<Book>) -> R) -> R {
        let looked = self.sim.with(self.id, |event_loop: &mut EventLoop<Book>| {
            let (book, cx) = event_loop.parts();
            look(book, cx)
        });
        looked.expect("it runs")
    }

    /// Returns the calls since the last call of this function.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.look(|book, _| std::mem::take(&mut book.calls)).into_iter().map(|(_, call)| call).collect()
    }

    /// Returns the calls since the last call of this function, with their times.
    pub(crate) fn calls_at(&self) -> Vec<(Duration, Call)> {
        self.look(|book, _| std::mem::take(&mut book.calls))
    }

    pub(crate) fn received(&self) -> Vec<u8> {
        self.look(|book, _| std::mem::take(&mut book.received))
    }

    /// Returns the only connection. Asserts that there is one.
    pub(crate) fn only(&self) -> ConnectionId {
        let ids = self.act(|cx| cx.connection_ids());
        assert_eq!(ids.len(), 1, "one connection");
        ids[0]
    }

    /// Returns whether no connection and no timer is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.act(|cx| cx.connections() == 0 && cx.timers() == 0)
    }
}
