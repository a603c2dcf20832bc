//! The context that a handler uses to act on its connections.

use std::time::Duration;

use bytes::Bytes;
use sealed::{ConnectionId, Context, Mailbox, TimerId, fault};

use crate::codec::response::{Response, encode_chunk, encode_last_chunk};
use crate::server::connection::{Connection, Marks, Phase, how_much};
use crate::server::handler::Handler;
use crate::server::{Due, Server, ServerTimer, Shared};

/// Maximum number of unsent bytes of output with which a connection is closed at once, after its
/// last response. The kernel usually takes this much at once, and the loop sends it while it closes
/// the connection. A larger rest is sent first, at the client's pace.
const CLOSE_AT_ONCE_MAX: usize = 16 * 1024;

/// A handler's access to its connections.
///
/// Calls with a stale id have no effect, and neither do responses on a connection that has no
/// request to respond to. But the id of a connection is the same for all of its requests. A handler
/// may answer a request early, for example in [`Handler::timed_out`], while other code still works
/// on a response. That response must not be sent when it arrives, because it would answer the next
/// request. Count the requests in the state of the connection, pass the count along with the work,
/// and compare:
///
/// ```
/// # use sealed::ConnectionId;
/// # use sealed_http::{Handler, Http, Request, Response};
/// # use sealed::Workers;
/// struct App {
///     workers: Workers,
/// }
///
/// impl Handler for App {
///     /// The number of requests so far.
///     type Connection = u64;
///     /// A request, and its answer from another thread.
///     type Message = (ConnectionId, u64, String);
///     type Timer = ();
///
///     fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
///         let Some(count) = http.state_mut(id) else { return };
///         *count += 1;
///         let (count, path) = (*count, request.head.path().to_owned());
///         let work = http.offload_for(id, &self.workers, move |_| (id, count, format!("You wanted {path}\n")));
///         if work.is_err() {
///             http.respond(id, &Response::new(503));
///         }
///     }
///
///     fn message(&mut self, http: &mut Http<'_, Self>, (id, count, answer): Self::Message) {
///         if http.state(id) == Some(&count) {
///             http.respond(id, &Response::new(200).body(answer));
///         }
///     }
/// }
/// ```
pub struct Http<'a, H: Handler> {
    pub(crate) cx: &'a mut Context<Server<H>>,
    pub(crate) shared: &'a mut Shared,
}

impl<H: Handler> Http<'_, H> {
    /// Passes the first bytes of a new connection to [`Handler::preface`] before the first request
    /// is decoded. Call this in [`Handler::accepted`]; it has no effect later.
    pub fn await_preface(&mut self, id: ConnectionId) {
        let is_new = |held: &&mut Connection<_>| {
            held.phase == Phase::Reading && held.partial.is_none() && !held.marks.has(Marks::ASKED)
        };
        if let Some(connection) = self.cx.state_mut(id).filter(is_new) {
            connection.phase = Phase::Preface;
        }
    }

    /// Returns a connection whose request waits for a response, unless it has been ended.
    fn unanswered(&mut self, id: ConnectionId) -> Option<&mut Connection<H::Connection>> {
        if !self.cx.is_open(id) && !fault!("ended-connection-answered") {
            return None;
        }
        self.cx.state_mut(id).filter(|held| held.phase == Phase::Answering)
    }

    /// Queues a complete response to the request of a connection. It is sent at the end of the
    /// tick.
    ///
    /// # Panics
    /// If the status of `response` is 101, which only [`upgrade`](Self::upgrade) can send.
    pub fn respond(&mut self, id: ConnectionId, response: &Response) {
        let draining = self.cx.is_draining();
        let Some(connection) = self.unanswered(id) else { return };
        let marks = &mut connection.marks;
        let is_unread = marks.has(Marks::BODY_IS_COMING) && !fault!("unread-request-kept");
        marks.keep_if(!draining && !response.closes() && !is_unread && !marks.is_last());
        let (keep_alive, head_only) = (marks.has(Marks::KEEP_ALIVE), marks.has(Marks::HEAD_ONLY));
        let version = marks.version_minor();
        let body_bytes = if head_only { 0 } else { response.body_len() };
        self.shared.exchanges.answer(id, self.cx.now(), response.status(), body_bytes);
        let (out, date) = self.shared.encoding(self.cx);
        let apart = if head_only { None } else { response.body_to_share() };
        response.encode(out, version, keep_alive, head_only || apart.is_some(), date);
        self.cx.write(id, out);
        if let Some(body) = apart {
            self.cx.write_bytes(id, body);
        }
        self.conclude(id);
    }

    /// Starts a response whose body is streamed: with chunked coding, or, to an HTTP/1.0 client,
    /// until the connection closes. The body of `response` is not sent. The response to a HEAD
    /// request is complete with this call. The handler itself has to watch whether the client takes
    /// what is written from now on: see [`write`](Self::write).
    ///
    /// Returns whether the body uses chunked coding.
    ///
    /// # Panics
    /// If the status of `response` cannot have a body: 101, 204, 205 and 304.
    pub fn start_stream(&mut self, id: ConnectionId, response: &Response) -> bool {
        let draining = self.cx.is_draining();
        let Some(connection) = self.unanswered(id) else {
            return false;
        };
        let marks = &mut connection.marks;
        let chunked = !marks.has(Marks::OLD);
        marks.keep_if(!draining && !response.closes() && chunked && !marks.is_last());
        let (keep_alive, head_only) = (marks.has(Marks::KEEP_ALIVE), marks.has(Marks::HEAD_ONLY));
        let version = marks.version_minor();
        connection.phase = Phase::Streaming;
        self.shared.exchanges.answer(id, self.cx.now(), response.status(), 0);
        let (out, date) = self.shared.encoding(self.cx);
        response.encode_stream_head(out, version, keep_alive, date);
        self.cx.write(id, out);
        if head_only {
            self.conclude(id);
        }
        chunked
    }

    /// Starts a response whose body is streamed, and whose length is known: with `Content-Length`,
    /// which every client understands, and with which it can show progress. Otherwise like
    /// [`start_stream`](Self::start_stream).
    ///
    /// [`write`](Self::write) discards what goes beyond the length. If the stream is
    /// [ended](Self::end_stream) before it is reached, the connection is reset, so that the client
    /// sees that the body is incomplete.
    ///
    /// # Panics
    /// If the status of `response` cannot have a body: 101, 204, 205 and 304.
    pub fn start_sized_stream(&mut self, id: ConnectionId, response: &Response, length: u64) {
        let draining = self.cx.is_draining();
        let Some(connection) = self.unanswered(id) else { return };
        let marks = &mut connection.marks;
        marks.keep_if(!draining && !response.closes() && !marks.is_last());
        let (keep_alive, head_only) = (marks.has(Marks::KEEP_ALIVE), marks.has(Marks::HEAD_ONLY));
        let version = marks.version_minor();
        connection.phase = Phase::Sized;
        self.shared.exchanges.answer(id, self.cx.now(), response.status(), 0);
        let (out, date) = self.shared.encoding(self.cx);
        response.encode_sized_head(out, version, keep_alive, date, length);
        self.cx.write(id, out);
        if head_only {
            self.conclude(id);
        } else if length > 0 {
            self.shared.unsent.insert(id, length);
        } else {
            self.shared.unsent.remove(&id);
        }
    }

    /// Returns whether a streamed response has been started, and not been completed.
    pub fn is_streaming(&self, id: ConnectionId) -> bool {
        self.cx.state(id).is_some_and(|held| matches!(held.phase, Phase::Streaming | Phase::Sized))
    }

    /// Returns how many of these bytes are within the length of the response, and counts them.
    pub(crate) fn within_length(&mut self, id: ConnectionId, count: usize) -> usize {
        if fault!("longer-than-announced") {
            return count;
        }
        let Some(left) = self.shared.unsent.get_mut(&id) else { return 0 };
        let count = count.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= count as u64;
        if *left == 0 {
            self.shared.unsent.remove(&id);
        }
        count
    }

    /// Switches the connection to another protocol. Sends `response` with status 101, which must
    /// have the field `Upgrade`, or with a 2xx status to a CONNECT request.
    ///
    /// From then on [`Handler::raw`] receives the input, including bytes that have arrived already,
    /// and [`write`](Self::write) sends bytes unchanged. The server's time limits and all other
    /// rules of HTTP no longer apply: the handler itself has to watch for a peer that takes
    /// nothing.
    ///
    /// Returns false, and does nothing, if the request did not ask for another protocol or is
    /// answered already, or while its body is being streamed.
    ///
    /// # Panics
    /// If the status is neither 101 nor 2xx.
    pub fn upgrade(&mut self, id: ConnectionId, response: &Response) -> bool {
        let status = response.status();
        assert!(matches!(status, 101 | 200..300), "no other protocol follows a status of {status}");
        let Some(connection) = self.unanswered(id) else {
            return false;
        };
        let may_switch = connection.marks.has(Marks::MAY_SWITCH) || fault!("switched-without-asking");
        if !may_switch || connection.partial.is_some() {
            return false;
        }
        connection.phase = Phase::Raw;
        self.shared.exchanges.answer(id, self.cx.now(), status, 0);
        self.shared.exchanges.end(id, self.cx.now(), true);
        let (out, date) = self.shared.encoding(self.cx);
        response.encode_switch(out, date);
        self.cx.write(id, out);
        // The handler is to see the bytes that have arrived after the request.
        self.cx.resume(id);
        true
    }

    /// Stops reading a streamed request body, or input of another protocol, until
    /// [`resume`](Self::resume). This applies backpressure to the client. The client's time limits
    /// do not run meanwhile.
    pub fn pause(&mut self, id: ConnectionId) {
        if self.cx.state(id).is_some_and(|connection| connection.partial.is_some()) {
            self.cx.clear_deadline(id);
        }
        self.cx.pause(id);
    }

    /// Resumes reading after [`pause`](Self::pause).
    pub fn resume(&mut self, id: ConnectionId) {
        let (now, settings, is_paused) = (self.cx.now(), &self.shared.settings, self.cx.is_paused(id));
        let Some(connection) = self.cx.state_mut(id) else { return };
        if let Some(partial) = connection.partial.as_mut().filter(|_| is_paused) {
            partial.begin(now, settings);
            self.cx.set_deadline(id, settings.body_timeout);
        }
        self.cx.resume(id);
    }

    /// Closes a connection that speaks another protocol.
    pub(crate) fn close_raw(&mut self, id: ConnectionId) {
        if self.cx.state(id).is_some_and(|connection| connection.phase == Phase::Raw) {
            self.cx.close(id);
        }
    }

    /// Closes the sending side, after the queued output, and goes on reading. Only for connections
    /// that speak another protocol.
    pub fn half_close(&mut self, id: ConnectionId) {
        if self.cx.state(id).is_some_and(|connection| connection.phase == Phase::Raw) {
            self.cx.half_close(id);
        }
    }

    /// Queues a part of a streamed response, or bytes of another protocol. Returns whether there is
    /// room for more, as [`Context::write`] does.
    ///
    /// The server does not close a connection whose peer takes nothing, because a stream may
    /// rightly be idle. Set a deadline and check [`queued`](Self::queued), or rely on
    /// [`sealed::SocketOptions::silence_max`] for peers that do not even acknowledge.
    pub fn write(&mut self, id: ConnectionId, bytes: &[u8]) -> bool {
        let flows = |phase| matches!(phase, Phase::Streaming | Phase::Sized | Phase::Raw);
        let Some(connection) = self.cx.state(id).filter(|held| flows(held.phase)) else { return false };
        if connection.phase == Phase::Sized {
            let count = self.within_length(id, bytes.len());
            self.shared.exchanges.sent(id, count);
            return self.cx.write(id, &bytes[..count]);
        }
        self.shared.exchanges.sent(id, bytes.len());
        if connection.marks.has(Marks::OLD) || connection.phase == Phase::Raw {
            return self.cx.write(id, bytes);
        }
        let out = &mut self.shared.scratch;
        out.clear();
        encode_chunk(out, bytes);
        self.cx.write(id, out)
    }

    /// Passes parts of a stream to the kernel at once: see [`Context::write_through`]. If the
    /// stream uses chunked coding, each part must already be framed, as [`encode_chunk`] does it.
    /// This way a part that many clients receive is framed only once.
    ///
    /// Returns false if more than [`output_low_bytes`](sealed::Config::output_low_bytes) are left
    /// in the queue, by default if any are; [`Handler::drained`] follows. For a stream whose length
    /// is known, returns whether there is room for more, as [`write`](Self::write) does. Returns
    /// true if the connection has no stream.
    pub fn write_framed(&mut self, id: ConnectionId, chunks: &[Bytes]) -> bool {
        match self.cx.state(id) {
            Some(connection) if matches!(connection.phase, Phase::Streaming | Phase::Raw) => {
                self.shared.exchanges.sent(id, chunks.iter().map(Bytes::len).sum());
                self.cx.write_through(id, chunks)
            }
            Some(connection) if connection.phase == Phase::Sized => {
                chunks.iter().fold(true, |_, chunk| self.write_bytes(id, chunk.clone()))
            }
            _ => true,
        }
    }

    /// Ends a streamed response.
    pub fn end_stream(&mut self, id: ConnectionId) {
        let is_stream = |held: &&Connection<_>| matches!(held.phase, Phase::Streaming | Phase::Sized);
        let Some(connection) = self.cx.state(id).filter(is_stream) else { return };
        if connection.phase == Phase::Sized {
            let is_short = self.shared.unsent.remove(&id).is_some() && !fault!("shorter-than-announced");
            return if is_short { self.cx.reset(id) } else { self.conclude(id) };
        }
        if !connection.marks.has(Marks::OLD) {
            let out = &mut self.shared.scratch;
            out.clear();
            encode_last_chunk(out);
            self.cx.write(id, out);
        }
        self.conclude(id);
    }

    /// Closes a connection after its queued output has been sent: see [`Context::close`].
    pub fn close(&mut self, id: ConnectionId) {
        self.cx.close(id);
    }

    /// Closes a connection at once. If output is queued for it, that output is lost, and the peer
    /// sees a reset.
    pub fn abort(&mut self, id: ConnectionId) {
        self.cx.abort(id);
    }

    /// Returns the handler's state of a connection.
    pub fn state(&self, id: ConnectionId) -> Option<&H::Connection> {
        self.cx.state(id).map(|connection| &connection.state)
    }

    /// Returns the handler's state of a connection for modification.
    pub fn state_mut(&mut self, id: ConnectionId) -> Option<&mut H::Connection> {
        self.cx.state_mut(id).map(|connection| &mut connection.state)
    }

    /// Sets the deadline of an exchange, or of a connection that speaks another protocol. When the
    /// deadline passes, [`Handler::timed_out`] is called. The deadline of an exchange ends with it.
    /// While a request body is being streamed, the server's own limits apply, and this call has no
    /// effect.
    pub fn set_deadline(&mut self, id: ConnectionId, delay: Duration) {
        if self.has_own_deadline(id) {
            self.cx.set_deadline(id, delay);
        }
    }

    /// Returns whether the deadline of a connection belongs to the handler and not to the server.
    pub(crate) fn has_own_deadline(&self, id: ConnectionId) -> bool {
        let is_free = |connection: &Connection<_>| {
            !matches!(connection.phase, Phase::Preface | Phase::Reading) && connection.partial.is_none()
        };
        self.cx.state(id).is_some_and(is_free)
    }

    /// Sets a timer. When it expires, [`Handler::expired`] is called once with this value.
    pub fn set_timer(&mut self, delay: Duration, value: H::Timer) -> TimerId {
        self.cx.set_timer(delay, ServerTimer(Due::Handler(value)))
    }

    /// Sets a periodic timer. [`Handler::expired`] is called after every `period`, each time with
    /// this value.
    pub fn set_interval(&mut self, period: Duration, value: H::Timer) -> TimerId
    where
        H::Timer: Clone,
    {
        self.cx.set_interval(period, ServerTimer(Due::Handler(value)))
    }

    /// Returns the time since 1970 by the calendar clock.
    pub fn unix_time(&self) -> Duration {
        self.cx.unix_time()
    }

    /// Returns the time since the loop's clock was started.
    pub fn now(&self) -> Duration {
        self.cx.now()
    }

    /// Returns 64 random bits, not suitable for secrets.
    pub fn random(&mut self) -> u64 {
        self.cx.random()
    }

    /// Returns 128 random bits suitable for secrets: see [`Context::secret`].
    pub fn secret(&self) -> Option<[u8; 16]> {
        self.cx.secret()
    }

    /// Returns a mailbox through which other threads, and other services of the loop, can post
    /// messages to this handler.
    pub fn mailbox(&self) -> Mailbox<H::Message> {
        self.cx.mailbox()
    }

    /// Changes the settings of the server on this loop. They apply to what arrives from now on;
    /// deadlines that are set stay.
    pub fn set_settings(&mut self, settings: crate::Settings) {
        self.shared.settings = settings;
    }

    /// Starts an orderly shutdown, as a signal does.
    pub fn stop(&mut self) {
        self.cx.stop();
    }

    /// Returns whether the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.cx.is_draining()
    }

    /// Returns how many bytes of output are queued for a connection.
    pub fn queued(&self, id: ConnectionId) -> usize {
        self.cx.queued(id)
    }

    /// Returns the ids of all open connections of this service, including those to upstreams.
    /// Visits every connection.
    pub fn connection_ids(&self) -> Vec<ConnectionId> {
        self.cx.connection_ids()
    }

    /// Returns the number of connections of this service, including those to upstreams, and those
    /// that are being made or are ending.
    pub fn connections(&self) -> usize {
        self.cx.connections()
    }

    /// Completes an exchange: the connection waits for the next request, or is closed.
    fn conclude(&mut self, id: ConnectionId) {
        // Once the client has taken the response, the idle timeout starts.
        let taken = self.shared.settings.write_timeout;
        let (queued, draining) = (how_much(self.cx.queued(id)), self.cx.is_draining());
        // A response that did not fit into the queue has ended the connection.
        self.shared.exchanges.end(id, self.cx.now(), self.cx.is_open(id));
        let Some(connection) = self.cx.state_mut(id) else { return };
        if !fault!("streamed-answer-not-reported") || !connection.marks.has(Marks::BODY_IS_COMING) {
            self.shared.answered.push(id);
        }
        connection.queued = queued;
        // A stream that began before the shutdown is also the last response on its connection. The
        // rest of a body that is no longer wanted is not read.
        let marks = connection.marks;
        let is_ending = draining && !fault!("stream-outlives-shutdown");
        connection.marks.keep_if(!is_ending && !marks.has(Marks::BODY_IS_COMING) && !marks.is_last());
        connection.marks.set(Marks::BODY_IS_COMING, false);
        connection.partial = None;
        if !connection.marks.has(Marks::KEEP_ALIVE) {
            connection.phase = Phase::Over;
            if self.cx.queued(id) <= CLOSE_AT_ONCE_MAX {
                return self.cx.close(id);
            }
            // Discard further input: the client may not read before it has sent everything.
            self.cx.set_deadline(id, taken);
            return self.cx.resume(id);
        }
        connection.phase = Phase::Reading;
        self.cx.set_deadline(id, taken);
        // Input that has already arrived may contain another request.
        self.cx.resume(id);
    }
}

impl<H: Handler> std::fmt::Debug for Http<'_, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("cx", self.cx).finish_non_exhaustive()
    }
}
