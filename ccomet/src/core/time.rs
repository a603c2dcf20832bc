//! The two clocks, each with a type of its own, so that no time of the one passes for a time of the other.

use std::time::Duration;

/// A time of the calendar, in milliseconds since 1970. The calendar can be set back: a later look may show an earlier
/// time.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnixMillis(u64);

impl UnixMillis {
    /// Comes after all others, for what has no end.
    pub(crate) const MAX: Self = Self(u64::MAX);

    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Reads the seconds since 1970 that tokens have.
    pub(crate) fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// Takes over what the event loop says of the calendar.
    pub(crate) fn since_1970(duration: Duration) -> Self {
        Self(millis(duration))
    }

    pub(crate) fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since 1970, which tokens count in.
    pub(crate) fn as_secs(self) -> u64 {
        self.0 / 1_000
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    pub(crate) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Returns how long it is since another time, or nothing where that is still to come.
    pub(crate) fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns how long it is since another time, or `None` where the calendar was set back behind that.
    pub(crate) fn checked_since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_millis)
    }
}

/// A time of the loop's own clock, in milliseconds since the loop began. Nobody sets that clock: it only goes on.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LoopTime(u64);

impl LoopTime {
    /// Comes after all others, for what has no end.
    pub(crate) const MAX: Self = Self(u64::MAX);

    /// Takes over what the event loop says of its clock.
    pub(crate) fn since_start(duration: Duration) -> Self {
        Self(millis(duration))
    }

    /// Returns the microseconds since the loop began, for what is counted in parts of a millisecond.
    pub(crate) fn as_micros(self) -> u64 {
        self.0.saturating_mul(1_000)
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Returns how long it is since another time, or nothing where that is still to come.
    pub(crate) fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Returns a duration in whole milliseconds, or the most that there can be.
pub(crate) fn millis(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000).saturating_add(u64::from(duration.subsec_millis()))
}
