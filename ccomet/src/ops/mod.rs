//! The server's output for its operator.
//!
//! - `counters.rs`: the counters of each loop, which all threads may read.
//! - `metrics/`: the page of metrics for Prometheus.
//! - `health.rs`: whether all loops make progress.
//! - `listening.rs`: the files of Unix sockets, and hints about listeners that cannot be opened.
//! - `refusals.rs`: a line a minute in the log about each kind of refusal.
//! - `reload.rs`: reloads of the settings, as the program around the server sees them.
//! - `signals.rs`: the signals that are caught.
//! - `static_files.rs`: the script for browsers, the demo, and the description of the API.

pub(crate) mod console;
pub(crate) mod counters;
pub(crate) mod health;
pub(crate) mod listening;
pub(crate) mod metrics;
pub(crate) mod refusals;
pub(crate) mod reload;
pub(crate) mod signals;
pub(crate) mod static_files;
