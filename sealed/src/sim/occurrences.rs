//! The faults that occur in a run. A run can be repeated with only some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::Random;
use super::network::Net;
use super::trace::Entry;

/// A decision whether a fault occurs: which fault, at which socket or loop, and how many decisions
/// about it came before. It has the same name in a run in which other faults are left out, as long
/// as the run is the same up to there.
type Decision = (&'static str, u32, u64);

/// One occurrence of a fault.
#[derive(Debug, Clone)]
pub(super) struct Occurrence {
    /// The number of earlier occurrences in the run with all faults.
    pub(super) number: u64,
    /// The field of [`Faults`](super::Faults).
    pub(super) name: &'static str,
    pub(super) at: Duration,
    decision: Decision,
    /// The random numbers that the fault draws: how long it takes, for example.
    amounts: Random,
}

/// Counts the occurrences of faults, records them, or repeats recorded ones.
#[derive(Debug, Default)]
pub(super) struct Occurrences {
    count: u64,
    record: Option<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// How many decisions there were about each fault, at each socket and loop.
    decisions: BTreeMap<(&'static str, u32), u64>,
    /// The only faults that happen; `None` if chance decides.
    keep: Option<BTreeMap<Decision, Occurrence>>,
    happened: Vec<Occurrence>,
}

impl Occurrences {
    /// Lets chance decide, and records what happens.
    pub(super) fn recorded() -> Self {
        Self { count: 0, record: Some(Record::default()) }
    }

    /// Repeats some occurrences of a recorded run, at the same decisions. Chance decides nothing.
    pub(super) fn repeated(kept: impl Iterator<Item = Occurrence>) -> Self {
        let keep = kept.map(|occurrence| (occurrence.decision, occurrence)).collect();
        Self { count: 0, record: Some(Record { keep: Some(keep), ..Record::default() }) }
    }

    /// Decides whether a fault happens, which chance has decided as well. `amounts` is the stream
    /// of random numbers after that. Returns its number and the amounts of its own.
    pub(super) fn decide(&mut self, fault: Fault, by_chance: bool, amounts: Random) -> Option<(u64, Random)> {
        let Fault { name, subject, at } = fault;
        let Some(record) = &mut self.record else {
            self.count += u64::from(by_chance);
            return by_chance.then(|| (self.count - 1, amounts));
        };
        let counted = record.decisions.entry((name, subject)).or_default();
        let decision = (name, subject, *counted);
        *counted += 1;
        let happens = match &record.keep {
            Some(keep) if !fault!("left-out-faults-happen") => {
                keep.get(&decision).map(|kept| Occurrence { at, ..kept.clone() })
            }
            _ => by_chance.then_some(Occurrence { number: self.count, name, at, decision, amounts }),
        }?;
        self.count += 1;
        record.happened.push(happens.clone());
        Some((happens.number, happens.amounts))
    }

    pub(super) fn take_happened(&mut self) -> Vec<Occurrence> {
        self.record.take().map_or_else(Vec::new, |record| record.happened)
    }
}

/// A fault that may occur now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// The index of the socket, listener or loop.
    pub(super) subject: u32,
    pub(super) at: Duration,
}

impl Net {
    /// Draws whether a fault occurs. `name` is its field in [`Faults`], `subject` the index of the
    /// socket, listener or loop.
    pub(in crate::sim) fn occurs(&mut self, name: &'static str, subject: u32, probability: f64) -> bool {
        self.occurs_with(name, subject, probability, |_| ()).is_some()
    }

    /// Draws whether a fault occurs, and for how long.
    pub(in crate::sim) fn occurs_for(
        &mut self,
        name: &'static str,
        subject: u32,
        probability: f64,
    ) -> Option<Duration> {
        let longest = self.faults.delay_max;
        self.occurs_with(name, subject, probability, |random| random.time(longest))
    }

    /// Draws whether a fault occurs, and its amounts. All faults that occur by chance are decided
    /// here.
    ///
    /// In a run that repeats recorded faults, chance draws the same numbers as otherwise, so that a
    /// fault that is left out does not change the choices that follow.
    pub(in crate::sim) fn occurs_with<T>(
        &mut self,
        name: &'static str,
        subject: u32,
        probability: f64,
        amounts: impl Fn(&mut Random) -> T,
    ) -> Option<T> {
        if probability <= 0.0 {
            return None;
        }
        let by_chance = self.random.chance(probability);
        let before = self.random.clone();
        if by_chance {
            amounts(&mut self.random);
        }
        let fault = Fault { name, subject, at: self.now };
        let (number, mut random) = self.occurrences.decide(fault, by_chance, before)?;
        self.note(Entry::Fault { number, name });
        Some(amounts(&mut random))
    }
}

/// Writes numbers as in `KEEP`: 4,17,20-31.
pub(super) struct Numbers<'a>(pub(super) &'a BTreeSet<u64>);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut numbers = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = numbers.next() {
            let mut last = first;
            while let Some(next) = numbers.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(f, "{comma}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

/// Reads numbers as in `KEEP`.
pub(super) fn numbers(text: &str) -> Option<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    if text == "none" {
        return Some(numbers);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
        // A mistyped range must not fill the memory.
        if last.saturating_sub(first) > 10_000_000 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}
