//! What a channel carries, and what it is called.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sealed::fault;

use crate::core::pattern::Pattern;
use crate::core::position::Spot;
use crate::core::time::UnixMillis;
use crate::core::window::Kept;

/// The longest channel name, in bytes of UTF-8.
pub(crate) const CHANNEL_NAME_BYTES_MAX: usize = 128;

/// The end of the name of a channel that has the joins and leaves of another channel.
const PRESENCE: &str = ",presence";

/// A channel's name: 1 to 128 bytes of UTF-8 without control characters, `,` or `*`, and not `.` or `..`, which no
/// URL can hold as a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelName(Arc<str>);

/// What a channel is for, as its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChannelKind<'a> {
    /// It has what is published in it. No more is in its name.
    Named(&'a str),
    /// It has the joins and leaves of the channel of this name.
    Presence(&'a str),
    /// It gathers what is published in the channels of a pattern.
    Pattern(Pattern),
}

/// The name is not one a channel may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a channel's name is 1 to {CHANNEL_NAME_BYTES_MAX} bytes of UTF-8 without control characters, ',' or '*'")]
pub(crate) struct BadChannelName;

impl ChannelName {
    /// Checks a name.
    pub(crate) fn new(name: &str) -> Result<Self, BadChannelName> {
        let allowed = |c: char| !c.is_control() && c != ',' && c != '*';
        let sized = (1..=CHANNEL_NAME_BYTES_MAX).contains(&name.len());
        if !sized || matches!(name, "." | "..") || !name.chars().all(allowed) {
            return Err(BadChannelName);
        }
        Ok(Self(Arc::from(name)))
    }

    /// The channel that gathers what is published in those of a pattern. No other has a name with a `*`.
    pub(crate) fn of_pattern(pattern: &Pattern) -> Self {
        Self(Arc::from(pattern.as_str()))
    }

    /// Returns what the channel is for. This is the one place that reads it from the name; `is_pattern` and `is_presence` are
    /// for those who need to know one thing alone.
    pub(crate) fn kind(&self) -> ChannelKind<'_> {
        if let Some(pattern) = self.to_pattern() {
            return ChannelKind::Pattern(pattern);
        }
        self.0.strip_suffix(PRESENCE).map_or(ChannelKind::Named(&self.0), ChannelKind::Presence)
    }

    /// Whether it is the channel of a pattern.
    pub(crate) fn is_pattern(&self) -> bool {
        self.0.contains('*')
    }

    /// The channel that has the joins and leaves of this one. No other channel has a name with a `,`.
    pub(crate) fn of_presence(channel: &Self) -> Self {
        Self(format!("{channel}{PRESENCE}").into())
    }

    /// Whether it has the joins and leaves of another channel.
    pub(crate) fn is_presence(&self) -> bool {
        self.0.ends_with(PRESENCE)
    }

    /// The pattern, if it is the channel of one.
    pub(crate) fn to_pattern(&self) -> Option<Pattern> {
        if self.is_pattern() { Pattern::new(&self.0).ok() } else { None }
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// What its shard depends on: a channel and the one beside it have the same.
    fn shard_name(&self) -> &str {
        self.0.strip_suffix(PRESENCE).unwrap_or(&self.0)
    }

    /// The loop, of so many, on whose shard the channel is. The same in every process, for it depends on the
    /// name alone.
    pub(crate) fn shard(&self, loops: usize) -> usize {
        // FNV-1a: short names, no need to resist crafted ones beyond an uneven spread.
        let hash = self
            .shard_name()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        // The last bytes of a name have hardly reached the bits that are looked at: they are mixed, as `SplitMix64` does.
        let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((hash >> 32) % loops as u64) as usize
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One message, as it was published. Loops share it; nothing in it changes but its mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// What was published: any bytes.
    pub(crate) payload: Bytes,
    /// The name of the publisher, if its API has one (classic `sname`).
    pub(crate) sender: Option<Box<str>>,
    stamp: Stamp,
    /// What few messages have.
    pub(crate) extra: Option<Box<MessageExtra>>,
}

/// When the server took a message, and a mark: whether others may have the same payload in memory, so that it is
/// counted once for all of them. Once a shard has the message, that shard alone looks at the mark and sets it. The two
/// share a word, since there are many messages.
#[derive(Debug)]
struct Stamp(AtomicU64);

impl Stamp {
    fn new(time: UnixMillis) -> Self {
        Self(AtomicU64::new(time.as_millis().min(u64::MAX >> 1) << 1))
    }

    fn time(&self) -> UnixMillis {
        UnixMillis::from_millis(self.0.load(Ordering::Relaxed) >> 1)
    }

    fn is_shared(&self) -> bool {
        self.0.load(Ordering::Relaxed) & 1 == 1
    }

    fn share(&self) {
        self.0.fetch_or(1, Ordering::Relaxed);
    }
}

impl Clone for Stamp {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        self.0.load(Ordering::Relaxed) == other.0.load(Ordering::Relaxed)
    }
}

impl Eq for Stamp {}

/// The payload of a shared message, by its place in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SharedPayload {
    address: usize,
    pub(crate) length: usize,
}

/// A message that somebody wants to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) payload: Bytes,
    pub(crate) sender: Option<Box<str>>,
    /// What kind of message it is, in the publisher's own words.
    pub(crate) event: Option<Box<str>>,
    /// For how long it is delivered, in seconds.
    pub(crate) ttl_s: Option<u32>,
    /// Under which the same message is taken once in its channel.
    pub(crate) key: Option<Box<str>>,
}

impl Draft {
    /// The message, as the server takes it at that time.
    pub(crate) fn taken_at(self, time: UnixMillis) -> Message {
        let Self { payload, sender, event, ttl_s, key } = self;
        let expires = ttl_s.map(|ttl_s| time.plus(Duration::from_secs(u64::from(ttl_s))));
        let extra = MessageExtra { event, expires, key, ..MessageExtra::default() };
        let extra = (extra != MessageExtra::default()).then(|| Box::new(extra));
        Message { payload, sender, stamp: Stamp::new(time), extra }
    }
}

/// That somebody came into a channel, or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Movement {
    Join,
    Leave,
}

/// What few messages have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MessageExtra {
    /// What kind of message it is, in the publisher's own words.
    pub(crate) event: Option<Box<str>>,
    /// From when on it is delivered to nobody.
    pub(crate) expires: Option<UnixMillis>,
    /// Whether the message is a join or a leave.
    pub(crate) movement: Option<Movement>,
    /// Under which it was published.
    pub(crate) key: Option<Box<str>>,
    /// Whether it went to all channels at once.
    pub(crate) is_broadcast: bool,
    /// In the channel of a pattern: the channel that it was published in, and the spot behind it there.
    pub(crate) origin: Option<(ChannelName, Spot)>,
}

impl MessageExtra {
    fn cost(&self) -> usize {
        let length = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        size_of::<Self>() + length(&self.event) + length(&self.key)
    }
}

/// Memory that a kept message takes beside its payload and sender, roughly, in bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 96;

impl Message {
    /// Notes that others may have the same payload.
    pub(crate) fn share(&self) {
        self.stamp.share();
    }

    /// When the server took it.
    pub(crate) fn time(&self) -> UnixMillis {
        self.stamp.time()
    }

    pub(crate) fn is_broadcast(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.is_broadcast)
    }

    pub(crate) fn event(&self) -> Option<&str> {
        self.extra.as_ref()?.event.as_deref()
    }

    pub(crate) fn movement(&self) -> Option<Movement> {
        self.extra.as_ref()?.movement
    }

    /// Whether it says the same as another one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.payload == other.payload && self.event() == other.event()
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.extra.as_ref()?.key.as_deref()
    }

    /// Whether its time is over.
    pub(crate) fn is_expired(&self, now: UnixMillis) -> bool {
        let expires = self.extra.as_ref().and_then(|extra| extra.expires);
        expires.is_some_and(|expires| expires <= now)
    }

    /// Where it was published, if that is not the channel that it is read in.
    pub(crate) fn origin(&self) -> Option<(&ChannelName, Spot)> {
        let (channel, spot) = self.extra.as_ref()?.origin.as_ref()?;
        Some((channel, *spot))
    }

    pub(crate) fn extra_mut(&mut self) -> &mut MessageExtra {
        self.extra.get_or_insert_default()
    }

    /// What it counts for against a limit on bytes.
    pub(crate) fn cost(&self) -> usize {
        self.payload.len()
            + self.sender.as_ref().map_or(0, |sender| sender.len())
            + self.extra.as_ref().map_or(0, |extra| extra.cost())
            + MESSAGE_OVERHEAD_BYTES
    }
}

impl SharedPayload {
    /// The payload of a message, if it is shared. The place is that payload's for as long as anyone holds the message.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let (address, length) = (message.payload.as_ptr() as usize, message.payload.len());
        let is_shared = message.stamp.is_shared() && length > 0 && !fault!("shared-message-counted-in-each-channel");
        is_shared.then_some(Self { address, length })
    }
}

impl Kept for Arc<Message> {
    fn cost(&self) -> usize {
        Message::cost(self)
    }

    fn time(&self) -> UnixMillis {
        Message::time(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_their_ends_have_homes_on_all_loops() {
        for loops in [2, 3, 4, 8, 64] {
            let mut counts = vec![0; loops];
            for n in 0..100 * loops {
                counts[ChannelName::new(&format!("room-{n}")).expect("a name").shard(loops)] += 1;
            }
            assert!(counts.iter().all(|count| (60..=140).contains(count)), "{loops} loops: {counts:?}");
        }
    }

    #[test]
    fn names_are_checked_at_their_edges() {
        for good in ["a", "news", "a/b", "新闻", "a b", &"x".repeat(128)] {
            assert!(ChannelName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a,b", "news.*", "a\nb", "\u{7f}", &"x".repeat(129)] {
            assert_eq!(ChannelName::new(bad), Err(BadChannelName), "{bad:?}");
        }
    }
}
