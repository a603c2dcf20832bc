//! Changes that other servers have made to channels of this shard, in a store that several servers
//! share. They reach the followers like the changes of this server.

use std::sync::Arc;

use super::gate::Entrant;
use super::{Asker, Shard};
use crate::core::message::{ChannelName, Message};
use crate::core::window::MessageLog;
use crate::engine::store::NumberedMessage;
use crate::engine::{Range, Refusal};
use crate::engine::{Tick, Window};

/// The number of loops and reads of one channel that wait for other servers, from which on reads
/// are refused.
const BEHIND_MAX: usize = 1_000;

/// What waits until a channel has all that other servers had appended: its position is ahead of the
/// channel here.
#[derive(Debug)]
pub(super) enum Behind {
    /// A loop that catches up.
    Loop(usize),
    Read(Asker, Range),
}

impl Shard {
    /// Lets `behind` wait until a channel has all that other servers have appended. Returns false
    /// if no other server appends messages.
    pub(super) fn wait_for_others(&mut self, key: usize, behind: Behind) -> bool {
        let channel = &mut self.channels[key];
        let Some(stored) = channel.stored.as_mut() else { return false };
        if let Behind::Read(asker, _) = behind
            && stored.behind.len() >= BEHIND_MAX
        {
            self.reply(asker, Err(Refusal::Unavailable));
            return true;
        }
        let is_later = self.store.catch_up(&channel.name);
        if is_later {
            stored.behind.push_back(behind);
        }
        is_later
    }

    pub(super) fn caught_up_with_others(&mut self, now: Tick, name: &ChannelName) {
        let Some(key) = self.key_of(name) else { return };
        match self.channels[key].stored.as_mut().and_then(|stored| stored.behind.pop_front()) {
            Some(Behind::Loop(from)) => self.catch_up_now(from, name.clone()),
            Some(Behind::Read(asker, range)) => self.read_now(now, asker, key, range),
            None => {}
        }
    }

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

    /// Continues a channel with the window after messages that are gone. Its followers learn how
    /// many they have missed.
    pub(super) fn skip_to(&mut self, key: usize, window: &Window) {
        let name = self.channels[key].name.clone();
        self.break_patterns(Some(&name));
        self.deliver_to_all(key);
        self.change(key, |channel, dropped| {
            channel.log.drop_before(channel.log.next(), |message| dropped.note(&message));
            channel.log = MessageLog::starting_at(window.first);
            channel.stored.get_or_insert_default().kept_from = window.kept_from;
        });
        for message in &window.entries {
            self.push(key, message.clone());
        }
        self.mark(key);
    }

    /// Drops the history of a channel that another server has cleared.
    pub(super) fn cleared(&mut self, name: &ChannelName) {
        if let Some(key) = self.key_of(name) {
            self.clear(key);
        }
    }

    /// Replaces a channel that another server has removed by another one of its name. Followers are
    /// notified of the end of the former, and may follow the latter.
    pub(super) fn replaced(&mut self, name: &ChannelName, window: &Window) {
        let Some(key) = self.key_of(name) else { return };
        self.epochs.replace(name, window.epoch);
        self.forget_in_patterns(name);
        self.end_followers(key);
        self.end_movements(name);
        let channel = &mut self.channels[key];
        channel.epoch = window.epoch;
        (channel.waits, channel.token) = (None, None);
        self.members -= channel.presence.take().map_or(0, |presence| presence.len());
        // Reads in progress are of the former channel.
        channel.stored.get_or_insert_default().reads = 0;
        self.skip_to(key, window);
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
