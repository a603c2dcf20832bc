//! An event loop on [mio](https://docs.rs/mio): connections, buffers, timers, mailboxes and signals behind one small
//! trait, [`Service`].
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
//! The [`guide`] builds a protocol from nothing, and ends with its test.
//!
//! # How it works
//!
//! A loop is one thread, and a service is one object on it. The [`Context`] beside it owns all connections, so that any
//! call may write to any of them: that is what publishing to many is. Output is gathered and sent at the end of the tick,
//! in one vectored write a connection; a partial write goes on when the socket takes more, in the same order.
//! Loops share nothing: they, and other threads, reach one another by [`Mailbox`]. A [`Pool`] is several loops, one a core.
//!
//! An idle connection costs its slot, 40 bytes and the service's own state: buffers belong to the loop, and are lent for
//! as long as bytes are in flight. Every bound has a name in [`Config`].
//!
//! # What there is
//!
//! | | |
//! | --- | --- |
//! | Sockets | TCP and Unix, served ([`Listen`]) and connected to, several addresses side by side ([`Connect`]); made elsewhere ([`Context::adopt`]) |
//! | Output | [`write`](Context::write), [shared](Context::write_bytes), [at once](Context::write_through); high and low marks; [close](Context::close), [half-close](Context::half_close), [abort](Context::abort), [reset](Context::reset) |
//! | Input | lent, the rest kept ([`Input`]); [pausing](Context::pause); a budget for each tick |
//! | Time | a [deadline](Context::set_deadline) for each connection; timers [once](Context::set_timer) and [again](Context::set_interval), [moved](Context::move_timer) and [cancelled](Context::cancel_timer) at no more than the cost of setting them |
//! | Between threads | [`Mailbox`], [deferred work](Context::defer), [`Pool`] |
//! | Limits | connections for each loop and listener, bytes queued, bytes a second ([`Rate`]) for a connection or a group |
//! | The process | [signals](EventLoop::deliver_signals), [draining](Service::draining), [`Stopper`] |
//! | Seeing inside | counts and tick lengths, from any thread ([`Watch`]) |
//!
//! # What it is not for
//!
//! Files, blocking work, and code that wants to be written as `async` functions. Datagrams. Looking names up: the system
//! does that, and may block, so it is for before the loop runs, or for another thread.
//!
//! # Where it runs
//!
//! Linux first. macOS, the BSDs and Windows as far as mio carries; there a [`Pool`] has one loop accept for all. Signals and Unix sockets
//! need Unix.
//!
//! # Reading it
//!
//! [`EventLoop::turn`] in `event_loop.rs` is the tick, in its order. `slot.rs` is a connection, `buffers.rs` what it
//! borrows, `wheel.rs` the timers, `net/` the seam below: all that touches the operating system.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `sim`: a simulated network with virtual time, to test a service with every fault that a network has.
//! - `tls`: TLS by rustls, for servers and clients.
//! - `pin`: the loops of a pool each kept on a processor of its own, on Linux.

// Nothing that comes from outside ends the process.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::unreachable))]

#[macro_use]
#[doc(hidden)]
pub mod fault;

mod address;
mod buffers;
mod config;
mod context;
mod dial;
mod error;
mod event_loop;
pub mod guide;
mod id;
mod input;
mod mailbox;
mod net;
mod pool;
mod rate;
mod service;
mod signal;
#[cfg(feature = "sim")]
pub mod sim;
mod slot;
mod socket;
mod stats;
mod stopper;
#[cfg(feature = "tls")]
pub mod tls;
mod wheel;

pub use address::{Address, ToAddresses};
/// Shared bytes, as [`Context::write_bytes`] wants them.
pub use bytes::Bytes;
pub use config::Config;
pub use context::Context;
pub use error::{CloseReason, Error, Result};
pub use event_loop::EventLoop;
pub use id::{ConnectionId, ListenerId, TimerId};
pub use input::Input;
pub use mailbox::{Mailbox, PostError};
pub use pool::{Place, Pool, Spread};
pub use rate::{GroupId, Rate, Rates};
pub use service::{Panic, Service};
pub use slot::slot_bytes;
pub use socket::{Connect, Listen, ListeningSocket, Socket, SocketOptions};
pub use stats::{Histogram, Stats, Watch};
pub use stopper::Stopper;
