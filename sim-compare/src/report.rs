//! Runs one simulation until it finds a bug. Each search has a process of its own.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::time::Duration;

use crate::Bug;

/// How long to search: the number of runs, and processor time.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub runs: u64,
    pub time: Duration,
}

/// Returns the processor time of this process so far. Other work on the machine does not count.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("it is not negative")
}

/// The outcome of a search.
#[derive(Debug)]
pub struct Outcome {
    /// Number of runs, including the one that failed.
    pub runs: u64,
    /// The message of the run that failed.
    pub failure: Option<String>,
}

impl Outcome {
    /// Prints the outcome for the program `compare`.
    pub fn print(&self, start: Duration) {
        let message = self.failure.as_deref().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        println!("{} {} {}", self.runs, cpu_time().saturating_sub(start).as_secs_f64(), message.unwrap_or_default());
    }
}

static MESSAGE: Mutex<Option<String>> = Mutex::new(None);

/// Runs `run` once. Returns the first panic message.
pub fn attempt(run: impl FnOnce()) -> Option<String> {
    panic::set_hook(Box::new(|info| {
        let mut first = MESSAGE.lock().unwrap();
        let text = info.payload_as_str().unwrap_or("a panic").lines().take(9).collect::<Vec<_>>().join(" ");
        first.get_or_insert(text);
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    let message = MESSAGE.lock().unwrap().take();
    result.err().map(|_| message.unwrap_or_default())
}

/// Calls `run` with one seed after the other, until it panics.
pub fn search(bound: Bound, run: impl Fn(u64)) -> Outcome {
    let start = cpu_time();
    for seed in 0..bound.runs {
        let failure = attempt(|| run(seed));
        if failure.is_some() || cpu_time().saturating_sub(start) > bound.time {
            return Outcome { runs: seed + 1, failure };
        }
    }
    Outcome { runs: bound.runs, failure: None }
}

/// Runs a tool, as its `main`: searches for the bug with the number that the command line names.
pub fn main(search: impl Fn(Bug, Bound) -> Outcome) {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut number = || words.next().and_then(Result::ok).expect("usage: BUG RUNS SECONDS");
    let bug = Bug::ALL[usize::try_from(number()).expect("a bug")];
    let bound = Bound { runs: number(), time: Duration::from_secs(number()) };
    let start = cpu_time();
    search(bug, bound).print(start);
}
