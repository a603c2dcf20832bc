//! What a loop has counted.

use std::collections::{BTreeMap, HashSet};

use hdrhistogram::Histogram;

/// The greatest latency that is recorded as it is: an hour, in microseconds. A greater one counts
/// as this.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// The maximum number of kinds of errors that are kept, with their texts.
const ERRORS_MAX: usize = 20;
/// The maximum number of missing messages of a subscriber whose late arrival would be noticed.
const MISSING_MAX: usize = 10_000;

/// Counts of a loop, or of all.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) published: u64,
    pub(super) refused: u64,
    pub(super) uncertain: u64,
    pub(super) delivered: u64,
    pub(super) bytes: u64,
    pub(super) missing: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
    pub(super) connects: u64,
    pub(super) lost_connections: u64,
    pub(super) failed_connects: u64,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) latency: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            published: 0,
            refused: 0,
            uncertain: 0,
            delivered: 0,
            bytes: 0,
            missing: 0,
            duplicates: 0,
            out_of_order: 0,
            connects: 0,
            lost_connections: 0,
            failed_connects: 0,
            errors: BTreeMap::new(),
            latency: histogram(),
        }
    }

    /// Counts an error by its text.
    pub(super) fn error(&mut self, text: String) {
        if self.errors.len() < ERRORS_MAX || self.errors.contains_key(&text) {
            *self.errors.entry(text).or_default() += 1;
        }
    }

    /// Adds the counts of a loop. Its latencies are added apart.
    pub(super) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.published, other.published),
            (&mut self.refused, other.refused),
            (&mut self.uncertain, other.uncertain),
            (&mut self.delivered, other.delivered),
            (&mut self.bytes, other.bytes),
            (&mut self.missing, other.missing),
            (&mut self.duplicates, other.duplicates),
            (&mut self.out_of_order, other.out_of_order),
            (&mut self.connects, other.connects),
            (&mut self.lost_connections, other.lost_connections),
            (&mut self.failed_connects, other.failed_connects),
        ];
        for (count, more) in pairs {
            *count += more;
        }
        for (text, count) in &other.errors {
            *self.errors.entry(text.clone()).or_default() += count;
        }
    }
}

/// Makes an empty histogram of latencies in microseconds, exact to 0.1 %.
pub(super) fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new(3).unwrap_or_else(|_| unreachable!("three digits are allowed"));
    histogram.auto(true);
    histogram
}

/// Records a latency.
pub(super) fn record(histogram: &mut Histogram<u64>, latency_us: u64) {
    // It grows to hold any latency up to the maximum.
    let _ = histogram.record(latency_us.clamp(1, LATENCY_MAX_US));
}

/// The numbers that a subscriber has got of each publisher of its channel.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// The next number of each publisher; `None` before the first.
    next: Vec<Option<u32>>,
    missing: HashSet<(usize, u32)>,
}

impl Track {
    /// Makes the record of a subscriber of a channel with this many publishers. A subscriber that
    /// is there before the first message misses what is published before its own first.
    pub(super) fn new(publishers: usize, is_there_before: bool) -> Self {
        Self { next: vec![is_there_before.then_some(0); publishers], missing: HashSet::new() }
    }

    /// Records a message, and counts what it shows.
    pub(super) fn got(&mut self, publisher: usize, number: u32, tally: &mut Tally) {
        let Some(next) = self.next.get_mut(publisher) else { return };
        let expected = next.unwrap_or(number);
        if number >= expected {
            *next = Some(number.saturating_add(1));
            tally.missing += u64::from(number - expected);
            let room = MISSING_MAX.saturating_sub(self.missing.len());
            self.missing.extend((expected..number).take(room).map(|missing| (publisher, missing)));
        } else if self.missing.remove(&(publisher, number)) {
            tally.missing -= 1;
            tally.out_of_order += 1;
        } else {
            tally.duplicates += 1;
        }
    }

    /// Returns the number of messages of a publisher that this subscriber has not got at the end.
    pub(super) fn behind(&self, publisher: usize, published: u32) -> u64 {
        let next = self.next.get(publisher).copied().flatten();
        next.map_or(0, |next| u64::from(published.saturating_sub(next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_latencies_are_recorded_as_they_are() {
        let mut histogram = histogram();
        for latency_us in [0, 40, 5_000_000, u64::MAX] {
            record(&mut histogram, latency_us);
        }
        assert_eq!((histogram.len(), histogram.min()), (4, 1));
        assert!((5_000_000..5_010_000).contains(&histogram.value_at_percentile(75.0)));
        assert!(histogram.max() >= LATENCY_MAX_US);
    }

    #[test]
    fn losses_duplicates_and_order_are_counted_separately() {
        let (mut track, mut tally) = (Track::new(2, true), Tally::new());
        for number in [0, 1, 4, 2, 2, 5] {
            track.got(0, number, &mut tally);
        }
        assert_eq!((tally.missing, tally.out_of_order, tally.duplicates), (1, 1, 1));
        assert_eq!((track.behind(0, 8), track.behind(1, 8)), (2, 8));
        // A subscriber that comes later has missed nothing before its first message.
        let (mut late, mut tally) = (Track::new(1, false), Tally::new());
        late.got(0, 7, &mut tally);
        late.got(0, 8, &mut tally);
        assert_eq!((tally.missing, late.behind(0, 9)), (0, 0));
    }
}
