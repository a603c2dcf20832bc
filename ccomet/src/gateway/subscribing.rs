//! The start of a subscription, and its upkeep.

use std::time::Duration;

use sealed::{ConnectionId, fault};
use sealed_http::Http;

use super::answers::Out;
use super::metering::resumes;
use super::token_expiry::Notice;
use super::{Client, Gateway, SessionState, set_session, unix_time};
use crate::core::problem::Problem;
use crate::core::time::UnixMillis;
use crate::hub::{HeartbeatRule, Sink, SubscribeRequest, SubscriberKey};
use crate::ops::counters::Transport;
use crate::protocols;

impl Gateway {
    /// Resumes output that a full socket has delayed.
    pub(super) fn resume_output(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        if let Some(key) = self.subscriber_of(http.state(id)) {
            let now = unix_time(http);
            self.hub.drained(key, now, &mut Out { http, answering: &self.answering });
        }
        if let Some(SessionState::Socket(key)) = http.state(id).map(|client| client.session) {
            self.socket_drained(http, id, key);
        }
    }

    pub(super) fn subscribe(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        subscription: SubscribeRequest,
        wait_s: u64,
        expires: Option<UnixMillis>,
    ) {
        let now = unix_time(http);
        let format = subscription.delivery.format;
        let protocol = protocols::of(format);
        if self.draining.is_some() {
            if protocol.is_event_source(format) && !fault!("shutdown-refuses-event-source") {
                // An `EventSource` that is refused by a status never reconnects; if it loses its
                // connection, it does.
                return http.close(id);
            }
            return self.refuse(http, id, &subscription, Problem::ShuttingDown);
        }
        let at_once = subscription.answer_at_once;
        if format.is_stream() {
            self.token_expirations.track(id, expires);
        }
        // The key is noted before the call: the hub may answer at once, which clears the note.
        let key = self.hub.next_key();
        let held = http.state(id).map(|client| client.session);
        let (transport, session) = match held {
            Some(SessionState::Socket(socket)) => (Transport::WebSocket, SessionState::Socket(socket)),
            _ if format.is_stream() => (Transport::Stream, SessionState::Subscribed(key)),
            _ => (Transport::Poll, SessionState::Polling(key)),
        };
        if held == Some(SessionState::Nothing) {
            set_session(http, id, session, &self.answering.meter);
        }
        let resumes = resumes(&subscription.channels);
        let outcome = self.hub.subscribe(id, subscription, now, &mut Out { http, answering: &self.answering });
        match outcome {
            Ok(given) => {
                self.answering.meter.note_subscribed(transport, resumes);
                debug_assert_eq!(given, key);
            }
            Err(reply) => return Out { http, answering: &self.answering }.answer(id, format, reply),
        }
        let delay = if format.is_stream() && protocol.rules().heartbeat == HeartbeatRule::SinceLastEvent {
            // The first heartbeat is randomized, so that streams that started together do not send
            // theirs together.
            let beat_ms = self.config.times.heartbeat_s * 1_000;
            let beat = Duration::from_millis(beat_ms / 2 + http.random() % (beat_ms / 2 + 1));
            self.token_expirations.next_check(id, now, beat)
        } else {
            let wait = Duration::from_secs(if at_once { self.config.times.poll_wait_s } else { wait_s });
            // A poll does not outlast its token; the next poll is refused.
            expires.map_or(wait, |expires| wait.min(expires.saturating_since(now)))
        };
        if self.subscriber_of(http.state(id)) == Some(key) {
            http.set_deadline(id, delay);
        }
    }

    /// Refuses a subscription.
    pub(super) fn refuse(
        &self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        subscription: &SubscribeRequest,
        problem: Problem,
    ) {
        let reply = self.hub.refuse(subscription, problem);
        Out { http, answering: &self.answering }.answer(id, subscription.delivery.format, reply);
    }

    /// Handles the deadline of a stream: sends what is due about its token, or a heartbeat.
    pub(super) fn look_after(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, key: SubscriberKey) {
        let now = unix_time(http);
        match self.token_expirations.due(id, now) {
            Some(Notice::Expired) => {
                self.token_expirations.forget(id);
                return self.hub.expire(key, now, &mut Out { http, answering: &self.answering });
            }
            Some(Notice::Expiring { in_s }) => {
                self.hub.warn_of_expiry(key, in_s, &mut Out { http, answering: &self.answering });
            }
            None => {
                if let Some(SessionState::Socket(socket)) = http.state(id).map(|client| client.session)
                    && !self.ping_socket(http, id, socket)
                {
                    return;
                }
            }
        }
        let beat = self.hub.beat(key, now, &mut Out { http, answering: &self.answering });
        http.set_deadline(id, self.token_expirations.next_check(id, now, beat));
    }

    pub(super) fn subscriber_of(&self, client: Option<&Client>) -> Option<SubscriberKey> {
        match client?.session {
            SessionState::Subscribed(key) | SessionState::Polling(key) => Some(key),
            SessionState::Socket(key) => self.sockets.get(key as usize).map(|socket| socket.subscriber),
            _ => None,
        }
    }
}
