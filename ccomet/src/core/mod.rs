//! The vocabulary of the server, which all other modules use. It imports no other module of the
//! crate.
//!
//! - `message.rs`: channel names, messages, and drafts of messages.
//! - `pattern.rs`: patterns of names.
//! - `position.rs`: epochs, and the text with which a client resumes.
//! - `window.rs`: the messages that are kept of a channel.
//! - `time.rs`: the calendar, and the loop's own clock.
//! - `owner.rs`: the client that a channel counts for.
//! - `problem.rs`: the errors that clients get, with code and status.
//! - `health.rs`: the problems of the server as a whole.
//! - `refused.rs`: the reasons for which a token is refused.
//! - `tally.rs`: counts of what the parts of a loop have done.
//! - `holdings.rs`: the resources that a server holds, in tests.
//! - `json.rs`: JSON that is safe in a script.
//! - `one_or_more.rs`: a list that is not empty.

pub(crate) mod health;
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
pub(crate) mod tally;
pub(crate) mod time;
pub(crate) mod window;
