//! The home of channels: it numbers their messages, keeps their history, and passes them on to the loops that are
//! attached. Pure state; what it has to say is left in `said`.
//!
//! An attached loop is a cursor on the channel's log, as a subscriber is: nothing queues up for one that is slow.
//! It may have `deliveries_max` deliveries on their way; what comes after waits in the log, and is sent in one
//! delivery when it has acknowledged some.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::{Claim, Command, Event, Now, Refusal, Ticket};
use crate::log::{HistoryLimits, Kept, Log};
use crate::message::{ChannelName, Message};
use crate::position::{Epoch, Spot};

/// Sign-ins passed on with one delivery; more in one tick are noise.
const SIGNS_MAX: usize = 256;

/// Channels looked at in one sweep, at least; all of them within about a minute.
const SWEEP_MIN: usize = 1024;
const SWEEP_ROUNDS: usize = 60;

/// What one home may keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HomeLimits {
    pub(crate) history: HistoryLimits,
    pub(crate) channels_max: usize,
    /// On their way to one loop.
    pub(crate) deliveries_max: usize,
    /// Over all channels together.
    pub(crate) history_bytes_max: usize,
    /// How long a channel without history and subscribers keeps its epoch.
    pub(crate) idle_max_ms: u64,
}

impl Kept for Arc<Message> {
    fn cost(&self) -> usize {
        Message::cost(self)
    }

    fn time_ms(&self) -> u64 {
        self.time_ms
    }
}

#[derive(Debug)]
struct HomeChannel {
    name: ChannelName,
    epoch: Epoch,
    log: Log<Arc<Message>>,
    attached: Vec<Attachment>,
    waiting: HashMap<Arc<str>, (usize, Claim)>,
    signs: Vec<Arc<str>>,
    touched_ms: u64,
    dirty: bool,
}

/// A loop that gets the channel's messages.
#[derive(Debug)]
struct Attachment {
    to: usize,
    /// The number of the next message it needs.
    cursor: u64,
    /// In its link's queue, because its window was full.
    queued: bool,
}

/// What is on its way to one loop.
#[derive(Debug, Default)]
struct Link {
    unacknowledged: u32,
    queue: VecDeque<usize>,
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
    last_epoch: Epoch,
    bytes: usize,
    sweep_next: usize,
    evict_next: usize,
    /// Events, each with the loop it is for.
    pub(crate) said: Vec<(usize, Event)>,
}

impl Home {
    pub(crate) fn new(limits: HomeLimits, own: usize, loops: usize) -> Self {
        Self {
            limits,
            own,
            channels: Slab::new(),
            names: HashMap::new(),
            links: (0..loops).map(|_| Link::default()).collect(),
            dirty: Vec::new(),
            last_epoch: Epoch(0),
            bytes: 0,
            sweep_next: 0,
            evict_next: 0,
            said: Vec::new(),
        }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn add_to(&self, all: &mut crate::simulated::Holdings) {
        all.channels += self.channels.len();
        all.names += self.channels.iter().map(|(_, channel)| channel.waiting.len()).sum::<usize>();
        all.history_bytes += self.bytes;
    }

    /// Takes a command from a loop.
    pub(crate) fn command(&mut self, from: usize, now: Now, command: Command) {
        match command {
            Command::Publish { channel, message, ticket } => self.publish(from, now, channel, message, ticket),
            Command::Sign { channel, name } => self.sign(now, channel, name),
            Command::Attach { channel } => self.attach(from, now, channel),
            Command::Sync { channel } => self.sync(from, channel),
            Command::Detach { channel } => self.detach(from, now, &channel),
            Command::Claim { channel, name, claim } => self.claim(from, &channel, name, claim),
            Command::Release { channel, name, claim } => self.release(from, &channel, &name, claim),
            Command::Delete { channel, ticket } => self.delete(from, &channel, ticket),
            Command::Acknowledge { count } => self.acknowledge(from, count),
        }
    }

    /// Passes on what was published since the last call: one delivery for each channel and attached loop.
    pub(crate) fn flush(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let channel = &mut self.channels[key];
            channel.dirty = false;
            let signs = std::mem::take(&mut channel.signs);
            for attachment in &mut channel.attached {
                let link = &mut self.links[attachment.to];
                if attachment.cursor == channel.log.next() && signs.is_empty() {
                    continue;
                }
                if attachment.queued {
                    // Sign-ins are for who waits at this moment: a loop that is so far behind does without.
                    continue;
                }
                if attachment.to != self.own {
                    if link.unacknowledged as usize >= self.limits.deliveries_max {
                        attachment.queued = true;
                        link.queue.push_back(key);
                        continue;
                    }
                    link.unacknowledged += 1;
                }
                let delivery = deliver(&channel.name, &channel.log, attachment, signs.clone());
                self.said.push((attachment.to, delivery));
            }
        }
        // What was too much and had to stay until now.
        self.evict();
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
            let channel = &self.channels[key];
            let idle = channel.attached.is_empty() && channel.log.is_empty() && !channel.dirty;
            if idle && now.unix_ms.saturating_sub(channel.touched_ms) >= self.limits.idle_max_ms {
                self.remove(key);
            }
        }
        if self.channels.is_empty() {
            self.channels.shrink_to_fit();
            self.names.shrink_to_fit();
        }
    }

    fn publish(&mut self, from: usize, now: Now, name: ChannelName, message: Message, ticket: Ticket) {
        let key = match self.open(now, name) {
            Ok(key) => key,
            Err(why) => return self.say(from, Event::Refused { ticket, why }),
        };
        let channel = &mut self.channels[key];
        self.bytes += message.cost();
        let number = channel.log.push(Arc::new(message));
        channel.touched_ms = now.unix_ms;
        let spot = Spot { epoch: channel.epoch, next: number + 1 };
        self.trim(key, now);
        self.mark(key);
        self.evict();
        self.say(from, Event::Accepted { ticket, spot });
    }

    fn sign(&mut self, now: Now, name: ChannelName, who: Arc<str>) {
        // At the limit nobody waits in a channel that is not there: there is nobody to be told.
        let Ok(key) = self.open(now, name) else { return };
        self.displace(key, &who);
        let channel = &mut self.channels[key];
        if channel.signs.len() < SIGNS_MAX && !channel.attached.is_empty() {
            channel.signs.push(who);
            self.mark(key);
        }
    }

    fn attach(&mut self, from: usize, now: Now, name: ChannelName) {
        let key = match self.open(now, name.clone()) {
            Ok(key) => key,
            Err(why) => return self.say(from, Event::NotAttached { channel: name, why }),
        };
        self.trim(key, now);
        let channel = &mut self.channels[key];
        let cursor = channel.log.next();
        if let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) {
            attachment.cursor = cursor;
        } else {
            // Most channels are read on few loops.
            channel.attached.reserve_exact(1);
            channel.attached.push(Attachment { to: from, cursor, queued: false });
        }
        let entries = channel.log.since(0).map(|(_, entry)| entry.clone()).collect();
        let (epoch, first) = (channel.epoch, channel.log.first());
        self.say(from, Event::Attached { channel: name, epoch, first, entries });
    }

    fn sync(&mut self, from: usize, name: ChannelName) {
        // Where it is gone, the loop has been told so, and with it all who wait for this.
        let Some(key) = self.names.get(&name) else { return };
        let channel = &mut self.channels[*key];
        let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) else { return };
        let (first, entries) = catch_up(&channel.log, attachment);
        self.say(from, Event::Synced { channel: name, first, entries });
    }

    fn detach(&mut self, from: usize, now: Now, name: &ChannelName) {
        let Some(key) = self.names.get(name) else { return };
        let channel = &mut self.channels[*key];
        channel.touched_ms = now.unix_ms;
        channel.attached.retain(|attachment| attachment.to != from);
        channel.waiting.retain(|_, (held_by, _)| *held_by != from);
        self.links[from].queue.retain(|queued| queued != key);
    }

    fn claim(&mut self, from: usize, name: &ChannelName, who: Arc<str>, claim: Claim) {
        let Some(key) = self.names.get(name).copied() else { return };
        self.displace(key, &who);
        self.channels[key].waiting.insert(who, (from, claim));
    }

    fn release(&mut self, from: usize, name: &ChannelName, who: &Arc<str>, claim: Claim) {
        let Some(key) = self.names.get(name).copied() else { return };
        let waiting = &mut self.channels[key].waiting;
        if waiting.get(who) == Some(&(from, claim)) {
            waiting.remove(who);
        }
    }

    fn delete(&mut self, from: usize, name: &ChannelName, ticket: Ticket) {
        let key = self.names.get(name).copied();
        if let Some(key) = key {
            let attached = std::mem::take(&mut self.channels[key].attached);
            for attachment in attached {
                self.say(attachment.to, Event::Closed { channel: name.clone() });
            }
            self.remove(key);
        }
        self.say(from, Event::Deleted { ticket, existed: key.is_some() });
    }

    fn acknowledge(&mut self, from: usize, count: u32) {
        let link = &mut self.links[from];
        link.unacknowledged = link.unacknowledged.saturating_sub(count);
        while (link.unacknowledged as usize) < self.limits.deliveries_max {
            let Some(key) = link.queue.pop_front() else { break };
            let channel = &mut self.channels[key];
            let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) else {
                continue;
            };
            attachment.queued = false;
            link.unacknowledged += 1;
            let delivery = deliver(&channel.name, &channel.log, attachment, Vec::new());
            self.said.push((from, delivery));
        }
    }

    /// The channel of that name, made where it is not there.
    fn open(&mut self, now: Now, name: ChannelName) -> Result<usize, Refusal> {
        if let Some(key) = self.names.get(&name) {
            return Ok(*key);
        }
        if self.channels.len() >= self.limits.channels_max {
            return Err(Refusal::ChannelLimit);
        }
        self.last_epoch = Epoch::new(now.unix_ms, now.random, self.last_epoch);
        let key = self.channels.insert(HomeChannel {
            name: name.clone(),
            epoch: self.last_epoch,
            log: Log::starting_at(0),
            attached: Vec::new(),
            waiting: HashMap::new(),
            signs: Vec::new(),
            touched_ms: now.unix_ms,
            dirty: false,
        });
        self.names.insert(name, key);
        Ok(key)
    }

    fn remove(&mut self, key: usize) {
        let channel = self.channels.remove(key);
        self.names.remove(&channel.name);
        self.bytes -= channel.log.bytes();
        self.dirty.retain(|dirty| *dirty != key);
        for link in &mut self.links {
            link.queue.retain(|queued| *queued != key);
        }
    }

    /// Drops what a channel may not keep any more.
    fn trim(&mut self, key: usize, now: Now) {
        let log = &mut self.channels[key].log;
        self.bytes -= log.bytes();
        log.trim(&self.limits.history, now.unix_ms);
        self.bytes += log.bytes();
    }

    fn mark(&mut self, key: usize) {
        let channel = &mut self.channels[key];
        if !channel.dirty {
            channel.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Ends the wait of whoever waits under that name.
    fn displace(&mut self, key: usize, who: &Arc<str>) {
        let channel = &mut self.channels[key];
        if let Some((to, claim)) = channel.waiting.remove(who) {
            self.say(to, Event::Displaced { claim });
        }
    }

    /// Drops the oldest message of one channel after the other until all together keep to their limit.
    fn evict(&mut self) {
        let mut looked_at = 0;
        while self.bytes > self.limits.history_bytes_max && looked_at <= self.channels.capacity() {
            looked_at += 1;
            let key = self.evict_next;
            self.evict_next = (self.evict_next + 1) % self.channels.capacity().max(1);
            let Some(channel) = self.channels.get_mut(key) else { continue };
            // What was published in this tick is not with its readers yet.
            if !channel.dirty && !channel.log.is_empty() {
                self.bytes -= channel.log.bytes();
                channel.log.drop_oldest();
                self.bytes += channel.log.bytes();
                looked_at = 0;
            }
        }
    }

    fn say(&mut self, to: usize, event: Event) {
        self.said.push((to, event));
    }
}

fn deliver(name: &ChannelName, log: &Log<Arc<Message>>, attachment: &mut Attachment, signs: Vec<Arc<str>>) -> Event {
    let (first, entries) = catch_up(log, attachment);
    Event::Appended { channel: name.clone(), first, entries, signs }
}

/// Everything from the attachment's cursor on, and the number of the first.
fn catch_up(log: &Log<Arc<Message>>, attachment: &mut Attachment) -> (u64, Vec<Arc<Message>>) {
    let first = attachment.cursor.max(log.first());
    attachment.cursor = log.next();
    (first, log.since(first).map(|(_, entry)| entry.clone()).collect())
}
