//! The expiry of streams whose reader needs a token.

use std::collections::HashMap;
use std::time::Duration;

use sealed::ConnectionId;

use crate::core::time::{UnixMillis, millis};

/// The expiry times of those streams that have one, by the calendar: a change of the calendar is
/// noticed at the next heartbeat.
#[derive(Debug)]
pub(crate) struct TokenExpirations {
    warning: Duration,
    tracked: HashMap<ConnectionId, Expiration>,
}

#[derive(Debug)]
struct Expiration {
    expires: UnixMillis,
    is_warned: bool,
}

/// A notice to a stream about its token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The token expires soon.
    Expiring { in_s: u64 },
    /// The token has expired.
    Expired,
}

impl TokenExpirations {
    /// Creates an empty tracker. Each stream gets a warning this long before its token expires.
    pub(crate) fn new(warning: Duration) -> Self {
        Self { warning, tracked: HashMap::new() }
    }

    /// Changes the time between a warning and the expiry, for warnings that are not sent yet.
    pub(crate) fn set_warning(&mut self, warning: Duration) {
        self.warning = warning;
    }

    /// Registers a connection's stream with its expiry, if it has one.
    pub(crate) fn track(&mut self, id: ConnectionId, expires: Option<UnixMillis>) {
        match expires {
            Some(expires) => {
                let expiration = Expiration { expires, is_warned: false };
                self.tracked.insert(id, expiration);
            }
            None => self.forget(id),
        }
    }

    /// Removes a connection's stream.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        self.tracked.remove(&id);
        if self.tracked.is_empty() {
            self.tracked = HashMap::new();
        }
    }

    /// Returns the notice that is due for a stream, if any. A warning is returned once.
    pub(crate) fn due(&mut self, id: ConnectionId, now: UnixMillis) -> Option<Notice> {
        let expiration = self.tracked.get_mut(&id)?;
        let left = expiration.expires.saturating_since(now);
        if left.is_zero() {
            return Some(Notice::Expired);
        }
        if expiration.is_warned || left > self.warning {
            return None;
        }
        expiration.is_warned = true;
        Some(Notice::Expiring { in_s: millis(left).div_ceil(1_000) })
    }

    /// Returns the time until the next check of a stream, at most `longest`.
    pub(crate) fn next_check(&self, id: ConnectionId, now: UnixMillis, longest: Duration) -> Duration {
        let Some(expiration) = self.tracked.get(&id) else { return longest };
        let left = expiration.expires.saturating_since(now);
        let until_warning = if expiration.is_warned { left } else { left.saturating_sub(self.warning) };
        longest.min(until_warning.max(Duration::from_millis(1)))
    }

    /// Returns the number of streams that expire.
    #[cfg(feature = "sim")]
    pub(crate) fn count(&self) -> usize {
        self.tracked.len()
    }
}
