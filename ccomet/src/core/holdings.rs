//! What a server holds, for tests that look for what is left behind.

use std::collections::HashSet;
use std::sync::Arc;

use super::message::{Message, SharedPayload};

/// What a server holds, over all its loops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Connections, of any kind.
    pub connections: usize,
    /// Timers of the loops, those for sweeping included: one for each loop that has had a tick.
    pub timers: usize,
    /// Subscribers of the loops' hubs.
    pub subscribers: usize,
    /// Names under which subscribers wait.
    pub claims: usize,
    /// Channels that loops are attached to, each counted on every such loop.
    pub attached_channels: usize,
    /// Channels at their shards.
    pub channels: usize,
    /// Places for channels at their shards, those included that are free: they go when all behind them are free.
    pub channel_places: usize,
    /// Names that are held at the channels' shards.
    pub names: usize,
    /// Bytes of history as the channels' shards count them: messages, and their places on the loops that are attached.
    pub history_bytes: usize,
    /// The same, counted anew from the messages.
    pub recounted_bytes: usize,
    /// Messages that are listed because others have the same payload, beside what is counted for them in bytes.
    pub shared_places: usize,
    /// Changes of channels that wait for a store, such as publications: their messages are in no history yet.
    pub waiting_changes: usize,
    /// Bytes of the messages that are held by shards and loops, each message and each shared payload once. Where all loops
    /// have heard of all that was dropped, and no channels share messages, it is `history_bytes` without the places.
    pub message_bytes: usize,
    /// Places for channels in a store for tests.
    pub stored_channels: usize,
    /// Messages that it keeps.
    pub stored_messages: usize,
    /// Bytes of those of them that the shards do not have in memory.
    pub stored_bytes: usize,
    /// Places of messages on the loops that are attached.
    pub copied_messages: usize,
    /// Bytes of messages that are on their way from shards to loops, counted for each loop.
    pub delivery_bytes: usize,
    /// Bytes of encoded messages that loops keep for others that read them.
    pub encoded_bytes: usize,
    /// Bytes of buffers that loops keep for connections to come.
    pub pooled_bytes: usize,
    /// Streams that end with a token.
    pub leases: usize,
    /// Requests that wait for the engine's reply.
    pub asking: usize,
}

/// Messages that were counted, so that each is counted once.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashSet<*const Message>, HashSet<SharedPayload>);

impl Seen {
    /// What a message counts for, if it was not counted before.
    pub(crate) fn count(&mut self, message: &Arc<Message>) -> usize {
        if !self.0.insert(Arc::as_ptr(message)) {
            return 0;
        }
        let again = SharedPayload::of(message).filter(|payload| !self.1.insert(*payload));
        message.cost() - again.map_or(0, |payload| payload.length)
    }
}
