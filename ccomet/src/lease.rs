//! The expiry of streams whose reader needs a token.

use std::collections::HashMap;
use std::time::Duration;

use sealed::ConnectionId;

use crate::core::time::{UnixMillis, millis};

/// The ends of streams, for the few or many that have one, by the calendar: that it was set is
/// noticed at the next heartbeat.
#[derive(Debug)]
pub(crate) struct Leases {
    warning: Duration,
    held: HashMap<ConnectionId, Lease>,
}

#[derive(Debug)]
struct Lease {
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

impl Leases {
    /// None yet; each will be warned so long before its end.
    pub(crate) fn new(warning: Duration) -> Self {
        Self { warning, held: HashMap::new() }
    }

    /// A connection has a stream, which may go on until then, or for ever.
    pub(crate) fn begin(&mut self, id: ConnectionId, expires: Option<UnixMillis>) {
        match expires {
            Some(expires) => {
                let lease = Lease { expires, is_warned: false };
                self.held.insert(id, lease);
            }
            None => self.end(id),
        }
    }

    /// A connection's stream is over.
    pub(crate) fn end(&mut self, id: ConnectionId) {
        self.held.remove(&id);
        if self.held.is_empty() {
            self.held = HashMap::new();
        }
    }

    /// What a stream is to be told now, if anything. A warning is told once.
    pub(crate) fn notice(&mut self, id: ConnectionId, now: UnixMillis) -> Option<Notice> {
        let lease = self.held.get_mut(&id)?;
        let left = lease.expires.saturating_since(now);
        if left.is_zero() {
            return Some(Notice::Expired);
        }
        if lease.is_warned || left > self.warning {
            return None;
        }
        lease.is_warned = true;
        Some(Notice::Expiring { in_s: millis(left).div_ceil(1_000) })
    }

    /// When a stream is to be looked at again, at the latest after `longest`.
    pub(crate) fn next_look(&self, id: ConnectionId, now: UnixMillis, longest: Duration) -> Duration {
        let Some(lease) = self.held.get(&id) else { return longest };
        let left = lease.expires.saturating_since(now);
        let until_warning = if lease.is_warned { left } else { left.saturating_sub(self.warning) };
        longest.min(until_warning.max(Duration::from_millis(1)))
    }

    /// How many there are.
    #[cfg(feature = "sim")]
    pub(crate) fn count(&self) -> usize {
        self.held.len()
    }
}
