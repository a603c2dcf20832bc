//! Stops a loop from another thread or by a signal, and tracks which loops of a pool have finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::net::Waker;

/// Stops a loop, or all loops of a pool, from any thread. Clones stop the same loops.
///
/// The first call lets the loops drain within [`Config::drain_limit`](crate::Config::drain_limit);
/// a second call ends that limit at once.
#[derive(Debug, Clone)]
pub struct Stopper {
    shared: Arc<Shared>,
    wakers: Vec<Waker>,
}

#[derive(Debug)]
struct Shared {
    calls: AtomicU32,
    /// Number of loops that still have connections to end.
    busy: AtomicUsize,
}

impl Stopper {
    pub(crate) fn new(wakers: Vec<Waker>) -> Self {
        let shared = Shared { calls: AtomicU32::new(0), busy: AtomicUsize::new(wakers.len()) };
        Self { shared: Arc::new(shared), wakers }
    }

    /// Requests the stop and returns immediately.
    pub fn stop(&self) {
        self.shared.calls.fetch_add(1, Ordering::AcqRel);
        self.wake_all();
    }

    /// Returns how often a stop was requested.
    pub(crate) fn calls(&self) -> u32 {
        self.shared.calls.load(Ordering::Acquire)
    }

    fn wake_all(&self) {
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

/// Records whether one loop still has connections to end. All loops of a pool stop together: the
/// others may still need a loop without connections, for their messages and for the second signal.
#[derive(Debug)]
pub(crate) struct Attendance {
    stopper: Stopper,
    busy: bool,
}

impl Attendance {
    /// Creates the record of one loop. Call it once for each loop of the stopper.
    pub(crate) fn new(stopper: Stopper) -> Self {
        Self { stopper, busy: true }
    }

    /// Sets whether this loop still has connections to end. Returns whether any loop has.
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
