//! Tells loops of the channels that come into use and go out of it: once at each change, and again from time to time
//! while they are, for who may have missed it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::Event;
use crate::message::ChannelName;

#[derive(Debug)]
pub(super) struct Watch {
    period_ms: u64,
    /// The loops that want to hear of it. While there are none, nothing is kept.
    loops: Vec<usize>,
    in_use: HashMap<ChannelName, Times>,
    /// When to look at which of them. What is not at its channel's `look_ms` counts no more.
    due: BinaryHeap<Reverse<(u64, ChannelName)>>,
}

/// What is to come of a channel in use.
#[derive(Debug)]
struct Times {
    /// When it is told again.
    again_ms: u64,
    /// When it is looked at.
    look_ms: u64,
}

impl Watch {
    pub(super) fn new(period_ms: u64) -> Self {
        Self { period_ms, loops: Vec::new(), in_use: HashMap::new(), due: BinaryHeap::new() }
    }

    pub(super) fn is_on(&self) -> bool {
        !self.loops.is_empty()
    }

    /// Adds a loop, or takes it away.
    pub(super) fn set(&mut self, to: usize, wanted: bool) {
        self.loops.retain(|held| *held != to);
        if wanted {
            self.loops.push(to);
        } else if self.loops.is_empty() {
            self.in_use = HashMap::new();
            self.due = BinaryHeap::new();
        }
    }

    /// A channel is in use.
    pub(super) fn note(&mut self, channel: &ChannelName, now_ms: u64, said: &mut Vec<(usize, Event)>) {
        if !self.is_on() || self.in_use.contains_key(channel) {
            return;
        }
        let again_ms = now_ms.saturating_add(self.period_ms);
        self.in_use.insert(channel.clone(), Times { again_ms, look_ms: again_ms });
        self.due.push(Reverse((again_ms, channel.clone())));
        self.say(channel, true, said);
    }

    /// A channel may go out of use then.
    pub(super) fn look_at(&mut self, channel: &ChannelName, at_ms: u64) {
        if let Some(times) = self.in_use.get_mut(channel)
            && at_ms < times.look_ms
        {
            times.look_ms = at_ms;
            self.due.push(Reverse((at_ms, channel.clone())));
        }
    }

    /// A channel is gone.
    pub(super) fn remove(&mut self, channel: &ChannelName, said: &mut Vec<(usize, Event)>) {
        if self.in_use.remove(channel).is_some() {
            self.say(channel, false, said);
        }
    }

    /// Looks at those whose time has come. `used_until_ms` tells how long a channel is in use as things are.
    pub(super) fn sweep(
        &mut self,
        now_ms: u64,
        used_until_ms: impl Fn(&ChannelName) -> u64,
        said: &mut Vec<(usize, Event)>,
    ) {
        while self.due.peek().is_some_and(|Reverse((at_ms, _))| *at_ms <= now_ms) {
            let Some(Reverse((at_ms, channel))) = self.due.pop() else { break };
            let Some(times) = self.in_use.get_mut(&channel).filter(|times| times.look_ms == at_ms) else { continue };
            let until_ms = used_until_ms(&channel);
            if until_ms <= now_ms {
                self.remove(&channel, said);
                continue;
            }
            let is_again = times.again_ms <= now_ms;
            if is_again {
                times.again_ms = now_ms.saturating_add(self.period_ms);
            }
            times.look_ms = times.again_ms.min(until_ms);
            self.due.push(Reverse((times.look_ms, channel.clone())));
            if is_again {
                self.say(&channel, true, said);
            }
        }
    }

    fn say(&self, channel: &ChannelName, in_use: bool, said: &mut Vec<(usize, Event)>) {
        said.extend(self.loops.iter().map(|to| (*to, Event::Use { channel: channel.clone(), in_use })));
    }
}
