//! Permissions: decided for each call from one description of what it needs.
//!
//! - `call.rs`: that description, [`Access`].
//! - `client/`: the client's address, whether it is admitted, and its rate limits.
//! - `host.rs`, `origin.rs`: the name by which a browser calls the server, and whose page makes it ask.
//! - `token/`: tokens, what they grant, and the keys that sign them.
//! - `channel_rules.rs`: which clients the rules of a channel let in.
//! - `authorize.rs`: what tokens and rules grant, held against a call.

mod authorize;
mod call;
mod channel_rules;
pub(crate) mod client;
pub(crate) mod host;
pub(crate) mod origin;
pub(crate) mod token;

pub(crate) use authorize::{Authorizer, Denied, Identity};
pub(crate) use call::{Access, Cost, Course, Write};
