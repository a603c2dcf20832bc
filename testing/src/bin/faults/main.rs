//! Plants one fault in the code after the other, and checks that a test fails each time: the test
//! that the fault names, or else the seeds of the simulation.
//!
//! | command | effect |
//! | --- | --- |
//! | `cargo faults` | plants all faults in `ccomet/tests/simulation/faults/*.toml` |
//! | `cargo faults -- WORD...` | plants the faults whose name, point or test contains all words |
//! | `cargo faults -- --seeds N` | runs at most N seeds for each fault (20,000) |
//! | `cargo faults -- --jobs N` | plants N at a time (as many as there are processors) |
//! | `cargo faults -- --build` | builds the tests with all faults in them, and runs nothing |
//!
//! A fault is caught if a test fails or hangs. The exit code is 1 if a fault is not caught, if a
//! test fails or hangs without a fault, or if the list and the points in the code differ, which is
//! reported before anything is built.

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
/// The number of seeds that the code without a fault has to pass.
const SEEDS_WITHOUT: u64 = 500;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => return fail(&[why]),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let (mut faults, failures) = list::read(root);
    if !failures.is_empty() {
        return fail(&failures);
    }
    faults.retain(|fault| options.words.iter().all(|word| fault.has(word)));
    if faults.is_empty() {
        return fail(&[format!("no fault has these words: {}", options.words.join(" "))]);
    }
    let start = Instant::now();
    let tests = Tests::build(root, &faults);
    println!("{} faults built in {} s", faults.len(), start.elapsed().as_secs());
    if options.builds_only {
        return ExitCode::SUCCESS;
    }
    let failures = plant_all(&tests, &faults, &options);
    println!("\n{} faults planted, {} failures, in {} s", faults.len(), failures.len(), start.elapsed().as_secs());
    if failures.is_empty() { ExitCode::SUCCESS } else { fail(&failures) }
}

fn fail(failures: &[String]) -> ExitCode {
    for failure in failures {
        println!("\n{failure}");
    }
    ExitCode::FAILURE
}

/// The options of the command line.
struct Options {
    seeds: u64,
    jobs: usize,
    builds_only: bool,
    words: Vec<String>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut options = Self { seeds: SEEDS, jobs, builds_only: false, words: Vec::new() };
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let number = arguments.next().and_then(|text| text.parse::<u32>().ok()).filter(|number| *number > 0);
                number.ok_or_else(|| format!("{argument} needs a number"))
            };
            match argument.as_str() {
                "--" => {}
                "--seeds" => options.seeds = number()?.into(),
                "--jobs" => options.jobs = number()? as usize,
                "--build" => options.builds_only = true,
                option if option.starts_with('-') => {
                    return Err(format!("there is no option {option}, but --seeds N, --jobs N and --build"));
                }
                _ => options.words.push(argument),
            }
        }
        Ok(options)
    }
}

/// Runs the tests that have to catch each fault, several at a time. Returns a text for each fault
/// that is not caught, or for the tests that fail without a fault.
fn plant_all(tests: &Tests, faults: &[Fault], options: &Options) -> Vec<String> {
    let start = Instant::now();
    let needed = faults.iter().map(Fault::test).collect::<BTreeSet<_>>();
    let runs = needed.into_iter().map(|test| tests.run(test, None, options.seeds.min(SEEDS_WITHOUT)));
    let failures: Vec<String> = runs
        .filter_map(|outcome| match outcome {
            Outcome::Passed => None,
            Outcome::Caught(by) => Some(format!("fails or hangs without a fault: {by}")),
        })
        .collect();
    if !failures.is_empty() {
        return failures;
    }
    println!("without a fault, all pass, in {} s", start.elapsed().as_secs());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !is_caught(tests, fault, options.seeds) {
                        let mut failures = failures.lock().expect("no thread panics with it");
                        failures.push(format!("not caught: {}", fault.name));
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no thread panics with it")
}

/// Plants a fault, and runs the tests that have to catch it. Returns whether they do.
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
