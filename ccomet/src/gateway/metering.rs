//! The counts of this loop, for operators: what the gateway counts itself, and what it copies at
//! the end of a tick from hub, engine and store.

use std::ops::Deref;
use std::sync::Arc;

use sealed::fault;
use sealed_http::Http;

use super::{Gateway, SessionState, unix_time};
use crate::core::message::ChannelName;
use crate::core::tally::PublishApi;
use crate::hub::StartAt;
use crate::ops::counters::{LoopCounters, Transport};
use crate::ops::metrics::Moment;
use crate::protocols::call::{Door, IcometReply, ReplyTo};

/// The counters of this loop, among those of all loops.
#[derive(Debug)]
pub(super) struct Meter {
    all: Arc<[LoopCounters]>,
    index: usize,
}

impl Deref for Meter {
    type Target = LoopCounters;

    fn deref(&self) -> &LoopCounters {
        &self.all[self.index]
    }
}

impl Meter {
    pub(super) fn new(all: Arc<[LoopCounters]>, index: usize) -> Self {
        Self { all, index }
    }

    /// Counts a new connection.
    pub(super) fn note_accepted(&self, door: Door) {
        self.accepted[door as usize].add(1);
        self.connections[door as usize][Transport::Http as usize].add(1);
    }

    /// Counts the end of a connection.
    pub(super) fn note_closed(&self, door: Door, session: SessionState) {
        if !fault!("closed-connection-counted-open") {
            self.connections[door as usize][transport_of(session) as usize].take(1);
        }
    }

    /// Counts a connection that waits for something else from now on.
    pub(super) fn change_transport(&self, door: Door, from: SessionState, to: SessionState) {
        let (from, to) = (transport_of(from), transport_of(to));
        if from != to {
            self.connections[door as usize][from as usize].take(1);
            self.connections[door as usize][to as usize].add(1);
        }
    }

    /// Counts a subscription.
    pub(super) fn note_subscribed(&self, transport: Transport, resumes: bool) {
        self.subscribes[transport as usize][usize::from(resumes)].add(1);
    }

    /// Counts messages that were published or refused.
    pub(super) fn note_published(&self, api: PublishApi, is_accepted: bool, count: usize) {
        self.publishes[api as usize][usize::from(is_accepted)].add(count as u64);
    }

    /// Counts the messages of a call that is refused before it reaches the engine.
    pub(super) fn note_refused(&self, publishes: Option<(PublishApi, usize)>) {
        if let Some((api, count)) = publishes {
            self.note_published(api, false, count);
        }
    }
}

/// Returns how a connection is used.
pub(super) fn transport_of(session: SessionState) -> Transport {
    match session {
        SessionState::Subscribed(_) | SessionState::Watching => Transport::Stream,
        SessionState::Polling(_) => Transport::Poll,
        SessionState::Socket(_) | SessionState::SocketOver(_) => Transport::WebSocket,
        SessionState::Nothing | SessionState::Asking | SessionState::Publishing | SessionState::Hooked(_) => {
            Transport::Http
        }
    }
}

/// Returns whether a subscription goes on from an earlier one.
pub(super) fn resumes(channels: &[(ChannelName, StartAt)]) -> bool {
    channels.iter().any(|(_, start)| matches!(start, StartAt::After(_) | StartAt::Number(_)))
}

/// Returns the API and the number of the messages to whose publication a reply refers; `None` if it
/// refers to something else.
pub(super) fn publications_of(reply: &ReplyTo) -> Option<(PublishApi, usize)> {
    match reply {
        ReplyTo::Native { .. } | ReplyTo::Socket { .. } => Some((PublishApi::Native, 1)),
        ReplyTo::Part { places } => Some((PublishApi::Native, places.len())),
        ReplyTo::V1 { .. } => Some((PublishApi::Classic, 1)),
        ReplyTo::Icomet(IcometReply::Published { .. }) | ReplyTo::Broadcast => Some((PublishApi::Icomet, 1)),
        _ => None,
    }
}

impl Gateway {
    /// Counts the time that the messages took which subscribers were given in this tick.
    pub(super) fn count_fan_out(&mut self, http: &Http<'_, Self>) {
        let mut delivered = self.hub.take_delivered().peekable();
        if delivered.peek().is_some() {
            let now = unix_time(http);
            for accepted in delivered {
                self.answering.meter.fan_out.note(now.saturating_since(accepted));
            }
        }
    }

    /// Ends the counts of a tick.
    pub(super) fn show_counts(&self) {
        let meter = &*self.answering.meter;
        meter.subscribers.set(self.hub.subscribers() as u64);
        meter.set_hub(self.hub.tally());
        meter.encoded_bytes.set(self.hub.encoded_bytes() as u64);
        meter.set_engine(&self.engine.tally());
        if let Some(tally) = self.engine.store_tally() {
            meter.set_store(tally);
        }
        meter.body_bytes.set(self.client_tracker.body_bytes());
        meter.addresses.set(self.client_tracker.addresses() as u64);
        meter.hook_queue.set(self.site.asking() as u64);
    }

    /// Returns what only this loop can say about the server now.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            config: self.config.clone(),
            problems: self.problems(),
            is_draining: self.draining.is_some(),
            store: self.engine.store_figures(),
        }
    }
}
