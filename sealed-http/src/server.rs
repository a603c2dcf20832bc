//! The server: the codec on a loop's connections, one exchange at a time on each.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use sealed::{CloseReason, ConnectionId, Context, Input, ListenerId, Service, TimerId};

use crate::decoder::{Event, RequestDecoder};
use crate::error::DecodeError;
use crate::handler::{Handler, Request};
use crate::head::{Method, RequestHead};
use crate::http::Http;
use crate::limits::Limits;
use crate::response::CONTINUE;

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What a request may be.
    pub limits: Limits,
    /// For a request to come in whole, from its first byte, or from the connection for the first one. Default 20 s.
    pub request_timeout: Duration,
    /// For a kept-alive connection between two requests. Default 75 s.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            request_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(75),
        }
    }
}

/// An HTTP/1.1 server: a [`Service`] that decodes requests for its [`Handler`].
#[derive(Debug)]
pub struct Server<H> {
    handler: H,
    shared: Shared,
}

/// What all connections of a loop share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) scratch: Vec<u8>,
    date: String,
    date_s: u64,
}

impl Shared {
    /// An empty buffer to encode into, and the `Date` of now, rendered once a second.
    pub(crate) fn encoding(&mut self, unix_time: Duration) -> (&mut Vec<u8>, &str) {
        if self.date_s != unix_time.as_secs() || self.date.is_empty() {
            self.date_s = unix_time.as_secs();
            self.date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(self.date_s));
        }
        self.scratch.clear();
        (&mut self.scratch, &self.date)
    }
}

/// What a server keeps for each connection.
#[derive(Debug)]
pub struct Connection<C> {
    decoder: RequestDecoder,
    partial: Option<Box<Partial>>,
    pub(crate) phase: Phase,
    pub(crate) version_minor: u8,
    pub(crate) keep_alive: bool,
    pub(crate) head_only: bool,
    pub(crate) state: C,
}

impl<C: Default> Default for Connection<C> {
    fn default() -> Self {
        Self {
            decoder: RequestDecoder::new(),
            partial: None,
            phase: Phase::Reading,
            version_minor: 1,
            keep_alive: true,
            head_only: false,
            state: C::default(),
        }
    }
}

/// Where a connection is in its exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests, or within one.
    Reading,
    /// The handler has the request.
    Answering,
    /// The handler has started a stream.
    Streaming,
    /// Nothing more will be answered.
    Over,
}

/// A request whose body is still coming.
#[derive(Debug, Default)]
struct Partial {
    head: Vec<u8>,
    body: Vec<u8>,
}

/// What became of looking for the next request.
enum Outcome<'a> {
    Request(RequestHead<'a>, &'a [u8]),
    /// The whole of it is in the connection's `partial`.
    Collected,
    Incomplete,
}

impl<H: Handler> Server<H> {
    /// A server for one loop.
    pub fn new(settings: Settings, handler: H) -> Self {
        Self { handler, shared: Shared { settings, scratch: Vec::new(), date: String::new(), date_s: 0 } }
    }

    /// The handler, to be looked at between ticks.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    fn with<R>(&mut self, cx: &mut Context<Self>, call: impl FnOnce(&mut H, &mut Http<'_, H>) -> R) -> R {
        let mut http = Http { cx, shared: &mut self.shared };
        call(&mut self.handler, &mut http)
    }

    /// Decodes until a request is whole or input runs out.
    fn decode<'a>(
        &mut self,
        cx: &mut Context<Self>,
        id: ConnectionId,
        input: &mut Input<'a>,
    ) -> Result<Outcome<'a>, DecodeError> {
        let limits = &self.shared.settings.limits;
        let Some(connection) = cx.state_mut(id) else { return Ok(Outcome::Incomplete) };
        let mut head: Option<(RequestHead<'a>, &'a [u8])> = None;
        let mut body: &'a [u8] = &[];
        let mut expects_continue = false;
        loop {
            let (taken, event) = connection.decoder.decode(input.bytes(), limits)?;
            let bytes = input.take(taken);
            match event {
                Event::Head(found) => {
                    expects_continue = found.expects_continue();
                    head = Some((found, bytes));
                }
                Event::Data(data) => match &mut connection.partial {
                    Some(partial) => partial.body.extend_from_slice(data),
                    // The common case: all of the body lies behind its head.
                    None if body.is_empty() => body = data,
                    None => {
                        let bytes = head.as_ref().map_or(&[][..], |(_, bytes)| bytes);
                        let body = [std::mem::take(&mut body), data].concat();
                        connection.partial = Some(Box::new(Partial { head: bytes.to_vec(), body }));
                    }
                },
                Event::End => {
                    return Ok(match head {
                        Some((head, _)) if connection.partial.is_none() => Outcome::Request(head, body),
                        _ => Outcome::Collected,
                    });
                }
                Event::Incomplete => {
                    if let (Some((_, bytes)), None) = (&head, &connection.partial) {
                        let partial = Partial { head: bytes.to_vec(), body: body.to_vec() };
                        connection.partial = Some(Box::new(partial));
                    }
                    if expects_continue && body.is_empty() {
                        cx.write(id, CONTINUE);
                    }
                    return Ok(Outcome::Incomplete);
                }
            }
        }
    }

    /// Notes what of a request its answer depends on.
    fn begin(cx: &mut Context<Self>, id: ConnectionId, head: &RequestHead<'_>) {
        cx.clear_deadline(id);
        if let Some(connection) = cx.state_mut(id) {
            connection.phase = Phase::Answering;
            connection.version_minor = head.version_minor();
            connection.keep_alive = head.keep_alive();
            connection.head_only = head.method() == Method::Head;
        }
    }

    /// Answers what cannot be decoded, and lets nothing behind it be read.
    fn refuse(&mut self, cx: &mut Context<Self>, id: ConnectionId, error: &DecodeError) {
        let response = self.handler.refusal(error).closing();
        if let Some(connection) = cx.state_mut(id) {
            connection.phase = Phase::Answering;
            connection.partial = None;
            (connection.version_minor, connection.head_only) = (1, false);
        }
        self.with(cx, |_, http| http.respond(id, &response));
    }
}

impl<H: Handler> Service for Server<H> {
    type Connection = Connection<H::Connection>;
    type Message = H::Message;

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, listener: ListenerId, peer: SocketAddr) {
        cx.set_deadline(id, self.shared.settings.request_timeout);
        self.with(cx, |handler, http| handler.accepted(http, id, listener, peer));
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while cx.is_open(id) && cx.state(id).is_some_and(|connection| connection.phase == Phase::Reading) {
            let was_idle = cx.state(id).is_some_and(|connection| connection.decoder.is_idle());
            match self.decode(cx, id, input) {
                Ok(Outcome::Request(head, body)) => {
                    Self::begin(cx, id, &head);
                    let request = Request { head, body };
                    self.with(cx, |handler, http| handler.request(http, id, &request));
                }
                Ok(Outcome::Collected) => {
                    let Some(partial) = cx.state_mut(id).and_then(|connection| connection.partial.take()) else {
                        return;
                    };
                    match RequestHead::parse(&partial.head, &self.shared.settings.limits) {
                        Ok(head) => {
                            Self::begin(cx, id, &head);
                            let request = Request { head, body: &partial.body };
                            self.with(cx, |handler, http| handler.request(http, id, &request));
                        }
                        Err(error) => self.refuse(cx, id, &error),
                    }
                }
                Ok(Outcome::Incomplete) => {
                    let is_idle = cx.state(id).is_none_or(|connection| connection.decoder.is_idle());
                    if was_idle && !is_idle {
                        cx.set_deadline(id, self.shared.settings.request_timeout);
                    }
                    return;
                }
                Err(error) => return self.refuse(cx, id, &error),
            }
        }
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(connection) = cx.state_mut(id) else { return };
        match connection.phase {
            Phase::Reading | Phase::Over => cx.close(id),
            Phase::Answering | Phase::Streaming => {
                connection.keep_alive = false;
                self.with(cx, |handler, http| handler.ended(http, id));
            }
        }
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        if cx.state(id).is_some_and(|connection| connection.phase == Phase::Streaming) {
            self.with(cx, |handler, http| handler.drained(http, id));
        }
    }

    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(connection) = cx.state(id) else { return };
        match connection.phase {
            Phase::Answering | Phase::Streaming => self.with(cx, |handler, http| handler.timed_out(http, id)),
            Phase::Reading if !connection.decoder.is_idle() => self.refuse(cx, id, &DecodeError::TimedOut),
            Phase::Reading | Phase::Over => cx.close(id),
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, connection: Self::Connection, reason: CloseReason) {
        self.with(cx, |handler, http| handler.closed(http, id, connection.state, reason));
    }

    fn message(&mut self, cx: &mut Context<Self>, message: Self::Message) {
        self.with(cx, |handler, http| handler.message(http, message));
    }

    fn expired(&mut self, cx: &mut Context<Self>, timer: TimerId) {
        self.with(cx, |handler, http| handler.expired(http, timer));
    }

    fn turned(&mut self, cx: &mut Context<Self>) {
        self.with(cx, Handler::turned);
    }

    fn draining(&mut self, cx: &mut Context<Self>, limit: Duration) {
        for id in cx.connection_ids() {
            let idle = |connection: &Self::Connection| {
                connection.phase == Phase::Reading && connection.decoder.is_idle() && connection.partial.is_none()
            };
            if cx.state(id).is_some_and(idle) {
                cx.close(id);
            }
        }
        self.with(cx, |handler, http| handler.draining(http, limit));
    }
}
