//! Numbers, keeps and distributes the messages of channels, as one loop sees it.
//!
//! The gateway sends [`Request`]s, each of which has exactly one [`Reply`]:
//! [`Refusal::Unavailable`] at its deadline at the latest. The hub sends [`Order`]s, and receives
//! the events of the channels that it has opened as [`ChannelEvent`]s, in order. The engine calls
//! nothing back: [`Engine::next_output`] returns the results of a call.
//!
//! Neither the gateway nor the hub knows where a channel is. Each channel has its shard on one loop
//! of the process; `router.rs` passes requests there and replies back, by mail between loops
//! (`peer.rs`).

mod event;
mod lookup;
mod peer;
mod pending;
mod request;
mod router;
mod shard;
// Without a store that can become unreachable, some variants are never constructed.
#[cfg_attr(not(any(feature = "sim", feature = "redis")), allow(dead_code))]
mod store;
mod token;
mod watch;

#[cfg(all(test, feature = "sim"))]
mod conformance;

use std::sync::Arc;

pub(crate) use event::{ChannelEvent, Claim, Order, Window};
pub(crate) use lookup::{ChannelSummary, Edge, Listed, Listing, Member, Membership, Page, Range};
pub(crate) use peer::Mail;
pub(crate) use request::{BroadcastOrder, Refusal, Reply, Request};
pub(crate) use router::Engine;
pub(crate) use shard::ShardLimits;
#[cfg(feature = "sim")]
pub use store::StoreFaults;
#[cfg(feature = "sim")]
pub(crate) use store::UnreliableStore;
#[cfg(any(feature = "disk", feature = "redis"))]
pub(crate) use store::Wake;
#[cfg(feature = "disk")]
pub use store::{BackedUp, Damage, Salvaged, SegmentStats, StoreError, StoreStats, StoreTools};
#[cfg(feature = "disk")]
pub(crate) use store::{Crews, DiskStore, LogSync, SharedStore, StoreSettings, StoreTimes};
#[cfg(feature = "redis")]
pub(crate) use store::{Link, LinkEvents, LinkLog, LinkPort, LinkSettings, RedisStore, RedisStoreSettings};
pub(crate) use store::{MemoryStore, Store};
pub(crate) use token::Token;

use crate::core::message::{ChannelName, Movement};
use crate::core::time::{LoopTime, UnixMillis};

/// An output of the engine.
#[derive(Debug)]
pub(crate) enum Output<T> {
    /// The only reply to a request, with the context that came with the request.
    Reply(T, Result<Reply, Refusal>),
    /// An event of a channel that the hub has opened.
    Channel(ChannelName, ChannelEvent),
    /// Another subscriber has taken the name of this one, or the name was announced.
    NameTaken(Claim),
    /// A channel came into use, or went out of use. Sent if [`Engine::watch_activity`] asks for it.
    Activity { channel: ChannelName, in_use: bool },
    /// A member joined a channel of this loop's shard, or left it.
    Presence { channel: ChannelName, id: Arc<str>, movement: Movement },
}

/// The time by both clocks, and a random number: the engine reads no clock itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick {
    /// For dates: of messages, of epochs, and of the end of their time in the history.
    pub(crate) time: UnixMillis,
    /// For durations.
    pub(crate) loop_time: LoopTime,
    pub(crate) random: u64,
}
