//! Who reads channels: a cursor, and little else.

use std::ops::BitOr;
use std::sync::Arc;

use sealed::ConnectionId;

use crate::broker::{Claim, Owner};
use crate::message::ChannelName;
use crate::position::Spot;
use crate::protocols::format::stream_format::{Transport, Voice};

/// What a client asked for.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The channels, sorted by name, none twice, and where to start in each.
    pub(crate) channels: Vec<(ChannelName, Start)>,
    pub(crate) style: Style,
    /// A poll that does not wait: it is answered though there be nothing.
    pub(crate) answer_at_once: bool,
    /// Who reads, where that is known: he is present in the channels meanwhile.
    pub(crate) member: Option<Arc<str>>,
    /// Whose the channels are that are made for it.
    pub(crate) owner: Owner,
}

/// How a client wants to be told.
#[derive(Debug, Clone)]
pub(crate) enum Style {
    /// A stream of the native API. A page in a frame tells the pages of one origin, which is in `listener`.
    Stream { voice: Voice, listener: Box<str> },
    /// One reply of the native API, as JSON or as a call.
    Poll { callback: Option<Box<str>> },
    /// One reply of the classic API, to one who waits under a name.
    Classic { callback: Box<str>, name: Arc<str> },
    /// A stream of icomet's. `noop` is the number of its first sign of life.
    IcometStream { voice: Voice, noop: i32 },
    /// One reply of icomet's.
    IcometPoll { callback: Option<Box<str>>, noop: i32 },
}

impl Style {
    /// Whether it goes on after the first message.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream { .. } | Self::IcometStream { .. })
    }

    /// Returns whether it is Server-Sent Events, which a browser's `EventSource` reads.
    pub(crate) fn is_event_stream(&self) -> bool {
        let (Self::Stream { voice, .. } | Self::IcometStream { voice, .. }) = self else { return false };
        voice.transport == Transport::EventStream
    }

    /// Whether silence is broken as icomet does it.
    pub(crate) fn is_icomet(&self) -> bool {
        matches!(self, Self::IcometStream { .. } | Self::IcometPoll { .. })
    }

    /// Whether the reply is a script, which any page can load.
    pub(crate) fn is_script(&self) -> bool {
        matches!(self, Self::Classic { .. } | Self::Poll { callback: Some(_) } | Self::IcometPoll { .. })
    }

    /// Returns the origin that a page in a frame tells, where that is not the server's own.
    pub(crate) fn listener(&self) -> Option<&str> {
        match self {
            Self::Stream { listener, .. } if !listener.is_empty() => Some(listener),
            _ => None,
        }
    }

    /// Returns the callback that a native reply is wrapped in.
    pub(crate) fn callback(&self) -> Option<&str> {
        match self {
            Self::Poll { callback } => callback.as_deref(),
            _ => None,
        }
    }
}

/// Where to start in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With what is published from now on.
    Latest,
    /// With the oldest message kept.
    Oldest,
    /// So many messages back.
    Last(u64),
    /// Where an earlier subscription ended.
    After(Spot),
    /// With that number, whatever epoch it is from: the classic API knows none.
    Number(u64),
    /// With that number of icomet's.
    Seq(i32),
}

/// A subscriber. Of one channel, all it needs is here; what only few need is in a box.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) peer: ConnectionId,
    /// The number of the next message it needs.
    pub(super) cursor: u64,
    /// The one channel; `MANY` where the box holds several, or has not been looked at yet.
    channel: u32,
    /// Where it is in the channel's list.
    place: u32,
    pub(super) extra: Option<Box<Extra>>,
    /// How many signs of life it was sent, where they are counted.
    pub(super) beats: i32,
    pub(super) kind: Kind,
    flags: Flags,
}

const _: () = assert!(size_of::<Subscriber>() <= 40 && size_of::<Option<Subscriber>>() <= 40);

const MANY: u32 = u32::MAX;

/// What few subscribers need: polls, those of several channels, and any that has not started yet.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) parts: Vec<Part>,
    pub(super) answer_at_once: bool,
    /// The function that a poll's reply calls, or the origin that a page in a frame tells.
    pub(super) callback: Option<Box<str>>,
    pub(super) name: Option<Arc<str>>,
    pub(super) claim: Option<Claim>,
    pub(super) member: Option<Arc<str>>,
    pub(super) owner: Owner,
}

/// One of a subscriber's channels.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) channel: u32,
    pub(super) place: u32,
    pub(super) cursor: u64,
    /// Until it has started there.
    pub(super) start: Option<Start>,
    /// How many times the channel must have been brought up to date before it can.
    pub(super) syncs: u32,
}

/// How a subscriber is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stream(Voice),
    Poll,
    Classic,
    IcometPoll,
}

impl Kind {
    /// How it speaks, if it is a stream.
    pub(super) fn voice(self) -> Option<Voice> {
        match self {
            Self::Stream(voice) => Some(voice),
            Self::Poll | Self::Classic | Self::IcometPoll => None,
        }
    }

    /// Whether it is a poll of an API whose polls have one channel and words of their own.
    pub(super) fn is_poll_of_one(self) -> bool {
        matches!(self, Self::Classic | Self::IcometPoll)
    }
}

impl Extra {
    /// Takes over what a style brings with it. Returns the kind, the number of its first sign of life, and the name that
    /// it waits under.
    pub(super) fn set_style(&mut self, style: Style) -> (Kind, i32, Option<Arc<str>>) {
        match style {
            Style::Stream { voice, listener } => {
                self.callback = Some(listener).filter(|listener| !listener.is_empty());
                (Kind::Stream(voice), 0, None)
            }
            Style::Poll { callback } => {
                self.callback = callback;
                (Kind::Poll, 0, None)
            }
            Style::Classic { callback, name } => {
                self.callback = Some(callback);
                self.name = Some(name.clone());
                (Kind::Classic, 0, Some(name))
            }
            Style::IcometStream { voice, noop } => (Kind::Stream(voice), noop, None),
            Style::IcometPoll { callback, noop } => {
                self.callback = callback;
                (Kind::IcometPoll, noop, None)
            }
        }
    }
}

impl Subscriber {
    pub(super) fn new(peer: ConnectionId, kind: Kind, beats: i32, extra: Extra) -> Self {
        Self { peer, cursor: 0, channel: MANY, place: 0, extra: Some(Box::new(extra)), beats, kind, flags: Flags(0) }
    }

    /// Drops the box where nothing in it is needed any more: one channel, and a stream.
    pub(super) fn slim(&mut self) {
        let Some(extra) = &mut self.extra else { return };
        if let ([part], true) = (extra.parts.as_slice(), self.kind.voice().is_some()) {
            (self.channel, self.place, self.cursor) = (part.channel, part.place, part.cursor);
            extra.parts = Vec::new();
            if extra.member.is_none() {
                self.extra = None;
            }
        }
    }

    pub(super) fn parts(&mut self) -> &mut [Part] {
        self.extra.as_mut().map_or(&mut [], |extra| &mut extra.parts)
    }

    pub(super) fn parts_ref(&self) -> &[Part] {
        self.extra.as_ref().map_or(&[], |extra| &extra.parts)
    }

    /// Its one channel, if it has one and has started.
    pub(super) fn only_channel(&self) -> Option<u32> {
        (self.channel != MANY).then_some(self.channel)
    }

    /// Its channel number `index` and where it is in that channel's list.
    pub(super) fn place(&self, index: usize) -> Option<(u32, u32)> {
        match &self.extra {
            Some(extra) if self.channel == MANY => extra.parts.get(index).map(|part| (part.channel, part.place)),
            _ => (index == 0).then_some((self.channel, self.place)),
        }
    }

    pub(super) fn set_place(&mut self, channel: u32, place: u32) {
        if self.channel == channel {
            self.place = place;
        } else if let Some(part) = self.parts().iter_mut().find(|part| part.channel == channel) {
            part.place = place;
        }
    }

    pub(super) fn is(&self, flag: Flags) -> bool {
        self.flags.0 & flag.0 != 0
    }

    pub(super) fn set(&mut self, flag: Flags) {
        self.flags = self.flags | flag;
    }

    pub(super) fn clear(&mut self, flag: Flags) {
        self.flags.0 &= !flag.0;
    }
}

/// What is going on with a subscriber, a bit each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags(u8);

impl Flags {
    /// All its channels are here, and it has its place in them.
    pub(super) const STARTED: Self = Self(1);
    /// What it was sent last is not all with the kernel.
    pub(super) const BLOCKED: Self = Self(1 << 1);
    /// Something was sent since the last heartbeat was due.
    pub(super) const SPOKEN: Self = Self(1 << 2);
    /// In the list of those of several channels who have something to get.
    pub(super) const DIRTY: Self = Self(1 << 3);
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
