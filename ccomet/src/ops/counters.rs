//! The counters of each loop. Only the loop writes its counters; any loop may read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The counters of one loop.
#[derive(Debug, Default)]
pub(crate) struct LoopCounters {
    channels: AtomicUsize,
    subscribers: AtomicUsize,
    /// The number of heartbeats, which show the loop's progress.
    beats: AtomicU64,
}

impl LoopCounters {
    /// Creates the counters of `loops` loops.
    pub(crate) fn for_loops(loops: usize) -> Arc<[Self]> {
        (0..loops).map(|_| Self::default()).collect()
    }

    /// Counts a heartbeat. Only the loop itself may call this.
    pub(crate) fn beat(&self) {
        self.beats.store(self.beats() + 1, Ordering::Relaxed);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Sets the counts. Only the loop itself may call this. Channels are those on that loop's
    /// shard.
    pub(crate) fn set(&self, channels: usize, subscribers: usize) {
        for (held, now) in [(&self.channels, channels), (&self.subscribers, subscribers)] {
            if held.load(Ordering::Relaxed) != now {
                held.store(now, Ordering::Relaxed);
            }
        }
    }
}

/// Returns the channels and subscribers of all loops together, as of their last ticks.
pub(crate) fn sum(counters: &[LoopCounters]) -> (usize, usize) {
    counters.iter().fold((0, 0), |(channels, subscribers), one| {
        let of = |held: &AtomicUsize| held.load(Ordering::Relaxed);
        (channels + of(&one.channels), subscribers + of(&one.subscribers))
    })
}
