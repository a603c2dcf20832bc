//! What a call needs, in one description. Tokens, rules, limits by address, sizes, forgery and webhooks read it and not
//! the call. Beside it, the kind of a call matters to the dispatcher, to the form of a refusal
//! ([`Call::into_subscription`]), and to a request whose body has not come yet (`protocols/route.rs`).

use sealed::fault;

use crate::core::message::{ChannelName, Draft};
use crate::hub::{Start, Subscription};
use crate::protocols::call::{Call, ReplyTo};
use crate::protocols::icomet::request as icomet;
use crate::protocols::native::publication::Publication;
use crate::protocols::{self, Exposure};

/// What a call needs.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    pub(crate) audience: Audience,
    reads: Reads<'a>,
    writes: Writes<'a>,
    /// Whether leave to see a channel's members does as well as leave to read the channel.
    pub(crate) is_about_members: bool,
    pub(crate) cost: Cost,
    /// Whether a page of any origin could make a browser do it with its user's cookie, to an effect: a publication, or a reply that
    /// scripts can read. Browsers keep other replies from such pages.
    pub(crate) is_forgeable: bool,
    /// The origin whose pages are handed what is read, if that is not the server's own.
    pub(crate) listener: Option<&'a str>,
    /// The script function that a refusal is an argument of, if the client asks for one.
    pub(crate) callback: Option<&'a str>,
    pub(crate) course: Course,
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Everybody, whatever tokens grant.
    Everybody,
    /// Clients of the front to whom tokens and rules grant it, and the admin listener.
    Granted,
    /// The same, where the channel may have a token of its own instead.
    GrantedByChannel,
    /// The admin listener alone.
    Admin,
}

/// What a call counts for against the limits by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cost {
    Nothing,
    Subscribe,
    /// So many publications.
    Publish(usize),
}

/// What comes of a call that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// One answer.
    Answer,
    /// Messages, as they come.
    Messages,
    /// The same, while the client may say more.
    Conversation,
}

/// A message that a call publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write<'a> {
    pub(crate) channel: &'a ChannelName,
    pub(crate) bytes: usize,
    /// The message, if the back end may be asked about it.
    pub(crate) draft: Option<&'a Draft>,
}

#[derive(Debug, Clone, Copy)]
enum Reads<'a> {
    Nothing,
    One(&'a ChannelName),
    All(&'a [ChannelName]),
    From(&'a [(ChannelName, Start)]),
}

#[derive(Debug, Clone, Copy)]
enum Writes<'a> {
    Nothing,
    One(Write<'a>),
    All(&'a [Publication]),
}

impl<'a> Access<'a> {
    /// Describes what needs nobody's leave.
    fn free() -> Self {
        Self {
            audience: Audience::Everybody,
            reads: Reads::Nothing,
            writes: Writes::Nothing,
            is_about_members: false,
            cost: Cost::Nothing,
            is_forgeable: false,
            listener: None,
            callback: None,
            course: Course::Answer,
        }
    }

    fn admin() -> Self {
        Self { audience: Audience::Admin, ..Self::free() }
    }

    fn reading(reads: Reads<'a>) -> Self {
        Self { audience: Audience::Granted, reads, cost: Cost::Subscribe, ..Self::free() }
    }

    /// Describes a subscription.
    pub(crate) fn subscribing(subscription: &'a Subscription) -> Self {
        let delivery = &subscription.delivery;
        let Exposure { is_script, listener, callback } = protocols::of(delivery.format).exposure(delivery);
        Self {
            is_forgeable: is_script,
            listener,
            callback,
            course: Course::Messages,
            ..Self::reading(Reads::From(&subscription.channels))
        }
    }

    fn writing(writes: Writes<'a>, count: usize) -> Self {
        Self { audience: Audience::Granted, writes, cost: Cost::Publish(count), is_forgeable: true, ..Self::free() }
    }

    /// Describes a message that is published by itself, on a WebSocket.
    pub(crate) fn publishing(channel: &'a ChannelName, draft: &'a Draft) -> Self {
        Self::writing(Writes::One(write(channel, draft)), 1)
    }

    /// Returns the channels that it reads, or patterns of channels.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &'a ChannelName> + use<'a> {
        let (one, all, from): (_, &[ChannelName], &[(ChannelName, Start)]) = match self.reads {
            Reads::Nothing => (None, &[], &[]),
            Reads::One(channel) => (Some(channel), &[], &[]),
            Reads::All(channels) => (None, channels, &[]),
            Reads::From(channels) => (None, &[], channels),
        };
        one.into_iter().chain(all).chain(from.iter().map(|(channel, _)| channel))
    }

    /// Returns the messages that it publishes.
    pub(crate) fn writes(&self) -> impl Iterator<Item = Write<'a>> + use<'a> {
        let (one, all): (_, &[Publication]) = match self.writes {
            Writes::Nothing => (None, &[]),
            Writes::One(write) => (Some(write), &[]),
            Writes::All(publications) => (None, publications),
        };
        one.into_iter().chain(all.iter().map(|publication| write(&publication.channel, &publication.draft)))
    }

    /// Whether it reads or publishes in all channels of a pattern.
    pub(crate) fn has_pattern(&self) -> bool {
        self.reads().any(ChannelName::is_pattern) || self.writes().any(|write| write.channel.is_pattern())
    }
}

fn write<'a>(channel: &'a ChannelName, draft: &'a Draft) -> Write<'a> {
    Write { channel, bytes: draft.payload.len(), draft: Some(draft) }
}

impl Call {
    /// Describes what the call needs. Every kind of call says it here.
    pub(crate) fn access(&self) -> Access<'_> {
        match self {
            Self::Publish { channel, draft, reply } => {
                let callback = if let ReplyTo::Native { callback, .. } = reply { callback.as_deref() } else { None };
                Access { callback, ..Access::writing(Writes::One(write(channel, draft)), 1) }
            }
            Self::PublishAll { publications } => Access::writing(Writes::All(publications), publications.len()),
            Self::Subscribe { subscription, .. } => Access::subscribing(subscription),
            // No browser keeps a page from reading what a WebSocket says.
            Self::Socket { subscription, .. } => {
                Access { is_forgeable: true, course: Course::Conversation, ..Access::subscribing(subscription) }
            }
            // The sign-in is sent to all readers of the channel.
            Self::Sign { channel, .. } => Access { is_forgeable: true, ..Access::reading(Reads::One(channel)) },
            Self::Read { channel, .. } => Access::reading(Reads::One(channel)),
            Self::Who { channel } => Access { is_about_members: true, ..Access::reading(Reads::One(channel)) },
            Self::Probe { .. } if fault!("head-open-to-all") => Access::free(),
            Self::Probe { channels } => Access::reading(Reads::All(channels)),
            Self::Delete { .. } | Self::Clear { .. } | Self::Inspect { .. } | Self::List { .. } => Access::admin(),
            Self::File { .. } | Self::Preflight { .. } => Access::free(),
            Self::Icomet(call) => call.access(),
        }
    }

    /// Returns the subscription of a call that is refused: its format decides the form of the answer.
    pub(crate) fn into_subscription(self) -> Option<Subscription> {
        match self {
            Self::Subscribe { subscription, .. } | Self::Icomet(icomet::Call::Subscribe { subscription, .. }) => {
                Some(subscription)
            }
            _ => None,
        }
    }
}

impl icomet::Call {
    fn access(&self) -> Access<'_> {
        match self {
            Self::Subscribe { subscription, .. } => {
                let access = Access::subscribing(subscription);
                let is_forgeable = access.is_forgeable && !fault!("cookies-read-icomet");
                Access { audience: Audience::GrantedByChannel, is_forgeable, listener: None, ..access }
            }
            Self::Publish { channel, payload, .. } => {
                let bytes = if fault!("icomet-message-not-measured") { 0 } else { payload.len() };
                let write = Write { channel, bytes, draft: None };
                Access { writes: Writes::One(write), ..Access::admin() }
            }
            Self::Broadcast { .. }
            | Self::Sign { .. }
            | Self::Close { .. }
            | Self::Clear { .. }
            | Self::Info { .. }
            | Self::Check { .. }
            | Self::Watch => Access::admin(),
            Self::Ping { .. } => Access::free(),
        }
    }
}
