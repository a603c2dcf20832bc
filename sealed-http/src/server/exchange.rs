//! Reports of exchanges, for a log of them.

use std::collections::HashMap;
use std::time::Duration;

use sealed::{ConnectionId, fault};

use crate::codec::head::RequestHead;

/// A request and what became of it: see [`Handler::exchanged`](crate::Handler::exchanged).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Exchange {
    /// The method as it was sent; empty if the request could not be decoded.
    pub method: String,
    /// The path as it was sent, not decoded; empty if the request could not be decoded.
    pub path: String,
    /// The query as it was sent, without its `?`. It can contain secrets, such as tokens, which do
    /// not belong in a log.
    pub query: Option<String>,
    /// The status of the response; `None` if no response was started.
    pub status: Option<u16>,
    /// Number of bytes of the response's body that were passed on to be sent. The kernel, or the
    /// client, may not have taken all of them. Parts that were passed to
    /// [`Http::write_framed`](crate::Http::write_framed) count with their framing.
    pub body_bytes: u64,
    /// Time from when the head of the request had arrived until the response was complete, or the
    /// connection ended.
    pub time: Duration,
    /// Whether the response is complete. If it is not, the connection ended first.
    pub is_complete: bool,
}

/// The exchanges in progress, if they are to be reported.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    is_wanted: bool,
    /// The time when each exchange began, and what is known of it.
    begun: HashMap<ConnectionId, (Duration, Exchange)>,
    ended: Vec<(ConnectionId, Exchange)>,
}

impl Exchanges {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, ..Self::default() }
    }

    /// Records a request whose head has arrived. The same request may be recorded twice.
    pub(crate) fn begin(&mut self, id: ConnectionId, now: Duration, head: &RequestHead<'_>) {
        if self.is_wanted {
            self.begun.entry(id).or_insert_with(|| {
                let (method, path) = (head.method_name().to_owned(), head.path().to_owned());
                (now, Exchange { method, path, query: head.query().map(str::to_owned), ..Exchange::default() })
            });
        }
    }

    /// Records the start of a response.
    pub(crate) fn answer(&mut self, id: ConnectionId, now: Duration, status: u16, body_bytes: usize) {
        if self.is_wanted {
            // A request that could not be decoded has not been recorded.
            let (_, exchange) = self.begun.entry(id).or_insert_with(|| (now, Exchange::default()));
            (exchange.status, exchange.body_bytes) = (Some(status), body_bytes as u64);
        }
    }

    /// Records bytes of a streamed body.
    pub(crate) fn sent(&mut self, id: ConnectionId, count: usize) {
        if self.is_wanted
            && let Some((_, exchange)) = self.begun.get_mut(&id)
        {
            exchange.body_bytes += count as u64;
        }
    }

    /// Records the end of an exchange.
    pub(crate) fn end(&mut self, id: ConnectionId, now: Duration, is_complete: bool) {
        if self.is_wanted
            && let Some((begun, mut exchange)) = self.begun.remove(&id)
        {
            exchange.time = now.saturating_sub(begun);
            exchange.is_complete = is_complete || fault!("exchange-seems-complete");
            self.ended.push((id, exchange));
        }
    }

    /// Takes the exchanges that have ended. Nothing is allocated if there are none.
    pub(crate) fn take_ended(&mut self) -> Vec<(ConnectionId, Exchange)> {
        std::mem::take(&mut self.ended)
    }
}
