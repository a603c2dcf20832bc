//! The seam below the event loop: every socket, clock, thread wake-up and random number that the crate uses.
//!
//! Nothing outside this module calls the operating system. What stands here is all that a simulated network has
//! to provide instead: a [`Poller`] with its [`Waker`], a [`Listener`], a [`Stream`], a [`Clock`], [`entropy`].

mod clock;
mod poller;
mod socket;

pub(crate) use clock::Clock;
pub(crate) use poller::{Poller, Readiness, Waker};
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
