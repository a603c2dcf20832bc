//! The arrival of a request. Its head determines whether its client may send it at all, and the
//! client is charged for it, before a body is read.

use sealed::{ConnectionId, fault};
use sealed_http::server::Intake;
use sealed_http::{Http, Method, Request, RequestHead, Response};

use super::answers::{fields_for, note_refusal, origin_number, problem_response, refusal};
use super::{Caller, Gateway, loop_time, unix_time};
use crate::access::client::Asking;
use crate::access::origin;
use crate::access::{Denied, Identity};
use crate::core::problem::Problem;
use crate::ops::health::HealthQuestion;
use crate::ops::static_files::is_public_page;
use crate::protocols::call::{Call, Door, RefusedCall};
use crate::protocols::route::{self, Ahead, read_ahead};

/// The longest body, in bytes, of a request at the front that needs no body.
const OTHER_BODY_BYTES_MAX: u64 = 4 * 1024;

/// The length up to which a body is not counted among those in transit, so that long bodies do not
/// keep short messages out. A connection may have a head of that size in transit, too.
pub(super) const SHORT_BODY_BYTES: u64 = 16 * 1024;

/// A request whose head was checked.
#[derive(Debug)]
pub(super) struct Arrival {
    asking: Asking,
    /// The client's token and grant, if they were checked with the head.
    identity: Option<Identity>,
    /// The number of publications that were charged.
    paid: usize,
    /// The bytes of its body that count as in transit.
    body_bytes: u64,
}

impl Gateway {
    /// Decides by the head of a request with a body whether the body is read.
    pub(super) fn look_ahead(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, head: &RequestHead<'_>) -> Intake {
        self.answering.refusals.begin(id, head.path());
        match self.admit_head(http, id, head) {
            Ok((arrival, bytes_max)) => self.await_body(http, id, head, arrival, bytes_max),
            Err(response) => Intake::Answer(response),
        }
    }

    /// Starts to read a body, if there is room for the length that its head names.
    fn await_body(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
        mut arrival: Arrival,
        bytes_max: u64,
    ) -> Intake {
        self.end_arrival(id);
        let longest = head.content_length().map_or(bytes_max, |length| length.min(bytes_max));
        let bytes = if longest <= SHORT_BODY_BYTES && !fault!("short-bodies-counted") { 0 } else { longest };
        if let Err(problem) = self.client_tracker.begin_body(arrival.asking, bytes, loop_time(http)) {
            return Intake::Answer(refusal(http, id, problem, None, &self.answering));
        }
        arrival.body_bytes = bytes;
        self.arrivals.insert(id, arrival);
        Intake::CollectUpTo(bytes_max)
    }

    /// Ends the arrival of a body that is complete, or that will not arrive.
    pub(super) fn end_arrival(&mut self, id: ConnectionId) -> Option<Arrival> {
        let arrival = self.arrivals.remove(&id)?;
        self.client_tracker.end_body(arrival.asking, arrival.body_bytes);
        Some(arrival)
    }

    fn admit_head(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
    ) -> Result<(Arrival, u64), Response> {
        let (door, asking) = self.enter_request(http, id, head)?;
        let message_bytes_max = self.config.limits.message_bytes_max as u64;
        let request_bytes_max = self.config.limits.request_bytes_max as u64;
        if door == Door::Admin {
            if !fault!("admin-awaits-forbidden-bodies") {
                origin::look(door, head, &self.config)
                    .map_err(|problem| refusal(http, id, problem, None, &self.answering))?;
            }
            let bytes_max = route::admin_body_bytes_max(head, &self.config) as u64;
            return Ok((Arrival { asking, identity: None, paid: 0, body_bytes: 0 }, bytes_max));
        }
        let refuse = |problem| refusal(http, id, problem, None, &self.answering);
        let (now, calendar) = (loop_time(http), unix_time(http));
        let ahead = origin::look(door, head, &self.config).map_err(RefusedCall::from);
        match ahead.and_then(|()| read_ahead(door, head, &self.config)) {
            Ok(Ahead::Publish(call)) => {
                let access = call.access();
                let refuse = |problem| {
                    self.answering.meter.note_refused(access.publishes);
                    refuse(problem)
                };
                let bytes_max = self.bytes_max(&access);
                let mut paid = 0;
                if !fault!("charged-after-body") {
                    paid = self.client_tracker.charge(asking, access.cost, 0, now).map_err(refuse)?;
                }
                // The charge comes first: checking a token is more expensive.
                let identity = self.authorizer.identify(head, calendar).map_err(refuse)?;
                self.authorizer.allow(&identity, head, &access).map_err(|denied| refuse(self.noted(&denied)))?;
                let length = head.content_length().unwrap_or_default();
                if length > bytes_max as u64 {
                    let response = refuse(Problem::MessageTooLarge(bytes_max));
                    // The connection is closed if no channel accepts a body of this length.
                    return Err(if length > message_bytes_max { response.closing() } else { response });
                }
                Ok((Arrival { asking, identity: Some(identity), paid, body_bytes: 0 }, bytes_max as u64))
            }
            Ok(Ahead::PublishSome) => {
                self.client_tracker.charge_publish(asking, now).map_err(refuse)?;
                let identity = self.authorizer.identify(head, calendar).map_err(refuse)?;
                if !fault!("body-before-token") {
                    self.authorizer.allow_some_publication(&identity, head).map_err(refuse)?;
                }
                Ok((Arrival { asking, identity: Some(identity), paid: 1, body_bytes: 0 }, request_bytes_max))
            }
            Ok(Ahead::File(path)) => Err(self.file(http, id, &path, head, door)),
            Ok(Ahead::Other) => Ok((Arrival { asking, identity: None, paid: 0, body_bytes: 0 }, OTHER_BODY_BYTES_MAX)),
            Err(refused) => Err(self.refusal_of(http, id, refused)),
        }
    }

    /// Notes the origin of a request and its client, and checks that they may send requests.
    fn enter_request(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
    ) -> Result<(Door, Asking), Response> {
        let Some(client) = http.state_mut(id) else { return Err(problem_response(Problem::Forbidden)) };
        let number_of = |origin| origin_number(&self.preflight, &self.admin_preflight, client.door, origin);
        client.origin = head.header_str("origin").map_or(0, number_of);
        let (door, barred) = (client.door, client.barred);
        if barred {
            note_refusal(http, id, Problem::Forbidden, &self.answering);
            return Err(problem_response(Problem::Forbidden).closing());
        }
        // A preflight request cannot carry a key, and has no effect. Probes of health and browsers
        // that open a page hardly can, and their answers have no secrets.
        let is_spared = fault!("key-asked-of-pages-alone") && head.header("origin").is_none();
        let needs_key = door == Door::Admin && head.method() != Method::Options && !is_spared;
        let needs_key = needs_key && (HealthQuestion::of_path(head.path()).is_none() || fault!("health-needs-key"));
        let is_open = is_public_page(head.path()) || head.path() == "/metrics" && fault!("metrics-need-no-key");
        if needs_key && !is_open && !self.admin_keys.admit(head) {
            return Err(refusal(http, id, Problem::AdminKey, None, &self.answering));
        }
        let named = self.client_tracker.named(id, head);
        if let Some(named) = named {
            self.answering.refusals.set_client(id, named.client());
        }
        match self.client_tracker.asks(id, named, loop_time(http)) {
            Ok(asking) => Ok((door, asking)),
            Err((problem, closes)) => {
                note_refusal(http, id, problem, &self.answering);
                let response = problem_response(problem).with(fields_for(&self.answering, http.state(id)));
                Err(if closes { response.closing() } else { response })
            }
        }
    }

    /// Executes a request, if it is allowed.
    pub(super) fn take_request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        self.answering.refusals.begin(id, request.head.path());
        let arrival = match self.end_arrival(id) {
            Some(arrival) => arrival,
            // A request without a body has no earlier check.
            None => match self.enter_request(http, id, &request.head) {
                Ok((_, asking)) => Arrival { asking, identity: None, paid: 0, body_bytes: 0 },
                Err(response) => return http.respond(id, &response),
            },
        };
        let Some(door) = http.state(id).map(|client| client.door) else { return };
        let looked = origin::look(door, &request.head, &self.config).map_err(RefusedCall::from);
        let response = match looked.and_then(|()| route::read(door, request, &self.config)) {
            Ok(call) => match self.admit(http, door, &arrival, &request.head, &call).and_then(|caller| {
                self.judge(http, id, &request.head, &call, &caller)?;
                Ok(caller)
            }) {
                Ok(caller) => return self.call_if_allowed(http, id, &request.head, call, caller),
                Err(problem) => return self.refuse_call(http, id, call, problem),
            },
            Err(refused) => self.refusal_of(http, id, refused),
        };
        http.respond(id, &response);
    }

    /// Decides whether the call is allowed, and returns its caller. A client of the admin listener
    /// may do anything.
    fn admit(
        &mut self,
        http: &Http<'_, Self>,
        door: Door,
        arrival: &Arrival,
        head: &RequestHead<'_>,
        call: &Call,
    ) -> Result<Caller, Problem> {
        let access = call.access();
        if !fault!("message-not-measured") {
            self.measure(&access)?;
        }
        let Arrival { asking, identity, paid, .. } = arrival;
        let grant = match door {
            Door::Admin => None,
            Door::Front => {
                // The charge comes first: checking a token is more expensive.
                self.client_tracker.charge(*asking, access.cost, *paid, loop_time(http))?;
                let granted = match identity {
                    Some(identity) => self.authorizer.allow(identity, head, &access),
                    None => self.authorizer.admit(head, &access, unix_time(http)),
                };
                Some(granted.map_err(|denied| self.noted(&denied))?)
            }
        };
        let caller = Caller { grant, asking: *asking, opening: None };
        // The token may have expired while the body arrived.
        if caller.has_expired(unix_time(http)) && !fault!("expired-while-body-comes") {
            return Err(Problem::TokenExpired);
        }
        Ok(caller)
    }

    /// Notes for the log the channel for which a call is not allowed. Returns the problem.
    pub(super) fn noted(&self, denied: &Denied<'_>) -> Problem {
        if let Some(channel) = denied.channel {
            self.answering.refusals.about(channel);
        }
        denied.problem
    }

    /// Returns the answer to a request that is not a valid call.
    fn refusal_of(&self, http: &Http<'_, Self>, id: ConnectionId, refused: RefusedCall) -> Response {
        match refused {
            RefusedCall::Problem { problem: problem @ Problem::MethodNotAllowed, allow, .. } => {
                note_refusal(http, id, problem, &self.answering);
                let fields = fields_for(&self.answering, http.state(id));
                problem_response(problem).header("Allow", allow).with(fields)
            }
            RefusedCall::Problem { problem, callback, .. } => {
                refusal(http, id, problem, callback.as_deref(), &self.answering)
            }
            RefusedCall::Own { problem, response } => {
                if let Some(problem) = problem {
                    note_refusal(http, id, problem, &self.answering);
                }
                response
            }
        }
    }
}
