//! What each loop holds, for any other to read: counters that one loop alone writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What one loop holds.
#[derive(Debug, Default)]
pub(crate) struct LoopCounters {
    channels: AtomicUsize,
    subscribers: AtomicUsize,
    /// How often it has been seen to go on.
    beats: AtomicU64,
}

impl LoopCounters {
    /// One for each of so many loops.
    pub(crate) fn for_loops(loops: usize) -> Arc<[Self]> {
        (0..loops).map(|_| Self::default()).collect()
    }

    /// The loop goes on. Only by the loop itself.
    pub(crate) fn beat(&self) {
        self.beats.store(self.beats() + 1, Ordering::Relaxed);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Only by the loop whose counters they are. Channels are those on that loop's shard.
    pub(crate) fn set(&self, channels: usize, subscribers: usize) {
        for (held, now) in [(&self.channels, channels), (&self.subscribers, subscribers)] {
            if held.load(Ordering::Relaxed) != now {
                held.store(now, Ordering::Relaxed);
            }
        }
    }
}

/// Channels and subscribers of all loops together, as of their last ticks.
pub(crate) fn sum(counters: &[LoopCounters]) -> (usize, usize) {
    counters.iter().fold((0, 0), |(channels, subscribers), one| {
        let of = |held: &AtomicUsize| held.load(Ordering::Relaxed);
        (channels + of(&one.channels), subscribers + of(&one.subscribers))
    })
}
