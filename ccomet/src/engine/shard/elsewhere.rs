//! Changes that other servers have made to channels of this shard, in a store that several servers
//! share. They reach the followers like the changes of this server.

use std::sync::Arc;

use super::Shard;
use super::gate::Entrant;
use crate::core::message::{ChannelName, Message};
use crate::engine::Tick;
use crate::engine::store::NumberedMessage;

impl Shard {
    /// Completes the append in progress with the numbers that the store has assigned.
    pub(super) fn numbered(&mut self, now: Tick, name: &ChannelName, messages: Vec<NumberedMessage>) {
        let Some(key) = self.key_of(name) else { return };
        self.complete_numbered(now, key, messages);
        self.send_feeds();
        self.evict();
        self.continue_changes(now, name);
    }

    /// Appends messages that another server has published.
    pub(super) fn appended(&mut self, now: Tick, name: &ChannelName, first: u64, messages: &[Arc<Message>]) {
        let Some(key) = self.key_of(name) else { return };
        debug_assert_eq!(self.channels[key].log.next(), first, "{name} has no hole");
        for message in messages {
            self.append_only(key, now, message);
        }
        self.send_feeds();
        self.evict();
    }

    /// Drops the history of a channel that another server has cleared.
    pub(super) fn cleared(&mut self, name: &ChannelName) {
        if let Some(key) = self.key_of(name) {
            self.clear(key);
        }
    }

    /// Removes a channel that another server has removed. Changes that wait go on with the next
    /// channel of that name.
    pub(super) fn removed(&mut self, now: Tick, name: &ChannelName) {
        let Some(key) = self.key_of(name) else { return };
        let waiting: Vec<_> = std::iter::from_fn(|| self.take_waiting(key, |_| true)).collect();
        self.delete(key);
        for change in waiting {
            self.enter(now, Entrant::Change(name.clone(), change));
        }
    }
}
