//! Assembles requests. A request that arrives in one read is passed on as it is; a request that
//! arrives in pieces is collected. The handler decides what happens to a body when the head has
//! arrived.

use std::time::Duration;

use sealed::{ConnectionId, Context, Input, fault};

use crate::codec::decoder::{Event, RequestDecoder};
use crate::codec::error::DecodeError;
use crate::codec::head::{Method, RequestHead};
use crate::codec::limits::Limits;
use crate::codec::response::CONTINUE;
use crate::server::connection::{Marks, Phase};
use crate::server::handler::{Handler, Intake, Piece, Request};
use crate::server::{Server, Settings};

/// A request that is being received.
#[derive(Debug)]
pub(crate) struct Partial {
    decoder: RequestDecoder,
    /// The head, once complete, unless the body is streamed.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
    body_bytes_max: u64,
    /// The time by which more of the body must have arrived.
    due: Duration,
    is_streamed: bool,
}

impl Partial {
    #[allow(clippy::unnecessary_box_returns)] // the connection keeps the box
    fn new(decoder: RequestDecoder, head: &[u8], body: &[u8], body_bytes_max: u64) -> Box<Self> {
        Box::new(Self {
            decoder,
            head: head.to_vec(),
            body: body.to_vec(),
            body_bytes_max,
            due: Duration::ZERO,
            is_streamed: false,
        })
    }

    /// Starts the time limit for the body.
    pub(crate) fn begin(&mut self, now: Duration, settings: &Settings) {
        let from = if fault!("body-time-not-begun") { self.due.min(now) } else { now };
        self.due = from.saturating_add(settings.body_timeout);
    }

    /// Extends the time limit because bytes have arrived, but never beyond `body_timeout` from now.
    /// Otherwise a client that sends much at first could then be silent for as long as it likes.
    fn earn(&mut self, bytes: usize, now: Duration, settings: &Settings) {
        let bytes = if fault!("body-earns-too-little") { bytes.min(1) } else { bytes };
        let earned = Duration::from_secs(bytes as u64) / settings.body_rate_min.max(1);
        self.due = self.due.saturating_add(earned).min(now.saturating_add(settings.body_timeout));
    }
}

/// The result of looking for the next request.
#[allow(clippy::large_enum_variant)] // matched where it is created
pub(crate) enum Outcome<'a> {
    /// The request was completely in the input.
    Whole(Request<'a>),
    /// The request is complete, collected over several reads.
    Collected(Box<Partial>),
    /// The head is incomplete.
    HeadIncomplete,
    /// The body is incomplete.
    BodyIncomplete,
    /// Nothing of the next request has arrived.
    Idle,
    /// The head was passed to the handler, which has responded or streams the body.
    HandedOver,
}

impl<H: Handler> Server<H> {
    /// Decodes until a request is complete or the input runs out.
    pub(crate) fn decode<'a>(
        &mut self,
        cx: &mut Context<Self>,
        id: ConnectionId,
        input: &mut Input<'a>,
    ) -> Result<Outcome<'a>, DecodeError> {
        if let Some(partial) = cx.state_mut(id).and_then(|connection| connection.partial.take()) {
            return self.collect(cx, id, input, partial);
        }
        // The limit for the body is known only once the handler has seen the head.
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
                // The common case: the whole body follows its head in the input.
                Event::Data(data) if body.is_empty() => body = data,
                Event::Data(data) => {
                    let mut partial = Partial::new(decoder, head_bytes, body, limits.body_bytes_max);
                    partial.body.extend_from_slice(data);
                    partial.begin(cx.now(), &self.shared.settings);
                    return self.collect(cx, id, input, partial);
                }
                Event::End => {
                    // A request cannot end before its head.
                    return head.map_or(Err(DecodeError::Poisoned), |head| Ok(Outcome::Whole(Request { head, body })));
                }
                Event::Incomplete if decoder.is_idle() => return Ok(Outcome::Idle),
                Event::Incomplete => {
                    let mut partial = Partial::new(decoder, head_bytes, body, limits.body_bytes_max);
                    partial.begin(cx.now(), &self.shared.settings);
                    return Ok(Self::keep(cx, id, partial));
                }
            }
        }
    }

    /// Continues a request that was kept in part.
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
                    partial.begin(cx.now(), &self.shared.settings);
                }
                Event::Data(data) => {
                    if fault!("last-piece-kept-only") {
                        partial.body.clear();
                    }
                    partial.body.extend_from_slice(data);
                    partial.earn(data.len(), cx.now(), &self.shared.settings);
                }
                Event::End => return Ok(Outcome::Collected(partial)),
                Event::Incomplete => return Ok(Self::keep(cx, id, partial)),
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

    /// Asks the handler what to do with a body. Returns the maximum size of a body that is to be
    /// collected.
    fn admit(
        &mut self,
        cx: &mut Context<Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
        input: &mut Input<'_>,
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
            Intake::Answer(response) => {
                let at_hand = input.bytes().len();
                let length = head.content_length().and_then(|length| usize::try_from(length).ok());
                if let Some(length) = length.filter(|length| *length <= at_hand) {
                    if !fault!("answered-body-left") {
                        input.take(length);
                    }
                    if let Some(connection) = cx.state_mut(id) {
                        connection.marks.set(Marks::BODY_IS_COMING, false);
                    }
                }
                self.with(cx, |_, http| http.respond(id, &response));
                return Ok(None);
            }
        };
        let is_open = cx.is_open(id) || fault!("ended-request-goes-on");
        // If the handler has already responded, the body is not read.
        let Some(connection) = cx.state_mut(id).filter(|connection| connection.marks.has(Marks::BODY_IS_COMING)) else {
            return Ok(None);
        };
        if !is_open {
            // The handler has ended the connection, and with it the request.
            connection.marks.set(Marks::BODY_IS_COMING, false);
            return Ok(None);
        }
        // If the handler has started a response, the body can only be streamed.
        let most = most.filter(|_| connection.phase == Phase::Answering || fault!("begun-answer-collects"));
        if most.is_some_and(|most| head.content_length().is_some_and(|length| length > most)) {
            return Err(DecodeError::BodyTooLarge);
        }
        if most.is_some() {
            connection.phase = Phase::Reading;
        }
        // A client that already sends the body does not wait for `100 Continue`.
        if head.expects_continue() && (input.is_empty() || fault!("sent-body-asked-for")) {
            cx.write(id, CONTINUE);
        }
        Ok(most)
    }

    /// Begins to stream the body after the handler has seen the head, unless the handler has
    /// responded.
    fn tell<'a>(&mut self, cx: &mut Context<Self>, id: ConnectionId, decoder: RequestDecoder) -> Outcome<'a> {
        let now = cx.now();
        if let Some(connection) = cx.state_mut(id).filter(|connection| connection.marks.has(Marks::BODY_IS_COMING)) {
            let mut partial = Partial::new(decoder, &[], &[], u64::MAX);
            partial.is_streamed = true;
            partial.begin(now, &self.shared.settings);
            connection.partial = Some(partial);
            if cx.is_paused(id) {
                cx.clear_deadline(id);
            } else {
                cx.set_deadline(id, self.shared.settings.body_timeout);
            }
        }
        Outcome::HandedOver
    }

    /// Passes the parts of a streamed body to the handler.
    pub(crate) fn stream(
        &mut self,
        cx: &mut Context<Self>,
        id: ConnectionId,
        input: &mut Input<'_>,
    ) -> Result<(), DecodeError> {
        let limits = Limits { body_bytes_max: u64::MAX, ..self.shared.settings.limits };
        let now = cx.now();
        while cx.is_open(id) {
            let is_paused = cx.is_paused(id);
            let Some(partial) = cx.state_mut(id).and_then(|connection| connection.partial.as_mut()) else { break };
            // The end needs no more input, and no input may ever arrive that would trigger its
            // report.
            if is_paused && !partial.decoder.is_at_end() && !fault!("paused-given-the-rest") {
                break;
            }
            let (taken, event) = partial.decoder.decode(input.bytes(), &limits)?;
            input.take(taken);
            match event {
                Event::Data(data) => {
                    partial.earn(data.len(), now, &self.shared.settings);
                    self.with(cx, |handler, http| handler.body(http, id, Piece::Data(data)));
                }
                Event::End => {
                    cx.clear_deadline(id);
                    if is_paused {
                        cx.resume(id);
                    }
                    if let Some(connection) = cx.state_mut(id) {
                        connection.partial = None;
                        connection.marks.set(Marks::BODY_IS_COMING, false);
                    }
                    self.with(cx, |handler, http| handler.body(http, id, Piece::End));
                }
                Event::Head(_) | Event::Incomplete => {
                    Self::expect_body(cx, id);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sets the deadline by which more of the body must arrive.
    pub(crate) fn expect_body(cx: &mut Context<Self>, id: ConnectionId) {
        let partial = cx.state(id).and_then(|connection| connection.partial.as_ref());
        if let Some(due) = partial.map(|partial| partial.due) {
            cx.set_deadline(id, due.saturating_sub(cx.now()));
        }
    }

    /// Records the properties of a request on which its response depends.
    pub(crate) fn note(&mut self, cx: &mut Context<Self>, id: ConnectionId, head: &RequestHead<'_>) {
        self.shared.exchanges.begin(id, cx.now(), head);
        if let Some(connection) = cx.state_mut(id) {
            connection.phase = Phase::Answering;
            let may_switch = head.upgrade().is_some() || head.method() == Method::Connect;
            connection.marks = connection.marks.of_next_request();
            // Bytes after a refused CONNECT may be meant for the tunnel.
            connection.marks.set(Marks::KEEP_ALIVE, head.keep_alive() && head.method() != Method::Connect);
            connection.marks.set(Marks::OLD, head.version_minor() == 0);
            connection.marks.set(Marks::HEAD_ONLY, head.method() == Method::Head);
            connection.marks.set(Marks::MAY_SWITCH, may_switch);
        }
    }
}
