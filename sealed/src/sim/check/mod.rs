//! Runs a test once for each seed of a range, on all cores, and reports the first failure.
//!
//! `run.rs` makes one run and catches its panic, `shrink.rs` repeats a failed run with fewer
//! faults, `settings.rs` reads the environment, `report.rs` writes what a developer reads.

mod report;
mod run;
mod settings;
mod shrink;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use self::report::Progress;
use self::run::{Failure, Keep, Run};
pub(super) use self::run::{is_recording, loop_panicked};
use self::settings::Settings;
use self::shrink::ShrinkLimits;
use super::{Faults, Random, Simulation};

/// Draws the faults of a run.
type DrawFaults = dyn Fn(&mut Random) -> Faults + Send + Sync;

/// Default number of trace entries that a report shows.
const TRACE_ENTRIES: usize = 60;
/// Default limits of the reduction of a failed run.
const SHRINK: ShrinkLimits = ShrinkLimits { runs_max: 1_000, time_max: Duration::from_secs(10) };

/// Runs `test` once for each seed, each time with a new [`Simulation`], on all cores. The short
/// form of [`Check`], which describes the report and the environment variables.
///
/// ```
/// use sealed::sim::{self, Faults, Peer};
/// # use sealed::{Config, ConnectionId, Context, Input, Service};
/// # struct Echo;
/// # impl Service for Echo {
/// #     type Connection = ();
/// #     type Message = ();
/// #     type Timer = ();
/// #     fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
/// #         cx.write(id, input.take_all());
/// #     }
/// # }
///
/// sim::check(0..50, |sim| {
///     sim.set_faults(Faults { short_read: 0.5, short_write: 0.5, ..Faults::default() });
///     let mut event_loop = sim.event_loop(Config::default(), Echo).expect("a loop");
///     let address = event_loop.listen("10.0.0.1:7777").expect("it is free").address;
///     sim.start(event_loop);
///     let mut peers: Vec<Peer> = (0..5).map(|_| sim.connect(&address)).collect();
///     peers.iter_mut().for_each(|peer| peer.send("hello"));
///     for peer in &mut peers {
///         peer.expect("hello");
///     }
/// });
/// ```
///
/// # Panics
///
/// Panics as [`Check::run`] does.
#[track_caller]
pub fn check(seeds: Range<u64>, test: impl Fn(&Simulation) + Sync) {
    Check::new(seeds).run(test);
}

/// A test that runs once for each seed of a range.
///
/// # What a failure reports
///
/// A run fails if it panics. [`run`](Self::run) then stops and panics itself, with the seed, a
/// command that repeats the run, the panic of the run, and the end of its trace. The seed is the
/// lowest one of the range that fails, whatever the number of threads. To avoid printing the panic
/// of the run twice, the first check of a process installs a panic hook, which passes all other
/// panics on to the hook that was there before.
///
/// If the closure creates further simulations, the report does not contain their traces, and keeps
/// all their faults.
///
/// # The faults that a failure needs
///
/// A run has many random [`Faults`], and most of them have nothing to do with its failure. So
/// the check leaves faults out and repeats the run: first all faults of one kind, then the latest
/// ones, then ever smaller groups. A repetition counts if it panics at the same source location;
/// the message may differ. The report names the faults that are left, and
/// shows the trace of the run with these alone.
///
/// The faults of a run are numbered, and `KEEP` lists the faults to keep by their numbers in the
/// full run. Such a run takes two passes; the first numbers the faults. A fault is repeated at the
/// same decision, such as the fifth read of a socket, with the same amounts. The other random
/// choices of the run do not change until something else happens than in the full run; then
/// latencies and the order of loops may change as well. So the result is a small run that fails,
/// not always the smallest; but if no limit was reached, the run no longer failed when any one of
/// its faults was left out. What the test itself orders, such as
/// [`Peer::stall`](super::Peer::stall), is no random fault and always happens.
///
/// # Environment
///
/// | variable | effect |
/// | --- | --- |
/// | `SEED=17` | runs only seed 17, on the thread of the caller, and prints its trace, on stderr or in the report |
/// | `SEED=17 KEEP=4,20-22` | runs seed 17 with four of its random faults, or with none: `KEEP=none` |
/// | `SEEDS=5000` | runs this many seeds, from the first seed of the range on |
/// | `SEEDS=100..200` | runs the seeds from 100 to 199 |
///
/// The variables apply to all checks of a process, so name one test:
/// `SEED=17 cargo test name_of_the_test`.
///
/// ```
/// use sealed::sim::{Check, Faults};
///
/// Check::new(0..20).threads(2).faults(Faults::any).run(|sim| {
///     let host = sim.listen("10.0.0.1:80".parse::<sealed::Address>().unwrap()).unwrap();
///     // ...
/// #   drop(host);
/// });
/// ```
#[must_use = "a check does nothing until it runs"]
pub struct Check {
    seeds: Range<u64>,
    threads: usize,
    trace_entries: usize,
    faults: Option<Box<DrawFaults>>,
    shrink: ShrinkLimits,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("seeds", &self.seeds).field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Check {
    /// Creates a check for these seeds.
    pub fn new(seeds: Range<u64>) -> Self {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { seeds, threads, trace_entries: TRACE_ENTRIES, faults: None, shrink: SHRINK }
    }

    /// Sets the number of threads, at least one. Initially it is the number of cores that the
    /// process may use. With one thread, the runs take place on the thread of the caller.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets the faults of each run before the test begins. `faults` gets a stream of random numbers
    /// that depends on the seed, so that [`Faults::any`] can be passed.
    pub fn faults(mut self, faults: impl Fn(&mut Random) -> Faults + Send + Sync + 'static) -> Self {
        self.faults = Some(Box::new(faults));
        self
    }

    /// Sets how many entries of the trace a report shows, the newest ones. Initially 60. The trace
    /// that `SEED` prints is not affected; [`Simulation::keep_trace`] bounds it.
    pub fn trace_entries(mut self, entries_max: usize) -> Self {
        self.trace_entries = entries_max;
        self
    }

    /// Sets the limits of the reduction of a failed run: the number of repetitions, and their time
    /// altogether. Initially 1,000 and ten seconds. A repetition that has begun is not interrupted.
    /// With 0 repetitions, a run is reported as it is.
    pub fn shrink(mut self, runs_max: u32, time_max: Duration) -> Self {
        self.shrink = ShrinkLimits { runs_max, time_max };
        self
    }

    /// Runs the test for each seed, until one fails.
    ///
    /// Prints the number of seeds a second on stderr if the check takes more than a few seconds.
    ///
    /// # Panics
    ///
    /// Panics with the report if a run fails. Panics also if the range is empty, or if an
    /// environment variable cannot be read.
    #[track_caller]
    pub fn run(&self, test: impl Fn(&Simulation) + Sync) {
        let settings = Settings::read(&self.seeds).unwrap_or_else(|problem| panic!("{problem}"));
        run::install_hook();
        if let Some(seed) = settings.only {
            return self.run_one(seed, settings.keep, &test);
        }
        assert!(!settings.seeds.is_empty(), "a check needs at least one seed: {:?}", self.seeds);
        if let Some((seed, failure)) = self.first_failure(settings.seeds, &test) {
            let mut run = self.make(seed, self.trace_entries);
            run.has_stack = false;
            let shrunk = shrink::shrink(&failure, self.shrink, |keep| {
                run.faults_kept = keep;
                run.make(&test)
            });
            panic!("{}{}", report::of_failure(seed, &failure), report::of_faults(seed, &failure, &shrunk));
        }
    }

    fn make(&self, seed: u64, trace_entries: usize) -> Run<'_> {
        Run { seed, faults: self.faults.as_deref(), trace_entries, faults_kept: Keep::All, has_stack: true }
    }

    /// Runs one seed, and prints its trace.
    #[track_caller]
    fn run_one(&self, seed: u64, keep: Option<BTreeSet<u64>>, test: &(impl Fn(&Simulation) + Sync)) {
        let mut run = self.make(seed, usize::MAX);
        if let Some(keep) = keep {
            // The numbers are those of the run with all faults.
            let mut happened = Run { faults_kept: Keep::Recorded, ..self.make(seed, 0) }.make(test).happened;
            happened.retain(|occurrence| keep.contains(&occurrence.number));
            run.faults_kept = Keep::Only(happened);
        }
        let outcome = run.make(test);
        if let Some(failure) = outcome.failure {
            panic!("{}{}", report::of_failure(seed, &failure), report::of_trace(&failure));
        }
        report::print(&format!("the trace of seed {seed}:\n{}", outcome.trace));
    }

    /// Runs all seeds in their order, until one fails. Every seed below a failed one has begun
    /// before it, so the lowest seed that fails is always found.
    fn first_failure(&self, seeds: Range<u64>, test: &(impl Fn(&Simulation) + Sync)) -> Option<(u64, Failure)> {
        let next = AtomicU64::new(seeds.start);
        let end = AtomicU64::new(seeds.end);
        let failed: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
        let progress = Progress::new(seeds.clone());
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(failure) = self.make(seed, self.trace_entries).make(test).failure {
                    end.fetch_min(seed, Ordering::Relaxed);
                    let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if failed.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
                        *failed = Some((seed, failure));
                    }
                }
                progress.count();
            }
        };
        if self.threads == 1 {
            work();
        } else {
            thread::scope(|scope| {
                for _ in 0..self.threads {
                    scope.spawn(work);
                }
            });
        }
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
