//! What the loops of one process say to each other: requests and orders to the shard that a channel is on, and what it answers.

use std::sync::Arc;

use super::event::{ChannelEvent, Claim, Order};
use super::pending::RequestId;
use super::request::{Refusal, Reply, Request};
use crate::core::message::{ChannelName, Message, Movement};
use crate::core::time::UnixMillis;

/// What one loop sends another, gathered over a tick.
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
    /// The loop wants to hear of every channel that comes into use or goes out of it, or no more.
    WatchActivity(bool),
    Pattern(PatternMessage),
    /// The loop has worked off so many deliveries.
    Acknowledge(u32),
}

/// A message from a shard to a loop.
#[derive(Debug)]
pub(super) enum ToLoop {
    Reply(RequestId, Result<Reply, Refusal>),
    Channel(ChannelName, ChannelEvent),
    /// Another subscriber waits under that name now, or its owner signed in anew.
    NameTaken(Claim),
    /// A channel is in use, or not any more.
    Activity {
        channel: ChannelName,
        in_use: bool,
    },
    /// A member came into a channel of this loop's shard, or went.
    Presence {
        channel: ChannelName,
        id: Arc<str>,
        movement: Movement,
    },
}

/// What the shard that has the channel of a pattern and the shards whose messages it gathers say to each other. A `run`
/// is one life of the channel: what is meant for an earlier one does not count.
#[derive(Debug)]
pub(super) enum PatternMessage {
    /// Send what there is of the pattern, in one `Backfill`, and from now on what is published.
    Follow {
        pattern: ChannelName,
        run: u64,
    },
    Unfollow {
        pattern: ChannelName,
    },
    /// What there was at the beginning, each message with the time that puts it in order.
    Backfill {
        pattern: ChannelName,
        run: u64,
        entries: Vec<(UnixMillis, Arc<Message>)>,
    },
    /// What was published since.
    Feed {
        pattern: ChannelName,
        run: u64,
        entries: Vec<Arc<Message>>,
    },
    /// A channel of the pattern was cleared or closed: keep nothing that was in it.
    Forget {
        pattern: ChannelName,
    },
}
