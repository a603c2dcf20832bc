//! What the operator sees of the server.
//!
//! - `refusals.rs`: a line a minute in the log about each kind of refusal.

pub(crate) mod refusals;
