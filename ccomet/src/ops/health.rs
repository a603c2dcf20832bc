//! Whether the server lives: all of its loops, not only the one that says so.

use std::fmt;
use std::sync::Arc;

use crate::ops::counters::LoopCounters;

/// Looks at a loop, about a second apart, at which it may not have moved before it counts as hanging.
const SILENT_MAX: u8 = 5;

/// What happens to a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// All loops make progress. Reported about once a second, and not while one hangs.
    Alive,
    /// It goes down.
    Stopping,
}

/// A callback that is called on the thread of the first loop. It must not block.
#[derive(Clone)]
pub(crate) struct Listener(pub(crate) Arc<dyn Fn(Life) + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener(..)")
    }
}

/// What is known of the loops' progress.
#[derive(Debug)]
pub(crate) struct LoopWatchdog {
    /// Of each loop, its count at the last look, and how often it has stood still since it moved.
    seen: Vec<(u64, u8)>,
}

impl LoopWatchdog {
    pub(crate) fn new(loops: usize) -> Self {
        Self { seen: vec![(0, 0); loops] }
    }

    /// Looks at all loops. Returns whether each has moved lately.
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
    fn a_loop_that_hangs_is_missed_and_one_that_goes_on_is_heard_again() {
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
