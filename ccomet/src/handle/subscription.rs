//! Subscriptions from inside: to a closure, or to a bounded queue.

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

/// Where a subscription starts in its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Latest,
    /// With the oldest message that each channel keeps.
    Oldest,
    /// Where an earlier reader of the same channels was, of this process or a client.
    After(Position),
}

impl Start {
    /// Returns where it is in each of so many channels.
    pub(super) fn in_each(&self, channels: usize) -> Result<Vec<hub::Start>, HandleError> {
        match self {
            Self::Latest => Ok(vec![hub::Start::Latest; channels]),
            Self::Oldest => Ok(vec![hub::Start::Oldest; channels]),
            Self::After(position) if position.spots().len() == channels => {
                Ok(position.spots().iter().copied().map(hub::Start::After).collect())
            }
            Self::After(_) => Err(HandleError::BadPosition),
        }
    }
}

/// What a subscription tells. The last three end it: nothing comes after them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It has begun: what is published from here on is told. Always the first, unless it ends
    /// before.
    Started {
        /// Where it begins.
        position: Position,
    },
    /// A message.
    Message(Received),
    /// Messages are lost: the channel does not keep any more what this reader has yet to get, or
    /// starts after.
    Gap {
        /// The channel, or pattern of channels.
        channel: Arc<str>,
        /// How many, if that is known.
        missed: Option<u64>,
        /// Where the reader is behind the gap, in all of its channels.
        position: Position,
    },
    /// A channel was closed, and the subscription with it. Subscribing again makes the channel
    /// anew.
    Closed {
        /// The channel, or pattern of channels.
        channel: Arc<str>,
    },
    /// It cannot be: a limit of the server does not allow it.
    Refused(HandleError),
    /// The server goes down.
    ShuttingDown,
}

impl Event {
    /// Returns whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Refused(_) | Self::ShuttingDown)
    }
}

/// A subscription from inside. It ends when this is dropped: a call of its closure that is under
/// way goes on, and no other follows.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    mailbox: Mailbox<LoopMessage>,
    is_wanted: Arc<AtomicBool>,
    is_detached: bool,
}

impl Subscription {
    /// Lets it go on until it ends by itself: with one of its channels, or with the server.
    pub fn detach(mut self) {
        self.is_detached = true;
    }

    /// Says that there is room for events again. Returns whether the loop will hear of it.
    pub(super) fn resume(&self) -> bool {
        self.mailbox.post(HandleRequest::Resume(self.id).into()).is_ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.is_detached {
            return;
        }
        // If the mailbox is full, the loop sees this when it sweeps.
        self.is_wanted.store(false, Ordering::Release);
        let _ = self.mailbox.post(HandleRequest::Unsubscribe(self.id).into());
    }
}

/// A subscription, as its loop holds it.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) id: u64,
    /// The channels, sorted by name, none twice, and where to start in each.
    pub(crate) channels: Vec<(ChannelName, hub::Start)>,
    target: Target,
    is_wanted: Arc<AtomicBool>,
}

/// Where its events go to.
pub(super) enum Target {
    Closure(Box<dyn FnMut(Event) + Send>),
    Queue(Arc<Queue>),
}

impl Reader {
    /// Creates a subscription, and what its loop holds of it.
    pub(super) fn new(
        id: u64,
        mailbox: Mailbox<LoopMessage>,
        channels: Vec<(ChannelName, hub::Start)>,
        target: Target,
    ) -> (Self, Subscription) {
        let is_wanted = Arc::new(AtomicBool::new(true));
        let subscription = Subscription { id, mailbox, is_wanted: is_wanted.clone(), is_detached: false };
        (Self { id, channels, target, is_wanted }, subscription)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// Returns whether there is room for an event now. If not, the subscription notifies the loop once there is.
    pub(crate) fn has_room(&self) -> bool {
        match &self.target {
            Target::Closure(_) => true,
            Target::Queue(queue) => queue.has_room(),
        }
    }

    /// Tells an event. For the last one there is always room.
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
