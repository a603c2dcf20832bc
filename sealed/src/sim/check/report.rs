//! What a check prints.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::run::{CaughtPanic, Failure};
use super::shrink::{Shrunk, Unshrunk};
use crate::sim::occurrences::{Numbers, Occurrence};

/// Time between two lines about the progress of a check.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Maximum number of faults that a report lists.
const FAULTS_SHOWN_MAX: usize = 20;

/// Returns the first part of the report about a failed run.
pub(super) fn of_failure(seed: u64, failure: &Failure) -> String {
    let mut text = format!("seed {seed} fails\n\nto repeat it: {}\n\n", command(&format!("SEED={seed}")));
    let Failure { panic, then } = failure;
    let _ = writeln!(text, "{}", of_panic(panic));
    if let Some(then) = then {
        let _ = writeln!(text, "then {}", of_panic(then));
    }
    if !panic.backtrace.is_empty() {
        let _ = writeln!(text, "\nthe stack of the panic:\n{}", panic.backtrace);
    }
    text
}

/// Returns the end of the trace of a failed run.
pub(super) fn of_trace(failure: &Failure) -> String {
    format!("\nthe end of its trace:\n{}", failure.panic.trace)
}

/// Returns what the reduction of the run has found, and a trace.
pub(super) fn of_faults(seed: u64, failure: &Failure, shrunk: &Result<Shrunk, Unshrunk>) -> String {
    let Shrunk { left, of, failure: reduced, runs, is_cut_short } = match shrunk {
        Ok(shrunk) => shrunk,
        Err(Unshrunk::Nothing) => return of_trace(failure),
        Err(Unshrunk::NotRepeated) => {
            let problem = "the seed does not fail in the same way again: the run depends on more than the seed";
            return format!("\n{problem}\n{}", of_trace(failure));
        }
    };
    let numbers: BTreeSet<u64> = left.iter().map(|occurrence| occurrence.number).collect();
    let repeat = command(&format!("SEED={seed} KEEP={}", Numbers(&numbers)));
    let names: BTreeSet<&str> = left.iter().map(|occurrence| occurrence.name).collect();
    let names = if names.is_empty() { "none".to_owned() } else { Vec::from_iter(names).join(", ") };
    let count = left.len();
    let mut text = format!("\nfaults that it needs: {names} ({count} of {of}, found in {runs} runs");
    text += if *is_cut_short { ", up to the limit)\n" } else { ")\n" };
    for Occurrence { number, name, at, .. } in left.iter().take(FAULTS_SHOWN_MAX) {
        let _ = writeln!(text, "{:>14.6} s  fault {number}: {name}", at.as_secs_f64());
    }
    if count > FAULTS_SHOWN_MAX {
        let _ = writeln!(text, "and {} more", count - FAULTS_SHOWN_MAX);
    }
    let _ = writeln!(text, "\nto repeat it with these faults alone, and print its whole trace: {repeat}\n");
    if reduced.panic.message != failure.panic.message {
        let _ = writeln!(text, "with these faults alone, it {}\n", of_panic(&reduced.panic));
    }
    let _ = write!(text, "the end of its trace with these faults alone:\n{}", reduced.panic.trace);
    text
}

fn of_panic(panic: &CaughtPanic) -> String {
    let CaughtPanic { message, location, .. } = panic;
    let message = message.trim_end();
    if location.is_empty() { format!("panicked: {message}") } else { format!("panicked at {location}:\n{message}") }
}

/// Returns the command that runs the current test with these variables.
fn command(variables: &str) -> String {
    let mut text = format!("{variables} cargo test");
    // Cargo sets it for the programs that it runs.
    if let Ok(package) = std::env::var("CARGO_PKG_NAME") {
        let _ = write!(text, " -p {package}");
    }
    if let Some(name) = test_name() {
        let _ = write!(text, " {name}");
    }
    text
}

/// Returns the name of the current test, which is the name of its thread. With `--test-threads 1`
/// the name is unknown.
fn test_name() -> Option<String> {
    thread::current().name().filter(|name| *name != "main").map(ToOwned::to_owned)
}

/// Prints on stderr itself: the output of a test is not shown unless the test fails.
pub(super) fn print(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Counts finished runs, and prints how many there are every few seconds.
pub(super) struct Progress {
    seeds: Range<u64>,
    name: String,
    counted: Mutex<Counted>,
}

struct Counted {
    runs: u64,
    since: Instant,
    printed: Instant,
}

impl Progress {
    pub(super) fn new(seeds: Range<u64>) -> Self {
        let now = Instant::now();
        let name = test_name().unwrap_or_else(|| "check".to_owned());
        Self { seeds, name, counted: Mutex::new(Counted { runs: 0, since: now, printed: now }) }
    }

    pub(super) fn count(&self) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.runs += 1;
        let now = Instant::now();
        if now.duration_since(counted.printed) >= PROGRESS_EVERY {
            counted.printed = now;
            let took_ms = now.duration_since(counted.since).as_millis().max(1);
            let rate = u128::from(counted.runs) * 1_000 / took_ms;
            let all = self.seeds.end - self.seeds.start;
            print(&format!("{}: {} of {all} seeds, {rate} a second", self.name, counted.runs));
        }
    }
}
