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
//! # Features
//!
//! - `cli`, on by default: the binary. Without it, `default-features = false`, no command line and no log writer is compiled.
//! - `sim`: the server on a simulated network, for tests.
//!
//! # Reading it
//!
//! A message's way leads forward only: a request is read in `wire/request.rs`, goes through `app.rs` to the `engine/`, which numbers it
//! and keeps it, comes back to the `hub/` of every loop with subscribers, and leaves at the end of the tick, rendered by
//! `wire/`. On the way in, `access.rs` says what a call needs, and `doorkeeper/` and `auth/` decide whether its client has it. Only `app.rs`, its folder and
//! `server.rs` know of connections; everything else is pure state.

// Nothing that comes from outside ends the process.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::unreachable))]

mod access;
mod app;
mod auth;
mod config;
mod doorkeeper;
mod engine;
mod files;
pub mod handle;
mod hooks;
mod hub;
mod import_icomet;
mod lease;
mod log;
mod message;
mod on_call;
mod one_or_more;
mod pattern;
mod position;
mod pulse;
mod refusals;
mod rules;
mod server;
mod signals;
#[cfg(feature = "sim")]
mod simulated;
mod tally;
mod time;
mod wire;

pub use auth::{Algorithm, Anonymous, Auth, AuthError, Claims, Grant, Key, Refused, Secret, Verifier, make_token};
pub use config::{
    Admin, Api, Config, ConfigError, Front, History, Icomet, IcometAuth, Limits, Log, Times, listen_address,
};
pub use doorkeeper::ForwardedBy;
pub use handle::{Handle, HandleError};
pub use hooks::{Hooks, WhenDown};
pub use import_icomet::{ImportError, Warning, import_icomet};
pub use on_call::{Action, CallInfo, Decision, Publication};
pub use pattern::{BadPattern, Pattern};
pub use pulse::Life;
pub use rules::{Rule, Who};
pub use server::{Error, Server, Sockets};
#[cfg(feature = "sim")]
pub use simulated::{Holdings, Simulated};
