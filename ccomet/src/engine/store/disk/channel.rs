//! What a loop knows of a channel of the store: its numbers, and the places of its oldest messages
//! and of those that are not in the index yet. The places between are in the index only.

use std::collections::VecDeque;
use std::ops::Range;

use sealed::fault;

use super::index::{ChannelRow, ChannelUpdate};
use super::places::{BLOCK_ENTRIES, Entry};
use super::reading::Known;
use super::record::ChannelId;
use crate::core::time::UnixMillis;
use crate::core::window::HistoryLimits;
use crate::engine::store::KeptKey;

/// A channel of the store.
#[allow(clippy::struct_excessive_bools)] // independent of one another
#[derive(Debug)]
pub(super) struct Channel {
    /// 0 if the log does not have the channel.
    pub(super) id: ChannelId,
    pub(super) row: ChannelRow,
    /// The places of the oldest messages.
    front: VecDeque<Entry>,
    /// The places of the newest messages, which may not be in the index.
    tail: VecDeque<Entry>,
    /// The keys that are not in the index.
    keys: Vec<KeptKey>,
    /// Set if it has changed since the last checkpoint was begun.
    pub(super) is_dirty: bool,
    /// Set while it is in the list of the channels that the next checkpoint takes.
    pub(super) is_listed: bool,
    /// The number of the next message, and the number of keys, when the checkpoint in progress was
    /// begun.
    handed_over: Option<(u64, usize)>,
    /// Set while the places of its oldest messages are read.
    pub(super) is_reading: bool,
    /// Set while the shard has the channel.
    pub(super) is_loaded: bool,
}

/// What a channel needs to drop its oldest messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trimmed {
    Done,
    /// The places of the messages from this number on.
    Wants(u64),
}

impl Channel {
    pub(super) fn boxed(id: ChannelId, row: ChannelRow) -> Box<Self> {
        Box::new(Self {
            id,
            row,
            front: VecDeque::new(),
            tail: VecDeque::new(),
            keys: Vec::new(),
            is_dirty: false,
            is_listed: false,
            handed_over: None,
            is_reading: false,
            is_loaded: true,
        })
    }

    pub(super) fn tail_begin(&self) -> u64 {
        self.row.next - self.tail.len() as u64
    }

    pub(super) fn tail(&self) -> impl Iterator<Item = Entry> + '_ {
        self.tail.iter().copied()
    }

    /// Returns the places of messages, all of which are in the tail.
    pub(super) fn places(&self, numbers: Range<u64>) -> Vec<Entry> {
        let index = |number: u64| (number - self.tail_begin()) as usize;
        self.tail.range(index(numbers.start)..index(numbers.end)).copied().collect()
    }

    /// Returns whether the loop may forget the channel: the index has all of it.
    pub(super) fn is_in_index(&self) -> bool {
        !self.is_dirty && self.handed_over.is_none()
    }

    /// Notes that it is in the list for the next checkpoint. Returns whether it is to be added to
    /// the list.
    pub(super) fn list(&mut self) -> bool {
        self.is_dirty && !std::mem::replace(&mut self.is_listed, true)
    }

    /// Returns what reading needs to know.
    pub(super) fn known(&self) -> Known {
        Known { id: self.id, row: self.row.clone(), tail: self.tail().collect(), keys: self.keys.clone() }
    }

    /// Adds a message that the log has.
    pub(super) fn add(&mut self, entry: Entry) {
        self.row.next += 1;
        if !fault!("bytes-not-counted") {
            self.row.bytes += u64::from(entry.cost);
        }
        self.row.used = entry.time;
        self.tail.push_back(entry);
    }

    pub(super) fn add_key(&mut self, key: KeptKey) {
        self.keys.push(key);
    }

    /// Drops all messages.
    pub(super) fn clear(&mut self) {
        if !fault!("cleared-messages-counted") {
            self.row.first = self.row.next;
        }
        self.row.bytes = 0;
        self.front = VecDeque::new();
        self.tail = VecDeque::new();
    }

    /// Drops the messages that the limits no longer allow.
    pub(super) fn trim(&mut self, limits: &HistoryLimits, now: UnixMillis) -> Trimmed {
        if self.row.kept_for != limits.kept_for {
            (self.row.kept_for, self.is_dirty) = (limits.kept_for, true);
        }
        let not_before = now.minus(limits.kept_for);
        loop {
            let count = self.row.next - self.row.first;
            if count == 0 {
                return Trimmed::Done;
            }
            let oldest = match self.front.front() {
                Some(oldest) => *oldest,
                None if self.tail_begin() > self.row.first => return Trimmed::Wants(self.row.first),
                None => match self.tail.front() {
                    Some(oldest) => *oldest,
                    None => return Trimmed::Done,
                },
            };
            let is_over =
                count > limits.messages_max.max(1) as u64 || (self.row.bytes > limits.bytes_max as u64 && count > 1);
            if !is_over && oldest.time >= not_before {
                return Trimmed::Done;
            }
            self.drop_oldest(oldest.cost);
        }
    }

    fn drop_oldest(&mut self, cost: u32) {
        // The place of the oldest message may be in the index only.
        let is_in_tail = self.tail_begin() <= self.row.first;
        if self.front.pop_front().is_none() && is_in_tail {
            self.tail.pop_front();
        }
        self.row.first += 1;
        self.row.bytes = self.row.bytes.saturating_sub(cost.into());
        self.is_dirty = true;
        if self.front.is_empty() {
            self.front.shrink_to_fit();
        }
    }

    /// Drops messages from number `first` on, of which these are the bytes, as far as they are
    /// still kept.
    pub(super) fn drop_oldest_of(&mut self, first: u64, costs: &[u32]) {
        for (number, cost) in (first..).zip(costs) {
            if number == self.row.first && number < self.row.next {
                self.drop_oldest(*cost);
            }
        }
    }

    /// Takes the places of the oldest messages, from number `begin` on.
    pub(super) fn take_oldest(&mut self, begin: u64, entries: Vec<Entry>) {
        self.is_reading = false;
        if self.front.is_empty() && begin <= self.row.first {
            let skipped = usize::try_from(self.row.first - begin).unwrap_or(usize::MAX);
            let wanted = (self.tail_begin() - self.row.first.min(self.tail_begin())) as usize;
            self.front = entries.into_iter().skip(skipped).take(wanted).collect();
        }
    }

    /// Returns what has changed since the last checkpoint.
    pub(super) fn hand_over(&mut self) -> ChannelUpdate {
        self.is_dirty = false;
        self.handed_over = Some((self.row.next, self.keys.len()));
        let keys = self.keys.clone();
        if fault!("keys-forgotten-at-hand-over") {
            self.keys.clear();
        }
        ChannelUpdate {
            id: self.id,
            row: self.row.clone(),
            begin: self.tail_begin(),
            entries: self.tail().collect(),
            keys,
        }
    }

    /// Forgets the keys and places that the index has now. A channel of few messages keeps them,
    /// since it needs them to drop messages.
    pub(super) fn checkpointed(&mut self) {
        let Some((end, keys)) = self.handed_over.take() else { return };
        self.keys.drain(..keys.min(self.keys.len()));
        self.keys.shrink_to_fit();
        while self.tail_begin() < end && !fault!("places-kept-after-checkpoint") {
            let is_next = self.row.first + self.front.len() as u64 == self.tail_begin();
            let Some(entry) = self.tail.pop_front() else { break };
            if is_next && self.front.len() < BLOCK_ENTRIES {
                self.front.push_back(entry);
            }
        }
        self.tail.shrink_to_fit();
    }
}
