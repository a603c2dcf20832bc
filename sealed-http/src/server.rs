//! The server: the codec on a loop's connections, one exchange at a time on each.

use std::time::{Duration, SystemTime};

use sealed::{Address, CloseReason, ConnectionId, Context, Input, ListenerId, Service, TimerId};

use crate::client::{Client, is_outgoing};
use crate::decoder::{Event, RequestDecoder};
use crate::error::DecodeError;
use crate::fetch::{FetchError, FetchId};
use crate::handler::{Handler, Request};
use crate::head::{Method, RequestHead};
use crate::http::Http;
use crate::limits::Limits;
use crate::response::CONTINUE;

/// How long connections between two requests are kept when the server goes down.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What a request may be.
    pub limits: Limits,
    /// For a request to come in whole, from its first byte, or from the connection for the first one. Default 20 s.
    pub request_timeout: Duration,
    /// For a kept-alive connection between two requests, from when the answer to the first has been taken. For
    /// that to happen, this or `request_timeout`, whichever is longer. Default 75 s.
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
    pub(crate) shared: Shared,
}

/// What all connections of a loop share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) scratch: Vec<u8>,
    pub(crate) client: Client,
    date: String,
    date_s: u64,
    /// The tick in which the clock was last looked at, by its time.
    looked: Option<Duration>,
}

/// What a timer of a server's loop is for: the handler's own, or a limit of the client's.
#[derive(Debug, Clone)]
pub struct ServerTimer<T>(pub(crate) Due<T>);

#[derive(Debug, Clone)]
pub(crate) enum Due<T> {
    Handler(T),
    Fetch(FetchId, FetchError),
}

impl Shared {
    /// An empty buffer to encode into, and the `Date` of now, rendered once a second.
    pub(crate) fn encoding<H: Handler>(&mut self, cx: &Context<Server<H>>) -> (&mut Vec<u8>, &str) {
        if self.looked.replace(cx.now()) != Some(cx.now()) {
            let date_s = cx.unix_time().as_secs();
            if self.date_s != date_s || self.date.is_empty() {
                self.date_s = date_s;
                self.date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(date_s));
            }
        }
        self.scratch.clear();
        (&mut self.scratch, &self.date)
    }
}

/// What a server keeps for each connection.
#[derive(Debug)]
pub struct Connection<C> {
    /// A request of which a part has come. Most come whole, and need nothing kept.
    partial: Option<Box<Partial>>,
    pub(crate) phase: Phase,
    pub(crate) version_minor: u8,
    pub(crate) keep_alive: bool,
    pub(crate) head_only: bool,
    pub(crate) state: C,
}

impl<C: Default> Connection<C> {
    /// One that this side makes, to ask something of a server.
    pub(crate) fn outgoing() -> Self {
        Self { phase: Phase::Outgoing, ..Self::default() }
    }
}

impl<C: Default> Default for Connection<C> {
    fn default() -> Self {
        Self {
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
    /// It is this side that asks.
    Outgoing,
}

/// A request that is still coming.
#[derive(Debug, Default)]
struct Partial {
    decoder: RequestDecoder,
    /// Its head, once that is whole.
    head: Vec<u8>,
    body: Vec<u8>,
}

/// What became of looking for the next request.
#[allow(clippy::large_enum_variant)] // matched where it is made
enum Outcome<'a> {
    /// It was in the input whole.
    Whole(Request<'a>),
    /// It is whole now, collected over several reads.
    Collected(Box<Partial>),
    /// More of it is to come.
    Incomplete,
    /// There is nothing of it yet.
    Idle,
}

impl<H: Handler> Server<H> {
    /// A server for one loop.
    pub fn new(settings: Settings, handler: H) -> Self {
        let (scratch, client, date) = (Vec::new(), Client::default(), String::new());
        Self { handler, shared: Shared { settings, scratch, client, date, date_s: 0, looked: None } }
    }

    /// The handler, to be looked at between ticks.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// The handler, and its way to connections, to start something from outside a tick: a loop's parts are a server and
    /// its context.
    pub fn parts<'a>(&'a mut self, cx: &'a mut Context<Self>) -> (&'a mut H, Http<'a, H>) {
        (&mut self.handler, Http { cx, shared: &mut self.shared })
    }

    pub(crate) fn with<R>(&mut self, cx: &mut Context<Self>, call: impl FnOnce(&mut H, &mut Http<'_, H>) -> R) -> R {
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
        let partial = cx.state_mut(id).and_then(|connection| connection.partial.take());
        if let Some(partial) = partial {
            return Self::collect(cx, id, input, partial, limits);
        }
        let mut decoder = RequestDecoder::new();
        let (mut head, mut head_bytes): (Option<RequestHead<'a>>, &'a [u8]) = (None, &[]);
        let mut body: &'a [u8] = &[];
        loop {
            let (taken, event) = decoder.decode(input.bytes(), limits)?;
            let bytes = input.take(taken);
            match event {
                Event::Head(found) => (head, head_bytes) = (Some(found), bytes),
                // The common case: all of the body lies behind its head.
                Event::Data(data) if body.is_empty() => body = data,
                Event::Data(data) => {
                    let partial = Partial { decoder, head: head_bytes.to_vec(), body: [body, data].concat() };
                    return Self::collect(cx, id, input, Box::new(partial), limits);
                }
                Event::End => {
                    // A request does not end before its head.
                    return head.map_or(Err(DecodeError::Poisoned), |head| Ok(Outcome::Whole(Request { head, body })));
                }
                Event::Incomplete if decoder.is_idle() => return Ok(Outcome::Idle),
                Event::Incomplete => {
                    if body.is_empty() && head.is_some_and(|head| head.expects_continue()) {
                        cx.write(id, CONTINUE);
                    }
                    let partial = Partial { decoder, head: head_bytes.to_vec(), body: body.to_vec() };
                    return Ok(Self::keep(cx, id, Box::new(partial)));
                }
            }
        }
    }

    /// Goes on with a request of which a part was kept.
    fn collect<'a>(
        cx: &mut Context<Self>,
        id: ConnectionId,
        input: &mut Input<'a>,
        mut partial: Box<Partial>,
        limits: &Limits,
    ) -> Result<Outcome<'a>, DecodeError> {
        let mut expects_continue = false;
        loop {
            let (taken, event) = partial.decoder.decode(input.bytes(), limits)?;
            let bytes = input.take(taken);
            match event {
                Event::Head(head) => {
                    expects_continue = head.expects_continue();
                    partial.head.extend_from_slice(bytes);
                }
                Event::Data(data) => partial.body.extend_from_slice(data),
                Event::End => return Ok(Outcome::Collected(partial)),
                Event::Incomplete => {
                    if expects_continue && partial.body.is_empty() {
                        cx.write(id, CONTINUE);
                    }
                    return Ok(Self::keep(cx, id, partial));
                }
            }
        }
    }

    fn keep<'a>(cx: &mut Context<Self>, id: ConnectionId, partial: Box<Partial>) -> Outcome<'a> {
        if let Some(connection) = cx.state_mut(id) {
            connection.partial = Some(partial);
        }
        Outcome::Incomplete
    }

    /// Gives a request to the handler, and notes what its answer depends on.
    fn hand_over(&mut self, cx: &mut Context<Self>, id: ConnectionId, request: &Request<'_>) {
        cx.clear_deadline(id);
        if let Some(connection) = cx.state_mut(id) {
            connection.phase = Phase::Answering;
            connection.version_minor = request.head.version_minor();
            connection.keep_alive = request.head.keep_alive();
            connection.head_only = request.head.method() == Method::Head;
        }
        self.with(cx, |handler, http| handler.request(http, id, request));
    }

    /// Answers what cannot be decoded, and lets nothing behind it be read.
    fn refuse(&mut self, cx: &mut Context<Self>, id: ConnectionId, error: DecodeError) {
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
    type Timer = ServerTimer<H::Timer>;

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {
        cx.set_deadline(id, self.shared.settings.request_timeout);
        self.with(cx, |handler, http| handler.accepted(http, id, listener, peer));
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        if is_outgoing(cx.state(id)) {
            return self.response_received(cx, id, input);
        }
        while cx.is_open(id) && cx.state(id).is_some_and(|connection| connection.phase == Phase::Reading) {
            let was_idle = cx.state(id).is_some_and(|connection| connection.partial.is_none());
            match self.decode(cx, id, input) {
                Ok(Outcome::Whole(request)) => self.hand_over(cx, id, &request),
                Ok(Outcome::Collected(partial)) => {
                    match RequestHead::parse(&partial.head, &self.shared.settings.limits) {
                        Ok(head) => self.hand_over(cx, id, &Request { head, body: &partial.body }),
                        Err(error) => return self.refuse(cx, id, error),
                    }
                }
                Ok(Outcome::Incomplete) => {
                    if was_idle {
                        cx.set_deadline(id, self.shared.settings.request_timeout);
                    }
                    return;
                }
                Ok(Outcome::Idle) => return,
                Err(error) => return self.refuse(cx, id, error),
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
            Phase::Outgoing => self.response_ended(cx, id),
        }
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(connection) = cx.state(id) else { return };
        match connection.phase {
            Phase::Streaming => self.with(cx, |handler, http| handler.drained(http, id)),
            Phase::Reading if connection.partial.is_none() && !cx.is_draining() => {
                cx.set_deadline(id, self.shared.settings.idle_timeout);
            }
            Phase::Reading | Phase::Answering | Phase::Over => {}
            Phase::Outgoing => self.outgoing_drained(cx, id),
        }
    }

    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(connection) = cx.state(id) else { return };
        match connection.phase {
            Phase::Answering | Phase::Streaming => self.with(cx, |handler, http| handler.timed_out(http, id)),
            Phase::Reading if connection.partial.is_some() => self.refuse(cx, id, DecodeError::TimedOut),
            Phase::Reading | Phase::Over => cx.close(id),
            Phase::Outgoing => self.outgoing_timed_out(cx, id),
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, connection: Self::Connection, reason: CloseReason) {
        if is_outgoing(Some(&connection)) {
            return self.outgoing_closed(cx, id, reason);
        }
        self.with(cx, |handler, http| handler.closed(http, id, connection.state, reason));
    }

    fn message(&mut self, cx: &mut Context<Self>, message: Self::Message) {
        self.with(cx, |handler, http| handler.message(http, message));
    }

    fn expired(&mut self, cx: &mut Context<Self>, timer: TimerId, value: Self::Timer) {
        match value.0 {
            Due::Handler(value) => self.with(cx, |handler, http| handler.expired(http, timer, value)),
            Due::Fetch(id, error) => self.fail(cx, id, error),
        }
    }

    fn turned(&mut self, cx: &mut Context<Self>) {
        self.with(cx, Handler::turned);
    }

    fn draining(&mut self, cx: &mut Context<Self>, limit: Duration) {
        // A client may just be sending its next request: a moment's grace spares it the doubt whether that was served.
        let grace = (limit / 4).min(DRAIN_GRACE);
        for id in cx.connection_ids() {
            let idle =
                |connection: &Self::Connection| connection.phase == Phase::Reading && connection.partial.is_none();
            if cx.state(id).is_some_and(idle) {
                cx.set_deadline(id, grace);
            }
        }
        self.with(cx, |handler, http| {
            http.close_idle();
            handler.draining(http, limit);
        });
    }
}
