//! The channels of one loop and their subscribers. This is pure state: subscriptions, events of the
//! engine and the time come in; output goes through a [`Sink`] to the subscribers and as [`Order`]s
//! to the engine.
//!
//! - `channel.rs`: a channel and its window; `older.rs`: messages before the window
//! - `opening.rs`: a channel from the order to open it to its end
//! - `subscriber.rs`: a subscriber and its cursor; `start.rs` and `leave.rs`: its start and its end
//! - `deliver.rs`: from the window to streams; `polls.rs`: replies to polls; `heartbeat.rs`: events
//!   without a message
//! - `sessions.rs`: several subscribers on one connection
//! - `encoder.rs`: the interface to the protocols; `encoded.rs`: a cache of encoded messages
//! - `followers.rs`: readers inside the process

mod channel;
mod deliver;
mod encoded;
mod encoder;
mod followers;
mod heartbeat;
mod leave;
mod limits;
mod older;
mod opening;
mod polls;
mod presence;
mod sessions;
mod sink;
mod slow;
mod start;
mod subscriber;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sealed::{ConnectionId, fault};
use slab::Slab;

use channel::Channel;
use encoded::Encoded;
pub(crate) use encoder::{
    Encoder, Encoders, Format, Gap, HeartbeatRule, Item, Label, PlacedMessage, PollOutcome, RefusedSubscription,
    Resolved, SessionRules, StreamEvent,
};
use followers::Followers;
pub(crate) use followers::{FollowerEvent, FollowerKey};
pub(crate) use limits::HubLimits;
use older::OlderPage;
use presence::ChangedMembers;
use sessions::Sessions;
pub(crate) use sink::{PollReply, ReplyBody, Sink};
use subscriber::{ChannelCursor, Subscriber, SubscriberDetails};
pub(crate) use subscriber::{Delivery, StartAt, SubscribeRequest};

use crate::core::message::{ChannelName, Message};
use crate::core::problem::Problem;
use crate::core::tally::HubTally;
use crate::core::time::UnixMillis;
use crate::engine::{ChannelEvent, Claim, Order};

/// The minimum number of channels that a sweep visits. Sweeps visit all channels within about half
/// a minute.
const SWEEP_MIN: usize = 1024;
const SWEEP_ROUNDS: usize = 30;

/// Identifies a subscriber to the owner of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriberKey(pub(crate) u32);

#[derive(Debug)]
pub(crate) struct Hub {
    limits: HubLimits,
    channels: Slab<Channel>,
    names: HashMap<ChannelName, u32>,
    subscribers: Slab<Subscriber>,
    /// The subscribers that were added to a connection.
    sessions: Sessions,
    followers: Followers,
    /// The subscribers that wait under a name, by the number of their claim.
    claims: HashMap<u64, u32>,
    last_claim: u64,
    /// The channels that have something to deliver.
    dirty: Vec<u32>,
    /// The subscribers of several channels that have something to deliver.
    dirty_many: Vec<u32>,
    /// The channels to truncate at the end of the tick: the key, the new `kept_from`, and the new
    /// start of the window.
    truncated: Vec<(u32, u64, u64)>,
    /// The channels with readers that have waited for a page, and are to be resumed.
    resuming: VecDeque<u32>,
    encoded: Encoded,
    /// The channels whose number of subscribers has changed.
    recount: Vec<u32>,
    /// The members whose number of connections has changed.
    changed_members: ChangedMembers,
    sweep_next: usize,
    /// The calendar time. Each public method sets it once; all other methods read it here.
    now: UnixMillis,
    /// Orders for the engine.
    pub(crate) orders: Vec<Order>,
    tally: HubTally,
    /// For each channel whose new messages were delivered in this tick, the time of the first.
    delivered: Vec<UnixMillis>,
}

impl Hub {
    pub(crate) fn new(limits: HubLimits) -> Self {
        Self {
            encoded: Encoded::new(limits.encoders, limits.encoded_bytes_max),
            truncated: Vec::new(),
            resuming: VecDeque::new(),
            limits,
            channels: Slab::new(),
            names: HashMap::new(),
            subscribers: Slab::new(),
            sessions: Sessions::default(),
            followers: Followers::default(),
            claims: HashMap::new(),
            last_claim: 0,
            dirty: Vec::new(),
            dirty_many: Vec::new(),
            recount: Vec::new(),
            changed_members: ChangedMembers::new(),
            sweep_next: 0,
            now: UnixMillis::default(),
            orders: Vec::new(),
            tally: HubTally::default(),
            delivered: Vec::new(),
        }
    }

    /// Changes the limits. Subscribers stay, also those beyond a lower limit.
    pub(crate) fn set_limits(&mut self, limits: HubLimits) {
        if !limits.rules.apply_as(&self.limits.rules) {
            for (_, channel) in &mut self.channels {
                channel.crowd_rule = limits.rules.find_for_readers(&channel.name);
            }
        }
        self.encoded.set_bytes_max(limits.encoded_bytes_max);
        self.limits = limits;
    }

    /// Returns the key that the next subscriber will have.
    pub(crate) fn next_key(&self) -> SubscriberKey {
        SubscriberKey(self.subscribers.vacant_key() as u32)
    }

    /// Returns whether there is something to flush.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
            || !self.dirty_many.is_empty()
            || !self.truncated.is_empty()
            || !self.resuming.is_empty()
            || !self.recount.is_empty()
            || !self.changed_members.is_empty()
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.len() + self.followers.len()
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Returns what its readers have been given since the start.
    pub(crate) fn tally(&self) -> &HubTally {
        &self.tally
    }

    /// Returns the bytes of encoded messages that it keeps.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.encoded.bytes()
    }

    /// Returns the channels whose new messages were delivered since the last call: for each, the
    /// time of the first of these messages.
    pub(crate) fn take_delivered(&mut self) -> impl Iterator<Item = UnixMillis> {
        self.delivered.drain(..)
    }

    #[cfg(feature = "sim")]
    pub(crate) fn add_to(&self, all: &mut crate::core::holdings::Holdings, seen: &mut crate::core::holdings::Seen) {
        all.subscribers += self.subscribers();
        all.claims += self.claims.len();
        all.attached_channels += self.channels.len();
        all.encoded_bytes += self.encoded.bytes();
        for (_, channel) in &self.channels {
            all.copied_messages += channel.log.len();
            all.message_bytes += channel.log.since(0).map(|(_, message)| seen.count(message)).sum::<usize>();
        }
    }

    /// Adds a subscription. It starts, through the sink, as soon as all of its channels are open. A
    /// subscription with a label is added to those of its connection, none of which may have the
    /// same label.
    pub(crate) fn subscribe(
        &mut self,
        peer: ConnectionId,
        subscription: SubscribeRequest,
        now: UnixMillis,
        sink: &mut impl Sink,
    ) -> Result<SubscriberKey, PollReply> {
        self.now = now;
        if self.subscribers() >= self.limits.subscribers_max {
            return Err(self.refuse(&subscription, Problem::SubscriberLimit));
        }
        let SubscribeRequest { channels, delivery, answer_at_once, member, owner, label } = subscription;
        let Delivery { format, target, name, beats } = delivery;
        // This precedes the opening of any channel, so that a refused subscription creates none.
        if let Some((channel, _)) = channels.iter().find(|(channel, _)| self.is_full(channel)) {
            return Err(self.refusal(format, channel, target.as_deref(), Problem::ChannelFull));
        }
        let encoder = self.limits.encoders.get(format);
        let mut cursors = Vec::with_capacity(channels.len());
        for (channel, start) in channels {
            let channel = self.channel(&channel, owner);
            let start = Some(start);
            cursors.push(ChannelCursor { channel, place: 0, next: 0, start, syncs: 0, is_from_oldest: false });
        }

        let key = self.subscribers.vacant_key() as u32;
        for cursor in &mut cursors {
            let channel = &mut self.channels[cursor.channel as usize];
            cursor.place = channel.subscribers.len() as u32;
            channel.subscribers.push(key);
            channel.mark_for_recount(cursor.channel, &mut self.recount);
            if cursor.is_behind(channel, encoder) {
                cursor.syncs = channel.catch_up(&mut self.orders);
            }
            if !channel.is_ready_for(cursor) {
                channel.rare_mut().starting.push(key);
            }
        }
        for cursor in &cursors {
            if let Some(member) = &member {
                self.add_connection(cursor.channel, member);
            }
        }
        let has_name = name.is_some();
        let details =
            SubscriberDetails { cursors, answer_at_once, turn: 0, target, name, claim: None, member, owner, label };
        self.subscribers.insert(Subscriber::new(peer, format, beats, details));
        if let Some(label) = label {
            self.sessions.add(peer, label, key);
        }
        if has_name {
            self.claim(key);
        }
        self.start_if_ready(key, sink);
        Ok(SubscriberKey(key))
    }

    /// Returns whether a subscriber is a stream, which needs heartbeats, or a poll, which ends.
    pub(crate) fn is_stream(&self, key: SubscriberKey) -> bool {
        self.subscribers.get(key.0 as usize).is_some_and(|subscriber| subscriber.format.is_stream())
    }

    /// Handles an event of a channel.
    pub(crate) fn event(&mut self, channel: &ChannelName, event: ChannelEvent, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        match event {
            ChannelEvent::Opened(window) => self.opened(channel, window, sink),
            ChannelEvent::Refused { owner, why } => self.refused(channel, owner, why, sink),
            ChannelEvent::Appended { first, entries, announcements, kept_from, window_from } => {
                self.appended(channel, first, entries, announcements, kept_from);
                self.truncate(channel, kept_from, window_from);
            }
            ChannelEvent::Truncated { .. } if fault!("truncation-ignored") && !channel.is_pattern() => {}
            ChannelEvent::Truncated { kept_from, window_from } => self.truncate(channel, kept_from, window_from),
            ChannelEvent::CaughtUp { first, entries, kept_from } => {
                self.appended(channel, first, entries, Vec::new(), kept_from);
                self.synced(channel, sink);
            }
            // A channel that waits for `Opened` is a successor of the channel that was closed.
            ChannelEvent::Closed if self.is_attaching(channel) => {}
            ChannelEvent::Closed => self.end_channel(channel, None, sink),
            ChannelEvent::Cleared { first } => self.cleared(channel, first, sink),
            ChannelEvent::Page { epoch, from, readable_from, end, kept_from, entries } => {
                let Some(key) = self.key_in(channel, epoch) else { return };
                self.take_older(key, OlderPage { from, readable_from, end, entries }, kept_from);
            }
            ChannelEvent::Restarted(window) => {
                let Some(key) = self.names.get(channel).copied() else { return };
                self.restart(key, window, sink);
            }
            ChannelEvent::Interrupted => self.set_interrupted(channel, true, sink),
            ChannelEvent::Resumed => self.set_interrupted(channel, false, sink),
        }
    }

    /// Ends the wait of a subscriber whose name another subscriber has taken.
    pub(crate) fn name_taken(&mut self, claim: Claim, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        if let Some(key) = self.claims.get(&claim.0).copied() {
            self.displace(key, sink);
        }
    }

    /// Ends a tick: delivers new messages to all subscribers, each from its cursor on.
    pub(crate) fn flush(&mut self, now: UnixMillis, sink: &mut impl Sink) {
        self.now = now;
        for key in std::mem::take(&mut self.dirty) {
            self.deliver_channel(key, sink);
        }
        for key in std::mem::take(&mut self.dirty_many) {
            self.deliver_many(key, sink);
        }
        for (key, kept_from, window_from) in std::mem::take(&mut self.truncated) {
            let Some(channel) = self.channels.get_mut(key as usize) else { continue };
            // If this loop was so slow that messages were skipped, the next delivery reports the
            // gap.
            if !fault!("loop-keeps-what-home-dropped") {
                channel.truncate(kept_from, window_from);
            }
        }
        self.resume_some(sink);
        self.report_counts();
        self.report_members();
    }

    /// Reports changed numbers of subscribers to the shards.
    fn report_counts(&mut self) {
        for key in std::mem::take(&mut self.recount) {
            if !self.channels.contains(key as usize) {
                continue;
            }
            let subscribers = self.readers(key) as u32;
            let channel = &mut self.channels[key as usize];
            let is_due = std::mem::take(&mut channel.recounting) && channel.takes_orders();
            if is_due && channel.reported != subscribers {
                channel.reported = subscribers;
                self.orders.push(Order::SetSubscribers { channel: channel.name.clone(), count: subscribers });
            }
        }
    }

    /// Closes channels without readers, and drops caches. The loop calls this about once a second.
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
            channel.forget_older();
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
            self.truncated.shrink_to_fit();
            self.recount.shrink_to_fit();
            self.delivered.shrink_to_fit();
        }
    }

    /// Returns the number of readers of a channel on this loop: clients, and readers inside the
    /// process.
    fn readers(&self, key: u32) -> usize {
        let inside = if fault!("readers-inside-not-counted") { 0 } else { self.followers.count(key) };
        self.channels[key as usize].subscribers.len() + inside
    }

    /// Returns whether a channel has the maximum number of readers.
    fn is_full(&self, name: &ChannelName) -> bool {
        // The limit is at least 1, so a channel without readers is not full.
        let Some(key) = self.names.get(name).copied() else { return false };
        let bounds = self.limits.rules.bounds(self.channels[key as usize].crowd_rule);
        self.readers(key) >= bounds.subscribers_max
    }

    fn appended(
        &mut self,
        name: &ChannelName,
        first: u64,
        entries: Vec<Arc<Message>>,
        announced: Vec<Arc<str>>,
        kept_from: u64,
    ) {
        let Some(key) = self.names.get(name).copied() else { return };
        let channel = &mut self.channels[key as usize];
        // `Opened` includes all that precedes it.
        if !channel.is_attached() {
            return;
        }
        channel.append(first, entries, kept_from);
        if !announced.is_empty() {
            channel.rare_mut().announced.extend(announced);
        }
        if !channel.dirty {
            channel.dirty = true;
            self.dirty.push(key);
        }
        self.wake_followers(key);
    }

    /// Truncates a channel at the end of this tick, after the delivery of new messages to
    /// subscribers that keep up.
    fn truncate(&mut self, name: &ChannelName, kept_from: u64, window_from: u64) {
        let Some(key) = self.names.get(name).copied() else { return };
        let channel = &self.channels[key as usize];
        // Messages were dropped before this loop received them: readers learn of the gap even if no
        // message follows, and fetch messages that are kept but no longer in memory.
        let known_to = if fault!("no-gap-without-message") { u64::MAX } else { channel.log.next() };
        let dropped_to = if fault!("kept-messages-not-fetched") { kept_from } else { kept_from.max(window_from) };
        if channel.is_attached() && known_to < dropped_to {
            return self.appended(name, dropped_to, Vec::new(), Vec::new(), kept_from);
        }
        if channel.is_attached() && (channel.kept_from < kept_from || channel.log.first() < window_from) {
            self.truncated.push((key, kept_from, window_from));
        }
    }

    /// Drops the messages of a channel before number `first`, after their delivery to subscribers
    /// that keep up.
    fn cleared(&mut self, name: &ChannelName, first: u64, sink: &mut impl Sink) {
        let Some(key) = self.names.get(name).copied() else { return };
        if !self.channels[key as usize].is_attached() {
            return;
        }
        self.deliver_channel(key, sink);
        for many in std::mem::take(&mut self.dirty_many) {
            self.deliver_many(many, sink);
        }
        self.channels[key as usize].truncate(first, first);
    }

    fn channel_named(&self, name: &ChannelName) -> Option<&Channel> {
        self.names.get(name).map(|key| &self.channels[*key as usize])
    }
}

#[cfg(test)]
mod tests;
