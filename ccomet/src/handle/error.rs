//! The errors of calls from inside the process.

use crate::core::position::BadPosition;
use crate::core::problem::Problem;
use crate::engine::Refusal;

/// The error of a call of a [`Handle`](super::Handle).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The text is not the name of a channel; in a subscription, it is not a pattern, either.
    #[error("a channel's name is 1 to 128 bytes of UTF-8 without control characters, ',' or '*'")]
    BadChannel,
    /// The text is a pattern, and the call needs a channel. [`broadcast`](super::Handle::broadcast)
    /// publishes to patterns; subscriptions and [`list`](super::Handle::list) also accept them.
    #[error("this is a pattern, and the call needs one channel; 'broadcast' publishes to patterns")]
    IsPattern,
    /// A subscription names no channel, more channels than `limits.channels_per_subscription_max`,
    /// or a channel twice.
    #[error("a subscription has 1 to limits.channels_per_subscription_max channels, each once")]
    BadChannelCount,
    /// The text is not a position, or is a position in another number of channels.
    #[error("this is not a position that the server gave out for these channels")]
    BadPosition,
    /// An option of a message is malformed or out of its range: `event`, `ttl` or `key`.
    #[error("the option '{0}' of the message is malformed or out of its range")]
    BadOption(&'static str),
    /// The message is longer than `limits.message_bytes_max` or the rule of its channel allows.
    #[error("the message is longer than {bytes_max} bytes")]
    TooLarge {
        /// The length of the longest message of that channel, in bytes.
        bytes_max: usize,
    },
    /// A limit of the server does not allow the call. The code is one of those that clients get,
    /// such as `channel_limit` or `key_reused`.
    #[error("the server refuses this: {0}")]
    Refused(&'static str),
    /// The mailbox of the event loop is full. Nothing was done, and a retry may succeed soon.
    #[error("too many requests wait for the server's event loop")]
    Busy,
    /// The channel did not answer within `times.reply_s`. A message may have been published
    /// nevertheless.
    #[error("the channel cannot be reached now; a message may have been published nevertheless")]
    Unavailable,
    /// The server is shutting down, or has ended. A message in transit may have been published
    /// nevertheless.
    #[error("the server has ended")]
    Stopped,
    /// [`wait`](super::Pending::wait) was called on the thread of an event loop, where it could
    /// block the very loop that has to answer.
    #[error("a thread of an event loop must not wait")]
    OnLoop,
}

impl From<Refusal> for HandleError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unavailable => Self::Unavailable,
            refusal => Problem::from(refusal).into(),
        }
    }
}

impl From<Problem> for HandleError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::BadParameter("Idempotency-Key") => Self::BadOption("key"),
            Problem::BadParameter(name) => Self::BadOption(name),
            problem => Self::Refused(problem.code()),
        }
    }
}

impl From<BadPosition> for HandleError {
    fn from(_: BadPosition) -> Self {
        Self::BadPosition
    }
}
