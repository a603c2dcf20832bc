//! WebSockets: subscriptions, and the commands of the client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sealed::{ConnectionId, Input, fault};
use sealed_http::websocket::{self, CloseCode, Codec, Event, Kind};
use sealed_http::{Http, Response};

use super::answers::refuse_on_socket;
use super::arriving::SHORT_BODY_BYTES;
use super::socket_calls::SocketCall;
use super::{Caller, Gateway, SessionState, loop_time, set_session, unix_time};
use crate::access::token::Grant;
use crate::core::message::{ChannelName, Draft};
use crate::core::position::Spot;
use crate::core::problem::{Denial, Problem};
use crate::core::time::LoopTime;
use crate::hub::{SubscribeRequest, SubscriberKey};
use crate::protocols::native::websocket::{self as words, Command};

/// The maximum number of unanswered publications of one client. At the limit, the client is not
/// read until one is answered.
const PENDING_MAX: u32 = 16;

/// The maximum number of bytes that are queued for a client in addition to the output of its
/// subscriptions. Beyond it, the client is not read until it has taken all: each ping causes a
/// pong.
const QUEUED_MAX: usize = 64 * 1024;

/// The number of unanswered pings after which a client counts as gone: a proxy may keep the
/// connection open.
const PINGS_MAX: u8 = 2;

/// A WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    codec: Codec,
    pub(super) subscriber: SubscriberKey,
    pub(super) caller: Caller,
    /// The channels that it reads. If there is one channel, binary messages of the client are
    /// published there.
    pub(super) channels: Vec<ChannelName>,
    pub(super) pending: u32,
    /// The open question to the back end about a command; the client is not read meanwhile.
    pub(super) question: Option<u32>,
    pings: u8,
    /// Bytes that subscriptions had queued when they were last fed. A slow reader may always have
    /// this number.
    fed: usize,
    /// The number of added subscriptions that count for the client's address.
    pub(super) counted: u32,
    /// The bytes of a message in transit that count against the limits on bodies.
    pub(super) body_bytes: u64,
}

impl Socket {
    /// Returns whether the client is not read, since it has too many unanswered commands.
    fn waits_for_answer(&self) -> bool {
        self.question.is_some() || self.pending >= PENDING_MAX
    }

    /// Returns whether the client is not read, since it has to take the queued bytes first.
    fn has_untaken(&self, queued: usize) -> bool {
        queued.saturating_sub(self.fed) > QUEUED_MAX
    }
}

impl Gateway {
    /// Switches the connection to WebSocket, and subscribes.
    pub(super) fn open_socket(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        subscription: SubscribeRequest,
        response: &Response,
        caller: &Caller,
    ) {
        if self.draining.is_some() {
            return self.refuse(http, id, &subscription, Problem::ShuttingDown);
        }
        if !http.upgrade(id, response) {
            return http.respond(id, &Response::new(400).closing());
        }
        let channels = subscription.channels.iter().map(|(channel, _)| channel.clone()).collect();
        let (codec, subscriber) = (Codec::server(), self.hub.next_key());
        let socket = Socket {
            codec,
            subscriber,
            caller: caller.clone(),
            channels,
            pending: 0,
            question: None,
            pings: 0,
            fed: 0,
            counted: 0,
            body_bytes: 0,
        };
        let key = self.sockets.insert(socket) as u32;
        set_session(http, id, SessionState::Socket(key), &self.answering.meter);
        self.subscribe(http, id, subscription, 0, caller.expires());
    }

    /// Handles input from the client.
    pub(super) fn hear_socket(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {
        let Some(SessionState::Socket(key)) = http.state(id).map(|client| client.session) else {
            input.take_all();
            return;
        };
        let limits = websocket::Limits {
            // As JSON, a message is longer.
            message_bytes_max: self.socket_message_bytes_max(key),
            ..websocket::Limits::default()
        };
        let mut out = Vec::new();
        let mut is_new = false;
        let has_more = loop {
            let Some(socket) = self.sockets.get_mut(key as usize) else { return };
            let is_waiting = socket.waits_for_answer();
            if is_waiting || socket.has_untaken(http.queued(id) + out.len()) && !fault!("untaken-pings-answered") {
                // If the client takes no answers, the pause is its own fault: the time for its
                // message continues.
                let has_more = !is_waiting && socket.codec.is_receiving() && !fault!("untaken-answers-win-time");
                http.pause(id);
                break has_more;
            }
            socket.pings = 0;
            match socket.codec.read(input, &limits, &mut out) {
                Ok(Some(Event::Text(text))) => {
                    is_new = true;
                    self.hear_text(http, id, key, &text);
                }
                Ok(Some(Event::Binary(bytes))) => {
                    is_new = true;
                    self.hear_bytes(http, id, key, bytes);
                }
                Ok(Some(Event::Close { .. })) | Err(_) => {
                    let subscriber = socket.subscriber;
                    self.hub.unsubscribe(subscriber, unix_time(http));
                    http.write(id, &out);
                    return close(http, id, key);
                }
                Ok(Some(_)) => {}
                Ok(None) => break socket.codec.is_receiving() || !input.is_empty(),
            }
        };
        self.note_unfinished(http, id, has_more, is_new);
        if !out.is_empty() {
            http.write(id, &out);
        }
        if let Err(problem) = self.count_unfinished(http, key) {
            refuse_on_socket(http, id, problem, None, &self.answering);
            self.hub.unsubscribe(self.sockets[key as usize].subscriber, unix_time(http));
            end(http, id, key, CloseCode::TRY_AGAIN);
        }
    }

    /// Counts the bytes of a message in transit against the limits on bodies, by the length that
    /// its frames announce.
    fn count_unfinished(&mut self, http: &Http<'_, Self>, key: u32) -> Result<(), Problem> {
        let Some(socket) = self.sockets.get_mut(key as usize) else { return Ok(()) };
        let announced = socket.codec.announced_len() as u64;
        let bytes = if announced <= SHORT_BODY_BYTES { 0 } else { announced };
        if bytes == socket.body_bytes || fault!("socket-message-in-transit-not-counted") {
            return Ok(());
        }
        let asking = socket.caller.asking;
        self.client_tracker.end_body(asking, std::mem::take(&mut socket.body_bytes));
        if bytes > 0 {
            self.client_tracker.begin_body(asking, bytes, loop_time(http))?;
            socket.body_bytes = bytes;
        }
        Ok(())
    }

    /// Removes the state of a WebSocket that has ended.
    pub(super) fn remove_socket(&mut self, http: &mut Http<'_, Self>, key: u32) -> Option<Socket> {
        let socket = self.sockets.try_remove(key as usize)?;
        self.client_tracker.end_body(socket.caller.asking, socket.body_bytes);
        if !fault!("subscriptions-of-ended-socket-counted") {
            self.client_tracker.end_subscriptions(socket.caller.asking, socket.counted);
        }
        if let Some(question) = socket.question {
            self.forget_question(http, question);
        }
        Some(socket)
    }

    /// Notes whether a message is incomplete. Its time does not run while the client waits for an
    /// answer.
    fn note_unfinished(&mut self, http: &Http<'_, Self>, id: ConnectionId, has_more: bool, is_new: bool) {
        if is_new || !has_more || fault!("piece-gives-more-time") {
            self.unfinished.remove(&id);
        }
        if has_more {
            let due = loop_time(http).plus(Duration::from_secs(self.config.times.message_s));
            self.unfinished.entry(id).or_insert(due);
        } else if self.unfinished.is_empty() {
            self.unfinished = HashMap::new();
        }
    }

    /// Ends WebSockets whose message takes too long to arrive. It runs about once a second.
    pub(super) fn end_unfinished(&mut self, http: &mut Http<'_, Self>) {
        let now = loop_time(http);
        let due: Vec<_> = self.unfinished.extract_if(|_, due| *due <= now).map(|(id, _)| id).collect();
        for id in due {
            let Some(SessionState::Socket(key)) = http.state(id).map(|client| client.session) else { continue };
            let Some(socket) = self.sockets.get(key as usize) else { continue };
            self.hub.unsubscribe(socket.subscriber, unix_time(http));
            http.write(id, &websocket::close_frame(CloseCode::POLICY, "a message took too long to come"));
            close(http, id, key);
        }
    }

    fn hear_text(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, key: u32, text: &str) {
        // The charge comes first: parsing is more expensive.
        if !fault!("socket-message-not-charged")
            && let Err(problem) = self.charge_message(key, loop_time(http))
        {
            let label = words::read_unsubscribe(text).filter(|_| !fault!("unsubscribe-refused"));
            let Some(label) = label else {
                return refuse_on_socket(http, id, problem, words::reference(text), &self.answering);
            };
            // Unsubscribing only releases resources: a refusal would let unwanted messages
            // continue. It is owed instead of free, for the sake of other clients of the address.
            if self.hub.has_added(id, label) {
                self.client_tracker.owe_publishes(self.sockets[key as usize].caller.asking, 1, loop_time(http));
            }
            return self.unsubscribe_on_socket(http, id, label);
        }
        match words::read(text, &self.config.limits) {
            Ok(Command::Publish { channel, draft, reference }) => {
                self.take_socket_call(http, id, key, SocketCall::Publish { channel, draft, reference });
            }
            Ok(Command::Token { token, reference }) => self.renew(http, id, key, &token, reference),
            Ok(Command::Subscribe { channels, label }) => {
                self.take_socket_call(http, id, key, SocketCall::Subscribe(words::subscription(channels, label)));
            }
            Ok(Command::Unsubscribe { label }) => self.unsubscribe_on_socket(http, id, label),
            Err((problem, reference)) => refuse_on_socket(http, id, problem, reference, &self.answering),
        }
    }

    fn hear_bytes(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, key: u32, bytes: Vec<u8>) {
        if let Err(problem) = self.charge_message(key, loop_time(http)) {
            return refuse_on_socket(http, id, problem, None, &self.answering);
        }
        match only_channel(&self.sockets[key as usize].channels) {
            Some(channel) => {
                let draft = Draft { payload: bytes.into_boxed_slice().into(), ..Draft::default() };
                self.take_socket_call(http, id, key, SocketCall::Publish { channel, draft, reference: None });
            }
            None => refuse_on_socket(http, id, Problem::BadCommand, None, &self.answering),
        }
    }

    /// Counts a message against its client's limits, whatever its content.
    fn charge_message(&mut self, key: u32, now: LoopTime) -> Result<(), Problem> {
        self.client_tracker.charge_publish(self.sockets[key as usize].caller.asking, now)
    }

    /// Replaces the token, if the new one allows all that the client reads.
    fn renew(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, key: u32, token: &str, reference: Option<i64>) {
        let socket = &self.sockets[key as usize];
        // A client of the admin listener may do anything without a token.
        if socket.caller.grant.is_none() {
            return Self::tell(http, id, &words::renewed(reference));
        }
        let grant = match self.renewed_grant(http, id, key, token) {
            Ok(grant) => grant,
            Err(problem) => return refuse_on_socket(http, id, problem, reference, &self.answering),
        };
        self.token_expirations.track(id, grant.expires());
        if let Some(socket) = self.sockets.get_mut(key as usize) {
            socket.caller.grant = Some(grant);
        }
        // During a shutdown, the deadline is the end of the connection.
        if self.draining.is_none() || fault!("renewal-outlasts-shutdown") {
            let beat = Duration::from_secs(self.config.times.heartbeat_s);
            http.set_deadline(id, self.token_expirations.next_check(id, unix_time(http), beat));
        }
        Self::tell(http, id, &words::renewed(reference));
    }

    /// Returns the grant of a new token, if it has the same subject and allows all that the
    /// connection reads.
    fn renewed_grant(
        &self,
        http: &Http<'_, Self>,
        id: ConnectionId,
        key: u32,
        token: &str,
    ) -> Result<Arc<Grant>, Problem> {
        let socket = &self.sockets[key as usize];
        let grant = self.authorizer.renew(token, unix_time(http))?;
        let held = socket.caller.grant.as_deref();
        // Presence is recorded under the subject with which the connection began.
        if held.is_none_or(|held| held.subject != grant.subject) && !fault!("renewed-by-another-subject") {
            return Err(Problem::SubjectChanged);
        }
        if held.is_some_and(|held| grant.may_read_all_of(held)) {
            return Ok(grant);
        }
        let added = self.hub.added_channels(id).filter(|_| !fault!("renewed-without-added-channels"));
        let mut channels = socket.channels.iter().chain(added);
        let is_enough = channels.all(|channel| self.authorizer.may_subscribe(&grant, channel));
        if is_enough { Ok(grant) } else { Err(Problem::NotAllowed(Denial::Token)) }
    }

    /// Sends a client the outcome of its publication.
    pub(super) fn complete_on_socket(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        channel: &ChannelName,
        reference: Option<i64>,
        outcome: Result<Option<Spot>, Problem>,
    ) {
        let Some(SessionState::Socket(key)) = http.state(id).map(|client| client.session) else { return };
        match outcome {
            Ok(Some(spot)) => Self::tell(http, id, &words::published(channel, spot, reference)),
            Ok(None) => debug_assert!(false, "a published message has a position"),
            Err(problem) => refuse_on_socket(http, id, problem, reference, &self.answering),
        }
        // The client is read again when the answer has been passed to the kernel.
        if let Some(socket) = self.sockets.get_mut(key as usize) {
            socket.pending -= 1;
        }
    }

    /// Reads a client again: its output was passed to the kernel, and its subscriptions have been
    /// fed.
    pub(super) fn socket_drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, key: u32) {
        let Some(socket) = self.sockets.get_mut(key as usize) else { return };
        if !fault!("slow-reader-not-heard") {
            socket.fed = http.queued(id);
        }
        if !socket.waits_for_answer() && !fault!("flooder-never-heard-again") {
            http.resume(id);
        }
    }

    /// Sends a heartbeat, which asks the client for a pong. Returns whether the client is alive, as
    /// far as is known.
    pub(super) fn ping_socket(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, key: u32) -> bool {
        let Some(socket) = self.sockets.get_mut(key as usize) else { return true };
        // While the client is not read, its pongs are not seen, and it does not see a ping behind
        // queued output. If it takes no output, another check ends the connection.
        let is_unheard = socket.waits_for_answer() && !fault!("waiting-socket-taken-for-dead");
        let is_behind = http.queued(id) > 0 && !fault!("slow-reader-taken-for-dead");
        if !is_unheard && !is_behind {
            if socket.pings >= PINGS_MAX {
                http.abort(id);
                return false;
            }
            socket.pings += 1;
        }
        http.write(id, &websocket::ping_frame(b""));
        true
    }

    /// Sends a text message.
    pub(super) fn tell(http: &mut Http<'_, Self>, id: ConnectionId, text: &[u8]) {
        let mut frame = Vec::with_capacity(text.len() + 10);
        websocket::encode_header(&mut frame, Kind::Text, text.len());
        frame.extend_from_slice(text);
        http.write(id, &frame);
    }
}

/// Returns the channel to which binary messages are published: the one that is read, if there is
/// exactly one.
fn only_channel(channels: &[ChannelName]) -> Option<ChannelName> {
    let mut named = channels.iter().filter(|channel| !channel.is_presence());
    named.next().filter(|channel| named.next().is_none() && !channel.is_pattern()).cloned()
}

/// Sends a close frame with the reason, and ends the connection.
pub(super) fn end(http: &mut Http<'_, Gateway>, id: ConnectionId, key: u32, code: CloseCode) {
    http.write(id, &websocket::close_frame(code, ""));
    close(http, id, key);
}

/// Closes a connection without a subscriber. Further input is ignored.
fn close(http: &mut Http<'_, Gateway>, id: ConnectionId, key: u32) {
    if let Some(client) = http.state_mut(id) {
        client.session = SessionState::SocketOver(key);
    }
    http.close(id);
}
