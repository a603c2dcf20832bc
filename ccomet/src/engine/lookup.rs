//! What the engine knows of channels, for those that ask.

use std::sync::Arc;

use crate::core::message::{ChannelName, Message};
use crate::core::pattern::Pattern;
use crate::core::position::{Missed, Spot};

/// The state of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelInfo {
    /// Its subscribers on all loops.
    pub(crate) subscribers: u64,
    /// Whether it has subscribers, a token that holds it, or recent activity.
    pub(crate) in_use: bool,
    /// Messages kept, and the bytes of those in memory.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// The spot behind its last message.
    pub(crate) spot: Spot,
}

/// A page of a channel's history, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// Where it begins.
    pub(crate) edge: Edge,
    /// Whether it goes to older messages.
    pub(crate) is_backward: bool,
    /// The most messages, and the most bytes; one message at least.
    pub(crate) limit: usize,
    pub(crate) bytes_max: usize,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Begin,
    End,
    At(Spot),
}

/// A page of a channel's history.
#[derive(Debug)]
pub(crate) struct Page {
    /// Messages in the order that was asked for, each with its number.
    pub(crate) entries: Vec<(u64, Arc<Message>)>,
    /// The messages missing where it begins, if there are any.
    pub(crate) gap: Option<Missed>,
    /// Where it begins.
    pub(crate) begin: Spot,
    /// Where the next page begins.
    pub(crate) end: Spot,
    /// Whether there is a next page.
    pub(crate) more: bool,
}

/// A page of the list of channels, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) pattern: Pattern,
    /// Lists names after this one.
    pub(crate) after: Box<str>,
    pub(crate) limit: usize,
}

/// A channel and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) channel: ChannelName,
    pub(crate) info: ChannelInfo,
}

/// A snapshot of a channel's members.
#[derive(Debug)]
pub(crate) struct Who {
    /// The spots in the channel and in its presence channel.
    pub(crate) position: [Spot; 2],
    /// Subscribers of the channel, members and others.
    pub(crate) subscribers: u64,
    /// Members, sorted by id.
    pub(crate) members: Vec<Member>,
    /// Whether there were more members than are recorded.
    pub(crate) is_incomplete: bool,
}

/// A member of a channel.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    /// 0 during the grace period of a member that has disconnected.
    pub(crate) connections: u32,
}
