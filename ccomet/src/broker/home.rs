//! The home of channels: it numbers their messages, keeps their history, and passes them on to the loops that are
//! attached. Pure state; what it has to say is left in `said`.
//!
//! An attached loop is a cursor on the channel's log, as a subscriber is: nothing queues up for one that is slow.
//! It may have `deliveries_max` deliveries on their way; what comes after waits in the log, and is sent in one
//! delivery when it has acknowledged some. It keeps what the home keeps: what is dropped here, it is told to drop.

mod classic;
mod epochs;
mod gather;
mod history;
mod idle;
mod keys;
mod lookup;
mod owners;
mod presence;
mod publishing;
mod uses;
mod window;
mod work;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sealed::fault;
use slab::Slab;

use classic::Classic;
use epochs::Epochs;
use gather::{Followed, Gathering};
use idle::Idle;
pub(crate) use keys::KeyLimits;
use keys::Keys;
pub(crate) use owners::OwnerLimits;
use owners::Owners;
pub(crate) use presence::PresenceLimits;
use presence::{Leaving, Presence};
use uses::Signed;
use window::Link;
use work::Work;

use super::watch::Watch;
use super::{Command, Event, Now, Owner, Refusal, Ticket};
use crate::log::Log;
use crate::message::{ChannelName, Message};
use crate::position::Epoch;
use crate::rules::{RuleId, Rules};
use crate::time::LoopTime;

/// The part of the channels that the admin listener and clients of this machine alone may make.
const RESERVED_SHARE: usize = 16;

/// Channels looked at in one sweep, at least; all of them within about a minute.
const SWEEP_MIN: usize = 1024;
const SWEEP_ROUNDS: usize = 60;

/// What one home may keep.
#[derive(Debug, Clone)]
pub(crate) struct HomeLimits {
    pub(crate) rules: Arc<Rules>,
    pub(crate) channels_max: usize,
    pub(crate) patterns_max: usize,
    /// Messages on their way to all channels of a pattern.
    pub(crate) broadcasts_max: usize,
    /// On their way to one loop, and the bytes of their messages; a single one may have more.
    pub(crate) deliveries_max: usize,
    pub(crate) delivery_bytes_max: usize,
    /// Over all channels together, with what they take on the loops that are attached.
    pub(crate) history_bytes_max: usize,
    pub(crate) keys: KeyLimits,
    pub(crate) owners: OwnerLimits,
    pub(crate) presence: PresenceLimits,
    /// How long a channel without history and subscribers keeps its epoch.
    pub(crate) idle_max: Duration,
    /// How long one that is made of others does.
    pub(crate) linger: Duration,
    /// How long one without subscribers counts as in use.
    pub(crate) use_max: Duration,
}

#[derive(Debug)]
struct HomeChannel {
    name: ChannelName,
    epoch: Epoch,
    rule: RuleId,
    log: Log<Arc<Message>>,
    attached: Vec<Attachment>,
    /// What only clients of the classic API need.
    classic: Option<Box<Classic>>,
    touched: LoopTime,
    signed: Option<Box<Signed>>,
    /// The channel of a pattern.
    gathering: Option<Box<Gathering>>,
    /// Who is in it under a name.
    presence: Option<Box<Presence>>,
    dirty: bool,
    /// In the list of those whose loops are to hear what is kept no more.
    truncated: bool,
    /// Among those that were found idle.
    is_noted_idle: bool,
    owner: Owner,
}

impl HomeChannel {
    /// Whether it is made of others, and not published in.
    fn is_derived(&self) -> bool {
        self.gathering.is_some() || self.name.is_presence()
    }
}

/// A loop that gets the channel's messages.
#[derive(Debug)]
struct Attachment {
    to: usize,
    /// The number of the next message it needs.
    cursor: u64,
    /// Its subscribers, as it told last.
    subscribers: u32,
    /// In its link's queue, because its window was full.
    queued: bool,
}

#[derive(Debug)]
pub(crate) struct Home {
    limits: HomeLimits,
    /// The loop that this home is on; its deliveries are worked off in the same tick and need no window.
    own: usize,
    channels: Slab<HomeChannel>,
    names: HashMap<ChannelName, usize>,
    links: Vec<Link>,
    dirty: Vec<usize>,
    truncated: Vec<usize>,
    epochs: Epochs,
    idle: Idle,
    idle_patterns: Idle,
    bytes: usize,
    sweep_next: usize,
    /// Channels that keep something, and the first of them that is to give something up.
    with_history: BTreeSet<usize>,
    evict_next: usize,
    /// All that is kept was published in this tick.
    is_all_new: bool,
    /// Who wants to hear of channels in use.
    watch: Watch,
    /// Patterns that messages are passed on to, and how many have their home here.
    followed: Vec<Followed>,
    gatherings: usize,
    /// Channels that tell who comes and goes in another.
    presences: usize,
    leaving: Leaving,
    last_run: u64,
    keys: Keys,
    work: Work,
    owners: Owners,
    /// Events, each with the loop it is for.
    pub(crate) said: Vec<(usize, Event)>,
    /// Commands to the homes of these loops.
    pub(crate) sent: Vec<(usize, Command)>,
}

impl Home {
    pub(crate) fn new(limits: HomeLimits, own: usize, loops: usize) -> Self {
        Self {
            own,
            channels: Slab::new(),
            names: HashMap::new(),
            links: (0..loops).map(|_| Link::default()).collect(),
            dirty: Vec::new(),
            truncated: Vec::new(),
            epochs: Epochs::new(),
            idle: Idle::default(),
            idle_patterns: Idle::default(),
            bytes: 0,
            sweep_next: 0,
            with_history: BTreeSet::new(),
            evict_next: 0,
            is_all_new: false,
            watch: Watch::new(limits.use_max),
            followed: Vec::new(),
            gatherings: 0,
            presences: 0,
            leaving: Leaving::new(),
            last_run: 0,
            keys: Keys::new(limits.keys),
            work: Work::new(),
            owners: Owners::new(limits.owners),
            said: Vec::new(),
            sent: Vec::new(),
            limits,
        }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn add_to(&self, all: &mut crate::simulated::Holdings, seen: &mut crate::simulated::Seen) {
        all.channels += self.channels.len();
        all.channel_places += self.channels.capacity();
        all.names += self
            .channels
            .iter()
            .map(|(_, channel)| channel.classic.as_ref().map_or(0, |classic| classic.waiting.len()))
            .sum::<usize>();
        all.history_bytes += self.bytes;
        all.delivery_bytes += self.links.iter().map(Link::bytes).sum::<usize>();
        for (_, channel) in &self.channels {
            all.message_bytes += channel.log.since(0).map(|(_, message)| seen.count(message)).sum::<usize>();
        }
    }

    /// The most units of work that one tick has used.
    #[cfg(feature = "sim")]
    pub(crate) fn most_work(&self) -> usize {
        self.work.most
    }

    /// Takes a command from a loop.
    pub(crate) fn channels(&self) -> usize {
        self.channels.len() - self.gatherings - self.presences
    }

    pub(crate) fn command(&mut self, from: usize, now: Now, command: Command) {
        match command {
            Command::Publish { channel, messages, owner, ticket } => {
                self.publish(from, now, channel, messages, owner, ticket);
            }
            Command::Sign { channel, name } => self.sign(&channel, name),
            Command::Attach { channel, owner } => self.attach(from, now, channel, owner),
            Command::Sync { channel } => self.sync(from, channel),
            Command::Detach { channel } => self.detach(from, now, &channel),
            Command::Claim { channel, name, claim } => self.claim(from, &channel, name, claim),
            Command::Release { channel, name, claim } => self.release(from, &channel, &name, claim),
            Command::Delete { channel, ticket } => self.delete(from, &channel, ticket),
            Command::Clear { channel, ticket } => self.clear(from, &channel, ticket),
            Command::Follow { pattern, run } => self.follow(from, now, pattern, run),
            Command::Unfollow { pattern } => self.unfollow(from, &pattern),
            Command::Fill { pattern, run, entries } => self.fill(now, &pattern, run, entries),
            Command::Feed { pattern, run, entries } => self.feed(now, &pattern, run, entries),
            Command::Forget { pattern } => self.forget(&pattern),
            Command::Broadcast { order, ticket } => self.broadcast(from, now, order, ticket),
            Command::SignFor { channel, hold, token, ticket } => {
                self.sign_for(from, now, channel, hold, token, ticket);
            }
            Command::Admit { channel, token, ticket } => self.admit(from, &channel, token, ticket),
            Command::Read { channel, range, ticket } => self.read(from, now, &channel, range, ticket),
            Command::List { listing, ticket } => self.list(from, now, &listing, ticket),
            Command::Inspect { channel, ticket } => self.inspect(from, now, &channel, ticket),
            Command::Count { channel, subscribers } => self.count(from, now, &channel, subscribers),
            Command::Present { channel, id, connections } => self.present(from, now, &channel, &id, connections),
            Command::Who { channel, owner, ticket } => self.who(from, now, &channel, owner, ticket),
            Command::Watch { wanted } => self.set_watch(from, now, wanted),
            Command::Acknowledge { count } => self.acknowledge(from, count),
        }
    }

    /// Passes on what was published since the last call: one delivery for each channel and attached loop.
    pub(crate) fn flush(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let channel = &mut self.channels[key];
            channel.dirty = false;
            self.deliver_to_all(key);
        }
        // What was too much and had to stay until now.
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

    /// Sends each attached loop what it has not got yet, and tells it what is kept no more.
    fn deliver_to_all(&mut self, key: usize) {
        let channel = &mut self.channels[key];
        let signs = channel.classic.as_mut().map_or(Vec::new(), |classic| std::mem::take(&mut classic.signs));
        let is_truncated = std::mem::take(&mut channel.truncated);
        for attachment in &mut channel.attached {
            if attachment.cursor == channel.log.next() && signs.is_empty() && !is_truncated {
                continue;
            }
            if attachment.queued {
                // Sign-ins are for who waits at this moment: a loop that is so far behind does without.
                continue;
            }
            let link = &mut self.links[attachment.to];
            if attachment.to != self.own && !link.has_room(&self.limits) {
                attachment.queued = true;
                link.queue.push_back(key);
                continue;
            }
            let (delivery, bytes) = deliver(&channel.name, &channel.log, attachment, signs.clone());
            if attachment.to != self.own {
                link.sent(bytes);
            }
            self.said.push((attachment.to, delivery));
        }
    }

    /// Drops what has become too old, a share of the channels at a time.
    pub(crate) fn sweep(&mut self, now: Now) {
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
        self.watch.sweep(now.loop_time, used_until, &mut self.said);
        self.keys.sweep(now.time);
        self.sweep_presence(now);
        if self.channels.is_empty() {
            self.channels.shrink_to_fit();
            self.names.shrink_to_fit();
        }
    }

    fn attach(&mut self, from: usize, now: Now, name: ChannelName, owner: Owner) {
        let key = match self.open(now, name.clone(), owner) {
            Ok(key) => key,
            Err(why) => return self.say(from, Event::NotAttached { channel: name, owner, why }),
        };
        self.trim(key, now);
        if !self.defers_attaching(key, from) {
            self.attach_to(key, from);
        }
    }

    fn attach_to(&mut self, key: usize, from: usize) {
        let channel = &self.channels[key];
        let cursor = channel.log.next() + u64::from(channel.dirty && fault!("attaching-loop-misses-message"));
        self.change(key, |channel| {
            if let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) {
                attachment.cursor = cursor;
            } else {
                // Most channels are read on few loops.
                channel.attached.reserve_exact(1);
                channel.attached.push(Attachment { to: from, cursor, subscribers: 0, queued: false });
            }
        });
        let channel = &self.channels[key];
        let entries = channel.log.since(0).map(|(_, entry)| entry.clone()).collect();
        let (channel, epoch, first) = (channel.name.clone(), channel.epoch, channel.log.first());
        self.say(from, Event::Attached { channel, epoch, first, entries });
    }

    fn sync(&mut self, from: usize, name: ChannelName) {
        // Where it is gone, the loop has been told so, and with it all who wait for this.
        let Some(key) = self.names.get(&name).copied() else { return };
        if self.defers_sync(key, from) {
            return;
        }
        let channel = &mut self.channels[key];
        let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) else { return };
        let (first, entries) = catch_up(&channel.log, attachment);
        self.say(from, Event::Synced { channel: name, first, entries });
    }

    fn detach(&mut self, from: usize, now: Now, name: &ChannelName) {
        let Some(key) = self.names.get(name).copied() else { return };
        self.stop_deferring(key, from);
        self.all_gone(from, now, name);
        let channel = &mut self.channels[key];
        channel.touched = now.loop_time;
        if !fault!("loop-not-detached") {
            self.change(key, |channel| channel.attached.retain(|attachment| attachment.to != from));
        }
        let channel = &mut self.channels[key];
        self.watch.look_at(name, channel.used_until(&self.limits));
        if let Some(classic) = &mut channel.classic {
            classic.waiting.retain(|_, (held_by, _)| *held_by != from);
        }
        self.links[from].queue.retain(|queued| *queued != key);
        self.release_idle(key, now);
    }

    fn delete(&mut self, from: usize, name: &ChannelName, ticket: Ticket) {
        let key = self.names.get(name).copied();
        let next = key.map(|key| self.channels[key].log.next());
        if let Some(key) = key {
            self.forget_in_patterns(name);
            self.end(key);
        }
        if let Some(key) = self.names.get(&ChannelName::of_presence(name)).copied()
            && !fault!("movements-outlive-channel")
        {
            self.end(key);
        }
        self.say(from, Event::Ended { ticket, next });
    }

    /// Tells all loops that a channel is gone.
    fn end(&mut self, key: usize) {
        let attached = self.change(key, |channel| std::mem::take(&mut channel.attached));
        let name = &self.channels[key].name;
        let closed = |attachment: Attachment| (attachment.to, Event::Closed { channel: name.clone() });
        self.said.extend(attached.into_iter().map(closed));
        self.remove(key);
    }

    fn clear(&mut self, from: usize, name: &ChannelName, ticket: Ticket) {
        let key = self.names.get(name).copied();
        let next = key.map(|key| self.drop_history(key));
        if !fault!("pattern-remembers-cleared") {
            self.forget_in_patterns(name);
        }
        self.say(from, Event::Ended { ticket, next });
    }

    fn homes(&self) -> usize {
        self.links.len()
    }

    fn key_of(&self, name: &ChannelName) -> Option<usize> {
        self.names.get(name).copied()
    }

    fn gathering_mut(&mut self, key: usize) -> Option<&mut Gathering> {
        self.channels[key].gathering.as_deref_mut()
    }

    /// Channels that are published in.
    fn sources(&self) -> impl Iterator<Item = &HomeChannel> {
        self.channels.iter().map(|(_, channel)| channel).filter(|channel| !channel.is_derived())
    }

    fn acknowledge(&mut self, from: usize, count: u32) {
        let link = &mut self.links[from];
        link.acknowledged(count);
        while link.has_room(&self.limits) {
            let Some(key) = link.queue.pop_front() else { break };
            let channel = &mut self.channels[key];
            let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) else {
                continue;
            };
            attachment.queued = false;
            let (delivery, bytes) = deliver(&channel.name, &channel.log, attachment, Vec::new());
            link.sent(bytes);
            self.said.push((from, delivery));
        }
    }

    /// The channel of that name, made where it is not there, for a client that counts as its owner.
    fn open(&mut self, now: Now, name: ChannelName, owner: Owner) -> Result<usize, Refusal> {
        if let Some(key) = self.names.get(&name) {
            return Ok(*key);
        }
        if !self.owners.may_make(owner, name.is_pattern()) && !fault!("client-makes-any-number") {
            return Err(Refusal::ClientLimit);
        }
        // However many clients fill the server, its back end still makes channels.
        let leaves_room = owner.is_counted() && !fault!("no-room-for-back-end");
        let reserved = if leaves_room { self.limits.channels_max / RESERVED_SHARE } else { 0 };
        if self.channels.len() >= self.limits.channels_max - reserved && !self.make_room(now, false) {
            return Err(Refusal::ChannelLimit);
        }
        let gathering = if name.is_pattern() { Some(self.gather(now, &name)?) } else { None };
        let is_derived = gathering.is_some() || name.is_presence();
        let epoch = if is_derived { self.epochs.fresh(now) } else { self.epochs.of_absent(now, &name) };
        let key = self.channels.insert(HomeChannel {
            rule: self.limits.rules.find(&name),
            name: name.clone(),
            epoch,
            log: Log::starting_at(0),
            attached: Vec::new(),
            classic: None,
            touched: now.loop_time,
            signed: None,
            gathering,
            presence: None,
            dirty: false,
            truncated: false,
            is_noted_idle: false,
            owner,
        });
        self.presences += usize::from(name.is_presence());
        self.owners.made(owner, name.is_pattern());
        self.names.insert(name, key);
        Ok(key)
    }

    fn remove(&mut self, key: usize) {
        let channel = self.channels.remove(key);
        if !fault!("gone-channel-still-counts") {
            self.owners.gone(channel.owner, channel.name.is_pattern());
        }
        let is_spent = channel.log.next() > 0 || fault!("unused-epoch-spent");
        if is_spent && !fault!("epoch-not-renewed") {
            self.epochs.spend(&channel.name);
        }
        if channel.gathering.is_some() {
            self.disperse(&channel.name);
        }
        self.presences -= usize::from(channel.name.is_presence());
        self.skip_in_patterns(key);
        self.names.remove(&channel.name);
        self.watch.remove(&channel.name, &mut self.said);
        self.bytes -= channel.held_bytes();
        self.with_history.remove(&key);
        self.dirty.retain(|dirty| *dirty != key);
        self.truncated.retain(|truncated| *truncated != key);
        for link in &mut self.links {
            link.queue.retain(|queued| *queued != key);
        }
    }

    fn mark(&mut self, key: usize) {
        let channel = &mut self.channels[key];
        if !channel.dirty {
            channel.dirty = true;
            self.dirty.push(key);
        }
    }

    fn say(&mut self, to: usize, event: Event) {
        self.said.push((to, event));
    }
}

/// What a loop is sent, and the bytes of its messages.
fn deliver(
    name: &ChannelName,
    log: &Log<Arc<Message>>,
    attachment: &mut Attachment,
    signs: Vec<Arc<str>>,
) -> (Event, usize) {
    let (channel, kept_from) = (name.clone(), log.first());
    let (first, entries) = catch_up(log, attachment);
    if entries.is_empty() && signs.is_empty() {
        return (Event::Truncated { channel, kept_from }, 0);
    }
    let bytes = entries.iter().map(|message| message.cost()).sum();
    (Event::Appended { channel, first, entries, signs, kept_from }, bytes)
}

/// Everything from the attachment's cursor on, and the number of the first.
fn catch_up(log: &Log<Arc<Message>>, attachment: &mut Attachment) -> (u64, Vec<Arc<Message>>) {
    let first = attachment.cursor.max(log.first());
    attachment.cursor = log.next().saturating_sub(u64::from(fault!("loop-stops-one-short")));
    (first, log.since(first).map(|(_, entry)| entry.clone()).collect())
}
