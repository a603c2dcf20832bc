//! A channel as one loop sees it: a window of its newest messages, which the loop shares with the
//! channel's shard.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sealed::fault;

use super::encoded::Encoded;
use super::encoder::{Encoder, Format, PlacedMessage, Resolved};
use super::older::Older;
use super::presence::Members;
use super::subscriber::{ChannelCursor, StartAt};
use crate::config::rules::RuleId;
use crate::core::message::{ChannelName, Message};
use crate::core::position::{Epoch, Spot};
use crate::core::tally::{GapCause, HubTally};
use crate::core::time::UnixMillis;
use crate::core::window::MessageLog;
use crate::engine::{Order, Window};

/// The maximum number of chunks in one write.
const CHUNKS_MAX: usize = 60;

/// The time for which a loop follows a pattern, or a channel in which nothing was published,
/// without readers.
const SHORT_LINGER: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: ChannelName,
    /// The rule that limits its subscribers: for a pattern, the strictest rule of its channels.
    pub(super) crowd_rule: RuleId,
    /// `None` until the engine has opened the channel.
    epoch: Option<Epoch>,
    /// The window: the newest messages, which the shard has in memory.
    pub(super) log: MessageLog<Arc<Message>>,
    /// The number of the oldest message kept, in the window or before it.
    pub(super) kept_from: u64,
    /// State that few channels have at a time.
    rare: Option<Box<Rare>>,
    /// The keys of its subscribers, in no order.
    pub(super) subscribers: Vec<u32>,
    /// The head at the last flush. Subscribers that keep up have this cursor.
    pub(super) flushed: u64,
    /// The time of the last delivery to its subscribers.
    pub(super) spoken: UnixMillis,
    /// Set while `Hub::dirty` lists the channel.
    pub(super) dirty: bool,
    /// The number of subscribers that was last reported to its shard.
    pub(super) reported: u32,
    /// Set while `Hub::recount` lists the channel.
    pub(super) recounting: bool,
    /// The time at which a reader last left.
    pub(super) left: UnixMillis,
    /// The members that read it on this loop, each with its number of connections.
    pub(super) members: Option<Box<Members>>,
}

/// State that few channels have at a time.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// The keys of subscribers that wait to start in this channel; some may have left since.
    pub(super) starting: Vec<u32>,
    /// The names that were announced since the last flush.
    pub(super) announced: Vec<Arc<str>>,
    /// The number of `CatchUp` orders sent.
    pub(super) syncs_asked: u32,
    /// The number of `CatchUp` orders answered.
    pub(super) syncs: u32,
    /// Set while the engine does not know what is published.
    pub(super) is_interrupted: bool,
    /// A page of messages before the window, and the readers that wait for pages.
    pub(super) older: Option<Older>,
}

impl Rare {
    fn is_needed(&self) -> bool {
        let is_waited_for = !self.starting.is_empty() || self.syncs != self.syncs_asked;
        is_waited_for || !self.announced.is_empty() || self.is_interrupted || self.older.is_some()
    }
}

/// A limit of what a subscriber is given at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimit {
    pub(super) bytes_max: usize,
    pub(super) now: UnixMillis,
}

impl Channel {
    pub(super) fn attaching(name: ChannelName, crowd_rule: RuleId, now: UnixMillis) -> Self {
        Self {
            name,
            crowd_rule,
            epoch: None,
            log: MessageLog::starting_at(0),
            kept_from: 0,
            rare: None,
            subscribers: Vec::new(),
            flushed: 0,
            spoken: UnixMillis::default(),
            dirty: false,
            reported: 0,
            recounting: false,
            left: now,
            members: None,
        }
    }

    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Returns the rare state, if the channel has it.
    pub(super) fn rare_if_any(&mut self) -> Option<&mut Rare> {
        self.rare.as_deref_mut()
    }

    /// Drops the rare state if it is not needed any more.
    pub(super) fn slim(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| !rare.is_needed()) {
            self.rare = None;
        }
    }

    fn older(&self) -> Option<&Older> {
        self.rare.as_ref()?.older.as_ref()
    }

    /// Marks the channel, so that its number of subscribers is reported to its shard at the end of
    /// the tick.
    pub(super) fn mark_for_recount(&mut self, key: u32, recount: &mut Vec<u32>) {
        if !std::mem::replace(&mut self.recounting, true) {
            recount.push(key);
        }
    }

    /// Returns how long this loop follows the channel without readers. The time is short for a
    /// pattern, and for a channel in which nothing was published, because opening it again costs
    /// little.
    pub(super) fn linger(&self, longest: Duration) -> Duration {
        let is_cheap_to_reopen = self.log.next() == 0 || self.name.is_pattern();
        if is_cheap_to_reopen { longest.min(SHORT_LINGER) } else { longest }
    }

    pub(super) fn is_attached(&self) -> bool {
        self.epoch.is_some()
    }

    /// Returns whether its shard accepts orders about it. A shard drops all orders about a channel
    /// that it has not opened, which it may refuse to do.
    pub(super) fn takes_orders(&self) -> bool {
        self.is_attached() || fault!("orders-ahead-of-channel")
    }

    /// Replaces the window.
    pub(super) fn attach(&mut self, window: Window) {
        let Window { epoch, kept_from, first, entries } = window;
        self.epoch = Some(epoch);
        self.kept_from = if fault!("window-taken-for-history") { first } else { kept_from };
        if let Some(rare) = &mut self.rare {
            rare.older = None;
        }
        self.log = MessageLog::starting_at(first);
        self.push_all(entries);
        self.flushed = self.log.next();
    }

    pub(super) fn append(&mut self, first: u64, entries: Vec<Arc<Message>>, kept_from: u64) {
        debug_assert!(first >= self.log.next(), "the shard sends each message once, in order");
        if first > self.log.next() {
            // The shard dropped messages from its window before it sent them to this loop.
            self.log.drop_before(first, drop);
            self.kept_from = self.kept_from.max(kept_from.min(first));
        }
        self.push_all(entries);
    }

    /// Drops messages that the shard has dropped, or no longer has in memory.
    pub(super) fn truncate(&mut self, kept_from: u64, window_from: u64) {
        self.kept_from = self.kept_from.max(kept_from);
        self.log.drop_before(window_from.min(self.log.next()), drop);
    }

    /// Returns the spot before message `next`.
    pub(super) fn spot(&self, next: u64) -> Spot {
        debug_assert!(self.is_attached());
        Spot { epoch: self.epoch.unwrap_or(Epoch(0)), next }
    }

    /// Returns whether a start is beyond what this loop knows. The channel's shard may know it:
    /// other loops may be ahead of this one by the mail in transit. Nothing is known of a channel
    /// that is not open yet.
    pub(super) fn is_behind(&self, start: StartAt, encoder: &dyn Encoder) -> bool {
        match start {
            _ if fault!("unheard-position-is-gap") => false,
            StartAt::Latest | StartAt::Oldest | StartAt::Last(_) => false,
            StartAt::After(spot) => self.is_behind_spot(spot),
            StartAt::Number(number) => match encoder.resolve(number, self.log.next()) {
                Resolved::NotYet => self.takes_orders(),
                Resolved::Message(_) | Resolved::Nothing => false,
            },
        }
    }

    /// Returns whether a subscriber can start in this channel.
    pub(super) fn is_ready_for(&self, cursor: &ChannelCursor) -> bool {
        self.is_caught_up(cursor.syncs)
    }

    /// Returns whether a spot is beyond what this loop knows.
    pub(super) fn is_behind_spot(&self, spot: Spot) -> bool {
        self.takes_orders() && (Some(spot.epoch) != self.epoch || spot.next > self.log.next())
    }

    /// Orders the messages that this loop does not have yet, and returns the number of the order.
    pub(super) fn catch_up(&mut self, orders: &mut Vec<Order>) -> u32 {
        orders.push(Order::CatchUp { channel: self.name.clone() });
        let rare = self.rare_mut();
        rare.syncs_asked += 1;
        rare.syncs_asked
    }

    /// Returns the number that the next `CatchUp` order will have.
    pub(super) fn next_sync(&self) -> u32 {
        self.rare.as_ref().map_or(0, |rare| rare.syncs_asked) + 1
    }

    /// Returns whether the channel is open and `CatchUp` order `syncs` is answered. `syncs` is 0
    /// for a reader that waits for no order.
    pub(super) fn is_caught_up(&self, syncs: u32) -> bool {
        // While the channel is interrupted, the answer may be out of date.
        let is_current = |rare: &Rare| !rare.is_interrupted && rare.syncs >= syncs;
        self.is_attached() && (syncs == 0 || self.rare.as_deref().is_some_and(is_current))
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Returns a message in one format.
    fn encoded(&self, encoded: &mut Encoded, number: u64, format: Format) -> Option<Bytes> {
        let message = self.entry(number)?;
        let placed = PlacedMessage { channel: &self.name, spot: self.spot(number + 1), message };
        Some(encoded.encode(format, &placed))
    }

    /// Returns messages from number `from` on in one format: at least one, and no more than the
    /// limit's bytes. Expired messages are skipped.
    pub(super) fn batch(&self, encoded: &mut Encoded, from: u64, format: Format, limit: BatchLimit) -> Batch {
        let from = self.available_from(from);
        let mut batch = Batch { format, from, chunks: Vec::new(), numbers: Vec::new(), to: from };
        let mut bytes = 0;
        loop {
            if !fault!("expired-delivered") {
                batch.to = self.skip_expired(batch.to, limit.now);
            }
            let Some(chunk) = self.encoded(encoded, batch.to, format) else { break };
            let is_full = bytes + chunk.len() > limit.bytes_max || batch.chunks.len() == CHUNKS_MAX;
            if !batch.chunks.is_empty() && is_full {
                break;
            }
            bytes += chunk.len();
            batch.chunks.push(chunk);
            batch.numbers.push(batch.to);
            batch.to += 1;
        }
        batch
    }

    /// Returns a message that is in memory.
    pub(super) fn entry(&self, number: u64) -> Option<&Arc<Message>> {
        self.log.entry(number).or_else(|| self.older()?.entry(number))
    }

    /// Returns the number of the first message from number `number` on that has not been dropped
    /// and, as far as this loop knows, can be read.
    pub(super) fn available_from(&self, number: u64) -> u64 {
        let number = number.max(self.kept_from);
        self.older().and_then(|older| older.unreadable_to(number)).unwrap_or(number)
    }

    /// Returns the cause of the gap before [`available_from`](Self::available_from).
    pub(super) fn cause_of_gap(&self, number: u64) -> GapCause {
        let number = number.max(self.kept_from);
        let is_unreadable = self.older().is_some_and(|older| older.unreadable_to(number).is_some());
        if is_unreadable { GapCause::Unreadable } else { GapCause::Slow }
    }

    /// Returns the time of the first message that was not delivered before.
    pub(super) fn first_new(&self) -> Option<UnixMillis> {
        self.log.entry(self.flushed.max(self.log.first())).map(|message| message.time())
    }

    /// Returns the time of the next message for a reader whose cursor is `number`.
    pub(super) fn waits_since(&self, number: u64) -> UnixMillis {
        self.entry(number).map_or(UnixMillis::MAX, |message| message.time())
    }

    /// Returns whether a reader whose cursor is `number` has to wait for its next message, because
    /// that is kept but not in memory.
    pub(super) fn must_fetch(&self, number: u64, now: UnixMillis) -> bool {
        if fault!("dropped-message-not-fetched") && number < self.kept_from {
            return false;
        }
        let number = self.available_from(number);
        if number >= self.log.first() {
            return false;
        }
        let number = self.skip_expired(number, now);
        number < self.log.first() && self.older().is_none_or(|older| !older.covers(number))
    }

    /// Returns the number of the oldest of the last `count` messages. Expired messages do not
    /// count, unless they are older than the window.
    pub(super) fn last(&self, count: u64, now: UnixMillis) -> u64 {
        let living = self.log.back().filter(|(_, message)| !message.is_expired(now));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (in_memory, oldest) = living.take(count).fold((0, self.log.next()), |(counted, newer), (number, _)| {
            let keeps = counted > 0 && fault!("counted-from-wrong-end");
            (counted + 1, if keeps { newer } else { number })
        });
        let before = (count - in_memory) as u64;
        if before == 0 { oldest } else { self.log.first().saturating_sub(before).max(self.kept_from).min(oldest) }
    }

    /// Returns the first number from `from` on whose message has not expired.
    pub(super) fn skip_expired(&self, from: u64, now: UnixMillis) -> u64 {
        let mut number = from;
        loop {
            let is_skipped = if let Some(message) = self.entry(number) {
                message.is_expired(now)
            } else {
                // A message that is missing in a page has expired, unless it was dropped.
                let is_older = (self.kept_from..self.log.first()).contains(&number);
                is_older && self.older().is_some_and(|older| older.covers(number))
            };
            if !is_skipped {
                return number;
            }
            number += 1;
        }
    }

    fn push_all(&mut self, entries: Vec<Arc<Message>>) {
        for message in entries {
            self.log.push(message);
        }
    }
}

/// The batches that a flush has made for the subscribers of a channel. Most subscribers are at the
/// same message and get the same bytes.
#[derive(Debug)]
pub(super) struct Batches {
    pub(super) limit: BatchLimit,
    made: Vec<Batch>,
    /// What its subscribers were given.
    pub(super) tally: HubTally,
}

/// Messages in one format.
#[derive(Debug)]
pub(super) struct Batch {
    format: Format,
    from: u64,
    pub(super) chunks: Vec<Bytes>,
    /// The number of each message.
    pub(super) numbers: Vec<u64>,
    /// The number after the last message.
    pub(super) to: u64,
}

impl Batches {
    /// The maximum number of batches kept. Further batches replace the last one.
    const KEPT_MAX: usize = 8;

    pub(super) fn new(limit: BatchLimit) -> Self {
        Self { limit, made: Vec::new(), tally: HubTally::default() }
    }

    /// Returns the chunks from number `from` on for a subscriber, and the number after them.
    pub(super) fn find(
        &mut self,
        channel: &Channel,
        encoded: &mut Encoded,
        format: Format,
        from: u64,
    ) -> (&[Bytes], u64) {
        let found = self.made.iter().position(|batch| batch.from == from && batch.format == format);
        let index = found.unwrap_or_else(|| {
            let mut batch = channel.batch(encoded, from, format, self.limit);
            // Many subscribers get this batch: for each, one chunk is cheaper than several.
            if from == channel.flushed && batch.chunks.len() > 1 {
                batch.chunks = vec![concat(&batch.chunks)];
            }
            if self.made.len() == Self::KEPT_MAX {
                self.made.pop();
            }
            self.made.push(batch);
            self.made.len() - 1
        });
        self.tally.deliveries += self.made[index].numbers.len() as u64;
        (&self.made[index].chunks, self.made[index].to)
    }
}

fn concat(chunks: &[Bytes]) -> Bytes {
    let mut all = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        all.extend_from_slice(chunk);
    }
    all.freeze()
}
