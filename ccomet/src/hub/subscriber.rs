//! Subscribers of channels: each is a cursor, and little else.

use std::ops::BitOr;
use std::sync::Arc;

use sealed::ConnectionId;

use super::channel::Channel;
use super::encoder::{Encoder, Format, Label};
use crate::core::message::ChannelName;
use crate::core::owner::Owner;
use crate::core::position::Spot;
use crate::engine::Claim;

/// A client's request to subscribe.
#[derive(Debug)]
pub(crate) struct SubscribeRequest {
    /// The channels, sorted by name and without duplicates, and the start in each. There are none
    /// for a connection to which labelled subscriptions are added later.
    pub(crate) channels: Vec<(ChannelName, StartAt)>,
    pub(crate) delivery: Delivery,
    /// Set for a poll that does not wait: it is answered even if there is nothing for it.
    pub(crate) answer_at_once: bool,
    /// The name of the reader, if it is known: this member is present in the channels while the
    /// subscription lasts.
    pub(crate) member: Option<Arc<str>>,
    /// The owner of the channels that are created for this subscription.
    pub(crate) owner: Owner,
    /// Its label, if it is added to a connection that has a subscriber already.
    pub(crate) label: Option<Label>,
}

impl SubscribeRequest {
    /// Creates a subscription without a member, an owner and a label.
    pub(crate) fn new(channels: Vec<(ChannelName, StartAt)>, delivery: Delivery) -> Self {
        Self { channels, delivery, answer_at_once: false, member: None, owner: Owner::default(), label: None }
    }
}

/// The form in which a client receives messages.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) format: Format,
    /// What the client named for its protocol to address, such as a function or an origin. Never
    /// empty.
    pub(crate) target: Option<Box<str>>,
    /// The name under which the subscriber waits. One subscriber of a channel can hold it at a
    /// time.
    pub(crate) name: Option<Arc<str>>,
    /// The number of its first heartbeat.
    pub(crate) beats: i32,
}

impl Delivery {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, target: None, name: None, beats: 0 }
    }
}

/// The place where a subscription starts in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartAt {
    /// The next message published.
    Latest,
    /// The oldest message kept.
    Oldest,
    /// So many messages before the next one.
    Last(u64),
    /// The spot where an earlier subscription ended.
    After(Spot),
    /// The message of that number, as the protocol counts, in any epoch: see [`Encoder::resolve`].
    ///
    /// [`Encoder::resolve`]: super::Encoder::resolve
    Number(u64),
}

/// A subscriber. The struct has all that a stream of one channel needs; state that few subscribers
/// need is in a box.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) peer: ConnectionId,
    /// The number of the next message that it needs.
    pub(super) cursor: u64,
    /// The key of its only channel; `MANY` if the box holds the channels, because they are several
    /// or the subscriber has not started.
    channel: u32,
    /// Its index in the channel's list.
    place: u32,
    pub(super) details: Option<Box<SubscriberDetails>>,
    /// The number of its next heartbeat.
    pub(super) beats: i32,
    pub(super) format: Format,
    flags: Flags,
}

const _: () = assert!(size_of::<Subscriber>() <= 40 && size_of::<Option<Subscriber>>() <= 40);

const MANY: u32 = u32::MAX;

/// The state of polls, of subscribers of several channels, and of all that have not started.
#[derive(Debug, Default)]
pub(super) struct SubscriberDetails {
    pub(super) cursors: Vec<ChannelCursor>,
    pub(super) answer_at_once: bool,
    /// The index of the channel whose turn is next.
    pub(super) turn: u8,
    /// What the client named for its protocol to address.
    pub(super) target: Option<Box<str>>,
    pub(super) name: Option<Arc<str>>,
    pub(super) claim: Option<Claim>,
    pub(super) member: Option<Arc<str>>,
    pub(super) owner: Owner,
    pub(super) label: Option<Label>,
}

/// The place of a subscriber in one of its channels.
#[derive(Debug)]
pub(super) struct ChannelCursor {
    pub(super) channel: u32,
    pub(super) place: u32,
    /// The number of the next message that it needs.
    pub(super) next: u64,
    /// The requested start; `None` once the subscriber has started.
    pub(super) start: Option<StartAt>,
    /// The number of the `CatchUp` order that must be answered before the start; 0 for none.
    pub(super) syncs: u32,
    /// Set for a poll that asked for the oldest message kept: messages that are dropped before it
    /// gets a position are not missed.
    pub(super) is_from_oldest: bool,
}

impl ChannelCursor {
    /// Returns whether its start is beyond what this loop knows of its channel.
    pub(super) fn is_behind(&self, channel: &Channel, encoder: &dyn Encoder) -> bool {
        self.start.is_some_and(|start| channel.is_behind(start, encoder))
    }
}

impl Subscriber {
    pub(super) fn new(peer: ConnectionId, format: Format, beats: i32, details: SubscriberDetails) -> Self {
        let details = Some(Box::new(details));
        Self { peer, cursor: 0, channel: MANY, place: 0, details, beats, format, flags: Flags(0) }
    }

    /// Drops the parts of the box that are not needed any more. Only a stream of one channel that
    /// has its connection to itself needs none but its member.
    pub(super) fn slim(&mut self) {
        let Some(details) = &mut self.details else { return };
        let may_slim = self.format.is_stream() && details.label.is_none();
        if let ([cursor], true) = (details.cursors.as_slice(), may_slim) {
            (self.channel, self.place, self.cursor) = (cursor.channel, cursor.place, cursor.next);
            details.cursors = Vec::new();
            if details.member.is_none() {
                self.details = None;
            }
        }
    }

    /// Returns what the client named for its protocol to address.
    pub(super) fn target(&self) -> Option<&str> {
        self.details.as_ref().and_then(|details| details.target.as_deref())
    }

    /// Returns its label, if it was added to a connection.
    pub(super) fn label(&self) -> Option<Label> {
        self.details.as_ref().and_then(|details| details.label)
    }

    pub(super) fn cursors_mut(&mut self) -> &mut [ChannelCursor] {
        self.details.as_mut().map_or(&mut [], |details| &mut details.cursors)
    }

    pub(super) fn cursors(&self) -> &[ChannelCursor] {
        self.details.as_ref().map_or(&[], |details| &details.cursors)
    }

    /// Returns the index of the channel whose turn it is, and advances the turn.
    pub(super) fn take_turn(&mut self) -> usize {
        let Some(details) = &mut self.details else { return 0 };
        let index = usize::from(details.turn) % details.cursors.len().max(1);
        // A subscription has at most 255 channels.
        details.turn = (index + 1) as u8;
        index
    }

    /// Returns the key of its channel, if the subscriber is a stream of one channel that has
    /// started.
    pub(super) fn only_channel(&self) -> Option<u32> {
        (self.channel != MANY).then_some(self.channel)
    }

    /// Returns the key of its channel number `index`, and its place in that channel's list.
    pub(super) fn place(&self, index: usize) -> Option<(u32, u32)> {
        match &self.details {
            Some(details) if self.channel == MANY => {
                details.cursors.get(index).map(|cursor| (cursor.channel, cursor.place))
            }
            _ => (index == 0).then_some((self.channel, self.place)),
        }
    }

    pub(super) fn set_place(&mut self, channel: u32, place: u32) {
        if self.channel == channel {
            self.place = place;
        } else if let Some(cursor) = self.cursors_mut().iter_mut().find(|cursor| cursor.channel == channel) {
            cursor.place = place;
        }
    }

    /// Moves its cursor in a channel to message `next`.
    pub(super) fn set_cursor(&mut self, channel: u32, next: u64) {
        if self.channel == channel {
            self.cursor = next;
        } else if let Some(cursor) = self.cursors_mut().iter_mut().find(|cursor| cursor.channel == channel) {
            cursor.next = next;
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

/// The state of a subscriber, one bit for each flag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags(u8);

impl Flags {
    /// All its channels are open, and it has a cursor in each.
    pub(super) const STARTED: Self = Self(1);
    /// The kernel has not accepted all that was sent to it.
    pub(super) const BLOCKED: Self = Self(1 << 1);
    /// Something was sent since the last heartbeat was due.
    pub(super) const SPOKEN: Self = Self(1 << 2);
    /// `Hub::dirty_many` lists it.
    pub(super) const DIRTY: Self = Self(1 << 3);
    /// Its connection has other subscribers, which take turns with it.
    pub(super) const SHARES: Self = Self(1 << 4);
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
