//! A store in Redis, which several servers share.
//!
//! - `resp.rs`: the protocol: commands, and replies.
//! - `link.rs`: the connection of a loop. `handshake.rs` has its beginning, with the checks of
//!   Redis, and `faults.rs` what the log says of it.
//! - `port.rs`: what the store and its link tell each other.
//! - `settings.rs`: the settings.

mod faults;
mod handshake;
mod link;
mod port;
mod resp;
mod settings;

pub(crate) use faults::LinkLog;
pub(crate) use link::Link;
pub(crate) use port::{LinkEvents, LinkPort};
pub(crate) use settings::RedisSettings;
