//! Replies to polls, and to subscriptions that are refused before they start.

use std::sync::Arc;

use bytes::Bytes;
use sealed::fault;

use super::channel::{BatchLimit, Channel};
use super::deliver::{fall_off, gap, spots};
use super::encoded::Encoded;
use super::encoder::{Announcement, Format, Item, PollOutcome, RefusedSubscription};
use super::subscriber::{ChannelCursor, SubscribeRequest, Subscriber};
use super::{Hub, PollReply, Sink};
use crate::core::message::ChannelName;
use crate::core::problem::Problem;
use crate::core::tally::HubTally;

/// The replies that a flush has made for polls of one channel. Most polls have the same cursor, and
/// get the same bytes.
#[derive(Debug)]
pub(super) struct ReplyCache {
    limit: BatchLimit,
    /// Each reply with what it gives a poll.
    made: Vec<(ReplyKey, PollReply, HubTally)>,
    /// What the polls were given.
    pub(super) tally: HubTally,
}

/// The parts of a poll that determine a shared reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ReplyKey {
    format: Format,
    from: u64,
    /// No gap is reported to a reader that asked for the oldest message.
    is_from_oldest: bool,
}

impl ReplyCache {
    /// The maximum number of replies kept.
    const KEPT_MAX: usize = 8;

    pub(super) fn new(limit: BatchLimit) -> Self {
        Self { limit, made: Vec::new(), tally: HubTally::default() }
    }

    fn find(&mut self, key: ReplyKey) -> Option<PollReply> {
        let (_, reply, given) = self.made.iter().find(|(held, ..)| *held == key)?;
        if !fault!("shared-reply-counted-once") {
            self.tally.add(*given);
        }
        Some(reply.clone())
    }

    fn keep(&mut self, key: ReplyKey, reply: &PollReply, given: HubTally) {
        if self.made.len() < Self::KEPT_MAX {
            self.made.push((key, reply.clone(), given));
        }
    }
}

impl Hub {
    /// Answers a poll with `items` and what is new, and removes it.
    pub(super) fn answer_poll(&mut self, key: u32, items: &[Item<'_>], sink: &mut impl Sink) {
        if let Some(reply) = self.poll_reply(key, items) {
            self.conclude(key, reply, sink);
        }
    }

    /// Returns a poll's reply: `items`, and what is new.
    pub(super) fn poll_reply(&mut self, key: u32, items: &[Item<'_>]) -> Option<PollReply> {
        let limit = self.batch_limit();
        let subscriber = &mut self.subscribers[key as usize];
        if let ([cursor], []) = (subscriber.cursors(), items) {
            let channel = &self.channels[cursor.channel as usize];
            let mut replies = ReplyCache::new(limit);
            let reply = reply_of_one(subscriber, channel, &mut self.encoded, &[], &mut replies);
            self.tally.add(replies.tally);
            return reply;
        }
        let format = subscriber.format;
        let details = subscriber.details.as_deref_mut()?;
        let mut given = HubTally::default();
        let mut items = items.to_vec();
        for cursor in &mut details.cursors {
            let channel = &self.channels[cursor.channel as usize];
            if let Some((missed, cause)) = fall_off(channel, cursor) {
                given.note_gap(cause, missed.0);
                items.push(Item::Gap(gap(channel, missed, cursor.next)));
            }
        }
        let mut room = limit.bytes_max;
        let mut cursors: Vec<&mut ChannelCursor> = details.cursors.iter_mut().collect();
        // There may not be room for all: the channels whose next message is the oldest come first,
        // so that a busy channel does not block the others.
        if !fault!("poll-of-busy-channel-alone") {
            cursors.sort_by_key(|cursor| self.channels[cursor.channel as usize].waits_since(cursor.next));
        }
        for cursor in cursors {
            let channel = &self.channels[cursor.channel as usize];
            if room > 0 && cursor.next < channel.log.next() {
                let limit = BatchLimit { bytes_max: room, ..limit };
                let batch = channel.batch(&mut self.encoded, cursor.next, format.of_items(), limit);
                cursor.next = if fault!("poll-skips-the-rest") { channel.log.next() } else { batch.to };
                room = room.saturating_sub(batch.chunks.iter().map(Bytes::len).sum());
                given.deliveries += batch.chunks.len() as u64;
                items.extend(batch.chunks.into_iter().map(Item::Message));
            }
        }
        let position = spots(&self.channels, &details.cursors);
        let outcome = PollOutcome::Items { items: &items, announcements: &[], position: &position };
        let body = self.limits.encoders.get(format).reply(details.target.as_deref(), &outcome)?;
        self.tally.add(given);
        Some(PollReply::Encoded(body))
    }

    /// Answers a poll and removes it.
    pub(super) fn conclude(&mut self, key: u32, reply: PollReply, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get(key as usize) else { return };
        let (peer, format) = (subscriber.peer, subscriber.format);
        self.leave(key);
        sink.answer(peer, format, reply);
    }

    /// Ends a poll whose name another subscriber has taken.
    pub(super) fn displace(&mut self, key: u32, sink: &mut impl Sink) {
        let subscriber = &self.subscribers[key as usize];
        let encoder = self.limits.encoders.get(subscriber.format);
        let body = encoder.reply(subscriber.target(), &PollOutcome::Displaced).unwrap_or_default();
        self.conclude(key, PollReply::Encoded(body), sink);
    }

    /// Returns the answer to a subscription that is refused.
    pub(crate) fn refuse(&self, subscription: &SubscribeRequest, problem: Problem) -> PollReply {
        let SubscribeRequest { channels, delivery, .. } = subscription;
        match channels.first() {
            Some((channel, _)) => self.refusal(delivery.format, channel, delivery.target.as_deref(), problem),
            None => PollReply::Refused { problem, target: None, body: None },
        }
    }

    /// Returns the refusal of a subscriber that has not received anything yet.
    pub(super) fn refusal(
        &self,
        format: Format,
        channel: &ChannelName,
        target: Option<&str>,
        problem: Problem,
    ) -> PollReply {
        self.limits.encoders.get(format).refusal(format, &RefusedSubscription { problem, channel, target })
    }
}

/// Returns the announced names other than the subscriber's own.
pub(super) fn announcements_for<'a>(
    subscriber: &Subscriber,
    channel: &'a Channel,
    announced: &'a [Arc<str>],
) -> Vec<Announcement<'a>> {
    let own = subscriber.details.as_ref().and_then(|details| details.name.as_ref());
    let others = announced.iter().filter(|name| own != Some(*name));
    others.map(|name| Announcement { channel: &channel.name, next: channel.flushed, name }).collect()
}

/// Returns the reply to a poll of one channel, if its protocol has a reply for what is new.
pub(super) fn reply_of_one(
    subscriber: &mut Subscriber,
    channel: &Channel,
    encoded: &mut Encoded,
    announcements: &[Announcement<'_>],
    replies: &mut ReplyCache,
) -> Option<PollReply> {
    let format = subscriber.format;
    let encoder = encoded.encoder(format);
    let details = subscriber.details.as_deref_mut()?;
    let cursor = details.cursors.first_mut()?;
    let is_from_oldest = cursor.is_from_oldest && !fault!("gap-left-out-for-others");
    let key = ReplyKey { format, from: cursor.next, is_from_oldest };
    let is_shared = details.target.is_none() && announcements.is_empty();
    if let (true, Some(reply)) = (is_shared, replies.find(key)) {
        return Some(reply);
    }
    let (mut items, mut given) = (Vec::new(), HubTally::default());
    if let Some((missed, cause)) = fall_off(channel, cursor) {
        given.note_gap(cause, missed.0);
        items.push(Item::Gap(gap(channel, missed, cursor.next)));
    }
    let bytes_max = if encoder.rules().has_one_message_per_poll { 1 } else { replies.limit.bytes_max };
    let limit = BatchLimit { bytes_max, ..replies.limit };
    let batch = channel.batch(encoded, cursor.next, format.of_items(), limit);
    cursor.next = batch.to;
    given.deliveries += batch.chunks.len() as u64;
    items.extend(batch.chunks.into_iter().map(Item::Message));
    let outcome = PollOutcome::Items { items: &items, announcements, position: &[channel.spot(batch.to)] };
    let reply = encoder.reply(details.target.as_deref(), &outcome).map(PollReply::Encoded)?;
    replies.tally.add(given);
    if is_shared {
        replies.keep(key, &reply, given);
    }
    Some(reply)
}
