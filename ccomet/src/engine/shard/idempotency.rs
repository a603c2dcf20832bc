//! Idempotency keys and the messages published under them, so that a publication that is retried is kept once.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use sealed::fault;

use crate::core::message::{ChannelName, Message};
use crate::core::position::{Epoch, Spot};
use crate::core::time::UnixMillis;

/// Limits the keys that a shard remembers, in number and age.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyLimits {
    pub(crate) keys_max: usize,
    pub(crate) age_max: Duration,
}

/// A channel and a key in it.
type Name = Arc<(ChannelName, Box<str>)>;

/// The keys that are remembered. If there are too many, the oldest is dropped.
#[derive(Debug)]
pub(super) struct Idempotency {
    limits: KeyLimits,
    known: HashMap<Name, Known>,
    /// Keys from the oldest to the newest, each with its time.
    order: VecDeque<(UnixMillis, Name)>,
}

#[derive(Debug)]
struct Known {
    digest: u64,
    /// The spot behind the message.
    spot: Spot,
    time: UnixMillis,
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
    pub(super) fn new(limits: KeyLimits) -> Self {
        Self { limits, known: HashMap::new(), order: VecDeque::new() }
    }

    /// Returns whether a message has the key of a different one, published before or in the same request.
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

    /// Returns the spot behind a message that was published under its key before.
    pub(super) fn published(&self, channel: &ChannelName, epoch: Epoch, message: &Message) -> Option<Spot> {
        match self.find(channel, epoch, message.key()?, digest(message)) {
            Found::Same(spot) => Some(spot),
            Found::New | Found::Other => None,
        }
    }

    fn find(&self, channel: &ChannelName, epoch: Epoch, key: &str, digest: u64) -> Found {
        match self.known.get(&(channel.clone(), key.into())) {
            // Keys of a channel that was closed since do not count.
            Some(known) if known.spot.epoch != epoch && !fault!("key-outlives-channel") => Found::New,
            Some(known) if known.digest == digest => Found::Same(known.spot),
            Some(_) => Found::Other,
            None => Found::New,
        }
    }

    /// Remembers the key of a message.
    pub(super) fn note(&mut self, channel: &ChannelName, message: &Message, spot: Spot) {
        let Some(key) = message.key() else { return };
        let name: Name = Arc::new((channel.clone(), key.into()));
        let time = message.time;
        self.known.insert(name.clone(), Known { digest: digest(message), spot, time });
        self.order.push_back((time, name));
        while self.order.len() > self.limits.keys_max {
            self.drop_oldest();
        }
    }

    /// Drops keys that are too old.
    pub(super) fn sweep(&mut self, now: UnixMillis) {
        let not_before = now.minus(self.limits.age_max);
        while self.order.front().is_some_and(|(time, _)| *time < not_before) {
            self.drop_oldest();
        }
        if self.order.is_empty() {
            self.order.shrink_to_fit();
            self.known.shrink_to_fit();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((time, name)) = self.order.pop_front() else { return };
        // The key may have been used again, in a later channel of that name.
        if self.known.get(&name).is_some_and(|known| known.time == time) {
            self.known.remove(&name);
        }
    }
}

/// Returns a digest of what makes two messages the same.
fn digest(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.payload.hash(&mut hasher);
    message.event().hash(&mut hasher);
    hasher.finish()
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
    fn the_oldest_goes_where_there_are_too_many_or_its_time_is_over() {
        let channel = ChannelName::new("a").expect("a name");
        let mut keys = Idempotency::new(KeyLimits { keys_max: 2, age_max: Duration::from_secs(1) });
        for (next, key) in [(1, "k1"), (2, "k2"), (3, "k3")] {
            keys.note(&channel, &message("x", key, 10 * next), spot(1, next));
        }
        let mut published = |key: &str, millis: u64| {
            keys.sweep(UnixMillis::from_millis(millis));
            keys.published(&channel, Epoch(1), &message("x", key, 50))
        };
        assert_eq!((published("k1", 50), published("k2", 50)), (None, Some(spot(1, 2))));
        assert_eq!((published("k2", 1_025), published("k3", 1_025)), (None, Some(spot(1, 3))));
        assert_eq!(published("k3", 1_031), None);
        assert!(keys.known.is_empty());
    }

    #[test]
    fn a_key_is_for_one_message_of_one_channel_and_epoch() {
        let (channel, other) = (ChannelName::new("a").expect("a name"), ChannelName::new("b").expect("a name"));
        let mut keys = Idempotency::new(KeyLimits { keys_max: 9, age_max: Duration::from_secs(1) });
        keys.note(&channel, &message("x", "k", 1), spot(1, 1));
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
