//! A subscription to a pattern, such as `news.*`: a channel of its own, into which every shard passes what is published in
//! its channels of that pattern.
//!
//! So a pattern has numbers, a history and an epoch as any channel has, and who reads one has one cursor and resumes
//! without gap or repeat, however many channels it stands for and whenever they were made. It is filled from the shards'
//! histories when the first subscriber comes, and goes when nobody has read it for as long as an idle channel is kept.
//!
//! A shard looks for what there is in several ticks (`work.rs`), in the order of its channels' places. What is published
//! meanwhile in a channel that was looked at is passed on as it is published; in any other, it is found when that one is
//! looked at. So nothing is told twice, and nothing is left out. At most as much is held as the pattern's channel keeps.

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

/// What the shard of a pattern knows of it beside what it knows of any channel.
#[derive(Debug)]
pub(super) struct PatternChannel {
    /// Which of this shard's it is.
    run: u64,
    /// Homes that have not told what they have yet.
    missing: usize,
    /// What those have told that have, each message with the time by which it is put in order.
    filled: Vec<(UnixMillis, Arc<Message>)>,
    /// What was published since.
    fed: VecDeque<Arc<Message>>,
    fed_bytes: usize,
    /// Some of that was too much to keep: what is older may not be kept either, or there would be a hole.
    is_fed_over: bool,
    /// Loops that wait to be attached, and how often each has asked to be brought up to date since.
    attaching: Vec<(usize, u32)>,
}

/// A pattern that a shard passes messages on to.
#[derive(Debug)]
pub(super) struct PatternFeed {
    name: ChannelName,
    pattern: Pattern,
    /// The shard of the pattern, and which it is there.
    to: usize,
    run: u64,
    /// What was published and is to be passed on.
    feed: Vec<Arc<Message>>,
    /// While it is looked for what there is.
    filling: Option<Box<Backfill>>,
}

impl PatternFeed {
    /// Notes a message that is to be passed on. Where the search comes by, it is found.
    fn note(&mut self, key: usize, message: impl FnOnce() -> Arc<Message>) {
        if self.filling.as_ref().is_none_or(|filling| !filling.will_look_at(key) && !fault!("looked-at-not-fed")) {
            self.feed.push(message());
        }
    }
}

/// The search for what there is of a pattern in this shard.
#[derive(Debug)]
struct Backfill {
    limits: HistoryLimits,
    /// The first place that was not looked at yet, of those that there were when it began.
    looked_at: usize,
    end: usize,
    /// Where in the channel at that place it stopped.
    within: Option<Within>,
    /// The newest messages, the oldest of them on top.
    found: BinaryHeap<Reverse<Found>>,
}

/// How far back a channel was looked at.
#[derive(Debug, Clone, Copy)]
struct Within {
    /// The oldest message that was.
    number: u64,
    /// The time by which that is put in order.
    time: UnixMillis,
}

/// A message that a pattern begins with.
#[derive(Debug)]
struct Found {
    /// The time by which it is put in order, the place of its channel, and its number there.
    order: (UnixMillis, usize, u64),
    channel: ChannelName,
    spot: Spot,
    /// From when on its channel does not keep it any more.
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
    /// Whether the channel at that place has yet to be looked at.
    fn will_look_at(&self, key: usize) -> bool {
        let is_ahead = key > self.looked_at || key == self.looked_at && self.within.is_none();
        key < self.end && is_ahead && !fault!("published-while-filling-twice")
    }

    /// The next place.
    fn go_on(&mut self) {
        self.looked_at += 1;
        self.within = None;
    }

    /// Looks at the next older message of a channel. Returns whether there may be more that count.
    fn look(&mut self, channel: &ChannelState, kept_for: Duration, now: UnixMillis) -> bool {
        let before = self.within.map_or(channel.log.next(), |within| within.number);
        let Some((number, message)) = channel.log.before(before) else { return false };
        // Of one channel they stay in order, though the calendar was set back.
        let newer = self.within.map_or(UnixMillis::MAX, |within| within.time);
        let time = message.time.min(newer);
        self.within = Some(Within { number, time });
        let order = (time, self.looked_at, number);
        let is_full = self.found.len() >= self.limits.messages_max;
        let is_older = is_full && self.found.peek().is_some_and(|Reverse(oldest)| order < oldest.order);
        if is_older || message.time < now.minus(self.limits.kept_for.min(kept_for)) {
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

    /// The newest of what was found, as much as may be kept, in order.
    fn into_entries(self) -> Vec<(UnixMillis, Arc<Message>)> {
        let mut bytes = 0;
        // In the order of `Reverse`: the newest come first.
        let sorted = self.found.into_sorted_vec().into_iter().map(|Reverse(found)| found);
        let kept = sorted.take_while(|found| {
            bytes += found.message.cost();
            bytes <= self.limits.bytes_max
        });
        let mut entries: Vec<_> = kept.map(|found| (found.order.0, found.gathered())).collect();
        entries.reverse();
        entries
    }
}

impl PatternChannel {
    /// Whether somebody waits for it to be whole.
    pub(super) fn is_awaited(&self) -> bool {
        !self.attaching.is_empty()
    }
}

impl Shard {
    /// Takes what another shard says of a pattern.
    pub(super) fn take_pattern(&mut self, from: usize, now: Tick, message: PatternMessage) {
        match message {
            PatternMessage::Follow { pattern, run } => self.follow(from, now, pattern, run),
            PatternMessage::Unfollow { pattern } => self.unfollow(from, &pattern),
            PatternMessage::Backfill { pattern, run, entries } => self.fill(now, &pattern, run, entries),
            PatternMessage::Feed { pattern, run, entries } => self.feed(now, &pattern, run, entries),
            PatternMessage::Forget { pattern } => self.forget(&pattern),
        }
    }

    fn send(&mut self, to: usize, message: PatternMessage) {
        self.outbox.push((to, Parcel::Shard(ToShard::Pattern(message))));
    }

    /// Begins to gather.
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
            filled: Vec::new(),
            fed: VecDeque::new(),
            fed_bytes: 0,
            is_fed_over: false,
            attaching: Vec::new(),
        }))
    }

    /// Whether a loop that wants to be attached has to wait until all shards have told what they have.
    pub(super) fn defers_attaching(&mut self, key: usize, from: usize) -> bool {
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.missing > 0) else { return false };
        if !gathering.attaching.iter().any(|(to, _)| *to == from) {
            gathering.attaching.push((from, 0));
        }
        true
    }

    /// Whether one that asks to be brought up to date waits to be attached.
    pub(super) fn defers_sync(&mut self, key: usize, from: usize) -> bool {
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.missing > 0) else { return false };
        if let Some((_, syncs)) = gathering.attaching.iter_mut().find(|(to, _)| *to == from) {
            *syncs += 1;
        }
        true
    }

    /// One that waits to be attached does not want it any more.
    pub(super) fn stop_deferring(&mut self, key: usize, from: usize) {
        if let Some(gathering) = self.gathering_mut(key) {
            gathering.attaching.retain(|(to, _)| *to != from);
        }
    }

    /// Gathers no more.
    pub(super) fn disperse(&mut self, name: &ChannelName) {
        self.gatherings -= 1;
        for to in 0..self.shards() {
            self.send(to, PatternMessage::Unfollow { pattern: name.clone() });
        }
    }

    /// Begins to tell the shard of a pattern what there is here, and from now on what is published.
    pub(super) fn follow(&mut self, from: usize, now: Tick, name: ChannelName, run: u64) {
        let Some(pattern) = name.to_pattern() else { return };
        let filling = Backfill {
            limits: self.limits.rules.bounds(self.limits.rules.find(&name)).history,
            looked_at: 0,
            end: self.channels.capacity(),
            within: None,
            found: BinaryHeap::new(),
        };
        let filling = Some(Box::new(filling));
        self.followed.push(PatternFeed { name, pattern, to: from, run, feed: Vec::new(), filling });
        self.begin(now, Task::Fill { to: from, run });
    }

    /// Goes on with the search for as long as this tick allows. Returns whether it is over.
    pub(super) fn fill_on(&mut self, now: Tick, to: usize, run: u64) -> bool {
        let mut all = self.followed.iter_mut();
        let Some(followed) = all.find(|followed| followed.to == to && followed.run == run) else { return true };
        let Some(mut filling) = followed.filling.take() else { return true };
        let rules = &self.limits.rules;
        while filling.looked_at < filling.end {
            if !self.work.may_go_on() {
                followed.filling = Some(filling);
                return false;
            }
            self.work.spend(1);
            let pattern = &followed.pattern;
            let is_meant = |channel: &&ChannelState| !channel.is_derived() && pattern.matches(channel.name.as_str());
            match self.channels.get(filling.looked_at).filter(is_meant) {
                Some(channel) if filling.look(channel, rules.bounds(channel.rule).history.kept_for, now.time) => {}
                _ => filling.go_on(),
            }
        }
        let (pattern, entries) = (followed.name.clone(), filling.into_entries());
        self.send(to, PatternMessage::Backfill { pattern, run, entries });
        true
    }

    pub(super) fn unfollow(&mut self, from: usize, name: &ChannelName) {
        if !fault!("gone-pattern-still-fed") {
            self.followed.retain(|followed| followed.to != from || followed.name != *name);
        }
    }

    /// A channel is gone, and its place may be another's: what is published there is still to be found.
    pub(super) fn skip_in_patterns(&mut self, key: usize) {
        for filling in self.followed.iter_mut().filter_map(|followed| followed.filling.as_deref_mut()) {
            if filling.looked_at == key && filling.within.is_some() {
                filling.go_on();
            }
        }
    }

    /// Notes a message that was just published for the patterns that it is to be passed on to: one copy for all of them.
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

    /// Passes on what was noted for patterns.
    pub(super) fn send_feeds(&mut self) {
        for followed in self.followed.iter_mut().filter(|followed| !followed.feed.is_empty()) {
            let (pattern, run) = (followed.name.clone(), followed.run);
            let feed = PatternMessage::Feed { pattern, run, entries: std::mem::take(&mut followed.feed) };
            self.outbox.push((followed.to, Parcel::Shard(ToShard::Pattern(feed))));
        }
    }

    /// A channel's history is gone: what its patterns have kept of it goes too.
    pub(super) fn forget_in_patterns(&mut self, name: &ChannelName) {
        for followed in self.followed.iter_mut().filter(|followed| followed.pattern.matches(name.as_str())) {
            if let Some(filling) = &mut followed.filling {
                filling.found.clear();
            }
            let forget = PatternMessage::Forget { pattern: followed.name.clone() };
            self.outbox.push((followed.to, Parcel::Shard(ToShard::Pattern(forget))));
        }
    }

    /// A shard has told what it has. The last one of them lets those in who wait.
    pub(super) fn fill(&mut self, now: Tick, name: &ChannelName, run: u64, entries: Vec<(UnixMillis, Arc<Message>)>) {
        let Some(key) = self.key_of(name) else { return };
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.run == run) else { return };
        gathering.filled.extend(entries);
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return;
        }
        let mut filled = std::mem::take(&mut gathering.filled);
        if gathering.is_fed_over && !fault!("hole-behind-what-was-found") {
            filled.clear();
        }
        let (fed, attaching) = (std::mem::take(&mut gathering.fed), std::mem::take(&mut gathering.attaching));
        filled.sort_by_key(|(time, _)| *time);
        let kept_max = self.history_limits(key).messages_max;
        let over = (filled.len() + fed.len()).saturating_sub(kept_max);
        for message in filled.into_iter().skip(over).map(|(_, message)| message).chain(fed) {
            self.append_derived(key, now, message);
        }
        for (to, syncs) in attaching {
            self.attach_to(key, to);
            for _ in 0..syncs {
                self.catch_up(to, name.clone());
            }
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
                self.keep_fed(key, entries);
            }
            return;
        }
        for message in entries {
            self.append_derived(key, now, message);
        }
        self.evict();
    }

    /// Keeps what is fed for when all shards have told what they have, no more of it than the pattern's channel keeps.
    fn keep_fed(&mut self, key: usize, entries: Vec<Arc<Message>>) {
        let limits = self.history_limits(key);
        let Some(gathering) = self.gathering_mut(key) else { return };
        for message in entries {
            gathering.fed_bytes += message.cost();
            gathering.fed.push_back(message);
            let is_over = |gathering: &PatternChannel| {
                let (count, bytes) = (gathering.fed.len(), gathering.fed_bytes);
                count > 1 && (count > limits.messages_max || bytes > limits.bytes_max)
            };
            while is_over(gathering) {
                gathering.fed_bytes -= gathering.fed.pop_front().map_or(0, |message| message.cost());
                gathering.is_fed_over = true;
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
            // Who attaches gets what is left, as if it had always been so.
            gathering.filled.clear();
            (gathering.fed_bytes, gathering.is_fed_over) = (0, false);
            return gathering.fed.clear();
        }
        self.drop_history(key);
    }
}

/// Returns from when on a channel that keeps its messages for so long does not keep this one.
fn too_old(message: &Message, kept_for: Duration) -> UnixMillis {
    message.time.plus(kept_for).plus(Duration::from_millis(1))
}

/// A message as the channel of a pattern has it: it says where it is from, and is delivered for as long as its own channel may
/// keep it.
fn gathered(message: &Message, channel: &ChannelName, spot: Spot, too_old: UnixMillis) -> Arc<Message> {
    let mut copy = message.clone();
    let extra = copy.extra_mut();
    extra.origin = Some((channel.clone(), spot));
    if !fault!("pattern-gives-too-old") {
        extra.expires = Some(extra.expires.map_or(too_old, |expires| expires.min(too_old)));
    }
    Arc::new(copy)
}
