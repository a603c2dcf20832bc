//! An event loop on [mio](https://docs.rs/mio): connections, buffers, timers, mailboxes and signals
//! behind one small trait, [`Service`].
//!
//! # An echo server
//!
//! ```no_run
//! use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service};
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
//! fn main() -> sealed::Result<()> {
//!     let mut event_loop = EventLoop::new(Config::default(), Echo)?;
//!     event_loop.listen("127.0.0.1:7777")?;
//!     event_loop.run()
//! }
//! ```
//!
//! The [`guide`] builds a protocol from scratch and ends with its test.
//!
//! # How it works
//!
//! A loop runs on one thread and has one service object, or [several](EventLoop#several-services).
//! The [`Context`] that is passed to every call owns all connections of the service, so any call
//! can write to any of them; publishing to many connections needs nothing more. Output is queued,
//! and sent at the end of the tick (one turn of the loop, from one wait to the next), usually in
//! one system call per connection. After a partial write, the rest is sent in order as soon as the
//! socket is writable again.
//!
//! Loops share no state. They, and other threads, communicate by [`Mailbox`]. A [`Pool`] runs
//! several loops, one per core.
//!
//! An idle connection costs its slot of 40 bytes plus the service's own state, on 64-bit systems
//! and without the feature `sim`: buffers belong to the loop and are lent to a connection only
//! while bytes are in flight. A connection with TLS or a rate limit keeps its buffers. [`Config`]
//! has the limits of a service; [`Listen`], [`Connect`], [`Datagram`] and [`Workers`] have their
//! own.
//!
//! # Features at a glance
//!
//! | | |
//! | --- | --- |
//! | Sockets | TCP and Unix, accepted ([`Listen`]) and connected ([`Connect`], several addresses in parallel); sockets created elsewhere ([`Context::adopt`]) |
//! | Datagrams | [UDP and Unix](Context::bind_datagram), connected or not; a [bounded queue](Datagram::queue_bytes_max) for sending; [multicast](Multicast); a budget per tick |
//! | Output | [queued](Context::write), [shared](Context::write_bytes), [written through](Context::write_through); high and low watermarks; [close](Context::close), [half-close](Context::half_close), [abort](Context::abort), [reset](Context::reset) |
//! | Input | lent to the service, which may leave some of it ([`Input`]), or [keep](Context::share) a part without a copy; [pausing](Context::pause); a read budget per tick |
//! | Time | a [deadline](Context::set_deadline) per connection; [one-shot](Context::set_timer) and [periodic](Context::set_interval) timers; [moving](Context::move_timer) or [cancelling](Context::cancel_timer) a timer costs no more than setting it |
//! | Other descriptors | the readiness of any object with a file descriptor: the pipes of child processes, inotify, connections of C libraries ([`Source`], [`Service::ready`]) |
//! | Between threads | [`Mailbox`], [deferred work](Context::defer), [`Pool`] |
//! | Work that blocks | [`Workers`]: a bounded pool of threads whose results are messages; names [resolved](Connect::by_name) on it |
//! | Files | read and written by offset, with locks and durable names, on workers: the feature `disk` |
//! | Futures | [run](Context::run_future) for libraries that offer nothing else; their outputs are messages |
//! | On one thread | [several services](Context::add_service), each with connections, timers and messages of its own |
//! | Limits | connections per loop and per listener, bytes queued, bytes per second ([`Rate`]) of a connection or a group |
//! | The process | [signals](EventLoop::deliver_signals), [draining](Service::draining), [`Stopper`] |
//! | Observability | counters and tick lengths, readable from any thread ([`Watch`]), and [what a loop is doing](Watch::running) while it blocks |
//!
//! # What it is not for
//!
//! Code that is best written as `async` functions, such as a dialogue of many steps with one peer;
//! use an `async` runtime for it. A loop does not read files either, because no system reports when
//! a file is ready: [`Workers`] do that, and the feature `disk` has files for them.
//!
//! # Platforms
//!
//! Linux is the primary platform. macOS, the BSDs and Windows work as far as mio supports them;
//! there, by default, the first loop of a [`Pool`] accepts and hands connections on. Signals, Unix
//! sockets and sources need Unix.
//!
//! # Reading the source
//!
//! [`EventLoop::turn`] in `event_loop.rs` runs the tick, step by step, and `event_loop/hosted.rs`
//! is a service's part in each step. `slot.rs` holds a connection, `buffers.rs` the buffers it
//! borrows, `read_buffers.rs` those that the loop reads into, `wheel.rs` the timers. `net/` is the
//! seam below the loop: all code that touches the operating system. `disk/` is a seam of the same
//! kind, for files.
//!
//! # Cargo features
//!
//! No feature is enabled by default.
//!
//! - `sim`: a simulated network with virtual time, to test a service against the faults of
//!   networks.
//! - `tls`: TLS by rustls, for servers and clients, from the start of a connection or later
//!   (STARTTLS).
//! - `pin`: pins each loop of a pool to a processor of its own, on Linux.
//! - `disk`: files that survive a crash (`sealed::disk`), on the system's file system; with `sim`
//!   also on a simulated disk that loses power, fills up and fails.

// No outside input may terminate the process.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::unreachable))]

#[macro_use]
#[doc(hidden)]
pub mod fault;

mod address;
mod buffers;
mod caught;
mod config;
mod connections;
mod context;
mod datagram;
mod dial;
#[cfg(feature = "disk")]
pub mod disk;
mod error;
mod event_loop;
pub mod guide;
mod hand_over;
mod id;
mod input;
mod mailbox;
mod net;
mod pool;
mod rate;
mod read_buffers;
mod resolver;
mod service;
mod shrink;
mod signal;
#[cfg(feature = "sim")]
pub mod sim;
mod slot;
mod socket;
mod source;
#[cfg(feature = "tls")]
mod start_tls;
mod stats;
mod stopper;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls_absent.rs"]
mod tls;
mod token;
mod wheel;
mod workers;

pub use address::{Address, ToAddresses};
/// Shared bytes, as [`Context::write_bytes`] takes them.
pub use bytes::Bytes;
pub use config::Config;
pub use context::Context;
pub use datagram::{Datagram, DatagramError, Multicast, SendError, Sent};
pub use error::{CloseReason, Error, Result};
pub use event_loop::EventLoop;
pub use id::{ConnectionId, DatagramId, FutureId, ListenerId, SourceId, TimerId, WorkId};
pub use input::Input;
pub use mailbox::{Mailbox, PostError};
pub use pool::{Place, Pool, Spread};
pub use rate::{GroupId, Rate, Rates};
pub use resolver::{Resolver, ResolverConfig};
pub use service::{Panic, Service};
pub use slot::slot_bytes;
pub use socket::{Bound, Connect, Listen, ListeningSocket, Socket, SocketOptions};
pub use source::Ready;
#[cfg(unix)]
pub use source::{Interest, Source};
pub use stats::{Histogram, Running, Stats, Step, Watch};
pub use stopper::Stopper;
pub use workers::{Job, WorkError, Workers};
