//! What clients were answered and what they read, and what must never be in it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::common::Reply;

/// A point in a channel: the epoch, and the number of the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Spot {
    pub(crate) epoch: u64,
    pub(crate) next: u64,
}

impl Spot {
    /// Parses the position of one channel. To clients a position is opaque; a test may look.
    pub(crate) fn parse(position: &str) -> Self {
        let number = |text| u64::from_str_radix(text, 32).unwrap_or_else(|_| panic!("a position: {position:?}"));
        let (epoch, next) = position.split_once('-').unwrap_or_else(|| panic!("a position: {position:?}"));
        Self { epoch: number(epoch), next: number(next) }
    }

    /// Returns the spot after the next message.
    pub(crate) fn after(self) -> Self {
        Self { next: self.next + 1, ..self }
    }
}

/// A message that a server accepted.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) channel: usize,
    pub(crate) spot: Spot,
    pub(crate) position: String,
    pub(crate) data: String,
    pub(crate) has_key: bool,
    /// The era in which it was sent.
    pub(crate) era: u32,
}

#[derive(Default)]
struct Seen {
    /// The contents of spots, by channel.
    contents: HashMap<(usize, Spot), String>,
    /// The spot of each message with a key, by epoch. Its data is its key.
    keyed: HashMap<(String, u64), Spot>,
    accepted: Vec<Accepted>,
    faults: Vec<String>,
}

/// All that happens, as clients see it.
#[derive(Default)]
pub(crate) struct Record {
    seen: Mutex<Seen>,
    /// The number of times that the data of Redis were lost.
    pub(crate) era: AtomicU32,
    /// The number of times that a message may have got a second place, with its key: keys are those
    /// of an epoch.
    pub(crate) generations: AtomicU32,
    pub(crate) refused: AtomicUsize,
    pub(crate) read: AtomicUsize,
    pub(crate) gaps: AtomicUsize,
    pub(crate) is_over: AtomicBool,
}

impl Record {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    /// Records what must not happen.
    pub(crate) fn fault(&self, text: String) {
        self.seen().faults.push(text);
    }

    /// Panics if anything happened that must not.
    pub(crate) fn check(&self) {
        let faults = self.seen().faults.clone();
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults[..faults.len().min(20)].join("\n"));
    }

    /// Records a message at the spot before this one.
    pub(crate) fn saw(&self, by: &str, channel: usize, spot: Spot, data: &str) {
        let mut seen = self.seen();
        let held = seen.contents.entry((channel, spot)).or_insert_with(|| data.to_owned()).clone();
        if held != data {
            seen.faults.push(format!("{by}: two messages at c{channel} {spot:?}: {held:.20}, {data:.20}"));
        }
    }

    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        self.seen().accepted.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen().accepted.len()
    }

    /// Records the answer to a publication. Returns whether the message was accepted.
    pub(crate) fn answered(&self, channel: usize, data: &str, has_key: bool, era: u32, reply: &Reply) -> bool {
        match reply.status {
            200 => {}
            503 if reply.header("retry-after").is_some() => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            _ => {
                self.fault(format!("an answer to a publication: {reply}"));
                return false;
            }
        }
        let position = reply.position();
        let spot = Spot::parse(&position);
        self.saw("a publisher", channel, spot, data);
        let mut seen = self.seen();
        if has_key {
            let held = *seen.keyed.entry((data.to_owned(), spot.epoch)).or_insert(spot);
            if held != spot {
                seen.faults.push(format!("a key at two places of c{channel}: {held:?}, {spot:?}: {data:.20}"));
            }
        }
        seen.accepted.push(Accepted { channel, spot, position, data: data.to_owned(), has_key, era });
        true
    }
}
