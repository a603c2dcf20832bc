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
//!
//! # Channels that are not in memory
//!
//! A store on a disk keeps channels that the shard does not have in memory: after a restart, and
//! those that the shard has unloaded because they were idle. The shard asks for such a channel by
//! [`Store::open`] before it creates one of that name, and then has all of it in memory that it
//! needs: epoch, numbers, window and keys. It submits, trims and reads only channels that it has in
//! memory. It asks for each channel once at a time, and never for one in memory.

#[cfg(any(feature = "disk", feature = "redis"))]
#[cfg_attr(not(feature = "disk"), allow(dead_code))]
mod binary;
#[cfg(feature = "disk")]
mod disk;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sim")]
mod unreliable;

use std::fmt::{self, Debug};
use std::sync::Arc;

#[cfg(feature = "disk")]
pub use disk::StoreError;
#[cfg(feature = "disk")]
pub use disk::tools::{BackedUp, Damage, Salvaged, SegmentStats, StoreStats, StoreTools};
#[cfg(feature = "disk")]
pub(crate) use disk::{Crews, DiskStore, LogSync, SharedStore, StoreSettings, StoreTimes};
pub(crate) use memory::MemoryStore;
#[cfg(feature = "redis")]
pub(crate) use redis::{Link, LinkEvents, LinkLog, LinkPort, LinkSettings, RedisStore, RedisStoreSettings};
#[cfg(feature = "sim")]
pub use unreliable::StoreFaults;
#[cfg(feature = "sim")]
pub(crate) use unreliable::UnreliableStore;

use super::{Refusal, Tick, Window};
use crate::core::health::HealthProblem;
use crate::core::message::{ChannelName, Message};
use crate::core::position::{Epoch, Spot};
use crate::core::tally::{StoreFigures, StoreTally};
use crate::core::time::{LoopTime, UnixMillis};
use crate::core::window::HistoryLimits;

/// Wakes a loop, so that it looks for outcomes of its store.
#[derive(Clone)]
pub(crate) struct Wake(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wake")
    }
}

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
    Refused(NotKept),
}

/// The reason why a change is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// The store refuses changes now. It is unknown whether this one is kept.
    Unavailable,
    /// The disk is full.
    Full,
    /// The disk has failed. It is unknown whether the change is kept.
    Failed,
    /// Another server has published a different message under the same key: nothing was kept.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    KeyReused,
}

impl From<NotKept> for Refusal {
    fn from(why: NotKept) -> Self {
        match why {
            NotKept::Unavailable => Self::Unavailable,
            NotKept::Full => Self::StoreFull,
            NotKept::Failed => Self::StoreFailed,
            NotKept::KeyReused => Self::KeyReused,
        }
    }
}

/// An event of a store.
#[cfg_attr(not(feature = "redis"), allow(dead_code))] // some are of a store that servers share
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Reports whether the change of a channel that was in progress is kept.
    Changed {
        channel: ChannelName,
        kept: Result<(), NotKept>,
    },
    /// The append of a channel that was in progress is kept, under numbers that the store has
    /// assigned. There is one entry for each message submitted, in the same order.
    Numbered {
        channel: ChannelName,
        messages: Vec<NumberedMessage>,
    },
    /// Another server has appended messages, the first with number `first`, which is the next of
    /// the channel.
    Appended {
        channel: ChannelName,
        first: u64,
        messages: Vec<Arc<Message>>,
    },
    /// All that other servers had appended to a channel when [`Store::catch_up`] was called was
    /// reported before this. There is one for each call, in the same order.
    CaughtUp {
        channel: ChannelName,
    },
    /// Another server has dropped all messages of a channel.
    Cleared {
        channel: ChannelName,
    },
    /// Another server has removed a channel that has no change in progress.
    Removed {
        channel: ChannelName,
    },
    /// Another server has removed a channel, and there is another one of its name, with this
    /// window. A change that is in progress is one of the new channel.
    Replaced {
        channel: ChannelName,
        window: Window,
    },
    /// Another server has appended messages to a channel that this shard does not have in memory,
    /// but that a followed pattern matches: each with the spot after it.
    Passing {
        channel: ChannelName,
        messages: Vec<(Spot, Arc<Message>)>,
    },
    /// Another server has dropped the messages of such a channel.
    PassingCleared {
        channel: ChannelName,
    },
    /// The channel's numbers began anew, or messages are missing between its last one and the
    /// window. A change that was in progress is settled before this event, unless the store assigns
    /// numbers.
    Restarted {
        channel: ChannelName,
        window: Window,
    },
    /// The requested part of a channel's history.
    Page {
        read: u32,
        part: Result<Part, Unreadable>,
    },
    /// The state of a channel that was to be opened; `None` if nothing is kept of it. Later
    /// outcomes, such as `Restarted`, may change it.
    Opened {
        channel: ChannelName,
        kept: Result<Option<KeptChannel>, Unreadable>,
    },
    /// Nothing is kept of a channel that was to be opened. If it is created, it has this epoch.
    Vacant {
        channel: ChannelName,
        epoch: Epoch,
    },
    /// The requested names, in order.
    Names {
        read: u32,
        names: Result<Vec<KeptSummary>, Unreadable>,
        /// Set if more names follow.
        has_more: bool,
    },
    /// The store is unreachable: nothing is settled until [`Back`](Self::Back).
    CutOff,
    /// The store has been unreachable for so long that what waits for it is to be refused, and new
    /// changes are, until [`Back`](Self::Back).
    GivenUp,
    Back,
}

/// A submitted message, as the store has kept it.
#[derive(Debug)]
pub(crate) struct NumberedMessage {
    pub(crate) number: u64,
    /// The message, with the time that the store has given it.
    pub(crate) message: Arc<Message>,
    /// Set if another server had published it before under its key.
    pub(crate) is_known: bool,
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
    /// The messages of the part before this number are kept, but cannot be read. It is 0 if all can
    /// be read, and if the part goes backward.
    pub(crate) readable_from: u64,
}

impl Part {
    /// Returns a part without messages.
    #[cfg(any(feature = "disk", feature = "sim"))]
    fn empty_at(begin: u64) -> Self {
        Self { entries: Vec::new(), end: begin, has_more: false, kept_from: begin, readable_from: 0 }
    }
}

/// What a store keeps of a channel that the shard does not have in memory.
#[derive(Debug)]
pub(crate) struct KeptChannel {
    /// The newest messages, at most [`Store::window_max`] of them.
    pub(crate) window: Window,
    /// The idempotency keys under which its messages were published, the oldest first.
    pub(crate) keys: Vec<KeptKey>,
}

/// An idempotency key of a kept message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptKey {
    pub(crate) key: Box<str>,
    /// The [`digest`] of the message.
    pub(crate) digest: u64,
    /// The number after the message.
    pub(crate) next: u64,
    /// The time of the message.
    pub(crate) time: UnixMillis,
}

/// The error for data of a store that cannot be read now. A later attempt may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The result of opening a channel.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Nothing is kept of it.
    Absent,
    Kept(KeptChannel),
    /// [`Outcome::Opened`] reports it.
    Later,
    /// It cannot be found out now.
    Refused,
}

/// A request for names of channels that the store keeps.
#[derive(Debug, Clone)]
pub(crate) struct NameRange {
    /// The beginning of the names.
    pub(crate) prefix: Box<str>,
    /// The names are after this one.
    pub(crate) after: Box<str>,
    /// The maximum number of names.
    pub(crate) limit: usize,
}

/// A channel that the store keeps, as lists show it.
#[derive(Debug, Clone)]
pub(crate) struct KeptSummary {
    pub(crate) channel: ChannelName,
    /// The number of the oldest message kept, or of the next one if none is.
    pub(crate) kept_from: u64,
    /// The bytes of its messages, as the limit of the history counts them.
    pub(crate) bytes: u64,
    /// The spot after its last message.
    pub(crate) spot: Spot,
}

/// Returns a digest of the parts in which equal messages agree: of a message that is published
/// again under its key. Stores keep it, so that it must not change with versions of the program.
pub(crate) fn digest(message: &Message) -> u64 {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(&(message.payload.len() as u64).to_le_bytes());
    context.update(&message.payload);
    if let Some(event) = message.event() {
        context.update(&[1]);
        context.update(event.as_bytes());
    }
    context.finish().as_ref().iter().take(size_of::<u64>()).fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

/// Keeps the messages of a shard's channels. A store calls nothing back:
/// [`next_outcome`](Self::next_outcome) returns results that come later.
pub(crate) trait Store: Debug + Send {
    /// Returns how many messages of a channel the shard has in memory; `None` if it has all that
    /// are kept.
    fn window_max(&self) -> Option<usize>;

    /// Returns the bytes of the messages that are kept of a channel that the shard has in memory;
    /// `None` if they are all in memory.
    fn bytes(&self, _channel: &ChannelName) -> Option<u64> {
        None
    }

    /// Returns what prevents it from keeping or reading messages.
    fn problems(&self) -> Vec<HealthProblem> {
        Vec::new()
    }

    /// Returns its counts on this loop, if it has any.
    fn tally(&self) -> Option<&StoreTally> {
        None
    }

    /// Returns the counts that all loops share, if there are any.
    fn figures(&self) -> Option<StoreFigures> {
        None
    }

    /// Returns the greatest epoch that the store has kept.
    fn last_epoch(&self) -> Epoch {
        Epoch(0)
    }

    /// Returns whether the store assigns the epochs of channels and the numbers of messages,
    /// because other servers use it too.
    fn assigns_numbers(&self) -> bool {
        false
    }

    /// Opens a channel that the shard does not have in memory. If the result is `Kept`, now or by
    /// [`Outcome::Opened`], the shard has the channel in memory until it calls
    /// [`unload`](Self::unload) or [`forget`](Self::forget). `creates` is set if the shard will
    /// create the channel if nothing is kept of it: then a store that assigns epochs reports
    /// [`Outcome::Vacant`], and the shard has the channel in memory as well, or calls `forget`.
    fn open(&mut self, now: Tick, channel: &ChannelName, creates: bool) -> Opened;

    /// Starts to catch up with what other servers have appended to a channel that the shard has in
    /// memory. [`Outcome::CaughtUp`] reports the end. Returns false if no other server appends
    /// messages.
    fn catch_up(&mut self, _channel: &ChannelName) -> bool {
        false
    }

    /// Reports messages of all channels that a pattern matches by [`Outcome::Passing`] from now on,
    /// if other servers publish messages.
    fn follow_pattern(&mut self, _pattern: &ChannelName) {}

    /// Ends what [`follow_pattern`](Self::follow_pattern) has begun.
    fn unfollow_pattern(&mut self, _pattern: &ChannelName) {}

    /// Notes that the shard no longer has the channel in memory; the store keeps the channel. No
    /// change of the channel is in progress. From now on, the store itself drops messages that
    /// exceed the limits of the last [`trim`](Self::trim). If it drops all of them, it may keep
    /// nothing of the channel.
    fn unload(&mut self, channel: &ChannelName);

    /// Reads names of channels that the store keeps, in order, whether the shard has them in memory
    /// or not. The result is [`Outcome::Names`] with the number `read`. It has all channels whose
    /// messages were kept when this was called and are kept still.
    fn names(&mut self, now: Tick, read: u32, range: NameRange);

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

    /// Ends the process of a store for tests, as far as the store notices: what it keeps stays.
    #[cfg(all(test, feature = "sim"))]
    fn restart(&mut self, _: Tick) {}

    /// Returns how long an idle channel stays in memory, if a store for tests determines it.
    #[cfg(feature = "sim")]
    fn idle_max(&self) -> Option<std::time::Duration> {
        None
    }

    /// Sets the faults of a store for tests.
    #[cfg(feature = "sim")]
    fn set_faults(&mut self, _: StoreFaults) {}

    /// Adds what the store holds in addition to the shard's memory.
    #[cfg(feature = "sim")]
    fn add_to(&self, _: &mut crate::core::holdings::Holdings, _: &mut crate::core::holdings::Seen) {}
}
