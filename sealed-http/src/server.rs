//! The server: the codec on a loop's connections, one exchange at a time on each.

use std::time::{Duration, SystemTime};

use sealed::{Address, CloseReason, ConnectionId, Context, Input, ListenerId, Service, TimerId};

use crate::client::{Client, is_outgoing};
use crate::decoder::{Event, RequestDecoder};
use crate::error::DecodeError;
use crate::fetch::{FetchError, FetchId};
use crate::handler::{Handler, Intake, Piece, Request};
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
    /// For the head of a request to come in, from its first byte, or from the connection for the first one. Default 20 s.
    pub request_timeout: Duration,
    /// For the body of a request to come in, and as much longer as it takes at `body_rate_min`. Default 20 s.
    pub body_timeout: Duration,
    /// Bytes a second at which a body has to come at least, once `body_timeout` is over. Default 1,000.
    pub body_rate_min: u32,
    /// How long a client may take nothing, or less than 1 KiB, of an answer that is whole. One that takes more of it has that
    /// long again.
    /// What is streamed is the handler's to watch. Default 30 s.
    pub write_timeout: Duration,
    /// For a kept-alive connection between two requests, from when the answer to the first has been taken. Default 75 s.
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
    pub(crate) partial: Option<Box<Partial>>,
    /// KiB of an answer that the client had not taken when that was looked at last.
    pub(crate) queued_kib: u16,
    pub(crate) phase: Phase,
    pub(crate) marks: Marks,
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
        Self { partial: None, queued_kib: 0, phase: Phase::Reading, marks: Marks::KEEP_ALIVE, state: C::default() }
    }
}

/// What an answer depends on, a bit each: there is one of these for each idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    /// The client will send more requests, and may.
    pub(crate) const KEEP_ALIVE: Self = Self(1);
    /// Its request is of HTTP/1.0.
    pub(crate) const OLD: Self = Self(1 << 1);
    /// It wants a head, and no body.
    pub(crate) const HEAD_ONLY: Self = Self(1 << 2);
    /// It asked for another protocol.
    pub(crate) const MAY_SWITCH: Self = Self(1 << 3);
    /// The end of its request's body has not been found.
    pub(crate) const BODY_IS_COMING: Self = Self(1 << 4);

    pub(crate) fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    pub(crate) fn set(&mut self, mark: Self, holds: bool) {
        if holds { self.0 |= mark.0 } else { self.0 &= !mark.0 }
    }

    /// Where this does not hold, the connection is closed behind the answer.
    pub(crate) fn keep_if(&mut self, holds: bool) {
        self.set(Self::KEEP_ALIVE, self.has(Self::KEEP_ALIVE) && holds);
    }

    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub(crate) fn version_minor(self) -> u8 {
        u8::from(!self.has(Self::OLD))
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
    /// Another protocol is spoken.
    Raw,
    /// It is this side that asks.
    Outgoing,
}

/// KiB that are queued, as far as they can be counted.
pub(crate) fn in_kib(bytes: usize) -> u16 {
    u16::try_from(bytes / 1024).unwrap_or(u16::MAX)
}

/// A request that is still coming.
#[derive(Debug)]
pub(crate) struct Partial {
    decoder: RequestDecoder,
    /// Its head, once that is whole, unless the body is streamed.
    head: Vec<u8>,
    body: Vec<u8>,
    body_bytes_max: u64,
    /// Since when the body comes, and how much of it has.
    since: Duration,
    received: u64,
    is_streamed: bool,
    pub(crate) is_paused: bool,
}

impl Partial {
    #[allow(clippy::unnecessary_box_returns)] // it is kept in a box
    fn new(now: Duration, decoder: RequestDecoder, head: &[u8], body: &[u8], body_bytes_max: u64) -> Box<Self> {
        Box::new(Self {
            decoder,
            head: head.to_vec(),
            body: body.to_vec(),
            body_bytes_max,
            since: now,
            received: body.len() as u64,
            is_streamed: false,
            is_paused: false,
        })
    }

    /// The time for the body runs from now on.
    pub(crate) fn begin(&mut self, now: Duration) {
        (self.since, self.received, self.is_paused) = (now, 0, false);
    }

    /// When as much of the body has to have come.
    fn due(&self, settings: &Settings) -> Duration {
        let earned = Duration::from_secs(self.received) / settings.body_rate_min.max(1);
        self.since.saturating_add(settings.body_timeout).saturating_add(earned)
    }
}

/// What became of looking for the next request.
#[allow(clippy::large_enum_variant)] // matched where it is made
enum Outcome<'a> {
    /// It was in the input whole.
    Whole(Request<'a>),
    /// It is whole now, collected over several reads.
    Collected(Box<Partial>),
    /// More of its head is to come.
    HeadIncomplete,
    /// More of its body is to come.
    BodyIncomplete,
    /// There is nothing of it yet.
    Idle,
    /// Its head was told to the handler, which has answered, or wants the body as it comes.
    Told,
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
        if let Some(partial) = cx.state_mut(id).and_then(|connection| connection.partial.take()) {
            return self.collect(cx, id, input, partial);
        }
        // How long a body may be is known when the handler has seen its head.
        let mut limits = Limits { body_bytes_max: u64::MAX, ..self.shared.settings.limits };
        let mut decoder = RequestDecoder::new();
        let (mut head, mut head_bytes): (Option<RequestHead<'a>>, &'a [u8]) = (None, &[]);
        let mut body: &'a [u8] = &[];
        loop {
            let (taken, event) = decoder.decode(input.bytes(), &limits)?;
            let bytes = input.take(taken);
            match event {
                Event::Head(found) => {
                    if found.has_body() {
                        match self.admit(cx, id, &found, input)? {
                            Some(most) => limits.body_bytes_max = most,
                            None => return Ok(self.tell(cx, id, decoder)),
                        }
                    }
                    (head, head_bytes) = (Some(found), bytes);
                }
                // The common case: all of the body lies behind its head.
                Event::Data(data) if body.is_empty() => body = data,
                Event::Data(data) => {
                    let mut partial = Partial::new(cx.now(), decoder, head_bytes, body, limits.body_bytes_max);
                    partial.body.extend_from_slice(data);
                    return self.collect(cx, id, input, partial);
                }
                Event::End => {
                    // A request does not end before its head.
                    return head.map_or(Err(DecodeError::Poisoned), |head| Ok(Outcome::Whole(Request { head, body })));
                }
                Event::Incomplete if decoder.is_idle() => return Ok(Outcome::Idle),
                Event::Incomplete => {
                    let partial = Partial::new(cx.now(), decoder, head_bytes, body, limits.body_bytes_max);
                    return Ok(Self::keep(cx, id, partial));
                }
            }
        }
    }

    /// Goes on with a request of which a part was kept.
    fn collect<'a>(
        &mut self,
        cx: &mut Context<Self>,
        id: ConnectionId,
        input: &mut Input<'a>,
        mut partial: Box<Partial>,
    ) -> Result<Outcome<'a>, DecodeError> {
        loop {
            let limits = Limits { body_bytes_max: partial.body_bytes_max, ..self.shared.settings.limits };
            let (taken, event) = partial.decoder.decode(input.bytes(), &limits)?;
            let bytes = input.take(taken);
            match event {
                Event::Head(head) => {
                    if head.has_body() {
                        match self.admit(cx, id, &head, input)? {
                            Some(most) => partial.body_bytes_max = most,
                            None => return Ok(self.tell(cx, id, partial.decoder)),
                        }
                    }
                    partial.head.extend_from_slice(bytes);
                    partial.begin(cx.now());
                }
                Event::Data(data) => partial.body.extend_from_slice(data),
                Event::End => return Ok(Outcome::Collected(partial)),
                Event::Incomplete => {
                    partial.received = partial.body.len() as u64;
                    return Ok(Self::keep(cx, id, partial));
                }
            }
        }
    }

    fn keep<'a>(cx: &mut Context<Self>, id: ConnectionId, partial: Box<Partial>) -> Outcome<'a> {
        let is_in_head = partial.head.is_empty() && !partial.is_streamed;
        if let Some(connection) = cx.state_mut(id) {
            connection.partial = Some(partial);
        }
        if is_in_head { Outcome::HeadIncomplete } else { Outcome::BodyIncomplete }
    }

    /// Asks the handler what is to become of a body. Returns how long it may be, if it is to be collected.
    fn admit(
        &mut self,
        cx: &mut Context<Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
        input: &Input<'_>,
    ) -> Result<Option<u64>, DecodeError> {
        self.note(cx, id, head);
        if let Some(connection) = cx.state_mut(id) {
            connection.marks.set(Marks::BODY_IS_COMING, true);
        }
        let intake = self.with(cx, |handler, http| handler.intake(http, id, head));
        let most = match intake {
            Intake::Collect => Some(self.shared.settings.limits.body_bytes_max),
            Intake::CollectUpTo(most) => Some(most),
            Intake::Stream => None,
            Intake::Refuse(response) => {
                self.with(cx, |_, http| http.respond(id, &response.closing()));
                return Ok(None);
            }
        };
        if most.is_some_and(|most| head.content_length().is_some_and(|length| length > most)) {
            return Err(DecodeError::BodyTooLarge);
        }
        // One that was answered already is not read.
        let Some(connection) = cx.state_mut(id).filter(|connection| connection.marks.has(Marks::BODY_IS_COMING)) else {
            return Ok(None);
        };
        if most.is_some() {
            connection.phase = Phase::Reading;
        }
        // Whoever sends it already does not wait to be asked.
        if head.expects_continue() && input.is_empty() {
            cx.write(id, CONTINUE);
        }
        Ok(most)
    }

    /// The handler has been told of a head: its body is streamed, unless it has been answered.
    fn tell<'a>(&mut self, cx: &mut Context<Self>, id: ConnectionId, decoder: RequestDecoder) -> Outcome<'a> {
        let now = cx.now();
        if let Some(connection) = cx.state_mut(id).filter(|connection| connection.marks.has(Marks::BODY_IS_COMING)) {
            let mut partial = Partial::new(now, decoder, &[], &[], u64::MAX);
            partial.is_streamed = true;
            connection.partial = Some(partial);
            cx.set_deadline(id, self.shared.settings.body_timeout);
        }
        Outcome::Told
    }

    /// Tells the handler what comes of a body that is streamed.
    fn stream(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) -> Result<(), DecodeError> {
        let limits = Limits { body_bytes_max: u64::MAX, ..self.shared.settings.limits };
        while cx.is_open(id) {
            let Some(partial) = cx.state_mut(id).and_then(|connection| connection.partial.as_mut()) else { break };
            if partial.is_paused {
                break;
            }
            let (taken, event) = partial.decoder.decode(input.bytes(), &limits)?;
            input.take(taken);
            partial.received += taken as u64;
            match event {
                Event::Data(data) => self.with(cx, |handler, http| handler.body(http, id, Piece::Data(data))),
                Event::End => {
                    cx.clear_deadline(id);
                    if let Some(connection) = cx.state_mut(id) {
                        connection.partial = None;
                        connection.marks.set(Marks::BODY_IS_COMING, false);
                    }
                    self.with(cx, |handler, http| handler.body(http, id, Piece::End));
                }
                Event::Head(_) | Event::Incomplete => {
                    self.expect_body(cx, id);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sets the time by which more of a body has to have come.
    fn expect_body(&self, cx: &mut Context<Self>, id: ConnectionId) {
        let partial = cx.state(id).and_then(|connection| connection.partial.as_ref());
        if let Some(due) = partial.map(|partial| partial.due(&self.shared.settings)) {
            cx.set_deadline(id, due.saturating_sub(cx.now()));
        }
    }

    /// Gives a request to the handler, and notes what its answer depends on.
    fn hand_over(&mut self, cx: &mut Context<Self>, id: ConnectionId, request: &Request<'_>) {
        cx.clear_deadline(id);
        self.note(cx, id, &request.head);
        self.with(cx, |handler, http| handler.request(http, id, request));
    }

    /// Notes what the answer to a request depends on.
    #[allow(clippy::unused_self)] // it is the server's connection
    fn note(&mut self, cx: &mut Context<Self>, id: ConnectionId, head: &RequestHead<'_>) {
        if let Some(connection) = cx.state_mut(id) {
            connection.phase = Phase::Answering;
            let may_switch = head.upgrade().is_some() || head.method() == Method::Connect;
            connection.marks = Marks(0);
            connection.marks.set(Marks::KEEP_ALIVE, head.keep_alive());
            connection.marks.set(Marks::OLD, head.version_minor() == 0);
            connection.marks.set(Marks::HEAD_ONLY, head.method() == Method::Head);
            connection.marks.set(Marks::MAY_SWITCH, may_switch);
        }
    }

    /// Answers what cannot be decoded, and lets nothing behind it be read.
    fn refuse(&mut self, cx: &mut Context<Self>, id: ConnectionId, error: DecodeError) {
        let response = self.handler.refusal(error).closing();
        if let Some(connection) = cx.state_mut(id) {
            if connection.phase == Phase::Streaming {
                // An answer that has been begun cannot be taken back.
                return cx.abort(id);
            }
            connection.phase = Phase::Answering;
            connection.partial = None;
            connection.marks = Marks(0);
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
        while cx.is_open(id) {
            let Some(connection) = cx.state(id) else { return };
            match connection.phase {
                Phase::Reading => {}
                Phase::Raw if input.is_empty() => return,
                Phase::Raw => return self.with(cx, |handler, http| handler.raw(http, id, input)),
                Phase::Answering | Phase::Streaming if connection.partial.is_some() => {
                    match self.stream(cx, id, input) {
                        Ok(()) if cx.state(id).is_some_and(|connection| connection.phase == Phase::Reading) => continue,
                        Ok(()) => return,
                        Err(error) => return self.refuse(cx, id, error),
                    }
                }
                _ => return,
            }
            let was_idle = connection.partial.is_none();
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
                Ok(Outcome::BodyIncomplete) => return self.expect_body(cx, id),
                Ok(Outcome::Idle) => return,
                Ok(Outcome::Told) => {}
                Err(error) => return self.refuse(cx, id, error),
            }
        }
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(connection) = cx.state_mut(id) else { return };
        match connection.phase {
            Phase::Reading | Phase::Over => cx.close(id),
            // The rest of a body will not come.
            Phase::Answering | Phase::Streaming if connection.partial.is_some() => cx.close(id),
            Phase::Answering | Phase::Streaming | Phase::Raw => {
                connection.marks.keep_if(false);
                self.with(cx, |handler, http| handler.ended(http, id));
            }
            Phase::Outgoing => self.response_ended(cx, id),
        }
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let Some(connection) = cx.state(id) else { return };
        match connection.phase {
            Phase::Streaming | Phase::Raw => self.with(cx, |handler, http| handler.drained(http, id)),
            Phase::Reading if connection.partial.is_none() && !cx.is_draining() => {
                cx.set_deadline(id, self.shared.settings.idle_timeout);
            }
            Phase::Reading | Phase::Answering | Phase::Over => {}
            Phase::Outgoing => self.outgoing_drained(cx, id),
        }
    }

    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        let queued = cx.queued(id);
        let Some(connection) = cx.state_mut(id) else { return };
        match connection.phase {
            Phase::Answering | Phase::Streaming | Phase::Reading if connection.partial.is_some() => {
                self.refuse(cx, id, DecodeError::TimedOut);
            }
            Phase::Answering | Phase::Streaming | Phase::Raw => {
                self.with(cx, |handler, http| handler.timed_out(http, id));
            }
            Phase::Reading if queued > 0 => {
                // It is slow, not dead, where it has taken some of it.
                let now = in_kib(queued);
                if now < std::mem::replace(&mut connection.queued_kib, now) {
                    cx.set_deadline(id, self.shared.settings.write_timeout);
                } else {
                    cx.abort(id);
                }
            }
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
