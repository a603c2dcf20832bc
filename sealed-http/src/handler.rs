//! What an application is to a server: one object for each loop, given whole requests.

use std::time::Duration;

use sealed::{Address, CloseReason, ConnectionId, ListenerId, TimerId};

use crate::error::DecodeError;
use crate::fetch::{FetchId, Fetched};
use crate::head::RequestHead;
use crate::http::Http;
use crate::problem::Problem;
use crate::response::Response;

/// A request, whole, lent for one call.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its line and header fields.
    pub head: RequestHead<'a>,
    /// Its body; empty where it has none.
    pub body: &'a [u8],
}

/// The application's code on one loop.
///
/// A connection carries one exchange at a time: a request is handed over, and the next one on the same connection
/// only when it has been answered, with [`Http::respond`] or a stream's end, at once or at any later time. Requests that a client pipelines
/// meanwhile wait in order. Every call comes on the loop's thread.
#[allow(unused_variables)]
pub trait Handler: Sized + 'static {
    /// State kept with each connection. It starts as its default.
    type Connection: Default;
    /// What others may post to this loop.
    type Message: Send + 'static;
    /// What a timer carries.
    type Timer;

    /// A client connected.
    fn accepted(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {}

    /// A request came. Answer it now, or keep the id and answer later.
    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>);

    /// What cannot be decoded is answered with this, and the connection closed. By default with a [`Problem`].
    fn refusal(&mut self, error: DecodeError) -> Response {
        Problem::from(error).into()
    }

    /// The client will send no more while its request is not answered yet. It may still be reading, or gone: TCP
    /// cannot tell. By default the exchange goes on.
    fn ended(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {}

    /// All of a stream that was queued is with the kernel: more can be given.
    fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {}

    /// The deadline that was set for the exchange passed. By default the connection is aborted.
    fn timed_out(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        http.abort(id);
    }

    /// The connection is gone, answered or not. Called once for each, and last.
    fn closed(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, state: Self::Connection, reason: CloseReason) {}

    /// Something came of a request that was sent with [`Http::fetch`].
    fn fetched(&mut self, http: &mut Http<'_, Self>, id: FetchId, fetched: Fetched<'_>) {}

    /// A message from the mailbox.
    fn message(&mut self, http: &mut Http<'_, Self>, message: Self::Message) {}

    /// A timer ran out.
    fn expired(&mut self, http: &mut Http<'_, Self>, timer: TimerId, value: Self::Timer) {}

    /// The end of a tick, before output is flushed.
    fn turned(&mut self, http: &mut Http<'_, Self>) {}

    /// The server goes down: what is not answered within `limit` is cut off. Connections between two
    /// requests are closed shortly.
    fn draining(&mut self, http: &mut Http<'_, Self>, limit: Duration) {}
}
