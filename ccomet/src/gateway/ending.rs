//! The end of connections: a peer that leaves, a deadline, a close, and a shutdown of the server.

use std::time::Duration;

use sealed::{ConnectionId, fault};
use sealed_http::Http;

use super::answers::Out;
use super::{Client, Gateway, SessionState, done, unix_time};
use crate::ops::health::{Life, Listener};

/// The additional wait of a poll whose channel has not arrived in time.
const POLL_EXTENSION: Duration = Duration::from_secs(1);

/// The minimum time in milliseconds after which clients of streams should reconnect if the server
/// shuts down.
const RETRY_MIN_MS: u64 = 1_000;

impl Gateway {
    /// Drops the state of a request that was answered.
    pub(super) fn end_exchange(&mut self, id: ConnectionId) {
        self.end_arrival(id);
        if !fault!("proxied-connection-outlasts-answer") {
            self.client_tracker.answered(id);
        }
    }

    /// Handles the end of a peer's input: a peer that waits for messages has left.
    pub(super) fn read_end(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        // A browser that leaves looks the same; a client that publishes and closes its side at once
        // still gets its answer.
        let is_left = match http.state(id).map(|client| client.session) {
            None | Some(SessionState::Nothing | SessionState::Asking | SessionState::Publishing) => false,
            Some(SessionState::Hooked(_)) if fault!("lost-subscriber-waited-for") => false,
            Some(SessionState::Hooked(question)) => self.site.is_about_subscribing(question),
            Some(_) => true,
        };
        if is_left {
            http.abort(id);
        }
    }

    /// Handles a deadline: ends a wait that took too long, or sends what is due on a stream.
    pub(super) fn reach_deadline(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        let Some(key) = self.subscriber_of(http.state(id)) else { return http.abort(id) };
        let now = unix_time(http);
        if let (Some(spread), true) = (self.draining, self.hub.is_stream(key)) {
            let spread_ms = (spread.as_millis() as u64).max(4_000);
            let retry_ms = RETRY_MIN_MS + http.random() % spread_ms;
            self.hub.shut_down(key, retry_ms, now, &mut Out { http, answering: &self.answering });
        } else if self.hub.is_stream(key) {
            self.look_after(http, id, key);
        } else if self.draining.is_none() && self.hub.has_no_position(key) {
            // Its channel is in transit; without it there is nothing to answer.
            http.set_deadline(id, POLL_EXTENSION);
        } else {
            self.hub.time_out(key, now, &mut Out { http, answering: &self.answering });
        }
    }

    /// Drops all state of a connection.
    pub(super) fn forget_connection(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, client: &Client) {
        self.answering.meter.note_closed(client.door, client.session);
        self.client_tracker.closed(id);
        self.answering.refusals.closed(id);
        self.end_arrival(id);
        self.unfinished.remove(&id);
        // The stream may have ended before: a refused stream, or one whose channel was closed, has
        // an expiration, too.
        if !fault!("lease-outlives-connection") {
            self.token_expirations.forget(id);
        }
        match client.session {
            SessionState::Subscribed(key) | SessionState::Polling(key) => self.hub.unsubscribe(key, unix_time(http)),
            SessionState::Publishing => {
                self.batches.remove(&id);
            }
            SessionState::Hooked(_) if fault!("question-outlives-asker") => {}
            SessionState::Hooked(question) => self.forget_question(http, question),
            SessionState::Watching => self.unwatch(http, id),
            SessionState::Socket(key) => {
                if let Some(socket) = self.remove_socket(http, key) {
                    self.hub.unsubscribe(socket.subscriber, unix_time(http));
                }
            }
            SessionState::SocketOver(key) => {
                self.remove_socket(http, key);
            }
            SessionState::Nothing | SessionState::Asking => {}
        }
    }

    /// Ends polls at once, and spreads the ends of streams over the time limit.
    pub(super) fn go_down(&mut self, http: &mut Http<'_, Self>, limit: Duration) {
        tracing::info!(
            index = self.index,
            connections = http.connections(),
            subscribers = self.hub.subscribers(),
            channels = self.hub.channels(),
            "going down"
        );
        if let Some(Listener(tell)) = &self.life {
            tell(Life::Stopping);
        }
        // The rest of the limit is for the last stream to get its last bytes.
        let spread = limit.mul_f32(0.6);
        self.draining = Some(spread);
        self.dismiss_readers(http);
        for id in http.connection_ids() {
            let key = match http.state(id).map(|client| client.session) {
                Some(SessionState::Subscribed(_) | SessionState::Polling(_) | SessionState::Socket(_)) => {
                    match self.subscriber_of(http.state(id)) {
                        Some(key) => key,
                        None => continue,
                    }
                }
                Some(SessionState::Watching) => {
                    done(http, id, &self.answering.meter);
                    self.unwatch(http, id);
                    http.end_stream(id);
                    continue;
                }
                _ => continue,
            };
            if self.hub.is_stream(key) {
                let delay = Duration::from_millis(http.random() % (spread.as_millis() as u64 + 1));
                http.set_deadline(id, delay);
            } else {
                let now = unix_time(http);
                self.hub.time_out(key, now, &mut Out { http, answering: &self.answering });
            }
        }
    }
}
