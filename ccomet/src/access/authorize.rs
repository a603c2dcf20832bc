//! Whether a client of the front may do what it asks for.

use std::sync::Arc;

use sealed::fault;
use sealed_http::RequestHead;

use super::call::{Access, Audience, Course};
use super::channel_rules::Deed;
use super::origin;
use super::token::Grant;
use super::token::Verifier;
use super::token::bearer::{self, Source};
use crate::config::auth::Anonymous;
use crate::config::rules::Rules;
use crate::config::{Config, IcometAuth};
use crate::core::message::ChannelName;
use crate::core::problem::{Denial, Problem};
use crate::core::refused::Refused;
use crate::core::time::UnixMillis;

/// Holds what tokens grant against what is asked. One for each loop.
#[derive(Debug)]
pub(crate) struct Authorizer {
    verifier: Arc<Verifier>,
    anonymous: Arc<Grant>,
    /// Whether clients without a token may subscribe to patterns.
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

/// Why a call is not allowed.
#[derive(Debug)]
pub(crate) struct Denied<'a> {
    pub(crate) problem: Problem,
    /// The first of its channels for which it is not allowed, if that is the reason.
    pub(crate) channel: Option<&'a ChannelName>,
}

impl From<Problem> for Denied<'_> {
    fn from(problem: Problem) -> Self {
        Self { problem, channel: None }
    }
}

impl Authorizer {
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

    /// Returns what a client of the front may do at that time of the calendar; an error if this call is not among it.
    pub(crate) fn admit<'a>(
        &self,
        head: &RequestHead<'_>,
        access: &Access<'a>,
        now: UnixMillis,
    ) -> Result<Arc<Grant>, Denied<'a>> {
        match access.audience {
            Audience::Everybody => Ok(self.anonymous.clone()),
            // Whether that token is right is looked at when the channel's shard is asked.
            Audience::GrantedByChannel if self.icomet_has_tokens => {
                self.check_rules(access, true).map(|()| self.anonymous.clone())
            }
            Audience::GrantedByChannel => self.allow(&self.nobody(), head, access),
            Audience::Granted | Audience::Admin => self.allow(&self.identify(head, now)?, head, access),
        }
    }

    /// Returns which client of the front asks, as far as the head of the request says it, at that time of the calendar.
    pub(crate) fn identify(&self, head: &RequestHead<'_>, now: UnixMillis) -> Result<Identity, Problem> {
        let found = if self.verifier.has_keys() { bearer::find(head, &self.cookie)? } else { None };
        let Some((token, source)) = found else { return Ok(self.nobody()) };
        let mut grant = self.verifier.verify(&token, now.as_secs())?;
        // A picture on anybody's page makes a browser ask, too: its user is not present for that.
        if source == Source::Cookie && !origin::is_of_site(head, &self.origins) && !fault!("picture-makes-present") {
            grant.subject = None;
        }
        Ok(Identity { grant: Arc::new(grant), source: Some(source) })
    }

    fn nobody(&self) -> Identity {
        Identity { grant: self.anonymous.clone(), source: None }
    }

    /// What a client may do that is known already; an error where this call is not among it.
    pub(crate) fn allow<'a>(
        &self,
        identity: &Identity,
        head: &RequestHead<'_>,
        access: &Access<'a>,
    ) -> Result<Arc<Grant>, Denied<'a>> {
        let Identity { grant, source } = identity;
        self.check(grant, source.is_some(), access)?;
        if *source == Some(Source::Cookie) && self.may_be_forged(head, access) {
            return Err(Problem::NotAllowed(Denial::Page).into());
        }
        Ok(grant.clone())
    }

    /// Whether a client may publish anything at all: an error where it may not, whatever its request turns out to publish.
    pub(crate) fn allow_some_publication(&self, identity: &Identity, head: &RequestHead<'_>) -> Result<(), Problem> {
        if identity.source.is_none() && identity.grant.publish.is_empty() {
            return Err(self.why_nobody_may());
        }
        if identity.grant.publish.is_empty() {
            return Err(Problem::NotAllowed(Denial::Token));
        }
        let is_forged = identity.source == Some(Source::Cookie) && !origin::is_of_site(head, &self.origins);
        if is_forged { Err(Problem::NotAllowed(Denial::Page)) } else { Ok(()) }
    }

    /// Why one without a token may not do something: where there are no keys, no token would help.
    fn why_nobody_may(&self) -> Problem {
        if self.verifier.has_keys() { Problem::TokenMissing } else { Problem::NotAllowed(Denial::Anonymous) }
    }

    /// What another token grants.
    pub(crate) fn renew(&self, token: &str, now: UnixMillis) -> Result<Arc<Grant>, Problem> {
        Ok(Arc::new(self.verifier.verify(token, now.as_secs())?))
    }

    /// Checks that a client of the front may do that by its token, or without one, and by the rules.
    fn check<'a>(&self, grant: &Grant, has_token: bool, access: &Access<'a>) -> Result<(), Denied<'a>> {
        let problem = if has_token { Problem::NotAllowed(Denial::Token) } else { self.why_nobody_may() };
        check_grant(grant, access).map_err(|channel| Denied { problem, channel })?;
        if !has_token && !self.patterns && access.has_pattern() {
            return Err(Problem::PatternForbidden.into());
        }
        self.check_rules(access, has_token)
    }

    /// Checks that the rules let a client of the front do that.
    fn check_rules<'a>(&self, access: &Access<'a>, has_token: bool) -> Result<(), Denied<'a>> {
        let allow = |deed, channel: &&ChannelName| self.rules.allow(deed, channel, has_token);
        let mut writes = access.writes().map(|write| write.channel);
        let read = access.reads().find(|channel| !allow(Deed::Subscribe, channel));
        match read.or_else(|| writes.find(|channel| !allow(Deed::Publish, channel))) {
            Some(channel) => Err(Denied { problem: Problem::NotAllowed(Denial::Rule), channel: Some(channel) }),
            None => Ok(()),
        }
    }

    /// Checks that a client with a grant may do that on its connection.
    pub(crate) fn may<'a>(&self, grant: &Grant, access: &Access<'a>) -> Result<(), Denied<'a>> {
        self.check(grant, grant.expires_s.is_some(), access)
    }

    /// Returns whether a client with a grant may read a channel.
    pub(crate) fn may_subscribe(&self, grant: &Grant, channel: &ChannelName) -> bool {
        grant.may_subscribe(channel) && self.rules.allow(Deed::Subscribe, channel, grant.expires_s.is_some())
    }

    /// Whether the call may be forged: a page of anybody's could make its visitor's browser do it, with what the browser adds by itself
    /// (cookies, a password that it knows), and it is not sure that a page of the site does. What a page in a frame hears, it hands to
    /// pages of one origin: that has to be the server's own or one that is listed by name.
    pub(crate) fn may_be_forged(&self, head: &RequestHead<'_>, access: &Access<'_>) -> bool {
        let is_open = fault!("cookie-opens-any-frame");
        access.listener.is_some_and(|listener| !is_open && !self.origins.iter().any(|held| *held == *listener))
            || access.is_forgeable && !origin::is_of_site(head, &self.origins)
    }
}

/// Checks that a grant lets its bearer read and publish all that a call does. To read all channels of a pattern, a pattern is needed
/// that stands for all of them. The error is the first channel for which the grant does not do.
fn check_grant<'a>(grant: &Grant, access: &Access<'a>) -> Result<(), Option<&'a ChannelName>> {
    if access.audience == Audience::Admin {
        return Err(None);
    }
    let may_read = |channel| grant.may_subscribe(channel) || access.is_about_members && grant.may_see(channel.as_str());
    // A WebSocket may be opened without channels, but not by a client that could do nothing on it.
    let is_useless = access.course == Course::Conversation && grant.subscribe.is_empty() && grant.publish.is_empty();
    if is_useless && !fault!("useless-socket-opened") {
        return Err(None);
    }
    let mut writes = access.writes().map(|write| write.channel);
    let read = access.reads().find(|channel| !may_read(channel));
    let denied = read.or_else(|| writes.find(|channel| !grant.may_publish(channel)));
    if denied.is_some() { Err(denied) } else { Ok(()) }
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
