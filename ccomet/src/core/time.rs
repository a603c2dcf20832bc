//! The two clocks. Each has a type of its own, so that times of different clocks cannot be mixed.

use std::time::Duration;

/// A time of the calendar, in milliseconds since 1970. The calendar can be set back, so a later
/// reading may be smaller.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnixMillis(u64);

impl UnixMillis {
    /// A time after all others, for things that never end.
    pub(crate) const MAX: Self = Self(u64::MAX);

    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Converts seconds since 1970, the unit of times in tokens.
    pub(crate) fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// Converts the calendar time of the event loop.
    pub(crate) fn since_1970(duration: Duration) -> Self {
        Self(millis(duration))
    }

    pub(crate) fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since 1970, the unit of times in tokens.
    pub(crate) fn as_secs(self) -> u64 {
        self.0 / 1_000
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    pub(crate) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Returns the time since `earlier`; zero if that is in the future.
    pub(crate) fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time since `earlier`; `None` if that is in the future, since the calendar was
    /// set back.
    pub(crate) fn checked_since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_millis)
    }
}

/// A time of the loop's own clock, in milliseconds since the loop started. This clock is never set:
/// it only advances.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LoopTime(u64);

impl LoopTime {
    /// A time after all others, for things that never end.
    pub(crate) const MAX: Self = Self(u64::MAX);

    /// Converts the clock time of the event loop.
    pub(crate) fn since_start(duration: Duration) -> Self {
        Self(millis(duration))
    }

    /// Returns the microseconds since the loop started, for counts in fractions of a millisecond.
    pub(crate) fn as_micros(self) -> u64 {
        self.0.saturating_mul(1_000)
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Returns the time since `earlier`; zero if that is in the future.
    pub(crate) fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Returns a duration in whole milliseconds, or `u64::MAX` if it is longer.
pub(crate) fn millis(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000).saturating_add(u64::from(duration.subsec_millis()))
}
