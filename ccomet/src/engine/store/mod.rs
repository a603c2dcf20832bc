//! What keeps the messages of a shard's channels.
//!
//! A shard hands over each change of a channel, and counts it only when the store has kept it: then it replies to the
//! publisher, and gives the messages to readers. A store in memory keeps at once; one on a disk or on another machine
//! keeps later, and may refuse, be cut off, or lose what it had. Of a channel one change is under way at a time.
//!
//! The shard has the newest messages of a channel in memory, its *window*. Older ones it reads from the store.

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
pub(crate) enum Change<'a> {
    /// Keep these messages behind the last one.
    Append(&'a [Arc<Message>]),
    /// Drop all messages. The numbers go on.
    Clear,
    /// Drop the channel.
    Remove,
}

/// A channel, and where its numbers are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) channel: &'a ChannelName,
    pub(crate) epoch: Epoch,
    /// The number of the next message.
    pub(crate) next: u64,
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It is kept.
    Kept,
    /// [`Outcome::Changed`] tells.
    Later,
    /// It cannot be kept now.
    Refused,
}

/// What happened in a store.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The change of a channel that was under way is kept, or it is not.
    Changed {
        channel: ChannelName,
        is_kept: bool,
    },
    /// The channel's numbers began anew. A change that was under way is settled ahead of this.
    Restarted {
        channel: ChannelName,
        window: Window,
    },
    /// A part of a channel's history that was asked for.
    Page {
        read: u32,
        part: Part,
    },
    /// The store is not reached: nothing is settled until [`Back`](Self::Back).
    CutOff,
    Back,
}

/// A part of a channel's history that is to be read. Messages whose time is over are left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartRange {
    /// Where it begins: with this number, or, if it goes backward, with the one before.
    pub(crate) begin: u64,
    pub(crate) is_backward: bool,
    /// Messages, and bytes of them; one at least.
    pub(crate) limit: usize,
    pub(crate) bytes_max: usize,
}

/// Messages of a part, in the order that was asked for.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) entries: Vec<(u64, Arc<Message>)>,
    /// The number behind them, or, if they go backward, of the last of them: those that were left out count.
    pub(crate) end: u64,
    /// Whether there are more.
    pub(crate) has_more: bool,
    /// The number of the oldest message that was kept when it was read.
    pub(crate) kept_from: u64,
}

/// Keeps the messages of a shard's channels. Nothing is called back: what comes of a call later is fetched by
/// [`next_outcome`](Self::next_outcome).
pub(crate) trait Store: Debug + Send {
    /// Returns how many messages of a channel the shard has in memory, if that is not all that is kept.
    fn window_max(&self) -> Option<usize>;

    /// Takes a change of a channel of which no other is under way.
    fn submit(&mut self, now: Tick, place: Place<'_>, change: Change<'_>) -> Submitted;

    /// Drops what the limits no longer allow, and returns the number of the oldest message kept; `None` if all that is kept
    /// is in the shard's memory, which drops it there.
    fn trim(&mut self, now: Tick, channel: &ChannelName, limits: &HistoryLimits) -> Option<u64>;

    /// Forgets a channel that is gone, and of which nothing is kept.
    fn forget(&mut self, channel: &ChannelName);

    /// Reads a part of a channel's history. It comes as [`Outcome::Page`] of that number; with nothing in it if the
    /// channel's numbers have begun anew meanwhile.
    fn read(&mut self, now: Tick, read: u32, place: Place<'_>, range: PartRange);

    /// The end of a tick: what was submitted in it is kept together.
    fn flush(&mut self, now: Tick);

    /// Returns what happened next.
    fn next_outcome(&mut self, now: Tick) -> Option<Outcome>;

    /// Returns when something will happen, if that is known.
    fn due(&self) -> Option<LoopTime>;

    /// Changes how it misbehaves, if it does.
    #[cfg(feature = "sim")]
    fn set_faults(&mut self, _: StoreFaults) {}

    /// Adds what it holds beside what the shard has in memory.
    #[cfg(feature = "sim")]
    fn add_to(&self, _: &mut crate::core::holdings::Holdings, _: &mut crate::core::holdings::Seen) {}
}
