//! Work that may be too much for one tick: broadcasts, and the history with which a new pattern
//! starts. Each tick does a bounded part of it, in the order of its arrival.
//!
//! The first part is done at once, so that small work is done when the call returns.

use std::collections::VecDeque;

use sealed::fault;

use super::Shard;
use super::publishing::Broadcasting;
use crate::engine::Tick;

/// The units of work in one tick, which take a millisecond or two. Visiting a channel or a message
/// is one unit.
pub(super) const UNITS_MAX: usize = 8_192;

/// Work that is not done yet.
#[derive(Debug)]
pub(super) enum Task {
    Broadcast(Broadcasting),
    /// The search for the messages with which a pattern starts.
    Fill {
        to: usize,
        run: u64,
    },
}

/// Work to do, and the units that this tick has used.
#[derive(Debug)]
pub(super) struct Work {
    tasks: VecDeque<Task>,
    /// The units used in this tick.
    used: usize,
    /// The maximum number of units used in one tick so far.
    #[cfg(feature = "sim")]
    pub(super) most: usize,
}

impl Work {
    pub(super) fn new() -> Self {
        Self {
            tasks: VecDeque::new(),
            used: 0,
            #[cfg(feature = "sim")]
            most: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Returns whether this tick has units left.
    pub(super) fn has_units_left(&self) -> bool {
        self.used < UNITS_MAX || fault!("work-without-bound")
    }

    /// Uses units. The last step of a tick may exceed the limit.
    pub(super) fn spend(&mut self, units: usize) {
        self.used = self.used.saturating_add(units);
        #[cfg(feature = "sim")]
        {
            self.most = self.most.max(self.used);
        }
    }
}

impl Shard {
    /// Starts a task after those that are not done yet.
    pub(super) fn begin(&mut self, now: Tick, task: Task) {
        self.work.tasks.push_back(task);
        if self.work.tasks.len() == 1 {
            self.run_tasks(now);
        }
    }

    /// Ends a tick: continues unfinished tasks, and resets the units for the next tick.
    pub(crate) fn work(&mut self, now: Tick) {
        self.run_tasks(now);
        self.work.used = 0;
        if self.work.tasks.is_empty() {
            self.work.tasks.shrink_to(16);
        }
    }

    /// Returns whether there is work for the next tick.
    pub(crate) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    fn run_tasks(&mut self, now: Tick) {
        while self.work.has_units_left() {
            let Some(task) = self.work.tasks.pop_front() else { break };
            self.work.spend(1);
            let rest = match task {
                Task::Broadcast(broadcasting) => self.broadcast_on(now, broadcasting).map(Task::Broadcast),
                Task::Fill { to, run } => (!self.fill_on(now, to, run)).then_some(Task::Fill { to, run }),
            };
            if let Some(rest) = rest {
                self.work.tasks.push_front(rest);
            }
        }
    }
}
