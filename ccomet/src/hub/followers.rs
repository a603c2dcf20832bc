//! Readers inside the process. The hub pushes nothing to them: they take the next message as it is
//! in the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sealed::fault;
use slab::Slab;

use super::channel::Channel;
use super::older::Waiter;
use super::start::cause_of;
use super::{Hub, StartAt};
use crate::core::message::{ChannelName, Message};
use crate::core::owner::Owner;
use crate::core::position::{Missed, Spot};
use crate::core::problem::Problem;
use crate::core::tally::GapCause;
use crate::core::time::UnixMillis;

/// Identifies a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FollowerKey(pub(super) u32);

/// The next event of a follower. `position` is the follower's position after the event, in each of
/// its channels.
#[derive(Debug)]
pub(crate) enum FollowerEvent {
    Started {
        position: Vec<Spot>,
    },
    Message {
        channel: ChannelName,
        message: Arc<Message>,
        position: Vec<Spot>,
    },
    Gap {
        channel: ChannelName,
        missed: Missed,
        position: Vec<Spot>,
    },
    /// A channel was closed or cannot be opened. This is the follower's last event.
    Ended {
        channel: ChannelName,
        problem: Option<Problem>,
    },
}

/// The followers of a hub.
#[derive(Debug, Default)]
pub(super) struct Followers {
    all: Slab<Follower>,
    by_channel: BTreeMap<u32, Vec<u32>>,
    /// The keys of followers that have something to take, without duplicates.
    ready: Vec<u32>,
}

#[derive(Debug)]
struct Follower {
    cursors: Vec<Cursor>,
    has_started: bool,
    is_ready: bool,
    /// Events that precede messages.
    first: VecDeque<FollowerEvent>,
    /// The index of the channel whose turn is next.
    turn: usize,
}

/// The place of a follower in one of its channels.
#[derive(Debug)]
struct Cursor {
    channel: u32,
    start: StartAt,
    next: u64,
    /// The number of the `CatchUp` order that must be answered before the start; 0 for none.
    syncs: u32,
}

impl Followers {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the number of followers of a channel.
    pub(super) fn count(&self, channel: u32) -> usize {
        self.by_channel.get(&channel).map_or(0, Vec::len)
    }

    /// Delays the followers that start beyond what is known of a channel until `CatchUp` order
    /// `sync` is answered. Returns whether there are any.
    pub(super) fn wait_for(&mut self, key: u32, channel: &Channel, sync: u32) -> bool {
        let mut is_any = false;
        for follower in self.by_channel.get(&key).into_iter().flatten() {
            let cursors = self.all.get_mut(*follower as usize).into_iter().flat_map(|follower| &mut follower.cursors);
            for cursor in cursors.filter(|cursor| cursor.channel == key && cursor.is_behind(channel)) {
                cursor.syncs = sync;
                is_any = true;
            }
        }
        is_any
    }

    fn mark_ready(&mut self, key: u32) {
        if let Some(follower) = self.all.get_mut(key as usize)
            && !std::mem::replace(&mut follower.is_ready, true)
        {
            self.ready.push(key);
        }
    }
}

impl Hub {
    /// Adds a follower of channels that are sorted by name, without duplicates.
    pub(crate) fn follow(
        &mut self,
        channels: &[(ChannelName, StartAt)],
        now: UnixMillis,
    ) -> Result<FollowerKey, Problem> {
        self.now = now;
        if self.subscribers() >= self.limits.subscribers_max {
            return Err(Problem::SubscriberLimit);
        }
        if channels.iter().any(|(name, _)| self.is_full(name)) {
            return Err(Problem::ChannelFull);
        }
        let mut cursors = Vec::with_capacity(channels.len());
        for (name, start) in channels {
            let channel = self.channel(name, Owner::default());
            cursors.push(Cursor { channel, start: *start, next: 0, syncs: 0 });
        }
        let key = self.followers.all.vacant_key() as u32;
        for cursor in &mut cursors {
            let channel = &mut self.channels[cursor.channel as usize];
            channel.mark_for_recount(cursor.channel, &mut self.recount);
            if cursor.is_behind(channel) {
                cursor.syncs = channel.catch_up(&mut self.orders);
            }
            self.followers.by_channel.entry(cursor.channel).or_default().push(key);
        }
        let first = VecDeque::new();
        self.followers.all.insert(Follower { cursors, has_started: false, is_ready: false, first, turn: 0 });
        self.start_follower(key);
        Ok(FollowerKey(key))
    }

    /// Removes a follower.
    pub(crate) fn unfollow(&mut self, key: FollowerKey, now: UnixMillis) {
        self.now = now;
        if let Some(follower) = self.followers.all.try_remove(key.0 as usize) {
            self.followers.ready.retain(|ready| *ready != key.0);
            self.leave_followed(key.0, &follower.cursors);
        }
    }

    /// Removes a follower from the lists of its channels.
    fn leave_followed(&mut self, key: u32, cursors: &[Cursor]) {
        for cursor in cursors {
            if let Some(followers) = self.followers.by_channel.get_mut(&cursor.channel) {
                followers.retain(|follower| *follower != key);
                if followers.is_empty() {
                    self.followers.by_channel.remove(&cursor.channel);
                }
            }
            let channel = &mut self.channels[cursor.channel as usize];
            channel.left = self.now;
            channel.mark_for_recount(cursor.channel, &mut self.recount);
        }
    }

    /// Returns whether any follower may have something to take.
    pub(crate) fn has_ready_followers(&self) -> bool {
        !self.followers.ready.is_empty()
    }

    /// Returns the followers that may have something to take, and clears the list.
    pub(crate) fn take_ready_followers(&mut self) -> Vec<FollowerKey> {
        let ready = std::mem::take(&mut self.followers.ready);
        for key in &ready {
            if let Some(follower) = self.followers.all.get_mut(*key as usize) {
                follower.is_ready = false;
            }
        }
        ready.into_iter().map(FollowerKey).collect()
    }

    /// Marks a follower that may have something to take.
    pub(crate) fn mark_follower_ready(&mut self, key: FollowerKey) {
        self.followers.mark_ready(key.0);
    }

    /// Takes the next event of a follower.
    pub(crate) fn next_for(&mut self, key: FollowerKey, now: UnixMillis) -> Option<FollowerEvent> {
        self.now = now;
        let follower = self.followers.all.get_mut(key.0 as usize)?;
        if let Some(event) = follower.first.pop_front() {
            return Some(event);
        }
        if !follower.has_started || follower.cursors.is_empty() {
            return None;
        }
        // The channels take turns, so that a busy channel does not block the others.
        let count = follower.cursors.len();
        let turn = if fault!("busy-channel-comes-first") { 0 } else { follower.turn };
        let mut older = Vec::new();
        for index in (turn..count).chain(0..turn) {
            let cursor = &mut follower.cursors[index];
            let channel = &self.channels[cursor.channel as usize];
            let Some(found) = cursor.advance(channel, now) else {
                older.push((cursor.channel, cursor.next));
                continue;
            };
            follower.turn = (index + 1) % count;
            let (channel, position) = (channel.name.clone(), spots(&self.channels, &follower.cursors));
            return Some(match found {
                Ok(message) => {
                    self.tally.deliveries += 1;
                    FollowerEvent::Message { channel, message, position }
                }
                Err((missed, cause)) => {
                    self.tally.note_gap(cause, missed.0);
                    FollowerEvent::Gap { channel, missed, position }
                }
            });
        }
        for (channel, next) in older {
            self.fetch_for(channel, Waiter::Follower(key.0), next);
        }
        None
    }

    /// Handles a restart of a channel's numbers: its followers may have missed something, and
    /// resume with the oldest message kept.
    pub(super) fn restart_followers(&mut self, channel: u32) {
        let Self { followers, channels, tally, .. } = self;
        for key in followers.by_channel.get(&channel).cloned().unwrap_or_default() {
            let follower = &mut followers.all[key as usize];
            if !follower.has_started {
                continue;
            }
            let state = &channels[channel as usize];
            for cursor in follower.cursors.iter_mut().filter(|cursor| cursor.channel == channel) {
                cursor.next = state.kept_from;
            }
            tally.note_gap(GapCause::Renumbered, None);
            let position = spots(channels, &follower.cursors);
            follower.first.push_back(FollowerEvent::Gap {
                channel: state.name.clone(),
                missed: Missed(None),
                position,
            });
            followers.mark_ready(key);
        }
    }

    /// Wakes the followers of a channel that was opened or has something new.
    pub(super) fn wake_followers(&mut self, channel: u32) {
        for key in self.followers.by_channel.get(&channel).cloned().unwrap_or_default() {
            if self.followers.all[key as usize].has_started {
                self.followers.mark_ready(key);
            } else {
                self.start_follower(key);
            }
        }
    }

    /// Ends the followers of a channel. The end is the last event that they take.
    pub(super) fn end_followers(&mut self, channel: u32, problem: Option<Problem>) {
        for key in self.followers.by_channel.get(&channel).cloned().unwrap_or_default() {
            let follower = &mut self.followers.all[key as usize];
            let cursors = std::mem::take(&mut follower.cursors);
            let name = self.channels[channel as usize].name.clone();
            follower.first.push_back(FollowerEvent::Ended { channel: name, problem });
            self.leave_followed(key, &cursors);
            self.followers.mark_ready(key);
        }
    }

    /// Starts a follower once all of its channels are open.
    fn start_follower(&mut self, key: u32) {
        let Self { followers, channels, tally, .. } = self;
        let follower = &mut followers.all[key as usize];
        let mut is_ready = true;
        for cursor in &mut follower.cursors {
            let is_caught_up = channels[cursor.channel as usize].is_caught_up(cursor.syncs);
            // From here on the follower waits at most for other channels, and this channel may
            // start to count its orders anew.
            cursor.syncs = if is_caught_up { 0 } else { cursor.syncs };
            is_ready &= is_caught_up;
        }
        if !is_ready {
            return;
        }
        follower.has_started = true;
        let mut gaps = Vec::new();
        // Until a gap is reported, the position does not cover it.
        let mut position = Vec::with_capacity(follower.cursors.len());
        for (index, cursor) in follower.cursors.iter_mut().enumerate() {
            let channel = &channels[cursor.channel as usize];
            let (next, missed) = resolve(channel, cursor.start);
            cursor.next = next;
            position.push(channel.spot(next));
            if let (Some(missed), StartAt::After(from)) = (missed, cursor.start) {
                gaps.push((index, missed, channel.spot(next)));
                if !fault!("start-inside-covers-gap") {
                    position[index] = from;
                }
            }
        }
        follower.first.push_back(FollowerEvent::Started { position: position.clone() });
        for (index, missed, behind) in gaps {
            tally.note_gap(cause_of(missed), missed.0);
            position[index] = behind;
            let channel = channels[follower.cursors[index].channel as usize].name.clone();
            follower.first.push_back(FollowerEvent::Gap { channel, missed, position: position.clone() });
        }
        followers.mark_ready(key);
    }
}

impl Cursor {
    /// Returns whether its start is beyond what this loop knows of its channel.
    fn is_behind(&self, channel: &Channel) -> bool {
        matches!(self.start, StartAt::After(spot) if channel.is_behind_spot(spot)) && !fault!("unheard-position-is-gap")
    }

    /// Advances to the next message or gap, and returns it.
    fn advance(&mut self, channel: &Channel, now: UnixMillis) -> Option<Result<Arc<Message>, (Missed, GapCause)>> {
        let (available_from, cause) = (channel.available_from(self.next), channel.cause_of_gap(self.next));
        let missed = available_from.saturating_sub(self.next);
        self.next = self.next.max(available_from);
        if missed > 0 && !fault!("no-gap-for-fallen-follower") {
            return Some(Err((Missed(Some(missed)), cause)));
        }
        if !fault!("expired-told-inside") {
            self.next = channel.skip_expired(self.next, now);
        }
        let message = channel.entry(self.next)?;
        self.next += 1;
        Some(Ok(message.clone()))
    }
}

/// Returns where a start is in a channel, and the messages after it that are lost.
fn resolve(channel: &Channel, start: StartAt) -> (u64, Option<Missed>) {
    let (first, next) = (channel.kept_from, channel.log.next());
    match start {
        StartAt::Oldest => (first, None),
        StartAt::After(spot) if Some(spot.epoch) == channel.epoch() && spot.next <= next => {
            let missed = first.saturating_sub(spot.next);
            (spot.next.max(first), (missed > 0).then_some(Missed(Some(missed))))
        }
        StartAt::After(_) => (first, Some(Missed(None))),
        // Followers use no other start than these and `Start::Latest`.
        _ => (next, None),
    }
}

fn spots(channels: &Slab<Channel>, cursors: &[Cursor]) -> Vec<Spot> {
    cursors.iter().map(|cursor| channels[cursor.channel as usize].spot(cursor.next)).collect()
}
