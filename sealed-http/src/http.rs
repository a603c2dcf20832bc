//! What a handler acts through: the loop's context, as HTTP sees it.

use std::time::Duration;

use bytes::Bytes;
use sealed::{ConnectionId, Context, Mailbox, TimerId, fault};

use crate::connection::{Connection, Marks, Phase, how_much};
use crate::handler::Handler;
use crate::response::{Response, encode_chunk, encode_last_chunk};
use crate::server::{Due, Server, ServerTimer, Shared};

/// What is left of an answer when the connection is to be closed behind it: so many bytes the kernel mostly takes at once,
/// and the loop sends them as it closes. More is sent first, at the client's pace.
const CLOSE_AT_ONCE_MAX: usize = 16 * 1024;

/// A handler's way to its connections. An id that is stale, or has nothing to be answered, is harmless: nothing happens.
pub struct Http<'a, H: Handler> {
    pub(crate) cx: &'a mut Context<Server<H>>,
    pub(crate) shared: &'a mut Shared,
}

impl<H: Handler> Http<'_, H> {
    /// Lets what comes first on a new connection be told to [`Handler::preface`], before the first request is looked for. To
    /// be called in [`Handler::accepted`]: later, nothing happens.
    pub fn await_preface(&mut self, id: ConnectionId) {
        let is_new = |held: &&mut Connection<_>| {
            held.phase == Phase::Reading && held.partial.is_none() && !held.marks.has(Marks::ASKED)
        };
        if let Some(connection) = self.cx.state_mut(id).filter(is_new) {
            connection.phase = Phase::Preface;
        }
    }

    /// Answers the request of a connection, whole.
    pub fn respond(&mut self, id: ConnectionId, response: &Response) {
        let draining = self.cx.is_draining();
        let Some(connection) = self.cx.state_mut(id).filter(|held| held.phase == Phase::Answering) else { return };
        let marks = &mut connection.marks;
        let is_unread = marks.has(Marks::BODY_IS_COMING) && !fault!("unread-request-kept");
        marks.keep_if(!draining && !response.closes() && !is_unread && !marks.is_last());
        let (keep_alive, head_only) = (marks.has(Marks::KEEP_ALIVE), marks.has(Marks::HEAD_ONLY));
        let version = marks.version_minor();
        let (out, date) = self.shared.encoding(self.cx);
        let apart = if head_only { None } else { response.body_to_share() };
        response.encode(out, version, keep_alive, head_only || apart.is_some(), date);
        self.cx.write(id, out);
        if let Some(body) = apart {
            self.cx.write_bytes(id, body);
        }
        self.conclude(id);
    }

    /// Starts a response whose body is streamed: in chunks, or until the connection closes for HTTP/1.0. The body of
    /// `response` is not sent. To a HEAD request the answer is complete with this. What is written from then on is the handler's to
    /// watch: see [`write`](Self::write).
    ///
    /// Returns whether the body comes in chunks.
    ///
    /// # Panics
    /// Where the status of `response` cannot have a body: 204 and 304.
    pub fn start_stream(&mut self, id: ConnectionId, response: &Response) -> bool {
        let draining = self.cx.is_draining();
        let Some(connection) = self.cx.state_mut(id).filter(|held| held.phase == Phase::Answering) else {
            return false;
        };
        let marks = &mut connection.marks;
        let chunked = !marks.has(Marks::OLD);
        marks.keep_if(!draining && !response.closes() && chunked && !marks.is_last());
        let (keep_alive, head_only) = (marks.has(Marks::KEEP_ALIVE), marks.has(Marks::HEAD_ONLY));
        let version = marks.version_minor();
        connection.phase = Phase::Streaming;
        let (out, date) = self.shared.encoding(self.cx);
        response.encode_stream_head(out, version, keep_alive, date);
        self.cx.write(id, out);
        if head_only {
            self.conclude(id);
        }
        chunked
    }

    /// Lets the connection speak another protocol: answers with 101 and the header field `Upgrade` that `response` has to
    /// have, or with a status of success to a CONNECT. From then on what comes is told to [`Handler::raw`], beginning with
    /// what has come already; [`write`](Self::write) sends bytes as they are; and neither the server's time limits nor
    /// anything else of HTTP holds: a peer that takes nothing is the handler's to watch.
    ///
    /// Returns false, and does nothing, where the request did not ask for that.
    ///
    /// # Panics
    /// Where the status is neither 101 nor one of success.
    pub fn upgrade(&mut self, id: ConnectionId, response: &Response) -> bool {
        let status = response.status();
        assert!(matches!(status, 101 | 200..300), "no other protocol follows a status of {status}");
        let Some(connection) = self.cx.state_mut(id).filter(|held| held.phase == Phase::Answering) else {
            return false;
        };
        let may_switch = connection.marks.has(Marks::MAY_SWITCH) || fault!("switched-without-asking");
        if !may_switch || connection.partial.is_some() {
            return false;
        }
        connection.phase = Phase::Raw;
        let (out, date) = self.shared.encoding(self.cx);
        response.encode_switch(out, date);
        self.cx.write(id, out);
        // What has come behind the request is shown again.
        self.cx.resume(id);
        true
    }

    /// Reads no more of a body that is streamed, or of another protocol, until [`resume`](Self::resume): the client is slowed
    /// down. Its time limits do not run meanwhile.
    pub fn pause(&mut self, id: ConnectionId) {
        if self.cx.state(id).is_some_and(|connection| connection.partial.is_some()) {
            self.cx.clear_deadline(id);
        }
        self.cx.pause(id);
    }

    /// Goes on reading.
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

    /// Tells the other end, behind what is queued for it, that no more will come, and goes on reading: for connections that
    /// speak another protocol.
    pub fn half_close(&mut self, id: ConnectionId) {
        if self.cx.state(id).is_some_and(|connection| connection.phase == Phase::Raw) {
            self.cx.half_close(id);
        }
    }

    /// Queues a piece of a stream, or bytes of another protocol. Returns whether there is room for more, as
    /// [`Context::write`] does. A peer that takes nothing is not closed by the server, for a stream may well be silent: set a
    /// deadline, and look at [`queued`](Self::queued), or rely on [`sealed::SocketOptions::silence_max`] for those who do not even acknowledge.
    pub fn write(&mut self, id: ConnectionId, bytes: &[u8]) -> bool {
        let flows = |phase| matches!(phase, Phase::Streaming | Phase::Raw);
        let Some(connection) = self.cx.state(id).filter(|held| flows(held.phase)) else { return false };
        if connection.marks.has(Marks::OLD) || connection.phase == Phase::Raw {
            return self.cx.write(id, bytes);
        }
        let out = &mut self.shared.scratch;
        out.clear();
        encode_chunk(out, bytes);
        self.cx.write(id, out)
    }

    /// Hands pieces of a stream to the kernel at once: [`Context::write_through`]. Where the stream comes in chunks,
    /// the pieces have to be framed already, as [`encode_chunk`] frames them: so that what many get is framed once.
    pub fn write_framed(&mut self, id: ConnectionId, chunks: &[Bytes]) -> bool {
        match self.cx.state(id) {
            Some(connection) if matches!(connection.phase, Phase::Streaming | Phase::Raw) => {
                self.cx.write_through(id, chunks)
            }
            _ => true,
        }
    }

    /// Ends a stream.
    pub fn end_stream(&mut self, id: ConnectionId) {
        let Some(connection) = self.cx.state(id).filter(|held| held.phase == Phase::Streaming) else { return };
        if !connection.marks.has(Marks::OLD) {
            let out = &mut self.shared.scratch;
            out.clear();
            encode_last_chunk(out);
            self.cx.write(id, out);
        }
        self.conclude(id);
    }

    /// Closes a connection after what is queued for it has been sent: [`Context::close`].
    pub fn close(&mut self, id: ConnectionId) {
        self.cx.close(id);
    }

    /// Closes a connection at once. Where output is queued for it, that is lost, and the peer sees a reset.
    pub fn abort(&mut self, id: ConnectionId) {
        self.cx.abort(id);
    }

    /// The handler's state of a connection.
    pub fn state(&self, id: ConnectionId) -> Option<&H::Connection> {
        self.cx.state(id).map(|connection| &connection.state)
    }

    /// The handler's state of a connection, to be changed.
    pub fn state_mut(&mut self, id: ConnectionId) -> Option<&mut H::Connection> {
        self.cx.state_mut(id).map(|connection| &mut connection.state)
    }

    /// Sets the deadline of an exchange, for which [`Handler::timed_out`] is called. It ends with the exchange. While a
    /// body is being streamed the server's own limits hold, and nothing is set.
    pub fn set_deadline(&mut self, id: ConnectionId, delay: Duration) {
        if self.has_own_deadline(id) {
            self.cx.set_deadline(id, delay);
        }
    }

    /// Whether a connection's deadline is the handler's and not the server's.
    pub(crate) fn has_own_deadline(&self, id: ConnectionId) -> bool {
        let is_free = |connection: &Connection<_>| {
            !matches!(connection.phase, Phase::Preface | Phase::Reading) && connection.partial.is_none()
        };
        self.cx.state(id).is_some_and(is_free)
    }

    /// Sets a timer, for which [`Handler::expired`] is called once, with this value.
    pub fn set_timer(&mut self, delay: Duration, value: H::Timer) -> TimerId {
        self.cx.set_timer(delay, ServerTimer(Due::Handler(value)))
    }

    /// Sets a timer, for which [`Handler::expired`] is called after every `period`, each time with this value.
    pub fn set_interval(&mut self, period: Duration, value: H::Timer) -> TimerId
    where
        H::Timer: Clone,
    {
        self.cx.set_interval(period, ServerTimer(Due::Handler(value)))
    }

    /// Time since 1970 by the calendar clock.
    pub fn unix_time(&self) -> Duration {
        self.cx.unix_time()
    }

    /// Time since the loop's clock was started.
    pub fn now(&self) -> Duration {
        self.cx.now()
    }

    /// 64 random bits, not for secrets.
    pub fn random(&mut self) -> u64 {
        self.cx.random()
    }

    /// 128 random bits for secrets: [`Context::secret`].
    pub fn secret(&self) -> Option<[u8; 16]> {
        self.cx.secret()
    }

    /// A way for others to post to this loop.
    pub fn mailbox(&self) -> Mailbox<H::Message> {
        self.cx.mailbox()
    }

    /// Starts to go down, as a signal would make it.
    pub fn stop(&mut self) {
        self.cx.stop();
    }

    /// Whether the server is going down.
    pub fn is_draining(&self) -> bool {
        self.cx.is_draining()
    }

    /// Bytes queued for a connection.
    pub fn queued(&self, id: ConnectionId) -> usize {
        self.cx.queued(id)
    }

    /// The ids of all open connections. Costs a walk over all of them.
    pub fn connection_ids(&self) -> Vec<ConnectionId> {
        self.cx.connection_ids()
    }

    /// How many connections there are on this loop.
    pub fn connections(&self) -> usize {
        self.cx.connections()
    }

    /// The exchange is answered: the connection goes on to the next request, or closes.
    fn conclude(&mut self, id: ConnectionId) {
        // When the answer has been taken, the time between two requests begins.
        let taken = self.shared.settings.write_timeout;
        let (queued, draining) = (how_much(self.cx.queued(id)), self.cx.is_draining());
        let Some(connection) = self.cx.state_mut(id) else { return };
        if !fault!("streamed-answer-not-reported") || !connection.marks.has(Marks::BODY_IS_COMING) {
            self.shared.answered.push(id);
        }
        connection.queued = queued;
        // A stream that began before the server went down is the last answer on its connection, too. The rest of a body that
        // nobody wants is not read.
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
            // What still comes is thrown away: the client may not read before it has sent everything.
            self.cx.set_deadline(id, taken);
            return self.cx.resume(id);
        }
        connection.phase = Phase::Reading;
        self.cx.set_deadline(id, taken);
        // Another request may be waiting in what came already.
        self.cx.resume(id);
    }
}

impl<H: Handler> std::fmt::Debug for Http<'_, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("cx", self.cx).finish_non_exhaustive()
    }
}
