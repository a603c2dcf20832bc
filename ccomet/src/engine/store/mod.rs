//! The stores that keep the messages of a shard's channels.
//!
//! A shard submits each change of a channel to the store, and completes it only when the store has
//! kept it: then the shard replies to the publisher, and sends the messages to readers. A store in
//! memory keeps changes at once; a store on a disk or on another machine keeps them later, and may
//! refuse changes, be unreachable, or lose messages. Each channel has at most one change in
//! progress.
//!
//! The shard has the newest messages of a channel in memory, its *window*. It reads older messages
//! from the store.

mod memory;
#[cfg(feature = "sim")]
mod unreliable;

use std::fmt::Debug;
use std::sync::Arc;

pub(crate) use memory::MemoryStore;
#[cfg(feature = "sim")]
pub use unreliable::StoreFaults;
#[cfg(feature = "sim")]
pub(crate) use unreliable::UnreliableStore;

use super::{Tick, Window};
use crate::core::message::{ChannelName, Message};
use crate::core::position::Epoch;
use crate::core::time::LoopTime;
use crate::core::window::HistoryLimits;

/// A change of a channel.
#[derive(Debug)]
pub(crate) enum StoreChange<'a> {
    /// Keep these messages after the last one.
    Append(&'a [Arc<Message>]),
    /// Drop all messages. The numbers continue.
    Clear,
    /// Drop the channel.
    Remove,
}

/// A channel, and the state of its numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelPlace<'a> {
    pub(crate) channel: &'a ChannelName,
    pub(crate) epoch: Epoch,
    /// The number of the next message.
    pub(crate) next: u64,
}

/// The result of submitting a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// The change is kept.
    Kept,
    /// [`Outcome::Changed`] reports the result.
    Later,
    /// The change cannot be kept now.
    Refused,
}

/// An event of a store.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Reports whether the change of a channel that was in progress is kept.
    Changed {
        channel: ChannelName,
        is_kept: bool,
    },
    /// The channel's numbers began anew. A change that was in progress is settled before this
    /// event.
    Restarted {
        channel: ChannelName,
        window: Window,
    },
    /// The requested part of a channel's history.
    Page {
        read: u32,
        part: Part,
    },
    /// The store is unreachable: nothing is settled until [`Back`](Self::Back).
    CutOff,
    Back,
}

/// A request for a part of a channel's history. Expired messages are left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartRange {
    /// The part begins with this number or, if it goes backward, with the number before.
    pub(crate) begin: u64,
    pub(crate) is_backward: bool,
    /// The maximum number of messages.
    pub(crate) limit: usize,
    /// The maximum number of bytes, but at least one message.
    pub(crate) bytes_max: usize,
}

/// Messages of a part, in the requested order.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) entries: Vec<(u64, Arc<Message>)>,
    /// The number after the last message or, if the part goes backward, the number of the last one.
    /// Messages that were left out count.
    pub(crate) end: u64,
    /// Set if more messages follow.
    pub(crate) has_more: bool,
    /// The number of the oldest message that was kept when the part was read.
    pub(crate) kept_from: u64,
}

/// Keeps the messages of a shard's channels. A store calls nothing back:
/// [`next_outcome`](Self::next_outcome) returns results that come later.
pub(crate) trait Store: Debug + Send {
    /// Returns how many messages of a channel the shard has in memory; `None` if it has all that
    /// are kept.
    fn window_max(&self) -> Option<usize>;

    /// Submits a change of a channel that has no other change in progress.
    fn submit(&mut self, now: Tick, place: ChannelPlace<'_>, change: StoreChange<'_>) -> Submitted;

    /// Drops messages that the limits no longer allow, and returns the number of the oldest message
    /// kept. Returns `None` if the shard has all messages in memory and drops them itself.
    fn trim(&mut self, now: Tick, channel: &ChannelName, limits: &HistoryLimits) -> Option<u64>;

    /// Drops the state of a channel that is gone, and of which nothing is kept.
    fn forget(&mut self, channel: &ChannelName);

    /// Reads a part of a channel's history. The result is [`Outcome::Page`] with the number `read`;
    /// it is empty if the channel's numbers have begun anew meanwhile.
    fn read(&mut self, now: Tick, read: u32, place: ChannelPlace<'_>, range: PartRange);

    /// Ends a tick, so that changes submitted in it may be kept together.
    fn flush(&mut self, now: Tick);

    /// Returns the next outcome.
    fn next_outcome(&mut self, now: Tick) -> Option<Outcome>;

    /// Returns the time of the next outcome, if that is known.
    fn due(&self) -> Option<LoopTime>;

    /// Sets the faults of a store for tests.
    #[cfg(feature = "sim")]
    fn set_faults(&mut self, _: StoreFaults) {}

    /// Adds what the store holds in addition to the shard's memory.
    #[cfg(feature = "sim")]
    fn add_to(&self, _: &mut crate::core::holdings::Holdings, _: &mut crate::core::holdings::Seen) {}
}
