//! The encoder for polls of version 1.0: a script that calls the client's function, or nothing.

use bytes::Bytes;
use sealed_http::Response;
use sealed_http::site::Field;

use super::{items, request};
use crate::config::Api;
use crate::hub::{
    Delivery, Encoder, Format, Item, Label, PlacedMessage, PollOutcome, ReplyBody, SessionRules, StreamEvent,
};
use crate::protocols::call::{Call, RefusedCall};
use crate::protocols::format::response::script_response;
use crate::protocols::route::Incoming;
use crate::protocols::{Answer, Exposure, Protocol};

/// The API of version 1.0.
#[derive(Debug)]
pub(crate) struct V1;

/// Kinds of replies ([`ReplyBody::kind`]).
const NOTHING: u8 = 0;
const SCRIPT: u8 = 1;

impl Encoder for V1 {
    fn rules(&self) -> SessionRules {
        SessionRules { takes_announcements: true, ..SessionRules::default() }
    }

    fn write_message(&self, _: Format, message: &PlacedMessage<'_>, out: &mut Vec<u8>) {
        items::write_message(message.channel, message.spot.next - 1, message.message, out);
    }

    /// Writes nothing: this API has no streams.
    fn write_event(&self, _: Format, _: Option<Label>, _: &StreamEvent<'_>, _: &mut Vec<u8>) {}

    fn reply(&self, target: Option<&str>, outcome: &PollOutcome<'_>) -> Option<ReplyBody> {
        let nothing = ReplyBody { kind: NOTHING, bytes: Bytes::new() };
        let (items, announcements) = match *outcome {
            PollOutcome::Items { items, announcements, .. } => (items, announcements),
            PollOutcome::Closed { .. } | PollOutcome::Displaced => return Some(nothing),
            PollOutcome::TimedOut { .. } | PollOutcome::UnknownStart { .. } => return None,
        };
        let messages = items.iter().filter_map(|item| if let Item::Message(bytes) = item { Some(bytes) } else { None });
        let messages: Vec<_> = messages.collect();
        // A client takes its count from the last item, unless that is a single sign-in. So messages
        // come last, and without messages there is at most one sign-in.
        let shown = if messages.is_empty() { announcements.len().min(1) } else { announcements.len() };
        let announcements = &announcements[..shown];
        let signs: Vec<_> = announcements.iter().map(|sign| items::sign(sign.channel, sign.next, sign.name)).collect();
        if messages.is_empty() && signs.is_empty() {
            return Some(nothing);
        }
        let all = signs.iter().chain(messages).map(Bytes::as_ref);
        Some(ReplyBody { kind: SCRIPT, bytes: items::envelope(target.unwrap_or_default(), all).into() })
    }
}

impl Protocol for V1 {
    fn is_spoken(&self, apis: &[Api]) -> bool {
        apis.contains(&Api::Classic)
    }

    fn read(&self, incoming: &Incoming<'_>) -> Option<Result<Call, RefusedCall>> {
        request::read(incoming)
    }

    fn stream_head(&self, _: Format, _: &str, _: &[Field]) -> Option<Response> {
        None
    }

    fn answer(&self, _: Format, body: ReplyBody, _: &[Field]) -> Answer {
        Answer::Whole(match body.kind {
            SCRIPT => script_response(body.bytes),
            // The response is complete, but empty: if the connection just closed, the browser would
            // repeat the request by itself.
            _ => script_response(Bytes::new()).closing(),
        })
    }

    fn exposure<'a>(&self, _: &'a Delivery) -> Exposure<'a> {
        Exposure { is_script: true, ..Exposure::default() }
    }
}
