//! Idempotency keys and the messages published under them, so that a publication that is retried is
//! kept once.
//!
//! A key counts for the address and for the subject of its publisher. The keys of the admin
//! listener and of loopback are uncounted. If there are too many keys, the oldest uncounted key is
//! dropped if more than half of the limit are uncounted. Otherwise, the oldest key of a client is
//! dropped, unless its publisher has few keys; then the publisher that has most loses its oldest
//! key. So a publisher does not drop the keys of others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use sealed::fault;
use slab::Slab;

use super::ranks::Ranks;
use crate::core::message::{ChannelName, Message};
use crate::core::owner::Owner;
use crate::core::position::{Epoch, Spot};
use crate::core::time::UnixMillis;
use crate::engine::store::{KeptKey, digest};

/// A publisher has few keys if the publisher that has most has more than this many times as many.
const FEW: usize = 4;

/// The divisor of the limit up to which uncounted keys stay.
const UNCOUNTED_SHARE: usize = 2;

/// The limits of the keys that a shard remembers, in number and age.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyLimits {
    pub(crate) keys_max: usize,
    pub(crate) age_max: Duration,
}

/// A channel and a key in it.
type Name = Arc<(ChannelName, Box<str>)>;

/// The place of a key in the order of age: its time, and a number that no other key has.
type Serial = (UnixMillis, u64);

/// The remembered keys.
#[derive(Debug)]
pub(super) struct Idempotency {
    limits: KeyLimits,
    serials: HashMap<Name, Serial>,
    known: BTreeMap<Serial, Known>,
    last_serial: u64,
    /// The uncounted keys: those of the admin listener and of loopback.
    uncounted: BTreeSet<Serial>,
    /// The keys of all other publishers.
    clients: BTreeSet<Serial>,
    /// The publishers that have keys, by address and by subject.
    publishers: Slab<Publisher>,
    numbers: HashMap<NonZeroU64, usize>,
    /// The publishers by the number of their keys.
    ranks: Ranks,
}

#[derive(Debug)]
struct Known {
    name: Name,
    digest: u64,
    /// The spot after the message.
    spot: Spot,
    time: UnixMillis,
    owner: Owner,
}

#[derive(Debug)]
struct Publisher {
    part: NonZeroU64,
    keys: BTreeSet<Serial>,
}

/// The result of looking up a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    New,
    /// The same message was published, before this spot.
    Same(Spot),
    Other,
}

impl Idempotency {
    /// Changes the limits. Keys beyond them are dropped when the next key comes.
    pub(super) fn set_limits(&mut self, limits: KeyLimits) {
        self.limits = limits;
    }

    pub(super) fn new(limits: KeyLimits) -> Self {
        Self {
            limits,
            serials: HashMap::new(),
            known: BTreeMap::new(),
            last_serial: 0,
            uncounted: BTreeSet::new(),
            clients: BTreeSet::new(),
            publishers: Slab::new(),
            numbers: HashMap::new(),
            ranks: Ranks::default(),
        }
    }

    /// Returns the number of keys.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns whether a message has the key of a different one, published before or in the same
    /// request.
    pub(super) fn is_misused<'a>(
        &self,
        channel: &ChannelName,
        epoch: Epoch,
        messages: impl Iterator<Item = &'a Message>,
    ) -> bool {
        let keyed: Vec<(&str, u64)> = messages.filter_map(|message| Some((message.key()?, digest(message)))).collect();
        keyed.iter().enumerate().any(|(index, (key, digest))| {
            self.find(channel, epoch, key, *digest) == Found::Other
                || keyed[..index].iter().any(|(held, other)| held == key && other != digest)
        })
    }

    /// Returns the spot after a message that was published under its key before.
    pub(super) fn published(&self, channel: &ChannelName, epoch: Epoch, message: &Message) -> Option<Spot> {
        match self.find(channel, epoch, message.key()?, digest(message)) {
            Found::Same(spot) => Some(spot),
            Found::New | Found::Other => None,
        }
    }

    fn find(&self, channel: &ChannelName, epoch: Epoch, key: &str, digest: u64) -> Found {
        let serial = self.serials.get(&(channel.clone(), key.into()));
        match serial.and_then(|serial| self.known.get(serial)) {
            // Keys of an earlier epoch of the channel do not count.
            Some(known) if known.spot.epoch != epoch && !fault!("key-outlives-channel") => Found::New,
            Some(known) if known.digest == digest => Found::Same(known.spot),
            Some(_) => Found::Other,
            None => Found::New,
        }
    }

    /// Registers the key of a message and its publisher.
    pub(super) fn note(&mut self, channel: &ChannelName, message: &Message, spot: Spot, owner: Owner) {
        let Some(key) = message.key() else { return };
        let name: Name = Arc::new((channel.clone(), key.into()));
        let at = self.newest(message.time());
        self.insert(at, Known { name, digest: digest(message), spot, time: message.time(), owner });
    }

    /// Registers a key that the store has kept, unless it is known or too old. Its publisher is not
    /// known.
    pub(super) fn restore(&mut self, now: UnixMillis, channel: &ChannelName, epoch: Epoch, kept: KeptKey) {
        let KeptKey { key, digest, next, time } = kept;
        if time < now.minus(self.limits.age_max) || self.find(channel, epoch, &key, digest) != Found::New {
            return;
        }
        let (name, spot) = (Arc::new((channel.clone(), key)), Spot { epoch, next });
        // It may be older than those that are known.
        let at = if fault!("restored-key-counts-as-new") { self.newest(now) } else { time };
        self.insert(at, Known { name, digest, spot, time, owner: Owner::default() });
    }

    /// Returns the time of a new key in the order of age. The clock may have been set back.
    fn newest(&self, time: UnixMillis) -> UnixMillis {
        self.known.last_key_value().map_or(time, |((newest, _), _)| time.max(*newest))
    }

    /// Inserts a key at a time in the order of age.
    fn insert(&mut self, at: UnixMillis, known: Known) {
        let (name, owner) = (known.name.clone(), known.owner);
        self.last_serial += 1;
        let serial = (at, self.last_serial);
        // The key may have been used in an earlier channel of that name.
        if let Some(earlier) = self.serials.insert(name, serial) {
            self.forget(earlier);
        }
        self.known.insert(serial, known);
        let keys = if owner.is_counted() { &mut self.clients } else { &mut self.uncounted };
        keys.insert(serial);
        for part in owner.parts() {
            let publishers = &mut self.publishers;
            let new = || publishers.insert(Publisher { part, keys: BTreeSet::new() });
            let number = *self.numbers.entry(part).or_insert_with(new);
            let keys = &mut self.publishers[number].keys;
            keys.insert(serial);
            self.ranks.set(number, keys.len());
        }
        while self.known.len() > self.limits.keys_max
            && let Some(serial) = self.dispensable()
        {
            self.drop(serial);
        }
    }

    /// Drops keys that are too old.
    pub(super) fn sweep(&mut self, now: UnixMillis) {
        let not_before = now.minus(self.limits.age_max);
        while let Some((serial, known)) = self.known.first_key_value()
            && known.time < not_before
        {
            self.drop(*serial);
        }
        if self.known.is_empty() {
            self.serials.shrink_to_fit();
            self.numbers.shrink_to_fit();
            (self.publishers, self.ranks) = (Slab::new(), Ranks::default());
        }
    }

    /// Returns the key to drop if there are too many.
    fn dispensable(&self) -> Option<Serial> {
        if fault!("keys-of-others-dropped") {
            return self.known.first_key_value().map(|(oldest, _)| *oldest);
        }
        let (Some(oldest), Some(heaviest)) = (self.clients.first(), self.ranks.heaviest()) else {
            return self.uncounted.first().copied();
        };
        if self.uncounted.len() > self.limits.keys_max / UNCOUNTED_SHARE {
            return self.uncounted.first().copied();
        }
        let has = |part| self.numbers.get(&part).map_or(0, |number| self.publishers[*number].keys.len());
        let owner = self.known.get(oldest)?.owner;
        let most = &self.publishers[heaviest].keys;
        let has_few = owner.parts().all(|part| has(part) * FEW < most.len());
        if has_few { most.first().copied() } else { Some(*oldest) }
    }

    fn drop(&mut self, serial: Serial) {
        if let Some(name) = self.forget(serial) {
            self.serials.remove(&name);
        }
    }

    /// Removes a key, but not its name.
    fn forget(&mut self, serial: Serial) -> Option<Name> {
        let Known { name, owner, .. } = self.known.remove(&serial)?;
        let keys = if owner.is_counted() { &mut self.clients } else { &mut self.uncounted };
        keys.remove(&serial);
        for part in owner.parts() {
            let Some(number) = self.numbers.get(&part).copied() else { continue };
            let Publisher { part, keys } = &mut self.publishers[number];
            keys.remove(&serial);
            self.ranks.set(number, keys.len());
            if keys.is_empty() {
                self.numbers.remove(part);
                self.publishers.remove(number);
            }
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::message::Draft;
    use crate::core::one_or_more::OneOrMore;

    fn message(payload: &'static str, key: &str, millis: u64) -> Message {
        let draft = Draft { payload: payload.into(), key: Some(key.into()), ..Draft::default() };
        draft.taken_at(UnixMillis::from_millis(millis))
    }

    fn spot(epoch: u64, next: u64) -> Spot {
        Spot { epoch: Epoch(epoch), next }
    }

    #[test]
    fn the_oldest_key_is_dropped_at_the_limit_or_when_it_is_too_old() {
        let channel = ChannelName::new("a").expect("a name");
        let mut keys = Idempotency::new(KeyLimits { keys_max: 2, age_max: Duration::from_secs(1) });
        for (next, key) in [(1, "k1"), (2, "k2"), (3, "k3")] {
            keys.note(&channel, &message("x", key, 10 * next), spot(1, next), Owner::default());
        }
        let mut published = |key: &str, millis: u64| {
            keys.sweep(UnixMillis::from_millis(millis));
            keys.published(&channel, Epoch(1), &message("x", key, 50))
        };
        assert_eq!((published("k1", 50), published("k2", 50)), (None, Some(spot(1, 2))));
        assert_eq!((published("k2", 1_025), published("k3", 1_025)), (None, Some(spot(1, 3))));
        assert_eq!(published("k3", 1_031), None);
        assert!(keys.known.is_empty() && keys.serials.is_empty() && keys.uncounted.is_empty());
    }

    #[test]
    fn a_key_of_the_store_does_not_displace_a_newer_one() {
        let channel = ChannelName::new("a").expect("a name");
        let mut keys = Idempotency::new(KeyLimits { keys_max: 2, age_max: Duration::from_secs(1) });
        for (next, millis) in [(1, 30), (2, 40)] {
            keys.note(&channel, &message("x", &format!("k{next}"), millis), spot(1, next), Owner::default());
        }
        let digest = digest(&message("x", "old", 10));
        let old = KeptKey { key: "old".into(), digest, next: 9, time: UnixMillis::from_millis(10) };
        keys.restore(UnixMillis::from_millis(50), &channel, Epoch(1), old);
        let has = |key: &str| keys.published(&channel, Epoch(1), &message("x", key, 50)).is_some();
        assert_eq!([has("k1"), has("k2"), has("old")], [true, true, false]);
    }

    #[test]
    fn publishers_with_few_keys_lose_the_oldest_of_all_and_one_with_many_loses_its_own() {
        let channel = ChannelName::new("a").expect("a name");
        let mut keys = Idempotency::new(KeyLimits { keys_max: 20, age_max: Duration::from_secs(1_000) });
        let mut note = |client: u64, key: &str| {
            let owner = Owner::new(Some(client), (client > 901).then_some("subject"));
            keys.note(&channel, &message("x", key, 1), spot(1, 1), owner);
            let has = |key: &str| keys.published(&channel, Epoch(1), &message("x", key, 1)).is_some();
            (0..400).filter(|n| has(&format!("{n}"))).collect::<Vec<_>>()
        };
        for n in 0..100 {
            note(n, &n.to_string());
        }
        assert_eq!(note(100, "100"), (81..=100).collect::<Vec<_>>());
        // By address, and then by subject.
        for n in 200..300 {
            note(901, &n.to_string());
        }
        let known = note(901, "300");
        assert!(
            known[..16] == (85..=100).collect::<Vec<_>>() && known[16..] == (297..=300).collect::<Vec<_>>(),
            "{known:?}"
        );
        for n in 301..350 {
            note(902 + 2 * n, &n.to_string());
        }
        let known = note(902, "350");
        assert!(known.contains(&100) && known.contains(&350), "{known:?}");
        assert_eq!(known.len(), 20);
    }

    #[test]
    fn a_key_identifies_one_message_of_one_channel_and_epoch() {
        let (channel, other) = (ChannelName::new("a").expect("a name"), ChannelName::new("b").expect("a name"));
        let mut keys = Idempotency::new(KeyLimits { keys_max: 9, age_max: Duration::from_secs(1) });
        keys.note(&channel, &message("x", "k", 1), spot(1, 1), Owner::default());
        let same = OneOrMore::one(message("x", "k", 2));
        let different = OneOrMore::one(message("y", "k", 2));
        assert!(
            !keys.is_misused(&channel, Epoch(1), same.iter()) && keys.is_misused(&channel, Epoch(1), different.iter())
        );
        assert!(
            !keys.is_misused(&channel, Epoch(2), different.iter())
                && !keys.is_misused(&other, Epoch(1), different.iter())
        );
        let twice = OneOrMore { first: message("x", "new", 2), rest: vec![message("y", "new", 2)] };
        assert!(keys.is_misused(&channel, Epoch(1), twice.iter()));
    }
}
