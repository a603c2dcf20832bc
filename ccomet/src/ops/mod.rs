//! What the operator sees of the server.
//!
//! - `counters.rs`: what each loop counts, for all threads to read.
//! - `health.rs`: whether all loops go on.
//! - `refusals.rs`: a line a minute in the log about each kind of refusal.
//! - `signals.rs`: the signals that are logged.
//! - `static_files.rs`: the script for browsers, the demo, and the description of the API.

pub(crate) mod counters;
pub(crate) mod health;
pub(crate) mod refusals;
pub(crate) mod signals;
pub(crate) mod static_files;
