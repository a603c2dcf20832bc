//! Orders of a loop's hub to the engine, and events of the channels that its subscribers read.

use std::sync::Arc;

use super::Refusal;
use crate::core::message::{ChannelName, Message};
use crate::core::owner::Owner;
use crate::core::position::Epoch;

/// An order of the hub. It has no reply: what comes of it comes as events. All but `Open` are for channels that have
/// been opened for this loop, and are dropped otherwise.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send this loop the channel's history, and from then on what is published. Answered by `Opened` or `Refused`.
    Open { channel: ChannelName, owner: Owner },
    /// Send this loop what it does not have yet of a channel that has been opened for it, now. Answered by `CaughtUp`.
    CatchUp { channel: ChannelName },
    /// Send messages before the window, from number `from` on. Answered by `Page`, unless the channel is gone or its numbers
    /// have begun anew.
    Fetch { channel: ChannelName, epoch: Epoch, from: u64 },
    /// Send no more of that channel.
    Close { channel: ChannelName },
    /// A subscriber of this loop waits under a name. One that waits under it already is displaced.
    AcquireName { channel: ChannelName, name: Arc<str>, claim: Claim },
    /// It does not wait any more.
    ReleaseName { channel: ChannelName, name: Arc<str>, claim: Claim },
    /// So many subscribers of this loop are in the channel now.
    SetSubscribers { channel: ChannelName, count: u32 },
    /// So many connections of a member are in the channel on this loop now.
    SetMember { channel: ChannelName, id: Arc<str>, connections: u32 },
}

impl Order {
    pub(super) fn channel(&self) -> &ChannelName {
        match self {
            Self::Open { channel, .. }
            | Self::CatchUp { channel }
            | Self::Fetch { channel, .. }
            | Self::Close { channel }
            | Self::AcquireName { channel, .. }
            | Self::ReleaseName { channel, .. }
            | Self::SetSubscribers { channel, .. }
            | Self::SetMember { channel, .. } => channel,
        }
    }
}

/// The newest messages of a channel, which are in memory.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) epoch: Epoch,
    /// The number of the oldest message kept, which may be older than the window.
    pub(crate) kept_from: u64,
    /// The number of the first of the messages.
    pub(crate) first: u64,
    pub(crate) entries: Vec<Arc<Message>>,
}

/// What happened in a channel that this loop has opened. The events of one channel come in order.
#[derive(Debug)]
pub(crate) enum ChannelEvent {
    /// The channel as it is now. What is published from here on comes as `Appended`, without a gap.
    Opened(Window),
    /// The channel cannot be opened for the client `owner`.
    Refused {
        owner: Owner,
        why: Refusal,
    },
    /// Messages from number `first` on. If this loop was slow, `first` may be beyond what it has. The channel keeps
    /// nothing before number `kept_from`, and in memory nothing before `window_from`.
    Appended {
        first: u64,
        entries: Vec<Arc<Message>>,
        announcements: Vec<Arc<str>>,
        kept_from: u64,
        window_from: u64,
    },
    /// The channel keeps nothing any more before number `kept_from`, and in memory nothing before `window_from`.
    Truncated {
        kept_from: u64,
        window_from: u64,
    },
    /// The answer to `CatchUp`: all that this loop does not have of the channel as it was when it was asked.
    CaughtUp {
        first: u64,
        entries: Vec<Arc<Message>>,
        kept_from: u64,
    },
    /// Messages before the window, from number `from` on, up to number `end`: those that are missing have expired. The
    /// oldest message that was kept when they were read has number `kept_from`. The answer to `Fetch`.
    Page {
        epoch: Epoch,
        from: u64,
        end: u64,
        kept_from: u64,
        entries: Vec<(u64, Arc<Message>)>,
    },
    /// The numbers began anew, though nobody closed the channel.
    Restarted(Window),
    /// What is published from here on is not known until `Resumed`.
    Interrupted,
    Resumed,
    /// The channel's history before that number is gone.
    Cleared {
        first: u64,
    },
    /// The channel was deleted.
    Closed,
}

/// Finds a subscriber again that waits under a name: the loop's own number for it, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim(pub(crate) u64);
