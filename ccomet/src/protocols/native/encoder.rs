//! The encoder for subscribers of the native API: each item is an event of a stream, or part of a
//! reply.

use bytes::Bytes;
use sealed_http::Response;
use sealed_http::site::Field;

use super::{items, request};
use crate::config::Api;
use crate::core::json;
use crate::core::position::{Spot, write_position};
use crate::core::time::millis;
use crate::hub::{
    Delivery, Encoder, Format, Gap, Item, Label, PlacedMessage, PollOutcome, PollReply, RefusedSubscription, ReplyBody,
    StreamEvent,
};
use crate::protocols::call::{Call, RefusedCall};
use crate::protocols::format::response::{HTML, json_response, script_response};
use crate::protocols::format::stream_format::{StreamFormat, Transport};
use crate::protocols::format::{jsonp, sse};
use crate::protocols::route::{Ahead, Incoming};
use crate::protocols::{Answer, Exposure, Protocol};

/// The native API.
#[derive(Debug)]
pub(crate) struct Native;

/// Kinds of replies ([`ReplyBody::kind`]).
const JSON: u8 = 0;
const SCRIPT: u8 = 1;

impl Encoder for Native {
    fn write_message(&self, format: Format, message: &PlacedMessage<'_>, out: &mut Vec<u8>) {
        let PlacedMessage { channel, spot, message } = *message;
        if !format.is_stream() {
            return items::write_message(channel, spot, message, out);
        }
        let mut item = Vec::with_capacity(message.payload.len() + 160);
        items::write_message(channel, spot, message, &mut item);
        write_event(format, &EventFields { position: Some(&[spot]), item: &item, ..EventFields::default() }, out);
    }

    fn write_event(&self, format: Format, label: Option<Label>, event: &StreamEvent<'_>, out: &mut Vec<u8>) {
        let stream = StreamFormat::of(format);
        let named = |kind, item| EventFields { label, kind: Some(kind), item, ..EventFields::default() };
        match *event {
            StreamEvent::Opening { target } => stream.write_opening(&listener_script(target), out),
            StreamEvent::Hello { position, .. } if label.is_some() => {
                write_event(format, &EventFields { position, ..named("subscribed", items::SUBSCRIBED) }, out);
            }
            StreamEvent::Hello { heartbeat, position } => {
                let item = items::hello(millis(heartbeat));
                let fields = EventFields { retry_ms: Some(sse::RETRY_MS), position, ..named("hello", &item) };
                write_event(format, &fields, out);
            }
            StreamEvent::Gap { gap, position } => {
                let item = gap_item(&gap);
                write_event(format, &EventFields { position: Some(position), ..named("gap", &item) }, out);
            }
            StreamEvent::Heartbeat { .. } if stream.transport == Transport::EventStream => {
                stream.framing.around(out, |out| out.extend_from_slice(sse::HEARTBEAT));
            }
            StreamEvent::Heartbeat { .. } => write_reply(stream, None, &[], None, out),
            StreamEvent::Closed { channel, .. } => {
                let mut item = Vec::new();
                items::write_close(channel, &mut item);
                write_event(format, &named("close", &item), out);
            }
            StreamEvent::AccessExpiring { in_s } => write_event(format, &named("token", &items::token_ends(in_s)), out),
            StreamEvent::AccessExpired => {
                write_event(format, &named("close", br#"{"type":"close","reason":"token_expired"}"#), out);
            }
            StreamEvent::ShuttingDown { retry_ms } => {
                let item = items::bye(retry_ms);
                write_event(format, &EventFields { retry_ms: Some(retry_ms), ..named("bye", &item) }, out);
            }
            // Its clients start at positions.
            StreamEvent::UnknownStart { .. } => {}
        }
    }

    fn event_around(&self, format: Format, label: Option<Label>, position: &[Spot], item: &Bytes) -> [Bytes; 3] {
        let stream = StreamFormat::of(format);
        let (begin, middle, end): (&[u8], &[u8], &[u8]) = match stream.transport {
            Transport::EventStream => (b"id: ", b"\ndata: ", b"\n\n"),
            Transport::Lines | Transport::Iframe | Transport::Socket => (br#"{"position":""#, br#"","items":["#, b"]}"),
        };
        let (before, after) = delimiters(stream);
        let mut head = [before, begin].concat();
        if let Some(label) = label {
            head = labelled(&head, label);
        }
        write_position(position.iter().copied(), &mut head);
        head.extend_from_slice(middle);
        let (before, after) = stream.framing.split(head, item.len(), &[end, after].concat());
        [before.into(), item.clone(), after.into()]
    }

    fn reply(&self, target: Option<&str>, outcome: &PollOutcome<'_>) -> Option<ReplyBody> {
        let mut json = Vec::new();
        match *outcome {
            PollOutcome::Items { items, position, .. } => {
                let gaps: Vec<_> = items
                    .iter()
                    .map(|item| if let Item::Gap(gap) = item { gap_item(gap) } else { Vec::new() })
                    .collect();
                let items = items.iter().zip(&gaps).map(|(item, gap)| match item {
                    Item::Gap(_) => gap.as_slice(),
                    Item::Message(message) => message,
                });
                items::write_reply(position.iter().copied(), items, &mut json);
            }
            PollOutcome::Closed { channel, position, .. } => {
                let mut item = Vec::new();
                items::write_close(channel, &mut item);
                items::write_reply(position.iter().copied(), [item.as_slice()], &mut json);
            }
            // The reply has a position, like a reply with messages.
            PollOutcome::TimedOut { .. } | PollOutcome::UnknownStart { .. } | PollOutcome::Displaced => return None,
        }
        let kind = if target.is_some() { SCRIPT } else { JSON };
        Some(ReplyBody { kind, bytes: jsonp::wrap(target, json).into() })
    }

    fn refusal(&self, format: Format, refusal: &RefusedSubscription<'_>) -> PollReply {
        let target = refusal.target.filter(|_| !format.is_stream()).map(Box::from);
        PollReply::Refused { problem: refusal.problem, target, body: None }
    }
}

impl Protocol for Native {
    fn is_spoken(&self, apis: &[Api]) -> bool {
        apis.contains(&Api::Native)
    }

    fn read(&self, incoming: &Incoming<'_>) -> Option<Result<Call, RefusedCall>> {
        request::read(incoming)
    }

    fn read_ahead(&self, incoming: &Incoming<'_>) -> Option<Result<Ahead, RefusedCall>> {
        request::read_ahead(incoming)
    }

    fn body_bytes_max(&self, incoming: &Incoming<'_>) -> Option<usize> {
        (incoming.head.path() == request::MESSAGES_PATH).then_some(incoming.limits().request_bytes_max)
    }

    fn stream_head(&self, format: Format, target: &str, fields: &[Field]) -> Option<Response> {
        let stream = StreamFormat::of(format);
        let content_type = match stream.transport {
            Transport::EventStream => "text/event-stream",
            Transport::Lines => "application/x-ndjson; charset=utf-8",
            Transport::Iframe => HTML,
            // The response was sent when the connection was switched.
            Transport::Socket => return None,
        };
        let head = Response::new(200)
            .header("Content-Type", content_type)
            .header("Cache-Control", "no-cache, no-transform")
            .header("X-Accel-Buffering", "no")
            .header("X-Content-Type-Options", "nosniff")
            .with(stream.frame_policy(target).as_slice())
            .with(fields);
        Some(head)
    }

    fn answer(&self, _: Format, body: ReplyBody, fields: &[Field]) -> Answer {
        Answer::Whole(match body.kind {
            SCRIPT => script_response(body.bytes),
            _ => json_response(body.bytes).with(fields),
        })
    }

    fn exposure<'a>(&self, delivery: &'a Delivery) -> Exposure<'a> {
        let target = delivery.target.as_deref();
        if delivery.format.is_stream() {
            return Exposure { listener: target, ..Exposure::default() };
        }
        Exposure { is_script: target.is_some(), listener: None, callback: target }
    }

    fn is_event_source(&self, format: Format) -> bool {
        format.is_stream() && StreamFormat::of(format).transport == Transport::EventStream
    }
}

/// The fields of an event.
#[derive(Debug, Clone, Copy, Default)]
struct EventFields<'a> {
    /// The label of the subscription, if its connection has several.
    label: Option<Label>,
    /// The new reconnection time, if it changes.
    retry_ms: Option<u64>,
    /// The position after it, if it has one.
    position: Option<&'a [Spot]>,
    /// The type of an event, unless it is one of the channel's messages.
    kind: Option<&'static str>,
    /// The item, as JSON.
    item: &'a [u8],
}

/// Writes an event. Streams other than event streams carry replies.
fn write_event(format: Format, event: &EventFields<'_>, out: &mut Vec<u8>) {
    let stream = StreamFormat::of(format);
    let EventFields { label, retry_ms, position, kind, item } = *event;
    if stream.transport == Transport::EventStream {
        return stream.framing.around(out, |out| sse::write_event(retry_ms, position, kind, item, out));
    }
    write_reply(stream, label, position.unwrap_or_default(), Some(item), out);
}

/// Writes a reply as one event.
fn write_reply(stream: StreamFormat, label: Option<Label>, position: &[Spot], item: Option<&[u8]>, out: &mut Vec<u8>) {
    let (before, after) = delimiters(stream);
    stream.framing.around(out, |out| {
        out.extend_from_slice(before);
        match label {
            None => items::write_reply(position.iter().copied(), item, out),
            Some(label) => {
                let mut reply = Vec::new();
                items::write_reply(position.iter().copied(), item, &mut reply);
                out.extend_from_slice(&labelled(&reply, label));
            }
        }
        out.extend_from_slice(after);
    });
}

/// Inserts a subscription's label before the other members of a JSON object, or of its beginning.
fn labelled(object: &[u8], Label(label): Label) -> Vec<u8> {
    let members = object.strip_prefix(b"{").unwrap_or(object);
    [format!("{{\"ref\":{label},").as_bytes(), members].concat()
}

/// Returns the bytes before and after a reply.
fn delimiters(stream: StreamFormat) -> (&'static [u8], &'static [u8]) {
    match stream.transport {
        Transport::Iframe => (b"<script>m(", b");</script>\n"),
        Transport::Lines => (b"", b"\n"),
        Transport::EventStream | Transport::Socket => (b"", b""),
    }
}

/// Returns the script with which a page passes on its messages: only to the origin that requested
/// it, and to no other page that may have it in a frame.
fn listener_script(origin: &str) -> String {
    let mut quoted = b"location.origin".to_vec();
    if !origin.is_empty() {
        quoted.clear();
        json::write_string(origin, &mut quoted);
    }
    let origin = String::from_utf8_lossy(&quoted);
    format!("<script>function m(reply){{parent.postMessage(reply,{origin})}}</script>\n")
}

fn gap_item(gap: &Gap<'_>) -> Vec<u8> {
    let mut item = Vec::new();
    items::write_gap(gap.channel, gap.missed.0, gap.spot, &mut item);
    item
}

#[cfg(test)]
mod tests {
    use super::super::ROW;
    use super::*;
    use crate::core::position::Epoch;
    use crate::protocols::format::framing::Framing;

    const SPOT: Spot = Spot { epoch: Epoch(1), next: 2 };
    const TRANSPORTS: [Transport; 4] = [Transport::EventStream, Transport::Lines, Transport::Iframe, Transport::Socket];

    fn format(transport: Transport, framing: Framing) -> Format {
        StreamFormat { transport, framing }.in_row(ROW)
    }

    #[test]
    fn chunks_contain_the_bytes_of_the_plain_framing() {
        for transport in TRANSPORTS {
            let event = EventFields {
                label: None,
                retry_ms: Some(5),
                position: Some(&[SPOT]),
                kind: Some("gap"),
                item: b"{\"type\":\"gap\"}",
            };
            let write = |framing: Framing| {
                let (format, mut out) = (format(transport, framing), Vec::new());
                Native.write_event(format, None, &StreamEvent::Opening { target: "https://a.example" }, &mut out);
                let opened = out.len();
                write_event(format, &event, &mut out);
                out.split_off(opened)
            };
            let plain = write(Framing::Plain);
            let expected = [format!("{:x}\r\n", plain.len()).as_bytes(), &plain, b"\r\n"].concat();
            assert_eq!(write(Framing::Chunked), expected);
        }
    }

    #[test]
    fn a_shared_item_is_written_like_an_own_item() {
        let item = Bytes::from_static(b"{\"type\":\"message\"}");
        let all = TRANSPORTS.into_iter().flat_map(|transport| {
            [Framing::Plain, Framing::Chunked, Framing::Message].map(|framing| (transport, framing, None))
        });
        for (transport, framing, label) in all.chain([(Transport::Socket, Framing::Message, Some(Label(-7)))]) {
            let (format, mut own) = (format(transport, framing), Vec::new());
            let event = EventFields { label, position: Some(&[SPOT]), item: &item, ..EventFields::default() };
            write_event(format, &event, &mut own);
            assert_eq!(Native.event_around(format, label, &[SPOT], &item).concat(), own, "{transport:?} {framing:?}");
        }
    }

    #[test]
    fn events_have_all_fields_that_are_set() {
        let mut out = Vec::new();
        let event =
            EventFields { label: None, retry_ms: Some(5), position: Some(&[SPOT]), kind: Some("gap"), item: b"{}" };
        write_event(format(Transport::EventStream, Framing::Plain), &event, &mut out);
        assert_eq!(out, b"retry: 5\nid: 0000000000001-0000000002\nevent: gap\ndata: {}\n\n");
        out.clear();
        write_event(format(Transport::Iframe, Framing::Plain), &event, &mut out);
        let page = "<script>m({\"position\":\"0000000000001-0000000002\",\"items\":[{}]});</script>\n";
        assert_eq!(String::from_utf8_lossy(&out), page);
    }
}
