//! Requests of handles to a loop, and the handles' readers on it.

use std::collections::BTreeMap;

use sealed::fault;
use sealed_http::Http;

use super::metering::resumes;
use super::pending::Asker;
use super::{Gateway, now, unix_time};
use crate::core::message::ChannelName;
use crate::engine::Request;
use crate::handle::{Event, HandleRequest, Position, Reader, Received};
use crate::hub::{FollowerEvent, FollowerKey};
use crate::ops::counters::Transport;

/// The maximum number of events that a reader gets in one tick, so that clients do not wait while a
/// long history is delivered.
const EVENTS_PER_TICK: usize = 256;

/// The readers in this process that this loop serves.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// All readers, in a fixed order, so that simulations are repeatable.
    all: BTreeMap<FollowerKey, Reader>,
    /// The key of each reader, by the number that its handle uses.
    keys: BTreeMap<u64, FollowerKey>,
}

impl Gateway {
    /// Executes a request of a handle.
    pub(super) fn hear_handle(&mut self, http: &mut Http<'_, Self>, request: HandleRequest) {
        match request {
            HandleRequest::Ask { action, asker } => {
                let request = action.into_request(unix_time(http));
                let publishes = matches!(request, Request::Publish { .. } | Request::Broadcast(_));
                self.engine.request(now(http), request, Asker::Handle(asker, publishes));
            }
            HandleRequest::Subscribe(reader) => self.add_reader(http, reader),
            HandleRequest::Resume(id) => {
                if let Some(key) = self.readers.keys.get(&id) {
                    self.hub.mark_follower_ready(*key);
                }
            }
            HandleRequest::Unsubscribe(_) if fault!("reader-outlives-subscription") => {}
            HandleRequest::Unsubscribe(id) => {
                if let Some(key) = self.readers.keys.get(&id).copied() {
                    self.remove_reader(http, key);
                }
            }
        }
    }

    fn add_reader(&mut self, http: &Http<'_, Self>, mut reader: Reader) {
        if self.draining.is_some() {
            return reader.tell(Event::ShuttingDown);
        }
        match self.hub.follow(&reader.channels, unix_time(http)) {
            Ok(key) => {
                self.answering.meter.note_subscribed(Transport::Handle, resumes(&reader.channels));
                self.readers.keys.insert(reader.id, key);
                self.readers.all.insert(key, reader);
            }
            Err(problem) => reader.tell(Event::Refused(problem.into())),
        }
    }

    fn remove_reader(&mut self, http: &Http<'_, Self>, key: FollowerKey) -> Option<Reader> {
        self.hub.unfollow(key, unix_time(http));
        let reader = self.readers.all.remove(&key)?;
        self.readers.keys.remove(&reader.id);
        Some(reader)
    }

    /// Delivers new events to readers, as far as these have room.
    pub(super) fn feed_readers(&mut self, http: &Http<'_, Self>) {
        for key in self.hub.take_ready_followers() {
            let is_over = self.feed_reader(http, key);
            if is_over {
                self.remove_reader(http, key);
            }
        }
    }

    /// Delivers new events to a reader. Returns whether the last event was delivered.
    fn feed_reader(&mut self, http: &Http<'_, Self>, key: FollowerKey) -> bool {
        let Some(reader) = self.readers.all.get_mut(&key) else { return true };
        let most = if fault!("long-history-in-one-tick") { usize::MAX } else { EVENTS_PER_TICK };
        for _ in 0..most {
            if !reader.is_wanted() && !fault!("reader-outlives-subscription") {
                return true;
            }
            // The reader sends a request as soon as there is room.
            if !reader.has_room() && !fault!("slow-reader-inside-queues") {
                return false;
            }
            let Some(told) = self.hub.next_for(key, unix_time(http)) else { return false };
            let event = event_of(told);
            let is_last = event.is_last();
            reader.tell(event);
            if is_last {
                return true;
            }
        }
        self.hub.mark_follower_ready(key);
        false
    }

    /// Checks the state of the readers, in case a full mailbox has kept their requests from this
    /// loop. It runs about once a second.
    pub(super) fn sweep_readers(&mut self, http: &Http<'_, Self>) {
        let keys: Vec<FollowerKey> = self.readers.all.keys().copied().collect();
        for key in keys {
            let reader = &self.readers.all[&key];
            if !reader.is_wanted() && !fault!("reader-outlives-subscription") {
                self.remove_reader(http, key);
            } else if reader.has_room() {
                self.hub.mark_follower_ready(key);
            }
        }
    }

    /// Delivers the remaining events to readers and ends them, for a shutdown of the server.
    pub(super) fn dismiss_readers(&mut self, http: &Http<'_, Self>) {
        self.feed_readers(http);
        let keys: Vec<FollowerKey> = self.readers.all.keys().copied().collect();
        for key in keys {
            if let Some(mut reader) = self.remove_reader(http, key).filter(Reader::is_wanted) {
                reader.tell(Event::ShuttingDown);
            }
        }
    }
}

fn event_of(event: FollowerEvent) -> Event {
    let shared = |channel: &ChannelName| channel.as_str().into();
    match event {
        FollowerEvent::Started { position } => Event::Started { position: Position::new(position) },
        FollowerEvent::Message { channel, message, position } => {
            Event::Message(Received::new(&channel, Position::new(position), &message))
        }
        FollowerEvent::Gap { channel, missed, position } => {
            Event::Gap { channel: shared(&channel), missed: missed.0, position: Position::new(position) }
        }
        FollowerEvent::Ended { problem: Some(problem), .. } => Event::Refused(problem.into()),
        FollowerEvent::Ended { channel, problem: None } => Event::Closed { channel: shared(&channel) },
    }
}
