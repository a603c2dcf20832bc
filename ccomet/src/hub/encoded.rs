//! A cache of encoded messages, for all readers at the same place.
//!
//! Subscribers at the head of a channel read the messages that were published in this tick: each
//! message is encoded once for each format that has a reader on this loop. The cache keeps messages
//! until the next sweep at the latest, and within a limit of bytes.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sealed::fault;

use super::encoder::{Encoder, Encoders, Format, PlacedMessage};
use crate::core::message::ChannelName;
use crate::core::position::Spot;

/// The approximate memory of an encoded message in addition to its bytes.
const OVERHEAD_BYTES: usize = 192;

/// All that the bytes of an encoded message depend on: the message at a spot never changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    channel: ChannelName,
    spot: Spot,
    format: Format,
}

/// Encoded messages. If they exceed the limit, the oldest are dropped.
#[derive(Debug)]
pub(super) struct Encoded {
    encoders: Encoders,
    bytes_max: usize,
    bytes: usize,
    held: HashMap<Key, Bytes>,
    /// The keys in the order in which their messages were encoded.
    order: VecDeque<Key>,
}

impl Encoded {
    pub(super) fn new(encoders: Encoders, bytes_max: usize) -> Self {
        Self { encoders, bytes_max, bytes: 0, held: HashMap::new(), order: VecDeque::new() }
    }

    /// Changes the limit, from the next message on.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    pub(super) fn encoder(&self, format: Format) -> &'static dyn Encoder {
        self.encoders.get(format)
    }

    /// Returns a message in one format.
    pub(super) fn encode(&mut self, format: Format, message: &PlacedMessage<'_>) -> Bytes {
        let mut key = Key { channel: message.channel.clone(), spot: message.spot, format };
        if fault!("encoded-for-each-reader") {
            key.spot.next += self.order.len() as u64;
        }
        if let Some(bytes) = self.held.get(&key) {
            return bytes.clone();
        }
        let mut out = Vec::with_capacity(message.message.payload.len() + 160);
        self.encoder(format).write_message(format, message, &mut out);
        // The bytes stay in memory for other readers, so they take no spare room.
        out.shrink_to_fit();
        let bytes = Bytes::from(out);
        self.bytes += cost(&bytes);
        // The newest message stays even if it alone exceeds the limit: other readers at this place
        // are about to get it.
        while self.bytes > self.bytes_max && !fault!("encoded-without-bound") && self.drop_oldest() {}
        self.order.push_back(key.clone());
        self.held.insert(key, bytes.clone());
        bytes
    }

    /// Drops all messages, and their memory.
    pub(super) fn clear(&mut self) {
        if !self.order.is_empty() {
            *self = Self::new(self.encoders, self.bytes_max);
        }
    }

    /// Returns the bytes that count against the limit.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.order.pop_front().and_then(|key| self.held.remove(&key));
        self.bytes -= oldest.as_ref().map_or(0, cost);
        oldest.is_some()
    }
}

fn cost(bytes: &Bytes) -> usize {
    bytes.len() * if fault!("encoded-counted-too-high") { 8 } else { 1 } + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::message::Draft;
    use crate::core::position::Epoch;
    use crate::core::time::UnixMillis;
    use crate::protocols::toy::{POLL, STREAM, TOYS};

    fn encode(encoded: &mut Encoded, format: Format, next: u64, length: usize) -> Bytes {
        let channel = &ChannelName::new("news").expect("a name");
        let message =
            &Draft { payload: vec![b'x'; length].into(), ..Draft::default() }.taken_at(UnixMillis::from_millis(0));
        encoded.encode(format, &PlacedMessage { channel, spot: Spot { epoch: Epoch(1), next }, message })
    }

    #[test]
    fn a_message_is_encoded_once_for_each_format() {
        let mut encoded = Encoded::new(TOYS, 1 << 20);
        let first = encode(&mut encoded, POLL, 1, 10);
        assert_eq!(encode(&mut encoded, POLL, 1, 10).as_ptr(), first.as_ptr());
        assert_ne!(encode(&mut encoded, STREAM, 1, 10), first);
        assert_ne!(encode(&mut encoded, POLL, 2, 10), first);
    }

    #[test]
    fn the_oldest_are_dropped_beyond_the_limit_and_all_are_dropped_by_clear() {
        let mut encoded = Encoded::new(TOYS, 10_000);
        for next in 1..100 {
            encode(&mut encoded, POLL, next, 500);
            assert!(encoded.bytes() <= 10_000 && encoded.order.len() == encoded.held.len());
        }
        assert!(encoded.order.len() > 5, "the limit has room for several");
        encode(&mut encoded, POLL, 100, 50_000);
        assert_eq!(encoded.order.len(), 1, "a single message may exceed the limit");
        encode(&mut encoded, POLL, 101, 500);
        assert!(encoded.bytes() <= 10_000);
        encoded.clear();
        assert_eq!((encoded.bytes(), encoded.held.len(), encoded.order.len()), (0, 0, 0));
    }
}
