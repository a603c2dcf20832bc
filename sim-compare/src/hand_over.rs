//! The queue between two threads. One wake-up is sent for all requests that wait.
//!
//! `model.rs` includes this file again, with the primitives of loom and of shuttle.

use super::Bug;
use super::sync::{AtomicBool, Mutex, Ordering};

#[derive(Debug)]
#[allow(unreachable_pub)] // in the programs that include it
pub struct HandOver<T> {
    queue: Mutex<Vec<T>>,
    /// A wake-up has been sent, and its receiver has not taken the queue yet.
    signalled: AtomicBool,
    bug: Bug,
}

#[allow(unreachable_pub)]
impl<T> HandOver<T> {
    pub fn new(bug: Bug) -> Self {
        Self { queue: Mutex::new(Vec::new()), signalled: AtomicBool::new(false), bug }
    }

    /// Adds an item. Returns whether the caller has to wake the receiver.
    #[must_use]
    pub fn push(&self, item: T) -> bool {
        self.queue.lock().unwrap().push(item);
        !self.signalled.swap(true, Ordering::SeqCst)
    }

    /// Takes all items.
    pub fn take(&self) -> Vec<T> {
        if !matches!(self.bug, Bug::LostWake | Bug::LostWakeNarrow) {
            self.signalled.store(false, Ordering::SeqCst);
        }
        let items = std::mem::take(&mut *self.queue.lock().unwrap());
        if self.bug == Bug::LostWakeNarrow {
            // An item that was pushed since then has not sent a wake-up.
            self.signalled.store(false, Ordering::SeqCst);
        }
        items
    }

    /// Records that the items that were taken have been processed.
    pub fn done(&self) {
        if self.bug == Bug::LostWake {
            self.signalled.store(false, Ordering::SeqCst);
        }
    }
}
