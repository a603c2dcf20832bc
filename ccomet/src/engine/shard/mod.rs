//! One loop's shard of the channels: it numbers their messages, keeps their history, and sends the
//! messages to the loops that follow the channels. This is pure state; its output is left in
//! `outbox`.
//!
//! A following loop has a cursor on the channel's log, as a subscriber has, so that nothing queues
//! for a slow loop. At most `deliveries_max` deliveries to a loop are in transit; later messages
//! wait in the log, and are sent in one delivery when the loop has acknowledged some. The loop
//! drops what the shard drops.

mod activity;
mod changes;
mod elsewhere;
mod epochs;
mod followers;
mod gate;
mod history;
mod idempotency;
mod idle;
mod lifetime;
mod limits;
mod lookup;
mod names;
mod owners;
mod pages;
mod pattern_breaks;
mod patterns;
mod peer_window;
mod presence;
mod publishing;
mod ranks;
mod reachability;
mod shared;
mod work;

use std::collections::HashMap;
use std::sync::Arc;

use sealed::fault;
use slab::Slab;

use activity::IssuedToken;
use changes::{Change, Stored};
use epochs::Epochs;
use followers::Follower;
use gate::{Entrant, Gate};
use idempotency::Idempotency;
use idle::Idle;
pub(crate) use limits::ShardLimits;
use names::Names;
use owners::{Counted, Owners};
use pages::{Fetch, Reading};
use patterns::{PatternChannel, PatternFeed};
use peer_window::PeerWindow;
use presence::{Leaving, Presence};
use publishing::Reach;
use reachability::Reachability;
use shared::SharedPayloads;
use work::Work;

use super::peer::{Parcel, ToLoop, ToShard};
use super::pending::RequestId;
use super::store::{ChannelPlace, Store};
use super::watch::ActivityWatch;
use super::{ChannelEvent, Order, Refusal, Reply, Request, Tick};
use crate::config::rules::RuleId;
use crate::core::message::{ChannelName, Message};
use crate::core::position::Epoch;
use crate::core::tally::EngineTally;
use crate::core::time::LoopTime;
use crate::core::window::MessageLog;

/// The divisor of `channels_max` for the share that is reserved for the admin listener and
/// loopback.
const RESERVED_SHARE: usize = 16;

/// The minimum number of channels that a sweep visits. Sweeps visit all channels within about half
/// a minute.
const SWEEP_MIN: usize = 1024;
const SWEEP_ROUNDS: usize = 30;

#[derive(Debug)]
struct ChannelState {
    name: ChannelName,
    epoch: Epoch,
    rule: RuleId,
    /// The newest messages: all that are kept, unless there is a `stored`.
    log: MessageLog<Arc<Message>>,
    stored: Option<Box<Stored>>,
    /// Its share of the payloads that it shares with other channels.
    shared_bytes: usize,
    /// The bytes of these payloads in its log.
    shared_length: usize,
    attached: Vec<Follower>,
    /// The names under which clients wait, and announcements.
    waits: Option<Box<Names>>,
    last_used: LoopTime,
    token: Option<Box<IssuedToken>>,
    /// The state of a pattern's channel.
    gathering: Option<Box<PatternChannel>>,
    /// The members of the channel.
    presence: Option<Box<Presence>>,
    dirty: bool,
    /// Set while `Shard::truncated` lists it.
    truncated: bool,
    /// Set while one of the lists of idle channels has it.
    is_noted_idle: bool,
    /// The accounts for which it counts.
    counted: Counted,
}

impl ChannelState {
    /// Returns whether its messages come from other channels or from presence, and not from
    /// publishers.
    fn is_derived(&self) -> bool {
        self.gathering.is_some() || self.name.is_presence()
    }

    fn place(&self) -> ChannelPlace<'_> {
        ChannelPlace { channel: &self.name, epoch: self.epoch, next: self.log.next() }
    }

    /// Returns the number of the oldest message kept, in memory or elsewhere, or of the next one if
    /// none is.
    fn kept_from(&self) -> u64 {
        self.stored.as_ref().map_or(self.log.first(), |stored| stored.kept_from)
    }
}

/// Identifies a request: the loop that sent it, and the loop's own id for it.
#[derive(Debug, Clone, Copy)]
struct Asker {
    from: usize,
    id: RequestId,
}

#[derive(Debug)]
pub(crate) struct Shard {
    limits: ShardLimits,
    /// The index of this shard's loop. Its deliveries are processed in the same tick and need no
    /// window.
    own: usize,
    channels: Slab<ChannelState>,
    names: HashMap<ChannelName, usize>,
    links: Vec<PeerWindow>,
    dirty: Vec<usize>,
    truncated: Vec<usize>,
    epochs: Epochs,
    idle: Idle,
    idle_patterns: Idle,
    /// The bytes of all channels, without the payloads of `shared`.
    bytes: usize,
    shared: SharedPayloads,
    sweep_next: usize,
    /// Set if all messages that eviction could drop were published in this tick.
    is_all_new: bool,
    /// The loops that watch which channels are in use.
    watch: ActivityWatch,
    /// The patterns to which this shard forwards messages.
    followed: Vec<PatternFeed>,
    /// The number of patterns on this shard.
    gatherings: usize,
    /// The number of presence channels.
    presences: usize,
    /// The number of members of all channels.
    members: usize,
    /// Messages that were dropped by the limits of their channels, and by the limit of all.
    trimmed: u64,
    evicted: u64,
    leaving: Leaving,
    last_run: u64,
    keys: Idempotency,
    pub(super) store: Box<dyn Store>,
    /// Set if the store keeps messages elsewhere than in memory.
    is_stored: bool,
    gate: Gate,
    reachability: Reachability,
    /// The bytes of the changes of all channels that wait for their turns.
    waiting_bytes: usize,
    /// The reads that the store has not finished.
    reads: Slab<Reading>,
    /// Reads for loops that have failed, until the next attempt.
    unread: Vec<Fetch>,
    /// The broadcasts in progress.
    broadcasts: Slab<Reach>,
    work: Work,
    owners: Owners,
    /// The output: each parcel with the index of its destination loop.
    pub(super) outbox: Vec<(usize, Parcel)>,
}

impl Shard {
    pub(crate) fn new(limits: ShardLimits, store: Box<dyn Store>, own: usize, loops: usize) -> Self {
        Self {
            own,
            channels: Slab::new(),
            names: HashMap::new(),
            links: (0..loops).map(|_| PeerWindow::default()).collect(),
            dirty: Vec::new(),
            truncated: Vec::new(),
            epochs: Epochs::after(store.last_epoch()),
            idle: Idle::default(),
            idle_patterns: Idle::default(),
            bytes: 0,
            shared: SharedPayloads::default(),
            sweep_next: 0,
            is_all_new: false,
            watch: ActivityWatch::new(limits.use_max),
            followed: Vec::new(),
            gatherings: 0,
            presences: 0,
            members: 0,
            trimmed: 0,
            evicted: 0,
            leaving: Leaving::new(),
            last_run: 0,
            keys: Idempotency::new(limits.keys),
            is_stored: store.window_max().is_some(),
            store,
            gate: Gate::default(),
            reachability: Reachability::Reachable,
            waiting_bytes: 0,
            reads: Slab::new(),
            unread: Vec::new(),
            broadcasts: Slab::new(),
            work: Work::new(),
            owners: Owners::new(limits.owners),
            outbox: Vec::new(),
            limits,
        }
    }

    /// Changes the limits. Channels stay; what they keep beyond a lower limit is dropped by the
    /// next sweeps.
    pub(crate) fn set_limits(&mut self, limits: ShardLimits) {
        if !limits.rules.apply_as(&self.limits.rules) {
            for (_, channel) in &mut self.channels {
                channel.rule = limits.rules.find(&channel.name);
            }
        }
        self.watch.set_period(limits.use_max);
        self.keys.set_limits(limits.keys);
        self.owners.set_limits(limits.owners);
        self.limits = limits;
    }

    #[cfg(feature = "sim")]
    pub(crate) fn add_to(&self, all: &mut crate::core::holdings::Holdings, seen: &mut crate::core::holdings::Seen) {
        all.channels += self.channels.len();
        all.channel_places += self.channels.capacity();
        all.names += self
            .channels
            .iter()
            .map(|(_, channel)| channel.waits.as_ref().map_or(0, |waits| waits.waiting.len()))
            .sum::<usize>();
        all.history_bytes += self.history_bytes();
        all.recounted_bytes += self.recount();
        all.shared_places += self.shared.places();
        all.opening += self.gate.waiting();
        all.delivery_bytes += self.links.iter().map(PeerWindow::bytes).sum::<usize>();
        let waiting = self.channels.iter().filter_map(|(_, channel)| channel.stored.as_ref());
        assert_eq!(waiting.map(|stored| stored.waiting_bytes()).sum::<usize>(), self.waiting_bytes);
        for (_, channel) in &self.channels {
            all.waiting_changes += channel.stored.as_ref().map_or(0, |stored| stored.waiting());
            all.message_bytes += channel.log.since(0).map(|(_, message)| seen.count(message)).sum::<usize>();
        }
    }

    /// Returns the maximum number of units of work that one tick has used.
    #[cfg(feature = "sim")]
    pub(crate) fn most_work(&self) -> usize {
        self.work.most
    }

    /// Returns the number of channels that accept messages from publishers.
    pub(crate) fn channels(&self) -> usize {
        self.channels.len() - self.gatherings - self.presences
    }

    /// Returns what the shard holds, and what it has dropped since the start.
    pub(super) fn tally(&self) -> EngineTally {
        EngineTally {
            channels: self.channels(),
            all_channels: self.channels.len(),
            patterns: self.gatherings,
            members: self.members,
            history_bytes: self.history_bytes(),
            keys: self.keys.len(),
            trimmed: self.trimmed,
            evicted: self.evicted,
        }
    }

    /// Handles a message from a loop.
    pub(super) fn take(&mut self, from: usize, now: Tick, message: ToShard) {
        match message {
            ToShard::Request(id, request) => self.enter(now, Entrant::Request(Asker { from, id }, request)),
            ToShard::Order(order) => self.enter(now, Entrant::Order(from, order)),
            ToShard::WatchActivity(wanted) => self.set_watch(from, now, wanted),
            ToShard::Pattern(message) => self.take_pattern(from, now, message),
            ToShard::Acknowledge(count) => self.acknowledge(from, count),
        }
    }

    fn request(&mut self, now: Tick, asker: Asker, request: Request) {
        match request {
            Request::Publish { channel, messages, owner } => self.publish(now, asker, channel, messages, owner),
            Request::Broadcast(order) => self.broadcast(now, asker, order),
            Request::Announce { channel, name } => {
                self.announce(&channel, name);
                self.reply(asker, Ok(Reply::Done));
            }
            Request::Delete { channel } => match self.key_of(&channel) {
                Some(key) => self.begin_change(now, key, Change::Delete(asker)),
                None => self.reply(asker, Ok(Reply::Ended(None))),
            },
            Request::Clear { channel } => match self.key_of(&channel) {
                Some(key) => self.begin_change(now, key, Change::Clear(asker)),
                None => self.reply(asker, Ok(Reply::Ended(None))),
            },
            Request::Read { channel, range } => self.read(now, asker, &channel, range),
            Request::List { listing } => self.list(now, asker, listing),
            Request::Inspect { channel } => self.inspect(now, asker, &channel),
            Request::Presence { channel, owner } => {
                let outcome = self.who_is_in(now, &channel, owner).map(Reply::Presence);
                self.reply(asker, outcome);
            }
            Request::IssueToken { channel, hold, token } => {
                let outcome = self.issue_token(now, channel, hold, token);
                self.reply(asker, outcome);
            }
            Request::CheckToken { channel, token } => {
                let is_right = self.has_token(&channel, token);
                self.reply(asker, Ok(Reply::TokenChecked(is_right)));
            }
        }
    }

    fn order(&mut self, from: usize, now: Tick, order: Order) {
        match order {
            Order::Open { channel, owner } => self.attach(from, now, channel, owner),
            Order::CatchUp { channel } => self.catch_up(from, channel),
            Order::Fetch { channel, epoch, from: begin } => {
                self.fetch(now, Fetch { to: from, channel, epoch, from: begin, failures: 0 });
            }
            Order::Close { channel } => self.detach(from, now, &channel),
            Order::AcquireName { channel, name, claim } => self.acquire_name(from, &channel, name, claim),
            Order::ReleaseName { channel, name, claim } => self.release_name(from, &channel, &name, claim),
            Order::SetSubscribers { channel, count } => self.count(from, now, &channel, count),
            Order::SetMember { channel, id, connections } => self.present(from, now, &channel, &id, connections),
        }
    }

    /// Sends the messages that were published since the last call: one delivery for each channel
    /// and following loop.
    pub(crate) fn flush(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let channel = &mut self.channels[key];
            channel.dirty = false;
            self.deliver_to_all(key);
        }
        // Messages over the limit had to stay until they were delivered.
        if !fault!("lone-channel-over-limit") {
            self.is_all_new = false;
            self.evict();
        }
        for key in std::mem::take(&mut self.truncated) {
            if self.channels[key].truncated {
                self.deliver_to_all(key);
            }
        }
    }

    /// Drops expired state, and messages that are too old, in a share of the channels at a time.
    pub(crate) fn sweep(&mut self, now: Tick) {
        let share = SWEEP_MIN.max(self.channels.len() / SWEEP_ROUNDS);
        for _ in 0..share.min(self.channels.capacity()) {
            let key = self.sweep_next;
            self.sweep_next = (self.sweep_next + 1) % self.channels.capacity().max(1);
            if !self.channels.contains(key) {
                continue;
            }
            self.trim(key, now);
            self.release_idle(key, now);
        }
        let (names, channels, limits) = (&self.names, &self.channels, &self.limits);
        let used_until = |name: &ChannelName| {
            names.get(name).map_or_else(LoopTime::default, |key| channels[*key].used_until(limits))
        };
        self.watch.sweep(now.loop_time, used_until, &mut self.outbox);
        self.keys.sweep(now.time);
        self.sweep_presence(now);
        self.fetch_again(now);
        if self.channels.is_empty() {
            self.channels.shrink_to_fit();
            self.names.shrink_to_fit();
            (self.idle, self.idle_patterns) = (Idle::default(), Idle::default());
            self.dirty.shrink_to_fit();
            self.truncated.shrink_to_fit();
        }
        if self.reads.is_empty() {
            self.reads.shrink_to_fit();
        }
        if self.broadcasts.is_empty() {
            self.broadcasts.shrink_to_fit();
        }
    }

    fn shards(&self) -> usize {
        self.links.len()
    }

    fn key_of(&self, name: &ChannelName) -> Option<usize> {
        self.names.get(name).copied()
    }

    fn gathering_mut(&mut self, key: usize) -> Option<&mut PatternChannel> {
        self.channels[key].gathering.as_deref_mut()
    }

    /// Returns the channels that accept messages from publishers.
    fn sources(&self) -> impl Iterator<Item = &ChannelState> {
        self.channels.iter().map(|(_, channel)| channel).filter(|channel| !channel.is_derived())
    }

    fn mark(&mut self, key: usize) {
        let channel = &mut self.channels[key];
        if !channel.dirty {
            channel.dirty = true;
            self.dirty.push(key);
        }
    }

    fn reply(&mut self, asker: Asker, outcome: Result<Reply, Refusal>) {
        self.outbox.push((asker.from, Parcel::Loop(ToLoop::Reply(asker.id, outcome))));
    }

    fn notify(&mut self, to: usize, channel: ChannelName, event: ChannelEvent) {
        self.outbox.push((to, Parcel::Loop(ToLoop::Channel(channel, event))));
    }
}
