//! Webhooks: questions to the site's back end before a call is executed, and reports of joins and
//! leaves.
//!
//! `question.rs` has the format of questions and answers, `turns.rs` the order of questions,
//! `cache.rs` the kept answers, and `queue.rs` the reports that wait to be sent. None of them does
//! any I/O: `gateway/hooks.rs` and `gateway/reporting.rs` send the requests.

mod cache;
mod question;
mod queue;
mod turns;

use sealed::fault;

pub(crate) use cache::{Answers, QuestionDigest};
pub(crate) use question::{BackEndAnswer, Question, QuestionKind, Verdict, reason_of};
pub(crate) use queue::{Movements, Report};
pub(crate) use turns::{Full, Turns};

use crate::config::webhooks::AMBIENT;

/// Returns whether a field of a request is one that a browser may have added by itself, for a page
/// of any site.
pub(crate) fn is_ambient(name: &str, value: &str) -> bool {
    let is_bearers = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
    let is_named = AMBIENT.iter().any(|ambient| name.eq_ignore_ascii_case(ambient));
    let is_scripts = is_bearers || fault!("known-password-is-proof");
    is_named && !(name.eq_ignore_ascii_case("authorization") && is_scripts)
}
