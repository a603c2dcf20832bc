//! The threads of the workers, and the queue that they take their work from.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{Task, Ticket, WorkError};
use crate::caught;

/// The handles on the threads. When the last one is dropped, the threads empty the queue and end.
pub(super) struct Threads {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when there is work, and when the threads are to end.
    work: Condvar,
    /// Signalled when the last piece of work is done.
    idle: Condvar,
    threads_max: usize,
    waiting_max: usize,
}

#[derive(Default)]
struct Queue {
    waiting: BTreeMap<Ticket, Task>,
    last_ticket: u64,
    threads: usize,
    /// Threads without work: those that wait for it, and those that are starting.
    free: usize,
    is_finished: bool,
}

impl Threads {
    pub(super) fn new(threads: usize, waiting_max: usize) -> Self {
        let shared = Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            threads_max: threads.max(1),
            waiting_max,
        };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }

    pub(super) fn submit(&self, task: Task) -> Result<Ticket, WorkError> {
        let mut queue = self.shared.lock();
        if queue.is_finished {
            return Err(WorkError::Finished);
        }
        // Work for which a thread is free does not wait.
        let idle = queue.free + (self.shared.threads_max - queue.threads);
        if queue.waiting.len() >= self.shared.waiting_max.saturating_add(idle) {
            return Err(WorkError::Full);
        }
        if queue.waiting.len() >= queue.free && queue.threads < self.shared.threads_max {
            let shared = self.shared.clone();
            let started = thread::Builder::new().name("worker".to_owned()).spawn(move || shared.run());
            match started {
                Ok(_) => {
                    queue.threads += 1;
                    queue.free += 1;
                }
                // The threads that exist do the work, later.
                Err(error) if queue.threads == 0 => return Err(WorkError::Thread(error)),
                Err(_) => {}
            }
        }
        queue.last_ticket += 1;
        let ticket = Ticket(queue.last_ticket);
        queue.waiting.insert(ticket, task);
        // A thread that is woken while the lock is held would only wait for it.
        drop(queue);
        self.shared.work.notify_one();
        Ok(ticket)
    }

    pub(super) fn withdraw(&self, ticket: Ticket) -> Option<Task> {
        self.shared.lock().waiting.remove(&ticket)
    }

    pub(super) fn finish(&self) {
        let mut queue = self.shared.close();
        while queue.threads > 0 {
            queue = self.shared.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        drop(self.shared.close());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A task runs without the lock, and a panic of a task is caught.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the threads end once the queue is empty.
    fn close(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.lock();
        queue.is_finished = true;
        self.work.notify_all();
        queue
    }

    fn run(&self) {
        let mut queue = self.lock();
        loop {
            if let Some((_, task)) = queue.waiting.pop_first() {
                queue.free -= 1;
                drop(queue);
                // The task reports panics of the work itself. What is left is a panic in a `Drop`
                // of something that the work owned; it must not cost the thread.
                caught::run(task);
                queue = self.lock();
                queue.free += 1;
            } else if queue.is_finished {
                queue.threads -= 1;
                queue.free -= 1;
                if queue.threads == 0 {
                    self.idle.notify_all();
                }
                return;
            } else {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
