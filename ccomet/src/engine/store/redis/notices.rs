//! The notices of pub/sub: what other servers have published.

use std::sync::Arc;

use bytes::Bytes;

use super::RedisStore;
use super::replies::Notice;
use super::resp::Value;
use crate::core::message::{ChannelName, Message};
use crate::core::pattern::Pattern;
use crate::core::position::{Epoch, Spot};
use crate::engine::Window;
use crate::engine::store::Outcome;

/// What another server has appended to a channel.
struct Appended {
    epoch: Epoch,
    first: u64,
    time: u64,
    messages: Vec<Bytes>,
}

impl RedisStore {
    pub(super) fn on_push(&mut self, elements: Vec<Value>) {
        let mut elements = elements.into_iter();
        let mut text = || match elements.next() {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        };
        match text().as_deref() {
            Some(b"message") => {
                let (Some(topic), Some(payload)) = (text(), text()) else { return };
                if let Some((channel, notice)) = self.channel_of(&topic).zip(self.news(&payload)) {
                    self.on_notice(&channel, notice);
                }
            }
            Some(b"pmessage") => {
                let (Some(pattern), Some(topic), Some(payload)) = (text(), text(), text()) else { return };
                let Some(channel) = self.channel_of(&topic) else { return };
                if self.passes_by(&pattern, &channel)
                    && let Some(notice) = self.news(&payload)
                {
                    self.on_passing(channel, notice);
                }
            }
            // Subscriptions are confirmed.
            _ => {}
        }
    }

    /// Reads a notice of another server.
    fn news(&self, payload: &Bytes) -> Option<Notice> {
        let notice = Notice::read(payload)?;
        let (Notice::Appended { token, .. } | Notice::Cleared { token, .. } | Notice::Removed { token }) = &notice;
        (!self.is_own(token)).then_some(notice)
    }

    /// Returns the channel of a topic.
    fn channel_of(&self, topic: &Bytes) -> Option<ChannelName> {
        let name = topic.strip_prefix(&*self.keys.topic(""))?;
        ChannelName::new(std::str::from_utf8(name).ok()?).ok()
    }

    /// Returns whether a notice to a pattern is news: of a channel of this loop's shard that is not
    /// in memory, and for the first pattern that matches it, as Redis sends one for each.
    fn passes_by(&self, topics: &Bytes, channel: &ChannelName) -> bool {
        let is_own = channel.shard(self.settings.loops) == self.settings.index;
        if !is_own || self.channels.contains_key(channel) {
            return false;
        }
        let matches = |pattern: Option<Pattern>| pattern.is_some_and(|pattern| pattern.matches(channel.as_str()));
        let first = self.patterns.iter().find(|pattern| matches(pattern.to_pattern()));
        first.is_some_and(|pattern| *self.keys.topics_of(pattern) == **topics)
    }

    fn on_notice(&mut self, channel: &ChannelName, notice: Notice) {
        let Some(mirror) = self.channels.get_mut(channel).filter(|mirror| mirror.is_current) else { return };
        match notice {
            Notice::Appended { epoch, first, time, messages, .. } => {
                self.on_appended(channel, Appended { epoch, first, time, messages });
            }
            Notice::Cleared { epoch, next, .. } => {
                if epoch != mirror.epoch || next != mirror.next() {
                    return self.look_again(channel);
                }
                mirror.clear();
                self.outcomes.push_back(Outcome::Cleared { channel: channel.clone() });
            }
            // The change in progress creates the channel again.
            Notice::Removed { .. } if mirror.in_progress.is_some() => mirror.is_removed = true,
            Notice::Removed { .. } => self.remove_elsewhere(channel),
        }
    }

    /// Reports that another server has removed a channel.
    pub(super) fn remove_elsewhere(&mut self, channel: &ChannelName) {
        self.drop_channel(channel);
        self.outcomes.push_back(Outcome::Removed { channel: channel.clone() });
    }

    fn on_appended(&mut self, channel: &ChannelName, appended: Appended) {
        let Appended { epoch, first, time, messages } = appended;
        let messages: Vec<Arc<Message>> = messages.iter().map(|bytes| self.message(bytes, time)).collect();
        let window_max = self.settings.window_max;
        let Some(mirror) = self.channels.get_mut(channel) else { return };
        if epoch != mirror.epoch && first == 0 && mirror.is_removed {
            // Another server has created the channel again. Without a notice of the removal, the
            // generation may be another one.
            return self.restart(channel, Window { epoch, kept_from: 0, first, entries: messages });
        }
        if epoch != mirror.epoch || first > mirror.next() {
            return self.look_again(channel);
        }
        if first < mirror.next() {
            return;
        }
        for message in &messages {
            mirror.push(message, window_max);
        }
        self.outcomes.push_back(Outcome::Appended { channel: channel.clone(), first, messages });
    }

    /// Reports messages that were found in the stream.
    pub(super) fn pass_appended(&mut self, channel: &ChannelName, messages: &mut Vec<(u64, Arc<Message>)>) {
        let Some(first) = messages.first().map(|(number, _)| *number) else { return };
        let messages = messages.drain(..).map(|(_, message)| message).collect();
        self.outcomes.push_back(Outcome::Appended { channel: channel.clone(), first, messages });
    }

    fn on_passing(&mut self, channel: ChannelName, notice: Notice) {
        match notice {
            Notice::Appended { epoch, first, time, messages, .. } => {
                let spots = (first + 1..).map(|next| Spot { epoch, next });
                let messages = spots.zip(&messages).map(|(spot, bytes)| (spot, self.message(bytes, time)));
                let messages = messages.collect();
                self.outcomes.push_back(Outcome::Passing { channel, messages });
            }
            Notice::Cleared { .. } | Notice::Removed { .. } => {
                self.outcomes.push_back(Outcome::PassingCleared { channel });
            }
        }
    }
}
