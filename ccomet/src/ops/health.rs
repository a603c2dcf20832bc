//! The health of the server: whether all of its loops make progress, not only the loop that reports
//! it.

use std::fmt;
use std::sync::Arc;

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

/// The observed progress of the loops.
#[derive(Debug)]
pub(crate) struct LoopWatchdog {
    /// For each loop, its count at the last check, and the number of checks since its last
    /// progress.
    seen: Vec<(u64, u8)>,
}

impl LoopWatchdog {
    pub(crate) fn new(loops: usize) -> Self {
        Self { seen: vec![(0, 0); loops] }
    }

    /// Checks all loops. Returns whether each has made progress lately.
    pub(crate) fn all_alive(&mut self, counters: &[LoopCounters]) -> bool {
        let mut all = true;
        for ((beats, silent), one) in self.seen.iter_mut().zip(counters) {
            let now = one.beats();
            *silent = if std::mem::replace(beats, now) == now { silent.saturating_add(1) } else { 0 };
            all &= *silent < SILENT_MAX;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hanging_loop_is_noticed_and_so_is_its_recovery() {
        let counters = LoopCounters::for_loops(2);
        let mut watchdog = LoopWatchdog::new(2);
        let mut look = |beating: &[usize]| {
            for index in beating {
                counters[*index].beat();
            }
            watchdog.all_alive(&counters)
        };
        assert!((0..10).all(|_| look(&[0, 1])));
        let hanging: Vec<bool> = (0..7).map(|_| look(&[0])).collect();
        assert_eq!(hanging, [true, true, true, true, false, false, false]);
        assert!(look(&[0, 1]));
    }
}
