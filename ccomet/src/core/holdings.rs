//! The resources that a server holds, for tests that look for leaks.

use std::collections::HashSet;
use std::sync::Arc;

use super::message::{Message, SharedPayload};

/// The resources that a server holds, over all its loops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Open connections of any kind.
    pub connections: usize,
    /// Timers of the loops, including the sweep timer of each loop that has had a tick.
    pub timers: usize,
    /// Subscribers of the loops' hubs.
    pub subscribers: usize,
    /// Names under which subscribers wait.
    pub claims: usize,
    /// Channels that loops are attached to, counted once for each attached loop.
    pub attached_channels: usize,
    /// Channels held by their shards.
    pub channels: usize,
    /// Slots for channels in their shards, free ones included: a slot is released when all slots
    /// after it are free.
    pub channel_places: usize,
    /// Names held by the channels' shards.
    pub names: usize,
    /// Bytes of history as the channels' shards count them: messages, and their entries on the
    /// attached loops.
    pub history_bytes: usize,
    /// The same bytes of history, recounted from the messages.
    pub recounted_bytes: usize,
    /// Messages that are listed because other messages have the same payload, in addition to the
    /// messages that their byte count includes.
    pub shared_places: usize,
    /// Changes of channels, such as publications, that wait for a store: their messages are in no
    /// history yet.
    pub waiting_changes: usize,
    /// Requests, orders and changes that wait until the store has opened their channels.
    pub opening: usize,
    /// Bytes of the messages that shards and loops hold; each message and each shared payload
    /// counts once. If all loops know of every dropped message, and no channels share messages,
    /// this is `history_bytes` without the entries on the loops.
    pub message_bytes: usize,
    /// Slots for channels in a store for tests.
    pub stored_channels: usize,
    /// Messages that the store for tests keeps.
    pub stored_messages: usize,
    /// Idempotency keys that the store for tests keeps.
    pub stored_keys: usize,
    /// Bytes of those stored messages that the shards do not have in memory.
    pub stored_bytes: usize,
    /// Entries of messages on the attached loops.
    pub copied_messages: usize,
    /// Bytes of messages in transit from shards to loops, counted for each loop.
    pub delivery_bytes: usize,
    /// Bytes of encoded messages that loops keep for further readers.
    pub encoded_bytes: usize,
    /// Bytes of buffers that loops keep for future connections.
    pub pooled_bytes: usize,
    /// Streams that end when a token expires.
    pub leases: usize,
    /// Requests that wait for the engine's reply.
    pub asking: usize,
}

/// Messages that were counted already, so that each message counts once.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashSet<*const Message>, HashSet<SharedPayload>);

impl Seen {
    /// Returns the bytes that a message counts for; 0 if it was counted before.
    pub(crate) fn count(&mut self, message: &Arc<Message>) -> usize {
        if !self.0.insert(Arc::as_ptr(message)) {
            return 0;
        }
        let again = SharedPayload::of(message).filter(|payload| !self.1.insert(*payload));
        message.cost() - again.map_or(0, |payload| payload.length)
    }
}
