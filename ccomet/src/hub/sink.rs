//! The hub's way out: what it hands to the holder of the connections.

use bytes::Bytes;
use sealed::ConnectionId;

use crate::protocols::format::stream_format::Voice;
use crate::wire::problem::Problem;

/// Where what a subscriber gets goes to.
pub(crate) trait Sink {
    /// Starts a stream: the response's head. A page in a frame talks to pages of the origin `listener`; empty: the server's own.
    fn open(&mut self, peer: ConnectionId, voice: Voice, listener: &str);
    /// Sends more of a stream. Returns whether the kernel took all of it; if not, [`Hub::drained`] is to be called.
    fn stream(&mut self, peer: ConnectionId, chunks: &[Bytes]) -> bool;
    /// Ends a stream.
    fn end(&mut self, peer: ConnectionId);
    /// Answers a poll.
    fn answer(&mut self, peer: ConnectionId, reply: Reply);
}

/// What a poll is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The native API's JSON.
    Json(Bytes),
    /// A script, of either API.
    Script(Bytes),
    /// A classic poll that ended without an item: nothing at all, and the connection closes.
    Nothing,
    /// icomet's, to a poll, or to one who wanted a stream.
    Icomet(IcometForm, Bytes),
    /// It cannot be met.
    Problem(Problem, Option<Box<str>>),
    /// It cannot be met, and the client's API has words of its own for that.
    Refused(Problem, Box<Reply>),
}

/// What a whole reply of icomet's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IcometForm {
    /// An event alone.
    Json,
    /// An event in a call of the client's function.
    Script,
    /// What a stream would have said.
    Stream(Voice),
}
