//! Delivers the messages of a channel's log to its subscribers: from the cursor to the head, as far
//! as their connections accept them.

use std::sync::Arc;

use bytes::Bytes;
use sealed::fault;
use slab::Slab;

use super::channel::{Batch, BatchLimit, Batches, Channel};
use super::encoded::Encoded;
use super::encoder::{Encoder, Format, Gap, Label, StreamEvent};
use super::older::Waiter;
use super::polls::{ReplyCache, announcements_for, reply_of_one};
use super::subscriber::{ChannelCursor, Flags, Subscriber};
use super::{Hub, Sink, SubscriberKey};
use crate::core::position::{Missed, Spot};
use crate::core::tally::GapCause;
use crate::core::time::UnixMillis;

impl Hub {
    /// Delivers to the subscribers of a connection whose queued output the kernel has accepted: the
    /// first subscriber, and those that were added.
    pub(crate) fn drained(&mut self, key: SubscriberKey, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        let Some(subscriber) = self.subscribers.get_mut(key.0 as usize) else { return };
        let turns = self.sessions.take_turns(subscriber.peer, key.0);
        if turns.is_empty() {
            subscriber.clear(Flags::SHARES);
            return self.unblock(key.0, sink);
        }
        subscriber.set(Flags::SHARES);
        for key in turns {
            self.unblock(key, sink);
        }
    }

    fn unblock(&mut self, key: u32, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get_mut(key as usize) else { return };
        if !fault!("stalled-stream-not-fed") {
            subscriber.clear(Flags::BLOCKED);
        }
        if subscriber.is(Flags::STARTED) && subscriber.format.is_stream() {
            self.feed_stream(key, sink);
        }
    }

    /// Returns whether any of a poll's channels has a message for it.
    pub(super) fn has_news(&mut self, key: u32) -> bool {
        let now = self.now;
        let mut cursors = self.subscribers[key as usize].cursors_mut().iter_mut();
        cursors.any(|cursor| {
            let channel = &self.channels[cursor.channel as usize];
            if !fault!("poll-answered-with-expired") {
                cursor.next = channel.skip_expired(cursor.next, now);
            }
            channel.log.next() > cursor.next
        })
    }

    /// Returns whether a poll with news can be answered now: it has messages from before a window,
    /// or needs none. Otherwise orders those of one channel. A poll does not wait for several of
    /// its channels: while it waited for a page of one, other readers would replace that of
    /// another, for ever.
    pub(super) fn is_poll_ready(&mut self, key: u32) -> bool {
        let (now, mut wanted, mut has_older) = (self.now, None, false);
        for cursor in self.subscribers[key as usize].cursors() {
            let channel = &self.channels[cursor.channel as usize];
            if channel.must_fetch(cursor.next, now) {
                wanted = wanted.or(Some((cursor.channel, cursor.next)));
            } else {
                has_older |= cursor.next < channel.log.first();
            }
        }
        match wanted {
            Some((channel, next)) if !has_older || fault!("poll-waits-for-all-channels") => {
                !self.fetch_for(channel, Waiter::Subscriber(key), next)
            }
            _ => true,
        }
    }

    /// Delivers the new messages of a channel to all its subscribers.
    pub(super) fn deliver_channel(&mut self, key: u32, sink: &mut impl Sink) {
        let Some(channel) = self.channels.get_mut(key as usize) else { return };
        channel.dirty = false;
        let announced = channel.rare_if_any().map_or(Vec::new(), |rare| std::mem::take(&mut rare.announced));
        channel.slim();
        let mut members = std::mem::take(&mut channel.subscribers);
        let count = members.len();
        let limit = self.batch_limit();
        let mut batches = Batches::new(limit);
        let mut replies = ReplyCache::new(limit);
        // The subscribers that wait for messages that are not in memory.
        let mut behind = Vec::new();
        // The loop goes backward: a subscriber that moves into the place of a removed one has had
        // its turn.
        for place in (0..members.len()).rev() {
            let member = members[place];
            let subscriber = &mut self.subscribers[member as usize];
            if !subscriber.is(Flags::STARTED) {
                continue;
            }
            if subscriber.only_channel().is_some() {
                feed_one(subscriber, &self.channels[key as usize], &mut self.encoded, &mut batches, sink);
                if !subscriber.is(Flags::BLOCKED) && subscriber.cursor < self.channels[key as usize].log.next() {
                    behind.push((member, subscriber.cursor));
                }
            } else if !subscriber.format.is_stream() && subscriber.cursors().len() == 1 {
                if !self.answer_one(member, &announced, &mut replies, &mut behind, sink) {
                    continue;
                }
                members.swap_remove(place);
                if let Some(moved) = members.get(place)
                    && !fault!("moved-keeps-old-place")
                {
                    self.subscribers[*moved as usize].set_place(key, place as u32);
                }
                self.forget(member);
            } else if !subscriber.is(Flags::DIRTY | Flags::BLOCKED) {
                subscriber.set(Flags::DIRTY);
                self.dirty_many.push(member);
            }
        }
        self.tally.add(batches.tally);
        self.tally.add(replies.tally);
        let channel = &mut self.channels[key as usize];
        if count > 0 {
            self.delivered.extend(channel.first_new());
        }
        if members.is_empty() {
            members = Vec::new();
            channel.left = self.now;
        }
        if members.len() != count {
            channel.mark_for_recount(key, &mut self.recount);
        }
        channel.subscribers = members;
        channel.flushed = channel.log.next();
        channel.spoken = self.now;
        for (member, next) in behind {
            self.fetch_for(key, Waiter::Subscriber(member), next);
        }
    }

    /// Answers a poll of one channel if there is something for it. Returns whether it did.
    fn answer_one(
        &mut self,
        key: u32,
        announced: &[Arc<str>],
        replies: &mut ReplyCache,
        behind: &mut Vec<(u32, u64)>,
        sink: &mut impl Sink,
    ) -> bool {
        let subscriber = &mut self.subscribers[key as usize];
        let [cursor] = subscriber.cursors_mut() else { return false };
        let channel = &self.channels[cursor.channel as usize];
        cursor.next = channel.skip_expired(cursor.next, self.now);
        let is_at_head = channel.log.next() == cursor.next;
        let next = cursor.next;
        if channel.must_fetch(next, self.now) {
            behind.push((key, next));
            return false;
        }
        let rules = self.limits.encoders.get(subscriber.format).rules();
        let announced = if rules.takes_announcements { announced } else { &[] };
        let announcements = announcements_for(subscriber, channel, announced);
        if is_at_head && announcements.is_empty() {
            return false;
        }
        let Some(reply) = reply_of_one(subscriber, channel, &mut self.encoded, &announcements, replies) else {
            // The new messages are not kept any more, and the protocol cannot report that.
            for cursor in subscriber.cursors_mut() {
                cursor.next = channel.log.next();
            }
            return false;
        };
        sink.answer(subscriber.peer, subscriber.format, reply);
        true
    }

    /// Delivers to a subscriber of several channels their new messages.
    pub(super) fn deliver_many(&mut self, key: u32, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get_mut(key as usize) else { return };
        if !fault!("fed-only-once") {
            subscriber.clear(Flags::DIRTY);
        }
        if subscriber.format.is_stream() {
            self.feed_stream(key, sink);
        } else if self.has_news(key) && self.is_poll_ready(key) {
            self.answer_poll(key, &[], sink);
        }
    }

    /// Delivers to a stream the new messages of its channels, as far as its connection accepts
    /// them.
    pub(super) fn feed_stream(&mut self, key: u32, sink: &mut impl Sink) {
        let limit = self.batch_limit();
        let subscriber = &mut self.subscribers[key as usize];
        match subscriber.only_channel() {
            Some(channel) => {
                let channel_state = &self.channels[channel as usize];
                let mut batches = Batches::new(limit);
                feed_one(subscriber, channel_state, &mut self.encoded, &mut batches, sink);
                self.tally.add(batches.tally);
                if !subscriber.is(Flags::BLOCKED) && subscriber.cursor < channel_state.log.next() {
                    let next = subscriber.cursor;
                    self.fetch_for(channel, Waiter::Subscriber(key), next);
                }
            }
            None => self.feed_many(key, sink),
        }
    }

    /// Delivers to a stream of several channels what is new. The channels take turns, a batch each,
    /// so that a busy channel does not block the others.
    fn feed_many(&mut self, key: u32, sink: &mut impl Sink) {
        let limit = self.batch_limit();
        let subscriber = &mut self.subscribers[key as usize];
        if !subscriber.format.is_stream() {
            return;
        }
        wait_for_turn(subscriber, limit, sink);
        let (mut behind, mut batches) = (Vec::new(), Batches::new(limit));
        // The number of successive channels that had nothing to deliver.
        let mut passed = 0;
        while passed < subscriber.cursors().len() && !subscriber.is(Flags::BLOCKED) {
            let turn = subscriber.take_turn();
            let index = if fault!("first-channel-always-first") { passed } else { turn };
            let cursor = &mut subscriber.cursors_mut()[index];
            let channel = &self.channels[cursor.channel as usize];
            cursor.next = channel.skip_expired(cursor.next, limit.now);
            if channel.must_fetch(cursor.next, limit.now) {
                behind.push((cursor.channel, cursor.next));
                passed += 1;
                continue;
            }
            if cursor.next >= channel.log.next() {
                passed += 1;
                continue;
            }
            passed = 0;
            let chunks = next_events(subscriber, index, &self.channels, &mut self.encoded, &mut batches);
            if chunks.is_empty() {
                continue;
            }
            subscriber.set(Flags::SPOKEN);
            if !sink.stream(subscriber.peer, &chunks) {
                subscriber.set(Flags::BLOCKED);
            }
        }
        self.tally.add(batches.tally);
        for (channel, next) in behind {
            self.fetch_for(channel, Waiter::Subscriber(key), next);
        }
    }

    /// Returns the limit of what a subscriber is given now.
    pub(super) fn batch_limit(&self) -> BatchLimit {
        BatchLimit { bytes_max: self.limits.batch_bytes_max, now: self.now }
    }

    /// Returns the position of a subscriber in each of its channels.
    pub(super) fn spots(&self, cursors: &[ChannelCursor]) -> Vec<Spot> {
        spots(&self.channels, cursors)
    }
}

/// Blocks one of several subscribers of a connection if the others have left no room for it. A
/// connection that keeps up has little queued: perhaps no more than a response of this tick.
fn wait_for_turn(subscriber: &mut Subscriber, limit: BatchLimit, sink: &impl Sink) {
    let is_first_of_several = subscriber.is(Flags::SHARES) && !fault!("url-subscription-does-not-wait");
    let is_one_of_several = is_first_of_several || subscriber.label().is_some();
    let queued_max = if fault!("any-queued-byte-holds-up") { 0 } else { limit.bytes_max };
    if is_one_of_several && sink.queued(subscriber.peer) > queued_max && !fault!("added-subscription-ignores-queue") {
        subscriber.set(Flags::BLOCKED);
    }
}

/// Returns the next events of one channel for a stream of several channels: a gap, or a batch of
/// messages.
fn next_events(
    subscriber: &mut Subscriber,
    index: usize,
    channels: &Slab<Channel>,
    encoded: &mut Encoded,
    batches: &mut Batches,
) -> Vec<Bytes> {
    let (format, label) = (subscriber.format, subscriber.label());
    let encoder = encoded.encoder(format);
    let cursor = &mut subscriber.cursors_mut()[index];
    let channel = &channels[cursor.channel as usize];
    let available_from = channel.available_from(cursor.next);
    if cursor.next < available_from {
        let missed = Missed(Some(available_from - cursor.next));
        batches.tally.note_gap(channel.cause_of_gap(cursor.next), missed.0);
        cursor.next = available_from;
        let gap = gap(channel, missed, cursor.next);
        let position = spots(channels, subscriber.cursors());
        return gap_event(encoder, format, label, gap, &position).into_iter().collect();
    }
    let Batch { chunks: items, numbers, to, .. } =
        channel.batch(encoded, cursor.next, format.of_items(), batches.limit);
    batches.tally.deliveries += numbers.len() as u64;
    cursor.next = to;
    let mut spots = spots(channels, subscriber.cursors());
    let events = numbers.into_iter().zip(&items).flat_map(|(number, item)| {
        spots[index].next = number + 1;
        encoder.event_around(format, label, &spots, item)
    });
    events.collect()
}

/// Delivers to a stream of one channel its new messages.
fn feed_one(
    subscriber: &mut Subscriber,
    channel: &Channel,
    encoded: &mut Encoded,
    batches: &mut Batches,
    sink: &mut impl Sink,
) {
    let format = subscriber.format;
    if !format.is_stream() {
        return;
    }
    wait_for_turn(subscriber, batches.limit, sink);
    while subscriber.cursor < channel.log.next() && !subscriber.is(Flags::BLOCKED) {
        let available_from = channel.available_from(subscriber.cursor);
        let all_taken = if subscriber.cursor < available_from {
            let missed = Missed(Some(available_from - subscriber.cursor));
            batches.tally.note_gap(channel.cause_of_gap(subscriber.cursor), missed.0);
            subscriber.cursor = available_from;
            let gap = gap(channel, missed, subscriber.cursor);
            match gap_event(encoded.encoder(format), format, None, gap, &[gap.spot]) {
                Some(event) => sink.stream(subscriber.peer, &[event]),
                None => continue,
            }
        } else {
            if channel.must_fetch(subscriber.cursor, batches.limit.now) {
                return;
            }
            let (chunks, to) = batches.find(channel, encoded, format, subscriber.cursor);
            subscriber.cursor = to + u64::from(chunks.len() > 2 && fault!("cursor-one-too-far"));
            if chunks.is_empty() {
                continue;
            }
            sink.stream(subscriber.peer, chunks)
        };
        subscriber.set(Flags::SPOKEN);
        if !all_taken {
            subscriber.set(Flags::BLOCKED);
        }
    }
}

/// Moves a cursor past messages that were dropped or cannot be read. Returns the number of messages
/// missed, if that is to be reported: a reader from the oldest message on misses none that was
/// dropped.
pub(super) fn fall_off(channel: &Channel, cursor: &mut ChannelCursor) -> Option<(Missed, GapCause)> {
    let begin = if cursor.is_from_oldest { cursor.next.max(channel.kept_from) } else { cursor.next };
    let (available_from, cause) = (channel.available_from(cursor.next), channel.cause_of_gap(cursor.next));
    cursor.next = available_from;
    let missed = available_from.checked_sub(begin).filter(|missed| *missed > 0)?;
    (!fault!("no-gap-for-fallen-reader")).then_some((Missed(Some(missed)), cause))
}

/// Returns a gap before message `next`.
pub(super) fn gap(channel: &Channel, missed: Missed, next: u64) -> Gap<'_> {
    Gap { channel: &channel.name, missed, spot: channel.spot(next) }
}

/// Returns the event that reports a gap, if the protocol has one.
fn gap_event(
    encoder: &dyn Encoder,
    format: Format,
    label: Option<Label>,
    gap: Gap<'_>,
    position: &[Spot],
) -> Option<Bytes> {
    let mut event = Vec::new();
    encoder.write_event(format, label, &StreamEvent::Gap { gap, position }, &mut event);
    (!event.is_empty()).then(|| event.into())
}

/// Returns the position of a subscriber in each of its channels.
pub(super) fn spots(channels: &Slab<Channel>, cursors: &[ChannelCursor]) -> Vec<Spot> {
    cursors.iter().map(|cursor| channels[cursor.channel as usize].spot(cursor.next)).collect()
}
