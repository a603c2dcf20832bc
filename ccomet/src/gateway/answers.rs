//! The form of answers, and the output from the hub to its subscribers.

use bytes::Bytes;
use sealed::{ConnectionId, fault};
use sealed_http::site::{Cors, Field, Origins};
use sealed_http::websocket::CloseCode;
use sealed_http::{Http, Response};

use super::metering::Meter;
use super::{Client, Gateway, SessionState, done, socket};
use crate::core::problem::Problem;
use crate::hub::{Format, Label, PollReply, Sink};
use crate::ops::refusals::RefusalLog;
use crate::protocols::call::Door;
use crate::protocols::format::jsonp;
use crate::protocols::format::response::script_response;
use crate::protocols::native::websocket;
use crate::protocols::{self, Answer};

/// The output from the hub to its subscribers.
pub(super) struct Out<'a, 'b> {
    pub(super) http: &'a mut Http<'b, Gateway>,
    pub(super) answering: &'a Answering,
}

/// The parts of answers that do not depend on their content.
#[derive(Debug)]
pub(super) struct Answering {
    /// Header fields for pages of other origins, by the origin number of a connection: 0 for all
    /// origins that are not listed.
    pub(super) fields: Vec<Vec<Field>>,
    pub(super) refusals: RefusalLog,
    /// The counters of this loop.
    pub(super) meter: Meter,
}

impl Sink for Out<'_, '_> {
    fn open(&mut self, peer: ConnectionId, format: Format, target: &str) {
        let fields = fields_for(self.answering, self.http.state(peer));
        if let Some(head) = protocols::of(format).stream_head(format, target, fields) {
            self.http.start_stream(peer, &head);
        }
    }

    fn stream(&mut self, peer: ConnectionId, chunks: &[Bytes]) -> bool {
        self.http.write_framed(peer, chunks)
    }

    fn queued(&self, peer: ConnectionId) -> usize {
        self.http.queued(peer)
    }

    fn refuse(&mut self, peer: ConnectionId, label: Label, problem: Problem) {
        refuse_on_socket(self.http, peer, problem, Some(label.0), self.answering);
    }

    fn end(&mut self, peer: ConnectionId) {
        if let Some(SessionState::Socket(key)) = self.http.state(peer).map(|client| client.session) {
            let code = if self.http.is_draining() { CloseCode::GOING_AWAY } else { CloseCode::NORMAL };
            return socket::end(self.http, peer, key, code);
        }
        done(self.http, peer, &self.answering.meter);
        self.http.end_stream(peer);
    }

    fn answer(&mut self, peer: ConnectionId, format: Format, reply: PollReply) {
        if let Some(SessionState::Socket(key)) = self.http.state(peer).map(|client| client.session) {
            // This is a refusal: a reader of a stream gets no other answer.
            let problem = if let PollReply::Refused { problem, .. } = reply { problem } else { Problem::ShuttingDown };
            refuse_on_socket(self.http, peer, problem, None, self.answering);
            let code = if problem.details().status() == 503 { CloseCode::TRY_AGAIN } else { CloseCode::POLICY };
            return socket::end(self.http, peer, key, code);
        }
        done(self.http, peer, &self.answering.meter);
        let body = match reply {
            PollReply::Encoded(body) => body,
            PollReply::Refused { problem, body: Some(body), .. } => {
                if !fault!("icomet-refusal-not-logged") {
                    note_refusal(self.http, peer, problem, self.answering);
                }
                body
            }
            PollReply::Refused { problem, target, body: None } => {
                return respond_problem(self.http, peer, problem, target.as_deref(), self.answering);
            }
        };
        let fields = fields_for(self.answering, self.http.state(peer));
        match protocols::of(format).answer(format, body, fields) {
            Answer::Whole(response) => self.http.respond(peer, &response),
            Answer::Streamed(head, body) => {
                self.http.start_stream(peer, &head);
                self.http.write(peer, &body);
                self.http.end_stream(peer);
            }
        }
    }
}

pub(super) fn problem_response(problem: Problem) -> Response {
    let response = Response::from(problem.details());
    match problem.retry_s() {
        Some(retry_s) => response.with(&[("Retry-After", retry_s.to_string())]),
        None if response.status() == 401 => response.header("WWW-Authenticate", "Bearer"),
        None => response,
    }
}

/// Answers a client with a problem, within its callback if it has one.
pub(super) fn respond_problem(
    http: &mut Http<'_, Gateway>,
    id: ConnectionId,
    problem: Problem,
    callback: Option<&str>,
    answering: &Answering,
) {
    let response = refusal(http, id, problem, callback, answering);
    http.respond(id, &response);
}

/// Returns the answer for a problem, within a callback if there is one.
pub(super) fn refusal(
    http: &Http<'_, Gateway>,
    id: ConnectionId,
    problem: Problem,
    callback: Option<&str>,
    answering: &Answering,
) -> Response {
    note_refusal(http, id, problem, answering);
    match callback {
        Some(callback) => script_response(jsonp::wrap(Some(callback), problem.to_callback_argument())),
        None => problem_response(problem).with(fields_for(answering, http.state(id))),
    }
}

/// Counts a refusal, for the log.
pub(super) fn note_refusal(http: &Http<'_, Gateway>, id: ConnectionId, problem: Problem, answering: &Answering) {
    tracing::debug!(?id, code = problem.code(), "refused");
    answering.refusals.note(id, problem, || http.peer_addr(id).map_or_else(String::new, |peer| peer.to_string()));
}

/// Header fields of requests that pages of other origins may send: those that the API uses, and
/// those that libraries add by themselves, for tracing and against forgery. The server ignores the
/// latter.
const HEADERS_ALLOWED: [&str; 11] = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Cache-Control",
    "X-Requested-With",
    "X-CSRF-Token",
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
];

/// Returns the names of [`HEADERS_ALLOWED`] and of further fields, in the form of a header field.
pub(super) fn allowed_headers(further: &[String]) -> String {
    let further = further.iter().map(String::as_str).filter(|_| !fault!("further-fields-ignored"));
    let known =
        HEADERS_ALLOWED.into_iter().filter(|name| !(fault!("tracing-preflight-refused") && *name == "traceparent"));
    known.chain(further).collect::<Vec<_>>().join(", ")
}

/// Refuses a command of a client on a WebSocket.
pub(super) fn refuse_on_socket(
    http: &mut Http<'_, Gateway>,
    id: ConnectionId,
    problem: Problem,
    reference: Option<i64>,
    answering: &Answering,
) {
    note_refusal(http, id, problem, answering);
    Gateway::tell(http, id, &websocket::refused(problem, reference));
}

/// Returns the field that lets a page of another origin read replies to requests with its user's
/// cookie.
pub(super) fn allow_credentials() -> Field {
    ("Access-Control-Allow-Credentials", "true".to_owned())
}

/// Returns the header fields for a page of another origin. At the admin listener, only pages of
/// listed origins get any.
pub(super) fn fields_for<'a>(answering: &'a Answering, client: Option<&Client>) -> &'a [Field] {
    let number = client.filter(|client| client.door == Door::Front || client.origin > 0).map(|client| client.origin);
    number.and_then(|number| answering.fields.get(usize::from(number))).map_or(&[], Vec::as_slice)
}

/// Returns the header fields for pages of other origins, by origin number: first those for any
/// origin at the front, then those for the origins listed there, and then those for the origins of
/// the admin listener.
pub(super) fn answering(front: &Cors, admin: &Cors) -> Vec<Vec<Field>> {
    // Only pages of origins that are listed by name may send their users' cookies, and only to the
    // front.
    let with_credentials = |origin: &String| {
        let mut fields = front.response_fields(Some(origin));
        if front.origins != Origins::Any {
            fields.push(allow_credentials());
        }
        fields
    };
    let mut fields = vec![front.response_fields(None)];
    fields.extend(listed(front).iter().map(with_credentials));
    fields.extend(listed(admin).iter().map(|origin| admin.response_fields(Some(origin))));
    if admin.origins == Origins::Any {
        fields.push(admin.response_fields(None));
    }
    fields
}

/// Returns the number of a page's origin among the origins with header fields of their own.
pub(super) fn origin_number(front: &Cors, admin: &Cors, door: Door, origin: &str) -> u16 {
    let place = |cors| listed(cors).iter().position(|held| held == origin);
    let number = match door {
        Door::Front => place(front).map(|place| 1 + place),
        Door::Admin if admin.origins == Origins::Any => Some(1 + listed(front).len()),
        Door::Admin => place(admin).map(|place| 1 + listed(front).len() + place),
    };
    number.and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
}

/// Returns the origin with a number: the inverse of [`origin_number`].
pub(super) fn origin_of_number<'a>(front: &'a Cors, admin: &'a Cors, number: u16) -> Option<&'a str> {
    let place = usize::from(number).checked_sub(1)?;
    listed(front).iter().chain(listed(admin)).nth(place).map(String::as_str)
}

fn listed(cors: &Cors) -> &[String] {
    match &cors.origins {
        Origins::Any => &[],
        Origins::Listed(listed) => listed,
    }
}
