//! The life of a connection: it greets Redis, reads what was missed, and goes on with the changes
//! that were in progress.

use std::collections::VecDeque;

use sealed::fault;
use tracing::info;

use super::mirror::{InProgress, Mirror, OwnedChange};
use super::replies::{ChannelReply, StreamEntry};
use super::{Call, LinkEvent, Outage, Pending, RedisStore, WAIT_MAX};
use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::engine::store::{NotKept, NumberedMessage, Outcome, PartRange, Unreadable};
use crate::engine::{Tick, Window};

/// The number of channels that catch up at a time, and the limits of one part that they read.
const AT_A_TIME: usize = 500;
const PART_MESSAGES_MAX: usize = 500;
const PART_BYTES_MAX: usize = 256 * 1024;

/// A connection to Redis.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    /// The process of Redis.
    pub(super) run: Box<str>,
    /// The generation, which Redis returns when it is greeted.
    pub(super) generation: Option<u64>,
    /// The channels that are to catch up, and the number of those that do.
    waiting: VecDeque<ChannelName>,
    under_way: usize,
}

impl RedisStore {
    pub(super) fn on_event(&mut self, now: Tick, event: LinkEvent) {
        match event {
            LinkEvent::Up { connection, run_id } => self.connected(connection, run_id),
            LinkEvent::Down => self.disconnected(now),
            // They are of a connection that this store has given up.
            LinkEvent::Reply(_) | LinkEvent::Push(_) if self.connection.is_none() => {}
            LinkEvent::Reply(value) => {
                if let Err(why) = self.on_reply(now, value) {
                    self.reset(now, why);
                }
            }
            LinkEvent::Push(elements) => self.on_push(elements),
        }
    }

    fn connected(&mut self, number: u64, run: Box<str>) {
        self.connection = Some(Connection { number, run, generation: None, waiting: VecDeque::new(), under_way: 0 });
        self.greet(Pending::Greeting);
    }

    fn greet(&mut self, pending: Pending) {
        let Some(connection) = &self.connection else { return };
        let call = Call::new("ccomet1_hello").key(self.keys.generation()).arg(connection.run.as_bytes());
        self.call(pending, &call);
    }

    /// Compares the generation again, and extends the time of some channels in Redis.
    pub(super) fn make_round(&mut self, now: Tick) {
        self.next_round = now.loop_time.plus(super::ROUND);
        self.greet(Pending::Check);
        self.touch_some();
        if self.settings.index == 0 {
            let call = Call::new("ccomet1_sweep").key(self.keys.list());
            let call = call.arg(self.keys.state("")).arg(self.swept.as_bytes()).number(super::SWEPT_PER_ROUND);
            self.call(Pending::Sweep, &call);
        }
    }

    fn touch_some(&mut self) {
        if self.to_touch.is_empty() {
            self.to_touch = self.channels.keys().cloned().collect();
        }
        let count = self.channels.len().div_ceil(super::ROUNDS_PER_TOUCH);
        let first = self.to_touch.len().saturating_sub(count);
        let names: Vec<ChannelName> = self.to_touch.drain(first..).collect();
        if names.is_empty() {
            return;
        }
        let keys = names.iter().flat_map(|name| [self.keys.state(name.as_str()), self.keys.stream(name.as_str())]);
        let call = keys.fold(self.begin("ccomet1_touch"), Call::key).number(self.ttl());
        self.call(Pending::Ignored, &call);
    }

    /// Handles the loss of the connection.
    pub(super) fn disconnected(&mut self, now: Tick) {
        if self.connection.take().is_none() {
            return;
        }
        self.batch = (Vec::new(), 0);
        for mirror in self.channels.values_mut() {
            mirror.is_current = false;
        }
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Part { read, .. } => self.outcomes.push_back(Outcome::Page { read, part: Err(Unreadable) }),
                Pending::Names { read, .. } => {
                    self.outcomes.push_back(Outcome::Names { read, names: Err(Unreadable), has_more: false });
                }
                // The channels are opened, and the changes settled, on the next connection.
                _ => {}
            }
        }
        if self.outage.is_some_and(|outage| outage.is_given_up) {
            self.refuse_openings();
        }
        if self.outage.is_none() {
            self.outage = Some(Outage { since: Some(now.loop_time), is_given_up: false });
            self.outcomes.push_back(Outcome::CutOff);
        }
    }

    /// Refuses what waits if Redis has been unreachable for too long.
    pub(super) fn note_outage(&mut self, now: Tick) {
        let Some(outage) = &mut self.outage else { return };
        let since = *outage.since.get_or_insert(now.loop_time);
        if outage.is_given_up || now.loop_time < since.plus(WAIT_MAX) {
            return;
        }
        outage.is_given_up = true;
        // A connection that is catching up goes on with them.
        if self.generation().is_none() {
            self.refuse_openings();
        }
        let mut refused = Vec::new();
        for (channel, mirror) in &mut self.channels {
            refused.extend(mirror.in_progress.take_if(|_| !mirror.is_current).map(|own| (channel.clone(), own)));
        }
        refused.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (channel, own) in refused {
            self.refuse(&channel, own);
        }
        self.outcomes.push_back(Outcome::GivenUp);
    }

    fn refuse_openings(&mut self) {
        for channel in std::mem::take(&mut self.opening).into_keys() {
            self.outcomes.push_back(Outcome::Opened { channel, kept: Err(Unreadable) });
        }
    }

    /// Handles the reply to the greeting of a connection.
    pub(super) fn greeted(&mut self, now: Tick, generation: u64, redis_time: u64) {
        self.ahead = redis_time.cast_signed().wrapping_sub(now.time.as_millis().cast_signed());
        let Some(connection) = &mut self.connection else { return };
        connection.generation = Some(generation);
        let mut names: Vec<ChannelName> = self.channels.keys().chain(self.opening.keys()).cloned().collect();
        names.sort_unstable();
        connection.waiting = names.into();
        for pattern in self.patterns.clone() {
            let topic = self.keys.topics_of(&pattern);
            self.subscribe("PSUBSCRIBE", &topic);
        }
        self.catch_up_on();
    }

    /// Lets more channels catch up. The outage ends with the last of them.
    fn catch_up_on(&mut self) {
        loop {
            let Some(connection) = &mut self.connection else { return };
            if connection.under_way >= AT_A_TIME {
                return;
            }
            let Some(channel) = connection.waiting.pop_front() else { break };
            if let Some(creates) = self.opening.get(&channel).copied().filter(|_| !fault!("redis-opening-lost")) {
                self.send_open(Pending::Open { channel: channel.clone() }, &channel, creates);
            } else if self.channels.contains_key(&channel) {
                connection.under_way += 1;
                let topic = self.keys.topic(channel.as_str());
                if !fault!("redis-not-subscribed-again") {
                    self.subscribe("SUBSCRIBE", &topic);
                }
                self.read_missed(&channel);
            }
        }
        let is_done = self.connection.as_ref().is_some_and(|connection| connection.under_way == 0);
        if is_done && self.outage.take().is_some() {
            info!(channels = self.channels.len(), "Redis is connected");
            self.outcomes.push_back(Outcome::Back);
        }
    }

    /// Reads what a channel has missed.
    pub(super) fn read_missed(&mut self, channel: &ChannelName) {
        let Some((epoch, begin)) = self.channels.get(channel).map(|mirror| (mirror.epoch, mirror.next())) else {
            return self.caught_up();
        };
        let (limit, bytes_max) = (PART_MESSAGES_MAX, PART_BYTES_MAX);
        let call = self.read_call(channel, epoch, PartRange { begin, is_backward: false, limit, bytes_max });
        self.call(Pending::CatchUp { channel: channel.clone() }, &call);
    }

    /// Processes what a channel has missed; `None` if it does not exist any more.
    pub(super) fn missed(&mut self, channel: &ChannelName, reply: Option<ChannelReply>) {
        // The shard may have unloaded it meanwhile.
        let Some(mirror) = self.channels.get_mut(channel) else { return self.caught_up() };
        let Some(reply) = reply.filter(|reply| reply.epoch == mirror.epoch) else {
            return self.send_open_only(Pending::Restart { channel: channel.clone() }, channel, true);
        };
        if reply.first > mirror.next() {
            // Messages between are gone. The window after them is all that is kept.
            return self.send_open_only(Pending::Restart { channel: channel.clone() }, channel, true);
        }
        mirror.note_oldest(reply.first);
        self.append_missed(channel, reply.entries);
        if reply.has_more {
            return self.read_missed(channel);
        }
        if let Some(mirror) = self.channels.get_mut(channel) {
            // The last messages may have been cleared.
            if mirror.next() < reply.next {
                return self.send_open_only(Pending::Restart { channel: channel.clone() }, channel, true);
            }
            if reply.first == reply.next && mirror.kept_from() < reply.next {
                mirror.clear();
                self.outcomes.push_back(Outcome::Cleared { channel: channel.clone() });
            }
        }
        self.settle_found(channel);
        self.go_on(channel);
    }

    /// Appends entries of a stream to a channel, and finds those of the change in progress.
    fn append_missed(&mut self, channel: &ChannelName, entries: Vec<StreamEntry>) {
        let mut others = Vec::new();
        for entry in entries {
            let Some(mirror) = self.channels.get_mut(channel) else { return };
            if entry.number != mirror.next() {
                continue;
            }
            let (number, message) = (entry.number, self.message(&entry.message, entry.time));
            let window_max = self.settings.window_max;
            let Some(mirror) = self.channels.get_mut(channel) else { return };
            mirror.push(&message, window_max);
            match &mut mirror.in_progress {
                Some(own) if *own.token.as_bytes() == *entry.token && !fault!("redis-change-not-found") => {
                    own.found.push(NumberedMessage { number, message, is_known: false });
                    self.pass_appended(channel, &mut others);
                }
                _ => {
                    self.settle_found(channel);
                    others.push((number, message));
                }
            }
        }
        self.pass_appended(channel, &mut others);
    }

    /// Reports the append in progress as kept if all its messages were found. If only some are in
    /// the stream, the others were known under their keys, and it is not known where they are.
    fn settle_found(&mut self, channel: &ChannelName) {
        let Some(mirror) = self.channels.get_mut(channel) else { return };
        let Some(own) = mirror.in_progress.take_if(|own| !own.found.is_empty()) else { return };
        if own.found.len() == own.messages().len() {
            return self.outcomes.push_back(Outcome::Numbered { channel: channel.clone(), messages: own.found });
        }
        self.refuse(channel, own);
    }

    /// Refuses the change in progress of a channel. Its messages that were found in the stream are
    /// there nevertheless.
    fn refuse(&mut self, channel: &ChannelName, own: InProgress) {
        self.outcomes.push_back(Outcome::Changed { channel: channel.clone(), kept: Err(NotKept::Unavailable) });
        let mut found = own.found.into_iter().map(|found| (found.number, found.message)).collect();
        self.pass_appended(channel, &mut found);
    }

    /// Processes the newest messages of a channel whose numbers have begun anew, or of which
    /// messages are missing.
    pub(super) fn restarted(&mut self, channel: &ChannelName, reply: ChannelReply) {
        if !self.channels.contains_key(channel) {
            return self.caught_up();
        }
        let window = self.window(reply);
        self.restart(channel, window);
        if let Some(mirror) = self.channels.get_mut(channel)
            && let Some(own) = &mut mirror.in_progress
        {
            // What was found is in the window.
            (own.may_be_lost, own.found) = (true, Vec::new());
        }
        self.go_on(channel);
    }

    /// Continues a channel with a window of other numbers. Within a generation, a channel has
    /// another epoch only if it was removed. In a new one, messages may be lost.
    pub(super) fn restart(&mut self, channel: &ChannelName, window: Window) {
        let generation = self.generation().unwrap_or_default();
        let Some(mirror) = self.channels.get_mut(channel) else { return };
        let is_other = mirror.epoch != window.epoch && mirror.generation == generation;
        mirror.generation = generation;
        mirror.restart(window.epoch, window.kept_from, window.first);
        for message in &window.entries {
            mirror.push(message, self.settings.window_max);
        }
        let channel = channel.clone();
        self.outcomes.push_back(if is_other {
            Outcome::Replaced { channel, window }
        } else {
            Outcome::Restarted { channel, window }
        });
    }

    /// Continues with the change in progress of a channel that has caught up. It is sent again if
    /// Redis does not have it for certain.
    fn go_on(&mut self, channel: &ChannelName) {
        let generation = self.generation().unwrap_or_default();
        if let Some(mirror) = self.channels.get_mut(channel) {
            mirror.is_current = true;
            mirror.generation = generation;
            let is_open =
                |own: &InProgress| own.is_sent && (own.may_be_lost || !matches!(own.change, OwnedChange::Append(_)));
            if let Some(own) = mirror.in_progress.take_if(|own| is_open(own)) {
                self.refuse(channel, own);
            } else if mirror.in_progress.is_some() && !fault!("redis-change-not-repeated") {
                self.send_change(channel);
            }
        }
        self.has_passed_barrier(channel, self.last_barrier);
        self.caught_up();
    }

    /// Notes that a channel has caught up, or is followed no more.
    fn caught_up(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.under_way = connection.under_way.saturating_sub(1);
        }
        self.catch_up_on();
    }

    /// Reads again what a channel may have missed, although the connection was not lost.
    pub(super) fn look_again(&mut self, channel: &ChannelName) {
        let Some(mirror) = self.channels.get_mut(channel) else { return };
        mirror.is_current = false;
        if let Some(connection) = &mut self.connection {
            connection.under_way += 1;
        }
        self.read_missed(channel);
    }

    /// Adds a channel that was opened.
    pub(super) fn add(&mut self, channel: &ChannelName, window: &Window) {
        let mut mirror = Mirror::new(window.epoch, window.kept_from, window.first);
        for message in &window.entries {
            mirror.push(message, self.settings.window_max);
        }
        mirror.generation = self.generation().unwrap_or_default();
        self.channels.insert(channel.clone(), mirror);
    }

    /// Returns the epoch of a channel that the shard has in memory.
    pub(super) fn epoch_of(&self, channel: &ChannelName) -> Option<Epoch> {
        self.channels.get(channel).map(|mirror| mirror.epoch)
    }
}
