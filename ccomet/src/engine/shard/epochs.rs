//! The epochs of channels.
//!
//! A channel in which nothing was published leaves no state, so that a channel that is only read
//! can be removed with its last reader. If it is created again, it has the same epoch, and earlier
//! positions stay valid, because no message was missed. This ends for all channels of a slot when
//! one of them is removed after a publication in it. A reader may then see a gap where none is, but
//! never misses one.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::engine::Tick;

const SLOTS: usize = 64;

/// The epochs that a shard assigns. Each is greater than those before, except for channels that are
/// created again.
#[derive(Debug)]
pub(super) struct Epochs {
    last: Epoch,
    /// The epoch of the next channels in each slot; `Epoch(0)` if a new one is needed.
    unused: Box<[Epoch; SLOTS]>,
}

impl Epochs {
    /// Creates epochs that are greater than those before.
    pub(super) fn after(last: Epoch) -> Self {
        Self { last, unused: Box::new([Epoch(0); SLOTS]) }
    }

    /// Returns a new epoch for a derived channel, which may have missed messages while it did not
    /// exist.
    pub(super) fn fresh(&mut self, now: Tick) -> Epoch {
        self.last = Epoch::new(now.time, now.random, self.last);
        self.last
    }

    /// Replaces a channel's epoch by one that its store has assigned. Later epochs are greater.
    pub(super) fn replace(&mut self, channel: &ChannelName, epoch: Epoch) {
        self.spend(channel);
        self.note(epoch);
    }

    /// Notes the epoch of a channel that the store keeps. Later epochs are greater.
    pub(super) fn note(&mut self, epoch: Epoch) {
        self.last = self.last.max(epoch);
    }

    /// Returns the epoch of a channel that does not exist.
    pub(super) fn of_absent(&mut self, now: Tick, channel: &ChannelName) -> Epoch {
        let slot = slot(channel);
        if self.unused[slot] == Epoch(0) {
            self.unused[slot] = self.fresh(now);
        }
        self.unused[slot]
    }

    /// Marks the epoch of a channel as used, because something was published in it.
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
    fn an_epoch_is_reused_until_something_is_published_under_it() {
        let (mut epochs, channel) = (Epochs::after(Epoch(0)), ChannelName::new("a").expect("a name"));
        let now = |millis| Tick { time: UnixMillis::from_millis(millis), loop_time: LoopTime::default(), random: 0 };
        let first = epochs.of_absent(now(1_000), &channel);
        assert_eq!(epochs.of_absent(now(2_000), &channel), first);
        let other = epochs.fresh(now(2_000));
        epochs.spend(&channel);
        let second = epochs.of_absent(now(1_000), &channel);
        assert!(first < other && other < second, "although the calendar was set back");
    }
}
