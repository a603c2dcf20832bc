//! What is known of the channels from what clients were told, and what must never be told.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A place in a channel: the epoch, and the number of the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    pub epoch: u64,
    pub next: u64,
}

/// Reads a position of so many channels. To clients it is opaque; a test may look.
pub fn spots(position: &str) -> Vec<Spot> {
    let number = |text: &str| u64::from_str_radix(text, 32).unwrap_or_else(|_| panic!("a position: {position:?}"));
    let spot = |text: &str| {
        let (epoch, next) = text.split_once('-').unwrap_or_else(|| panic!("a position: {position:?}"));
        Spot { epoch: number(epoch), next: number(next) }
    };
    position.split('.').map(spot).collect()
}

#[derive(Default)]
pub struct Oracle {
    /// Messages by channel, epoch and number.
    messages: HashMap<(String, u64, u64), String>,
    places: HashMap<String, (String, u64, u64)>,
    /// What publishers were told is accepted, by channel and epoch: number and payload.
    accepted: BTreeMap<(String, u64), Vec<(u64, String)>>,
    /// The same where no position is told, with what the channel had gone through then.
    accepted_somewhere: Vec<(String, u32, String)>,
    /// How often a channel may have begun anew.
    upheavals: HashMap<String, u32>,
    restarts: u32,
    looks: Cell<u32>,
    /// What nobody may read, since who published it may not.
    forbidden: HashSet<String>,
    /// The numbers of channels may begin anew at any time, with messages that were there before.
    pub restarts_numbers: bool,
    /// The longest message of a channel, where a rule says so.
    bytes_max: HashMap<String, usize>,
}

impl Oracle {
    pub fn new(restarts_numbers: bool) -> Self {
        Self { restarts_numbers, ..Self::default() }
    }

    /// Somebody was given a message; `spot` is the one after it.
    pub fn saw(&mut self, channel: &str, spot: Spot, payload: &str) {
        let place = (channel.to_owned(), spot.epoch, spot.next - 1);
        let held = self.messages.entry(place.clone()).or_insert_with(|| payload.to_owned());
        assert_eq!(held, payload, "two messages at one place: {place:?}");
        let bytes_max = self.bytes_max.get(channel).copied().unwrap_or(usize::MAX);
        assert!(payload.len() <= bytes_max, "a message longer than its rule allows: {payload} in {channel}");
        if payload.starts_with('*') {
            // It is for all channels of a pattern.
            return;
        }
        let held = self.places.entry(payload.to_owned()).or_insert_with(|| place.clone());
        assert!(*held == place || self.restarts_numbers, "one message at two places: {held:?}, {place:?}");
        assert!(!self.forbidden.contains(payload), "a message of a client that may not publish it: {payload}");
        assert!(payload.starts_with(channel), "a message of another channel: {payload} in {channel}");
    }

    /// No message of a channel is longer than that.
    pub fn limit_messages(&mut self, channel: &str, bytes_max: usize) {
        self.bytes_max.insert(channel.to_owned(), bytes_max);
    }

    /// Notes a message of a client that may not publish it.
    pub fn forbid(&mut self, payload: &str) {
        self.forbidden.insert(payload.to_owned());
    }

    /// A publisher was told that its message is at a place.
    pub fn accepted(&mut self, channel: &str, spot: Spot, payload: &str) {
        self.saw(channel, spot, payload);
        self.accepted.entry((channel.to_owned(), spot.epoch)).or_default().push((spot.next - 1, payload.to_owned()));
    }

    /// A publisher was told that its message is accepted, wherever. `upheaval` is what it was when it was sent.
    pub fn accepted_somewhere(&mut self, channel: &str, upheaval: u32, payload: &str) {
        self.accepted_somewhere.push((channel.to_owned(), upheaval, payload.to_owned()));
    }

    /// The channel is asked to be deleted, or was.
    pub fn upheaval_of(&mut self, channel: &str) {
        *self.upheavals.entry(channel.to_owned()).or_default() += 1;
    }

    pub fn restarted(&mut self) {
        self.restarts += 1;
    }

    pub fn upheaval(&self, channel: &str) -> u32 {
        if self.restarts_numbers {
            // It may have begun anew since it was looked at last.
            self.looks.set(self.looks.get() + 1);
        }
        self.looks.get() + self.restarts + self.upheavals.get(channel).copied().unwrap_or(0)
    }

    /// A channel's history was read, from the oldest message kept to `head`. `messages_max` is given where it is the
    /// only limit that can have been met.
    pub fn history(&mut self, channel: &str, head: Spot, items: &[(Spot, String)], messages_max: Option<usize>) {
        for pair in items.windows(2) {
            let next = Spot { next: pair[0].0.next + 1, ..pair[0].0 };
            assert_eq!(pair[1].0, next, "history has no holes: {channel}");
        }
        if let Some((last, _)) = items.last() {
            assert_eq!(*last, head, "history reaches to the head: {channel}");
        }
        let first = items.first().map_or(head.next, |(spot, _)| spot.next - 1);
        if let Some(messages_max) = messages_max {
            let count = head.next.min(messages_max as u64);
            assert_eq!(items.len() as u64, count, "history keeps what its limits allow, and no more: {channel}");
        }
        for (spot, payload) in items {
            self.saw(channel, *spot, payload);
        }
        for (number, payload) in self.accepted.get(&(channel.to_owned(), head.epoch)).into_iter().flatten() {
            assert!(*number < head.next, "accepted and gone: {payload} of {channel}, head {head:?}");
            let kept = items.iter().any(|(_, held)| held == payload);
            assert!(
                *number < first || kept,
                "accepted and not in the history: {payload} of {channel}, number {number}: {head:?}, {items:?}"
            );
        }
        let now = self.upheaval(channel);
        for (held, upheaval, payload) in &self.accepted_somewhere {
            if held == channel && *upheaval == now && messages_max.is_some() && first == 0 {
                let kept = items.iter().any(|(_, held)| held == payload);
                assert!(kept, "accepted and not in the history: {payload} of {channel}: {head:?}, {items:?}");
            }
        }
    }
}

/// What a reader of one channel has been told, in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor(pub Option<Spot>);

impl Cursor {
    /// A message came; `spot` is the one after it.
    pub fn message(&mut self, what: &str, spot: Spot) {
        if let Some(held) = self.0 {
            let next = Spot { next: held.next + 1, ..held };
            assert_eq!(spot, next, "{what}: in order, without a gap that is not told, and none twice");
        }
        self.0 = Some(spot);
    }

    /// A gap was told.
    pub fn gap(&mut self, what: &str, missed: Option<u64>, spot: Spot) {
        match (self.0, missed) {
            (Some(held), Some(missed)) => {
                assert!(missed > 0, "{what}: a gap of nothing");
                let next = Spot { next: held.next + missed, ..held };
                assert_eq!(spot, next, "{what}: a gap says how much is missing");
            }
            (Some(held), None) => {
                assert_ne!(spot.epoch, held.epoch, "{what}: within an epoch it is known how much is missing");
            }
            (None, _) => {}
        }
        self.0 = Some(spot);
    }

    /// The server says that the reader is here.
    pub fn check(&mut self, what: &str, spot: Spot) {
        assert_eq!(*self.0.get_or_insert(spot), spot, "{what}: a position covers what was delivered, and no more");
    }
}
