//! Stopping a loop from elsewhere: another thread, or a signal. And who has been stopped, and may go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::net::Waker;

/// Stops a loop, or all loops of a pool, from any thread. Clones stop the same.
///
/// The first call lets them drain within [`Config::drain_limit`](crate::Config::drain_limit); a second ends that
/// limit at once.
#[derive(Debug, Clone)]
pub struct Stopper {
    shared: Arc<Shared>,
    wakers: Vec<Waker>,
}

#[derive(Debug)]
struct Shared {
    calls: AtomicU32,
    /// Loops that still have something to end.
    busy: AtomicUsize,
}

impl Stopper {
    pub(crate) fn new(wakers: Vec<Waker>) -> Self {
        let shared = Shared { calls: AtomicU32::new(0), busy: AtomicUsize::new(wakers.len()) };
        Self { shared: Arc::new(shared), wakers }
    }

    /// Asks for the stop and returns at once.
    pub fn stop(&self) {
        self.shared.calls.fetch_add(1, Ordering::AcqRel);
        self.wake_all();
    }

    /// How often a stop was asked for.
    pub(crate) fn calls(&self) -> u32 {
        self.shared.calls.load(Ordering::Acquire)
    }

    fn wake_all(&self) {
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

/// One loop's word on whether it has something left to end. All loops of a pool go together: one that has nothing
/// may still be needed, for the mail of the others, and for the second signal.
#[derive(Debug)]
pub(crate) struct Attendance {
    stopper: Stopper,
    busy: bool,
}

impl Attendance {
    /// One for each loop of the stopper's.
    pub(crate) fn new(stopper: Stopper) -> Self {
        Self { stopper, busy: true }
    }

    /// Says whether this loop has something left, and returns whether any has.
    pub(crate) fn anyone_busy(&mut self, busy: bool) -> bool {
        let count = &self.stopper.shared.busy;
        match (self.busy, busy) {
            (true, false) if count.fetch_sub(1, Ordering::AcqRel) == 1 => self.stopper.wake_all(),
            (false, true) => {
                count.fetch_add(1, Ordering::AcqRel);
            }
            _ => {}
        }
        self.busy = busy;
        count.load(Ordering::Acquire) > 0
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.anyone_busy(false);
    }
}
