//! Commands on a WebSocket: to publish, or to read more channels. Each call is authorized, decided
//! on by the embedder and the back end, and executed in the same way as a request. The hub keeps
//! the subscriptions, under the labels of the client.

use sealed::{ConnectionId, fault};
use sealed_http::Http;

use super::answers::{Out, refuse_on_socket};
use super::metering::resumes;
use super::pending::PendingRequest;
use super::{Gateway, SessionState, loop_time, unix_time};
use crate::access::Access;
use crate::core::message::{ChannelName, Draft};
use crate::core::one_or_more::OneOrMore;
use crate::core::problem::Problem;
use crate::engine::Request;
use crate::hub::{Label, PollReply, StartAt, SubscribeRequest};
use crate::ops::counters::Transport;
use crate::protocols::call::ReplyTo;
use crate::protocols::native::websocket as words;

/// The maximum bytes of a command for each channel that it may name: its name as JSON, and its part
/// of a position.
const CHANNEL_COMMAND_BYTES: usize = 1_024;

/// The maximum bytes of a command that contains a token.
const TOKEN_COMMAND_BYTES: usize = 16 * 1_024;

/// A command of a client on its WebSocket.
#[derive(Debug)]
pub(super) enum SocketCall {
    Publish {
        channel: ChannelName,
        draft: Draft,
        reference: Option<i64>,
    },
    /// A subscription, which has a label.
    Subscribe(SubscribeRequest),
}

impl SocketCall {
    /// Returns what the call needs.
    pub(super) fn access(&self) -> Access<'_> {
        match self {
            Self::Publish { channel, draft, .. } => Access::publishing(channel, draft),
            Self::Subscribe(subscription) => Access::subscribing(subscription),
        }
    }

    /// Returns the number that the answer refers to.
    pub(super) fn reference(&self) -> Option<i64> {
        match self {
            Self::Publish { reference, .. } => *reference,
            Self::Subscribe(subscription) => subscription.label.map(|Label(label)| label),
        }
    }
}

impl Gateway {
    /// Returns the maximum bytes of a message from a client: the longest subscription or token, or
    /// the longest publication as JSON if the client may publish.
    pub(super) fn socket_message_bytes_max(&self, socket: u32) -> usize {
        let limits = &self.config.limits;
        let of_commands = limits.channels_per_subscription_max.saturating_mul(CHANNEL_COMMAND_BYTES);
        let of_commands = of_commands.max(TOKEN_COMMAND_BYTES);
        let grant = self.sockets.get(socket as usize).and_then(|socket| socket.caller.grant.as_ref());
        if grant.is_some_and(|grant| grant.publish.is_empty()) && !fault!("reader-sends-long-messages") {
            return of_commands;
        }
        // As JSON, text is up to six times as long.
        of_commands.max(limits.message_bytes_max.saturating_mul(6).saturating_add(1_024))
    }

    /// Executes a call, if it is allowed.
    pub(super) fn take_socket_call(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        socket: u32,
        call: SocketCall,
    ) {
        let reference = call.reference();
        let publishes = call.access().publishes;
        let outcome = self
            .admit_socket_call(http, id, socket, &call)
            .and_then(|()| self.ask_about_socket_call(http, id, socket, call));
        if outcome.is_err() {
            self.answering.meter.note_refused(publishes);
        }
        match outcome {
            Ok(Some(call)) => self.carry_out(http, id, socket, call),
            // The back end is asked.
            Ok(None) => {}
            Err(problem) => refuse_on_socket(http, id, problem, reference, &self.answering),
        }
    }

    fn admit_socket_call(
        &mut self,
        http: &Http<'_, Self>,
        id: ConnectionId,
        socket: u32,
        call: &SocketCall,
    ) -> Result<(), Problem> {
        let access = call.access();
        let caller = &self.sockets[socket as usize].caller;
        if let Some(grant) = &caller.grant {
            // A message was counted as a publication before it was parsed.
            let paid = 1;
            if !fault!("added-subscription-not-charged") {
                self.client_tracker.charge(caller.asking, access.cost, paid, loop_time(http))?;
            }
            self.authorizer.may(grant, &access).map_err(|denied| self.noted(&denied))?;
        }
        if !fault!("said-not-measured") {
            self.measure(&access)?;
        }
        if let SocketCall::Subscribe(subscription @ SubscribeRequest { label: Some(label), .. }) = call {
            if self.hub.has_added(id, *label) && !fault!("label-given-twice") {
                return Err(Problem::RefTaken);
            }
            if self.hub.added(id) >= self.config.limits.subscriptions_per_connection_max {
                return Err(Problem::TooManySubscriptions);
            }
            if self.has_seat(id, socket, subscription) && !fault!("connection-takes-several-seats") {
                return Err(Problem::SeatTaken);
            }
        }
        self.judge_access(http, id, &access, None, caller)
    }

    /// Returns whether a connection already reads a channel of a subscription whose rule limits the
    /// number of subscribers: it may have one such subscription.
    fn has_seat(&self, id: ConnectionId, socket: u32, subscription: &SubscribeRequest) -> bool {
        let channels = &subscription.channels;
        let is_limited = |(channel, _): &&(ChannelName, StartAt)| self.rules.limit_readers(channel);
        let limited: Vec<&ChannelName> = channels.iter().filter(is_limited).map(|(channel, _)| channel).collect();
        // Both lists are sorted.
        let is_meant = |channel: &ChannelName| limited.binary_search(&channel).is_ok();
        let own = self.sockets.get(socket as usize).map_or(&[][..], |held| held.channels.as_slice());
        !limited.is_empty() && own.iter().chain(self.hub.added_channels(id)).any(is_meant)
    }

    /// Executes a call that is allowed.
    pub(super) fn carry_out(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, socket: u32, call: SocketCall) {
        match call {
            SocketCall::Publish { channel, draft, reference } => {
                self.publish_from_socket(http, id, socket, channel, draft, reference);
            }
            SocketCall::Subscribe(subscription) => self.subscribe_on_socket(http, id, socket, subscription),
        }
    }

    fn publish_from_socket(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        socket: u32,
        channel: ChannelName,
        mut draft: Draft,
        reference: Option<i64>,
    ) {
        let held = &mut self.sockets[socket as usize];
        held.caller.scope_key(&mut draft);
        held.pending += 1;
        let owner = held.caller.owner();
        let messages = OneOrMore::one(draft.taken_at(unix_time(http)));
        let reply = ReplyTo::Socket { channel: channel.clone(), reference };
        self.request(http, Request::Publish { channel, messages, owner }, PendingRequest::new(id, reply));
    }

    fn subscribe_on_socket(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        socket: u32,
        mut subscription: SubscribeRequest,
    ) {
        // The WebSocket may have ended while the back end was asked; the subscription would never
        // end then.
        let session = http.state(id).map(|client| client.session);
        if session != Some(SessionState::Socket(socket)) && !fault!("socket-over-subscribes") {
            return;
        }
        let reference = subscription.label.map(|Label(label)| label);
        if self.draining.is_some() {
            return refuse_on_socket(http, id, Problem::ShuttingDown, reference, &self.answering);
        }
        self.count_ended(http);
        let Some(held) = self.sockets.get_mut(socket as usize) else { return };
        match self.client_tracker.begin_subscription(held.caller.asking, loop_time(http)) {
            Ok(count) => held.counted += count,
            Err(problem) => return refuse_on_socket(http, id, problem, reference, &self.answering),
        }
        (subscription.member, subscription.owner) = (held.caller.member(), held.caller.owner());
        let now = unix_time(http);
        let resumes = resumes(&subscription.channels);
        let outcome = self.hub.subscribe(id, subscription, now, &mut Out { http, answering: &self.answering });
        if outcome.is_ok() {
            self.answering.meter.note_subscribed(Transport::WebSocket, resumes);
        }
        if let Err(reply) = outcome {
            let problem = if let PollReply::Refused { problem, .. } = reply { problem } else { Problem::Unavailable };
            refuse_on_socket(http, id, problem, reference, &self.answering);
            self.count_added(id, socket);
        }
    }

    /// Recounts the added subscriptions of connections on which some have ended.
    pub(super) fn count_ended(&mut self, http: &Http<'_, Self>) {
        for id in self.hub.take_ended() {
            if let Some(SessionState::Socket(socket)) = http.state(id).map(|client| client.session)
                && !fault!("ended-subscription-counted")
            {
                self.count_added(id, socket);
            }
        }
    }

    /// Reduces the count of a client's address by the subscriptions that a connection no longer
    /// has.
    fn count_added(&mut self, id: ConnectionId, socket: u32) {
        let Some(held) = self.sockets.get_mut(socket as usize) else { return };
        let ended = held.counted.saturating_sub(self.hub.added(id) as u32);
        held.counted -= ended;
        self.client_tracker.end_subscriptions(held.caller.asking, ended);
    }

    /// Removes a subscription.
    pub(super) fn unsubscribe_on_socket(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, label: Label) {
        if self.hub.remove_added(id, label, unix_time(http)) {
            Self::tell(http, id, &words::unsubscribed(label));
        } else {
            refuse_on_socket(http, id, Problem::UnknownRef, Some(label.0), &self.answering);
        }
    }
}
