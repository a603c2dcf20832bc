//! The order of questions to the back end. Clients take turns, so that no client can occupy all
//! connections.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use sealed::fault;

use crate::config::webhooks::Hooks;

/// The divisor of the bytes of all questions that gives the share of one client.
const CLIENT_PART: usize = 4;

/// Bounds on open questions: those that wait, and those that were sent and are not answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuestionBounds {
    questions: usize,
    bytes: usize,
    sent: usize,
}

impl QuestionBounds {
    const NONE: Self = Self { questions: usize::MAX, bytes: usize::MAX, sent: usize::MAX };
}

/// The reason for which there is no room for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The client has as many open questions as it may have.
    Client,
    /// All clients together have as many open questions as they may have.
    All,
}

/// The open questions of one client.
#[derive(Debug, Default)]
struct Share {
    waiting: VecDeque<u32>,
    /// Whether the client is among those with a question that may be sent.
    is_ready: bool,
    sent: usize,
    bytes: usize,
}

/// The open questions of all clients.
#[derive(Debug)]
pub(crate) struct Turns<C> {
    all: QuestionBounds,
    each: QuestionBounds,
    shares: HashMap<C, Share>,
    /// Clients with a waiting question that may be sent, the next one first.
    ready: VecDeque<C>,
    count: usize,
    bytes: usize,
    sent: usize,
}

impl<C: Copy + Eq + Hash> Turns<C> {
    /// Changes the bounds. Questions that are open stay.
    pub(crate) fn set_bounds(&mut self, hooks: &Hooks) {
        let Self { all, each, .. } = Self::new(hooks);
        (self.all, self.each) = (all, each);
    }

    pub(crate) fn new(hooks: &Hooks) -> Self {
        let bytes = hooks.questions_bytes_max;
        let all = QuestionBounds { questions: hooks.questions_max, bytes, sent: hooks.connections_max };
        let each = QuestionBounds {
            questions: if fault!("client-asks-without-bound") { usize::MAX } else { hooks.questions_per_address_max },
            // The longest possible question always fits.
            bytes: (bytes / CLIENT_PART).max(hooks.question_bytes_max),
            sent: if fault!("client-takes-all-connections") { all.sent } else { hooks.connections_per_address_max },
        };
        Self { all, each, shares: HashMap::new(), ready: VecDeque::new(), count: 0, bytes: 0, sent: 0 }
    }

    fn bounds(&self, is_limited: bool) -> QuestionBounds {
        if is_limited { self.each } else { QuestionBounds::NONE }
    }

    /// Adds a question of a client, which waits for its turn.
    pub(crate) fn add(&mut self, client: C, is_limited: bool, question: u32, bytes: usize) -> Result<(), Full> {
        let each = self.bounds(is_limited);
        let (held, held_bytes) =
            self.shares.get(&client).map_or((0, 0), |share| (share.waiting.len() + share.sent, share.bytes));
        let held = if fault!("questions-counted-together") { self.count } else { held };
        if held >= each.questions || held_bytes.saturating_add(bytes) > each.bytes {
            return Err(Full::Client);
        }
        let all_bytes = self.bytes.saturating_add(bytes);
        // A single question always fits, whatever its length.
        if self.count >= self.all.questions || self.count > 0 && all_bytes > self.all.bytes {
            return Err(Full::All);
        }
        let share = self.shares.entry(client).or_default();
        share.waiting.push_back(question);
        share.bytes += bytes;
        if !share.is_ready && share.sent < each.sent {
            share.is_ready = true;
            self.ready.push_back(client);
        }
        (self.count, self.bytes) = (self.count + 1, all_bytes);
        Ok(())
    }

    /// Returns the next question to send, if there is a free connection while `others` are in use
    /// for other requests.
    pub(crate) fn next(&mut self, others: usize, is_limited: impl Fn(C) -> bool) -> Option<u32> {
        if self.sent + others >= self.all.sent {
            return None;
        }
        let client = self.ready.pop_front()?;
        let each = self.bounds(is_limited(client));
        let share = self.shares.get_mut(&client)?;
        let question = share.waiting.pop_front()?;
        share.sent += 1;
        share.is_ready = !share.waiting.is_empty() && share.sent < each.sent;
        if share.is_ready {
            self.ready.push_back(client);
        }
        self.sent += 1;
        Some(question)
    }

    /// Removes a question that is answered, given up or dropped.
    pub(crate) fn over(&mut self, client: C, is_limited: bool, question: u32, was_sent: bool, bytes: usize) {
        let each = self.bounds(is_limited);
        let Some(share) = self.shares.get_mut(&client) else { return };
        // The bounds may have changed since the last call.
        let was_ready = share.is_ready;
        if was_sent {
            share.sent = share.sent.saturating_sub(1);
            self.sent = self.sent.saturating_sub(1);
        } else {
            share.waiting.retain(|waiting| *waiting != question);
        }
        share.bytes = share.bytes.saturating_sub(bytes);
        let is_ready = !share.waiting.is_empty() && share.sent < each.sent;
        share.is_ready = is_ready;
        if share.waiting.is_empty() && share.sent == 0 {
            self.shares.remove(&client);
        }
        match (was_ready, is_ready) {
            (false, true) => self.ready.push_back(client),
            (true, false) => self.ready.retain(|ready| *ready != client),
            _ => {}
        }
        (self.count, self.bytes) = (self.count.saturating_sub(1), self.bytes.saturating_sub(bytes));
        if self.count == 0 {
            (self.shares, self.ready) = (HashMap::new(), VecDeque::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> Turns<char> {
        Turns::new(&Hooks {
            connections_max: 4,
            connections_per_address_max: 2,
            questions_max: 8,
            questions_per_address_max: 5,
            questions_bytes_max: 1_000,
            question_bytes_max: 200,
            ..Hooks::default()
        })
    }

    fn next(turns: &mut Turns<char>) -> Option<u32> {
        turns.next(0, |_| true)
    }

    #[test]
    fn clients_take_turns_and_none_has_all_connections() {
        let mut turns = turns();
        for question in 0..5 {
            turns.add('a', true, question, 1).expect("room");
        }
        assert_eq!(turns.add('a', true, 5, 1), Err(Full::Client));
        assert_eq!([next(&mut turns), next(&mut turns), next(&mut turns)], [Some(0), Some(1), None]);
        for question in 10..13 {
            turns.add('b', true, question, 1).expect("room");
        }
        assert_eq!(turns.add('c', true, 20, 1), Err(Full::All));
        assert_eq!([next(&mut turns), next(&mut turns), next(&mut turns)], [Some(10), Some(11), None]);
        turns.over('a', true, 0, true, 1);
        assert_eq!([next(&mut turns), next(&mut turns)], [Some(2), None], "another has its share");
        turns.over('b', true, 12, false, 1);
        turns.over('b', true, 10, true, 1);
        turns.over('b', true, 11, true, 1);
        assert_eq!(next(&mut turns), None, "it is at its own bound");
        turns.over('a', true, 1, true, 1);
        turns.over('a', true, 2, true, 1);
        assert_eq!([next(&mut turns), next(&mut turns)], [Some(3), Some(4)]);
        turns.over('a', true, 3, true, 1);
        turns.over('a', true, 4, true, 1);
        assert_eq!((turns.count, turns.sent, turns.bytes, turns.shares.len()), (0, 0, 0, 0));
    }

    #[test]
    fn bytes_of_waiting_questions_are_limited() {
        let mut turns = turns();
        assert_eq!(turns.add('a', true, 0, 200), Ok(()));
        assert_eq!(turns.add('a', true, 1, 51), Err(Full::Client), "a quarter of all");
        assert_eq!(turns.add('a', true, 1, 50), Ok(()));
        assert_eq!(turns.add('b', false, 2, 751), Err(Full::All));
        assert_eq!(turns.add('b', false, 2, 750), Ok(()), "local clients have no bound of their own");
    }

    #[test]
    fn connections_in_use_for_reports_are_not_available() {
        let mut turns = turns();
        turns.add('a', true, 0, 1).expect("room");
        assert_eq!((turns.next(4, |_| true), turns.next(3, |_| true)), (None, Some(0)));
    }
}
