//! The hub's output, which goes to the owner of the connections.

use bytes::Bytes;
use sealed::ConnectionId;

use super::encoder::{Format, Label};
use crate::core::problem::Problem;

/// Writes to subscribers.
pub(crate) trait Sink {
    /// Starts a stream. `target` is what its client named for the protocol to address, or empty.
    fn open(&mut self, peer: ConnectionId, format: Format, target: &str);
    /// Sends more of a stream. Returns whether the kernel took all of it; if not, [`Hub::drained`]
    /// is to be called.
    ///
    /// [`Hub::drained`]: super::Hub::drained
    fn stream(&mut self, peer: ConnectionId, chunks: &[Bytes]) -> bool;
    /// Returns how many bytes are queued for a connection. If there are any, [`Hub::drained`] will be called.
    ///
    /// [`Hub::drained`]: super::Hub::drained
    fn queued(&self, peer: ConnectionId) -> usize;
    /// Tells a client that one of the subscriptions of its connection has ended, and why.
    fn refuse(&mut self, peer: ConnectionId, label: Label, problem: Problem);
    /// Ends a stream, and with it its connection.
    fn end(&mut self, peer: ConnectionId);
    /// Answers a poll, or a subscriber whose stream has not started.
    fn answer(&mut self, peer: ConnectionId, format: Format, reply: Reply);
}

/// The answer to a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// As its protocol has encoded it.
    Encoded(ReplyBody),
    /// Refused. `body` is set if the protocol has words of its own for the problem, and `target` if
    /// the problem is to be passed to that.
    Refused { problem: Problem, target: Option<Box<str>>, body: Option<ReplyBody> },
}

/// A whole reply, encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplyBody {
    /// A note of its protocol for itself, for when the reply is sent.
    pub(crate) kind: u8,
    pub(crate) bytes: Bytes,
}
