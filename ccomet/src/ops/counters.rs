//! The counters of each loop. Only the loop writes its counters; any loop may read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealed::fault;

use crate::core::tally::{BOUNDS_MS, Durations, EngineTally, GapCause, HubTally, PublishApi, StoreTally};

/// A number that one loop changes and any loop may read. No other writer has to be excluded, so a
/// change costs a load and a store.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the number. Only the loop itself may call this, and the methods below.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    pub(crate) fn take(&self, less: u64) {
        self.set(self.get().wrapping_sub(less));
    }
}

/// A histogram that one loop changes and any loop may read.
#[derive(Debug, Default)]
pub(crate) struct CountedDurations {
    counts: [Count; BOUNDS_MS.len() + 1],
    sum_ms: Count,
}

impl CountedDurations {
    /// Counts a duration. Only the loop itself may call this.
    pub(crate) fn note(&self, duration: Duration) {
        let (bucket, millis) = Durations::place(duration);
        self.counts[bucket].add(1);
        self.sum_ms.add(millis);
    }

    fn set(&self, durations: &Durations) {
        for (held, now) in self.counts.iter().zip(durations.counts) {
            held.set(now);
        }
        self.sum_ms.set(durations.sum_ms);
    }

    /// Adds its counts to those of others.
    pub(crate) fn add_to(&self, all: &mut Durations) {
        for (sum, held) in all.counts.iter_mut().zip(&self.counts) {
            *sum += held.get();
        }
        all.sum_ms += self.sum_ms.get();
    }
}

/// The use of a connection, or the way of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A connection on which no messages are awaited.
    Http,
    /// A poll.
    Poll,
    /// A stream over HTTP.
    Stream,
    WebSocket,
    /// A reader inside the process.
    Handle,
}

impl Transport {
    /// The names of those that a connection can have.
    pub(crate) const OF_CONNECTIONS: [&str; 4] = ["http", "poll", "stream", "websocket"];
    pub(crate) const ALL: [&str; 5] = ["http", "poll", "stream", "websocket", "handle"];
}

/// The listeners, in the order in which they are numbered.
pub(crate) const LISTENERS: [&str; 2] = ["front", "admin"];

/// The counters of one loop. Those of two loops share no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LoopCounters {
    /// The number of heartbeats, which show the loop's progress.
    beats: Count,
    /// Open connections, by listener and transport.
    pub(crate) connections: [[Count; Transport::OF_CONNECTIONS.len()]; LISTENERS.len()],
    /// Connections since the start, by listener.
    pub(crate) accepted: [Count; LISTENERS.len()],
    pub(crate) subscribers: Count,
    /// Subscriptions since the start, by transport, and by whether they resumed.
    pub(crate) subscribes: [[Count; 2]; Transport::ALL.len()],
    /// Publications since the start, by API, and by whether they were accepted.
    pub(crate) publishes: [[Count; 2]; PublishApi::NAMES.len()],
    pub(crate) deliveries: Count,
    pub(crate) gaps: [Count; GapCause::NAMES.len()],
    pub(crate) missed: Count,
    /// The times from accepting messages until their delivery on this loop.
    pub(crate) fan_out: CountedDurations,
    /// Bytes of encoded messages.
    pub(crate) encoded_bytes: Count,
    /// The channels of this loop's shard.
    pub(crate) channels: Count,
    pub(crate) all_channels: Count,
    pub(crate) patterns: Count,
    pub(crate) members: Count,
    pub(crate) history_bytes: Count,
    pub(crate) keys: Count,
    pub(crate) trimmed: Count,
    pub(crate) evicted: Count,
    /// Bytes of request bodies in transit, and recorded addresses.
    pub(crate) body_bytes: Count,
    pub(crate) addresses: Count,
    /// Open questions to the back end, the times until they were answered, and failures.
    pub(crate) hook_queue: Count,
    pub(crate) hook_answers: CountedDurations,
    pub(crate) hook_errors: Count,
    pub(crate) store_commits: CountedDurations,
    pub(crate) store_pages: Count,
    /// Reloads of the settings, by whether they were applied, and fetches of the key set, by
    /// whether they succeeded; on the first loop.
    pub(crate) reloads: [Count; 2],
    pub(crate) key_sets: [Count; 2],
}

impl LoopCounters {
    /// Creates the counters of `loops` loops.
    pub(crate) fn for_loops(loops: usize) -> Arc<[Self]> {
        (0..loops).map(|_| Self::default()).collect()
    }

    /// Counts a heartbeat. Only the loop itself may call this.
    pub(crate) fn beat(&self) {
        self.beats.add(1);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.beats.get()
    }

    /// Copies the counts of a hub. Only the loop itself may call this.
    pub(crate) fn set_hub(&self, tally: &HubTally) {
        self.deliveries.set(tally.deliveries);
        self.missed.set(tally.missed);
        for (held, now) in self.gaps.iter().zip(tally.gaps) {
            held.set(now);
        }
    }

    /// Copies the counts of the engine. Only the loop itself may call this.
    pub(crate) fn set_engine(&self, tally: &EngineTally) {
        self.channels.set(tally.channels as u64);
        self.all_channels.set(tally.all_channels as u64);
        self.patterns.set(tally.patterns as u64);
        self.members.set(tally.members as u64);
        self.history_bytes.set(tally.history_bytes as u64);
        self.keys.set(tally.keys as u64);
        self.trimmed.set(tally.trimmed);
        self.evicted.set(tally.evicted);
    }

    /// Copies the counts of a store. Only the loop itself may call this.
    pub(crate) fn set_store(&self, tally: &StoreTally) {
        self.store_commits.set(&tally.commits);
        self.store_pages.set(tally.pages);
    }
}

/// Returns the sum of a number over all loops, as of their last ticks.
pub(crate) fn sum(counters: &[LoopCounters], of: impl Fn(&LoopCounters) -> &Count) -> u64 {
    let counters = if fault!("metrics-of-one-loop") { &counters[..1] } else { counters };
    counters.iter().map(|one| of(one).get()).fold(0, u64::wrapping_add)
}
