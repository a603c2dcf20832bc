//! Payloads that several channels of a shard share and that memory holds once: those of messages to
//! patterns and to several channels, and of the copies that patterns keep. Each payload counts once
//! against the limit of the shard.
//!
//! For eviction, a payload is divided among its messages in equal parts, so that a channel does not
//! seem to keep more because of a message that it shares with many. The parts are recomputed
//! whenever the number of these messages has doubled or halved, so that all parts together are
//! between half and twice the payload, and each message costs constant time.

use std::collections::HashMap;
use std::sync::Arc;

use sealed::fault;

use super::Shard;
use crate::core::message::{Message, SharedPayload};

/// The shared payloads of a shard.
#[derive(Debug, Default)]
pub(super) struct SharedPayloads {
    held: HashMap<SharedPayload, Holders>,
    /// The bytes of all payloads.
    bytes: usize,
}

/// The messages that have one payload.
#[derive(Debug)]
struct Holders {
    count: usize,
    /// The number of parts into which the payload is divided.
    parts: usize,
    /// The channel of each message, and the last 32 bits of its number. Messages that are gone are
    /// removed at the next division.
    places: Vec<(u32, u32)>,
}

impl Holders {
    fn part(&self, payload: SharedPayload) -> usize {
        payload.length / self.parts
    }
}

impl SharedPayloads {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of messages listed.
    #[cfg(feature = "sim")]
    pub(super) fn places(&self) -> usize {
        self.held.values().map(|holders| holders.places.len()).sum()
    }
}

impl Shard {
    /// Counts a message with a shared payload that a channel has now.
    pub(super) fn hold(&mut self, key: usize, number: u64, payload: SharedPayload) {
        let holders = self.shared.held.entry(payload).or_insert_with(|| {
            self.shared.bytes += payload.length;
            Holders { count: 0, parts: 1, places: Vec::new() }
        });
        holders.count += 1;
        holders.places.push((key as u32, number as u32));
        let part = holders.part(payload);
        self.weigh(key, |share| share + part);
        self.divide(payload);
    }

    /// Counts the payload of a message as shared, if the channel still keeps the message.
    pub(super) fn share_kept(&mut self, key: usize, number: u64, message: &Arc<Message>) {
        let kept = self.channels.get(key).and_then(|channel| channel.log.entry(number));
        let is_kept = kept.is_some_and(|kept| Arc::ptr_eq(kept, message));
        if !is_kept || SharedPayload::of(message).is_some() {
            return;
        }
        message.share();
        if let Some(payload) = SharedPayload::of(message) {
            self.change(key, |channel, _| channel.shared_length += payload.length);
            self.hold(key, number, payload);
        }
    }

    /// Reverses `hold` for messages that a channel no longer has.
    pub(super) fn release(&mut self, key: usize, payloads: &[SharedPayload]) {
        for payload in payloads {
            let Some(holders) = self.shared.held.get_mut(payload) else { continue };
            holders.count -= 1;
            let part = holders.part(*payload);
            if holders.count == 0 && !fault!("shared-message-counted-for-ever") {
                self.shared.held.remove(payload);
                self.shared.bytes -= payload.length;
            }
            self.weigh(key, |share| share - part);
        }
        // The channel's log and the counts are up to date only now.
        for payload in payloads {
            self.divide(*payload);
        }
        if self.shared.held.is_empty() && self.shared.held.capacity() > 64 {
            self.shared.held = HashMap::new();
        }
    }

    /// Divides a payload again if the number of its messages has changed enough.
    fn divide(&mut self, payload: SharedPayload) {
        let Some(holders) = self.shared.held.get_mut(&payload) else { return };
        let Holders { count, parts, ref places } = *holders;
        // The list must not grow with messages that come and go.
        let is_short = places.len() <= 4 * count;
        let is_near = parts < 2 * count && is_short || fault!("shared-message-not-divided-anew");
        if count == 0 || count < 2 * parts && is_near {
            return;
        }
        let before = holders.part(payload);
        let mut places = std::mem::take(&mut holders.places);
        // A channel in the slot of another may have the payload under the same number.
        places.sort_unstable();
        places.dedup();
        let channels = &self.channels;
        places.retain(|(key, number)| {
            let message = channels.get(*key as usize).and_then(|channel| {
                let first = channel.log.first();
                channel.log.entry(first + u64::from(number.wrapping_sub(first as u32)))
            });
            message.and_then(|message| SharedPayload::of(message)) == Some(payload)
        });
        places.shrink_to(2 * places.len());
        debug_assert_eq!(places.len(), holders.count);
        holders.parts = holders.count;
        let part = holders.part(payload);
        for (key, _) in &places {
            self.weigh(*key as usize, |share| share - before + part);
        }
        if let Some(holders) = self.shared.held.get_mut(&payload) {
            holders.places = places;
        }
    }
}
