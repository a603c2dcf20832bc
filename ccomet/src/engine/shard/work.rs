//! Work that may be too much for one tick: a message for all channels of a pattern, and the history that a new pattern
//! begins with. It is done in the order in which it came, a bounded part of it in each tick.
//!
//! The first part is done at once, so that what is little is done when the call returns.

use std::collections::VecDeque;

use sealed::fault;

use super::Shard;
use super::publishing::Broadcasting;
use crate::engine::Tick;

/// Units of work in one tick. To look at a channel or at a kept message is one; a millisecond or two for all of them.
pub(super) const UNITS_MAX: usize = 8_192;

/// A piece of work that is not done yet.
#[derive(Debug)]
pub(super) enum Task {
    Broadcast(Broadcasting),
    /// For the pattern that is followed for that loop under that number.
    Fill {
        to: usize,
        run: u64,
    },
}

/// What is left to be done, and how much of it this tick.
#[derive(Debug)]
pub(super) struct Work {
    tasks: VecDeque<Task>,
    /// Units that this tick has used.
    used: usize,
    /// The most units that one tick has used.
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

    /// Whether there are units left in this tick.
    pub(super) fn may_go_on(&self) -> bool {
        self.used < UNITS_MAX || fault!("work-without-bound")
    }

    /// Uses units. The last step of a tick may use more than are left.
    pub(super) fn spend(&mut self, units: usize) {
        self.used = self.used.saturating_add(units);
        #[cfg(feature = "sim")]
        {
            self.most = self.most.max(self.used);
        }
    }
}

impl Shard {
    /// Begins a piece of work, behind those that are not done yet.
    pub(super) fn begin(&mut self, now: Tick, task: Task) {
        self.work.tasks.push_back(task);
        if self.work.tasks.len() == 1 {
            self.go_on(now);
        }
    }

    /// The end of a tick: goes on with what is not done, and allows for the next tick's work.
    pub(crate) fn work(&mut self, now: Tick) {
        self.go_on(now);
        self.work.used = 0;
        if self.work.tasks.is_empty() {
            self.work.tasks.shrink_to(16);
        }
    }

    /// Whether there is work for the next tick.
    pub(crate) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    fn go_on(&mut self, now: Tick) {
        while self.work.may_go_on() {
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
