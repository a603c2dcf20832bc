//! The API of icomet, served by the same hub and engine.

use std::time::Duration;

use sealed::ConnectionId;
use sealed_http::{Http, Response};

use super::answers::note_refusal;
use super::pending::PendingRequest;
use super::{Gateway, SessionState, now, set_session, unix_time};
use crate::config::IcometAuth;
use crate::core::message::{ChannelName, Draft};
use crate::core::one_or_more::OneOrMore;
use crate::core::owner::Owner;
use crate::core::pattern::Pattern;
use crate::core::problem::Problem;
use crate::engine::{BroadcastOrder, Reply, Request, Token};
use crate::ops::counters;
use crate::protocols::call::{IcometReply, ReplyTo};
use crate::protocols::icomet::responses::{self, Signed};
use crate::protocols::icomet::{head_of_json, request};

/// The number of unsent bytes beyond which a watcher is disconnected.
const WATCHER_BYTES_MAX: usize = 1 << 20;

impl Gateway {
    pub(super) fn icomet(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        call: request::IcometCall,
        owner: Owner,
    ) {
        match call {
            request::IcometCall::Subscribe { mut subscription, token } => {
                subscription.owner = owner;
                if self.config.icomet.auth == IcometAuth::None {
                    return self.subscribe(http, id, subscription, self.config.icomet.polling_timeout_s, None);
                }
                let Some((channel, _)) = subscription.channels.first().cloned() else { return };
                let reply = IcometReply::Subscribe(Box::new(subscription));
                self.ask(http, id, Request::CheckToken { channel, token }, ReplyTo::Icomet(reply));
            }
            request::IcometCall::Ping { callback } => {
                http.respond(id, &responses::ping(&callback, self.config.icomet.polling_timeout_s));
            }
            request::IcometCall::Publish { channel, payload, callback } => {
                let messages = OneOrMore::one(Draft { payload, ..Draft::default() }.taken_at(unix_time(http)));
                let reply = ReplyTo::Icomet(IcometReply::Published { callback });
                self.ask(http, id, Request::Publish { channel, messages, owner }, reply);
            }
            request::IcometCall::Broadcast { payload } => {
                let mut message = Draft { payload, ..Draft::default() }.taken_at(unix_time(http));
                message.extra_mut().is_broadcast = true;
                let order = BroadcastOrder { pattern: Pattern::all(), message, reach_max: usize::MAX, owner };
                self.request(http, Request::Broadcast(order), PendingRequest::new(id, ReplyTo::Broadcast));
                http.respond(id, &responses::broadcast());
            }
            request::IcometCall::Sign { channel, expires_s, callback } => {
                let timeout_s = u32::try_from(self.config.icomet.channel_timeout_s).unwrap_or(u32::MAX);
                let expires_s = expires_s.unwrap_or(timeout_s);
                let Some(bits) = http.secret() else {
                    tracing::error!("the system has no random bits for a token");
                    return http.respond(id, &responses::no_random_bits());
                };
                let token = Token::new(bits);
                let reply = IcometReply::Signed { channel: channel.clone(), expires_s, callback };
                let hold = Duration::from_secs(u64::from(expires_s));
                self.ask(http, id, Request::IssueToken { channel, hold, token }, ReplyTo::Icomet(reply));
            }
            request::IcometCall::Close { channel } => {
                let reply = ReplyTo::Icomet(IcometReply::Ended { channel: channel.clone() });
                self.ask(http, id, Request::Delete { channel }, reply);
            }
            request::IcometCall::Clear { channel } => {
                let reply = ReplyTo::Icomet(IcometReply::Ended { channel: channel.clone() });
                self.ask(http, id, Request::Clear { channel }, reply);
            }
            request::IcometCall::Info { channel: None } => {
                let channels = counters::sum(&self.counters, |one| &one.channels);
                let subscribers = counters::sum(&self.counters, |one| &one.subscribers);
                http.respond(id, &responses::server_info(channels, subscribers));
            }
            request::IcometCall::Info { channel: Some(channel) } => {
                let reply = ReplyTo::Icomet(IcometReply::Info { channel: channel.clone() });
                self.ask(http, id, Request::Inspect { channel }, reply);
            }
            request::IcometCall::Check { channel } => {
                let reply = ReplyTo::Icomet(IcometReply::Check { channel: channel.clone() });
                self.ask(http, id, Request::Inspect { channel }, reply);
            }
            request::IcometCall::Watch => self.watch(http, id),
        }
    }

    /// Answers a client with the engine's reply.
    pub(super) fn complete_icomet(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        reply: IcometReply,
        outcome: Result<Reply, Problem>,
    ) {
        let response = match (reply, outcome) {
            (IcometReply::Published { callback }, Ok(Reply::Published(_))) => responses::published(callback.as_deref()),
            (IcometReply::Ended { .. }, Ok(Reply::Ended(Some(next)))) => responses::ended(next),
            (IcometReply::Ended { channel }, Ok(Reply::Ended(None))) => responses::not_connected(&channel),
            (IcometReply::Signed { channel, expires_s, callback }, Ok(Reply::TokenIssued { first, token })) => {
                let sub_timeout_s = self.config.icomet.polling_timeout_s;
                let signed = Signed { channel: &channel, first, token: &token, expires_s, sub_timeout_s };
                responses::signed(callback.as_deref(), &signed)
            }
            (IcometReply::Info { channel }, Ok(Reply::Info(info))) => responses::channel_info(&channel, info),
            (IcometReply::Check { channel }, Ok(Reply::Info(info))) => responses::check(&channel, info),
            (IcometReply::Subscribe(subscription), Ok(Reply::TokenChecked(true))) => {
                return self.subscribe(http, id, *subscription, self.config.icomet.polling_timeout_s, None);
            }
            (IcometReply::Subscribe(subscription), Ok(Reply::TokenChecked(false))) => {
                return self.refuse(http, id, &subscription, Problem::WrongToken);
            }
            (IcometReply::Subscribe(subscription), Err(problem)) => {
                return self.refuse(http, id, &subscription, problem);
            }
            // This is the answer to a back end.
            (_, Err(problem)) => {
                note_refusal(http, id, problem, &self.answering);
                responses::refused(problem)
            }
            (reply, Ok(other)) => {
                tracing::error!(?other, ?reply, "not the reply to this request");
                Response::new(500)
            }
        };
        http.respond(id, &response);
    }

    /// Starts to notify a client of the channels in use.
    fn watch(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        http.start_stream(id, &head_of_json());
        set_session(http, id, SessionState::Watching, &self.answering.meter);
        self.watchers.push(id);
        // Each watcher has its own request, so that it is notified at once of the channels in use.
        self.engine.watch_activity(now(http), true);
    }

    pub(super) fn unwatch(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        self.watchers.retain(|held| *held != id);
        if self.watchers.is_empty() {
            self.engine.watch_activity(now(http), false);
        }
    }

    pub(super) fn tell_watchers(&mut self, http: &mut Http<'_, Self>, channel: &ChannelName, in_use: bool) {
        let line = responses::activity(channel, in_use);
        for id in &self.watchers {
            if http.queued(*id) > WATCHER_BYTES_MAX {
                tracing::warn!(?id, "a watcher reads too slowly, and is disconnected");
                http.abort(*id);
            } else {
                http.write(*id, &line);
            }
        }
    }
}
