//! The history of channels and its account: the bytes of all channels of a shard, including the copies of their logs on
//! the loops that follow them.

use std::sync::Arc;

use sealed::fault;

use super::{ChannelState, Shard};
use crate::core::message::Message;
use crate::engine::peer::{Parcel, ToLoop};
use crate::engine::{ChannelEvent, Tick};

/// The bytes that a message takes on each following loop: an entry in the loop's log. The message itself is shared.
const COPY_BYTES: usize = 16;

/// The most channels that eviction visits to find one that has more than the mean.
const LOOKS_MAX: usize = 1_000;

impl ChannelState {
    /// Returns the bytes that its history counts for.
    pub(super) fn held_bytes(&self) -> usize {
        let copy_bytes = if fault!("copies-not-counted") { 0 } else { COPY_BYTES };
        self.log.bytes() + self.log.len() * self.attached.len() * copy_bytes
    }
}

impl Shard {
    /// Appends a message to a derived channel. This does not count as use of the channel.
    pub(super) fn append_derived(&mut self, key: usize, now: Tick, message: Arc<Message>) {
        self.change(key, |channel| channel.log.push(message));
        self.trim(key, now);
        self.mark(key);
    }

    /// Drops a channel's history. Returns the number of its next message.
    pub(super) fn drop_history(&mut self, key: usize) -> u64 {
        // Readers get what was published before they learn that it is cleared.
        if !fault!("cleared-before-delivery") {
            self.deliver_to_all(key);
        }
        let next = self.channels[key].log.next();
        self.change(key, |channel| {
            channel.log.drop_before(next);
            if let Some(stored) = &mut channel.stored {
                stored.kept_from = next;
            }
        });
        let channel = &mut self.channels[key];
        // The event below covers this.
        channel.truncated = false;
        for attachment in &channel.attached {
            let cleared = ToLoop::Channel(channel.name.clone(), ChannelEvent::Cleared { first: next });
            self.outbox.push((attachment.to, Parcel::Loop(cleared)));
        }
        next
    }

    /// Drops the messages that the limits of a channel no longer allow.
    pub(super) fn trim(&mut self, key: usize, now: Tick) {
        let channel = &self.channels[key];
        let limits = self.limits.rules.bounds(channel.rule).history;
        let kept_from = if channel.stored.is_some() { self.store.trim(now, &channel.name, &limits) } else { None };
        let window_max = self.store.window_max().unwrap_or(usize::MAX) as u64;
        self.change(key, |channel| match (&mut channel.stored, kept_from) {
            (Some(stored), Some(kept_from)) => {
                stored.kept_from = kept_from;
                let window_from = channel.log.next().saturating_sub(window_max);
                channel.log.drop_before(window_from.max(kept_from).min(channel.log.next()));
            }
            _ => channel.log.trim(&limits, now.time),
        });
    }

    /// Changes a channel's log or its followers, and updates the account.
    pub(super) fn change<R>(&mut self, key: usize, change: impl FnOnce(&mut ChannelState) -> R) -> R {
        let channel = &mut self.channels[key];
        let (bytes, was_empty) = (channel.held_bytes(), channel.log.is_empty());
        let (first, kept_from) = (channel.log.first(), channel.kept_from());
        let result = change(channel);
        if channel.held_bytes() > bytes || !fault!("dropped-history-still-counted") {
            self.bytes = self.bytes - bytes + channel.held_bytes();
        }
        if channel.log.is_empty() {
            self.with_history.remove(&key);
        } else if was_empty {
            self.with_history.insert(key);
        }
        let is_shorter =
            (channel.log.first() > first || channel.kept_from() > kept_from) && !channel.attached.is_empty();
        if is_shorter && !fault!("drops-not-sent-to-loops") && !std::mem::replace(&mut channel.truncated, true) {
            self.truncated.push(key);
        }
        result
    }

    /// Drops the oldest messages until all channels together are within the limit. Only channels with more than the mean
    /// lose messages, so that a client that fills some channels does not cost the others their history.
    pub(super) fn evict(&mut self) {
        let (mut looked, mut is_new) = (0, false);
        while self.bytes > self.limits.history_bytes_max && !self.is_all_new {
            let mut behind = self.with_history.range(self.evict_next..);
            let Some(key) = behind.next().or_else(|| self.with_history.first()).copied() else { break };
            let (channel, count) = (&self.channels[key], self.with_history.len());
            let is_small = channel.held_bytes() < self.bytes / count && !fault!("small-channels-evicted");
            looked += 1;
            if !channel.dirty && (!is_small || looked > LOOKS_MAX && !is_new) {
                // Continues with the same channel while it has more than the mean.
                self.evict_next = key;
                self.change(key, |channel| channel.log.drop_oldest());
                (looked, is_new) = (0, false);
                continue;
            }
            // Readers do not have this tick's messages yet; they may go at the end of the tick.
            is_new |= channel.dirty && !is_small;
            self.is_all_new = looked > count || looked > LOOKS_MAX && is_new;
            self.evict_next = key + 1;
        }
    }
}
