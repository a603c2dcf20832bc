//! Requests for the state of channels, and their results.

use std::sync::Arc;

use crate::core::message::{ChannelName, Message};
use crate::core::pattern::Pattern;
use crate::core::position::{Missed, Spot};

/// The state of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelSummary {
    /// Its subscribers on all loops.
    pub(crate) subscribers: u64,
    /// Set if it has subscribers, a token that holds it, or recent activity.
    pub(crate) in_use: bool,
    /// The number of messages kept.
    pub(crate) messages: u64,
    /// The bytes of the messages in memory.
    pub(crate) bytes: u64,
    /// The spot after its last message.
    pub(crate) spot: Spot,
}

/// A request for a page of a channel's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The place where it begins.
    pub(crate) edge: Edge,
    /// Set if it proceeds to older messages.
    pub(crate) is_backward: bool,
    /// The maximum number of messages.
    pub(crate) limit: usize,
    /// The maximum number of bytes, but at least one message.
    pub(crate) bytes_max: usize,
}

/// The place where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Begin,
    End,
    At(Spot),
}

/// A page of a channel's history.
#[derive(Debug)]
pub(crate) struct Page {
    /// The messages in the requested order, each with its number.
    pub(crate) entries: Vec<(u64, Arc<Message>)>,
    /// The messages that are missing at the beginning, if any are.
    pub(crate) gap: Option<Missed>,
    /// The place where it begins.
    pub(crate) begin: Spot,
    /// The place where the next page begins.
    pub(crate) end: Spot,
    /// Set if there is a next page.
    pub(crate) more: bool,
}

/// A request for a page of the list of channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) pattern: Pattern,
    /// The page has names after this one.
    pub(crate) after: Box<str>,
    pub(crate) limit: usize,
}

/// A channel and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) channel: ChannelName,
    pub(crate) info: ChannelSummary,
}

/// A snapshot of a channel's members.
#[derive(Debug)]
pub(crate) struct Membership {
    /// The spots in the channel and in its presence channel.
    pub(crate) position: [Spot; 2],
    /// The number of subscribers of the channel, members and others.
    pub(crate) subscribers: u64,
    /// The members, sorted by id.
    pub(crate) members: Vec<Member>,
    /// Set if the channel has more members than are recorded.
    pub(crate) is_incomplete: bool,
}

/// A member of a channel.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    /// The number of its connections; 0 during the grace period after the last one has ended.
    pub(crate) connections: u32,
}
