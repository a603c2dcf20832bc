//! A channel's bounded log: the newest messages, each with its number.

use std::collections::VecDeque;
use std::time::Duration;

use sealed::fault;

use crate::core::time::UnixMillis;

/// The limits on the history of a channel. The oldest message is dropped as soon as one limit is
/// exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistoryLimits {
    /// The number of messages.
    pub(crate) messages_max: usize,
    /// The number of bytes, including the overhead of each message.
    pub(crate) bytes_max: usize,
    /// The time for which each message is kept after it was accepted.
    pub(crate) kept_for: Duration,
}

/// An entry of a log.
pub(crate) trait Kept {
    /// Returns its share of [`HistoryLimits::bytes_max`].
    fn cost(&self) -> usize;
    /// Returns the time at which it was accepted.
    fn time(&self) -> UnixMillis;
}

/// A log of the messages with the numbers `first .. next`, in order.
#[derive(Debug)]
pub(crate) struct MessageLog<T> {
    entries: VecDeque<T>,
    first: u64,
    bytes: usize,
}

impl<T: Kept> MessageLog<T> {
    /// Creates an empty log, whose first message will have number `next`.
    pub(crate) fn starting_at(next: u64) -> Self {
        Self { entries: VecDeque::new(), first: next, bytes: 0 }
    }

    /// Returns the number of the oldest kept message, or of the next message if the log is empty.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Returns the number that the next message will have.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a message and returns its number.
    pub(crate) fn push(&mut self, entry: T) -> u64 {
        let number = self.next();
        self.bytes += entry.cost();
        self.entries.push_back(entry);
        number
    }

    /// Returns the messages from number `from` on, as far as they are still kept.
    pub(crate) fn since(&self, from: u64) -> impl Iterator<Item = (u64, &T)> {
        let skipped = from.saturating_sub(self.first).min(self.entries.len() as u64) as usize;
        let first = self.first + skipped as u64;
        (first..).zip(self.entries.range(skipped..))
    }

    /// Returns all messages, the newest first.
    pub(crate) fn back(&self) -> impl Iterator<Item = (u64, &T)> {
        (self.first..self.next()).rev().zip(self.entries.iter().rev())
    }

    /// Returns the newest message before number `number`.
    pub(crate) fn before(&self, number: u64) -> Option<(u64, &T)> {
        let number = number.min(self.next()).checked_sub(1)?;
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        Some((number, self.entries.get(index)?))
    }

    pub(crate) fn entry(&self, number: u64) -> Option<&T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get(index)
    }

    /// Drops the oldest message, if there is one, and returns it.
    pub(crate) fn drop_oldest(&mut self) -> Option<T> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.bytes -= entry.cost();
        self.shrink();
        Some(entry)
    }

    /// Releases memory that is no longer needed.
    fn shrink(&mut self) {
        if self.entries.is_empty() || (self.entries.capacity() > 8 && self.entries.len() * 4 < self.entries.capacity())
        {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Drops the messages that exceed the limits, and passes them to `dropped`. The newest message
    /// stays even if it alone exceeds `bytes_max`: readers that wait for it must get it.
    pub(crate) fn trim(&mut self, limits: &HistoryLimits, now: UnixMillis, mut dropped: impl FnMut(T)) {
        let not_before = now.minus(limits.kept_for);
        while let Some(oldest) = self.entries.front() {
            let over = self.entries.len() > limits.messages_max.max(1) + usize::from(fault!("one-message-too-many"))
                || (self.entries.len() >= limits.messages_max.max(2) && fault!("dropped-at-the-edge"))
                || (self.bytes > limits.bytes_max && self.entries.len() > 1)
                || oldest.time() < not_before;
            if !over {
                break;
            }
            self.drop_oldest().map(&mut dropped);
        }
    }

    /// Drops all messages before number `first`, and passes them to `dropped`.
    pub(crate) fn drop_before(&mut self, first: u64, mut dropped: impl FnMut(T)) {
        while self.first < first
            && let Some(entry) = self.drop_oldest()
        {
            dropped(entry);
        }
        self.first = self.first.max(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(usize, u64);

    impl Kept for Thing {
        fn cost(&self) -> usize {
            self.0
        }

        fn time(&self) -> UnixMillis {
            UnixMillis::from_millis(self.1)
        }
    }

    const LIMITS: HistoryLimits = HistoryLimits { messages_max: 3, bytes_max: 100, kept_for: Duration::from_secs(1) };

    const fn at(millis: u64) -> UnixMillis {
        UnixMillis::from_millis(millis)
    }

    fn numbers(log: &MessageLog<Thing>, from: u64) -> Vec<u64> {
        log.since(from).map(|(number, _)| number).collect()
    }

    #[test]
    fn trim_keeps_the_newest_by_count_bytes_and_age() {
        let mut log = MessageLog::starting_at(7);
        for _ in 0..4 {
            log.push(Thing(10, 5_000));
            log.trim(&LIMITS, at(5_000), drop);
        }
        assert_eq!((log.first(), log.next(), log.bytes()), (8, 11, 30));
        log.push(Thing(90, 5_500));
        log.trim(&LIMITS, at(5_500), drop);
        assert_eq!(numbers(&log, 0), [10, 11]);
        log.trim(&LIMITS, at(6_000), drop);
        assert_eq!(numbers(&log, 0), [10, 11], "exactly as old as allowed");
        log.trim(&LIMITS, at(6_001), drop);
        assert_eq!(numbers(&log, 0), [11]);
        log.push(Thing(500, 6_001));
        log.trim(&LIMITS, at(6_001), drop);
        assert_eq!(numbers(&log, 0), [12], "the newest stays though it is too large alone");
        log.trim(&LIMITS, at(60_000), drop);
        assert_eq!((log.first(), log.next(), log.bytes()), (13, 13, 0));
    }

    #[test]
    fn messages_are_read_from_any_number() {
        let mut log = MessageLog::starting_at(5);
        for _ in 0..3 {
            log.push(Thing(1, 0));
        }
        assert_eq!(numbers(&log, 0), [5, 6, 7]);
        assert_eq!(numbers(&log, 6), [6, 7]);
        assert!(numbers(&log, 8).is_empty());
        assert!(numbers(&log, 99).is_empty());
        let before = |number| log.before(number).map(|(number, _)| number);
        assert_eq!([before(99), before(8), before(6), before(5), before(0)], [Some(7), Some(7), Some(5), None, None]);
        log.drop_before(7, drop);
        assert_eq!(numbers(&log, 0), [7]);
        log.drop_before(20, drop);
        assert_eq!((log.first(), log.next()), (20, 20));
    }
}
