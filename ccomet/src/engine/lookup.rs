//! What can be looked up of channels at their shards.

use std::sync::Arc;

use crate::core::message::{ChannelName, Message};
use crate::core::pattern::Pattern;
use crate::core::position::{Missed, Spot};

/// What is known of a channel at its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelInfo {
    /// Its subscribers on all loops.
    pub(crate) subscribers: u64,
    /// Whether it has subscribers, was signed for, or had something to do lately.
    pub(crate) in_use: bool,
    /// What it keeps.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Behind its last message.
    pub(crate) spot: Spot,
}

/// A part of what a channel has kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// Where it begins.
    pub(crate) edge: Edge,
    /// Whether it goes from there to older messages.
    pub(crate) is_backward: bool,
    /// Messages, and bytes of them, though it be one at least.
    pub(crate) limit: usize,
    pub(crate) bytes_max: usize,
}

/// Where a part of a channel's history begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Begin,
    End,
    At(Spot),
}

/// What there is of such a part.
#[derive(Debug)]
pub(crate) struct Page {
    /// In the order that was asked for, each with its number.
    pub(crate) entries: Vec<(u64, Arc<Message>)>,
    /// Whether something is missing at its edge.
    pub(crate) gap: Option<Missed>,
    /// Where what was told begins.
    pub(crate) begin: Spot,
    /// Where the next page begins.
    pub(crate) end: Spot,
    /// Whether there is one.
    pub(crate) more: bool,
}

/// Which channels are to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) pattern: Pattern,
    /// Those whose names come behind this one.
    pub(crate) after: Box<str>,
    pub(crate) limit: usize,
}

/// A channel, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) channel: ChannelName,
    pub(crate) info: ChannelInfo,
}

/// Who is in a channel.
#[derive(Debug)]
pub(crate) struct Who {
    /// In the channel, and in the one beside it in which it is told who comes and goes.
    pub(crate) position: [Spot; 2],
    /// Connections that read the channel, of members and others.
    pub(crate) subscribers: u64,
    /// Sorted.
    pub(crate) members: Vec<Member>,
    /// There were more members than are kept.
    pub(crate) is_incomplete: bool,
}

/// Who is in a channel under a name of his own.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    /// None where he may come back at any moment.
    pub(crate) connections: u32,
}
