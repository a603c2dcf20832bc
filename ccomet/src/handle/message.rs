//! Messages that are published and read from inside the process.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::HandleError;
use crate::core::message::{self, ChannelName, Draft};
use crate::core::position::{Spot, parse_position, write_position};
use crate::engine::{Listed, Page};
use crate::protocols::native::publication::{checked_event, checked_key, checked_ttl};

/// A message to be published: its data, and options.
///
/// ```
/// use std::time::Duration;
///
/// use ccomet::handle::Message;
///
/// let message = Message::new("21.5").event("temperature").ttl(Duration::from_secs(60)).key("reading-7");
/// # let _ = message;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    data: Bytes,
    event: Option<Box<str>>,
    ttl: Option<Duration>,
    key: Option<Box<str>>,
}

impl Message {
    /// Creates a message of any bytes. Clients get UTF-8 data as text, and other data in Base64.
    pub fn new(data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), event: None, ttl: None, key: None }
    }

    /// Sets the kind of the message, which you choose freely: 1 to 128 bytes without control
    /// characters.
    #[must_use]
    pub fn event(self, event: &str) -> Self {
        Self { event: Some(event.into()), ..self }
    }

    /// Sets the time for which the message is delivered, in whole seconds: at least 1. A fraction
    /// of a second is cut off.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Sets an idempotency key: 1 to 128 visible ASCII characters, without spaces. A message that
    /// is published again in the channel under the same key, within `history.keys_age_max_s`, is
    /// not kept again, and gets the position of the first message. The keys of handles are separate
    /// from those of clients.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Checks the options in the same way as those of a request. The data is copied, so that no
    /// spare capacity is kept uncounted.
    pub(super) fn into_draft(self) -> Result<Draft, HandleError> {
        let Self { data, event, ttl, key } = self;
        let event = event.as_deref().map(checked_event).transpose()?;
        let ttl_s = ttl.map(|ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX));
        // No client's key contains this character.
        let key = key.as_deref().map(checked_key).transpose()?.map(|key| format!("handle\0{key}").into());
        Ok(Draft { payload: Bytes::copy_from_slice(&data), sender: None, event, ttl_s: checked_ttl(ttl_s)?, key })
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }
}

impl From<Bytes> for Message {
    fn from(data: Bytes) -> Self {
        Self::new(data)
    }
}

impl From<Vec<u8>> for Message {
    fn from(data: Vec<u8>) -> Self {
        Self::new(data)
    }
}

impl From<String> for Message {
    fn from(data: String) -> Self {
        Self::new(data)
    }
}

impl From<&'static str> for Message {
    fn from(data: &'static str) -> Self {
        Self::new(data)
    }
}

/// The position of a reader in its channels, just after the last message that it got. Its text is
/// the one that clients get as `position` and as the id of an event: either can resume at a
/// position of the other.
///
/// Among positions in the same channels, later ones are greater.
///
/// ```
/// use ccomet::handle::{Position, Start};
///
/// // A client has stored this text, or the program itself before it was restarted.
/// let stored = "0000000000001-0000000002";
/// let start = Start::After(stored.parse::<Position>()?);
/// # let _ = start;
/// # Ok::<(), ccomet::handle::HandleError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(Box<[Spot]>);

impl Position {
    pub(crate) fn new(spots: impl Into<Box<[Spot]>>) -> Self {
        Self(spots.into())
    }

    pub(super) fn spots(&self) -> &[Spot] {
        &self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        write_position(self.0.iter().copied(), &mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({self})")
    }
}

impl FromStr for Position {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        Ok(Self::new(parse_position(text, text.split('.').count())?))
    }
}

/// A published message, as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The channel in which it was published, also for a reader of a pattern.
    pub channel: Arc<str>,
    /// The position of the reader just after it, in all of its channels, for a later resumption.
    pub position: Position,
    /// The calendar time at which the server accepted it, to the millisecond.
    pub time: SystemTime,
    /// The kind of the message, if its publisher has set one.
    pub event: Option<Box<str>>,
    /// The name of the publisher, if its API has one: `sname` of the classic API.
    pub sender: Option<Box<str>>,
    /// The published data. It shares its memory with the channel's history.
    pub data: Bytes,
}

impl Received {
    pub(crate) fn new(channel: &ChannelName, position: Position, message: &message::Message) -> Self {
        let channel = message.origin().map_or(channel, |(channel, _)| channel);
        Self {
            channel: channel.as_str().into(),
            position,
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(message.time().as_millis()),
            event: message.event().map(Into::into),
            sender: message.sender.clone(),
            data: message.payload.clone(),
        }
    }
}

/// The state of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// The name.
    pub channel: Box<str>,
    /// The position just after its last message.
    pub position: Position,
    /// The number of its readers, clients and handles, on all loops.
    pub subscribers: u64,
    /// The number of messages that it keeps.
    pub messages: u64,
    /// The bytes that they count for against the limits of the history.
    pub bytes: u64,
}

impl From<Listed> for ChannelInfo {
    fn from(Listed { channel, info }: Listed) -> Self {
        Self {
            channel: channel.as_str().into(),
            position: Position::new([info.spot]),
            subscribers: info.subscribers,
            messages: info.messages,
            bytes: info.bytes,
        }
    }
}

/// A page of the list of channels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelList {
    /// The channels in the order of their names, byte by byte.
    pub channels: Vec<ChannelInfo>,
    /// Whether there are more channels after this page.
    pub has_more: bool,
}

/// A page of a channel's history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryPage {
    /// The messages, the oldest first.
    pub messages: Vec<Received>,
    /// Set if messages between the start and the first of these are lost: their number, if it is
    /// known.
    pub gap: Option<Option<u64>>,
    /// The start of the next page, or of a subscription that continues here.
    pub position: Position,
    /// Whether there are more messages after this page.
    pub has_more: bool,
}

impl HistoryPage {
    pub(super) fn new(channel: &ChannelName, page: &Page) -> Self {
        let position = |number| Position::new([Spot { next: number + 1, ..page.end }]);
        let received =
            |(number, message): &(u64, Arc<message::Message>)| Received::new(channel, position(*number), message);
        Self {
            messages: page.entries.iter().map(received).collect(),
            gap: page.gap.map(|missed| missed.0),
            position: Position::new([page.end]),
            has_more: page.more,
        }
    }
}
