//! The events that the threads of a store send to its loops.

use super::index::{ChannelRow, IndexError};
use super::places::{Entry, SegmentId};
use super::record::ChannelId;
use super::retention::Relief;
use crate::core::message::ChannelName;
use crate::engine::Window;
use crate::engine::store::{KeptKey, Part};

/// An event for a loop.
#[derive(Debug)]
pub(super) enum Event {
    /// A batch is in the log at this place, or was not kept.
    Written {
        number: u64,
        place: Option<(SegmentId, u32)>,
    },
    Page {
        read: u32,
        part: Result<Part, IndexError>,
    },
    Opened {
        channel: ChannelName,
        found: Result<Option<Box<Found>>, IndexError>,
    },
    /// The places of the oldest messages of a channel, from number `begin` on.
    Oldest {
        channel: ChannelName,
        id: ChannelId,
        begin: u64,
        entries: Vec<Entry>,
    },
    /// Channels, and whether more follow.
    Names {
        read: u32,
        found: Result<(Vec<ChannelRow>, bool), IndexError>,
    },
    /// The checkpoint in progress is in the index.
    Checkpointed,
    /// What channels are to drop, as the index was after that checkpoint.
    Relieve {
        checkpoint: u64,
        reliefs: Vec<Relief>,
    },
}

/// A channel that was found in the store.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: ChannelId,
    pub(super) row: ChannelRow,
    pub(super) window: Window,
    pub(super) keys: Vec<KeptKey>,
}
