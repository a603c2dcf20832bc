//! Orders of a loop's hub to the engine, and events of the channels that its subscribers read.

use std::sync::Arc;

use super::Refusal;
use crate::core::message::{ChannelName, Message};
use crate::core::owner::Owner;
use crate::core::position::Epoch;

/// An order of the hub. It has no reply: its results arrive as events. All orders but `Open` are
/// for channels that have been opened for this loop, and are dropped otherwise.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send this loop the channel's window, and all messages that are published from now on. The
    /// engine answers with `Opened` or `Refused`.
    Open { channel: ChannelName, owner: Owner },
    /// Send this loop at once what it does not have yet of an opened channel. The engine answers
    /// with `CaughtUp`.
    CatchUp { channel: ChannelName },
    /// Send messages before the window, from number `from` on. The engine answers with `Page`,
    /// unless the channel is gone or its numbers have begun anew.
    Fetch { channel: ChannelName, epoch: Epoch, from: u64 },
    /// Send no more of that channel.
    Close { channel: ChannelName },
    /// A subscriber of this loop waits under a name. It displaces a subscriber that waits under
    /// that name already.
    AcquireName { channel: ChannelName, name: Arc<str>, claim: Claim },
    /// The subscriber does not wait any more.
    ReleaseName { channel: ChannelName, name: Arc<str>, claim: Claim },
    /// The number of subscribers in the channel on this loop.
    SetSubscribers { channel: ChannelName, count: u32 },
    /// The number of connections that a member has in the channel on this loop.
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
    /// The number of the first entry.
    pub(crate) first: u64,
    pub(crate) entries: Vec<Arc<Message>>,
}

/// An event of a channel that this loop has opened. The events of one channel arrive in order.
#[derive(Debug)]
pub(crate) enum ChannelEvent {
    /// The state of the channel when it was opened. Later messages arrive as `Appended`, without a
    /// gap.
    Opened(Window),
    /// The channel cannot be opened for the client `owner`.
    Refused {
        owner: Owner,
        why: Refusal,
    },
    /// Messages from number `first` on. If this loop was slow, `first` may be beyond the last
    /// message that it has. The channel keeps nothing before number `kept_from`, and in memory
    /// nothing before `window_from`.
    Appended {
        first: u64,
        entries: Vec<Arc<Message>>,
        announcements: Vec<Arc<str>>,
        kept_from: u64,
        window_from: u64,
    },
    /// The channel no longer keeps messages before number `kept_from`, and in memory none before
    /// `window_from`.
    Truncated {
        kept_from: u64,
        window_from: u64,
    },
    /// The answer to `CatchUp`: all messages up to the time of the order that this loop does not
    /// have.
    CaughtUp {
        first: u64,
        entries: Vec<Arc<Message>>,
        kept_from: u64,
    },
    /// The answer to `Fetch`: messages before the window, from number `from` on, up to number
    /// `end`. Those before number `readable_from` cannot be read; others that are missing have
    /// expired. When the page was read, the oldest message kept had number `kept_from`.
    Page {
        epoch: Epoch,
        from: u64,
        readable_from: u64,
        end: u64,
        kept_from: u64,
        entries: Vec<(u64, Arc<Message>)>,
    },
    /// The numbers began anew, although the channel was not closed.
    Restarted(Window),
    /// Messages that are published from now on are unknown until `Resumed`.
    Interrupted,
    Resumed,
    /// The channel's history before that number is gone.
    Cleared {
        first: u64,
    },
    /// The channel was deleted.
    Closed,
}

/// Identifies a subscriber that waits under a name. The loop assigns the number and never reuses
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim(pub(crate) u64);
