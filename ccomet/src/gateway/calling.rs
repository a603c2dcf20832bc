//! The conversion of calls into requests to the hub and the engine.

use bytes::Bytes;
use sealed::{ConnectionId, fault};
use sealed_http::site::Origins;
use sealed_http::{Http, Method, RequestHead, Response};

use super::answers::{allow_credentials, fields_for, note_refusal, problem_response};
use super::pending::PendingRequest;
use super::{Caller, Gateway, unix_time};
use crate::access::{Access, Write};
use crate::core::health::HealthProblem;
use crate::core::message::ChannelName;
use crate::core::one_or_more::OneOrMore;
use crate::core::problem::Problem;
use crate::engine::Request;
use crate::ops::health::HealthQuestion;
use crate::ops::metrics::Metrics;
use crate::protocols::call::{Call, Door, ReplyTo};
use crate::protocols::format::response::{json_response, json_response_with, response};
use crate::protocols::route::READ_METHODS;
use crate::protocols::v1;

/// The path of the metrics, at the admin listener.
const METRICS_PATH: &str = "/metrics";

impl Gateway {
    /// Checks that the messages of a call are as short as the rules require.
    pub(super) fn measure(&self, access: &Access<'_>) -> Result<(), Problem> {
        let fits = |write: Write<'_>| {
            let bytes_max = self.message_bytes_max(write.channel);
            if write.bytes <= bytes_max {
                return Ok(());
            }
            self.answering.refusals.about(write.channel);
            Err(Problem::MessageTooLarge(bytes_max))
        };
        access.writes().try_for_each(fits)
    }

    /// Returns the longest message that any of the channels of a call accepts.
    pub(super) fn bytes_max(&self, access: &Access<'_>) -> usize {
        let all = access.writes().map(|write| self.message_bytes_max(write.channel));
        all.min().unwrap_or(self.config.limits.message_bytes_max)
    }

    /// Returns the longest message that a channel accepts.
    pub(super) fn message_bytes_max(&self, channel: &ChannelName) -> usize {
        self.rules.bounds(self.rules.find(channel)).message_bytes_max
    }

    pub(super) fn call(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
        call: Call,
        caller: &Caller,
    ) {
        match call {
            Call::File { path } => {
                let door = http.state(id).map_or(Door::Front, |client| client.door);
                let response = self.file(http, id, &path, head, door);
                http.respond(id, &response);
            }
            Call::Preflight { allow } => {
                let response = Response::new(204).header("Allow", allow);
                let (door, number) = http.state(id).map_or((Door::Front, 0), |client| (client.door, client.origin));
                let cors = if door == Door::Front { &self.preflight } else { &self.admin_preflight };
                // At the admin listener, only pages of listed origins get header fields.
                let origin = head.header_str("origin").filter(|_| door == Door::Front || number > 0);
                let mut fields = origin.map_or(Vec::new(), |origin| cors.preflight_fields(Some(origin)));
                if door == Door::Front && cors.origins != Origins::Any && number > 0 {
                    fields.push(allow_credentials());
                }
                http.respond(id, &response.with(&fields));
            }
            call => self.act(http, id, call, caller),
        }
    }

    /// Executes a call that no longer needs its request.
    pub(super) fn act(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, call: Call, caller: &Caller) {
        match call {
            Call::File { .. } | Call::Preflight { .. } => {}
            Call::Publish { channel, mut draft, reply } => {
                if !fault!("key-shared-by-publishers") {
                    caller.scope_key(&mut draft);
                }
                let messages = OneOrMore::one(draft.taken_at(unix_time(http)));
                self.ask(http, id, Request::Publish { channel, messages, owner: caller.owner() }, reply);
            }
            Call::PublishAll { mut publications } => {
                for publication in &mut publications {
                    caller.scope_key(&mut publication.draft);
                }
                self.publish_all(http, id, publications, caller);
            }
            Call::Subscribe { mut subscription, wait_s } => {
                subscription.member = caller.member();
                subscription.owner = caller.owner();
                self.subscribe(http, id, subscription, wait_s, caller.expires());
            }
            Call::Socket { mut subscription, response } => {
                subscription.member = caller.member();
                subscription.owner = caller.owner();
                self.open_socket(http, id, subscription, &response, caller);
            }
            Call::Sign { channel, name, callback } => {
                let request = Request::Announce { channel, name };
                self.request(http, request, PendingRequest::new(id, ReplyTo::Nobody));
                http.respond(id, &v1::signed_in(&callback));
            }
            Call::Delete { channel } => {
                self.ask(http, id, Request::Delete { channel }, ReplyTo::Delete);
            }
            Call::Clear { channel } => {
                self.ask(http, id, Request::Clear { channel }, ReplyTo::Delete);
            }
            Call::Read { channel, range } => {
                let reply = ReplyTo::History { channel: channel.clone() };
                self.ask(http, id, Request::Read { channel, range }, reply);
            }
            Call::Inspect { channel } => {
                let reply = ReplyTo::Info { channel: channel.clone() };
                self.ask(http, id, Request::Inspect { channel }, reply);
            }
            Call::Who { channel } => {
                let with_members = caller.grant.as_ref().is_none_or(|grant| grant.may_see(channel.as_str()));
                let reply = ReplyTo::Who { channel: channel.clone(), with_members };
                self.ask(http, id, Request::Presence { channel, owner: caller.owner() }, reply);
            }
            Call::List { listing } => {
                self.ask(http, id, Request::List { listing }, ReplyTo::List);
            }
            Call::Probe { .. } => {
                let fields = fields_for(&self.answering, http.state(id));
                http.respond(id, &json_response(Bytes::new()).with(fields));
            }
            Call::Reload => self.reload_for(http, id),
            Call::Icomet(call) => self.icomet(http, id, call, caller.owner()),
        }
    }

    /// Returns the problems of the server, other than that it is shutting down.
    pub(super) fn problems(&self) -> Vec<HealthProblem> {
        let mut problems = self.engine.problems();
        if !self.watchdog.all_alive() {
            problems.push(HealthProblem::LoopHangs);
        }
        problems
    }

    /// Returns the answer to a question about the health of the server.
    fn health(&self, question: HealthQuestion) -> Response {
        let mut problems = self.problems();
        if self.draining.is_some() {
            problems.push(HealthProblem::Draining);
        }
        let (is_ok, body) = question.answer(&problems);
        json_response_with(if is_ok { 200 } else { 503 }, body)
    }

    /// Returns the page of the admin listener with this path, if it is not a file but shows the
    /// state of the server.
    fn admin_page(&self, http: &Http<'_, Self>, path: &str) -> Option<Response> {
        if path == METRICS_PATH {
            return Some(response(Metrics::CONTENT_TYPE, self.metrics.page(self.moment())));
        }
        let health = HealthQuestion::of_path(path).map(|question| self.health(question));
        health.or_else(|| self.console_page(http, path))
    }

    /// Returns the answer to a request for a file, or for the health or the metrics of the server.
    pub(super) fn file(
        &self,
        http: &Http<'_, Self>,
        id: ConnectionId,
        path: &str,
        head: &RequestHead<'_>,
        door: Door,
    ) -> Response {
        let page = if door == Door::Admin { self.admin_page(http, path) } else { None };
        let Some(response) = page.or_else(|| self.files.answer(door, path, head)) else {
            if fault!("absent-path-has-methods") {
                return problem_response(Problem::MethodNotAllowed).header("Allow", READ_METHODS);
            }
            self.answering.refusals.note_unlogged(Problem::NotFound.code());
            return problem_response(Problem::NotFound);
        };
        if matches!(head.method(), Method::Get | Method::Head) {
            return response;
        }
        note_refusal(http, id, Problem::MethodNotAllowed, &self.answering);
        problem_response(Problem::MethodNotAllowed).header("Allow", READ_METHODS)
    }
}
