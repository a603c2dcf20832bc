//! Makes the code wrong, in one way after the other, and checks that a test fails each time: one that the fault names, or else the seeds
//! of the simulation.
//!
//! | command | effect |
//! | --- | --- |
//! | `cargo faults` | plants all faults in `ccomet/tests/simulation/faults/*.toml` |
//! | `cargo faults -- WORD...` | plants the faults whose name, point or test contains all words |
//! | `cargo faults -- --seeds N` | runs at most N seeds for each fault (20,000) |
//! | `cargo faults -- --jobs N` | plants so many at a time (as many as there are processors) |
//! | `cargo faults -- --build` | builds the tests with all faults in them, and runs nothing |
//!
//! The exit code is 1 if a fault is not caught, or if the list and the points in the code differ.

mod list;
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use list::Fault;
use tests::{Outcome, Tests};

const SEEDS: u64 = 20_000;
/// Seeds that the code without a fault has to pass.
const SEEDS_WITHOUT: u64 = 500;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--").collect();
    let mut number = |option: &str| {
        let at = words.iter().position(|word| word == option)?;
        Some(words.drain(at..).take(2).nth(1).and_then(|word| word.parse().ok()).expect("a number"))
    };
    let seeds = number("--seeds").unwrap_or(SEEDS);
    let jobs = number("--jobs").map(|jobs| jobs as usize);
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let builds_only = words.iter().any(|word| word == "--build");
    words.retain(|word| word != "--build");
    let (mut faults, mut failures) = list::read(root);
    faults.retain(|fault| words.iter().all(|word| fault.has(word)));
    assert!(!faults.is_empty() || !failures.is_empty(), "no fault has these words");
    let start = Instant::now();
    let tests = Tests::build(root, &faults);
    println!("built in {} s", start.elapsed().as_secs());
    if !builds_only {
        failures.extend(plant_all(&tests, &faults, seeds, jobs));
    }
    for failure in &failures {
        println!("\n{failure}");
    }
    let verb = if builds_only { "built" } else { "planted" };
    println!("\n{} faults {verb}, {} failures, in {} s", faults.len(), failures.len(), start.elapsed().as_secs());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs what has to catch each fault, some at a time. Returns a text for each fault that is not caught.
fn plant_all(tests: &Tests, faults: &[Fault], seeds: u64, jobs: usize) -> Vec<String> {
    let start = Instant::now();
    for test in faults.iter().map(Fault::test).collect::<BTreeSet<_>>() {
        let clean = tests.run(test, None, seeds.min(SEEDS_WITHOUT));
        assert!(matches!(clean, Outcome::Passed), "the code without a fault has to pass {test:?}:\n{clean:?}");
    }
    println!("without a fault, all pass, in {} s", start.elapsed().as_secs());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !is_caught(tests, fault, seeds) {
                        let mut failures = failures.lock().expect("no thread panics with it");
                        failures.push(format!("not caught: {}", fault.name));
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no thread panics with it")
}

/// Plants a fault, and runs what has to catch it.
fn is_caught(tests: &Tests, fault: &Fault, seeds: u64) -> bool {
    let start = Instant::now();
    let outcome = tests.run(fault.test(), Some(fault), seeds);
    let by = match &outcome {
        Outcome::Caught(by) => format!("caught by {by}"),
        Outcome::Passed => "NOT caught".to_owned(),
    };
    let once = if fault.found { " (once in the code)" } else { "" };
    println!("{by:<40} {:>3} s  {}{once}", start.elapsed().as_secs(), fault.name);
    matches!(outcome, Outcome::Caught(_))
}
