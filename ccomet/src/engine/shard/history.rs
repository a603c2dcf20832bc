//! What channels keep, and what that counts for: one account for all channels of a shard, with what they take on the loops that
//! are attached.

use std::sync::Arc;

use sealed::fault;

use super::{ChannelState, Shard};
use crate::core::message::Message;
use crate::engine::peer::{Parcel, ToLoop};
use crate::engine::{ChannelEvent, Tick};

/// What a message takes on each loop that is attached, roughly, in bytes: the place in its log. The message is shared.
const COPY_BYTES: usize = 16;

/// Channels that are looked at in a search for one that keeps more than the mean.
const LOOKS_MAX: usize = 1_000;

impl ChannelState {
    /// What its history counts for.
    pub(super) fn held_bytes(&self) -> usize {
        let copy_bytes = if fault!("copies-not-counted") { 0 } else { COPY_BYTES };
        self.log.bytes() + self.log.len() * self.attached.len() * copy_bytes
    }
}

impl Shard {
    /// Numbers and keeps a message in a channel that nobody publishes in. That it is fed does not keep it from being idle.
    pub(super) fn append_derived(&mut self, key: usize, now: Tick, message: Arc<Message>) {
        self.change(key, |channel| channel.log.push(message));
        self.trim(key, now);
        self.mark(key);
    }

    /// Drops what a channel has kept. Returns the number of its next message.
    pub(super) fn drop_history(&mut self, key: usize) -> u64 {
        // What was published before this is with its readers before they hear of it.
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
        // They hear of it from this.
        channel.truncated = false;
        for attachment in &channel.attached {
            let cleared = ToLoop::Channel(channel.name.clone(), ChannelEvent::Cleared { first: next });
            self.outbox.push((attachment.to, Parcel::Loop(cleared)));
        }
        next
    }

    /// Drops what a channel may not keep any more.
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

    /// Changes what a channel keeps, or on how many loops, and with it what that counts for.
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

    /// Drops oldest messages until all channels together keep to their limit: of those that keep more than the mean, so that nobody who
    /// fills some costs the others what they keep.
    pub(super) fn evict(&mut self) {
        let (mut looked, mut is_new) = (0, false);
        while self.bytes > self.limits.history_bytes_max && !self.is_all_new {
            let mut behind = self.with_history.range(self.evict_next..);
            let Some(key) = behind.next().or_else(|| self.with_history.first()).copied() else { break };
            let (channel, count) = (&self.channels[key], self.with_history.len());
            let is_small = channel.held_bytes() < self.bytes / count && !fault!("small-channels-evicted");
            looked += 1;
            if !channel.dirty && (!is_small || looked > LOOKS_MAX && !is_new) {
                // The next one goes from the same channel, if that still has more than the mean.
                self.evict_next = key;
                self.change(key, |channel| channel.log.drop_oldest());
                (looked, is_new) = (0, false);
                continue;
            }
            // What was published in this tick is not with its readers yet: it may go at the tick's end.
            is_new |= channel.dirty && !is_small;
            self.is_all_new = looked > count || looked > LOOKS_MAX && is_new;
            self.evict_next = key + 1;
        }
    }
}
