//! What prevents the server from doing its work. Operators and their probes see it.

/// A problem of the server as a whole.
#[cfg_attr(not(all(feature = "disk", feature = "redis")), allow(dead_code))] // most are of a store
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthProblem {
    /// A loop has made no progress for seconds.
    LoopHangs,
    /// The server is shutting down.
    Draining,
    /// The disk of the store is full.
    StoreFull,
    /// The store keeps nothing any more until a restart.
    StoreFailed,
    /// The store is on another machine, which cannot be reached.
    StoreUnreachable,
    /// The index of the store cannot be read.
    StoreUnreadable,
    /// The index of the store cannot be written; messages are kept nevertheless.
    CheckpointFails,
}

impl HealthProblem {
    /// All problems.
    pub(crate) const ALL: [Self; 7] = [
        Self::LoopHangs,
        Self::Draining,
        Self::StoreFull,
        Self::StoreFailed,
        Self::StoreUnreachable,
        Self::StoreUnreadable,
        Self::CheckpointFails,
    ];

    /// Returns whether a restart of the process is the remedy.
    pub(crate) fn is_deadly(self) -> bool {
        self == Self::LoopHangs
    }

    /// Returns whether the server does its work nevertheless.
    pub(crate) fn is_minor(self) -> bool {
        self == Self::CheckpointFails
    }

    /// Returns the code and the reason.
    pub(crate) fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::LoopHangs => ("loop_hangs", "A loop has made no progress for seconds."),
            Self::Draining => ("draining", "The server is shutting down."),
            Self::StoreFull => {
                ("store_full", "The disk of the store is full: publications are refused until it has room.")
            }
            Self::StoreFailed => {
                ("store_failed", "The disk of the store has failed: publications are refused until a restart.")
            }
            Self::StoreUnreachable => {
                ("store_unreachable", "Redis cannot be reached: publications are refused until it can be.")
            }
            Self::StoreUnreadable => {
                ("store_unreadable", "The index of the store cannot be read: only channels in memory can be used.")
            }
            Self::CheckpointFails => (
                "checkpoint_fails",
                "The index of the store cannot be written: publications are kept, but the next start takes longer.",
            ),
        }
    }
}
