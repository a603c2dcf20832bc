//! A comet server: channels over HTTP. Pages, phones and programs subscribe by WebSocket,
//! Server-Sent Events or long poll. Published messages are pushed to all subscribers in one order,
//! and a subscriber can resume after any interruption.
//!
//! The crate is the server itself, to be run in a program of your own; the binary `ccomet` is a
//! thin program around it, in `bin/ccomet/`.
//!
//! ```no_run
//! use ccomet::{Config, Server};
//!
//! # fn main() -> Result<(), ccomet::Error> {
//! let mut server = Server::bind(Config::default())?;
//! server.stop_on_signals()?;
//! println!("listening on http://{}", server.front());
//! server.run()
//! # }
//! ```
//!
//! # Embedding
//!
//! A program that contains the server uses it through a [`Handle`], from any thread and any task:
//! it publishes, subscribes, lists and closes channels without HTTP requests, and stops the server.
//! With [`Server::on_call`], it decides about each call to subscribe, read or publish on the public
//! listener. The limits of the [`Config`] on sizes and counts apply to a handle as to clients;
//! tokens apply to clients alone. A handle cannot yet list the members that are present in a
//! channel; clients can, by `GET /channels/NAME/presence`.
//!
//! ```
//! use ccomet::handle::{Event, Start};
//! use ccomet::{Action, Config, Decision, Server};
//!
//! let mut config = Config::default();
//! config.front.listen = "127.0.0.1:0".parse()?;
//! config.admin.listen = "127.0.0.1:0".parse()?;
//! let mut server = Server::bind(config)?;
//! // Clients of the public listener may only read. (Those of the admin listener are not judged.)
//! server.on_call(|call| if call.action() == Action::Publish { Decision::Refuse } else { Decision::Allow });
//! let handle = server.handle();
//! let running = std::thread::spawn(move || server.run());
//!
//! // The closure runs on the thread of an event loop, and must not block.
//! let counter = handle.subscribe(["orders.*"], &Start::Latest, |event| {
//!     if let Event::Message(message) = event {
//!         println!("{}: {} bytes", message.channel, message.data.len());
//!     }
//! })?;
//! // This thread blocks for the answer; a task would use `.await`.
//! let position = handle.publish("orders.7", "paid").wait()?;
//! let page = handle.history("orders.7", &Start::Oldest, 10).wait()?.expect("the channel exists");
//! assert_eq!((page.messages.len(), page.position), (1, position));
//!
//! drop(counter);
//! handle.stop();
//! running.join().expect("no panic")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`run`](Server::run) runs the first event loop on the calling thread, and each further loop on a
//! thread of its own; the server needs no runtime. In a program with a runtime such as tokio, call
//! it on a thread outside of the runtime, since it blocks; the example `beside_axum` runs it next
//! to a site in axum. Closures that a loop calls, such as those of subscriptions and `on_call`,
//! must not block, and waiting there for the server's own answer is an error
//! ([`HandleError::OnLoop`]). Longer work takes its events from a bounded queue
//! ([`Events`](handle::Events)).
//!
//! # Features
//!
//! - `cli`, on by default: the binary, with its command line and the writer of its log. A program
//!   that embeds the server does not need it: `default-features = false, features = ["disk"]`.
//! - `disk`, on by default: the store on disk ([`Storage`]).
//! - `redis`, on by default: the store in Redis ([`Storage`]).
//! - `tls`, on by default: TLS on the listeners ([`Tls`]), and to other servers.
//! - `sim`: the server on a simulated network, for tests.
//!
//! # Structure of the source
//!
//! A message passes the modules in one direction. The `gateway/` receives a request, `protocols/`
//! parses it into a call, and `access/` decides whether its client may do it, by the description of
//! its needs in `access/call.rs`. The `engine/` numbers and keeps the message, and passes it to the
//! `hub/` of every loop with subscribers. At the end of the tick, the hub sends it to each
//! subscriber, encoded by the subscriber's protocol. The hub knows events and no protocol;
//! `hub/encoder.rs` is the interface between them. Only `gateway/` and `server.rs` know
//! connections; the others of these modules are pure state. `core/` is the vocabulary of all.
//! ARCHITECTURE.md has a diagram and a glossary.

// No input from outside may end the process.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::unreachable))]

mod access;
mod config;
mod core;
mod engine;
mod gateway;
pub mod handle;
mod hub;
mod import_icomet;
mod in_force;
mod on_call;
mod ops;
mod protocols;
mod server;
#[cfg(feature = "sim")]
mod simulated;
mod webhooks;

pub use crate::core::pattern::{BadPattern, Pattern};
pub use crate::core::refused::Refused;
pub use access::token::{AuthError, Claims, Grant, Verifier, make_token};
pub use config::auth::{Algorithm, Anonymous, Auth, Key, Secret};
pub use config::rules::{Rule, Who};
pub use config::webhooks::{Hooks, WhenDown};
pub use config::{
    Admin, Api, Config, ConfigError, ForwardedBy, Front, History, Icomet, IcometAuth, Layers, Limits, Log, RedisUrl,
    Source, Storage, SyncMode, Times, Tls, listen_address, parse_bytes, parse_seconds,
};
#[cfg(feature = "disk")]
pub use engine::{BackedUp, Damage, Salvaged, SegmentStats, StoreError, StoreStats, StoreTools};
pub use handle::{Handle, HandleError};
pub use import_icomet::{ImportError, Warning, import_icomet};
pub use on_call::{Action, CallInfo, Decision, Publication};
pub use ops::health::Life;
pub use ops::reload::Reload;
pub use server::{Error, Server, Sockets};
#[cfg(all(feature = "sim", feature = "disk"))]
pub use simulated::StoreSizes;
#[cfg(feature = "sim")]
pub use simulated::{Holdings, Simulated, StoreFaults};
