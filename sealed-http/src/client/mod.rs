//! The client: sends requests on kept connections, one exchange at a time on each, beside a
//! server's own connections.
//!
//! [`Http::add_upstream`] names a server and sets how many connections to it may be kept, and
//! [`Http::fetch`] sends a request. [`Handler::fetched`] reports the outcome.

pub(crate) mod event_stream;
mod exchange;
pub(crate) mod fetch;

pub use event_stream::{EventStream, EventTooLong, StreamEvent};
pub use fetch::{BadTarget, Fetch, FetchError, FetchId, Fetched, Upstream, UpstreamId};

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use sealed::{CloseReason, ConnectionId, Context, Input, fault};

use self::exchange::{FetchExchange, Retry};
use crate::codec::response::{encode_chunk, encode_last_chunk};
use crate::codec::response_decoder::{ResponseDecoder, ResponseEvent};
use crate::codec::response_head::ResponseHead;
use crate::server::connection::{Connection, Phase, how_much};
use crate::server::handler::Handler;
use crate::server::http::Http;
use crate::server::{Due, Server, ServerTimer};

/// Bytes of a body held while its request waits for a connection, from which on writing returns
/// false.
const UNSENT_MAX: usize = 64 * 1024;

/// All client requests and connections of one loop.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pools: Vec<Pool>,
    fetches: HashMap<FetchId, FetchExchange>,
    lines: HashMap<ConnectionId, Line>,
    /// Requests for unknown upstreams, which have no exchange, until their failure is reported.
    refused: HashSet<FetchId>,
    last_fetch: u64,
}

/// The connections to one upstream.
#[derive(Debug)]
struct Pool {
    upstream: Upstream,
    connections: usize,
    /// Connections without a request; the most recently used one is last.
    idle: Vec<ConnectionId>,
    waiting: VecDeque<FetchId>,
}

/// A connection to an upstream.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // the flags are independent
struct Line {
    upstream: usize,
    decoder: ResponseDecoder,
    fetch: Option<FetchId>,
    /// The connection has carried a request before: the server may have closed it meanwhile, and
    /// this side may not have noticed yet.
    is_reused: bool,
    /// Bytes have arrived since the last request was sent.
    is_answered: bool,
    /// The head of the final response has arrived.
    has_head: bool,
    keep_alive: bool,
    /// The head of a response that is being collected.
    head: Vec<u8>,
}

impl<H: Handler> Http<'_, H> {
    /// Adds a server that requests can be sent to. An upstream lives as long as the loop.
    pub fn add_upstream(&mut self, upstream: Upstream) -> UpstreamId {
        let pools = &mut self.shared.client.pools;
        pools.push(Pool { upstream, connections: 0, idle: Vec::new(), waiting: VecDeque::new() });
        UpstreamId(pools.len() - 1)
    }

    /// Sends a request: on a kept connection, on a new one, or as soon as one becomes available.
    /// [`Handler::fetched`] reports the outcome later, including failures.
    ///
    /// A request that has an idempotent method or is marked as [`repeatable`](Fetch::repeatable) is
    /// sent once more, on a new connection, if a kept connection turns out to have been closed
    /// before the response began. No other request is retried, and redirects are not followed.
    ///
    /// Once the drain limit of the loop has passed, no connection is made any more, and the loop
    /// ends without a report for requests that still wait.
    pub fn fetch(&mut self, upstream: UpstreamId, fetch: &Fetch) -> FetchId {
        let client = &mut self.shared.client;
        client.last_fetch += 1;
        let id = FetchId(client.last_fetch);
        let Some(pool) = client.pools.get_mut(upstream.0) else {
            client.refused.insert(id);
            self.fail_later(id, FetchError::Unknown);
            return id;
        };
        let mut exchange = FetchExchange::new(upstream.0, &pool.upstream.host, fetch);
        let is_busy = pool.connections >= pool.upstream.connections_max
            && pool.idle.is_empty()
            && pool.waiting.len() >= pool.upstream.waiting_max;
        if !is_busy {
            pool.waiting.push_back(id);
            exchange.limit =
                fetch.limit.map(|limit| self.cx.set_timer(limit, ServerTimer(Due::Fetch(id, FetchError::TimedOut))));
        }
        client.fetches.insert(id, exchange);
        if is_busy {
            self.fail_later(id, FetchError::Busy);
        } else {
            self.send_waiting(upstream.0);
        }
        id
    }

    /// Cancels a request; nothing more is reported for it. The connection on which it was sent is
    /// closed.
    pub fn cancel_fetch(&mut self, id: FetchId) {
        self.give_up(id);
        self.shared.client.refused.remove(&id);
    }

    /// Stops reading a streamed response, once its head has arrived, until
    /// [`resume_fetch`](Self::resume_fetch). This applies backpressure to the server.
    /// [`Fetch::silence_max`] does not run meanwhile; [`Fetch::limit`] does. [`Fetched::End`] may
    /// be reported even while the response is paused.
    pub fn pause_fetch(&mut self, id: FetchId) {
        if let Some((connection, _)) = self.streamed_answer(id) {
            self.cx.clear_deadline(connection);
            self.cx.pause(connection);
        }
    }

    /// Resumes reading a response after [`pause_fetch`](Self::pause_fetch).
    pub fn resume_fetch(&mut self, id: FetchId) {
        if let Some((connection, silence_max)) = self.streamed_answer(id)
            && self.cx.is_paused(connection)
        {
            self.cx.set_deadline(connection, silence_max);
            self.cx.resume(connection);
        }
    }

    /// Returns the connection on which a streamed response has begun, and how long the server may
    /// be silent.
    fn streamed_answer(&self, id: FetchId) -> Option<(ConnectionId, std::time::Duration)> {
        let client = &self.shared.client;
        let exchange = client.fetches.get(&id).filter(|exchange| exchange.answer_is_streamed)?;
        let connection = exchange.connection.filter(|held| client.lines.get(held).is_some_and(|line| line.has_head))?;
        Some((connection, exchange.silence_max))
    }

    /// Writes a part of the body of a request that was made with [`Fetch::streamed_body`]. Returns
    /// whether there is room for more; if not, [`Fetched::Drained`] reports when there is.
    pub fn write_body(&mut self, id: FetchId, bytes: &[u8]) -> bool {
        let mut out = Vec::with_capacity(bytes.len() + 20);
        encode_chunk(&mut out, bytes);
        self.write_encoded(id, &out)
    }

    /// Ends the body of a request that was made with [`Fetch::streamed_body`].
    pub fn end_body(&mut self, id: FetchId) {
        let mut out = Vec::new();
        encode_last_chunk(&mut out);
        self.write_encoded(id, &out);
        if let Some(exchange) = self.shared.client.fetches.get_mut(&id) {
            exchange.body_is_open = false;
        }
    }

    fn write_encoded(&mut self, id: FetchId, bytes: &[u8]) -> bool {
        let exchange = self.shared.client.fetches.get_mut(&id).filter(|exchange| exchange.body_is_open);
        let Some(exchange) = exchange else { return false };
        if let Some(connection) = exchange.connection {
            return self.cx.write(connection, bytes);
        }
        exchange.unsent.extend_from_slice(bytes);
        exchange.unsent.len() < UNSENT_MAX
    }

    /// Reports a failure that is known at once, but only after the caller's call has returned.
    fn fail_later(&mut self, id: FetchId, error: FetchError) {
        self.cx.set_timer(std::time::Duration::ZERO, ServerTimer(Due::Fetch(id, error)));
    }

    /// Sends waiting requests, as long as connections are available or may be opened.
    fn send_waiting(&mut self, upstream: usize) {
        loop {
            let Some(fetch) = self.shared.client.pools[upstream].waiting.front().copied() else { return };
            let wants_new =
                self.shared.client.fetches.get(&fetch).is_some_and(|exchange| exchange.retry == Retry::Begun);
            let pool = &mut self.shared.client.pools[upstream];
            let kept = if wants_new { None } else { pool.idle.pop() };
            let connection = if let Some(kept) = kept {
                if !self.cx.is_open(kept) {
                    continue;
                }
                kept
            } else if pool.connections >= pool.upstream.connections_max {
                return;
            } else {
                match self.cx.connect(pool.upstream.connect.clone(), Connection::outgoing()) {
                    Ok(id) => {
                        pool.connections += 1;
                        self.shared.client.lines.insert(id, Line::new(upstream));
                        id
                    }
                    Err(error) => {
                        pool.waiting.pop_front();
                        self.fail_later(fetch, FetchError::NotConnected(kind_of(&error)));
                        continue;
                    }
                }
            };
            self.shared.client.pools[upstream].waiting.pop_front();
            self.send(fetch, connection);
        }
    }

    fn send(&mut self, id: FetchId, connection: ConnectionId) {
        let client = &mut self.shared.client;
        let (Some(exchange), Some(line)) = (client.fetches.get_mut(&id), client.lines.get_mut(&connection)) else {
            return;
        };
        exchange.connection = Some(connection);
        (line.fetch, line.is_answered, line.has_head) = (Some(id), false, false);
        self.cx.set_deadline(connection, exchange.silence_max);
        self.cx.write_bytes(connection, exchange.request.clone());
        self.cx.write(connection, &std::mem::take(&mut exchange.unsent));
        let queued = how_much(self.cx.queued(connection));
        if let Some(held) = self.cx.state_mut(connection) {
            held.queued = queued;
        }
    }

    /// Removes a request, and closes the connection that carries it.
    fn give_up(&mut self, id: FetchId) -> Option<FetchExchange> {
        let client = &mut self.shared.client;
        let exchange = client.fetches.remove(&id)?;
        if let Some(limit) = exchange.limit {
            self.cx.cancel_timer(limit);
        }
        match exchange.connection {
            Some(connection) => {
                if let Some(line) = client.lines.get_mut(&connection) {
                    line.fetch = None;
                }
                self.cx.abort(connection);
            }
            None => client.pools[exchange.upstream].waiting.retain(|waiting| *waiting != id),
        }
        Some(exchange)
    }

    /// Closes idle connections, because the loop is shutting down.
    pub(crate) fn close_idle(&mut self) {
        for pool in &mut self.shared.client.pools {
            for id in pool.idle.drain(..) {
                self.cx.abort(id);
            }
        }
    }

    /// Completes a response: its connection is kept for the next request, or closed. Returns the
    /// request, and the head of a response that was collected.
    fn complete(&mut self, connection: ConnectionId, is_clean: bool) -> Option<(FetchId, FetchExchange, Vec<u8>)> {
        let client = &mut self.shared.client;
        let line = client.lines.get_mut(&connection)?;
        let id = line.fetch.take()?;
        let head = std::mem::take(&mut line.head);
        let exchange = client.fetches.remove(&id)?;
        if let Some(limit) = exchange.limit {
            self.cx.cancel_timer(limit);
        }
        if self.cx.is_paused(connection) {
            self.cx.resume(connection);
        }
        let is_sent = !exchange.body_is_open && self.cx.queued(connection) == 0;
        if line.keep_alive && (is_clean || fault!("unasked-answer-taken")) && is_sent && !self.cx.is_draining() {
            line.is_reused = true;
            let pool = &mut client.pools[line.upstream];
            pool.idle.push(connection);
            self.cx.set_deadline(connection, pool.upstream.idle_timeout);
        } else if fault!("answered-connection-lingers") {
            self.cx.close(connection);
        } else {
            // The whole response has arrived, so nothing is lost. An orderly end would wait for the
            // server's, and keep the place of the next request meanwhile.
            self.cx.abort(connection);
        }
        Some((id, exchange, head))
    }
}

impl Line {
    fn new(upstream: usize) -> Self {
        let decoder = ResponseDecoder::new();
        Self {
            upstream,
            decoder,
            fetch: None,
            is_reused: false,
            is_answered: false,
            has_head: false,
            keep_alive: false,
            head: Vec::new(),
        }
    }
}

impl<H: Handler> Server<H> {
    fn tell_fetched(&mut self, cx: &mut Context<Self>, id: FetchId, fetched: Fetched<'_>) {
        self.with(cx, |handler, http| handler.fetched(http, id, fetched));
    }

    /// Reports that a request has failed.
    pub(crate) fn fail(&mut self, cx: &mut Context<Self>, id: FetchId, error: FetchError) {
        let exchange = self.with(cx, |_, http| http.give_up(id));
        if exchange.is_some() || self.shared.client.refused.remove(&id) {
            self.tell_fetched(cx, id, Fetched::Failed(error));
        }
    }

    /// Processes bytes of a response that have arrived.
    pub(crate) fn response_received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while cx.is_open(id) {
            let client = &mut self.shared.client;
            let Some(line) = client.lines.get_mut(&id) else { return cx.abort(id) };
            let Some(fetch) = line.fetch else {
                // No request is pending: these bytes are not a response.
                if !input.is_empty() {
                    cx.abort(id);
                }
                return;
            };
            let Some(exchange) = client.fetches.get_mut(&fetch) else { return cx.abort(id) };
            // The end needs no more input, and no input may ever arrive that would trigger its
            // report.
            if cx.is_paused(id) && !line.decoder.is_at_end() {
                return;
            }
            line.is_answered |= !input.is_empty();
            let (used, event) = match line.decoder.decode(input.bytes(), exchange.asked, &exchange.limits) {
                Ok(decoded) => decoded,
                Err(error) => return self.fail(cx, fetch, FetchError::Malformed(error)),
            };
            let bytes = input.take(used);
            if used > 0 {
                cx.set_deadline(id, exchange.silence_max);
            }
            match event {
                ResponseEvent::Incomplete => return,
                ResponseEvent::Interim(_) => {}
                ResponseEvent::Head(head) => {
                    (line.keep_alive, line.has_head) = (head.keep_alive(), true);
                    if exchange.answer_is_streamed {
                        self.tell_fetched(cx, fetch, Fetched::Head(head));
                    } else {
                        line.head.extend_from_slice(bytes);
                    }
                }
                ResponseEvent::Data(data) if exchange.answer_is_streamed => {
                    self.tell_fetched(cx, fetch, Fetched::Data(data));
                }
                ResponseEvent::Data(data) => exchange.body.extend_from_slice(data),
                ResponseEvent::End => self.finish(cx, id, input.is_empty()),
                ResponseEvent::Switched => return self.fail(cx, fetch, FetchError::Switched),
            }
        }
    }

    /// Finishes a response. The connection is released before the end is reported, so that the next
    /// request can use it.
    fn finish(&mut self, cx: &mut Context<Self>, connection: ConnectionId, is_clean: bool) {
        let Some((id, exchange, head)) = self.with(cx, |_, http| http.complete(connection, is_clean)) else { return };
        if exchange.answer_is_streamed {
            self.tell_fetched(cx, id, Fetched::End);
        } else {
            let fetched = match ResponseHead::parse(&head, exchange.asked, &exchange.limits) {
                Ok(head) => Fetched::Whole(head, &exchange.body),
                Err(error) => Fetched::Failed(FetchError::Malformed(error)),
            };
            self.tell_fetched(cx, id, fetched);
        }
        self.with(cx, |_, http| http.send_waiting(exchange.upstream));
    }

    /// Reacts to a server that has closed its sending side.
    pub(crate) fn response_ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(line) = self.shared.client.lines.get_mut(&id) else { return cx.close(id) };
        match line.decoder.end() {
            Ok(true) => self.finish(cx, id, false),
            // `outgoing_closed` decides what happens to a request in flight.
            _ => cx.close(id),
        }
    }

    /// Reacts to a connection to a server that is gone or could not be established.
    pub(crate) fn outgoing_closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, reason: CloseReason) {
        let client = &mut self.shared.client;
        let Some(line) = client.lines.remove(&id) else { return };
        let pool = &mut client.pools[line.upstream];
        if !fault!("lost-connection-counts-on") {
            pool.connections -= 1;
        }
        pool.idle.retain(|idle| *idle != id);
        if let Some(fetch) = line.fetch
            && let Some(exchange) = client.fetches.get_mut(&fetch)
        {
            exchange.connection = None;
            let is_answered = line.is_answered && !fault!("begun-answer-asked-again");
            if exchange.retry == Retry::Once && line.is_reused && !is_answered {
                exchange.retry = Retry::Begun;
                pool.waiting.push_front(fetch);
            } else {
                self.fail(cx, fetch, FetchError::from_close(reason));
            }
        }
        self.with(cx, |_, http| http.send_waiting(line.upstream));
    }

    /// Reacts to a server that has been silent for too long, or to an idle connection that has
    /// timed out.
    pub(crate) fn outgoing_timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(fetch) = self.shared.client.lines.get(&id).and_then(|line| line.fetch) else { return cx.abort(id) };
        let now = how_much(cx.queued(id));
        let takes_some = cx.state_mut(id).is_some_and(|held| now < std::mem::replace(&mut held.queued, now));
        match self.shared.client.fetches.get(&fetch) {
            Some(exchange) if takes_some && !fault!("slow-server-failed") => cx.set_deadline(id, exchange.silence_max),
            _ => self.fail(cx, fetch, FetchError::TimedOut),
        }
    }

    /// Reacts to the kernel having taken all output for a server.
    pub(crate) fn outgoing_drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(line) = self.shared.client.lines.get(&id) else { return };
        let Some((fetch, exchange)) =
            line.fetch.and_then(|fetch| Some((fetch, self.shared.client.fetches.get(&fetch)?)))
        else {
            return;
        };
        // While the response is paused, the server's silence is not limited.
        if !cx.is_paused(id) {
            cx.set_deadline(id, exchange.silence_max);
        }
        if exchange.body_is_open {
            self.tell_fetched(cx, fetch, Fetched::Drained);
        }
    }
}

fn kind_of(error: &sealed::Error) -> io::ErrorKind {
    match error {
        sealed::Error::Connect { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    }
}

/// Returns whether a connection is one to an upstream.
pub(crate) fn is_outgoing<C>(connection: Option<&Connection<C>>) -> bool {
    connection.is_some_and(|connection| connection.phase == Phase::Outgoing)
}
