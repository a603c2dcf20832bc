//! What goes over the wire: one module for each API, and what they share.
//!
//! Everything here is a pure function from what happened to bytes. [`Form`] names the forms in which a message is
//! encoded.

pub(crate) mod callback;
pub(crate) mod classic;
pub(crate) mod framing;
pub(crate) mod host;
pub(crate) mod icomet;
pub(crate) mod json;
pub(crate) mod native;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod publication;
pub(crate) mod request;
pub(crate) mod socket;
pub(crate) mod sse;
pub(crate) mod voice;

use bytes::Bytes;
use voice::Voice;

use crate::message::{ChannelName, Message};
use crate::position::Spot;

/// A form in which a message is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// A JSON object of the native API, alone.
    NativeItem,
    /// What a stream that carries one channel says.
    Said(Voice),
    /// An item of the classic API, escaped for its string literal.
    ClassicItem,
    /// An event of icomet's, alone.
    IcometEvent,
}

/// Renders a message of a channel. `spot` is the one right after it.
pub(crate) fn render(form: Form, channel: &ChannelName, spot: Spot, message: &Message) -> Bytes {
    let mut out = Vec::with_capacity(message.payload.len() + 160);
    match form {
        Form::NativeItem => native::write_message(channel, spot, message, &mut out),
        Form::Said(voice) => voice.write_message(channel, spot, message, &mut out),
        Form::ClassicItem => classic::write_message(channel, spot.next - 1, message, &mut out),
        Form::IcometEvent => icomet::write_message(channel, spot.next - 1, message, &mut out),
    }
    // It is kept for others, or waits for its reader: no room to spare.
    out.shrink_to_fit();
    Bytes::from(out)
}
