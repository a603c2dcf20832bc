//! Several subscribers on one connection. The first subscriber has no label, and the channels that
//! the connection was opened with, possibly none; its end is the end of the connection. Labelled
//! subscribers are added to the connection and removed from it. Each event that is sent for a
//! labelled subscriber names the label.

use std::collections::HashMap;

use sealed::{ConnectionId, fault};

use super::subscriber::Subscriber;
use super::{Hub, Label};
use crate::core::message::ChannelName;
use crate::core::time::UnixMillis;

/// The labelled subscribers, by their connection.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    added: HashMap<ConnectionId, Session>,
    /// Connections that have lost labelled subscribers since the gateway last asked; some may be
    /// listed more than once.
    ended: Vec<ConnectionId>,
}

/// The labelled subscribers of a connection.
#[derive(Debug, Default)]
struct Session {
    added: Vec<(Label, u32)>,
    /// The number of times its subscribers have taken turns.
    turns: usize,
}

impl Sessions {
    pub(super) fn add(&mut self, peer: ConnectionId, label: Label, key: u32) {
        self.added.entry(peer).or_default().added.push((label, key));
    }

    fn get(&self, peer: ConnectionId) -> &[(Label, u32)] {
        self.added.get(&peer).map_or(&[], |session| &session.added)
    }

    fn find(&self, peer: ConnectionId, label: Label) -> Option<u32> {
        self.get(peer).iter().find(|(held, _)| *held == label).map(|(_, key)| *key)
    }

    /// Returns the subscribers of a connection, whose first is `first`, in the order in which they
    /// are served now; nothing if none has a label. Each call returns another one at the head,
    /// because that may leave no room for the others.
    pub(super) fn take_turns(&mut self, peer: ConnectionId, first: u32) -> Vec<u32> {
        let Some(session) = self.added.get_mut(&peer) else { return Vec::new() };
        let all = [first].into_iter().chain(session.added.iter().map(|(_, key)| *key));
        let mut order: Vec<u32> = all.collect();
        session.turns = if fault!("first-subscription-always-first") { 0 } else { session.turns.wrapping_add(1) };
        let leader = session.turns % order.len();
        order.rotate_left(leader);
        order
    }

    /// Handles the end of a subscriber. Returns the subscribers that end with it.
    pub(super) fn end(&mut self, subscriber: &Subscriber, key: u32) -> Vec<u32> {
        if self.added.is_empty() {
            return Vec::new();
        }
        let ended = match subscriber.label() {
            None if fault!("added-outlives-connection") => Vec::new(),
            None => self.added.remove(&subscriber.peer).unwrap_or_default().added,
            Some(_) => {
                self.ended.push(subscriber.peer);
                let others = self.added.get_mut(&subscriber.peer);
                let is_last = others.is_some_and(|others| {
                    others.added.retain(|(_, held)| *held != key);
                    others.added.is_empty()
                });
                if is_last {
                    self.added.remove(&subscriber.peer);
                }
                Vec::new()
            }
        };
        if self.added.is_empty() {
            self.added = HashMap::new();
        }
        ended.into_iter().map(|(_, key)| key).collect()
    }
}

impl Hub {
    /// Returns the number of subscriptions that were added to a connection and have not ended.
    pub(crate) fn added(&self, peer: ConnectionId) -> usize {
        self.sessions.get(peer).len()
    }

    /// Returns the connections of which added subscriptions have ended since the last call, except
    /// for connections that have ended themselves.
    pub(crate) fn take_ended(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.sessions.ended)
    }

    /// Returns whether a connection has a subscription with that label.
    pub(crate) fn has_added(&self, peer: ConnectionId, label: Label) -> bool {
        self.sessions.find(peer, label).is_some()
    }

    /// Returns the channels of the subscriptions that were added to a connection, without
    /// duplicates.
    pub(crate) fn added_channels(&self, peer: ConnectionId) -> impl Iterator<Item = &ChannelName> {
        let subscribers = self.sessions.get(peer).iter().filter_map(|(_, key)| self.subscribers.get(*key as usize));
        let mut channels: Vec<u32> = subscribers.flat_map(Subscriber::cursors).map(|cursor| cursor.channel).collect();
        channels.sort_unstable();
        if !fault!("renewal-looks-at-each-cursor") {
            channels.dedup();
        }
        channels.into_iter().filter_map(|key| self.channels.get(key as usize)).map(|channel| &channel.name)
    }

    /// Removes a subscription that was added to a connection. Returns false if none has that label.
    pub(crate) fn remove_added(&mut self, peer: ConnectionId, label: Label, now: UnixMillis) -> bool {
        self.now = now;
        let Some(key) = self.sessions.find(peer, label) else { return false };
        self.leave(key);
        true
    }
}
