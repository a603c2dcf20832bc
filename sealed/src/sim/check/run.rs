//! One run of a test, and the capture of its panics.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use super::DrawFaults;
use crate::sim::occurrences::{Occurrence, Occurrences};
use crate::sim::{Handle, Simulation};

/// The stream of random numbers that the faults of a run are drawn from.
const FAULTS_STREAM: u64 = u64::MAX - 1;

/// What a run needs, apart from the test.
pub(super) struct Run<'a> {
    pub(super) seed: u64,
    pub(super) faults: Option<&'a DrawFaults>,
    /// Maximum number of trace entries that are kept of the run.
    pub(super) trace_entries: usize,
    pub(super) faults_kept: Keep,
    /// Takes the stack of a panic, if the environment asks for it.
    pub(super) has_stack: bool,
}

/// The random faults that a run keeps.
#[derive(Debug)]
pub(super) enum Keep {
    All,
    /// All, and those that happen are recorded.
    Recorded,
    /// Some that were recorded, and no others.
    Only(Vec<Occurrence>),
}

#[derive(Debug, Default)]
pub(super) struct RunOutcome {
    pub(super) failure: Option<Failure>,
    /// The trace, if the number of entries is not limited or the run has failed.
    pub(super) trace: String,
    /// The faults that happened, if they are recorded.
    pub(super) happened: Vec<Occurrence>,
}

/// The panic that ended a run.
#[derive(Debug, Default)]
pub(super) struct Failure {
    pub(super) panic: CaughtPanic,
    /// The panic of the test that followed from it, if the first was in a loop.
    pub(super) then: Option<CaughtPanic>,
}

/// A panic as the hook sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct CaughtPanic {
    pub(super) message: String,
    pub(super) location: String,
    /// Empty unless the environment asks for it.
    pub(super) backtrace: String,
    /// The newest entries of the trace at that moment.
    pub(super) trace: String,
}

/// Records the panics of the run of this thread.
struct Recorder {
    handle: Handle,
    trace_entries: usize,
    has_stack: bool,
    last: Option<CaughtPanic>,
    /// The panic that ended a loop.
    of_loop: Option<CaughtPanic>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

impl Run<'_> {
    /// Runs the test once.
    pub(super) fn make(&self, test: &impl Fn(&Simulation)) -> RunOutcome {
        let sim = Simulation::new(self.seed);
        if let Some(faults) = self.faults {
            sim.set_faults(faults(&mut sim.random(FAULTS_STREAM)));
        }
        let handle = sim.schedule.handle.clone();
        match &self.faults_kept {
            Keep::All => {}
            Keep::Recorded => handle.lock().occurrences = Occurrences::recorded(),
            Keep::Only(kept) => handle.lock().occurrences = Occurrences::repeated(kept.iter().cloned()),
        }
        let Self { trace_entries, has_stack, .. } = *self;
        let recorder = Recorder { handle: handle.clone(), trace_entries, has_stack, last: None, of_loop: None };
        // A test that uses a check runs within another check only by mistake, but it works.
        let outer = RECORDER.replace(Some(recorder));
        let result = panic::catch_unwind(AssertUnwindSafe(move || {
            test(&sim);
            drop(sim);
        }));
        let recorder = RECORDER.replace(outer);
        let happened = handle.lock().occurrences.take_happened();
        let Err(payload) = result else {
            let is_wanted = trace_entries == usize::MAX;
            let trace = if is_wanted { handle.trace(trace_entries) } else { String::new() };
            return RunOutcome { failure: None, trace, happened };
        };
        let (last, of_loop) = recorder.map_or((None, None), |recorder| (recorder.last, recorder.of_loop));
        // Without the hook, which the test may have replaced, there is only the payload.
        let last = last.unwrap_or_else(|| CaughtPanic {
            message: text_of(&*payload),
            trace: handle.trace(trace_entries),
            ..CaughtPanic::default()
        });
        let failure = match of_loop {
            Some(of_loop) => Failure { panic: of_loop, then: Some(last) },
            None => Failure { panic: last, then: None },
        };
        RunOutcome { trace: failure.panic.trace.clone(), failure: Some(failure), happened }
    }
}

/// Returns whether a run of this thread is recorded, so that its panics need no trace of their own.
pub(in crate::sim) fn is_recording() -> bool {
    RECORDER.with_borrow(Option::is_some)
}

/// Notes that the last panic ended a loop: it is the cause of the panic that follows.
pub(in crate::sim) fn loop_panicked() {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            recorder.of_loop = recorder.last.take();
        }
    });
}

/// Makes the panics of runs silent, because the report contains them. Has an effect only once.
pub(super) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !record(info) {
                before(info);
            }
        }));
    });
}

/// Records a panic. Returns false if it is not one of a run.
fn record(info: &PanicHookInfo<'_>) -> bool {
    RECORDER.with(|recorder| {
        let Ok(mut recorder) = recorder.try_borrow_mut() else { return false };
        let Some(recorder) = &mut *recorder else { return false };
        let backtrace = if recorder.has_stack { Backtrace::capture() } else { Backtrace::disabled() };
        let has_backtrace = backtrace.status() == BacktraceStatus::Captured;
        recorder.last = Some(CaughtPanic {
            message: text_of(info.payload()),
            location: info.location().map_or_else(String::new, ToString::to_string),
            backtrace: if has_backtrace { backtrace.to_string() } else { String::new() },
            // Before the stack is unwound, which closes connections. A panic of the network itself
            // holds the lock.
            trace: recorder.handle.try_trace(recorder.trace_entries).unwrap_or_default(),
        });
        true
    })
}

fn text_of(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
