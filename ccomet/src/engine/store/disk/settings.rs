//! The settings of a store.

use std::path::PathBuf;
use std::time::Duration;

/// When the log is put on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogSync {
    /// Before a publisher is answered.
    Commit,
    /// At this interval.
    Interval(Duration),
    /// When the system chooses to, and at checkpoints.
    Never,
}

/// The settings of a store.
#[derive(Debug, Clone)]
pub(crate) struct StoreSettings {
    /// The directory of the store.
    pub(crate) path: PathBuf,
    pub(crate) sync: LogSync,
    /// The size of a segment of the log.
    pub(crate) segment_bytes: u32,
    /// The bytes of the log, and the time, after which a checkpoint is written.
    pub(crate) checkpoint_bytes: u64,
    pub(crate) checkpoint_interval: Duration,
    /// The number of channels that a loop hands over to a checkpoint, or forgets after it, at a
    /// time.
    pub(crate) channels_at_once: usize,
    /// The number of reads of a loop that are in progress at a time.
    pub(crate) reads_at_once: usize,
    /// The number of places of messages that a read gets from the loop.
    pub(crate) places_at_once: u64,
    /// The bytes of publications that wait for the disk. Further ones are refused.
    pub(crate) waiting_bytes_max: usize,
    /// The bytes of the log at which the oldest messages are dropped.
    pub(crate) bytes_max: u64,
    /// The first times.
    pub(crate) times: StoreTimes,
    /// The memory of the index.
    pub(crate) cache_bytes: usize,
    /// The number of messages of a channel that are in memory at most.
    pub(crate) window_max: usize,
}

/// The times of a store that can change while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreTimes {
    /// The longest time for which messages of any channel are kept.
    pub(crate) kept_for: Duration,
    /// The time for which a channel stays of which nothing is kept.
    pub(crate) idle: Duration,
    /// The time for which idempotency keys are remembered.
    pub(crate) key_age: Duration,
}
