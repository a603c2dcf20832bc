//! Random workloads on the whole server in a simulated network, each from a seed.
//!
//! `cargo test` runs a fixed set of seeds. `cargo sim --seeds N` runs N seeds, `cargo sim --seed X`
//! one seed with its trace.

#![allow(missing_docs, unreachable_pub, missing_debug_implementations)]

mod accounts;
mod backends;
mod crowds;
mod cuts;
mod disks;
mod frames;
mod hops;
mod http;
mod icomet;
mod members;
mod meter;
mod oracle;
mod others;
mod proxies;
mod readers;
mod redis;
mod rulings;
mod scenery;
mod sessions;
mod tokens;
mod world;
mod writers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sealed::sim::Simulation;

/// The number of seeds that `cargo test` runs.
const FIXED: u64 = 500;

/// The number of these seeds that run twice, and must be the same to the last byte.
const TWICE: u64 = 10;

/// The lines of the trace that are shown for a seed that failed among many.
const TRACE_LINES: usize = 60;

const USAGE: &str = "\
Runs random workloads on the server in a simulated network.

  cargo sim --seeds N [--first F]   runs seeds F to F+N-1 (F is 0), on all cores
  cargo sim --seed X                runs one seed and prints its trace
  --threads T                       as many threads
  --until-failure                   stops at the first seed that fails";

struct Arguments {
    first: u64,
    count: Option<u64>,
    only: Option<u64>,
    threads: usize,
    until_failure: bool,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    // The thread that ran a failed seed reports it once, in order.
    std::panic::set_hook(Box::new(|info| LAST_PANIC.with_borrow_mut(|last| *last = info.to_string())));
    if let Some(seed) = arguments.only {
        return replay(seed);
    }
    let start = Instant::now();
    let mut failed = 0;
    let count = arguments.count.unwrap_or(FIXED);
    if arguments.count.is_none() {
        for seed in 0..TWICE {
            if run(seed).ok() != run(seed).ok() {
                println!("seed {seed} is not the same run twice");
                failed += 1;
            }
        }
    }
    let (ran, more_failed) = run_many(&arguments, count);
    failed += more_failed;
    let took = start.elapsed();
    let a_second = u128::from(ran) * 1_000 / took.as_millis().max(1);
    println!("{} of {ran} seeds passed in {:.1} s, {a_second} a second", ran - more_failed, took.as_secs_f64());
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Reads the command line. Ignores arguments of the usual test harness.
fn arguments() -> Option<Arguments> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut arguments = Arguments { first: 0, count: None, only: None, threads, until_failure: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match word.as_str() {
            "--seeds" => arguments.count = Some(number()?),
            "--first" => arguments.first = number()?,
            "--seed" => arguments.only = Some(number()?),
            "--threads" => arguments.threads = number()? as usize,
            "--until-failure" => arguments.until_failure = true,
            "--help" | "-h" => return None,
            // Runners that execute tests one by one ask for a list, which does not exist.
            "--list" => std::process::exit(0),
            _ => {}
        }
    }
    Some(arguments)
}

thread_local! {
    static LAST_PANIC: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// Runs a seed. Returns the digest of all events, or the failure.
fn run(seed: u64) -> Result<u64, String> {
    let sim = Simulation::new(seed);
    catch_unwind(AssertUnwindSafe(|| world::run(&sim)))
        .map(|()| sim.digest())
        .map_err(|_| format!("{}\n{}", LAST_PANIC.take(), last_lines(&sim.trace(), TRACE_LINES)))
}

fn replay(seed: u64) -> ExitCode {
    let sim = Simulation::new(seed);
    sim.keep_trace(usize::MAX);
    meter::IS_TRACED.store(true, Ordering::Relaxed);
    let outcome = catch_unwind(AssertUnwindSafe(|| world::run(&sim)));
    println!("{}", sim.trace());
    if outcome.is_ok() {
        println!("seed {seed} passed, digest {:016x}", sim.digest());
        return ExitCode::SUCCESS;
    }
    println!("{:?}", scenery::draw(&sim, &mut sim.random(1)));
    println!("seed {seed} failed: {}", LAST_PANIC.take());
    ExitCode::FAILURE
}

fn run_many(arguments: &Arguments, count: u64) -> (u64, u64) {
    let (next, ran, failed, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let printed = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = arguments.first + index;
                    if let Err(failure) = run(seed) {
                        report(seed, &failure);
                        failed.fetch_add(1, Ordering::Relaxed);
                        stop.fetch_or(arguments.until_failure, Ordering::Relaxed);
                    }
                    let done = ran.fetch_add(1, Ordering::Relaxed) + 1;
                    progress(&printed, done, count, failed.load(Ordering::Relaxed));
                }
            });
        }
    });
    (ran.into_inner(), failed.into_inner())
}

fn progress(printed: &Mutex<Instant>, done: u64, count: u64, failed: u64) {
    let Ok(mut printed) = printed.lock() else { return };
    if printed.elapsed() >= Duration::from_secs(5) {
        println!("{done} of {count} seeds, {failed} failed");
        *printed = Instant::now();
    }
}

fn report(seed: u64, failure: &str) {
    println!("seed {seed} failed: {failure}\nreplay: cargo sim --seed {seed}\n");
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
