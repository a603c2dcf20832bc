//! Stopping a loop from elsewhere: another thread, or a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::net::Waker;

/// Stops a loop, or all loops of a pool, from any thread. Clones stop the same.
///
/// The first call lets them drain within [`Config::drain_limit`](crate::Config::drain_limit); a second ends that
/// limit at once.
#[derive(Debug, Clone)]
pub struct Stopper {
    calls: Arc<AtomicU32>,
    wakers: Vec<Waker>,
}

impl Stopper {
    pub(crate) fn new(wakers: Vec<Waker>) -> Self {
        Self { calls: Arc::new(AtomicU32::new(0)), wakers }
    }

    /// Asks for the stop and returns at once.
    pub fn stop(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
        for waker in &self.wakers {
            waker.wake();
        }
    }

    /// How often a stop was asked for.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::Acquire)
    }
}
