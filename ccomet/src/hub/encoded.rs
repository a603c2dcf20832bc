//! Messages as they were encoded last, for the others that read at the same place.
//!
//! Subscribers at the head of a channel read what was published in this tick: each message is
//! encoded once for each format that somebody on this loop reads. Nothing is kept for longer than
//! until the next sweep, nor beyond a number of bytes.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sealed::fault;

use super::encoder::{Encoder, Encoders, Format, PlacedMessage};
use crate::core::message::ChannelName;
use crate::core::position::Spot;

/// Memory that an encoded message takes beside its bytes, roughly.
const OVERHEAD_BYTES: usize = 192;

/// All that the bytes of an encoded message depend on: a spot has one message for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    channel: ChannelName,
    spot: Spot,
    format: Format,
}

/// Encoded messages, of which the oldest are dropped if there are too many.
#[derive(Debug)]
pub(super) struct Encoded {
    encoders: Encoders,
    bytes_max: usize,
    bytes: usize,
    held: HashMap<Key, Bytes>,
    /// In the order in which they were encoded.
    order: VecDeque<Key>,
}

impl Encoded {
    pub(super) fn new(encoders: Encoders, bytes_max: usize) -> Self {
        Self { encoders, bytes_max, bytes: 0, held: HashMap::new(), order: VecDeque::new() }
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
        // It is kept for others, or waits for its reader: no room to spare.
        out.shrink_to_fit();
        let bytes = Bytes::from(out);
        self.bytes += cost(&bytes);
        // The newest stays even if it alone is over the limit: the others that read here are about
        // to get it.
        while self.bytes > self.bytes_max && !fault!("encoded-without-bound") && self.drop_oldest() {}
        self.order.push_back(key.clone());
        self.held.insert(key, bytes.clone());
        bytes
    }

    /// Drops all of them, and their memory.
    pub(super) fn clear(&mut self) {
        if !self.order.is_empty() {
            *self = Self::new(self.encoders, self.bytes_max);
        }
    }

    /// Returns the bytes that they count for.
    #[cfg(any(feature = "sim", test))]
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
    fn the_oldest_go_beyond_a_number_of_bytes_and_all_at_a_sweep() {
        let mut encoded = Encoded::new(TOYS, 10_000);
        for next in 1..100 {
            encode(&mut encoded, POLL, next, 500);
            assert!(encoded.bytes() <= 10_000 && encoded.order.len() == encoded.held.len());
        }
        assert!(encoded.order.len() > 5, "not all of them");
        encode(&mut encoded, POLL, 100, 50_000);
        assert_eq!(encoded.order.len(), 1, "one alone may be larger");
        encode(&mut encoded, POLL, 101, 500);
        assert!(encoded.bytes() <= 10_000);
        encoded.clear();
        assert_eq!((encoded.bytes(), encoded.held.len(), encoded.order.len()), (0, 0, 0));
    }
}
