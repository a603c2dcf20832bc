//! Plain counts of what the parts of a loop have done and what they hold. Each part adds to its own
//! counts; the gateway copies them to where other threads can read them.

use std::time::Duration;

/// The upper bounds of the buckets of [`Durations`], in milliseconds.
pub(crate) const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000];

/// A histogram of durations, to the millisecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Durations {
    /// The number of durations in each bucket. The last bucket has no bound.
    pub(crate) counts: [u64; BOUNDS_MS.len() + 1],
    pub(crate) sum_ms: u64,
}

impl Durations {
    /// Returns the bucket of a duration, and its milliseconds.
    pub(crate) fn place(duration: Duration) -> (usize, u64) {
        let millis = super::time::millis(duration);
        (BOUNDS_MS.partition_point(|bound| *bound < millis), millis)
    }

    #[cfg_attr(not(feature = "disk"), allow(dead_code))] // only the store on disk has durations
    pub(crate) fn note(&mut self, duration: Duration) {
        let (bucket, millis) = Self::place(duration);
        self.counts[bucket] += 1;
        self.sum_ms += millis;
    }
}

/// The API by which a message was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishApi {
    Native,
    Icomet,
    Classic,
    /// A handle, inside the process.
    Handle,
}

impl PublishApi {
    pub(crate) const NAMES: [&str; 4] = ["native", "icomet", "classic", "handle"];
}

/// The cause of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GapCause {
    /// A connected reader was so slow that messages were dropped before it took them.
    Slow,
    /// A reader resumed after messages behind its position had been dropped.
    Late,
    /// The numbers of the channel have begun anew: how much was missed is unknown.
    Renumbered,
    /// The store could not read the messages.
    Unreadable,
}

impl GapCause {
    pub(crate) const NAMES: [&str; 4] = ["slow", "late", "renumbered", "unreadable"];
}

/// The counts of a hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HubTally {
    /// Messages that subscribers were given, counted for each subscriber.
    pub(crate) deliveries: u64,
    /// Gaps of subscribers, by cause.
    pub(crate) gaps: [u64; GapCause::NAMES.len()],
    /// Messages in gaps, as far as their number is known.
    pub(crate) missed: u64,
}

impl HubTally {
    /// Counts a gap of a subscriber; `missed` is the number of messages in it, if that is known.
    pub(crate) fn note_gap(&mut self, cause: GapCause, missed: Option<u64>) {
        self.gaps[cause as usize] += 1;
        self.missed += missed.unwrap_or(0);
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.missed += other.missed;
        for (held, more) in self.gaps.iter_mut().zip(other.gaps) {
            *held += more;
        }
    }
}

/// The counts of the engine on one loop.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EngineTally {
    /// Channels in memory that accept messages from publishers.
    pub(crate) channels: usize,
    /// All channels in memory, with those of patterns and of presence.
    pub(crate) all_channels: usize,
    pub(crate) patterns: usize,
    /// Members of channels; a member of several channels counts in each.
    pub(crate) members: usize,
    pub(crate) history_bytes: usize,
    /// Idempotency keys.
    pub(crate) keys: usize,
    /// Messages that were dropped by the limits of their channels.
    pub(crate) trimmed: u64,
    /// Messages that were dropped by the limit of the history of all channels.
    pub(crate) evicted: u64,
}

/// The counts of the store of one loop.
#[cfg_attr(not(feature = "disk"), allow(dead_code))] // only the store on disk has any
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreTally {
    /// The times from handing over a batch of changes until it is kept.
    pub(crate) commits: Durations,
    /// Parts of histories that were read.
    pub(crate) pages: u64,
}

/// The counts of a store that all loops share.
#[cfg_attr(not(feature = "disk"), allow(dead_code))] // only the store on disk has any
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreFigures {
    /// Bytes of publications that wait to be written.
    pub(crate) waiting_bytes: u64,
    /// Bytes that were written to the log.
    pub(crate) written_bytes: u64,
    /// The number of segments of the log, and their bytes, when they were last measured.
    pub(crate) log: Option<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_includes_its_bound() {
        let mut durations = Durations::default();
        for millis in [0, 1, 2, 3, 10_000, 10_001] {
            durations.note(Duration::from_millis(millis));
        }
        assert_eq!(durations.counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(durations.sum_ms, 20_007);
    }
}
