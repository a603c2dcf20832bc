//! A channel as the store of one loop knows it from Redis.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::core::message::Message;
use crate::core::position::Epoch;
use crate::core::time::UnixMillis;
use crate::core::window::{HistoryLimits, Kept, MessageLog};
use crate::engine::store::NumberedMessage;

/// What the limits of the history need to know of a message.
#[derive(Debug)]
struct Weight {
    time: UnixMillis,
    cost: u32,
}

impl Kept for Weight {
    fn cost(&self) -> usize {
        self.cost as usize
    }

    fn time(&self) -> UnixMillis {
        self.time
    }
}

/// A channel that the shard has in memory.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) epoch: Epoch,
    /// The generation in which it was last current.
    pub(super) generation: u64,
    /// The number of the oldest message that Redis keeps, as far as it is known.
    oldest: u64,
    /// The newest messages.
    weights: MessageLog<Weight>,
    /// The limits of the last trim.
    pub(super) limits: Option<HistoryLimits>,
    pub(super) in_progress: Option<InProgress>,
    /// Set while the notices of the connection continue what is known.
    pub(super) is_current: bool,
    /// The barriers for which the shard waits, to have all that other servers have appended.
    pub(super) awaited: VecDeque<u64>,
    /// Set if another server has removed the channel while a change was in progress.
    pub(super) is_removed: bool,
}

/// A change that Redis has not confirmed.
#[derive(Debug)]
pub(super) struct InProgress {
    /// Identifies the change in the stream and in notices.
    pub(super) token: Box<str>,
    pub(super) change: OwnedChange,
    /// Set once it was sent to Redis.
    pub(super) is_sent: bool,
    /// Its messages that were found in the stream after the connection was lost.
    pub(super) found: Vec<NumberedMessage>,
    /// Set if it may be in a part of the stream that is gone.
    pub(super) may_be_lost: bool,
}

#[derive(Debug)]
pub(super) enum OwnedChange {
    Append(Vec<Arc<Message>>),
    Clear,
    Remove,
}

impl InProgress {
    /// Returns the messages of an append.
    pub(super) fn messages(&self) -> &[Arc<Message>] {
        match &self.change {
            OwnedChange::Append(messages) => messages,
            OwnedChange::Clear | OwnedChange::Remove => &[],
        }
    }
}

impl Mirror {
    /// Creates a channel whose newest messages are added next, the first of them with number
    /// `first`.
    pub(super) fn new(epoch: Epoch, oldest: u64, first: u64) -> Self {
        Self {
            epoch,
            generation: 0,
            oldest,
            weights: MessageLog::starting_at(first),
            limits: None,
            in_progress: None,
            is_current: true,
            awaited: VecDeque::new(),
            is_removed: false,
        }
    }

    /// Begins the numbers anew.
    pub(super) fn restart(&mut self, epoch: Epoch, oldest: u64, first: u64) {
        (self.epoch, self.oldest, self.weights) = (epoch, oldest, MessageLog::starting_at(first));
    }

    /// Returns the number of the next message.
    pub(super) fn next(&self) -> u64 {
        self.weights.next()
    }

    /// Adds a message, of which at most `window_max` are remembered.
    pub(super) fn push(&mut self, message: &Message, window_max: usize) {
        let cost = u32::try_from(message.cost()).unwrap_or(u32::MAX);
        self.weights.push(Weight { time: message.time(), cost });
        if self.weights.len() > window_max {
            self.weights.drop_oldest();
        }
    }

    /// Notes the number of the oldest message that Redis keeps.
    pub(super) fn note_oldest(&mut self, oldest: u64) {
        self.oldest = self.oldest.max(oldest.min(self.next()));
    }

    /// Drops all messages.
    pub(super) fn clear(&mut self) {
        self.weights.drop_before(self.weights.next(), drop);
        self.oldest = self.weights.next();
    }

    /// Drops messages that exceed the limits, and returns the number of the oldest one kept.
    pub(super) fn trim(&mut self, limits: &HistoryLimits, now: UnixMillis) -> u64 {
        self.limits = Some(*limits);
        let first = self.weights.first();
        self.weights.trim(limits, now, drop);
        if self.weights.first() > first {
            // Older ones, which are not remembered, exceed the limits too.
            self.oldest = self.oldest.max(self.weights.first());
        }
        self.oldest = self.oldest.max(self.next().saturating_sub(limits.messages_max.max(1) as u64));
        self.oldest
    }

    pub(super) fn kept_from(&self) -> u64 {
        self.oldest
    }

    /// Returns the bytes of its messages, of which those that are not remembered are estimated.
    pub(super) fn bytes(&self) -> u64 {
        let (bytes, known) = (self.weights.bytes() as u64, self.weights.len() as u64);
        let all = self.next() - self.oldest;
        if known == 0 || all <= known { bytes } else { bytes / known * all }
    }
}
