//! Orders, keeps and distributes the messages of channels, as one loop sees it.
//!
//! The gateway asks in [`Request`]s, each of which has exactly one [`Reply`], [`Refusal::Unavailable`] at its deadline at
//! the latest. The hub gives [`Order`]s and is told in [`ChannelEvent`]s, in order, what happens in the channels that it
//! has opened. Nothing is called back: what comes of a call is fetched by [`Engine::next_output`].
//!
//! Neither can tell where a channel is. Each has its shard on one loop of the process; `router.rs` brings requests there
//! and replies back, by mail between loops (`peer.rs`).

mod event;
mod lookup;
mod peer;
mod pending;
mod request;
mod router;
mod shard;
// The one store that is not for tests keeps at once.
#[cfg_attr(not(feature = "sim"), allow(dead_code))]
mod store;
mod token;
mod watch;

#[cfg(all(test, feature = "sim"))]
mod conformance;

use std::sync::Arc;

pub(crate) use event::{ChannelEvent, Claim, Order, Window};
pub(crate) use lookup::{ChannelInfo, Edge, Listed, Listing, Member, Page, Range, Who};
pub(crate) use peer::Mail;
pub(crate) use request::{BroadcastOrder, Refusal, Reply, Request};
pub(crate) use router::Engine;
pub(crate) use shard::ShardLimits;
#[cfg(feature = "sim")]
pub use store::StoreFaults;
#[cfg(feature = "sim")]
pub(crate) use store::UnreliableStore;
pub(crate) use store::{MemoryStore, Store};
pub(crate) use token::Token;

use crate::core::message::{ChannelName, Movement};
use crate::core::time::{LoopTime, UnixMillis};

/// What happened in the engine.
#[derive(Debug)]
pub(crate) enum Output<T> {
    /// The only reply to a request, with what its asker keeps with it.
    Reply(T, Result<Reply, Refusal>),
    /// Something happened in a channel that the hub has opened.
    Channel(ChannelName, ChannelEvent),
    /// Another subscriber waits under the name of this one now, or its owner signed in anew.
    NameTaken(Claim),
    /// A channel came into use, or went out of it: if [`Engine::watch_activity`] asks for that.
    Activity { channel: ChannelName, in_use: bool },
    /// A member came into a channel of this loop's shard, or went.
    Presence { channel: ChannelName, id: Arc<str>, movement: Movement },
}

/// The time, by both clocks, and a random number: the engine looks at no clock itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick {
    /// For what is dated: messages, epochs, and how long they are kept.
    pub(crate) time: UnixMillis,
    /// For what takes a while.
    pub(crate) loop_time: LoopTime,
    pub(crate) random: u64,
}
