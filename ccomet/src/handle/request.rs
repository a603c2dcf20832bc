//! Messages from handles to loops, next to those between loops.

use std::fmt;

use super::subscription::Reader;
use super::{HandleError, Pending, ReloadMail};
use crate::core::message::{ChannelName, Draft};
use crate::core::one_or_more::OneOrMore;
use crate::core::owner::Owner;
use crate::core::pattern::Pattern;
use crate::core::time::UnixMillis;
use crate::engine::{BroadcastOrder, Mail, Reply, Request};

/// A message to a loop.
#[derive(Debug)]
pub(crate) enum LoopMessage {
    /// Mail from another loop.
    Engine(Mail),
    /// A request of a handle. It is boxed, since most mail is smaller.
    Handle(Box<HandleRequest>),
    /// A step of a reload of the settings.
    Reload(Box<ReloadMail>),
    /// The store has results.
    #[cfg_attr(not(any(feature = "disk", feature = "redis")), allow(dead_code))]
    StoreReady,
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
            LoopMessage::Handle(_) | LoopMessage::Reload(_) | LoopMessage::StoreReady => Err(message),
        }
    }
}

impl From<ReloadMail> for LoopMessage {
    fn from(mail: ReloadMail) -> Self {
        Self::Reload(Box::new(mail))
    }
}

impl From<HandleRequest> for LoopMessage {
    fn from(request: HandleRequest) -> Self {
        Self::Handle(Box::new(request))
    }
}

/// A request of a handle to a loop.
#[derive(Debug)]
pub(crate) enum HandleRequest {
    /// Sends a request to the engine.
    Ask { action: UntimedRequest, asker: HandleAsker },
    /// Starts a subscription.
    Subscribe(Reader),
    /// Resumes the subscription with this number, which has room for events again.
    Resume(u64),
    /// Ends the subscription with this number.
    Unsubscribe(u64),
}

/// A request to the engine, before the loop adds the time.
#[derive(Debug)]
pub(crate) enum UntimedRequest {
    Publish {
        channel: ChannelName,
        draft: Draft,
    },
    Broadcast {
        pattern: Pattern,
        draft: Draft,
    },
    /// A request that contains no time.
    Other(Request),
}

impl UntimedRequest {
    /// Converts it into a request at that time. As for the admin listener, channels have no owner
    /// that is counted, and the number of reached channels is not limited.
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
pub(crate) struct HandleAsker(Box<dyn FnOnce(Result<Reply, HandleError>) + Send>);

impl HandleAsker {
    /// Creates an asker that receives the reply as `convert` returns it; `None` is a reply of an
    /// unexpected kind.
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

impl fmt::Debug for HandleAsker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandleAsker(..)")
    }
}
