//! The interface through which the hub sends to the connections.

use bytes::Bytes;
use sealed::ConnectionId;

use super::encoder::{Format, Label};
use crate::core::problem::Problem;

/// Sends to the connections of subscribers.
pub(crate) trait Sink {
    /// Starts a stream. `target` is what its client named for the protocol to address, or empty.
    fn open(&mut self, peer: ConnectionId, format: Format, target: &str);
    /// Sends more of a stream. Returns whether the kernel accepted all of it; otherwise, the owner
    /// of the connection calls [`Hub::drained`] later.
    ///
    /// [`Hub::drained`]: super::Hub::drained
    fn stream(&mut self, peer: ConnectionId, chunks: &[Bytes]) -> bool;
    /// Returns the number of bytes queued for a connection. If there are any, the owner of the
    /// connection calls [`Hub::drained`] later.
    ///
    /// [`Hub::drained`]: super::Hub::drained
    fn queued(&self, peer: ConnectionId) -> usize;
    /// Notifies a client that one of the subscriptions of its connection has ended, and why.
    fn refuse(&mut self, peer: ConnectionId, label: Label, problem: Problem);
    /// Ends a stream and its connection.
    fn end(&mut self, peer: ConnectionId);
    /// Answers a poll, or a subscriber whose stream has not started.
    fn answer(&mut self, peer: ConnectionId, format: Format, reply: PollReply);
}

/// The answer to a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PollReply {
    /// A reply in the encoding of the poll's protocol.
    Encoded(ReplyBody),
    /// A refusal. `body` is set if the protocol has its own text for the problem, and `target` if
    /// that text depends on it.
    Refused { problem: Problem, target: Option<Box<str>>, body: Option<ReplyBody> },
}

/// A whole reply, encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplyBody {
    /// A value that the protocol sets for its own use when the reply is sent.
    pub(crate) kind: u8,
    pub(crate) bytes: Bytes,
}
