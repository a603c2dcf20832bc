//! The interface to the protocols. The hub reports events; an [`Encoder`] turns them into the bytes
//! of its protocol, and determines the few rules in which protocols differ.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;

use super::sink::{PollReply, ReplyBody};
use crate::core::message::{ChannelName, Message};
use crate::core::position::{Missed, Spot};
use crate::core::problem::Problem;

/// The encoding for a subscriber: a row in the table of protocols, and a variant that only this
/// protocol interprets. Messages are encoded once for each format that has a reader. The format is
/// a part of the cache's key, so equal formats must get equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Format {
    row: u8,
    kind: Kind,
    variant: u8,
}

/// Determines whether a subscriber continues after its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Stream,
    Poll,
}

impl Format {
    /// Creates the format of streams of the protocol in that row.
    pub(crate) const fn stream(row: u8, variant: u8) -> Self {
        Self { row, kind: Kind::Stream, variant }
    }

    /// Creates the format of polls of the protocol in that row. A message in this format is an item
    /// of a reply.
    pub(crate) const fn poll(row: u8) -> Self {
        Self { row, kind: Kind::Poll, variant: 0 }
    }

    /// Returns the format of single messages, around which replies and streams of several channels
    /// add more.
    pub(crate) const fn of_items(self) -> Self {
        Self::poll(self.row)
    }

    pub(crate) const fn is_stream(self) -> bool {
        matches!(self.kind, Kind::Stream)
    }

    pub(crate) const fn row(self) -> usize {
        self.row as usize
    }

    pub(crate) const fn variant(self) -> u8 {
        self.variant
    }
}

/// Identifies one of several subscriptions of a connection. The client chooses the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) i64);

/// The encoders of all protocols, each at the index of its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoders(pub(crate) &'static [&'static dyn Encoder]);

impl Encoders {
    pub(crate) fn get(self, format: Format) -> &'static dyn Encoder {
        self.0[format.row()]
    }
}

/// Encodes the events of the subscribers of one protocol.
pub(crate) trait Encoder: Debug + Sync {
    /// Returns the rules in which the sessions of this protocol differ.
    fn rules(&self) -> SessionRules {
        SessionRules::default()
    }

    /// Finds the message that a client means by a number of its protocol ([`Number`]), in a
    /// channel whose next message has the number `next`.
    ///
    /// [`Number`]: super::StartAt::Number
    fn resolve(&self, number: u64, next: u64) -> Resolved {
        if number <= next { Resolved::Message(number) } else { Resolved::NotYet }
    }

    /// Writes a message: a whole event of a stream of one channel, or, in the format of polls, an
    /// item. All readers of the format get these bytes.
    fn write_message(&self, format: Format, message: &PlacedMessage<'_>, out: &mut Vec<u8>);

    /// Writes an event to a stream, with a label if the subscription was added to a connection.
    /// Writes nothing if the protocol has no such event.
    fn write_event(&self, format: Format, label: Option<Label>, event: &StreamEvent<'_>, out: &mut Vec<u8>);

    /// Returns an event around an item that others get too, for a stream of several channels or
    /// with a label. `position` is the position of the stream after the item, in each of its
    /// channels.
    fn event_around(&self, _format: Format, _label: Option<Label>, _position: &[Spot], item: &Bytes) -> [Bytes; 3] {
        [Bytes::new(), item.clone(), Bytes::new()]
    }

    /// Returns a poll's reply, or `None` if the protocol has no reply for the outcome. Then the
    /// poll continues to wait, or ends like a poll that got no message.
    fn reply(&self, target: Option<&str>, outcome: &PollOutcome<'_>) -> Option<ReplyBody>;

    /// Returns the answer to a subscriber that is refused before it has received anything.
    fn refusal(&self, _format: Format, refusal: &RefusedSubscription<'_>) -> PollReply {
        PollReply::Refused { problem: refusal.problem, target: None, body: None }
    }
}

/// The rules in which the sessions of protocols differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionRules {
    /// A poll's reply has at most one message.
    pub(crate) has_one_message_per_poll: bool,
    /// A poll cannot end before its channels are open, because its reply names a position in them.
    pub(crate) needs_position: bool,
    /// The announcement of a name ends polls too.
    pub(crate) takes_announcements: bool,
    pub(crate) heartbeat: HeartbeatRule,
}

impl Default for SessionRules {
    fn default() -> Self {
        Self {
            has_one_message_per_poll: false,
            needs_position: true,
            takes_announcements: false,
            heartbeat: HeartbeatRule::SinceLastEvent,
        }
    }
}

/// Determines when the silence before a stream's heartbeat begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeartbeatRule {
    /// With the last event sent to this subscriber.
    SinceLastEvent,
    /// With the last event sent to any subscriber of the channel.
    SinceChannelSpoke,
}

/// The meaning of a protocol's number in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolved {
    Message(u64),
    /// A message that the channel does not have yet, as far as this loop knows.
    NotYet,
    /// Nothing, regardless of the messages of the channel.
    Nothing,
}

/// A message and its channel. `spot` is the spot right after the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacedMessage<'a> {
    pub(crate) channel: &'a ChannelName,
    pub(crate) spot: Spot,
    pub(crate) message: &'a Message,
}

/// Messages that are lost for a subscriber. It continues after `spot`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap<'a> {
    pub(crate) channel: &'a ChannelName,
    pub(crate) missed: Missed,
    pub(crate) spot: Spot,
}

/// An event of a stream, other than a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StreamEvent<'a> {
    /// The stream opens. `target` is what the client named for its protocol to address.
    Opening { target: &'a str },
    /// The channels of the stream are open. It has a position, unless gaps follow.
    Hello { heartbeat: Duration, position: Option<&'a [Spot]> },
    /// The client named a number that the channel has not assigned, and starts with `next`.
    UnknownStart { channel: &'a ChannelName, next: u64 },
    /// Messages are lost. `position` covers this gap, and none that is reported after it.
    Gap { gap: Gap<'a>, position: &'a [Spot] },
    /// Nothing was sent for a while. `count` is the number of the heartbeat. `channel` is set if
    /// the stream has only one.
    Heartbeat { channel: Option<&'a ChannelName>, count: i32 },
    /// The channel was closed. Its next message would have been number `next`.
    Closed { channel: &'a ChannelName, next: u64 },
    /// The reader's permission to read ends soon.
    AccessExpiring { in_s: u64 },
    /// The reader's permission to read has ended, and with it the stream.
    AccessExpired,
    /// The server shuts down. The client is to reconnect after that time.
    ShuttingDown { retry_ms: u64 },
}

/// The reason why a poll ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PollOutcome<'a> {
    /// There is something for the poll, or it does not wait. `position` is the position after all
    /// items.
    Items { items: &'a [Item<'a>], announcements: &'a [Announcement<'a>], position: &'a [Spot] },
    /// The poll has waited long enough. `count` is the number of this timeout.
    TimedOut { channel: &'a ChannelName, count: i32 },
    /// The client named a number that the channel has not assigned.
    UnknownStart { channel: &'a ChannelName, next: u64 },
    /// The channel was closed. Its next message would have been number `next`. `position` is empty
    /// if the poll has not started.
    Closed { channel: &'a ChannelName, next: u64, position: &'a [Spot] },
    /// Another subscriber has taken the name under which the poll waited.
    Displaced,
}

/// A part of a poll's reply.
#[derive(Debug, Clone)]
pub(crate) enum Item<'a> {
    Gap(Gap<'a>),
    /// A message, as written by [`Encoder::write_message`].
    Message(Bytes),
}

/// A name that was announced in a channel when number `next` was that of its next message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announcement<'a> {
    pub(crate) channel: &'a ChannelName,
    pub(crate) next: u64,
    pub(crate) name: &'a str,
}

/// A refused subscription, and the reason.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusedSubscription<'a> {
    pub(crate) problem: Problem,
    pub(crate) channel: &'a ChannelName,
    /// What the client named for its protocol to address.
    pub(crate) target: Option<&'a str>,
}
