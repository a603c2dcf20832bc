//! The cache of answers about subscriptions. Answers about publications are not kept: each message
//! is different.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ring::digest;

use super::question::Verdict;
use crate::core::time::LoopTime;

/// The memory of an answer, including its entries in both tables.
const ANSWER_BYTES: usize = 160;

/// The number of answers that a sweep visits.
const SWEPT: usize = 1_000;

/// A digest of a whole question. An answer takes the same memory for a long question as for a short
/// one, and no cookie is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct QuestionDigest([u8; 32]);

impl QuestionDigest {
    pub(crate) fn of(question: &[u8]) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, question).as_ref());
        Self(key)
    }
}

/// The valid answers, up to a number of bytes. The least recently used answer is dropped first.
#[derive(Debug)]
pub(crate) struct Answers {
    max: usize,
    held: HashMap<QuestionDigest, Held>,
    /// Keys in the order of their last use.
    order: BTreeMap<u64, QuestionDigest>,
    uses: u64,
}

#[derive(Debug)]
struct Held {
    is_allowed: bool,
    until: LoopTime,
    used: u64,
}

impl Answers {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { max: bytes_max / ANSWER_BYTES, held: HashMap::new(), order: BTreeMap::new(), uses: 0 }
    }

    /// Returns whether the question is allowed, if there is a valid answer.
    pub(crate) fn find(&mut self, key: &QuestionDigest, now: LoopTime) -> Option<bool> {
        let held = self.held.get_mut(key).filter(|held| held.until > now)?;
        self.uses += 1;
        self.order.remove(&held.used);
        self.order.insert(self.uses, *key);
        held.used = self.uses;
        Some(held.is_allowed)
    }

    /// Keeps an answer for `kept_s` seconds.
    pub(crate) fn keep(&mut self, key: QuestionDigest, verdict: Verdict, kept_s: u64, now: LoopTime) {
        let is_answer = matches!(verdict, Verdict::Allowed | Verdict::Refused);
        if kept_s == 0 || !is_answer || self.max == 0 {
            return;
        }
        self.forget(&key);
        while self.held.len() >= self.max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.held.remove(&oldest);
        }
        self.uses += 1;
        let until = now.plus(Duration::from_secs(kept_s));
        self.order.insert(self.uses, key);
        self.held.insert(key, Held { is_allowed: verdict == Verdict::Allowed, until, used: self.uses });
    }

    fn forget(&mut self, key: &QuestionDigest) {
        if let Some(held) = self.held.remove(key) {
            self.order.remove(&held.used);
        }
    }

    /// Forgets expired answers, among those that were used least recently.
    pub(crate) fn sweep(&mut self, now: LoopTime) {
        let is_over = |key: &&QuestionDigest| self.held.get(*key).is_none_or(|held| held.until <= now);
        let over: Vec<QuestionDigest> = self.order.values().take(SWEPT).filter(is_over).copied().collect();
        for key in over {
            self.forget(&key);
        }
        if self.held.is_empty() {
            self.held.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> LoopTime {
        LoopTime::since_start(Duration::from_millis(millis))
    }

    fn answers(max: usize) -> Answers {
        Answers::new(max * ANSWER_BYTES)
    }

    fn key(member: &str) -> QuestionDigest {
        QuestionDigest::of(member.as_bytes())
    }

    #[test]
    fn an_answer_is_valid_for_its_time_and_its_question() {
        let mut answers = answers(3);
        answers.keep(key("ann"), Verdict::Allowed, 5, at(1_000));
        answers.keep(key("bob"), Verdict::Refused, 9, at(1_000));
        answers.keep(key("eve"), Verdict::Allowed, 0, at(1_000));
        answers.keep(key("eve"), Verdict::Down, 5, at(1_000));
        answers.keep(key("eve"), Verdict::Unclear, 5, at(1_000));
        assert_eq!((answers.find(&key("ann"), at(5_999)), answers.find(&key("ann"), at(6_000))), (Some(true), None));
        assert_eq!((answers.find(&key("bob"), at(6_000)), answers.find(&key("eve"), at(1_000))), (Some(false), None));
        answers.sweep(at(6_000));
        assert_eq!((answers.held.len(), answers.order.len()), (1, 1));
        answers.sweep(at(60_000));
        assert_eq!((answers.held.len(), answers.order.len()), (0, 0));
    }

    #[test]
    fn the_least_recently_used_answer_is_dropped_first() {
        let mut answers = answers(3);
        for member in ["ann", "bob", "eve"] {
            answers.keep(key(member), Verdict::Allowed, 60, at(0));
        }
        assert_eq!(answers.find(&key("ann"), at(1)), Some(true));
        answers.keep(key("kim"), Verdict::Allowed, 60, at(2));
        answers.keep(key("eve"), Verdict::Refused, 60, at(3));
        let found = ["ann", "bob", "eve", "kim"].map(|member| answers.find(&key(member), at(4)));
        assert_eq!(found, [Some(true), None, Some(false), Some(true)]);
        assert_eq!((answers.held.len(), answers.order.len()), (3, 3));
    }
}
