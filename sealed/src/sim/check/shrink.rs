//! Reduces the faults of a failed run to the few that it needs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::run::{Failure, Keep, RunOutcome};
use crate::sim::occurrences::Occurrence;

/// How long a run is reduced at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShrinkLimits {
    pub(super) runs_max: u32,
    pub(super) time_max: Duration,
}

/// A reduced run.
#[derive(Debug)]
pub(super) struct Shrunk {
    /// The faults that are left.
    pub(super) left: Vec<Occurrence>,
    /// The number of faults before.
    pub(super) of: usize,
    pub(super) failure: Failure,
    pub(super) runs: u32,
    /// A limit was reached before the end.
    pub(super) is_cut_short: bool,
}

/// Why a run was not reduced.
#[derive(Debug)]
pub(super) enum Unshrunk {
    /// There is nothing to leave out, or it is switched off.
    Nothing,
    /// The same seed does not fail in the same way again.
    NotRepeated,
}

struct Shrinker<R> {
    repeat: R,
    location: String,
    limits: ShrinkLimits,
    began: Instant,
    runs: u32,
    is_cut_short: bool,
    left: Vec<Occurrence>,
    failure: Failure,
}

/// Repeats a failed run with fewer and fewer faults. `repeat` makes the run with those that it is
/// to keep.
pub(super) fn shrink(
    failure: &Failure,
    limits: ShrinkLimits,
    repeat: impl FnMut(Keep) -> RunOutcome,
) -> Result<Shrunk, Unshrunk> {
    if limits.runs_max == 0 {
        return Err(Unshrunk::Nothing);
    }
    let mut shrinker = Shrinker {
        repeat,
        location: failure.panic.location.clone(),
        limits,
        began: Instant::now(),
        runs: 0,
        is_cut_short: false,
        left: Vec::new(),
        failure: Failure::default(),
    };
    if !shrinker.fails_with(Keep::Recorded) {
        return Err(Unshrunk::NotRepeated);
    }
    let of = shrinker.left.len();
    if of == 0 {
        return Err(Unshrunk::Nothing);
    }
    if !shrinker.fails_with(Keep::Only(Vec::new())) {
        shrinker.leave_out_kinds();
        shrinker.leave_out_last();
        shrinker.leave_out_parts();
    }
    let Shrinker { runs, is_cut_short, left, failure, .. } = shrinker;
    Ok(Shrunk { left, of, failure, runs, is_cut_short })
}

impl<R: FnMut(Keep) -> RunOutcome> Shrinker<R> {
    /// Makes a run. If it fails at the same location, it is the best so far: a run with only the
    /// faults that happened in it is the same run, because those that it did not reach have no
    /// effect.
    fn fails_with(&mut self, keep: Keep) -> bool {
        if self.runs >= self.limits.runs_max || self.began.elapsed() >= self.limits.time_max {
            self.is_cut_short = true;
            return false;
        }
        self.runs += 1;
        let RunOutcome { failure: Some(failure), happened, .. } = (self.repeat)(keep) else { return false };
        let is_same = failure.panic.location == self.location;
        if is_same {
            self.left = happened;
            self.failure = failure;
        }
        is_same
    }

    fn fails_without(&mut self, from: usize, to: usize) -> bool {
        let kept = self.left[..from].iter().chain(&self.left[to..]);
        self.fails_with(Keep::Only(kept.cloned().collect()))
    }

    /// Leaves out all faults of a kind, for each kind.
    fn leave_out_kinds(&mut self) {
        let names: BTreeSet<&'static str> = self.left.iter().map(|occurrence| occurrence.name).collect();
        for name in names {
            let kept = self.left.iter().filter(|occurrence| occurrence.name != name);
            self.fails_with(Keep::Only(kept.cloned().collect()));
        }
    }

    /// Leaves out the last faults, as many as possible: the run does not change before them.
    fn leave_out_last(&mut self) {
        let (mut too_few, mut enough) = (0, self.left.len());
        while too_few + 1 < enough && !self.is_cut_short {
            let middle = usize::midpoint(too_few, enough);
            if self.fails_without(middle, self.left.len()) {
                enough = self.left.len().min(middle);
            } else {
                too_few = middle;
            }
        }
    }

    /// Leaves out smaller and smaller parts, until every single fault is needed (the algorithm is
    /// known as delta debugging).
    fn leave_out_parts(&mut self) {
        let mut parts = 2;
        while self.left.len() > 1 && !self.is_cut_short {
            let length = self.left.len();
            let size = length.div_ceil(parts.min(length));
            // The last part first, because the faults before it keep their effect.
            let ends = (0..length).step_by(size).map(|from| (from, (from + size).min(length))).rev();
            if ends.into_iter().any(|(from, to)| self.fails_without(from, to)) {
                parts = (parts - 1).max(2);
            } else if size == 1 {
                return;
            } else {
                parts *= 2;
            }
        }
    }
}
