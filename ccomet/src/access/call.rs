//! The description of what a call needs. Tokens, rules, limits by address, sizes, forgery checks
//! and webhooks use the description instead of the call. Otherwise the kind of a call matters only
//! to the dispatcher, to the form of a refusal ([`Call::into_subscription`]), and to a request
//! whose body has not arrived yet (`protocols/route.rs`).

use sealed::fault;

use crate::core::message::{ChannelName, Draft};
use crate::core::tally::PublishApi;
use crate::hub::{StartAt, SubscribeRequest};
use crate::protocols::call::{Call, ReplyTo};
use crate::protocols::icomet::request as icomet;
use crate::protocols::native::publication::AddressedDraft;
use crate::protocols::{self, Exposure};

/// What a call needs.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    pub(crate) audience: Audience,
    reads: Reads<'a>,
    writes: Writes<'a>,
    /// Whether permission to see a channel's members suffices instead of permission to read it.
    pub(crate) is_about_members: bool,
    pub(crate) cost: Cost,
    /// The API and the number of the messages that it publishes, for the metrics.
    pub(crate) publishes: Option<(PublishApi, usize)>,
    /// Whether a page of any origin could make a browser send it with its user's cookie, with an
    /// effect: a publication, or a reply that scripts can read. Browsers hide other replies from
    /// such pages.
    pub(crate) is_forgeable: bool,
    /// The origin whose pages receive what is read, if it is not the server's own.
    pub(crate) listener: Option<&'a str>,
    /// The script function to which a refusal is passed, if the client asks for one.
    pub(crate) callback: Option<&'a str>,
    pub(crate) course: Course,
}

/// The clients that may do a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All clients, whatever their tokens grant.
    Everybody,
    /// Clients of the front that have permission by tokens and rules, and the admin listener.
    Granted,
    /// The clients of `Granted`, unless the channel has a token of its own, which replaces their
    /// permission.
    GrantedByChannel,
    /// The admin listener alone.
    Admin,
}

/// What a call counts for against the limits by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cost {
    Nothing,
    Subscribe,
    /// This number of publications.
    Publish(usize),
}

/// The course of an allowed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// One answer.
    Answer,
    /// Messages as they are published.
    Messages,
    /// Messages as they are published, while the client may send further commands.
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
    From(&'a [(ChannelName, StartAt)]),
}

#[derive(Debug, Clone, Copy)]
enum Writes<'a> {
    Nothing,
    One(Write<'a>),
    All(&'a [AddressedDraft]),
}

impl<'a> Access<'a> {
    /// Describes a call that needs no permission.
    fn free() -> Self {
        Self {
            audience: Audience::Everybody,
            reads: Reads::Nothing,
            writes: Writes::Nothing,
            is_about_members: false,
            cost: Cost::Nothing,
            publishes: None,
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
    pub(crate) fn subscribing(subscription: &'a SubscribeRequest) -> Self {
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
        Self {
            audience: Audience::Granted,
            writes,
            cost: Cost::Publish(count),
            publishes: Some((PublishApi::Native, count)),
            is_forgeable: true,
            ..Self::free()
        }
    }

    /// Describes a single message that is published on a WebSocket.
    pub(crate) fn publishing(channel: &'a ChannelName, draft: &'a Draft) -> Self {
        Self::writing(Writes::One(write(channel, draft)), 1)
    }

    /// Returns the channels, or patterns of channels, that it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &'a ChannelName> + use<'a> {
        let (one, all, from): (_, &[ChannelName], &[(ChannelName, StartAt)]) = match self.reads {
            Reads::Nothing => (None, &[], &[]),
            Reads::One(channel) => (Some(channel), &[], &[]),
            Reads::All(channels) => (None, channels, &[]),
            Reads::From(channels) => (None, &[], channels),
        };
        one.into_iter().chain(all).chain(from.iter().map(|(channel, _)| channel))
    }

    /// Returns the messages that it publishes.
    pub(crate) fn writes(&self) -> impl Iterator<Item = Write<'a>> + use<'a> {
        let (one, all): (_, &[AddressedDraft]) = match self.writes {
            Writes::Nothing => (None, &[]),
            Writes::One(write) => (Some(write), &[]),
            Writes::All(publications) => (None, publications),
        };
        one.into_iter().chain(all.iter().map(|publication| write(&publication.channel, &publication.draft)))
    }

    /// Returns whether it reads or publishes in all channels of a pattern.
    pub(crate) fn has_pattern(&self) -> bool {
        self.reads().any(ChannelName::is_pattern) || self.writes().any(|write| write.channel.is_pattern())
    }
}

fn write<'a>(channel: &'a ChannelName, draft: &'a Draft) -> Write<'a> {
    Write { channel, bytes: draft.payload.len(), draft: Some(draft) }
}

impl Call {
    /// Describes what the call needs. This is the one place for all kinds of calls.
    pub(crate) fn access(&self) -> Access<'_> {
        match self {
            Self::Publish { channel, draft, reply } => {
                let callback = if let ReplyTo::Native { callback, .. } = reply { callback.as_deref() } else { None };
                let api = if let ReplyTo::V1 { .. } = reply { PublishApi::Classic } else { PublishApi::Native };
                let publishes = Some((api, 1));
                Access { publishes, callback, ..Access::writing(Writes::One(write(channel, draft)), 1) }
            }
            Self::PublishAll { publications } => Access::writing(Writes::All(publications), publications.len()),
            Self::Subscribe { subscription, .. } => Access::subscribing(subscription),
            // No browser hides the messages of a WebSocket from a page.
            Self::Socket { subscription, .. } => {
                Access { is_forgeable: true, course: Course::Conversation, ..Access::subscribing(subscription) }
            }
            // The sign-in is sent to all readers of the channel.
            Self::Sign { channel, .. } => Access { is_forgeable: true, ..Access::reading(Reads::One(channel)) },
            Self::Read { channel, .. } => Access::reading(Reads::One(channel)),
            Self::Who { channel } => Access { is_about_members: true, ..Access::reading(Reads::One(channel)) },
            Self::Probe { .. } if fault!("head-open-to-all") => Access::free(),
            Self::Probe { channels } => Access::reading(Reads::All(channels)),
            Self::Delete { .. } | Self::Clear { .. } | Self::Inspect { .. } | Self::List { .. } | Self::Reload => {
                Access::admin()
            }
            Self::File { .. } | Self::Preflight { .. } => Access::free(),
            Self::Icomet(call) => call.access(),
        }
    }

    /// Returns the subscription of a refused call: its format determines the form of the answer.
    pub(crate) fn into_subscription(self) -> Option<SubscribeRequest> {
        match self {
            Self::Subscribe { subscription, .. } | Self::Icomet(icomet::IcometCall::Subscribe { subscription, .. }) => {
                Some(subscription)
            }
            _ => None,
        }
    }
}

impl icomet::IcometCall {
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
                let publishes = Some((PublishApi::Icomet, 1));
                Access { writes: Writes::One(write), publishes, ..Access::admin() }
            }
            Self::Broadcast { .. } => Access { publishes: Some((PublishApi::Icomet, 1)), ..Access::admin() },
            Self::Sign { .. }
            | Self::Close { .. }
            | Self::Clear { .. }
            | Self::Info { .. }
            | Self::Check { .. }
            | Self::Watch => Access::admin(),
            Self::Ping { .. } => Access::free(),
        }
    }
}
