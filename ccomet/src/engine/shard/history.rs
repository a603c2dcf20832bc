//! The history of channels and its account: the bytes of all channels of a shard, including the
//! copies of their logs on the loops that follow them. A payload that several channels share counts
//! once (`shared.rs`).

use std::sync::Arc;

use sealed::fault;

use super::owners::Candidate;
use super::{ChannelState, Shard};
use crate::core::message::{Message, SharedPayload};
use crate::engine::peer::{Parcel, ToLoop};
use crate::engine::{ChannelEvent, Tick};

/// The bytes that a message takes on each following loop: an entry in the loop's log. The message
/// itself is shared.
const COPY_BYTES: usize = 16;

/// The maximum number of channels that eviction visits to find one above the mean.
const LOOKS_MAX: usize = 1_000;

impl ChannelState {
    /// Returns the bytes of its history, without shared payloads.
    pub(super) fn own_bytes(&self) -> usize {
        let copy_bytes = if fault!("copies-not-counted") { 0 } else { COPY_BYTES };
        self.log.bytes() - self.shared_length + self.log.len() * self.attached.len() * copy_bytes
    }

    /// Returns the bytes by which eviction compares it with other channels.
    pub(super) fn weight(&self) -> usize {
        self.own_bytes() + self.shared_bytes
    }
}

/// The shared payloads of messages that a channel has dropped.
#[derive(Debug, Default)]
pub(super) struct Dropped(Vec<SharedPayload>);

impl Dropped {
    pub(super) fn note(&mut self, message: &Message) {
        self.0.extend(SharedPayload::of(message));
    }
}

impl Shard {
    /// Appends a message to a derived channel. This does not count as use of the channel.
    pub(super) fn append_derived(&mut self, key: usize, now: Tick, message: Arc<Message>) {
        self.push(key, message);
        self.trim(key, now);
        self.mark(key);
    }

    /// Adds a message to a channel's log. Returns its number.
    pub(super) fn push(&mut self, key: usize, message: Arc<Message>) -> u64 {
        let payload = SharedPayload::of(&message);
        let number = self.change(key, |channel, _| {
            channel.shared_length += payload.map_or(0, |payload| payload.length);
            channel.log.push(message)
        });
        if let Some(payload) = payload {
            self.hold(key, number, payload);
        }
        number
    }

    /// Drops a channel's history. Returns the number of its next message.
    pub(super) fn drop_history(&mut self, key: usize) -> u64 {
        // Readers get the published messages before the event of the clearing.
        if !fault!("cleared-before-delivery") {
            self.deliver_to_all(key);
        }
        let next = self.channels[key].log.next();
        self.change(key, |channel, dropped| {
            channel.log.drop_before(next, |message| dropped.note(&message));
            if let Some(stored) = &mut channel.stored {
                stored.kept_from = next;
            }
        });
        let channel = &mut self.channels[key];
        // The event below covers the truncation.
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
        let before = channel.kept_from();
        self.change(key, |channel, dropped| match (&mut channel.stored, kept_from) {
            (Some(stored), Some(kept_from)) => {
                stored.kept_from = kept_from;
                let window_from = channel.log.next().saturating_sub(window_max);
                let from = window_from.max(kept_from).min(channel.log.next());
                channel.log.drop_before(from, |message| dropped.note(&message));
            }
            _ => channel.log.trim(&limits, now.time, |message| dropped.note(&message)),
        });
        self.trimmed += self.channels[key].kept_from().saturating_sub(before);
    }

    /// Changes a channel's log or its followers, and updates the account. `change` notes dropped
    /// messages.
    pub(super) fn change<R>(&mut self, key: usize, change: impl FnOnce(&mut ChannelState, &mut Dropped) -> R) -> R {
        let channel = &mut self.channels[key];
        let (bytes, was_empty) = (channel.own_bytes(), channel.log.is_empty());
        let (first, kept_from) = (channel.log.first(), channel.kept_from());
        let mut dropped = Dropped::default();
        let result = change(channel, &mut dropped);
        channel.shared_length -= dropped.0.iter().map(|payload| payload.length).sum::<usize>();
        let own_bytes = channel.own_bytes();
        if own_bytes > bytes || !fault!("dropped-history-still-counted") {
            self.bytes = self.bytes - bytes + own_bytes;
        }
        self.owners.weigh(channel.counted, bytes, own_bytes);
        if was_empty && !channel.log.is_empty() {
            self.owners.list(key, &mut channel.counted);
        }
        let has_become_empty = !was_empty && channel.log.is_empty();
        let is_shorter =
            (channel.log.first() > first || channel.kept_from() > kept_from) && !channel.attached.is_empty();
        if is_shorter && !fault!("drops-not-sent-to-loops") && !std::mem::replace(&mut channel.truncated, true) {
            self.truncated.push(key);
        }
        if has_become_empty {
            let (counted, channels) = (self.channels[key].counted, &mut self.channels);
            self.owners.unlist(counted, |key, moved| channels[key].counted.note(moved));
        }
        if !dropped.0.is_empty() {
            self.release(key, &dropped.0);
        }
        result
    }

    /// Changes a channel's share of shared payloads.
    pub(super) fn weigh(&mut self, key: usize, change: impl FnOnce(usize) -> usize) {
        let channel = &mut self.channels[key];
        let before = channel.shared_bytes;
        channel.shared_bytes = change(before);
        self.owners.weigh(channel.counted, before, channel.shared_bytes);
    }

    /// Returns the bytes that count against the limit.
    pub(super) fn history_bytes(&self) -> usize {
        self.bytes + self.shared.bytes()
    }

    /// Recomputes these bytes from the messages themselves.
    #[cfg(feature = "sim")]
    pub(super) fn recount(&self) -> usize {
        let mut seen = std::collections::HashSet::new();
        let messages = self.channels.iter().flat_map(|(_, channel)| channel.log.since(0));
        let payloads: Vec<_> = messages.filter_map(|(_, message)| SharedPayload::of(message)).collect();
        let once = payloads.iter().filter(|payload| seen.insert(**payload));
        let shared: usize = once.map(|payload| payload.length).sum();
        let shares: usize = self.channels.iter().map(|(_, channel)| channel.shared_bytes).sum();
        // Rounding may make each share a byte too small.
        assert!(
            2 * (shares + payloads.len()) >= shared && shares <= 2 * shared,
            "{shares} bytes of {shared} are shares"
        );
        let weights = self.channels.iter().map(|(_, channel)| channel.weight() * channel.counted.accounts().count());
        assert_eq!(weights.sum::<usize>(), self.owners.bytes(), "clients have what their channels have");
        shared + self.channels.iter().map(|(_, channel)| channel.own_bytes()).sum::<usize>()
    }

    /// Drops the oldest messages until all channels together are within the limit. The client whose
    /// channels keep most loses first, and among these channels, those above their mean. So a
    /// client that fills any number of channels does not cost the others their history.
    pub(super) fn evict(&mut self) {
        let (mut looked, mut is_new) = (0, false);
        while self.history_bytes() > self.limits.history_bytes_max && !self.is_all_new {
            let Some(candidate) = self.owners.candidate(self.limits.history_bytes_max) else { break };
            let Candidate { key, count, mean, .. } = candidate;
            let channel = &self.channels[key];
            let is_small = channel.weight() < mean && !fault!("small-channels-evicted");
            looked += 1;
            if !channel.dirty && (!is_small || looked > LOOKS_MAX && !is_new) {
                // The same channel is next as long as it is above the mean.
                let before = channel.kept_from();
                self.change(key, |channel, dropped| {
                    channel.log.drop_oldest().inspect(|message| dropped.note(message));
                });
                self.evicted += self.channels[key].kept_from().saturating_sub(before);
                (looked, is_new) = (0, false);
                continue;
            }
            // Readers do not have this tick's messages yet; these messages may be dropped at the
            // end of the tick.
            is_new |= channel.dirty && !is_small;
            self.is_all_new = looked > count || looked > LOOKS_MAX && is_new;
            self.owners.pass_over(candidate);
        }
    }
}
