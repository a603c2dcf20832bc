//! Permissions: decided for each call from one description of what it needs.
//!
//! - `call.rs`: that description, [`Access`].
//! - `client/`: the client's address, its admission, and its rate limits.
//! - `host.rs`, `origin.rs`: the name by which a browser addresses the server, and the page that
//!   sends a request.
//! - `token/`: tokens, their grants, and the keys that sign them.
//! - `channel_rules.rs`: the clients that the rules of a channel allow.
//! - `authorize.rs`: checks of calls against tokens and rules.

mod authorize;
mod call;
mod channel_rules;
pub(crate) mod client;
pub(crate) mod host;
pub(crate) mod origin;
pub(crate) mod token;

pub(crate) use authorize::{Authorizer, Denied, Identity};
pub(crate) use call::{Access, Cost, Course, Write};
