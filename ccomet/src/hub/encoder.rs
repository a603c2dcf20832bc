//! The protocol seam. The hub says what happened; an [`Encoder`] turns that into the bytes of its
//! protocol, and answers the few questions in which protocols differ.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;

use super::sink::{Reply, ReplyBody};
use crate::core::message::{ChannelName, Message};
use crate::core::position::{Missed, Spot};
use crate::core::problem::Problem;

/// Names how a subscriber is written to: a row in the table of protocols, and a variant that this
/// protocol alone understands. Messages are encoded once for each format that has a reader, so it
/// is the key of the cache, too: equal formats must get equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Format {
    row: u8,
    kind: Kind,
    variant: u8,
}

/// Whether a subscriber goes on after its first message.
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

    /// Returns the format of messages alone, which replies and streams of several channels put
    /// something around.
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

/// Names a subscription among several of one connection: the number that its client gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) i64);

/// The encoders of all protocols, each in its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoders(pub(crate) &'static [&'static dyn Encoder]);

impl Encoders {
    pub(crate) fn get(self, format: Format) -> &'static dyn Encoder {
        self.0[format.row()]
    }
}

/// Turns what happens to the subscribers of one protocol into bytes.
pub(crate) trait Encoder: Debug + Sync {
    /// Returns what distinguishes its sessions.
    fn rules(&self) -> SessionRules {
        SessionRules::default()
    }

    /// Finds the message that a client means by a number of its protocol ([`Number`]), in a
    /// channel whose next message has the number `next`.
    ///
    /// [`Number`]: super::Start::Number
    fn resolve(&self, number: u64, next: u64) -> Resolved {
        if number <= next { Resolved::Message(number) } else { Resolved::NotYet }
    }

    /// Writes a message: a whole event of a stream of one channel, or, in the format of polls, an
    /// item. Every reader of the format gets these same bytes.
    fn write_message(&self, format: Format, message: &PlacedMessage<'_>, out: &mut Vec<u8>);

    /// Writes an event to a stream, which has a label if its connection has several. Writes nothing
    /// if the protocol has no such event.
    fn write_event(&self, format: Format, label: Option<Label>, event: &StreamEvent<'_>, out: &mut Vec<u8>);

    /// Returns an event for a stream of several channels, or one that has a label, around an item
    /// that others get too. `position` is where the stream is after it, in each of its channels.
    fn event_around(&self, _format: Format, _label: Option<Label>, _position: &[Spot], item: &Bytes) -> [Bytes; 3] {
        [Bytes::new(), item.clone(), Bytes::new()]
    }

    /// Returns a poll's reply, or `None` if the protocol has none for that: then the poll waits on,
    /// or ends like one that got no message.
    fn reply(&self, target: Option<&str>, outcome: &PollOutcome<'_>) -> Option<ReplyBody>;

    /// Returns the answer to a subscriber that cannot have what it wants and has got nothing yet.
    fn refusal(&self, _format: Format, refusal: &RefusedSubscription<'_>) -> Reply {
        Reply::Refused { problem: refusal.problem, target: None, body: None }
    }
}

/// What distinguishes the sessions of one protocol from those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionRules {
    /// A poll's reply holds one message at the most.
    pub(crate) has_one_message_per_poll: bool,
    /// A poll cannot end before its channels have come, since its reply names a position in them.
    pub(crate) needs_position: bool,
    /// Polls end with the announcement of a name, too.
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

/// From when the silence before a stream's heartbeat is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeartbeatRule {
    /// From what this subscriber was sent last.
    SinceLastEvent,
    /// From what any subscriber of the channel was sent last.
    SinceChannelSpoke,
}

/// What a number of a protocol stands for in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolved {
    Message(u64),
    /// A message that the channel has not got yet, as far as this loop knows.
    NotYet,
    /// Nothing, whatever the channel has got.
    Nothing,
}

/// A message in its channel. `spot` is the one right after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacedMessage<'a> {
    pub(crate) channel: &'a ChannelName,
    pub(crate) spot: Spot,
    pub(crate) message: &'a Message,
}

/// Messages that a subscriber cannot have any more. What follows starts after `spot`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap<'a> {
    pub(crate) channel: &'a ChannelName,
    pub(crate) missed: Missed,
    pub(crate) spot: Spot,
}

/// What happens to a stream beside messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StreamEvent<'a> {
    /// The stream opens. `target` is what the client named for its protocol to address.
    Opening { target: &'a str },
    /// Its channels are there. It has a position, unless gaps are about to be reported.
    Hello { heartbeat: Duration, position: Option<&'a [Spot]> },
    /// The client named a number that the channel has not given out, and starts with `next`.
    UnknownStart { channel: &'a ChannelName, next: u64 },
    /// Messages are lost. `position` covers this gap, and none that is reported after it.
    Gap { gap: Gap<'a>, position: &'a [Spot] },
    /// Nothing has happened for a while, for the time number `count`. The channel is named if the
    /// stream has one only.
    Heartbeat { channel: Option<&'a ChannelName>, count: i32 },
    /// The channel was closed, whose next message would have been number `next`.
    Closed { channel: &'a ChannelName, next: u64 },
    /// The reader's leave to read ends soon.
    AccessExpiring { in_s: u64 },
    /// The reader's leave to read has ended, and so does the stream.
    AccessExpired,
    /// The server goes down. The client is to come back after so long.
    ShuttingDown { retry_ms: u64 },
}

/// Why a poll ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PollOutcome<'a> {
    /// There is something for it, or it does not wait. `position` is behind all of that.
    Items { items: &'a [Item<'a>], announcements: &'a [Announcement<'a>], position: &'a [Spot] },
    /// It has waited long enough, for the time number `count`.
    TimedOut { channel: &'a ChannelName, count: i32 },
    /// The client named a number that the channel has not given out.
    UnknownStart { channel: &'a ChannelName, next: u64 },
    /// The channel was closed, whose next message would have been number `next`. `position` is
    /// empty if the poll has not started.
    Closed { channel: &'a ChannelName, next: u64, position: &'a [Spot] },
    /// Another subscriber waits under its name now.
    Displaced,
}

/// A piece of a poll's reply.
#[derive(Debug, Clone)]
pub(crate) enum Item<'a> {
    Gap(Gap<'a>),
    /// A message, as [`Encoder::write_message`] has written it.
    Message(Bytes),
}

/// A name that somebody has announced in a channel, whose next message was number `next` then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announcement<'a> {
    pub(crate) channel: &'a ChannelName,
    pub(crate) next: u64,
    pub(crate) name: &'a str,
}

/// What a subscriber cannot have, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusedSubscription<'a> {
    pub(crate) problem: Problem,
    pub(crate) channel: &'a ChannelName,
    /// What the client named for its protocol to address.
    pub(crate) target: Option<&'a str>,
}
