//! A protocol of the tests' own, which shows what a further one costs: this folder, and a row in a table. The hub's tests
//! read it, too, so that they know of no real one.
//!
//! A client asks for `/toy/{channel}` or `/toy/{channel}?poll={number}`, and gets words, one event a line.

use std::io::Write;

use sealed_http::{Field, Response};

use super::{Answer, Exposure, Protocol};
use crate::hub::{Delivery, Encoder, Encoders, Format, Item, PlacedMessage, PollOutcome, ReplyBody, StreamEvent};

/// The table of protocols that tests give the hub.
pub(crate) const TOYS: Encoders = Encoders(&[&Toy]);

const ROW: u8 = 0;

/// Its only kind of streams.
pub(crate) const STREAM: Format = Format::stream(ROW, 0);
pub(crate) const POLL: Format = Format::poll(ROW);

#[derive(Debug)]
struct Toy;

impl Encoder for Toy {
    fn write_message(&self, format: Format, message: &PlacedMessage<'_>, out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(&message.message.payload);
        let end = if format.is_stream() { "\n" } else { ";" };
        let _ = write!(out, "{}#{} {text}{end}", message.channel, message.spot.next - 1);
    }

    fn write_event(&self, _: Format, event: &StreamEvent<'_>, out: &mut Vec<u8>) {
        let _ = match event {
            StreamEvent::Hello { .. } => writeln!(out, "hello"),
            StreamEvent::Gap { gap, .. } => writeln!(out, "lost {:?} before #{}", gap.missed.0, gap.spot.next),
            StreamEvent::Heartbeat { count, .. } => writeln!(out, "alive {count}"),
            StreamEvent::Closed { channel, .. } => writeln!(out, "{channel} closed"),
            _ => Ok(()),
        };
    }

    fn reply(&self, _: Option<&str>, outcome: &PollOutcome<'_>) -> Option<ReplyBody> {
        let PollOutcome::Items { items, .. } = outcome else { return None };
        let messages =
            items.iter().filter_map(|item| if let Item::Message(bytes) = item { Some(&**bytes) } else { None });
        Some(ReplyBody { kind: 0, bytes: messages.collect::<Vec<_>>().concat().into() })
    }
}

impl Protocol for Toy {
    fn stream_head(&self, _: Format, _: &str, _: &[Field]) -> Option<Response> {
        Some(Response::new(200).header("Content-Type", "text/plain"))
    }

    fn answer(&self, _: Format, body: ReplyBody, _: &[Field]) -> Answer {
        Answer::Whole(Response::new(200).header("Content-Type", "text/plain").body(body.bytes))
    }

    fn exposure<'a>(&self, _: &'a Delivery) -> Exposure<'a> {
        Exposure::default()
    }
}
