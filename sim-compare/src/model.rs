//! What loom and shuttle can run of the protocol: the hand-over between threads, and the shared
//! state. Two connections, of a request and of its repetition, and a thread that commits. Each tool
//! includes this file, with a module `sync` of its own.

#[path = "hand_over.rs"]
mod hand_over;

use sim_compare::{Book, Bug};

use self::hand_over::HandOver;
use super::sync;
use super::sync::{Arc, AtomicU64, Mutex, Ordering, thread};

struct Shared {
    queue: HandOver<u64>,
    book: Mutex<Book>,
    /// The total that the book has, for readers without the lock.
    total: AtomicU64,
    /// The newest request that is durable.
    acknowledged: AtomicU64,
    bug: Bug,
}

impl Shared {
    fn push(&self, seq: u64, store: &thread::Thread) {
        if self.queue.push(seq) {
            store.unpark();
        }
    }

    fn store(&self, mut left: usize) {
        loop {
            for seq in self.queue.take() {
                if self.bug == Bug::AckEarly {
                    self.acknowledged.store(seq, Ordering::Release);
                }
                let total = {
                    let mut book = self.book.lock().unwrap();
                    book.apply("ann", seq);
                    book.total
                };
                self.total.store(total, Ordering::Relaxed);
                let ordering = if self.bug == Bug::MemoryOrder { Ordering::Relaxed } else { Ordering::Release };
                self.acknowledged.store(seq, ordering);
                left -= 1;
            }
            self.queue.done();
            if left == 0 {
                return;
            }
            thread::park();
        }
    }

    fn check(&self) {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let total = self.total.load(Ordering::Relaxed);
        assert!(total >= acknowledged, "{acknowledged} acknowledged, {total} durable");
    }
}

/// Runs once. Panics, or never ends, if the bug shows.
pub(crate) fn run(bug: Bug) {
    let shared = Arc::new(Shared {
        queue: HandOver::new(bug),
        book: Mutex::new(Book::new(bug)),
        total: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        bug,
    });
    let of_store = shared.clone();
    let store = thread::spawn(move || of_store.store(2));
    let (of_retry, handle) = (shared.clone(), store.thread().clone());
    let retry = thread::spawn(move || of_retry.push(1, &handle));
    shared.push(1, store.thread());
    shared.check();
    retry.join().unwrap();
    store.join().unwrap();
    shared.check();
    assert_eq!(shared.book.lock().unwrap().total, 1, "requests that were executed");
}
