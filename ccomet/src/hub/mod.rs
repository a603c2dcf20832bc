//! A loop's channels and their subscribers. Pure state: subscriptions, the engine's events and the time come in; output goes through a
//! [`Sink`] to subscribers, and in [`Order`]s to the engine.
//!
//! `channel.rs` is a channel with its log, `subscriber.rs` a reader of it, `deliver.rs` the way of messages from the one to the other,
//! `polls.rs` replies to polls, `encoded.rs` messages in the form in which they are sent, `quiet.rs` what is sent without a message,
//! `followers.rs` readers inside the process.

mod channel;
mod deliver;
mod encoded;
mod followers;
mod polls;
mod presence;
mod quiet;
mod sink;
mod subscriber;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sealed::{ConnectionId, fault};
use slab::Slab;

use channel::{Channel, Ration};
use encoded::Encoded;
use followers::Followers;
pub(crate) use followers::{FollowerKey, Told};
use presence::Moved;
pub(crate) use sink::{IcometForm, Reply, Sink};
use subscriber::{Extra, Flags, Part, Subscriber};
pub(crate) use subscriber::{Start, Style, Subscription};

use crate::engine::{ChannelEvent, Claim, Order, Owner, Refusal};
use crate::message::{ChannelName, Message};
use crate::position::Epoch;
use crate::rules::Rules;
use crate::time::UnixMillis;
use crate::wire::problem::Problem;

/// Channels looked at in one sweep, at least; all of them within about half a minute.
const SWEEP_MIN: usize = 1024;
const SWEEP_ROUNDS: usize = 30;

/// What a loop's hub may hold, and how it speaks.
#[derive(Debug, Clone)]
pub(crate) struct HubLimits {
    pub(crate) rules: Arc<Rules>,
    pub(crate) subscribers_max: usize,
    /// Bytes handed to one subscriber at a time.
    pub(crate) batch_bytes_max: usize,
    /// Bytes of encoded messages that are kept for others.
    pub(crate) encoded_bytes_max: usize,
    /// How long a loop stays attached to a channel that nobody on it reads: the pause between two polls, and more.
    pub(crate) linger: Duration,
    pub(crate) heartbeat: Duration,
    /// The silence after which a client of icomet's hears a `noop`.
    pub(crate) noop: Duration,
}

/// Names a subscriber to whoever holds its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriberKey(pub(crate) u32);

#[derive(Debug)]
pub(crate) struct Hub {
    limits: HubLimits,
    channels: Slab<Channel>,
    names: HashMap<ChannelName, u32>,
    subscribers: Slab<Subscriber>,
    followers: Followers,
    /// Who waits under a name, by the number that the engine knows.
    claims: HashMap<u64, u32>,
    last_claim: u64,
    /// Channels with something to be delivered.
    dirty: Vec<u32>,
    /// Subscribers of several channels with something to be delivered.
    dirty_many: Vec<u32>,
    /// Channels of which their shards keep nothing any more before a number.
    truncated: Vec<(u32, u64)>,
    /// What was encoded last.
    encoded: Encoded,
    /// Channels whose number of subscribers has changed.
    recount: Vec<u32>,
    /// Members who came or went.
    moved: Moved,
    sweep_next: usize,
    /// The time by the calendar. Each entrance sets it, once; all else reads it here.
    now: UnixMillis,
    /// What the engine is to be told, in order.
    pub(crate) orders: Vec<Order>,
}

impl Hub {
    pub(crate) fn new(limits: HubLimits) -> Self {
        Self {
            encoded: Encoded::new(limits.encoded_bytes_max),
            truncated: Vec::new(),
            limits,
            channels: Slab::new(),
            names: HashMap::new(),
            subscribers: Slab::new(),
            followers: Followers::default(),
            claims: HashMap::new(),
            last_claim: 0,
            dirty: Vec::new(),
            dirty_many: Vec::new(),
            recount: Vec::new(),
            moved: Moved::new(),
            sweep_next: 0,
            now: UnixMillis::default(),
            orders: Vec::new(),
        }
    }

    /// The key that the next subscriber will have.
    pub(crate) fn next_key(&self) -> SubscriberKey {
        SubscriberKey(self.subscribers.vacant_key() as u32)
    }

    /// Whether there is something to be flushed.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
            || !self.dirty_many.is_empty()
            || !self.truncated.is_empty()
            || !self.recount.is_empty()
            || !self.moved.is_empty()
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.len() + self.followers.len()
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    #[cfg(feature = "sim")]
    pub(crate) fn add_to(&self, all: &mut crate::simulated::Holdings, seen: &mut crate::simulated::Seen) {
        all.subscribers += self.subscribers();
        all.claims += self.claims.len();
        all.attached_channels += self.channels.len();
        all.encoded_bytes += self.encoded.bytes();
        for (_, channel) in &self.channels {
            all.copied_messages += channel.log.len();
            all.message_bytes += channel.log.since(0).map(|(_, message)| seen.count(message)).sum::<usize>();
        }
    }

    /// Takes a subscription of at least one channel. It starts, through the sink, as soon as all of its channels are here.
    pub(crate) fn subscribe(
        &mut self,
        peer: ConnectionId,
        subscription: Subscription,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<SubscriberKey, Reply> {
        self.now = now;
        debug_assert!(!subscription.channels.is_empty());
        if self.subscribers() >= self.limits.subscribers_max {
            return Err(Self::refuse(subscription, Problem::SubscriberLimit));
        }
        let Subscription { channels, style, answer_at_once, member, owner } = subscription;
        let mut extra = Extra { answer_at_once, member: member.clone(), owner, ..Extra::default() };
        let (kind, beats, name) = extra.set_style(style);
        let mut parts = Vec::with_capacity(channels.len());
        for (name, start) in channels {
            let channel = self.channel(&name, owner);
            parts.push(Part { channel, place: 0, cursor: 0, start: Some(start), syncs: 0 });
        }
        let is_full = |part: &&Part| {
            let channel = self.channel_of(part);
            channel.subscribers.len() >= self.limits.rules.bounds(channel.crowd_rule).subscribers_max
        };
        if let Some(part) = parts.iter().find(is_full) {
            let channel = &self.channel_of(part).name;
            return Err(polls::refusal(Problem::SubscriberLimit, channel, kind, extra.callback));
        }

        let key = self.subscribers.vacant_key() as u32;
        for part in &mut parts {
            let channel = &mut self.channels[part.channel as usize];
            part.place = channel.subscribers.len() as u32;
            channel.subscribers.push(key);
            channel.mark_for_recount(part.channel, &mut self.recount);
            if part.start.is_some_and(|start| channel.is_behind(start)) {
                channel.syncs_asked += 1;
                part.syncs = channel.syncs_asked;
                self.orders.push(Order::CatchUp { channel: channel.name.clone() });
            }
            if !channel.is_ready_for(part) {
                channel.starting.push(key);
            }
        }
        for part in &parts {
            if let Some(member) = &member {
                self.come(part.channel, member);
            }
        }
        extra.parts = parts;
        self.subscribers.insert(Subscriber::new(peer, kind, beats, extra));
        if let Some(name) = name {
            self.claim(key, name);
        }
        self.start_if_ready(key, sink);
        Ok(SubscriberKey(key))
    }

    /// How a subscription is answered that cannot be met.
    pub(crate) fn refuse(subscription: Subscription, problem: Problem) -> Reply {
        let mut extra = Extra::default();
        let (kind, ..) = extra.set_style(subscription.style);
        match subscription.channels.first() {
            Some((channel, _)) => polls::refusal(problem, channel, kind, extra.callback),
            None => Reply::Problem(problem, None),
        }
    }

    /// The connection is gone.
    pub(crate) fn unsubscribe(&mut self, key: SubscriberKey, now: UnixMillis) {
        self.now = now;
        self.leave(key.0);
    }

    /// Takes a subscriber out of its channels, and forgets it.
    fn leave(&mut self, key: u32) {
        if !self.subscribers.contains(key as usize) {
            return;
        }
        self.leave_channels(key);
        self.forget(key);
    }

    /// What a subscriber was sent is with the kernel: it can be given more.
    pub(crate) fn drained(&mut self, key: SubscriberKey, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        let Some(subscriber) = self.subscribers.get_mut(key.0 as usize) else { return };
        if !fault!("stalled-stream-not-fed") {
            subscriber.clear(Flags::BLOCKED);
        }
        if subscriber.is(Flags::STARTED) && subscriber.kind.voice().is_some() {
            self.feed_stream(key.0, sink);
        }
    }

    /// Whether a subscriber is a stream, which needs heartbeats, or a poll, which ends.
    pub(crate) fn is_stream(&self, key: SubscriberKey) -> bool {
        self.subscribers.get(key.0 as usize).is_some_and(|subscriber| subscriber.kind.voice().is_some())
    }

    /// Takes what happened in a channel.
    pub(crate) fn event(&mut self, channel: &ChannelName, event: ChannelEvent, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        match event {
            ChannelEvent::Opened { epoch, first, entries } => self.attached(channel, epoch, first, entries, sink),
            ChannelEvent::Refused { owner, why: Refusal::ClientLimit } => self.end_those_of(channel, owner, sink),
            ChannelEvent::Refused { why, .. } => self.end_channel(channel, Some(why.into()), sink),
            ChannelEvent::Appended { first, entries, announcements, kept_from } => {
                self.appended(channel, first, entries, announcements);
                self.truncate(channel, kept_from);
            }
            ChannelEvent::Truncated { .. } if fault!("truncation-ignored") && !channel.is_pattern() => {}
            ChannelEvent::Truncated { kept_from } => self.truncate(channel, kept_from),
            ChannelEvent::CaughtUp { first, entries } => {
                self.appended(channel, first, entries, Vec::new());
                self.synced(channel, sink);
            }
            // One that waits for the answer to `Open` is a later channel of that name than the one that was closed.
            ChannelEvent::Closed if self.is_attaching(channel) => {}
            ChannelEvent::Closed => self.end_channel(channel, None, sink),
            ChannelEvent::Cleared { first } => self.cleared(channel, first, sink),
        }
    }

    /// Ends the wait of a subscriber whose name another one has now.
    pub(crate) fn name_taken(&mut self, claim: Claim, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        if let Some(key) = self.claims.get(&claim.0).copied() {
            self.conclude(key, Reply::Nothing, sink);
        }
    }

    /// The end of a tick: everyone gets what is new, from his cursor on.
    pub(crate) fn flush(&mut self, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        for key in std::mem::take(&mut self.dirty) {
            self.deliver_channel(key, sink);
        }
        for key in std::mem::take(&mut self.dirty_many) {
            self.deliver_many(key, sink);
        }
        for (key, kept_from) in std::mem::take(&mut self.truncated) {
            let Some(channel) = self.channels.get_mut(key as usize) else { continue };
            // What was skipped, where this loop was so slow, its readers hear of with what comes next.
            if !fault!("loop-keeps-what-home-dropped") {
                channel.log.drop_before(kept_from.min(channel.log.next()));
            }
        }
        self.tell_counts();
        self.tell_moved();
    }

    /// Gives a subscriber of several channels what is new in them.
    fn deliver_many(&mut self, key: u32, sink: &mut impl Sink) {
        let Some(subscriber) = self.subscribers.get_mut(key as usize) else { return };
        if !fault!("fed-only-once") {
            subscriber.clear(Flags::DIRTY);
        }
        if subscriber.kind.voice().is_some() {
            self.feed_stream(key, sink);
        } else if self.has_news(key) {
            self.answer_poll(key, &[], sink);
        }
    }

    /// Tells the channels' shards how many subscribers there are here now.
    fn tell_counts(&mut self) {
        for key in std::mem::take(&mut self.recount) {
            let Some(channel) = self.channels.get_mut(key as usize) else { continue };
            let subscribers = (channel.subscribers.len() + self.followers.count(key)) as u32;
            if std::mem::take(&mut channel.recounting) && channel.told != subscribers {
                channel.told = subscribers;
                self.orders.push(Order::SetSubscribers { channel: channel.name.clone(), count: subscribers });
            }
        }
    }

    /// About once a second: messages that are too old go, and so do channels that nobody has read for a while.
    pub(crate) fn sweep(&mut self, now: UnixMillis) {
        self.now = now;
        if !fault!("encoded-kept-for-ever") {
            self.encoded.clear();
        }
        let share = SWEEP_MIN.max(self.channels.len() / SWEEP_ROUNDS);
        for _ in 0..share.min(self.channels.capacity()) {
            let key = self.sweep_next;
            self.sweep_next = (self.sweep_next + 1) % self.channels.capacity().max(1);
            let Some(channel) = self.channels.get_mut(key) else { continue };
            channel.log.trim(&self.limits.rules.bounds(channel.rule).history, self.now);
            let is_left =
                channel.subscribers.is_empty() || channel.subscribers.len() < 2 && fault!("read-channel-let-go");
            let is_followed = self.followers.count(key as u32) > 0 && !fault!("followed-channel-let-go");
            let idle = is_left && !is_followed && channel.is_attached() && !channel.dirty;
            if idle && self.now.saturating_since(channel.left) >= channel.linger(self.limits.linger) {
                let name = channel.name.clone();
                self.remove(key as u32, &name);
                self.orders.push(Order::Close { channel: name });
            }
        }
        if self.subscribers.is_empty() && self.subscribers.capacity() > 64 {
            self.subscribers = Slab::new();
            self.claims.shrink_to_fit();
        }
        if self.channels.is_empty() && self.channels.capacity() > 64 {
            self.channels = Slab::new();
            self.names.shrink_to_fit();
            self.dirty.shrink_to_fit();
        }
    }

    /// The channel of that name; where this loop is not attached to it, the engine is asked.
    fn channel(&mut self, name: &ChannelName, owner: Owner) -> u32 {
        if let Some(key) = self.names.get(name) {
            return *key;
        }
        let rules = &self.limits.rules;
        let (rule, crowd_rule) = (rules.find(name), rules.find_for_readers(name));
        let key = self.channels.insert(Channel::attaching(name.clone(), rule, crowd_rule, self.now)) as u32;
        self.names.insert(name.clone(), key);
        self.orders.push(Order::Open { channel: name.clone(), owner });
        key
    }

    fn is_attaching(&self, name: &ChannelName) -> bool {
        self.names.get(name).is_some_and(|key| !self.channels[*key as usize].is_attached())
    }

    fn claim(&mut self, key: u32, name: Arc<str>) {
        self.last_claim += 1;
        let claim = Claim(self.last_claim);
        self.claims.insert(claim.0, key);
        let subscriber = &mut self.subscribers[key as usize];
        let Some(extra) = &mut subscriber.extra else { return };
        extra.claim = Some(claim);
        let Some(part) = extra.parts.first() else { return };
        let channel = self.channels[part.channel as usize].name.clone();
        self.orders.push(Order::AcquireName { channel, name, claim });
    }

    fn attached(
        &mut self,
        name: &ChannelName,
        epoch: Epoch,
        first: u64,
        entries: Vec<Arc<Message>>,
        sink: &mut impl Sink,
    ) {
        let Some(key) = self.names.get(name).copied() else { return };
        self.channels[key as usize].attach(epoch, first, entries);
        self.start_all(key, sink);
    }

    fn synced(&mut self, name: &ChannelName, sink: &mut impl Sink) {
        let Some(key) = self.names.get(name).copied() else { return };
        if !self.is_attaching(name) {
            self.channels[key as usize].syncs += 1;
            self.start_all(key, sink);
        }
    }

    /// Starts those of a channel who waited for it, and for nothing else.
    fn start_all(&mut self, key: u32, sink: &mut impl Sink) {
        for waiting in std::mem::take(&mut self.channels[key as usize].starting) {
            let Some(subscriber) = self.subscribers.get_mut(waiting as usize) else { continue };
            let channel = &mut self.channels[key as usize];
            let part = subscriber.parts().iter().find(|part| part.channel == key && part.start.is_some());
            match part {
                Some(part) if !channel.is_ready_for(part) => channel.starting.push(waiting),
                _ => self.start_if_ready(waiting, sink),
            }
        }
        self.wake_followers(key);
    }

    fn appended(&mut self, name: &ChannelName, first: u64, entries: Vec<Arc<Message>>, signs: Vec<Arc<str>>) {
        let Some(key) = self.names.get(name).copied() else { return };
        let channel = &mut self.channels[key as usize];
        // What comes before the answer to `Attach` is in that answer too.
        if !channel.is_attached() {
            return;
        }
        channel.append(first, entries, &self.limits.rules.bounds(channel.rule).history, self.now);
        channel.signs.extend(signs);
        if !channel.dirty {
            channel.dirty = true;
            self.dirty.push(key);
        }
        self.wake_followers(key);
    }

    /// The channel's shard keeps nothing before that number: this loop does not either, from the end of this tick on, when those
    /// who keep up have got what is new.
    fn truncate(&mut self, name: &ChannelName, kept_from: u64) {
        let Some(key) = self.names.get(name).copied() else { return };
        let channel = &self.channels[key as usize];
        if channel.is_attached() && channel.log.next() < kept_from && !fault!("no-gap-without-message") {
            // What was dropped had not come yet: readers are told of the gap, though no message follows.
            return self.appended(name, kept_from, Vec::new(), Vec::new());
        }
        if channel.is_attached() && channel.log.first() < kept_from {
            self.truncated.push((key, kept_from));
        }
    }

    /// Forgets a channel's messages up to a number, when those who keep up have got them.
    fn cleared(&mut self, name: &ChannelName, first: u64, sink: &mut impl Sink) {
        let Some(key) = self.names.get(name).copied() else { return };
        if !self.channels[key as usize].is_attached() {
            return;
        }
        self.deliver_channel(key, sink);
        for many in std::mem::take(&mut self.dirty_many) {
            self.deliver_many(many, sink);
        }
        self.channels[key as usize].log.drop_before(first);
    }

    /// Ends everyone who reads the channel, and the channel.
    fn end_channel(&mut self, name: &ChannelName, problem: Option<Problem>, sink: &mut impl Sink) {
        let Some(key) = self.names.get(name).copied() else { return };
        while let Some(subscriber) = self.channels[key as usize].subscribers.last().copied() {
            self.conclude_closed(subscriber, name, problem, sink);
        }
        self.end_followers(key, problem);
        self.remove(key, name);
    }

    /// Forgets a channel that nobody reads any more.
    fn remove(&mut self, key: u32, name: &ChannelName) {
        self.names.remove(name);
        self.dirty.retain(|dirty| *dirty != key);
        self.truncated.retain(|(truncated, _)| *truncated != key);
        self.channels.remove(key as usize);
    }

    /// Ends those who wait for a channel that its client may not make. The others may.
    fn end_those_of(&mut self, name: &ChannelName, owner: Owner, sink: &mut impl Sink) {
        let Some(key) = self.names.get(name).copied() else { return };
        let owner_of = |hub: &Self, subscriber: &u32| {
            hub.subscribers[*subscriber as usize].extra.as_ref().map_or(Owner::default(), |extra| extra.owner)
        };
        let waiting = self.channels[key as usize].subscribers.clone();
        let is_meant = |subscriber: &&u32| owner_of(self, subscriber) == owner || fault!("other-clients-refused-too");
        for subscriber in waiting.iter().filter(is_meant).collect::<Vec<_>>() {
            self.conclude_closed(*subscriber, name, Some(Refusal::ClientLimit.into()), sink);
        }
        match self.channels[key as usize].subscribers.first().copied() {
            Some(other) => {
                let owner = owner_of(self, &other);
                self.orders.push(Order::Open { channel: name.clone(), owner });
            }
            None if self.followers.count(key) > 0 => {
                self.orders.push(Order::Open { channel: name.clone(), owner: Owner::default() });
            }
            None => self.end_channel(name, None, sink),
        }
    }

    /// Takes a subscriber out of the lists of its channels.
    fn leave_channels(&mut self, key: u32) {
        for index in 0.. {
            let Some((channel, place)) = self.subscribers[key as usize].place(index) else { break };
            let channel_state = &mut self.channels[channel as usize];
            channel_state.left = if fault!("just-left-is-long-ago") { UnixMillis::default() } else { self.now };
            channel_state.mark_for_recount(channel, &mut self.recount);
            let members = &mut channel_state.subscribers;
            debug_assert_eq!(members[place as usize], key);
            members.swap_remove(place as usize);
            if members.is_empty() {
                members.shrink_to_fit();
            } else if let Some(moved) = members.get(place as usize).copied() {
                self.subscribers[moved as usize].set_place(channel, place);
            }
        }
    }

    /// Forgets a subscriber that is in no channel's list any more.
    fn forget(&mut self, key: u32) {
        let subscriber = self.subscribers.remove(key as usize);
        if subscriber.is(Flags::DIRTY) {
            self.dirty_many.retain(|dirty| *dirty != key);
        }
        let only = subscriber.only_channel();
        let Some(extra) = subscriber.extra else { return };
        if let Some(member) = &extra.member {
            for channel in only.into_iter().chain(extra.parts.iter().map(|part| part.channel)) {
                self.go(channel, member);
            }
        }
        if let (Some(claim), Some(name), Some(part)) = (extra.claim, extra.name, extra.parts.first()) {
            self.claims.remove(&claim.0);
            let channel = self.channels[part.channel as usize].name.clone();
            self.orders.push(Order::ReleaseName { channel, name, claim });
        }
    }

    /// How much a subscriber is given now.
    fn ration(&self) -> Ration {
        Ration { bytes_max: self.limits.batch_bytes_max, now: self.now }
    }

    fn channel_of(&self, part: &Part) -> &Channel {
        &self.channels[part.channel as usize]
    }

    fn channel_named(&self, name: &ChannelName) -> Option<&Channel> {
        self.names.get(name).map(|key| &self.channels[*key as usize])
    }

    fn callback(&self, key: u32) -> Option<Box<str>> {
        self.subscribers[key as usize].extra.as_ref().and_then(|extra| extra.callback.clone())
    }
}

#[cfg(test)]
mod tests;
