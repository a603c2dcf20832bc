//! The threads of the protocol under loom.

#[path = "../model.rs"]
mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sim_compare::Bug;
use sim_compare::report::{self, Bound, Outcome};

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(super) use loom::sync::{Arc, Mutex};
    pub(super) use loom::thread;
}

/// Runs all orders of events with at most three preemptions, or as many as there is time for.
fn search(bug: Bug, bound: Bound) -> Outcome {
    let (start, runs) = (report::cpu_time(), Arc::new(AtomicU64::new(0)));
    let (counter, of_hook) = (runs.clone(), runs.clone());
    // A panic of loom about a deadlock cannot be caught: it aborts the process.
    std::panic::set_hook(Box::new(move |info| {
        let failure = info.payload_as_str().map(str::to_owned);
        Outcome { runs: of_hook.load(Ordering::Relaxed), failure }.print(start);
        std::process::exit(0);
    }));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_duration = Some(bound.time);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model::run(bug);
    });
    Outcome { runs: runs.load(Ordering::Relaxed), failure: None }
}

fn main() {
    report::main(search);
}
