//! The loop's clocks: a monotonic clock for deadlines, and the calendar clock for time stamps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads the time. Monotonic time counts from the start of the clock.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Returns the time since the start; never goes back.
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Returns the time since 1970 by the machine's calendar clock, which may be set back.
    #[allow(clippy::unused_self)] // a method, like `now`
    pub(crate) fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
