//! Messages between the loops of one process: requests and orders to the shard of a channel, and
//! its answers.

use std::sync::Arc;

use super::event::{ChannelEvent, Claim, Order};
use super::pending::RequestId;
use super::request::{Refusal, Reply, Request};
use crate::core::message::{ChannelName, Message, Movement};
use crate::core::time::UnixMillis;

/// The messages of one loop to another in one tick.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(super) from: usize,
    pub(super) parcels: Vec<Parcel>,
}

#[derive(Debug)]
pub(super) enum Parcel {
    Shard(ToShard),
    Loop(ToLoop),
}

/// A message to a shard.
#[derive(Debug)]
pub(super) enum ToShard {
    Request(RequestId, Request),
    Order(Order),
    /// Set if the loop wants reports of every channel that comes into use or goes out of use.
    WatchActivity(bool),
    Pattern(PatternMessage),
    /// The loop has processed so many deliveries.
    Acknowledge(u32),
}

/// A message from a shard to a loop.
#[derive(Debug)]
pub(super) enum ToLoop {
    Reply(RequestId, Result<Reply, Refusal>),
    Channel(ChannelName, ChannelEvent),
    /// Another subscriber has taken that name, or the name was announced.
    NameTaken(Claim),
    /// A channel came into use, or went out of use.
    Activity {
        channel: ChannelName,
        in_use: bool,
    },
    /// A member joined a channel of this loop's shard, or left it.
    Presence {
        channel: ChannelName,
        id: Arc<str>,
        movement: Movement,
    },
}

/// Messages between the shard of a pattern's channel and the shards whose messages it gathers. A
/// `run` is one lifetime of the pattern's channel: messages of an earlier run are ignored.
#[derive(Debug)]
pub(super) enum PatternMessage {
    /// Send the existing messages of the pattern in one `Backfill`, and new messages as `Feed`.
    Follow {
        pattern: ChannelName,
        run: u64,
    },
    Unfollow {
        pattern: ChannelName,
    },
    /// The messages that existed at the beginning of the run, each with the time by which it is
    /// sorted.
    Backfill {
        pattern: ChannelName,
        run: u64,
        entries: Vec<(UnixMillis, Arc<Message>)>,
    },
    /// Messages that were published since.
    Feed {
        pattern: ChannelName,
        run: u64,
        entries: Vec<Arc<Message>>,
    },
    /// A channel of the pattern was cleared or deleted: drop the history of the pattern.
    Forget {
        pattern: ChannelName,
    },
    /// Messages of the pattern may be missing from here on.
    Break {
        pattern: ChannelName,
        run: u64,
    },
}
