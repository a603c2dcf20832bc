//! The hub's way out: what it hands to the holder of the connections.

use bytes::Bytes;
use sealed::ConnectionId;

use super::encoder::Format;
use crate::wire::problem::Problem;

/// Takes what subscribers get.
pub(crate) trait Sink {
    /// Starts a stream. `target` is what its client named for the protocol to address, or empty.
    fn open(&mut self, peer: ConnectionId, format: Format, target: &str);
    /// Sends more of a stream. Returns whether the kernel took all of it; if not, [`Hub::drained`] is to be called.
    ///
    /// [`Hub::drained`]: super::Hub::drained
    fn stream(&mut self, peer: ConnectionId, chunks: &[Bytes]) -> bool;
    /// Ends a stream.
    fn end(&mut self, peer: ConnectionId);
    /// Answers a poll, or a subscriber whose stream has not started.
    fn answer(&mut self, peer: ConnectionId, format: Format, reply: Reply);
}

/// What a poll is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// What its protocol says.
    Encoded(ReplyBody),
    /// It cannot be met. `body` is there if the protocol has words of its own for that, and `target` if
    /// the words for the problem are to be addressed to that.
    Refused { problem: Problem, target: Option<Box<str>>, body: Option<ReplyBody> },
}

/// A whole reply of a protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplyBody {
    /// What its protocol notes for itself, for when it is sent.
    pub(crate) kind: u8,
    pub(crate) bytes: Bytes,
}
