//! The authorization of calls from clients of the front.

use std::sync::Arc;

use sealed::fault;
use sealed_http::RequestHead;

use super::call::{Access, Audience, Course};
use super::channel_rules::ChannelAction;
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

/// Checks calls against the grants of tokens and the rules. Each loop has one.
#[derive(Debug)]
pub(crate) struct Authorizer {
    verifier: Arc<Verifier>,
    anonymous: Arc<Grant>,
    /// Whether clients without a token may subscribe to patterns.
    patterns: bool,
    /// Whether icomet's tokens give access to their channels, and to nothing else.
    icomet_has_tokens: bool,
    cookie: String,
    rules: Arc<Rules>,
    /// The origins whose pages may act with their user's cookie, in addition to the server's own
    /// pages.
    origins: Vec<String>,
}

/// A client of the front, as the head of its request identifies it.
#[derive(Debug)]
pub(crate) struct Identity {
    grant: Arc<Grant>,
    /// The place of its token in the request, if it has a token.
    source: Option<Source>,
}

/// The reason for which a call is not allowed.
#[derive(Debug)]
pub(crate) struct Denied<'a> {
    pub(crate) problem: Problem,
    /// The first channel of the call that is not allowed, if a channel is the reason.
    pub(crate) channel: Option<&'a ChannelName>,
}

impl From<Problem> for Denied<'_> {
    fn from(problem: Problem) -> Self {
        Self { problem, channel: None }
    }
}

impl Authorizer {
    /// Creates an authorizer. `*` among the front's origins does not count as an origin here.
    pub(crate) fn new(verifier: Arc<Verifier>, config: &Config, rules: Arc<Rules>) -> Self {
        let Config { auth, front, icomet, .. } = config;
        let Anonymous { subscribe, publish, presence } = auth.of_anonymous();
        let anonymous = Arc::new(Grant { subject: None, subscribe, publish, presence, expires_s: None });
        let origins = front.origins.iter().filter(|origin| *origin != "*").cloned().collect();
        let icomet_has_tokens = icomet.auth == IcometAuth::Token;
        let (patterns, cookie) = (front.patterns, auth.cookie.clone());
        Self { verifier, anonymous, patterns, icomet_has_tokens, cookie, rules, origins }
    }

    /// Returns the verifier of tokens.
    pub(crate) fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// Changes the verifier of tokens.
    pub(crate) fn set_verifier(&mut self, verifier: Arc<Verifier>) {
        self.verifier = verifier;
    }

    /// Returns what a client of the front may do at a time of the calendar; an error if it may not
    /// do this call.
    pub(crate) fn admit<'a>(
        &self,
        head: &RequestHead<'_>,
        access: &Access<'a>,
        now: UnixMillis,
    ) -> Result<Arc<Grant>, Denied<'a>> {
        match access.audience {
            Audience::Everybody => Ok(self.anonymous.clone()),
            // The channel's shard checks that token later.
            Audience::GrantedByChannel if self.icomet_has_tokens => {
                self.check_rules(access, true).map(|()| self.anonymous.clone())
            }
            Audience::GrantedByChannel => self.allow(&self.nobody(), head, access),
            Audience::Granted | Audience::Admin => self.allow(&self.identify(head, now)?, head, access),
        }
    }

    /// Returns the identity of a client of the front at a time of the calendar, as far as the head
    /// of its request shows it.
    pub(crate) fn identify(&self, head: &RequestHead<'_>, now: UnixMillis) -> Result<Identity, Problem> {
        let found = if self.verifier.has_keys() { bearer::find(head, &self.cookie)? } else { None };
        let Some((token, source)) = found else { return Ok(self.nobody()) };
        let mut grant = self.verifier.verify(&token, now.as_secs())?;
        // An image on a page of any site makes a browser send a request, too; its user is not
        // present then.
        if source == Source::Cookie && !origin::is_of_site(head, &self.origins) && !fault!("picture-makes-present") {
            grant.subject = None;
        }
        Ok(Identity { grant: Arc::new(grant), source: Some(source) })
    }

    fn nobody(&self) -> Identity {
        Identity { grant: self.anonymous.clone(), source: None }
    }

    /// Returns the grant of an identified client; an error if it may not do this call.
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

    /// Checks that a client may publish anything at all, before the messages of its request are
    /// known.
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

    /// Returns the problem of a client without a token. If the server has no keys, no token would
    /// help.
    fn why_nobody_may(&self) -> Problem {
        if self.verifier.has_keys() { Problem::TokenMissing } else { Problem::NotAllowed(Denial::Anonymous) }
    }

    /// Returns the grant of a token that replaces the client's current one.
    pub(crate) fn renew(&self, token: &str, now: UnixMillis) -> Result<Arc<Grant>, Problem> {
        Ok(Arc::new(self.verifier.verify(token, now.as_secs())?))
    }

    /// Checks that a client of the front may do a call by its token, or without one, and by the
    /// rules.
    fn check<'a>(&self, grant: &Grant, has_token: bool, access: &Access<'a>) -> Result<(), Denied<'a>> {
        let problem = if has_token { Problem::NotAllowed(Denial::Token) } else { self.why_nobody_may() };
        check_grant(grant, access).map_err(|channel| Denied { problem, channel })?;
        if !has_token && !self.patterns && access.has_pattern() {
            return Err(Problem::PatternForbidden.into());
        }
        self.check_rules(access, has_token)
    }

    /// Checks that the rules let a client of the front do a call.
    fn check_rules<'a>(&self, access: &Access<'a>, has_token: bool) -> Result<(), Denied<'a>> {
        let allow = |action, channel: &&ChannelName| self.rules.allow(action, channel, has_token);
        let mut writes = access.writes().map(|write| write.channel);
        let read = access.reads().find(|channel| !allow(ChannelAction::Subscribe, channel));
        match read.or_else(|| writes.find(|channel| !allow(ChannelAction::Publish, channel))) {
            Some(channel) => Err(Denied { problem: Problem::NotAllowed(Denial::Rule), channel: Some(channel) }),
            None => Ok(()),
        }
    }

    /// Checks that a client with a grant may do a call on its connection.
    pub(crate) fn may<'a>(&self, grant: &Grant, access: &Access<'a>) -> Result<(), Denied<'a>> {
        self.check(grant, grant.expires_s.is_some(), access)
    }

    /// Returns whether a client with a grant may read a channel.
    pub(crate) fn may_subscribe(&self, grant: &Grant, channel: &ChannelName) -> bool {
        grant.may_subscribe(channel) && self.rules.allow(ChannelAction::Subscribe, channel, grant.expires_s.is_some())
    }

    /// Returns whether the call may be forged: a page of any site could make its visitor's browser
    /// send it, with the credentials that the browser adds by itself (cookies, a stored password),
    /// and the server cannot be sure that a page of the site does. A page in a frame passes its
    /// messages on to pages of one origin: it has to be the server's own or listed by name.
    pub(crate) fn may_be_forged(&self, head: &RequestHead<'_>, access: &Access<'_>) -> bool {
        let is_open = fault!("cookie-opens-any-frame");
        access.listener.is_some_and(|listener| !is_open && !self.origins.iter().any(|held| *held == *listener))
            || access.is_forgeable && !origin::is_of_site(head, &self.origins)
    }
}

/// Checks that a grant allows all that a call reads and publishes. Reading all channels of a
/// pattern requires a granted pattern that matches all of them. The error is the first channel that
/// the grant does not allow.
fn check_grant<'a>(grant: &Grant, access: &Access<'a>) -> Result<(), Option<&'a ChannelName>> {
    if access.audience == Audience::Admin {
        return Err(None);
    }
    let may_read = |channel| grant.may_subscribe(channel) || access.is_about_members && grant.may_see(channel.as_str());
    // A WebSocket may be opened without channels, but not by a client that may do nothing on it.
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
            Refused::KeysPending => Self::KeysUnavailable,
            why => Self::TokenInvalid(why),
        }
    }
}
