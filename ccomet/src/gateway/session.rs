//! Subscriptions that a client adds to its WebSocket, and removes from it. The hub keeps them, under the labels that the
//! client gave them.

use sealed::{ConnectionId, fault};
use sealed_http::Http;

use super::answers::{Out, refuse_on_socket};
use super::{Caller, Gateway, loop_time, unix_time};
use crate::access::Access;
use crate::core::problem::Problem;
use crate::hub::{Label, Reply, Subscription};
use crate::protocols::native::websocket as words;

/// Bytes of a command for each channel that it may name, at most: its name as JSON, and its part of a position.
const CHANNEL_COMMAND_BYTES: usize = 1_024;

/// Bytes of a command that brings a token, at most.
const TOKEN_COMMAND_BYTES: usize = 16 * 1_024;

impl Gateway {
    /// Returns the most bytes of a message from a client: the longest subscription or token, or the longest publication
    /// as JSON if the client may publish.
    pub(super) fn socket_message_bytes_max(&self, socket: u32) -> usize {
        let limits = &self.config.limits;
        let of_commands = limits.channels_per_subscription_max.saturating_mul(CHANNEL_COMMAND_BYTES);
        let of_commands = of_commands.max(TOKEN_COMMAND_BYTES);
        let grant = self.sockets.get(socket as usize).and_then(|socket| socket.caller.grant.as_ref());
        if grant.is_some_and(|grant| grant.publish.is_empty()) && !fault!("reader-sends-long-messages") {
            return of_commands;
        }
        // As JSON, text is up to six times as long as it is.
        of_commands.max(limits.message_bytes_max.saturating_mul(6).saturating_add(1_024))
    }

    /// Adds a subscription, if the client may have it.
    pub(super) fn subscribe_on_socket(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        socket: u32,
        subscription: Subscription,
        label: Label,
    ) {
        let caller = self.sockets[socket as usize].caller.clone();
        if let Err(problem) = self.admit_subscription(http, id, &caller, &subscription, label) {
            return refuse_on_socket(http, id, problem, Some(label.0), &self.answering);
        }
        if let Some(subscription) = self.ask_about_subscribing(http, id, socket, subscription, label) {
            self.add_subscription(http, id, socket, subscription, label);
        }
    }

    fn admit_subscription(
        &mut self,
        http: &Http<'_, Self>,
        id: ConnectionId,
        caller: &Caller,
        subscription: &Subscription,
        label: Label,
    ) -> Result<(), Problem> {
        let access = Access::subscribing(subscription);
        if let Some(grant) = &caller.grant {
            if !fault!("added-subscription-not-charged") {
                self.client_tracker.charge(caller.asking, access.cost, 0, loop_time(http))?;
            }
            self.authorizer.may_add(grant, &access)?;
        }
        if self.hub.has_added(id, label) && !fault!("label-given-twice") {
            return Err(Problem::RefTaken);
        }
        if self.hub.added(id) >= self.config.limits.subscriptions_per_connection_max {
            return Err(Problem::TooManySubscriptions);
        }
        self.judge_access(http, id, &access, None, caller)
    }

    /// Adds a subscription that is allowed.
    pub(super) fn add_subscription(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        socket: u32,
        mut subscription: Subscription,
        label: Label,
    ) {
        if self.draining.is_some() {
            return refuse_on_socket(http, id, Problem::ShuttingDown, Some(label.0), &self.answering);
        }
        let caller = &self.sockets[socket as usize].caller;
        (subscription.member, subscription.owner) = (caller.member(), caller.owner());
        let now = unix_time(http);
        let outcome = self.hub.subscribe(id, subscription, now, &mut Out { http, answering: &self.answering });
        if let Err(reply) = outcome {
            let problem = if let Reply::Refused { problem, .. } = reply { problem } else { Problem::Unavailable };
            refuse_on_socket(http, id, problem, Some(label.0), &self.answering);
        }
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
