//! Whether a client of the front may do what it asks for.

use std::sync::Arc;

use sealed_http::RequestHead;

use super::bearer::{self, Source};
use super::settings::{Anonymous, Auth};
use super::verifier::Verifier;
use super::{Grant, Refused};
use crate::pattern::any_matches;
use crate::wire::problem::Problem;
use crate::wire::request::{Call, ReplyTo};

/// Holds what tokens grant against what is asked. One for each loop.
#[derive(Debug)]
pub(crate) struct Gate {
    verifier: Arc<Verifier>,
    anonymous: Grant,
    cookie: String,
    /// Origins of which pages may act with their user's cookie, beside the server's own.
    origins: Vec<String>,
}

/// Somebody who was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admission {
    /// When what he may do ends, in seconds since 1970.
    pub(crate) expires_s: Option<u64>,
}

impl Gate {
    /// `origins` are those of the front; `*` is none of them here.
    pub(crate) fn new(verifier: Arc<Verifier>, auth: &Auth, origins: &[String]) -> Self {
        let Anonymous { subscribe, publish, presence } = auth.of_anonymous();
        let anonymous = Grant { subject: None, subscribe, publish, presence, expires_s: None };
        let origins = origins.iter().filter(|origin| *origin != "*").cloned().collect();
        Self { verifier, anonymous, cookie: auth.cookie.clone(), origins }
    }

    /// Lets a call of the front in or not, at that time in seconds since 1970.
    pub(crate) fn admit(&self, head: &RequestHead<'_>, call: &Call, now_s: u64) -> Result<Admission, Problem> {
        if matches!(call, Call::File { .. } | Call::Preflight { .. } | Call::Nothing) {
            return Ok(Admission { expires_s: None });
        }
        let found = if self.verifier.has_keys() { bearer::find(head, &self.cookie)? } else { None };
        let Some((token, source)) = found else {
            let allowed = may(&self.anonymous, call);
            // Where there are no keys, no token would help.
            let problem = if self.verifier.has_keys() { Problem::TokenMissing } else { Problem::NotAllowed };
            return if allowed { Ok(Admission { expires_s: None }) } else { Err(problem) };
        };
        let grant = self.verifier.verify(&token, now_s)?;
        if !may(&grant, call) || source == Source::Cookie && can_be_forged(call) && !self.is_of_own_page(head) {
            return Err(Problem::NotAllowed);
        }
        Ok(Admission { expires_s: grant.expires_s })
    }

    /// Whether the page that asks is the server's own, or of an origin that is listed by name. A request that does not say is
    /// of none: browsers say it of every POST.
    fn is_of_own_page(&self, head: &RequestHead<'_>) -> bool {
        let mut origins = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("origin"));
        let (Some((_, origin)), None) = (origins.next(), origins.next()) else { return false };
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        let own = head.header_str("host");
        let host = origin.split_once("://").map(|(_, host)| host);
        self.origins.iter().any(|held| held == origin)
            || host.zip(own).is_some_and(|(host, own)| !host.is_empty() && host.eq_ignore_ascii_case(own))
    }
}

/// Whether a page of anybody's could make a browser do that, with its user's cookie, and win by it: publish, or read by script.
/// Other replies the browser shows to nobody else.
fn can_be_forged(call: &Call) -> bool {
    match call {
        Call::Publish { .. } | Call::Sign { .. } | Call::Delete { .. } => true,
        Call::Subscribe { subscription, .. } => subscription.style.is_script(),
        Call::File { .. } | Call::Preflight { .. } | Call::Nothing => false,
    }
}

fn may(grant: &Grant, call: &Call) -> bool {
    match call {
        // Closing a channel is for the admin listener; were it to come here, who publishes may.
        Call::Publish { channel, .. } | Call::Delete { channel } => any_matches(&grant.publish, channel),
        // A sign-in of the classic API is told to all who read the channel.
        Call::Sign { channel, .. } => any_matches(&grant.subscribe, channel),
        Call::Subscribe { subscription, .. } => {
            subscription.channels.iter().all(|(channel, _)| any_matches(&grant.subscribe, channel))
        }
        Call::File { .. } | Call::Preflight { .. } | Call::Nothing => true,
    }
}

/// The callback in which a refusal is told, where the call has one.
pub(crate) fn callback_of(call: &Call) -> Option<Box<str>> {
    match call {
        Call::Publish { reply: ReplyTo::Native { callback, .. }, .. } => callback.clone(),
        Call::Subscribe { subscription, .. } => subscription.style.callback(),
        _ => None,
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid => Self::TokenInvalid,
            Refused::Expired => Self::TokenExpired,
            Refused::NotYet => Self::TokenNotYet,
        }
    }
}
