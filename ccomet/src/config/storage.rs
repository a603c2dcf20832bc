//! The section `[store]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::table::settings;

/// When the store puts publications on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// Before the publisher is answered. Nothing that was accepted is lost.
    Commit,
    /// At an interval. If the machine loses power or its system fails, what was accepted within the
    /// last interval may be lost; if only the server ends, nothing is.
    Interval,
    /// When the operating system chooses to, usually within half a minute. If the machine loses
    /// power or its system fails, what was accepted since may be lost; if only the server ends,
    /// nothing is.
    Never,
}

settings! {
    /// The store on disk. With a `path`, messages, their numbers, idempotency keys and positions
    /// survive a restart, and the history may be larger than the memory.
    pub struct Storage in [store] {
        /// Directory of the store, which is created if it does not exist, and which one server uses
        /// at a time; the same as `--data`. Without it, messages are in memory and end with the
        /// server.
        path: Option<PathBuf> = none;
        /// When publications are put on the disk: before the publisher is answered (`commit`), at an
        /// interval, or when the operating system chooses to. With `interval` and `never`, a power
        /// cut may take what was accepted shortly before; the end of the server alone takes nothing.
        sync: SyncMode = "commit" => SyncMode::Commit;
        /// The interval of `sync = "interval"`.
        sync_interval_ms: u64 = 100 ms, [1..=60_000 ms];
        /// Bytes of the log of all channels, beyond which the oldest messages are dropped. The disk
        /// needs room for up to two files of the log more, and for the index: about 16 bytes for
        /// each message and 200 for each channel.
        bytes_max: u64 = 10 GiB, [16 MiB..];
        /// Bytes of publications that wait for the disk. Further ones are refused until it has
        /// caught up.
        waiting_bytes_max: usize = 32 MiB, [64 KiB..], answers = "unavailable";
        /// Newest messages of a channel in use that are in memory; `history.total_bytes_max` limits
        /// those of all channels. Older ones are read from the disk.
        window_messages_max: usize = 1_000, [1..=1_048_576];
        /// Bytes written to the log, and at most a minute, between two updates of the index. What
        /// was written since the last one is read when the server starts.
        checkpoint_bytes: u64 = 64 MiB, [1 MiB..=4 GiB];
        /// Bytes of one file of the log.
        segment_bytes: u32 = 64 MiB, [1 MiB..=1 GiB];
        /// Bytes of the index that are cached in memory.
        index_cache_bytes: usize = 32 MiB, [1 MiB..];
    }
}
