//! The loop's clocks: a monotonic one for deadlines, the calendar's for time stamps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads the time. Monotonic time is counted from when the clock was started.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Time since the start; never goes back.
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Time since 1970, by the machine's calendar clock, which may be set back.
    #[allow(clippy::unused_self)] // it is this clock that is asked
    pub(crate) fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
