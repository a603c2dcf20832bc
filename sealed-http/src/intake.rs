//! From bytes to a request: what came in one read is handed over as it is, what comes in pieces is kept, and what becomes of a
//! body is asked when its head has come.

use std::time::Duration;

use sealed::{ConnectionId, Context, Input, fault};

use crate::connection::{Marks, Phase};
use crate::decoder::{Event, RequestDecoder};
use crate::error::DecodeError;
use crate::handler::{Handler, Intake, Piece, Request};
use crate::head::{Method, RequestHead};
use crate::limits::Limits;
use crate::response::CONTINUE;
use crate::server::{Server, Settings};

/// A request that is still coming.
#[derive(Debug)]
pub(crate) struct Partial {
    decoder: RequestDecoder,
    /// Its head, once that is whole, unless the body is streamed.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
    body_bytes_max: u64,
    /// When more of the body has to have come.
    due: Duration,
    is_streamed: bool,
}

impl Partial {
    #[allow(clippy::unnecessary_box_returns)] // it is kept in a box
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

    /// The time for the body runs from now on.
    pub(crate) fn begin(&mut self, now: Duration, settings: &Settings) {
        let from = if fault!("body-time-not-begun") { self.due.min(now) } else { now };
        self.due = from.saturating_add(settings.body_timeout);
    }

    /// Bytes came: that earns time, but never more than `body_timeout` from now on, or who sends much at first could
    /// be silent for as long as they like.
    fn earn(&mut self, bytes: usize, now: Duration, settings: &Settings) {
        let bytes = if fault!("body-earns-too-little") { bytes.min(1) } else { bytes };
        let earned = Duration::from_secs(bytes as u64) / settings.body_rate_min.max(1);
        self.due = self.due.saturating_add(earned).min(now.saturating_add(settings.body_timeout));
    }
}

/// What became of looking for the next request.
#[allow(clippy::large_enum_variant)] // matched where it is made
pub(crate) enum Outcome<'a> {
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
    /// Decodes until a request is whole or input runs out.
    pub(crate) fn decode<'a>(
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
                    let mut partial = Partial::new(decoder, head_bytes, body, limits.body_bytes_max);
                    partial.body.extend_from_slice(data);
                    partial.begin(cx.now(), &self.shared.settings);
                    return self.collect(cx, id, input, partial);
                }
                Event::End => {
                    // A request does not end before its head.
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

    /// Asks the handler what is to become of a body. Returns how long it may be, if it is to be collected.
    fn admit(
        &mut self,
        cx: &mut Context<Self>,
        id: ConnectionId,
        head: &RequestHead<'_>,
        input: &mut Input<'_>,
    ) -> Result<Option<u64>, DecodeError> {
        Self::note(cx, id, head);
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
        if head.expects_continue() && (input.is_empty() || fault!("sent-body-asked-for")) {
            cx.write(id, CONTINUE);
        }
        Ok(most)
    }

    /// The handler has been told of a head: its body is streamed, unless it has been answered.
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
        Outcome::Told
    }

    /// Tells the handler what comes of a body that is streamed.
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
            // The end needs no more input, and none may ever come to tell it with.
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

    /// Sets the time by which more of a body has to have come.
    pub(crate) fn expect_body(cx: &mut Context<Self>, id: ConnectionId) {
        let partial = cx.state(id).and_then(|connection| connection.partial.as_ref());
        if let Some(due) = partial.map(|partial| partial.due) {
            cx.set_deadline(id, due.saturating_sub(cx.now()));
        }
    }

    /// Notes what the answer to a request depends on.
    pub(crate) fn note(cx: &mut Context<Self>, id: ConnectionId, head: &RequestHead<'_>) {
        if let Some(connection) = cx.state_mut(id) {
            connection.phase = Phase::Answering;
            let may_switch = head.upgrade().is_some() || head.method() == Method::Connect;
            connection.marks = connection.marks.of_next_request();
            // Behind a CONNECT that is refused may come what the client took for the tunnel's.
            connection.marks.set(Marks::KEEP_ALIVE, head.keep_alive() && head.method() != Method::Connect);
            connection.marks.set(Marks::OLD, head.version_minor() == 0);
            connection.marks.set(Marks::HEAD_ONLY, head.method() == Method::Head);
            connection.marks.set(Marks::MAY_SWITCH, may_switch);
        }
    }
}
