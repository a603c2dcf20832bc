//! A ring of socket pairs, through which bytes go round: the cost of a loop in addition to its
//! system calls.
//!
//! The method is that of libevent's own benchmark. Each loop watches one end of every pair. It
//! writes the bytes that it reads there to the neighbour, one at a time, into the end that is
//! outside the loop, until the writes of the round are used up. A round is over once all bytes are
//! read.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use calloop::generic::Generic;
use calloop::{Interest, Mode, PostAction};
use mio::{Events, Poll, Token};
use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// Bytes that every loop reads at a time. There are never more of them together.
const BUFFER_BYTES: usize = 256;

/// The ends that are written to, and the rest of a round. Everything runs on one thread; the
/// counters are atomic only because tokio's tasks have to be `Send`. They are loaded and stored
/// separately, because an atomic update would cost more.
#[derive(Debug)]
struct Ring {
    writers: Vec<UnixStream>,
    to_write: AtomicUsize,
    to_read: AtomicUsize,
}

impl Ring {
    /// Creates this many pairs, and returns the reading ends as well.
    fn new(pairs: usize) -> (Arc<Self>, Vec<UnixStream>) {
        let made = (0..pairs).map(|_| UnixStream::pair().expect("a pair"));
        let (writers, readers): (Vec<_>, Vec<_>) = made.unzip();
        for end in writers.iter().chain(&readers) {
            end.set_nonblocking(true).expect("no waiting");
        }
        (Arc::new(Self { writers, to_write: AtomicUsize::new(0), to_read: AtomicUsize::new(0) }), readers)
    }

    /// Writes the first bytes, evenly spread, and returns the time before the first write.
    fn start(&self, active: usize, writes: usize) -> Instant {
        self.to_write.store(writes, Relaxed);
        self.to_read.store(writes + active, Relaxed);
        let start = Instant::now();
        for n in 0..active {
            self.write(n * self.writers.len() / active);
        }
        start
    }

    /// Records that bytes were read from a pair, and writes as many to its neighbour.
    fn pass(&self, pair: usize, count: usize) {
        self.to_read.store(self.to_read.load(Relaxed) - count, Relaxed);
        // The neighbour is the pair before, which has already been read if all are ready, so that
        // bytes do not run together in one read.
        let neighbour = pair.checked_sub(1).unwrap_or(self.writers.len() - 1);
        for _ in 0..count.min(self.to_write.load(Relaxed)) {
            self.to_write.store(self.to_write.load(Relaxed) - 1, Relaxed);
            self.write(neighbour);
        }
    }

    fn write(&self, pair: usize) {
        (&self.writers[pair]).write_all(b"e").expect("room for a byte");
    }

    fn is_over(&self) -> bool {
        self.to_read.load(Relaxed) == 0
    }
}

/// A loop that passes bytes on.
pub trait Passing {
    /// Runs one round: `active` bytes are in flight at a time, and `writes` are written besides the
    /// first ones. Returns the time.
    fn round(&mut self, active: usize, writes: usize) -> Duration;
}

/// Creates a loop over this many pairs.
pub type Make = fn(usize) -> Box<dyn Passing>;

/// The loops, that of this project first.
pub const LOOPS: [(&str, Make); 5] = [
    ("sealed", |pairs| Box::new(Sealed::new(pairs))),
    ("bare mio", |pairs| Box::new(Mio::new(pairs))),
    ("polling", |pairs| Box::new(Polling::new(pairs))),
    ("calloop", |pairs| Box::new(Calloop::new(pairs))),
    ("tokio", |pairs| Box::new(Tokio::new(pairs))),
];

struct Sealed {
    ring: Arc<Ring>,
    event_loop: EventLoop<Passer>,
}

struct Passer(Arc<Ring>);

impl Service for Passer {
    type Connection = usize;
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let pair = *cx.state(id).expect("its number");
        self.0.pass(pair, input.take_all().len());
    }
}

impl Sealed {
    fn new(pairs: usize) -> Self {
        let (ring, readers) = Ring::new(pairs);
        let mut event_loop = EventLoop::new(Config::default(), Passer(ring.clone())).expect("a loop");
        for (pair, reader) in readers.into_iter().enumerate() {
            event_loop.parts().1.adopt(reader, pair).expect("adopted");
        }
        event_loop.turn(Some(Duration::ZERO)).expect("a tick");
        Self { ring, event_loop }
    }
}

impl Passing for Sealed {
    fn round(&mut self, active: usize, writes: usize) -> Duration {
        let start = self.ring.start(active, writes);
        while !self.ring.is_over() {
            self.event_loop.turn(Some(Duration::ZERO)).expect("a tick");
        }
        start.elapsed()
    }
}

struct Mio {
    ring: Arc<Ring>,
    poll: Poll,
    events: Events,
    readers: Vec<mio::net::UnixStream>,
}

impl Mio {
    fn new(pairs: usize) -> Self {
        let (ring, readers) = Ring::new(pairs);
        let poll = Poll::new().expect("a poll");
        let mut readers: Vec<_> = readers.into_iter().map(mio::net::UnixStream::from_std).collect();
        for (pair, reader) in readers.iter_mut().enumerate() {
            poll.registry().register(reader, Token(pair), mio::Interest::READABLE).expect("registered");
        }
        Self { ring, poll, events: Events::with_capacity(1024), readers }
    }
}

impl Passing for Mio {
    fn round(&mut self, active: usize, writes: usize) -> Duration {
        let mut buffer = [0; BUFFER_BYTES];
        let start = self.ring.start(active, writes);
        while !self.ring.is_over() {
            self.poll.poll(&mut self.events, Some(Duration::ZERO)).expect("events");
            for event in &self.events {
                let pair = event.token().0;
                let count = self.readers[pair].read(&mut buffer).expect("a byte");
                self.ring.pass(pair, count);
            }
        }
        start.elapsed()
    }
}

struct Polling {
    ring: Arc<Ring>,
    poller: polling::Poller,
    events: polling::Events,
    readers: Vec<UnixStream>,
}

impl Polling {
    fn new(pairs: usize) -> Self {
        let (ring, readers) = Ring::new(pairs);
        let poller = polling::Poller::new().expect("a poller");
        for (pair, reader) in readers.iter().enumerate() {
            crate::polling::watch(&poller, reader, pair);
        }
        Self { ring, poller, events: crate::polling::events(), readers }
    }
}

impl Passing for Polling {
    fn round(&mut self, active: usize, writes: usize) -> Duration {
        let mut buffer = [0; BUFFER_BYTES];
        let start = self.ring.start(active, writes);
        while !self.ring.is_over() {
            self.events.clear();
            self.poller.wait(&mut self.events, Some(Duration::ZERO)).expect("events");
            for event in self.events.iter().filter(|event| event.readable) {
                let count = match self.readers[event.key].read(&mut buffer) {
                    // The event may be one of writability.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    count => count.expect("a byte"),
                };
                self.ring.pass(event.key, count);
            }
        }
        start.elapsed()
    }
}

struct Calloop {
    ring: Arc<Ring>,
    event_loop: calloop::EventLoop<'static, Arc<Ring>>,
}

impl Calloop {
    fn new(pairs: usize) -> Self {
        let (ring, readers) = Ring::new(pairs);
        let event_loop = calloop::EventLoop::try_new().expect("a loop");
        for (pair, reader) in readers.into_iter().enumerate() {
            // Notified only of changes, as the others are: otherwise bytes run together, and fewer
            // reads suffice for as many.
            let source = Generic::new(reader, Interest::READ, Mode::Edge);
            let passed = move |_, reader: &mut calloop::generic::NoIoDrop<UnixStream>, ring: &mut Arc<Ring>| {
                let mut buffer = [0; BUFFER_BYTES];
                let mut reader: &UnixStream = reader;
                ring.pass(pair, reader.read(&mut buffer)?);
                Ok(PostAction::Continue)
            };
            event_loop.handle().insert_source(source, passed).expect("inserted");
        }
        Self { ring, event_loop }
    }
}

impl Passing for Calloop {
    fn round(&mut self, active: usize, writes: usize) -> Duration {
        let start = self.ring.start(active, writes);
        while !self.ring.is_over() {
            self.event_loop.dispatch(Some(Duration::ZERO), &mut self.ring).expect("a tick");
        }
        start.elapsed()
    }
}

struct Tokio {
    ring: Arc<Ring>,
    runtime: Runtime,
    over: Arc<Notify>,
}

impl Tokio {
    fn new(pairs: usize) -> Self {
        let (ring, readers) = Ring::new(pairs);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let over = Arc::new(Notify::new());
        for (pair, reader) in readers.into_iter().enumerate() {
            let (ring, over) = (ring.clone(), over.clone());
            runtime.spawn(async move {
                let mut reader = tokio::net::UnixStream::from_std(reader).expect("registered");
                let mut buffer = [0; BUFFER_BYTES];
                while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                    ring.pass(pair, count);
                    if ring.is_over() {
                        over.notify_one();
                    }
                }
            });
        }
        // All tasks register, and wait.
        runtime.block_on(tokio::task::yield_now());
        Self { ring, runtime, over }
    }
}

impl Passing for Tokio {
    fn round(&mut self, active: usize, writes: usize) -> Duration {
        self.runtime.block_on(async {
            let start = self.ring.start(active, writes);
            self.over.notified().await;
            start.elapsed()
        })
    }
}
