//! The expiry of streams whose reader needs a token.

use std::collections::HashMap;
use std::time::Duration;

use sealed::ConnectionId;

use crate::core::time::{UnixMillis, millis};

/// The ends of streams, for the few or many that have one, by the calendar: that it was set is
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

/// What to tell a stream about its token now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It ends soon.
    Expiring { in_s: u64 },
    /// It has ended.
    Expired,
}

impl TokenExpirations {
    /// None yet; each will be warned so long before its end.
    pub(crate) fn new(warning: Duration) -> Self {
        Self { warning, tracked: HashMap::new() }
    }

    /// A connection has a stream, which may go on until then, or for ever.
    pub(crate) fn track(&mut self, id: ConnectionId, expires: Option<UnixMillis>) {
        match expires {
            Some(expires) => {
                let expiration = Expiration { expires, is_warned: false };
                self.tracked.insert(id, expiration);
            }
            None => self.forget(id),
        }
    }

    /// A connection's stream is over.
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

    /// When a stream is to be looked at again, at the latest after `longest`.
    pub(crate) fn next_check(&self, id: ConnectionId, now: UnixMillis, longest: Duration) -> Duration {
        let Some(expiration) = self.tracked.get(&id) else { return longest };
        let left = expiration.expires.saturating_since(now);
        let until_warning = if expiration.is_warned { left } else { left.saturating_sub(self.warning) };
        longest.min(until_warning.max(Duration::from_millis(1)))
    }

    /// How many there are.
    #[cfg(feature = "sim")]
    pub(crate) fn count(&self) -> usize {
        self.tracked.len()
    }
}
