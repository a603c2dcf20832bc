//! Requests of the gateway to the engine, and their replies.

use std::sync::Arc;
use std::time::Duration;

use super::{ChannelSummary, Listed, Listing, Membership, Page, Range, Token};
use crate::core::message::{ChannelName, Message};
use crate::core::one_or_more::OneOrMore;
use crate::core::owner::Owner;
use crate::core::pattern::Pattern;
use crate::core::position::Spot;
use crate::core::problem::Problem;

/// A request. It has exactly one reply: the [`Reply`] that its variant names, or a [`Refusal`].
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Number and keep messages, all of them or none. A message that was published before under its
    /// key is not kept again. The reply is `Published`.
    Publish { channel: ChannelName, messages: OneOrMore<Message>, owner: Owner },
    /// Number and keep a message in every channel of a pattern. The reply is `Broadcast`.
    Broadcast(BroadcastOrder),
    /// Notify the readers of a channel that a client signed in. The announcement has no number and
    /// is not kept. It ends a wait under that name. The reply is `Done`.
    Announce { channel: ChannelName, name: Arc<str> },
    /// Delete the channel: its history is gone, and its numbers start anew. The reply is `Ended`.
    Delete { channel: ChannelName },
    /// Drop the channel's history; its numbers continue. The reply is `Ended`.
    Clear { channel: ChannelName },
    /// Return a part of the channel's history. The reply is `Page`.
    Read { channel: ChannelName, range: Range },
    /// Return a page of the list of channels. The reply is `List`.
    List { listing: Listing },
    /// Return the state of the channel. The reply is `Info`.
    Inspect { channel: ChannelName },
    /// Return the members of the channel. The reply is `Presence`.
    Presence { channel: ChannelName, owner: Owner },
    /// Create the channel if it does not exist, keep it in use for `hold`, and give it that token
    /// if it has none. The reply is `TokenIssued`.
    IssueToken { channel: ChannelName, hold: Duration, token: Token },
    /// Compare a token with the channel's. The reply is `TokenChecked`.
    CheckToken { channel: ChannelName, token: Option<Token> },
}

/// The reply to a request that was carried out.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The messages are kept: the spot after each.
    Published(OneOrMore<Spot>),
    /// The message is kept in so many channels. `refused` is the reason why it is not in all of
    /// them.
    Broadcast {
        channels: u64,
        refused: Option<Refusal>,
    },
    Done,
    /// The number that the channel's next message would have had, if the channel existed.
    Ended(Option<u64>),
    /// `None` if there is no such channel.
    Page(Option<Page>),
    /// Channels in the order of their names, and whether more follow.
    List {
        channels: Vec<Listed>,
        has_more: bool,
    },
    /// `None` if there is no such channel.
    Info(Option<ChannelSummary>),
    Presence(Membership),
    /// The number of the oldest message kept, or of the next one if none is, and the channel's
    /// token.
    TokenIssued {
        first: u64,
        token: Token,
    },
    /// Set if the token is the channel's.
    TokenChecked(bool),
}

/// A message for all channels of a pattern.
#[derive(Debug, Clone)]
pub(crate) struct BroadcastOrder {
    pub(crate) pattern: Pattern,
    pub(crate) message: Message,
    /// A shard that has more of these channels publishes the message in none of them.
    pub(crate) reach_max: usize,
    /// The client that publishes the message.
    pub(crate) owner: Owner,
}

/// The reason why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The number of channels is at its limit.
    ChannelLimit,
    /// The number of patterns is at its limit.
    PatternLimit,
    /// The number of channels, patterns or broadcasts of the client is at its limit.
    ClientLimit,
    /// The number of broadcasts in progress is at its limit.
    BroadcastLimit,
    /// The pattern matches more channels than one message may go to.
    BroadcastTooWide,
    /// A different message was published under the same key.
    KeyReused,
    /// The request cannot be carried out now, or no reply came in time. It is unknown whether a
    /// publication is kept.
    Unavailable,
    /// The disk of the store is full: nothing was published.
    StoreFull,
    /// The disk of the store has failed. It is unknown whether a publication is kept.
    StoreFailed,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::ChannelLimit => Self::ChannelLimit,
            Refusal::PatternLimit => Self::PatternLimit,
            Refusal::ClientLimit => Self::ClientLimit,
            Refusal::BroadcastLimit => Self::BroadcastLimit,
            Refusal::BroadcastTooWide => Self::BroadcastTooWide,
            Refusal::KeyReused => Self::KeyReused,
            Refusal::Unavailable => Self::Unavailable,
            Refusal::StoreFull => Self::StoreFull,
            Refusal::StoreFailed => Self::StoreFailed,
        }
    }
}
