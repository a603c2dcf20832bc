//! Reports to loops which channels come into use and go out of use: at each change, and from time
//! to time while a channel is in use, for clients that have missed the change.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::peer::{Parcel, ToLoop};
use crate::core::message::ChannelName;
use crate::core::time::LoopTime;

#[derive(Debug)]
pub(super) struct ActivityWatch {
    period: Duration,
    /// The loops that watch. If there are none, nothing is recorded.
    loops: Vec<usize>,
    in_use: HashMap<ChannelName, Times>,
    /// The time at which to check each channel. Entries that differ from their channel's `check`
    /// are void.
    due: BinaryHeap<Reverse<(LoopTime, ChannelName)>>,
}

/// The times at which something is due for a channel in use.
#[derive(Debug)]
struct Times {
    /// The time of the next report.
    again: LoopTime,
    /// The time of the next check.
    check: LoopTime,
}

impl ActivityWatch {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, loops: Vec::new(), in_use: HashMap::new(), due: BinaryHeap::new() }
    }

    /// Changes the period, from the next report on.
    pub(super) fn set_period(&mut self, period: Duration) {
        self.period = period;
    }

    pub(super) fn is_on(&self) -> bool {
        !self.loops.is_empty()
    }

    /// Adds or removes a loop that watches.
    pub(super) fn set(&mut self, to: usize, wanted: bool) {
        self.loops.retain(|held| *held != to);
        if wanted {
            self.loops.push(to);
        } else if self.loops.is_empty() {
            self.in_use = HashMap::new();
            self.due = BinaryHeap::new();
        }
    }

    /// Reports that a channel is in use.
    pub(super) fn note(&mut self, channel: &ChannelName, now: LoopTime, outbox: &mut Vec<(usize, Parcel)>) {
        if !self.is_on() || self.in_use.contains_key(channel) {
            return;
        }
        let again = now.plus(self.period);
        self.in_use.insert(channel.clone(), Times { again, check: again });
        self.due.push(Reverse((again, channel.clone())));
        self.report(channel, true, outbox);
    }

    /// Schedules a check of a channel at that time, because it may go out of use.
    pub(super) fn check_at(&mut self, channel: &ChannelName, at: LoopTime) {
        if let Some(times) = self.in_use.get_mut(channel)
            && at < times.check
        {
            times.check = at;
            self.due.push(Reverse((at, channel.clone())));
        }
    }

    /// Reports that a channel is out of use.
    pub(super) fn remove(&mut self, channel: &ChannelName, outbox: &mut Vec<(usize, Parcel)>) {
        if self.in_use.remove(channel).is_some() {
            self.report(channel, false, outbox);
        }
    }

    /// Checks the channels that are due. `used_until` returns the end of a channel's use, as far as
    /// it is known.
    pub(super) fn sweep(
        &mut self,
        now: LoopTime,
        used_until: impl Fn(&ChannelName) -> LoopTime,
        outbox: &mut Vec<(usize, Parcel)>,
    ) {
        while self.due.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((at, channel))) = self.due.pop() else { break };
            let Some(times) = self.in_use.get_mut(&channel).filter(|times| times.check == at) else { continue };
            let until = used_until(&channel);
            if until <= now {
                self.remove(&channel, outbox);
                continue;
            }
            let is_again = times.again <= now;
            if is_again {
                times.again = now.plus(self.period);
            }
            times.check = times.again.min(until);
            self.due.push(Reverse((times.check, channel.clone())));
            if is_again {
                self.report(&channel, true, outbox);
            }
        }
    }

    fn report(&self, channel: &ChannelName, in_use: bool, outbox: &mut Vec<(usize, Parcel)>) {
        let message_to = |to: &usize| (*to, Parcel::Loop(ToLoop::Activity { channel: channel.clone(), in_use }));
        outbox.extend(self.loops.iter().map(message_to));
    }
}
