//! The threads of the protocol under shuttle, with its random scheduler.

#[path = "../model.rs"]
mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner};
use sim_compare::Bug;
use sim_compare::report::{self, Bound, Outcome};

mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Arc, Mutex};
    pub(super) use shuttle::thread;
}

fn search(bug: Bug, bound: Bound) -> Outcome {
    let runs = Arc::new(AtomicU64::new(0));
    let mut config = Config::new();
    config.max_time = Some(bound.time);
    config.failure_persistence = shuttle::FailurePersistence::None;
    let scheduler = RandomScheduler::new_from_seed(0, usize::try_from(bound.runs).unwrap_or(usize::MAX));
    let counter = runs.clone();
    let failure = report::attempt(move || {
        Runner::new(scheduler, config).run(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            model::run(bug);
        });
    });
    Outcome { runs: runs.load(Ordering::Relaxed), failure }
}

fn main() {
    report::main(search);
}
