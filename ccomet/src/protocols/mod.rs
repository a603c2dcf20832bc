//! The protocols that clients speak: a folder each, and what they share.

mod ahead;
pub(crate) mod call;
pub(crate) mod format;
pub(crate) mod icomet;
pub(crate) mod native;
pub(crate) mod v1;

use bytes::Bytes;
use format::stream_format::Voice;

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
        Form::NativeItem => native::items::write_message(channel, spot, message, &mut out),
        Form::Said(voice) => voice.write_message(channel, spot, message, &mut out),
        Form::ClassicItem => v1::items::write_message(channel, spot.next - 1, message, &mut out),
        Form::IcometEvent => icomet::events::write_message(channel, spot.next - 1, message, &mut out),
    }
    // It is kept for others, or waits for its reader: no room to spare.
    out.shrink_to_fit();
    Bytes::from(out)
}
