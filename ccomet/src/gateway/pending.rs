//! Requests to the engine, and the answers to their askers.

use sealed::{ConnectionId, fault};
use sealed_http::{Http, Response};

use super::answers::{fields_for, respond_problem};
use super::metering::publications_of;
use super::{Gateway, SessionState, done, loop_time, now};
use crate::access::client::Asking;
use crate::core::problem::Problem;
use crate::core::tally::PublishApi;
use crate::engine::{Listed, Refusal, Reply, Request};
use crate::handle;
use crate::protocols::call::ReplyTo;
use crate::protocols::format::response::json_response;
use crate::protocols::native::items as native;
use crate::protocols::v1;

/// The client or handle that waits for a reply of the engine.
#[derive(Debug)]
pub(super) enum Asker {
    Client(PendingRequest),
    /// A handle, and whether its request publishes a message.
    Handle(handle::HandleAsker, bool),
}

/// The kept data of a client's request to the engine, until its reply.
#[derive(Debug)]
pub(super) struct PendingRequest {
    peer: ConnectionId,
    reply: ReplyTo,
    /// The client that is charged for the channels that its message reaches.
    payer: Option<Asking>,
}

impl PendingRequest {
    pub(super) fn new(peer: ConnectionId, reply: ReplyTo) -> Self {
        Self { peer, reply, payer: None }
    }

    /// Charges a client for all channels that its message reaches but the first, which is charged
    /// already.
    pub(super) fn paid_by(self, payer: Asking) -> Self {
        Self { payer: Some(payer), ..self }
    }
}

impl Gateway {
    /// Sends the engine a request for a client, which waits for nothing else.
    pub(super) fn ask(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: Request, reply: ReplyTo) {
        if let Some(client) = http.state_mut(id) {
            client.session = SessionState::Asking;
        }
        self.request(http, request, PendingRequest::new(id, reply));
    }

    pub(super) fn request(&mut self, http: &mut Http<'_, Self>, request: Request, pending: PendingRequest) {
        self.engine.request(now(http), request, Asker::Client(pending));
    }

    /// Passes a reply of the engine to the client or handle that waits for it.
    pub(super) fn complete(&mut self, http: &mut Http<'_, Self>, asker: Asker, outcome: Result<Reply, Refusal>) {
        match asker {
            Asker::Client(pending) => self.complete_request(http, pending, outcome),
            Asker::Handle(asker, publishes) => {
                if publishes {
                    let is_accepted =
                        matches!(outcome, Ok(Reply::Published(_) | Reply::Broadcast { refused: None, .. }));
                    self.answering.meter.note_published(PublishApi::Handle, is_accepted, 1);
                }
                asker.answer(outcome.map_err(Into::into));
            }
        }
    }

    /// Answers a client with the engine's reply.
    fn complete_request(
        &mut self,
        http: &mut Http<'_, Self>,
        pending: PendingRequest,
        outcome: Result<Reply, Refusal>,
    ) {
        let PendingRequest { peer, reply, payer } = pending;
        // The message is published even if its publisher has gone.
        if let (Some(payer), Ok(Reply::Broadcast { channels, .. })) = (payer, &outcome)
            && !fault!("reach-not-charged")
        {
            self.client_tracker.owe_publishes(payer, channels.saturating_sub(1), loop_time(http));
        }
        let outcome = match outcome {
            Ok(Reply::Broadcast { refused: Some(why), .. }) | Err(why) => Err(Problem::from(why)),
            Ok(reply) => Ok(reply),
        };
        if let Some((api, count)) = publications_of(&reply) {
            self.answering.meter.note_published(api, outcome.is_ok(), count);
        }
        match reply {
            ReplyTo::Part { places } => self.complete_part(http, peer, &places, &outcome),
            ReplyTo::Socket { channel, reference } => {
                let outcome = outcome.map(|reply| match reply {
                    Reply::Published(spots) => Some(spots.first),
                    _ => None,
                });
                self.complete_on_socket(http, peer, &channel, reference, outcome);
            }
            ReplyTo::Broadcast | ReplyTo::Nobody => {}
            // The client has gone and gets no answer.
            _ if http.state(peer).is_none() => {}
            ReplyTo::Icomet(reply) => {
                done(http, peer, &self.answering.meter);
                self.complete_icomet(http, peer, reply, outcome);
            }
            reply => {
                done(http, peer, &self.answering.meter);
                self.answer(http, peer, reply, outcome);
            }
        }
    }

    fn answer(&self, http: &mut Http<'_, Self>, peer: ConnectionId, reply: ReplyTo, outcome: Result<Reply, Problem>) {
        let fields = fields_for(&self.answering, http.state(peer));
        let response = match (outcome, reply) {
            (Ok(Reply::Published(spots)), ReplyTo::Native { channel, callback }) => {
                native::published(&channel, spots.first, callback.as_deref()).with(fields)
            }
            (Ok(Reply::Published(_)), ReplyTo::V1 { callback }) => v1::published(&callback),
            (Ok(Reply::Page(Some(page))), ReplyTo::History { channel }) => {
                json_response(native::history(&channel, &page)).with(fields)
            }
            (Ok(Reply::Info(Some(info))), ReplyTo::Info { channel }) => {
                json_response(native::info(&Listed { channel, info })).with(fields)
            }
            (Ok(Reply::Presence(who)), ReplyTo::Who { channel, with_members }) => {
                json_response(native::presence(&channel, &who, with_members)).with(fields)
            }
            (Ok(Reply::List { channels, has_more }), ReplyTo::List) => {
                json_response(native::list(&channels, has_more)).with(fields)
            }
            (Ok(Reply::Ended(Some(_))), ReplyTo::Delete) => Response::new(204).with(fields),
            (Ok(Reply::Ended(None) | Reply::Page(None) | Reply::Info(None)), _) => {
                return respond_problem(http, peer, Problem::UnknownChannel, None, &self.answering);
            }
            (Ok(other), reply) => {
                tracing::error!(?other, ?reply, "not the reply to this request");
                Response::new(500)
            }
            (Err(problem), reply) => {
                let callback = if let ReplyTo::Native { callback, .. } = &reply { callback.as_deref() } else { None };
                return respond_problem(http, peer, problem, callback, &self.answering);
            }
        };
        http.respond(peer, &response);
    }
}
