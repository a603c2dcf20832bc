//! The vocabulary of the server: what all rooms speak of. It imports nothing else of the crate.
//!
//! - `message.rs`: names of channels, messages, and what becomes one.
//! - `pattern.rs`: patterns of names.
//! - `position.rs`: epochs, and the text that a client resumes with.
//! - `window.rs`: the messages that are kept of a channel.
//! - `time.rs`: the calendar, and the loop's own clock.
//! - `owner.rs`: the client that a channel counts for.
//! - `problem.rs`: errors that clients get, with code and status.
//! - `refused.rs`: what is wrong with a token.
//! - `holdings.rs`: what a server holds, in tests.
//! - `json.rs`: JSON that is safe in a script.
//! - `one_or_more.rs`: a list that is not empty.

#[cfg(feature = "sim")]
pub(crate) mod holdings;
pub(crate) mod json;
pub(crate) mod message;
pub(crate) mod one_or_more;
pub(crate) mod owner;
pub(crate) mod pattern;
pub(crate) mod position;
pub(crate) mod problem;
pub(crate) mod refused;
pub(crate) mod time;
pub(crate) mod window;
