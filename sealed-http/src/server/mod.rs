//! The server: runs the codec on a loop's connections, one exchange at a time on each, and passes
//! requests to a [`Handler`]. The handler acts through its [`Http`].

pub(crate) mod connection;
mod exchange;
pub(crate) mod handler;
pub(crate) mod http;
pub(crate) mod intake;
mod loop_context;

pub use connection::Connection;
pub use exchange::Exchange;
pub use handler::{Handler, Intake, Piece, Preface, Request};
pub use http::Http;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use sealed::{Address, CloseReason, ConnectionId, Context, Input, ListenerId, Panic, Service, TimerId, fault};

use crate::client::fetch::{FetchError, FetchId};
use crate::client::{Client, is_outgoing};
use crate::codec::error::DecodeError;
use crate::codec::head::RequestHead;
use crate::codec::limits::Limits;
use crate::server::connection::{Marks, Phase, how_much};
use crate::server::exchange::Exchanges;
use crate::server::intake::Outcome;

/// How long idle connections between two requests are kept during a shutdown.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// Limits and timeouts of a server. Take the fields that you do not set from [`Default`]: a minor
/// version may add fields.
///
/// ```
/// use std::time::Duration;
/// use sealed_http::Settings;
/// use sealed_http::codec::Limits;
///
/// let limits = Limits { body_bytes_max: 64 * 1024, ..Limits::default() };
/// let settings = Settings { limits, idle_timeout: Duration::from_secs(10), ..Settings::default() };
/// # let _ = settings;
/// ```
#[derive(Debug, Clone)]
pub struct Settings {
    /// Size limits of requests.
    pub limits: Limits,
    /// Time allowed for the head of a request to arrive, from its first byte; for the first request
    /// of a connection, from the start of the connection. When it is over, the client gets 408, or
    /// just the end if nothing of a request has arrived. Default 20 s.
    pub request_timeout: Duration,
    /// Time allowed for a body, at first. Every `body_rate_min` bytes extend what is left by one
    /// second, up to this value. When it is used up, the client gets 408. Default 20 s.
    pub body_timeout: Duration,
    /// Minimum rate of a request body in the long run, in bytes per second. Default 1,000.
    pub body_rate_min: u32,
    /// Time within which a client must take at least 1 KiB of a complete response. A client that
    /// does so gets the same time again; otherwise the connection is reset. The handler itself has
    /// to watch streamed responses. Default 30 s.
    pub write_timeout: Duration,
    /// Time that a keep-alive connection may stay idle between two requests, from when the client
    /// has taken the response to the first. Then it is closed. Default 75 s.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            request_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(20),
            body_rate_min: 1_000,
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
        }
    }
}

/// An HTTP/1.1 server: a [`Service`] that decodes requests and passes them to its [`Handler`].
#[derive(Debug)]
pub struct Server<H> {
    handler: H,
    pub(crate) shared: Shared,
}

/// State that all connections of a loop share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) scratch: Vec<u8>,
    pub(crate) client: Client,
    /// Connections whose response is complete and not yet reported to the handler.
    pub(crate) answered: Vec<ConnectionId>,
    /// The number of bytes that are missing in each response that is streamed with a length.
    pub(crate) unsent: HashMap<ConnectionId, u64>,
    pub(crate) exchanges: Exchanges,
    date: String,
    date_s: u64,
    /// The time of the tick in which the clock was last read.
    looked: Option<Duration>,
}

/// The purpose of a timer on a server's loop: a timer of the handler, or a time limit of the
/// client.
#[derive(Debug, Clone)]
pub struct ServerTimer<T>(pub(crate) Due<T>);

#[derive(Debug, Clone)]
pub(crate) enum Due<T> {
    Handler(T),
    Fetch(FetchId, FetchError),
}

impl Shared {
    /// Returns an empty buffer to encode into, and the current `Date`, which is rendered once a
    /// second.
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

impl<H: Handler> Server<H> {
    /// Creates a server for one loop.
    pub fn new(settings: Settings, handler: H) -> Self {
        let exchanges = Exchanges::new(handler.logs_exchanges());
        let shared = Shared {
            settings,
            scratch: Vec::new(),
            client: Client::default(),
            answered: Vec::new(),
            unsent: HashMap::new(),
            exchanges,
            date: String::new(),
            date_s: 0,
            looked: None,
        };
        Self { handler, shared }
    }

    /// Returns the handler, to be inspected between ticks.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Returns the handler and its access to connections, for use between ticks. `cx` comes from
    /// [`EventLoop::parts`](sealed::EventLoop::parts), as this server does.
    ///
    /// ```
    /// # use sealed::{Config, EventLoop};
    /// # use sealed_http::{Server, Settings, Site};
    /// let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Site::new(())))?;
    /// let (server, cx) = event_loop.parts();
    /// let (_site, mut http) = server.parts(cx);
    /// println!("listening on {}", http.listen("127.0.0.1:0")?.address);
    /// # Ok::<(), sealed::Error>(())
    /// ```
    pub fn parts<'a>(&'a mut self, cx: &'a mut Context<Self>) -> (&'a mut H, Http<'a, H>) {
        (&mut self.handler, Http { cx, shared: &mut self.shared })
    }

    pub(crate) fn with<R>(&mut self, cx: &mut Context<Self>, call: impl FnOnce(&mut H, &mut Http<'_, H>) -> R) -> R {
        let mut http = Http { cx, shared: &mut self.shared };
        let outcome = call(&mut self.handler, &mut http);
        while let Some(id) = http.shared.answered.pop() {
            self.handler.answered(&mut http, id);
        }
        self.report_ended(cx);
        outcome
    }

    /// Reports the exchanges that have ended to the handler.
    fn report_ended(&mut self, cx: &mut Context<Self>) {
        for (id, exchange) in self.shared.exchanges.take_ended() {
            let mut http = Http { cx: &mut *cx, shared: &mut self.shared };
            self.handler.exchanged(&mut http, id, &exchange);
        }
    }

    /// Passes a request to the handler, and records the properties on which its response depends.
    fn hand_over(&mut self, cx: &mut Context<Self>, id: ConnectionId, request: &Request<'_>) {
        cx.clear_deadline(id);
        self.note(cx, id, &request.head);
        self.with(cx, |handler, http| handler.request(http, id, request));
    }

    /// Answers a request that cannot be decoded, and lets nothing after it be read.
    fn refuse(&mut self, cx: &mut Context<Self>, id: ConnectionId, error: DecodeError) {
        let response = self.handler.refusal(error).closing();
        if let Some(connection) = cx.state_mut(id) {
            if matches!(connection.phase, Phase::Streaming | Phase::Sized) {
                // A response that has begun cannot be taken back. It must not seem complete either,
                // as a response that ends with its connection would.
                return cx.reset(id);
            }
            connection.phase = Phase::Answering;
            connection.partial = None;
            connection.marks = connection.marks.of_next_request();
        }
        self.with(cx, |_, http| http.respond(id, &response));
    }

    /// Consumes as much of the input as can be used.
    fn take(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while cx.is_open(id) {
            let Some(connection) = cx.state(id) else { return };
            match connection.phase {
                Phase::Preface => match self.with(cx, |handler, http| handler.preface(http, id, input)) {
                    Preface::Over => {
                        if let Some(connection) = cx.state_mut(id) {
                            connection.phase = Phase::Reading;
                        }
                        continue;
                    }
                    Preface::Incomplete if !input.is_full() => return,
                    Preface::Incomplete | Preface::Wrong => return cx.abort(id),
                },
                // A client that takes none of its responses gets no more of them.
                Phase::Reading if connection.partial.is_none() && !cx.has_room(id) => return,
                Phase::Reading => {}
                Phase::Raw if input.is_empty() => return,
                Phase::Raw => return self.with(cx, |handler, http| handler.raw(http, id, input)),
                Phase::Answering | Phase::Streaming | Phase::Sized if connection.partial.is_some() => {
                    match self.stream(cx, id, input) {
                        Ok(()) if cx.state(id).is_some_and(|connection| connection.phase == Phase::Reading) => continue,
                        Ok(()) => return,
                        Err(error) => return self.refuse(cx, id, error),
                    }
                }
                Phase::Over => {
                    input.take_all();
                    return;
                }
                _ => return,
            }
            let was_idle = connection.partial.is_none() && connection.marks.has(Marks::ASKED);
            match self.decode(cx, id, input) {
                Ok(Outcome::Whole(request)) => self.hand_over(cx, id, &request),
                Ok(Outcome::Collected(partial)) => {
                    match RequestHead::parse(&partial.head, &self.shared.settings.limits) {
                        Ok(head) => self.hand_over(cx, id, &Request { head, body: &partial.body }),
                        Err(error) => return self.refuse(cx, id, error),
                    }
                }
                Ok(Outcome::HeadIncomplete) => {
                    if was_idle {
                        cx.set_deadline(id, self.shared.settings.request_timeout);
                    }
                    return;
                }
                Ok(Outcome::BodyIncomplete) => return Self::expect_body(cx, id),
                Ok(Outcome::Idle) => return,
                Ok(Outcome::HandedOver) => {}
                Err(error) => return self.refuse(cx, id, error),
            }
        }
    }
}

impl<H: Handler> Service for Server<H> {
    type Connection = Connection<H::Connection>;
    type Message = H::Message;
    type Timer = ServerTimer<H::Timer>;

    fn started(&mut self, cx: &mut Context<Self>) {
        self.with(cx, Handler::started);
    }

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {
        cx.set_deadline(id, self.shared.settings.request_timeout);
        self.with(cx, |handler, http| handler.accepted(http, id, listener, peer));
    }

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        // Connections of the client already have their request queued.
        if !is_outgoing(cx.state(id)) {
            self.with(cx, |handler, http| handler.connected(http, id));
        }
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        if is_outgoing(cx.state(id)) {
            return self.response_received(cx, id, input);
        }
        if let Some(connection) = cx.state_mut(id) {
            connection.marks.set(Marks::INPUT_LEFT, true);
        }
        self.take(cx, id, input);
        let Some(connection) = cx.state_mut(id) else { return };
        connection.marks.set(Marks::INPUT_LEFT, !input.is_empty());
        // After the client's end, a request that has begun stays incomplete; a request that still
        // waits in the input is answered.
        let is_last = connection.partial.is_some() || input.is_empty();
        let is_over = match connection.phase {
            Phase::Preface => true,
            Phase::Reading => is_last,
            _ => false,
        };
        if is_over && connection.marks.has(Marks::ENDED) {
            cx.close(id);
        }
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(connection) = cx.state_mut(id) else { return };
        connection.marks.set(Marks::ENDED, true);
        match connection.phase {
            // Requests that arrived before the end are still answered, once there is room for
            // output.
            Phase::Reading if connection.partial.is_none() && connection.marks.has(Marks::INPUT_LEFT) => {}
            // The connection is closed once the client has taken its response.
            Phase::Over => {}
            Phase::Preface | Phase::Reading => cx.close(id),
            // The rest of the body will not arrive.
            Phase::Answering | Phase::Streaming | Phase::Sized if connection.partial.is_some() => cx.close(id),
            Phase::Answering | Phase::Streaming | Phase::Sized | Phase::Raw => {
                self.with(cx, |handler, http| handler.ended(http, id));
            }
            Phase::Outgoing => self.response_ended(cx, id),
        }
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(connection) = cx.state(id) else { return };
        match connection.phase {
            Phase::Streaming | Phase::Sized | Phase::Raw => self.with(cx, |handler, http| handler.drained(http, id)),
            Phase::Reading if connection.partial.is_none() => {
                let has_asked_more = connection.marks.has(Marks::INPUT_LEFT);
                if !cx.is_draining() {
                    cx.set_deadline(id, self.shared.settings.idle_timeout);
                }
                if has_asked_more {
                    cx.resume(id);
                }
            }
            Phase::Preface | Phase::Reading | Phase::Answering => {}
            Phase::Over => cx.close(id),
            Phase::Outgoing => self.outgoing_drained(cx, id),
        }
    }

    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let (queued, is_draining) = (cx.queued(id), cx.is_draining());
        let Some(connection) = cx.state_mut(id) else { return };
        match connection.phase {
            Phase::Answering | Phase::Streaming | Phase::Sized | Phase::Reading if connection.partial.is_some() => {
                self.refuse(cx, id, DecodeError::TimedOut);
            }
            Phase::Answering | Phase::Streaming | Phase::Sized | Phase::Raw => {
                self.with(cx, |handler, http| handler.timed_out(http, id));
            }
            Phase::Over if is_draining => cx.close(id),
            Phase::Reading | Phase::Over if queued > 0 => {
                // A client that has taken some of the output is slow, not dead.
                let now = how_much(queued);
                if now < std::mem::replace(&mut connection.queued, now) && !fault!("slow-answer-cut-off") {
                    cx.set_deadline(id, self.shared.settings.write_timeout);
                } else {
                    // Otherwise the kernel would keep offering what it holds, and use memory for as
                    // long as this client likes.
                    cx.reset(id);
                }
            }
            Phase::Preface | Phase::Reading | Phase::Over => cx.close(id),
            Phase::Outgoing => self.outgoing_timed_out(cx, id),
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: ConnectionId, connection: Self::Connection, reason: CloseReason) {
        if is_outgoing(Some(&connection)) {
            return self.outgoing_closed(cx, id, reason);
        }
        if !self.shared.unsent.is_empty() {
            self.shared.unsent.remove(&id);
        }
        self.shared.exchanges.end(id, cx.now(), false);
        self.report_ended(cx);
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

    fn panicked(&mut self, cx: &mut Context<Self>, id: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        self.with(cx, |handler, http| handler.panicked(http, id, payload))
    }

    fn signalled(&mut self, cx: &mut Context<Self>, signal: i32) {
        self.with(cx, |handler, http| handler.signalled(http, signal));
    }

    fn turned(&mut self, cx: &mut Context<Self>) {
        self.with(cx, Handler::turned);
    }

    fn draining(&mut self, cx: &mut Context<Self>, limit: Duration) {
        // A client may just be sending its next request: a short grace period spares the client the
        // doubt whether that request was processed.
        let grace = (limit / 4).min(DRAIN_GRACE);
        for id in cx.connection_ids() {
            let idle = |connection: &Self::Connection| {
                matches!(connection.phase, Phase::Preface | Phase::Reading) && connection.partial.is_none()
            };
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
