//! The operating system's network, through mio.

mod clock;
mod poller;
mod socket;

pub(crate) use clock::Clock;
pub(crate) use poller::{Poller, Waker};
pub(crate) use socket::{Listener, Stream, reserve_port};

/// 64 random bits from the operating system.
///
/// Falls back to the clock where there is no random source, for it seeds jitter and ids, never keys.
pub(crate) fn entropy() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let since_epoch = Clock::start().unix_time();
        since_epoch.as_nanos() as u64
    })
}
