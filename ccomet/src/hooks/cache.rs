//! Answers that hold for a while. Only of who may subscribe: what is published is another thing each time.

use std::collections::HashMap;

use super::question::Verdict;
use crate::message::ChannelName;

/// What was asked: by whom, of what, and what came along.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) member: Option<Box<str>>,
    pub(crate) channels: Vec<ChannelName>,
    pub(crate) headers: Vec<(Box<str>, Box<str>)>,
}

/// The answers that still hold.
#[derive(Debug)]
pub(crate) struct Answers {
    max: usize,
    held: HashMap<Key, (bool, u64)>,
}

impl Answers {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, held: HashMap::new() }
    }

    /// Whether it is allowed, where that is known.
    pub(crate) fn find(&self, key: &Key, now_ms: u64) -> Option<bool> {
        self.held.get(key).filter(|(_, until_ms)| *until_ms > now_ms).map(|(allowed, _)| *allowed)
    }

    /// Keeps an answer for so long. Where there are too many, those that are over go, and if that does not help, all.
    pub(crate) fn keep(&mut self, key: Key, verdict: Verdict, kept_s: u64, now_ms: u64) {
        if kept_s == 0 || verdict == Verdict::Down {
            return;
        }
        if self.held.len() >= self.max {
            self.sweep(now_ms);
        }
        if self.held.len() >= self.max {
            self.held.clear();
        }
        self.held.insert(key, (verdict == Verdict::Allowed, now_ms.saturating_add(kept_s * 1_000)));
    }

    /// Forgets what does not hold any more.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        self.held.retain(|_, (_, until_ms)| *until_ms > now_ms);
        if self.held.is_empty() {
            self.held.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_its_time_and_its_question() {
        let key = |member: &str| Key { member: Some(member.into()), channels: Vec::new(), headers: Vec::new() };
        let mut answers = Answers::new(2);
        answers.keep(key("ann"), Verdict::Allowed, 5, 1_000);
        answers.keep(key("bob"), Verdict::Refused, 9, 1_000);
        answers.keep(key("eve"), Verdict::Allowed, 0, 1_000);
        answers.keep(key("eve"), Verdict::Down, 5, 1_000);
        assert_eq!((answers.find(&key("ann"), 5_999), answers.find(&key("ann"), 6_000)), (Some(true), None));
        assert_eq!((answers.find(&key("bob"), 6_000), answers.find(&key("eve"), 1_000)), (Some(false), None));
        answers.keep(key("eve"), Verdict::Allowed, 5, 6_000);
        assert_eq!((answers.held.len(), answers.find(&key("bob"), 6_000)), (2, Some(false)), "one was over");
        answers.keep(key("kim"), Verdict::Allowed, 5, 6_000);
        assert_eq!(answers.held.len(), 1, "none was");
    }
}
