//! Publishing: to one channel, and to all channels of a pattern.

use std::sync::Arc;

use sealed::fault;

use super::changes::{Cause, Change};
use super::gate::Entrant;
use super::pages::Reading;
use super::work::Task;
use super::{Asker, ChannelState, Shard};
use crate::config::rules::Rules;
use crate::core::message::{ChannelName, Message};
use crate::core::one_or_more::OneOrMore;
use crate::core::owner::Owner;
use crate::core::pattern::Pattern;
use crate::core::position::Spot;
use crate::engine::store::{KeptSummary, NameRange, Unreadable};
use crate::engine::{BroadcastOrder, Refusal, Reply, Tick};

/// The cost of publishing in one channel, in units of work. Each followed pattern costs one unit
/// more, and a message with a key costs its comparison with the message that was published under
/// the key.
const PUBLISH_UNITS: usize = 4;
const COMPARED_BYTES_PER_UNIT: usize = 256;

/// The divisor of the limit of broadcasts in progress for the share of one client.
const BROADCASTS_SHARE: usize = 4;

/// A message to all channels of a pattern. First the shard finds the channels, in memory and in the
/// store, then it publishes the message in each.
#[derive(Debug)]
pub(super) struct Broadcasting {
    /// The key of its `Reach`.
    number: usize,
    pattern: Pattern,
    message: Arc<Message>,
    /// If the pattern has more channels, the message is published in none.
    reach_max: usize,
    owner: Owner,
    /// The slot to visit next.
    next_slot: usize,
    /// The end of the slab when the search began.
    end: usize,
    /// The slots of the channels found. Channels that are created meanwhile are not among them.
    found: Vec<u32>,
    /// The names of the channels found, instead of their slots, if the store keeps channels that
    /// are not in memory.
    names: Vec<ChannelName>,
    /// Set when the names that the store keeps are among them.
    is_listed: bool,
    published: usize,
    /// The cost of publishing the message once, in units of work.
    units: usize,
}

/// The number of channels that a broadcast has reached.
#[derive(Debug)]
pub(super) struct Reach {
    asker: Asker,
    owner: Owner,
    channels: u64,
    /// The number of channels in which the message is submitted, and not yet kept or refused.
    outstanding: usize,
    /// Set if a store has refused the message.
    is_refused: bool,
    /// The reason why the message was not submitted in all channels.
    refused: Option<Refusal>,
    /// Set when the message will be submitted in no more channels.
    is_over: bool,
}

impl Broadcasting {
    /// Returns whether the channel matches the pattern, and its rule allows a message of that size.
    fn is_for(&self, channel: &ChannelState, rules: &Rules) -> bool {
        !channel.is_derived() && self.is_for_name(&channel.name, || rules.bounds(channel.rule).message_bytes_max)
    }

    fn is_for_name(&self, name: &ChannelName, message_bytes_max: impl Fn() -> usize) -> bool {
        let is_meant = self.pattern.matches(name.as_str()) || fault!("broadcast-reaches-other-names");
        is_meant && (self.message.payload.len() <= message_bytes_max() || fault!("broadcast-too-long-published"))
    }

    /// Drops duplicate names. A channel may have been unloaded and opened in another slot
    /// meanwhile.
    fn drop_duplicates(&mut self) {
        self.names.sort_unstable();
        self.names.dedup();
    }

    /// Returns the names of the store to read, after `after`.
    fn range(&self, after: &str) -> NameRange {
        NameRange::of(&self.pattern, after, self.reach_max.saturating_add(1))
    }
}

impl Shard {
    pub(super) fn publish(
        &mut self,
        now: Tick,
        asker: Asker,
        name: ChannelName,
        messages: OneOrMore<Message>,
        owner: Owner,
    ) {
        // Patterns will have copies.
        let is_shared = self.is_followed(&name);
        let messages = messages.map(|message| {
            if is_shared {
                message.share();
            }
            Arc::new(message)
        });
        match self.open(now, name, owner) {
            Ok(key) => self.begin_change(now, key, Change::Publish { cause: Cause::Asker(asker), owner, messages }),
            Err(why) => self.reply(asker, Err(why)),
        }
    }

    /// Counts a channel for `owner` from now on if `owner` is the back end and the channel keeps
    /// nothing. Otherwise, a client that has read the channel before the first publication would
    /// pay for it with its own share of the history.
    pub(super) fn pass_to_back_end(&mut self, key: usize, owner: Owner) {
        let channel = &mut self.channels[key];
        let keeps_some = !channel.log.is_empty() || channel.kept_from() < channel.log.next();
        if owner.is_counted() || keeps_some || fault!("first-reader-keeps-channel") {
            return;
        }
        let is_pattern = channel.name.is_pattern();
        self.owners.gone(channel.counted, is_pattern);
        channel.counted = self.owners.made(owner, is_pattern);
    }

    /// Appends a message to a channel. Returns the spot after it.
    pub(super) fn append(&mut self, key: usize, now: Tick, message: &Arc<Message>) -> Spot {
        let channel = &mut self.channels[key];
        channel.note_use(now.loop_time);
        self.watch.note(&channel.name, now.loop_time, &mut self.outbox);
        self.append_only(key, now, message)
    }

    /// Appends a message to a channel. This does not count as use of the channel on this server.
    pub(super) fn append_only(&mut self, key: usize, now: Tick, message: &Arc<Message>) -> Spot {
        let number = self.push(key, message.clone());
        let channel = &mut self.channels[key];
        let spot = Spot { epoch: channel.epoch, next: number + 1 };
        if !self.followed.is_empty() {
            self.pass_to_patterns(key, spot, message);
        }
        self.trim(key, now);
        self.mark(key);
        spot
    }

    /// Starts to publish a message in all channels of a pattern.
    pub(super) fn broadcast(&mut self, now: Tick, asker: Asker, order: BroadcastOrder) {
        if let Some(why) = self.why_no_broadcast(order.owner) {
            return self.reply(asker, Err(why));
        }
        let BroadcastOrder { pattern, message, reach_max, owner } = order;
        message.share();
        let compared_bytes = if message.key().is_some() { message.payload.len() } else { 0 };
        let reach =
            Reach { asker, owner, channels: 0, outstanding: 0, is_refused: false, refused: None, is_over: false };
        let broadcasting = Broadcasting {
            number: self.broadcasts.insert(reach),
            units: PUBLISH_UNITS + compared_bytes / COMPARED_BYTES_PER_UNIT,
            pattern,
            message: Arc::new(message),
            reach_max,
            owner,
            next_slot: 0,
            end: self.channels.capacity(),
            found: Vec::new(),
            names: Vec::new(),
            is_listed: !self.is_stored || fault!("broadcast-without-unloaded"),
            published: 0,
        };
        self.begin(now, Task::Broadcast(broadcasting));
    }

    /// Returns why a client may not start a broadcast now: the limit of all, or the limit of one
    /// client, is reached.
    fn why_no_broadcast(&self, owner: Owner) -> Option<Refusal> {
        let under_way = || self.broadcasts.iter().map(|(_, reach)| reach);
        let has = |part| under_way().filter(|other| other.owner.parts().any(|other| other == part)).count();
        let share = self.limits.broadcasts_max.div_ceil(BROADCASTS_SHARE);
        if owner.parts().any(|part| has(part) >= share) && !fault!("broadcasts-all-for-one") {
            return Some(Refusal::ClientLimit);
        }
        (self.broadcasts.len() >= self.limits.broadcasts_max).then_some(Refusal::BroadcastLimit)
    }

    /// Continues a broadcast until this tick's work is used up. Returns the rest of it.
    pub(super) fn broadcast_on(&mut self, now: Tick, mut this: Broadcasting) -> Option<Broadcasting> {
        while this.next_slot < this.end {
            if !self.work.has_units_left() {
                return Some(this);
            }
            self.work.spend(1);
            let is_meant = |channel: &&ChannelState| this.is_for(channel, &self.limits.rules);
            match self.channels.get(this.next_slot).filter(is_meant) {
                Some(channel) if self.is_stored => this.names.push(channel.name.clone()),
                Some(_) => this.found.push(this.next_slot as u32),
                None => {}
            }
            this.next_slot += 1;
            if this.names.len() > this.reach_max {
                this.drop_duplicates();
            }
            if this.found.len().max(this.names.len()) > this.reach_max {
                // Nothing is published yet.
                self.conclude_broadcast(&this, Some(Refusal::BroadcastTooWide));
                return None;
            }
        }
        if !this.is_listed {
            let range = this.range("");
            self.begin_names(now, Reading::Broadcast(Box::new(this)), range);
            return None;
        }
        if self.is_stored { self.broadcast_by_name(now, this) } else { self.broadcast_by_slot(now, this) }
    }

    /// Publishes the message in each channel found, until this tick's work is used up. Returns the
    /// rest of it.
    fn broadcast_by_slot(&mut self, now: Tick, mut this: Broadcasting) -> Option<Broadcasting> {
        while let Some(key) = this.found.get(this.published).map(|key| *key as usize) {
            if !self.work.has_units_left() {
                self.send_feeds();
                self.evict();
                return Some(this);
            }
            this.published += 1;
            self.work.spend(this.units + self.followed.len());
            // The channel may be gone, and another one may have its slot.
            let is_meant = |channel: &ChannelState| {
                this.is_for(channel, &self.limits.rules) || fault!("broadcast-to-replaced-channel")
            };
            if self.channels.get(key).is_some_and(is_meant) {
                self.broadcasts[this.number].outstanding += 1;
                let (cause, messages) = (Cause::Broadcast(this.number), OneOrMore::one(this.message.clone()));
                self.begin_change(now, key, Change::Publish { cause, owner: this.owner, messages });
            }
        }
        self.send_feeds();
        self.evict();
        self.conclude_broadcast(&this, None);
        None
    }

    /// Adds the channels whose names the store has read, and those that it is about to open. When
    /// all are known, continues with the publication.
    pub(super) fn broadcast_found(
        &mut self,
        now: Tick,
        mut this: Box<Broadcasting>,
        names: Result<Vec<KeptSummary>, Unreadable>,
        has_more: bool,
    ) {
        let Ok(names) = names else { return self.conclude_broadcast(&this, Some(Refusal::Unavailable)) };
        let rules = &self.limits.rules;
        let is_meant = |name: &ChannelName| this.is_for_name(name, || rules.bounds(rules.find(name)).message_bytes_max);
        let last = names.last().map(|kept| kept.channel.clone());
        let mut found: Vec<_> = names.into_iter().map(|kept| kept.channel).filter(is_meant).collect();
        found.extend(self.gate.names().filter(|name| is_meant(name)).cloned());
        this.names.append(&mut found);
        this.drop_duplicates();
        if this.names.len() > this.reach_max {
            return self.conclude_broadcast(&this, Some(Refusal::BroadcastTooWide));
        }
        if let Some(last) = last.filter(|_| has_more) {
            let range = this.range(last.as_str());
            return self.begin_names(now, Reading::Broadcast(this), range);
        }
        this.is_listed = true;
        self.begin(now, Task::Broadcast(*this));
    }

    /// Publishes the message in each channel found, in memory or not, until this tick's work is
    /// used up, or many channels wait for the store. Returns the rest of it in the first case.
    fn broadcast_by_name(&mut self, now: Tick, mut this: Broadcasting) -> Option<Broadcasting> {
        while let Some(name) = this.names.get(this.published).cloned() {
            if !self.work.has_units_left() {
                self.send_feeds();
                self.evict();
                return Some(this);
            }
            if self.gate.is_busy() {
                self.send_feeds();
                self.evict();
                self.gate.hold(this);
                return None;
            }
            this.published += 1;
            self.work.spend(this.units + self.followed.len());
            self.broadcasts[this.number].outstanding += 1;
            let (cause, messages) = (Cause::Broadcast(this.number), OneOrMore::one(this.message.clone()));
            self.enter(now, Entrant::Change(name, Change::Publish { cause, owner: this.owner, messages }));
        }
        self.send_feeds();
        self.evict();
        self.conclude_broadcast(&this, None);
        None
    }

    /// Records whether the message is kept in one channel.
    pub(super) fn broadcast_came(&mut self, number: usize, outcome: Result<(), Refusal>) {
        let Some(reach) = self.broadcasts.get_mut(number) else { return };
        reach.outstanding -= 1;
        match outcome {
            Ok(()) => reach.channels += 1,
            // Another message was published there under the same key.
            Err(Refusal::KeyReused) => {}
            Err(_) => reach.is_refused = true,
        }
        self.conclude_if_settled(number);
    }

    fn conclude_broadcast(&mut self, broadcasting: &Broadcasting, refused: Option<Refusal>) {
        if let Some(reach) = self.broadcasts.get_mut(broadcasting.number) {
            (reach.refused, reach.is_over) = (refused, true);
        }
        self.conclude_if_settled(broadcasting.number);
    }

    /// Replies to the publisher once the outcome in every channel is known.
    fn conclude_if_settled(&mut self, number: usize) {
        let is_settled = |reach: &Reach| reach.outstanding == 0 && reach.is_over;
        if !self.broadcasts.get(number).is_some_and(is_settled) {
            return;
        }
        let Reach { asker, channels, is_refused, refused, .. } = self.broadcasts.remove(number);
        let refused = refused.or(is_refused.then_some(Refusal::Unavailable));
        self.reply(asker, Ok(Reply::Broadcast { channels, refused }));
    }
}
