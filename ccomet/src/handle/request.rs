//! What handles say to loops, beside what loops say to each other.

use std::fmt;

use super::subscription::Reader;
use super::{HandleError, Pending};
use crate::core::message::{ChannelName, Draft};
use crate::core::one_or_more::OneOrMore;
use crate::core::owner::Owner;
use crate::core::pattern::Pattern;
use crate::core::time::UnixMillis;
use crate::engine::{BroadcastOrder, Mail, Reply, Request};

/// A message to a loop.
#[derive(Debug)]
pub(crate) enum LoopMessage {
    /// Of another loop.
    Engine(Mail),
    /// Of a handle. Boxed, for most mail is smaller.
    Handle(Box<HandleRequest>),
}

impl From<Mail> for LoopMessage {
    fn from(mail: Mail) -> Self {
        Self::Engine(mail)
    }
}

impl TryFrom<LoopMessage> for Mail {
    type Error = LoopMessage;

    fn try_from(message: LoopMessage) -> Result<Self, LoopMessage> {
        match message {
            LoopMessage::Engine(mail) => Ok(mail),
            LoopMessage::Handle(_) => Err(message),
        }
    }
}

impl From<HandleRequest> for LoopMessage {
    fn from(request: HandleRequest) -> Self {
        Self::Handle(Box::new(request))
    }
}

/// What a handle wants of a loop.
#[derive(Debug)]
pub(crate) enum HandleRequest {
    /// To have the engine asked.
    Ask { deed: Deed, asker: Asker },
    /// To begin a subscription.
    Subscribe(Reader),
    /// To go on with one, which has room for events again.
    Resume(u64),
    /// To end one.
    Unsubscribe(u64),
}

/// What the engine is asked.
#[derive(Debug)]
pub(crate) enum Deed {
    Publish {
        channel: ChannelName,
        draft: Draft,
    },
    Broadcast {
        pattern: Pattern,
        draft: Draft,
    },
    /// What has no time in it.
    Other(Request),
}

impl Deed {
    /// Makes it a request of that time. A handle is counted as the owner of nothing, and may reach
    /// any number of channels, as the admin listener may.
    pub(crate) fn into_request(self, time: UnixMillis) -> Request {
        let owner = Owner::default();
        match self {
            Self::Publish { channel, draft } => {
                Request::Publish { channel, messages: OneOrMore::one(draft.taken_at(time)), owner }
            }
            Self::Broadcast { pattern, draft } => {
                let message = draft.taken_at(time);
                Request::Broadcast(BroadcastOrder { pattern, message, reach_max: usize::MAX, owner })
            }
            Self::Other(request) => request,
        }
    }
}

/// The handle behind a request to the engine.
pub(crate) struct Asker(Box<dyn FnOnce(Result<Reply, HandleError>) + Send>);

impl Asker {
    /// Creates one that gets what `convert` makes of the reply; `None` for one of another kind than
    /// was asked for.
    pub(super) fn new<T: Send + 'static>(
        convert: impl FnOnce(Reply) -> Option<Result<T, HandleError>> + Send + 'static,
    ) -> (Self, Pending<T>) {
        let (promise, pending) = Pending::new();
        let answer = move |outcome: Result<Reply, HandleError>| {
            promise.give(outcome.and_then(|reply| convert(reply).unwrap_or(Err(HandleError::Unavailable))));
        };
        (Self(Box::new(answer)), pending)
    }

    pub(crate) fn answer(self, outcome: Result<Reply, HandleError>) {
        (self.0)(outcome);
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker(..)")
    }
}
