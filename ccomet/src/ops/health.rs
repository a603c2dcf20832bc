//! The health of the server: whether all of its loops make progress, not only the loop that reports
//! it, and what prevents it from doing its work.

use std::fmt;
use std::sync::Arc;

use sealed::fault;
use serde_json::json;

use crate::core::health::HealthProblem;
use crate::ops::counters::LoopCounters;

/// The number of checks, about a second apart, without progress of a loop after which it counts as
/// hanging.
const SILENT_MAX: u8 = 5;

/// A state of a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// All loops make progress. It is reported about once a second, and not while a loop hangs.
    Alive,
    /// The server is shutting down.
    Stopping,
}

/// A callback that runs on the thread of the first loop. It must not block.
#[derive(Clone)]
pub(crate) struct Listener(pub(crate) Arc<dyn Fn(Life) + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener(..)")
    }
}

/// A question about the health of the server, which its path asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthQuestion {
    /// Whether the process works, or should be restarted.
    Live,
    /// Whether clients should be sent to it.
    Ready,
}

impl HealthQuestion {
    /// Returns the question that a path of the admin listener asks.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        match path {
            "/health/live" => Some(Self::Live),
            "/health/ready" => Some(Self::Ready),
            _ => None,
        }
    }

    /// Answers the question: whether it is so, and a JSON document that lists the problems.
    pub(crate) fn answer(self, problems: &[HealthProblem]) -> (bool, String) {
        let is_ok = problems.iter().all(|problem| match self {
            Self::Live => !problem.is_deadly(),
            Self::Ready => problem.is_minor() || fault!("unready-counts-as-ready"),
        });
        let problems: Vec<_> = problems
            .iter()
            .map(|problem| {
                let (code, reason) = problem.texts();
                json!({ "code": code, "reason": reason })
            })
            .collect();
        (is_ok, json!({ "type": "health", "ok": is_ok, "problems": problems }).to_string())
    }
}

/// The observed progress of the loops.
#[derive(Debug)]
pub(crate) struct LoopWatchdog {
    /// For each loop, its count at the last check, and the number of checks since its last
    /// progress.
    seen: Vec<(u64, u8)>,
    /// Whether each loop had made progress at the last check.
    all_alive: bool,
}

impl LoopWatchdog {
    pub(crate) fn new(loops: usize) -> Self {
        Self { seen: vec![(0, 0); loops], all_alive: true }
    }

    /// Returns whether each loop had made progress at the last check.
    pub(crate) fn all_alive(&self) -> bool {
        self.all_alive
    }

    /// Checks all loops. Returns whether each has made progress lately.
    pub(crate) fn check(&mut self, counters: &[LoopCounters]) -> bool {
        let mut all = true;
        for ((beats, silent), one) in self.seen.iter_mut().zip(counters) {
            let now = one.beats();
            *silent = if std::mem::replace(beats, now) == now { silent.saturating_add(1) } else { 0 };
            all &= *silent < SILENT_MAX;
        }
        self.all_alive = all;
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_if_nothing_prevents_its_work_and_lives_as_long_as_its_loops() {
        use HealthProblem::{Draining, StoreFailed, StoreFull, StoreUnreadable};

        let ok = |problems: &[HealthProblem]| {
            [HealthQuestion::Live, HealthQuestion::Ready].map(|question| question.answer(problems).0)
        };
        assert_eq!(ok(&[]), [true, true]);
        assert_eq!(ok(&[HealthProblem::CheckpointFails]), [true, true]);
        for problem in [Draining, StoreFull, StoreFailed, StoreUnreadable] {
            assert_eq!(ok(&[problem, HealthProblem::CheckpointFails]), [true, false], "{problem:?}");
        }
        assert_eq!(ok(&[HealthProblem::LoopHangs]), [false, false]);
        let (_, text) = HealthQuestion::Ready.answer(&[HealthProblem::Draining]);
        assert_eq!(
            text,
            r#"{"ok":false,"problems":[{"code":"draining","reason":"The server is shutting down."}],"type":"health"}"#
        );
    }

    #[test]
    fn a_hanging_loop_is_noticed_and_so_is_its_recovery() {
        let counters = LoopCounters::for_loops(2);
        let mut watchdog = LoopWatchdog::new(2);
        let mut look = |beating: &[usize]| {
            for index in beating {
                counters[*index].beat();
            }
            watchdog.check(&counters)
        };
        assert!((0..10).all(|_| look(&[0, 1])));
        let hanging: Vec<bool> = (0..7).map(|_| look(&[0])).collect();
        assert_eq!(hanging, [true, true, true, true, false, false, false]);
        assert!(look(&[0, 1]));
    }
}
