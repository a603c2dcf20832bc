//! Whether a client of the front may do what it asks for.

use std::sync::Arc;

use sealed::fault;
use sealed_http::RequestHead;

use super::bearer::{self, Source};
use super::settings::Anonymous;
use super::verifier::Verifier;
use super::{Grant, Refused};
use crate::config::{Config, IcometAuth};
use crate::hub::Subscription;
use crate::message::ChannelName;
use crate::pattern::any_matches;
use crate::rules::{Deed, Rules};
use crate::wire::icomet::request as icomet;
use crate::wire::page;
use crate::wire::problem::Problem;
use crate::wire::request::{Call, ReplyTo};

/// Holds what tokens grant against what is asked. One for each loop.
#[derive(Debug)]
pub(crate) struct Gate {
    verifier: Arc<Verifier>,
    anonymous: Arc<Grant>,
    /// Whether who brings no token may subscribe to patterns.
    patterns: bool,
    /// Whether icomet's tokens open its channels, and nothing else.
    icomet_has_tokens: bool,
    cookie: String,
    rules: Arc<Rules>,
    /// Origins of which pages may act with their user's cookie, beside the server's own.
    origins: Vec<String>,
}

/// A client of the front, as its request's head says.
#[derive(Debug)]
pub(crate) struct Identity {
    grant: Arc<Grant>,
    /// How its token came, if it has one.
    source: Option<Source>,
}

impl Gate {
    /// Of the front's origins, `*` is none here.
    pub(crate) fn new(verifier: Arc<Verifier>, config: &Config, rules: Arc<Rules>) -> Self {
        let Config { auth, front, icomet, .. } = config;
        let Anonymous { subscribe, publish, presence } = auth.of_anonymous();
        let anonymous = Arc::new(Grant { subject: None, subscribe, publish, presence, expires_s: None });
        let origins = front.origins.iter().filter(|origin| *origin != "*").cloned().collect();
        let icomet_has_tokens = icomet.auth == IcometAuth::Token;
        let (patterns, cookie) = (front.patterns, auth.cookie.clone());
        Self { verifier, anonymous, patterns, icomet_has_tokens, cookie, rules, origins }
    }

    /// What who calls at the front may do, at that time in seconds since 1970; an error where this call is not among it.
    pub(crate) fn admit(&self, head: &RequestHead<'_>, call: &Call, now_s: u64) -> Result<Arc<Grant>, Problem> {
        let is_open = matches!(call, Call::File { .. } | Call::Preflight { .. });
        if is_open || matches!(call, Call::Probe { .. }) && fault!("head-open-to-all") {
            return Ok(self.anonymous.clone());
        }
        // Whether that token is right is looked at when the channel's home is asked.
        if self.icomet_has_tokens && matches!(call, Call::Icomet(_)) {
            let grant = || self.anonymous.clone();
            return self.rules_allow(call, true).then(grant).ok_or(Problem::NotAllowed);
        }
        // A client of icomet's has its own kind of token.
        let has_own = matches!(call, Call::Icomet(_));
        let identity = if has_own { self.nobody() } else { self.identify(head, now_s)? };
        self.allow(&identity, head, call)
    }

    /// Who calls at the front, as far as the head of the request says it, at that time in seconds since 1970.
    pub(crate) fn identify(&self, head: &RequestHead<'_>, now_s: u64) -> Result<Identity, Problem> {
        let found = if self.verifier.has_keys() { bearer::find(head, &self.cookie)? } else { None };
        let Some((token, source)) = found else { return Ok(self.nobody()) };
        let mut grant = self.verifier.verify(&token, now_s)?;
        // A picture on anybody's page makes a browser ask, too: its user is not present for that.
        if source == Source::Cookie && !page::is_of_site(head, &self.origins) && !fault!("picture-makes-present") {
            grant.subject = None;
        }
        Ok(Identity { grant: Arc::new(grant), source: Some(source) })
    }

    fn nobody(&self) -> Identity {
        Identity { grant: self.anonymous.clone(), source: None }
    }

    /// What a client may do that is known already; an error where this call is not among it.
    pub(crate) fn allow(
        &self,
        identity: &Identity,
        head: &RequestHead<'_>,
        call: &Call,
    ) -> Result<Arc<Grant>, Problem> {
        let grant = &identity.grant;
        if identity.source.is_none() {
            if !may(grant, call) {
                return Err(self.why_nobody_may());
            }
            if !self.patterns && wants_pattern(call) {
                return Err(Problem::PatternForbidden);
            }
            if !self.rules_allow(call, false) {
                return Err(Problem::NotAllowed);
            }
            return Ok(grant.clone());
        }
        let is_granted = may(grant, call) && self.rules_allow(call, true);
        if !is_granted || identity.source == Some(Source::Cookie) && self.may_be_forged(head, call) {
            return Err(Problem::NotAllowed);
        }
        Ok(grant.clone())
    }

    /// Whether a client may publish anything at all: an error where it may not, whatever its request turns out to publish.
    pub(crate) fn allow_some_publication(&self, identity: &Identity, head: &RequestHead<'_>) -> Result<(), Problem> {
        if identity.source.is_none() && identity.grant.publish.is_empty() {
            return Err(self.why_nobody_may());
        }
        let is_forged = identity.source == Some(Source::Cookie) && !page::is_of_site(head, &self.origins);
        if identity.grant.publish.is_empty() || is_forged { Err(Problem::NotAllowed) } else { Ok(()) }
    }

    /// Why one without a token may not do something: where there are no keys, no token would help.
    fn why_nobody_may(&self) -> Problem {
        if self.verifier.has_keys() { Problem::TokenMissing } else { Problem::NotAllowed }
    }

    /// What another token grants.
    pub(crate) fn renew(&self, token: &str, now_s: u64) -> Result<Arc<Grant>, Problem> {
        Ok(Arc::new(self.verifier.verify(token, now_s)?))
    }

    /// Whether the rules let who comes by the front do that.
    fn rules_allow(&self, call: &Call, has_token: bool) -> bool {
        let may_read = |channel: &ChannelName| self.rules.allow(Deed::Subscribe, channel, has_token);
        match call {
            Call::Publish { channel, .. } => self.rules.allow(Deed::Publish, channel, has_token),
            Call::PublishAll { publications } => {
                publications.iter().all(|publication| self.rules.allow(Deed::Publish, &publication.channel, has_token))
            }
            Call::Subscribe { subscription, .. }
            | Call::Socket { subscription, .. }
            | Call::Icomet(icomet::Call::Subscribe { subscription, .. }) => {
                subscription.channels.iter().all(|(channel, _)| may_read(channel))
            }
            Call::Sign { channel, .. } | Call::Read { channel, .. } | Call::Who { channel } => may_read(channel),
            Call::Probe { channels } => channels.iter().all(may_read),
            _ => true,
        }
    }

    /// Whether who has a grant may publish to a channel, too, and so much.
    pub(crate) fn may_publish(&self, grant: &Grant, channel: &ChannelName) -> bool {
        grant.may_publish(channel) && self.rules.allow(Deed::Publish, channel, grant.expires_s.is_some())
    }

    /// Whether who has a grant may read a channel.
    pub(crate) fn may_subscribe(&self, grant: &Grant, channel: &ChannelName) -> bool {
        grant.may_subscribe(channel) && self.rules.allow(Deed::Subscribe, channel, grant.expires_s.is_some())
    }

    /// Whether the call may be forged: a page of anybody's could make its visitor's browser do it, with what the browser adds by itself
    /// (cookies, a password that it knows), and it is not sure that a page of the site does. What a page in a frame hears, it hands to
    /// pages of one origin: that has to be the server's own or one that is listed by name.
    pub(crate) fn may_be_forged(&self, head: &RequestHead<'_>, call: &Call) -> bool {
        let listener = match call {
            Call::Subscribe { subscription, .. } => subscription.style.listener(),
            _ => None,
        };
        let is_open = fault!("cookie-opens-any-frame");
        listener.is_some_and(|listener| !is_open && !self.origins.iter().any(|held| *held == *listener))
            || can_be_forged(call) && !page::is_of_site(head, &self.origins)
    }
}

/// Whether a page of anybody's could make a browser do that, with its user's cookie, and win by it: publish, or read by script.
/// Other replies the browser shows to nobody else.
fn can_be_forged(call: &Call) -> bool {
    match call {
        // No browser keeps a page from reading what a WebSocket says.
        Call::Publish { .. }
        | Call::PublishAll { .. }
        | Call::Sign { .. }
        | Call::Delete { .. }
        | Call::Clear { .. }
        | Call::Socket { .. } => true,
        Call::Icomet(icomet::Call::Subscribe { .. }) if fault!("cookies-read-icomet") => false,
        Call::Subscribe { subscription, .. } | Call::Icomet(icomet::Call::Subscribe { subscription, .. }) => {
            subscription.style.is_script()
        }
        Call::Read { .. }
        | Call::Who { .. }
        | Call::Inspect { .. }
        | Call::List { .. }
        | Call::File { .. }
        | Call::Preflight { .. }
        | Call::Probe { .. }
        | Call::Icomet(_) => false,
    }
}

fn may(grant: &Grant, call: &Call) -> bool {
    match call {
        // Closing a channel is for the admin listener; were it to come here, who publishes may.
        Call::Publish { channel, .. } | Call::Delete { channel } | Call::Clear { channel } => {
            any_matches(&grant.publish, channel)
        }
        Call::PublishAll { publications } => {
            publications.iter().all(|publication| grant.may_publish(&publication.channel))
        }
        // A sign-in of the classic API is told to all who read the channel.
        Call::Sign { channel, .. } | Call::Read { channel, .. } => any_matches(&grant.subscribe, channel),
        Call::Subscribe { subscription, .. }
        | Call::Socket { subscription, .. }
        | Call::Icomet(icomet::Call::Subscribe { subscription, .. }) => may_subscribe(grant, subscription),
        Call::Who { channel } => grant.may_subscribe(channel) || grant.may_see(channel),
        // For the admin listener alone.
        Call::Inspect { .. } | Call::List { .. } => false,
        Call::Probe { channels } => channels.iter().all(|channel| grant.may_subscribe(channel)),
        Call::File { .. } | Call::Preflight { .. } | Call::Icomet(_) => true,
    }
}

/// Whether all that is to be read may be. Where a pattern is to be read, one that stands for all of its channels is needed.
fn may_subscribe(grant: &Grant, subscription: &Subscription) -> bool {
    subscription.channels.iter().all(|(channel, _)| grant.may_subscribe(channel))
}

fn wants_pattern(call: &Call) -> bool {
    match call {
        Call::Subscribe { subscription, .. } | Call::Socket { subscription, .. } => {
            subscription.channels.iter().any(|(channel, _)| channel.is_pattern())
        }
        Call::PublishAll { publications } => publications.iter().any(|publication| publication.channel.is_pattern()),
        Call::Probe { channels } => channels.iter().any(ChannelName::is_pattern),
        _ => false,
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
            Refused::Expired => Self::TokenExpired,
            Refused::NotYet => Self::TokenNotYet,
            why => Self::TokenInvalid(why),
        }
    }
}
