//! The epochs of channels.
//!
//! A channel in which nothing was published yet leaves nothing behind when it goes, so that one that is only read can go with its
//! last reader. It comes again with the same epoch: a position that was given out before is good, for nothing was missed. That
//! ends where a channel goes in which something was published: of all channels that share its slot, a later one has a new epoch.
//! A reader may then be told of a gap where there is none, and never the other way round.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::engine::Tick;

const SLOTS: usize = 64;

/// The epochs that a shard gives out, each greater than those before, but for channels that come again.
#[derive(Debug)]
pub(super) struct Epochs {
    last: Epoch,
    /// For the next channels that are made of each slot; `Epoch(0)` where a new one is needed.
    unused: Box<[Epoch; SLOTS]>,
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self { last: Epoch(0), unused: Box::new([Epoch(0); SLOTS]) }
    }

    /// One that no channel has had: for those made of others, where something may have happened while they were not there.
    pub(super) fn fresh(&mut self, now: Tick) -> Epoch {
        self.last = Epoch::new(now.time, now.random, self.last);
        self.last
    }

    /// A channel has an epoch that the store has given out. Its old one is not used again, and those to come are greater.
    pub(super) fn replace(&mut self, channel: &ChannelName, epoch: Epoch) {
        self.spend(channel);
        self.last = self.last.max(epoch);
    }

    /// The one that a channel has, or would have, that is not there.
    pub(super) fn of_absent(&mut self, now: Tick, channel: &ChannelName) -> Epoch {
        let slot = slot(channel);
        if self.unused[slot] == Epoch(0) {
            self.unused[slot] = self.fresh(now);
        }
        self.unused[slot]
    }

    /// A channel goes in which something was published.
    pub(super) fn spend(&mut self, channel: &ChannelName) {
        self.unused[slot(channel)] = Epoch(0);
    }
}

fn slot(channel: &ChannelName) -> usize {
    let mut hasher = DefaultHasher::new();
    channel.hash(&mut hasher);
    hasher.finish() as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::{LoopTime, UnixMillis};

    #[test]
    fn an_epoch_is_used_again_until_something_was_published_under_it() {
        let (mut epochs, channel) = (Epochs::new(), ChannelName::new("a").expect("a name"));
        let now = |millis| Tick { time: UnixMillis::from_millis(millis), loop_time: LoopTime::default(), random: 0 };
        let first = epochs.of_absent(now(1_000), &channel);
        assert_eq!(epochs.of_absent(now(2_000), &channel), first);
        let other = epochs.fresh(now(2_000));
        epochs.spend(&channel);
        let second = epochs.of_absent(now(1_000), &channel);
        assert!(first < other && other < second, "though the calendar was set back");
    }
}
