//! The state of the channels as observed by clients, and the observations that must never occur.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A place in a channel: the epoch, and the number of the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    pub epoch: u64,
    pub next: u64,
}

/// Parses a position into the spots of its channels. To clients a position is opaque; a test may
/// look.
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
    /// The acknowledged publications, by channel and epoch: number and payload.
    accepted: BTreeMap<(String, u64), Vec<(u64, String)>>,
    /// The acknowledged publications without a position, with the channel's upheaval at that time.
    accepted_somewhere: Vec<(String, u32, String)>,
    /// The number of times that a channel may have begun anew.
    upheavals: HashMap<String, u32>,
    restarts: u32,
    looks: Cell<u32>,
    /// Payloads that no client may read, because their publisher may not publish them.
    forbidden: HashSet<String>,
    /// Set if the numbers of channels may begin anew at any time, with messages that existed
    /// before.
    pub restarts_numbers: bool,
    /// Set if all channels last, so that an accepted message keeps its epoch.
    pub is_lasting: bool,
    /// Set if no message is dropped, so that no reader may be notified of a gap.
    pub keeps_all: bool,
    /// The maximum length of the messages of a channel, if a rule sets it.
    bytes_max: HashMap<String, usize>,
}

impl Oracle {
    pub fn new(restarts_numbers: bool) -> Self {
        Self { restarts_numbers, ..Self::default() }
    }

    /// Records that a client received a message; `spot` is the spot after it.
    pub fn saw(&mut self, channel: &str, spot: Spot, payload: &str) {
        let place = (channel.to_owned(), spot.epoch, spot.next - 1);
        let held = self.messages.entry(place.clone()).or_insert_with(|| payload.to_owned());
        assert_eq!(held, payload, "two messages at one place: {place:?}");
        let bytes_max = self.bytes_max.get(channel).copied().unwrap_or(usize::MAX);
        assert!(payload.len() <= bytes_max, "a message longer than its rule allows: {payload} in {channel}");
        if payload.starts_with('*') {
            // The message is for all channels of a pattern.
            return;
        }
        let held = self.places.entry(payload.to_owned()).or_insert_with(|| place.clone());
        assert!(*held == place || self.restarts_numbers, "one message at two places: {held:?}, {place:?}");
        assert!(!self.forbidden.contains(payload), "a message of a client that may not publish it: {payload}");
        assert!(payload.starts_with(channel), "a message of another channel: {payload} in {channel}");
    }

    /// Sets the maximum length of the messages of a channel.
    pub fn limit_messages(&mut self, channel: &str, bytes_max: usize) {
        self.bytes_max.insert(channel.to_owned(), bytes_max);
    }

    /// Records a message of a client that may not publish it.
    pub fn forbid(&mut self, payload: &str) {
        self.forbidden.insert(payload.to_owned());
    }

    /// Records that a publication was acknowledged with its position.
    pub fn accepted(&mut self, channel: &str, spot: Spot, payload: &str) {
        self.saw(channel, spot, payload);
        self.accepted.entry((channel.to_owned(), spot.epoch)).or_default().push((spot.next - 1, payload.to_owned()));
    }

    /// Records that a publication was acknowledged without a position. `upheaval` is the channel's
    /// upheaval at the time of the request.
    pub fn accepted_somewhere(&mut self, channel: &str, upheaval: u32, payload: &str) {
        self.accepted_somewhere.push((channel.to_owned(), upheaval, payload.to_owned()));
    }

    /// Asserts that a reader at this position may be notified of a gap.
    pub fn check_gap(&self, what: &str, channel: &str, at: Cursor) {
        // A channel in which nothing was kept yet may begin anew.
        let may_be = !self.keeps_all || at.0.is_none_or(|at| at.next == 0);
        assert!(may_be, "{what}: a gap in {channel} after {at:?}, although nothing was lost");
    }

    /// Records that the deletion of a channel was requested or carried out.
    pub fn upheaval_of(&mut self, channel: &str) {
        *self.upheavals.entry(channel.to_owned()).or_default() += 1;
    }

    pub fn restarted(&mut self) {
        self.restarts += 1;
    }

    pub fn upheaval(&self, channel: &str) -> u32 {
        if self.restarts_numbers {
            // The channel may have begun anew since the last look.
            self.looks.set(self.looks.get() + 1);
        }
        self.looks.get() + self.restarts + self.upheavals.get(channel).copied().unwrap_or(0)
    }

    /// Checks a channel's history, which was read from the oldest message kept to `head`.
    /// `messages_max` is given if no other limit can have been reached.
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
        if self.is_lasting {
            let other = self.accepted.keys().find(|(held, epoch)| held == channel && *epoch != head.epoch);
            assert!(other.is_none(), "accepted in an epoch that is gone: {other:?}, head {head:?}");
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

/// The position of a reader of one channel after the last event that it received.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor(pub Option<Spot>);

impl Cursor {
    /// Records a message and asserts its order; `spot` is the spot after the message.
    pub fn message(&mut self, what: &str, spot: Spot) {
        if let Some(held) = self.0 {
            let next = Spot { next: held.next + 1, ..held };
            assert_eq!(spot, next, "{what}: in order, without an unreported gap, and none twice");
        }
        self.0 = Some(spot);
    }

    /// Records a gap and asserts its length; `spot` is the spot after the gap.
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

    /// Asserts that a position reported by the server is the reader's own.
    pub fn check(&mut self, what: &str, spot: Spot) {
        assert_eq!(*self.0.get_or_insert(spot), spot, "{what}: a position covers what was delivered, and no more");
    }
}
