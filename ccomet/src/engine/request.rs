//! What the gateway asks of the engine, and what it is answered.

use std::sync::Arc;
use std::time::Duration;

use super::{ChannelInfo, Listed, Listing, Page, Range, Token, Who};
use crate::core::message::{ChannelName, Message};
use crate::core::one_or_more::OneOrMore;
use crate::core::owner::Owner;
use crate::core::pattern::Pattern;
use crate::core::position::Spot;
use crate::core::problem::Problem;

/// A request. It has exactly one reply, of the kind that stands beside it in [`Reply`].
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Number and keep messages, all of them or none. A message that was published before under its key is not kept
    /// again. Replied by `Published`.
    Publish { channel: ChannelName, messages: OneOrMore<Message>, owner: Owner },
    /// Number and keep a message in every channel of a pattern. Replied by `Broadcast`.
    Broadcast(BroadcastOrder),
    /// Tell the readers of a channel that somebody signed in: it has no number and is not kept. It ends a wait under
    /// that name. Replied by `Done`.
    Announce { channel: ChannelName, name: Arc<str> },
    /// End the channel: its history is gone, and its numbers start anew. Replied by `Ended`.
    Delete { channel: ChannelName },
    /// Drop the channel's history; its numbers go on. Replied by `Ended`.
    Clear { channel: ChannelName },
    /// Return a part of what the channel has kept. Replied by `Page`.
    Read { channel: ChannelName, range: Range },
    /// Return a page of the list of channels. Replied by `List`.
    List { listing: Listing },
    /// Return what is known of the channel. Replied by `Info`.
    Inspect { channel: ChannelName },
    /// Return the members of the channel. Replied by `Presence`.
    Presence { channel: ChannelName, owner: Owner },
    /// Make the channel if it does not exist, keep it in use for `hold`, and give it that token if it has none.
    /// Replied by `TokenIssued`.
    IssueToken { channel: ChannelName, hold: Duration, token: Token },
    /// Compare the channel's token. Replied by `TokenChecked`.
    CheckToken { channel: ChannelName, token: Option<Token> },
}

/// The reply to a request that was carried out.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The messages are kept: the spot behind each.
    Published(OneOrMore<Spot>),
    /// The message is kept in so many channels. `refused` says why it is not in all of them.
    Broadcast {
        channels: u64,
        refused: Option<Refusal>,
    },
    Done,
    /// The number that the channel's next message would have had, if the channel existed.
    Ended(Option<u64>),
    /// `None` if there is no such channel.
    Page(Option<Page>),
    /// Channels in the order of their names, and whether there are more.
    List {
        channels: Vec<Listed>,
        has_more: bool,
    },
    /// `None` if there is no such channel.
    Info(Option<ChannelInfo>),
    Presence(Who),
    /// The number of the oldest message kept, or of the next one, and the channel's token.
    TokenIssued {
        first: u64,
        token: Token,
    },
    /// Whether the token is the channel's.
    TokenChecked(bool),
}

/// A message for all channels of a pattern.
#[derive(Debug, Clone)]
pub(crate) struct BroadcastOrder {
    pub(crate) pattern: Pattern,
    pub(crate) message: Message,
    /// A shard that has more of these channels publishes it in none of them.
    pub(crate) reach_max: usize,
    /// Whose message it is.
    pub(crate) owner: Owner,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are as many channels as there may be.
    ChannelLimit,
    /// There are as many patterns as there may be.
    PatternLimit,
    /// The client has made as many channels or patterns as one may.
    ClientLimit,
    /// There are as many messages on their way to all channels of a pattern as there may be.
    BroadcastLimit,
    /// The pattern stands for more channels than one message may go to.
    BroadcastTooWide,
    /// Something else was published under the same key.
    KeyReused,
    /// It cannot be carried out now, or no reply came in time. Whether a publication is kept is not known.
    Unavailable,
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
        }
    }
}
