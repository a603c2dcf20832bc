//! The counters of a loop, readable from any thread while the loop runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Number of buckets in the histogram of tick lengths.
const BUCKETS: usize = 32;

/// Counters of one loop since it was started, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Number of ticks.
    pub ticks: u64,
    /// Lengths of the ticks, each from the wake-up until the loop waits again.
    pub tick_lengths: Histogram,
    /// Total time spent in ticks; the rest of the time was spent waiting.
    pub busy: Duration,
    /// Current number of connections.
    pub connections: u64,
    /// Number of connections accepted.
    pub accepted: u64,
    /// Number of outgoing connections made.
    pub connected: u64,
    /// Number of connections that have ended, accepted or outgoing.
    pub closed: u64,
    /// How often accepting was paused, for lack of file descriptors or because `connections_max`
    /// was reached.
    pub accept_pauses: u64,
    /// Number of bytes read from connections.
    pub bytes_received: u64,
    /// Number of bytes of connections that the kernel has taken.
    pub bytes_sent: u64,
    /// Number of datagrams received, without those that were too long.
    pub datagrams_received: u64,
    /// Number of datagrams that the kernel has taken.
    pub datagrams_sent: u64,
    /// Number of datagrams that were dropped instead of sent, because there was no room for them,
    /// or because their socket was closed before the kernel took them.
    pub datagrams_dropped: u64,
    /// Number of received datagrams that were dropped because they were longer than their socket's
    /// limit.
    pub datagrams_too_long: u64,
    /// Number of messages taken from the mailbox.
    pub messages: u64,
    /// Number of timers of the service that have expired.
    pub timers_expired: u64,
}

/// A histogram of durations. Each bucket is twice as wide as the one below it; the first ends at
/// 1 µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Histogram {
    /// Returns the upper bound of each bucket and the number of durations in it. The last bucket is
    /// unbounded; its reported bound is nominal.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.counts.iter().enumerate().map(|(index, count)| (upper_bound(index), *count))
    }

    /// Returns the number of recorded durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns an upper bound of the `part`-quantile (0 to 1): the upper bound of the bucket that
    /// contains it. Returns zero if there are no durations.
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

/// Reads the counters of a loop from any thread, at any time. Clones watch the same loop.
#[derive(Debug, Clone)]
pub struct Watch {
    pub(crate) counters: Arc<Counters>,
}

impl Watch {
    /// Returns the counters as of now. Each counter is exact, but they need not all be of the same
    /// moment.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }
}

/// A counter that only one thread changes. No other writer has to be excluded, so an update costs a
/// load and a store.
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

/// The counters themselves, shared with all watches.
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
    pub(crate) datagrams_received: Count,
    pub(crate) datagrams_sent: Count,
    pub(crate) datagrams_dropped: Count,
    pub(crate) datagrams_too_long: Count,
    pub(crate) messages: Count,
    pub(crate) timers_expired: Count,
    /// Number of connections taken over from the loop that accepts for the pool.
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
            datagrams_received: self.datagrams_received.get(),
            datagrams_sent: self.datagrams_sent.get(),
            datagrams_dropped: self.datagrams_dropped.get(),
            datagrams_too_long: self.datagrams_too_long.get(),
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
