//! Patterns of channels, such as `news.*`. A pattern that has readers is a channel of its own, to
//! which every shard forwards the messages of its matching channels.
//!
//! So a pattern has numbers, a history and an epoch like any channel, and its reader has one cursor
//! and resumes without gap or repeat, regardless of the number of matching channels and the times
//! of their creation. A pattern starts with the messages that the shards have in memory when its
//! first subscriber arrives, and is removed like any idle channel.
//!
//! A shard searches for these messages over several ticks (`work.rs`), channel by channel in the
//! order of their slots. Messages that are published meanwhile in a channel already visited are
//! forwarded at once; in others, the search finds them. So no message is sent twice or left out. A
//! search holds no more messages than the pattern's channel keeps. Messages that only the store
//! keeps are not found; channels that are opened while a pattern has readers are in memory, but
//! their earlier messages are not forwarded.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sealed::fault;

use super::work::Task;
use super::{ChannelState, Shard};
use crate::core::message::{ChannelName, Message};
use crate::core::pattern::Pattern;
use crate::core::position::Spot;
use crate::core::time::UnixMillis;
use crate::core::window::HistoryLimits;
use crate::engine::peer::{Parcel, PatternMessage, ToShard};
use crate::engine::{Refusal, Tick};

/// The additional state of a pattern's channel on its own shard.
#[derive(Debug)]
pub(super) struct PatternChannel {
    /// The lifetime of the pattern, counted on this shard.
    pub(super) run: u64,
    /// The number of shards that have not sent their backfill yet.
    pub(super) missing: usize,
    /// The backfills, each message with the time by which messages are sorted.
    pub(super) backfilled: Vec<(UnixMillis, Arc<Message>)>,
    /// Messages published since the pattern started, which wait for the backfills.
    pub(super) held: VecDeque<Arc<Message>>,
    pub(super) held_bytes: usize,
    /// Set if some of these were dropped. Then the older messages must be dropped too; otherwise
    /// there would be a hole.
    pub(super) is_feed_truncated: bool,
    /// Loops that wait to follow the channel.
    attaching: Vec<usize>,
}

/// A pattern to which a shard forwards messages.
#[derive(Debug)]
pub(super) struct PatternFeed {
    pub(super) name: ChannelName,
    pub(super) pattern: Pattern,
    /// The shard of the pattern's channel.
    pub(super) to: usize,
    /// The lifetime of the pattern there.
    pub(super) run: u64,
    /// Messages to forward.
    pub(super) feed: Vec<Arc<Message>>,
    /// The search for the backfill, until it is complete.
    filling: Option<Box<Backfill>>,
}

impl PatternFeed {
    /// Adds a message to forward, unless the search will find it.
    fn note(&mut self, key: usize, message: impl FnOnce() -> Arc<Message>) {
        if self.filling.as_ref().is_none_or(|filling| !filling.will_look_at(key) && !fault!("looked-at-not-fed")) {
            self.feed.push(message());
        }
    }
}

/// The search of a shard for the messages with which a pattern starts.
#[derive(Debug)]
struct Backfill {
    limits: HistoryLimits,
    /// The slot to visit next.
    next_slot: usize,
    /// The end of the slab when the search began.
    end: usize,
    /// The progress within the channel of that slot.
    within: Option<Within>,
    /// The newest messages found, with the oldest of them on top.
    found: BinaryHeap<Reverse<Found>>,
}

/// How far back a channel was searched.
#[derive(Debug, Clone, Copy)]
struct Within {
    /// The number of the oldest message visited.
    number: u64,
    /// The time by which it is sorted.
    time: UnixMillis,
}

/// A message that the search has found.
#[derive(Debug)]
struct Found {
    /// The sort key: time, slot of the channel, and number.
    order: (UnixMillis, usize, u64),
    channel: ChannelName,
    spot: Spot,
    /// The time at which its own channel drops it.
    too_old: UnixMillis,
    message: Arc<Message>,
}

impl Found {
    fn gathered(&self) -> Arc<Message> {
        gathered(&self.message, &self.channel, self.spot, self.too_old)
    }
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Found {}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

impl Backfill {
    /// Returns whether the search has yet to visit the channel of a slot.
    fn will_look_at(&self, key: usize) -> bool {
        let is_ahead = key > self.next_slot || key == self.next_slot && self.within.is_none();
        key < self.end && is_ahead && !fault!("published-while-filling-twice")
    }

    /// Advances to the next slot.
    fn advance(&mut self) {
        self.next_slot += 1;
        self.within = None;
    }

    /// Visits the next older message of a channel. Returns whether still older messages may
    /// qualify.
    fn look(&mut self, channel: &ChannelState, kept_for: Duration, now: UnixMillis) -> bool {
        let before = self.within.map_or(channel.log.next(), |within| within.number);
        let Some((number, message)) = channel.log.before(before) else { return false };
        // Messages of one channel stay in order even if the calendar was set back.
        let newer = self.within.map_or(UnixMillis::MAX, |within| within.time);
        let time = message.time().min(newer);
        self.within = Some(Within { number, time });
        let order = (time, self.next_slot, number);
        let is_full = self.found.len() >= self.limits.messages_max;
        let is_older = is_full && self.found.peek().is_some_and(|Reverse(oldest)| order < oldest.order);
        if is_older || message.time() < now.minus(self.limits.kept_for.min(kept_for)) {
            return false;
        }
        if is_full {
            if fault!("pattern-begins-with-oldest") {
                return false;
            }
            self.found.pop();
        }
        let spot = Spot { epoch: channel.epoch, next: number + 1 };
        let found = Found {
            order,
            channel: channel.name.clone(),
            spot,
            too_old: too_old(message, kept_for),
            message: message.clone(),
        };
        self.found.push(Reverse(found));
        true
    }

    /// Returns the newest messages found, in order, as many as may be kept.
    fn into_found(self) -> Vec<Found> {
        let mut bytes = 0;
        // Sorted by `Reverse`: the newest come first.
        let sorted = self.found.into_sorted_vec().into_iter().map(|Reverse(found)| found);
        let kept = sorted.take_while(|found| {
            bytes += found.message.cost();
            bytes <= self.limits.bytes_max
        });
        let mut found: Vec<_> = kept.collect();
        found.reverse();
        found
    }
}

impl PatternChannel {
    /// Returns whether a loop waits until it is complete.
    pub(super) fn is_awaited(&self) -> bool {
        !self.attaching.is_empty()
    }
}

impl Shard {
    /// Handles a message of another shard about a pattern.
    pub(super) fn take_pattern(&mut self, from: usize, now: Tick, message: PatternMessage) {
        match message {
            PatternMessage::Follow { pattern, run } => self.follow(from, now, pattern, run),
            PatternMessage::Unfollow { pattern } => self.unfollow(from, &pattern),
            PatternMessage::Backfill { pattern, run, entries } => self.fill(now, &pattern, run, entries),
            PatternMessage::Feed { pattern, run, entries } => self.feed(now, &pattern, run, entries),
            PatternMessage::Forget { pattern } => self.forget(&pattern),
            PatternMessage::Break { pattern, run } => self.begin_pattern_anew(now, &pattern, run),
        }
    }

    fn send(&mut self, to: usize, message: PatternMessage) {
        self.outbox.push((to, Parcel::Shard(ToShard::Pattern(message))));
    }

    /// Asks all shards to forward messages of a pattern.
    pub(super) fn gather(&mut self, now: Tick, name: &ChannelName) -> Result<Box<PatternChannel>, Refusal> {
        let is_full = self.gatherings >= self.limits.patterns_max;
        if is_full && (fault!("unread-pattern-keeps-place") || !self.make_room(now, true)) {
            return Err(Refusal::PatternLimit);
        }
        self.gatherings += 1;
        self.last_run += 1;
        let run = self.last_run;
        let shards = self.shards();
        for to in 0..shards {
            self.send(to, PatternMessage::Follow { pattern: name.clone(), run });
        }
        Ok(Box::new(PatternChannel {
            run,
            missing: shards,
            backfilled: Vec::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            is_feed_truncated: false,
            attaching: Vec::new(),
        }))
    }

    /// Delays the attachment of a loop if some shards have not sent their backfill yet. Returns
    /// whether the loop waits.
    pub(super) fn defers_attaching(&mut self, key: usize, from: usize) -> bool {
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.missing > 0) else { return false };
        if !gathering.attaching.contains(&from) {
            gathering.attaching.push(from);
        }
        true
    }

    /// Removes a loop that waits to follow the channel.
    pub(super) fn stop_deferring(&mut self, key: usize, from: usize) {
        if let Some(gathering) = self.gathering_mut(key) {
            gathering.attaching.retain(|to| *to != from);
        }
    }

    /// Asks all shards to stop forwarding.
    pub(super) fn disperse(&mut self, name: &ChannelName) {
        self.gatherings -= 1;
        for to in 0..self.shards() {
            self.send(to, PatternMessage::Unfollow { pattern: name.clone() });
        }
    }

    /// Starts the search for a pattern, and forwards messages that are published from now on.
    pub(super) fn follow(&mut self, from: usize, now: Tick, name: ChannelName, run: u64) {
        let Some(pattern) = name.to_pattern() else { return };
        let filling = Backfill {
            limits: self.limits.rules.bounds(self.limits.rules.find(&name)).history,
            next_slot: 0,
            end: self.channels.capacity(),
            within: None,
            found: BinaryHeap::new(),
        };
        let filling = Some(Box::new(filling));
        self.store.follow_pattern(&name);
        self.followed.push(PatternFeed { name, pattern, to: from, run, feed: Vec::new(), filling });
        self.begin(now, Task::Fill { to: from, run });
    }

    /// Continues the search until this tick's work is used up. Returns whether it is complete.
    pub(super) fn fill_on(&mut self, now: Tick, to: usize, run: u64) -> bool {
        let mut all = self.followed.iter_mut();
        let Some(followed) = all.find(|followed| followed.to == to && followed.run == run) else { return true };
        let Some(mut filling) = followed.filling.take() else { return true };
        let rules = &self.limits.rules;
        while filling.next_slot < filling.end {
            if !self.work.has_units_left() {
                followed.filling = Some(filling);
                return false;
            }
            self.work.spend(1);
            let pattern = &followed.pattern;
            let is_meant = |channel: &&ChannelState| !channel.is_derived() && pattern.matches(channel.name.as_str());
            match self.channels.get(filling.next_slot).filter(is_meant) {
                Some(channel) if filling.look(channel, rules.bounds(channel.rule).history.kept_for, now.time) => {}
                _ => filling.advance(),
            }
        }
        let (pattern, found) = (followed.name.clone(), filling.into_found());
        if to == self.own && !fault!("found-message-counted-twice") {
            // On this shard, the pattern has a copy of each message.
            for Found { order: (_, key, number), message, .. } in &found {
                self.share_kept(*key, *number, message);
            }
        }
        let entries = found.iter().map(|found| (found.order.0, found.gathered())).collect();
        self.send(to, PatternMessage::Backfill { pattern, run, entries });
        true
    }

    pub(super) fn unfollow(&mut self, from: usize, name: &ChannelName) {
        if !fault!("gone-pattern-still-fed") {
            self.followed.retain(|followed| followed.to != from || followed.name != *name);
        }
        if !self.followed.iter().any(|followed| followed.name == *name) {
            self.store.unfollow_pattern(name);
        }
    }

    /// Advances searches beyond a slot whose channel is gone, because another channel may get the
    /// slot.
    pub(super) fn skip_in_patterns(&mut self, key: usize) {
        for filling in self.followed.iter_mut().filter_map(|followed| followed.filling.as_deref_mut()) {
            if filling.next_slot == key && filling.within.is_some() {
                filling.advance();
            }
        }
    }

    /// Returns whether a search is in progress.
    pub(super) fn is_filling(&self) -> bool {
        self.followed.iter().any(|followed| followed.filling.is_some())
    }

    /// Returns whether a pattern that matches the channel is followed.
    pub(super) fn is_followed(&self, name: &ChannelName) -> bool {
        self.followed.iter().any(|followed| followed.pattern.matches(name.as_str()))
    }

    /// Adds a new message to the patterns that match its channel: one copy for all of them.
    pub(super) fn pass_to_patterns(&mut self, key: usize, spot: Spot, message: &Arc<Message>) {
        let ChannelState { name, rule, .. } = &self.channels[key];
        let kept_for = self.limits.rules.bounds(*rule).history.kept_for;
        let mut copy = None;
        for followed in self.followed.iter_mut().filter(|followed| followed.pattern.matches(name.as_str())) {
            followed.note(key, || {
                copy.get_or_insert_with(|| gathered(message, name, spot, too_old(message, kept_for))).clone()
            });
        }
    }

    /// Forwards the messages that were added to patterns.
    pub(super) fn send_feeds(&mut self) {
        for followed in self.followed.iter_mut().filter(|followed| !followed.feed.is_empty()) {
            let (pattern, run) = (followed.name.clone(), followed.run);
            let feed = PatternMessage::Feed { pattern, run, entries: std::mem::take(&mut followed.feed) };
            self.outbox.push((followed.to, Parcel::Shard(ToShard::Pattern(feed))));
        }
    }

    /// Asks the patterns of a channel whose history is gone to drop theirs.
    pub(super) fn forget_in_patterns(&mut self, name: &ChannelName) {
        for followed in self.followed.iter_mut().filter(|followed| followed.pattern.matches(name.as_str())) {
            if let Some(filling) = &mut followed.filling {
                filling.found.clear();
            }
            let forget = PatternMessage::Forget { pattern: followed.name.clone() };
            self.outbox.push((followed.to, Parcel::Shard(ToShard::Pattern(forget))));
        }
    }

    /// Adds the backfill of a shard. After the last backfill, attaches the loops that wait.
    pub(super) fn fill(&mut self, now: Tick, name: &ChannelName, run: u64, entries: Vec<(UnixMillis, Arc<Message>)>) {
        let Some(key) = self.key_of(name) else { return };
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.run == run) else { return };
        gathering.backfilled.extend(entries);
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return;
        }
        let mut backfilled = std::mem::take(&mut gathering.backfilled);
        if gathering.is_feed_truncated && !fault!("hole-behind-what-was-found") {
            backfilled.clear();
        }
        let (held, attaching) = (std::mem::take(&mut gathering.held), std::mem::take(&mut gathering.attaching));
        backfilled.sort_by_key(|(time, _)| *time);
        let kept_max = self.history_limits(key).messages_max;
        let over = (backfilled.len() + held.len()).saturating_sub(kept_max);
        for message in backfilled.into_iter().skip(over).map(|(_, message)| message).chain(held) {
            self.append_derived(key, now, message);
        }
        for to in attaching {
            self.attach_to(key, to);
        }
        self.evict();
    }

    pub(super) fn feed(&mut self, now: Tick, name: &ChannelName, run: u64, entries: Vec<Arc<Message>>) {
        let Some(key) = self.key_of(name) else { return };
        let Some(gathering) =
            self.gathering_mut(key).filter(|gathering| gathering.run == run || fault!("earlier-run-counts"))
        else {
            return;
        };
        if gathering.missing > 0 {
            if !fault!("fed-while-filling-lost") {
                self.hold_feed(key, entries);
            }
            return;
        }
        for message in entries {
            self.append_derived(key, now, message);
        }
        self.evict();
    }

    /// Holds forwarded messages until all backfills have arrived, at most as many as the pattern's
    /// channel keeps.
    fn hold_feed(&mut self, key: usize, entries: Vec<Arc<Message>>) {
        let limits = self.history_limits(key);
        let Some(gathering) = self.gathering_mut(key) else { return };
        for message in entries {
            gathering.held_bytes += message.cost();
            gathering.held.push_back(message);
            let is_over = |gathering: &PatternChannel| {
                let (count, bytes) = (gathering.held.len(), gathering.held_bytes);
                count > 1 && (count > limits.messages_max || bytes > limits.bytes_max)
            };
            while is_over(gathering) {
                gathering.held_bytes -= gathering.held.pop_front().map_or(0, |message| message.cost());
                gathering.is_feed_truncated = true;
            }
        }
    }

    fn history_limits(&self, key: usize) -> HistoryLimits {
        self.limits.rules.bounds(self.channels[key].rule).history
    }

    pub(super) fn forget(&mut self, name: &ChannelName) {
        let Some(key) = self.key_of(name) else { return };
        if let Some(gathering) = self.gathering_mut(key)
            && gathering.missing > 0
        {
            // Loops that attach later get the remaining messages.
            gathering.backfilled.clear();
            (gathering.held_bytes, gathering.is_feed_truncated) = (0, false);
            return gathering.held.clear();
        }
        self.drop_history(key);
    }
}

/// Returns when a channel that keeps messages for `kept_for` drops this message.
pub(super) fn too_old(message: &Message, kept_for: Duration) -> UnixMillis {
    message.time().plus(kept_for).plus(Duration::from_millis(1))
}

/// Returns a message as a pattern's channel has it: it names its own channel, and expires when that
/// channel drops it.
pub(super) fn gathered(message: &Message, channel: &ChannelName, spot: Spot, too_old: UnixMillis) -> Arc<Message> {
    let mut copy = message.clone();
    copy.share();
    let extra = copy.extra_mut();
    extra.origin = Some((channel.clone(), spot));
    if !fault!("pattern-gives-too-old") {
        extra.expires = Some(extra.expires.map_or(too_old, |expires| expires.min(too_old)));
    }
    Arc::new(copy)
}
