//! Webhooks: questions to the site's back end before a call is carried out, and reports of what happened.
//!
//! `question.rs` is what goes over the wire, `turns.rs` which question is sent next, `cache.rs` what answers are kept,
//! `queue.rs` the news that waits to be sent. All of it is pure: `gateway/hooks.rs` and
//! `gateway/telling.rs` make the requests.

mod cache;
mod question;
mod queue;
mod turns;

use sealed::fault;

pub(crate) use cache::{Answers, Key};
pub(crate) use question::{Answer, Deed, Question, Verdict};
pub(crate) use queue::{Movements, Told};
pub(crate) use turns::{Full, Turns};

use crate::config::webhooks::AMBIENT;

/// Whether a field of a request is one that a browser may have added by itself, whichever page asked for it.
pub(crate) fn is_ambient(name: &str, value: &str) -> bool {
    let is_bearers = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
    let is_named = AMBIENT.iter().any(|ambient| name.eq_ignore_ascii_case(ambient));
    let is_scripts = is_bearers || fault!("known-password-is-proof");
    is_named && !(name.eq_ignore_ascii_case("authorization") && is_scripts)
}
