//! Subscriptions from inside the process: with a closure, or with a bounded queue.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealed::Mailbox;

use super::HandleError;
use super::events::Queue;
use super::message::{Position, Received};
use super::request::{HandleRequest, LoopMessage};
use crate::core::message::ChannelName;
use crate::hub;

/// The start of a subscription in its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With messages that are published from now on.
    Latest,
    /// With the oldest message that each channel keeps.
    Oldest,
    /// At the position of an earlier reader of the same channels: of this process, or of a client.
    After(Position),
}

impl Start {
    /// Returns the start in each of `channels` channels.
    pub(super) fn in_each(&self, channels: usize) -> Result<Vec<hub::StartAt>, HandleError> {
        match self {
            Self::Latest => Ok(vec![hub::StartAt::Latest; channels]),
            Self::Oldest => Ok(vec![hub::StartAt::Oldest; channels]),
            Self::After(position) if position.spots().len() == channels => {
                Ok(position.spots().iter().copied().map(hub::StartAt::After).collect())
            }
            Self::After(_) => Err(HandleError::BadPosition),
        }
    }
}

/// An event of a subscription. After [`Closed`](Self::Closed), [`Refused`](Self::Refused) and
/// [`ShuttingDown`](Self::ShuttingDown) no further events follow: see [`is_last`](Self::is_last).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The subscription has started: messages from this position on are delivered. It is always the
    /// first event, unless the subscription ends before.
    Started {
        /// The position of the start.
        position: Position,
    },
    /// A message.
    Message(Received),
    /// Messages are lost: the channel no longer keeps the next messages of this reader.
    Gap {
        /// The channel, or pattern of channels.
        channel: Arc<str>,
        /// The number of lost messages, if it is known.
        missed: Option<u64>,
        /// The position of the reader after the gap, in all of its channels.
        position: Position,
    },
    /// A channel was closed, which ends the subscription. A new subscription creates the channel
    /// anew.
    Closed {
        /// The channel, or pattern of channels.
        channel: Arc<str>,
    },
    /// A limit of the server does not allow the subscription.
    Refused(HandleError),
    /// The server is shutting down.
    ShuttingDown,
}

impl Event {
    /// Returns whether no further events follow.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Refused(_) | Self::ShuttingDown)
    }
}

/// A subscription from inside the process. It ends when this is dropped: a running call of its
/// closure continues, and no further call follows.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    mailbox: Mailbox<LoopMessage>,
    is_wanted: Arc<AtomicBool>,
    is_detached: bool,
}

impl Subscription {
    /// Keeps the subscription until it ends by itself: with one of its channels, or with the
    /// server.
    pub fn detach(mut self) {
        self.is_detached = true;
    }

    /// Notifies the loop that there is room for events again. Returns whether the notice was sent.
    pub(super) fn resume(&self) -> bool {
        self.mailbox.post(HandleRequest::Resume(self.id).into()).is_ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.is_detached {
            return;
        }
        // If the mailbox is full, a sweep of the loop finds the flag.
        self.is_wanted.store(false, Ordering::Release);
        let _ = self.mailbox.post(HandleRequest::Unsubscribe(self.id).into());
    }
}

/// The loop's part of a subscription.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) id: u64,
    /// The channels, sorted by name and without duplicates, with the start in each.
    pub(crate) channels: Vec<(ChannelName, hub::StartAt)>,
    target: Target,
    is_wanted: Arc<AtomicBool>,
}

/// The destination of its events.
pub(super) enum Target {
    Closure(Box<dyn FnMut(Event) + Send>),
    Queue(Arc<Queue>),
}

impl Reader {
    /// Creates a subscription, and its loop's part.
    pub(super) fn new(
        id: u64,
        mailbox: Mailbox<LoopMessage>,
        channels: Vec<(ChannelName, hub::StartAt)>,
        target: Target,
    ) -> (Self, Subscription) {
        let is_wanted = Arc::new(AtomicBool::new(true));
        let subscription = Subscription { id, mailbox, is_wanted: is_wanted.clone(), is_detached: false };
        (Self { id, channels, target, is_wanted }, subscription)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// Returns whether there is room for an event. If there is none, the subscription notifies the
    /// loop as soon as there is.
    pub(crate) fn has_room(&self) -> bool {
        match &self.target {
            Target::Closure(_) => true,
            Target::Queue(queue) => queue.has_room(),
        }
    }

    /// Delivers an event. There is always room for the last one.
    pub(crate) fn tell(&mut self, event: Event) {
        match &mut self.target {
            Target::Closure(f) => f(event),
            Target::Queue(queue) => queue.push(event),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Target::Queue(queue) = &self.target {
            queue.end();
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Closure(_)) { "Closure(..)" } else { "Queue(..)" })
    }
}
