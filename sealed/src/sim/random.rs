use std::ops::RangeInclusive;
use std::time::Duration;

use crate::context::split_mix;

/// A stream of random numbers that is the same for the same seed on every machine.
///
/// A simulation draws its random choices from such a stream. A test should do so too, so that the
/// seed determines the whole run.
///
/// ```
/// use sealed::sim::Random;
///
/// let (mut one, mut other) = (Random::new(7), Random::new(7));
/// assert_eq!(one.below(6), other.below(6));
/// ```
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Creates a stream from a seed.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not produce neighbouring states.
        let mut state = seed ^ 0x5ea1_ed00_0000_0000;
        split_mix(&mut state);
        Self(split_mix(&mut state))
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        split_mix(&mut self.0)
    }

    /// Returns a number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.bits() % bound as u64) as usize }
    }

    /// Returns a number in a range; the first if the range is empty.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = (*range.start(), (*range.end()).max(*range.start()));
        first + self.bits() % (last - first).saturating_add(1).max(1)
    }

    /// Returns true with this probability. Draws no number if the probability is 0.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && f64::from((self.bits() >> 32) as u32) < probability * 4_294_967_296.0
    }

    /// Returns a time of at most `longest`.
    pub fn time(&mut self, longest: Duration) -> Duration {
        Duration::from_nanos(self.within(0..=longest.as_nanos() as u64))
    }

    /// Returns one of the items; `None` if there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// Puts a list into random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for index in (1..list.len()).rev() {
            list.swap(index, self.below(index + 1));
        }
    }
}
