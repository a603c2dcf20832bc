//! The encoder for subscribers of icomet's API: one event at a time, with a number.

use sealed::fault;
use sealed_http::Response;
use sealed_http::site::Field;

use super::events::{self, Kind, event, number_of, seq_of};
use super::request;
use crate::config::Api;
use crate::hub::{
    Delivery, Encoder, Format, HeartbeatRule, Item, Label, PlacedMessage, PollOutcome, PollReply, RefusedSubscription,
    ReplyBody, Resolved, SessionRules, StreamEvent,
};
use crate::protocols::call::{Call, RefusedCall};
use crate::protocols::format::framing::Framing;
use crate::protocols::format::response::{self, HTML};
use crate::protocols::format::stream_format::{StreamFormat, Transport};
use crate::protocols::route::{Ahead, Incoming};
use crate::protocols::{Answer, Exposure, Protocol};

/// The API of icomet.
#[derive(Debug)]
pub(crate) struct IcometApi;

/// Kinds of replies ([`ReplyBody::kind`]): a plain event, an event in a call of the client's
/// function, or the output of a stream.
const JSON: u8 = 0;
const SCRIPT: u8 = 1;
const STREAM: u8 = 2;

impl Encoder for IcometApi {
    fn rules(&self) -> SessionRules {
        SessionRules {
            // Its clients stop at an array.
            has_one_message_per_poll: true,
            needs_position: false,
            // Its clients measure the time since the last event.
            heartbeat: HeartbeatRule::SinceChannelSpoke,
            ..SessionRules::default()
        }
    }

    fn resolve(&self, number: u64, next: u64) -> Resolved {
        let seq = (number as u32).cast_signed();
        match number_of(seq, next) {
            Some(number) => Resolved::Message(number),
            None if seq == 0 => Resolved::Nothing,
            None => Resolved::NotYet,
        }
    }

    fn write_message(&self, format: Format, message: &PlacedMessage<'_>, out: &mut Vec<u8>) {
        let PlacedMessage { channel, spot, message } = *message;
        if !format.is_stream() {
            return events::write_message(channel, spot.next - 1, message, out);
        }
        let mut event = Vec::with_capacity(message.payload.len() + 160);
        events::write_message(channel, spot.next - 1, message, &mut event);
        write_event(StreamFormat::of(format), &event, out);
    }

    fn write_event(&self, format: Format, _: Option<Label>, event: &StreamEvent<'_>, out: &mut Vec<u8>) {
        let stream = StreamFormat::of(format);
        let (kind, channel, seq) = match *event {
            StreamEvent::Opening { .. } => return stream.write_opening("", out),
            StreamEvent::UnknownStart { channel, next } => (Kind::NextSeq, channel, seq_of(next)),
            StreamEvent::Heartbeat { channel: Some(channel), count } => (Kind::Noop, channel, count),
            StreamEvent::Closed { channel, next } => (Kind::Close, channel, seq_of(next)),
            // Its clients do not know these events: they notice the end.
            StreamEvent::Hello { .. }
            | StreamEvent::Gap { .. }
            | StreamEvent::Heartbeat { channel: None, .. }
            | StreamEvent::AccessExpiring { .. }
            | StreamEvent::AccessExpired
            | StreamEvent::ShuttingDown { .. } => return,
        };
        write_event(stream, &events::event(kind, channel, seq, ""), out);
    }

    fn reply(&self, target: Option<&str>, outcome: &PollOutcome<'_>) -> Option<ReplyBody> {
        let (kind, channel, seq) = match *outcome {
            PollOutcome::Items { items, .. } => {
                let mut messages =
                    items.iter().filter_map(|item| if let Item::Message(event) = item { Some(event) } else { None });
                return messages.next().map(|event| poll_reply(target, event));
            }
            PollOutcome::TimedOut { channel, count } => (Kind::Noop, channel, count),
            PollOutcome::UnknownStart { channel, next } => (Kind::NextSeq, channel, seq_of(next)),
            PollOutcome::Closed { channel, next, .. } => (Kind::Close, channel, seq_of(next)),
            PollOutcome::Displaced => return None,
        };
        Some(poll_reply(target, &event(kind, channel, seq, "")))
    }

    fn refusal(&self, format: Format, refusal: &RefusedSubscription<'_>) -> PollReply {
        let RefusedSubscription { problem, channel, target } = *refusal;
        let body = events::refusal(problem, channel).map(|event| {
            if !format.is_stream() {
                return poll_reply(target, &event);
            }
            let mut body = Vec::new();
            // A complete answer is framed when it is sent.
            let plain = StreamFormat { framing: Framing::Plain, ..StreamFormat::of(format) };
            plain.write_opening("", &mut body);
            write_event(plain, &event, &mut body);
            ReplyBody { kind: STREAM, bytes: body.into() }
        });
        PollReply::Refused { problem, target: None, body }
    }
}

impl Protocol for IcometApi {
    fn is_spoken(&self, apis: &[Api]) -> bool {
        apis.contains(&Api::Icomet)
    }

    fn read(&self, incoming: &Incoming<'_>) -> Option<Result<Call, RefusedCall>> {
        Some(request::read(incoming)?.map(Call::Icomet).map_err(RefusedCall::from))
    }

    fn read_ahead(&self, incoming: &Incoming<'_>) -> Option<Result<Ahead, RefusedCall>> {
        request::read(incoming).map(|_| Ok(Ahead::Other))
    }

    fn body_bytes_max(&self, incoming: &Incoming<'_>) -> Option<usize> {
        let has_form = request::has_form(incoming.door, incoming.head.path());
        has_form.then(|| request::form_bytes_max(incoming.limits().message_bytes_max))
    }

    fn get_has_effect(&self, path: &str) -> bool {
        request::has_effect(path)
    }

    fn stream_head(&self, format: Format, _: &str, fields: &[Field]) -> Option<Response> {
        let stream = StreamFormat::of(format);
        let content_type = match stream.transport {
            Transport::EventStream => "text/event-stream; charset=utf-8",
            Transport::Lines | Transport::Socket => response::JSON,
            Transport::Iframe => HTML,
        };
        // As in icomet, a page of another origin may read event streams only.
        let fields = if stream.transport == Transport::EventStream { fields } else { &[] };
        Some(head(content_type).with(fields).with(stream.frame_policy("").as_slice()))
    }

    fn answer(&self, format: Format, body: ReplyBody, fields: &[Field]) -> Answer {
        let head = match body.kind {
            STREAM => self.stream_head(format, "", fields).unwrap_or_else(head_of_json),
            SCRIPT => head(response::SCRIPT),
            _ => head_of_json(),
        };
        Answer::Streamed(head, body.bytes)
    }

    fn exposure<'a>(&self, delivery: &'a Delivery) -> Exposure<'a> {
        Exposure { is_script: !delivery.format.is_stream(), ..Exposure::default() }
    }

    fn is_event_source(&self, format: Format) -> bool {
        format.is_stream() && StreamFormat::of(format).transport == Transport::EventStream
    }
}

/// Writes an event, given as JSON, to a stream.
fn write_event(stream: StreamFormat, event: &[u8], out: &mut Vec<u8>) {
    let (before, after): (&[u8], &[u8]) = match stream.transport {
        Transport::EventStream if fault!("icomet-event-unended") => (b"data: ", b"\n"),
        Transport::EventStream => (b"data: ", b"\n\n"),
        Transport::Lines => (b"", b"\n"),
        Transport::Iframe => (b"<script>parent.icomet_cb(", b");</script>\n"),
        Transport::Socket => (b"", b""),
    };
    stream.framing.around(out, |out| {
        for piece in [before, event, after] {
            out.extend_from_slice(piece);
        }
    });
}

/// Returns the reply to a poll. Browsers run a call only if its content type is that of a script.
fn poll_reply(callback: Option<&str>, event: &[u8]) -> ReplyBody {
    let kind = if callback.is_some() && !fault!("icomet-call-as-json") { SCRIPT } else { JSON };
    ReplyBody { kind, bytes: events::reply(callback, event).into() }
}

/// Returns the head of a JSON answer.
pub(crate) fn head_of_json() -> Response {
    head(response::JSON)
}

fn head(content_type: &'static str) -> Response {
    Response::new(200)
        .header("Content-Type", content_type)
        .header("Expires", "0")
        .header("Cache-Control", "no-cache")
        .header("X-Accel-Buffering", "no")
        .header("X-Content-Type-Options", "nosniff")
        .saying_keep_alive()
}
