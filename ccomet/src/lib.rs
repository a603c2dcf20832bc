//! A comet server: channels over HTTP. Pages, phones and programs subscribe by WebSocket, Server-Sent Events or long poll,
//! and what is published to a channel is pushed to all of them, in one order, to be resumed after any break.
//!
//! The crate is the server itself, to be run in a program of one's own; the binary `ccomet` is a thin one around it, in `bin/ccomet/`.
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
//! A program that has the server in it uses it by a [`Handle`], from any thread and any task: it
//! publishes, subscribes, lists and closes channels without a request of HTTP, and stops the
//! server. By [`Server::on_call`] it decides about each call of a client. The limits of the
//! [`Config`] on sizes and counts hold for a handle as for clients; tokens are for clients alone.
//! A handle cannot read yet which members are present in a channel: clients can, by
//! `GET /channels/NAME/presence`.
//!
//! ```
//! use ccomet::handle::{Event, Start};
//! use ccomet::{Action, Config, Decision, Server};
//!
//! let mut config = Config::default();
//! config.front.listen = "127.0.0.1:0".parse()?;
//! config.admin.listen = "127.0.0.1:0".parse()?;
//! let mut server = Server::bind(config)?;
//! // Clients read, and what is published is the program's.
//! server.on_call(|call| if call.action() == Action::Publish { Decision::Refuse } else { Decision::Allow });
//! let handle = server.handle();
//! let running = std::thread::spawn(move || server.run());
//!
//! // On the thread of an event loop, which must not wait.
//! let counter = handle.subscribe(["orders.*"], &Start::Latest, |event| {
//!     if let Event::Message(message) = event {
//!         println!("{}: {} bytes", message.channel, message.data.len());
//!     }
//! })?;
//! // Waited for here; a task would say `.await`.
//! let position = handle.publish("orders.7", "paid").wait()?;
//! let page = handle.history("orders.7", &Start::Oldest, 10).wait()?.expect("the channel is there");
//! assert_eq!((page.messages.len(), page.position), (1, position));
//!
//! drop(counter);
//! handle.stop();
//! running.join().expect("no panic")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The server is a thread, or several, of its own, and needs no runtime. Beside one, such as tokio,
//! it runs on a thread that is not the runtime's, since [`run`](Server::run) blocks; the example
//! `beside_axum` has it beside a site in axum. Whatever a loop calls, closures of subscriptions and
//! `on_call` among them, must not wait, and a wait for the server's own answer is an error there
//! ([`HandleError::OnLoop`]). Work that takes longer takes its events from a bounded queue
//! ([`Events`](handle::Events)).
//!
//! # Features
//!
//! - `cli`, on by default: the binary. Without it, `default-features = false`, no command line and no log writer is compiled.
//! - `sim`: the server on a simulated network, for tests.
//!
//! # Reading it
//!
//! A message's way leads forward only. The `gateway/` takes a request, `protocols/` read it as a call, and `access/` decides
//! whether its client may do that, by what `access/call.rs` says that the call needs. The `engine/` numbers and keeps the
//! message, and the `hub/` of every loop with subscribers gets it, which at the end of the tick sends it to each,
//! encoded by the protocol of each. The hub says what happened and knows no protocol; `hub/encoder.rs` is the seam between
//! them. Only `gateway/` and `server.rs` know of connections; everything else is pure state. `core/` is what all of them
//! speak of. ARCHITECTURE.md has the picture, and a glossary.

// Nothing that comes from outside ends the process.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::unreachable))]

mod access;
mod config;
mod core;
mod engine;
mod gateway;
pub mod handle;
mod hub;
mod import_icomet;
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
    Admin, Api, Config, ConfigError, ForwardedBy, Front, History, Icomet, IcometAuth, Limits, Log, Times,
    listen_address,
};
pub use handle::{Handle, HandleError};
pub use import_icomet::{ImportError, Warning, import_icomet};
pub use on_call::{Action, CallInfo, Decision, Publication};
pub use ops::health::Life;
pub use server::{Error, Server, Sockets};
#[cfg(feature = "sim")]
pub use simulated::{Holdings, Simulated, StoreFaults};
