//! What a loop counts, readable from any thread while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of the histogram of tick lengths.
const BUCKETS: usize = 32;

/// Counts of one loop since it was started, as of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns of the loop.
    pub ticks: u64,
    /// How long the turns took, from waking up to waiting again.
    pub tick_lengths: Histogram,
    /// Time spent in turns, in all; the rest was spent waiting.
    pub busy: Duration,
    /// Connections there are now.
    pub connections: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Outgoing connections made.
    pub connected: u64,
    /// Connections ended, of either kind.
    pub closed: u64,
    /// Times that accepting was paused for want of descriptors, or at `connections_max`.
    pub accept_pauses: u64,
    /// Bytes read.
    pub bytes_received: u64,
    /// Bytes the kernel took.
    pub bytes_sent: u64,
    /// Messages taken from the mailbox.
    pub messages: u64,
    /// Timers of the service's that ran out.
    pub timers_expired: u64,
}

/// How often something took how long: bucket by bucket, each twice as wide as the one below, from 1 µs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Histogram {
    /// Each bucket's upper bound, and how many fell into it. The last has no bound but that it is told with.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.counts.iter().enumerate().map(|(index, count)| (upper_bound(index), *count))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper bound of the bucket below whose end this part of all lies, from 0 to 1; zero where there are none.
    pub fn quantile(&self, part: f64) -> Duration {
        #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // a rank need not be exact
        let rank = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(Duration::ZERO, upper_bound)
    }
}

fn bucket(length: Duration) -> usize {
    let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
    (64 - micros.leading_zeros() as usize).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    Duration::from_micros(1 << bucket)
}

/// Reads a loop's counts from any thread, at any time. Clones watch the same loop.
#[derive(Debug, Clone)]
pub struct Watch {
    pub(crate) counters: Arc<Counters>,
}

impl Watch {
    /// The counts as they are now. Each is right by itself; they need not be of the very same moment.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }
}

/// A count that one thread alone changes: no other has to be kept out, so that it costs a load and a store.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Release);
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The counts themselves, shared with those who watch.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) ticks: Count,
    tick_lengths: [Count; BUCKETS],
    busy_ns: Count,
    pub(crate) connections: Count,
    pub(crate) accepted: Count,
    pub(crate) connected: Count,
    pub(crate) closed: Count,
    pub(crate) accept_pauses: Count,
    pub(crate) bytes_received: Count,
    pub(crate) bytes_sent: Count,
    pub(crate) messages: Count,
    pub(crate) timers_expired: Count,
    /// Connections taken over from the loop that accepts for the pool.
    pub(crate) taken_over: Count,
}

impl Counters {
    pub(crate) fn tick(&self, length: Duration) {
        self.ticks.add(1);
        self.tick_lengths[bucket(length)].add(1);
        self.busy_ns.add(length.as_nanos() as u64);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            ticks: self.ticks.get(),
            tick_lengths: Histogram { counts: std::array::from_fn(|index| self.tick_lengths[index].get()) },
            busy: Duration::from_nanos(self.busy_ns.get()),
            connections: self.connections.get(),
            accepted: self.accepted.get(),
            connected: self.connected.get(),
            closed: self.closed.get(),
            accept_pauses: self.accept_pauses.get(),
            bytes_received: self.bytes_received.get(),
            bytes_sent: self.bytes_sent.get(),
            messages: self.messages.get(),
            timers_expired: self.timers_expired.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let counters = Counters::default();
        for micros in [0, 1, 3, 3, 900] {
            counters.tick(Duration::from_micros(micros));
        }
        let lengths = counters.read().tick_lengths;
        assert_eq!(lengths.count(), 5);
        assert_eq!(lengths.quantile(0.0), Duration::from_micros(1));
        assert_eq!(lengths.quantile(0.5), Duration::from_micros(4));
        assert_eq!(lengths.quantile(1.0), Duration::from_micros(1024));
        assert_eq!(Histogram::default().quantile(0.99), Duration::ZERO);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
