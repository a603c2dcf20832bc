//! The protocols that clients speak: a folder each, a row each in [`PROTOCOLS`], and in `format/` what they share.
//!
//! A protocol reads requests, encodes what happens to its subscribers for the hub ([`Encoder`]), and says
//! what its answers look like over HTTP. Nothing else knows one protocol from another.

mod ahead;
pub(crate) mod call;
pub(crate) mod format;
pub(crate) mod icomet;
pub(crate) mod native;
#[cfg(test)]
pub(crate) mod toy;
pub(crate) mod v1;

use bytes::Bytes;
use sealed_http::{Field, Response};

use crate::hub::{Delivery, Encoder, Encoders, Format, ReplyBody};

/// All protocols. A format names one of them by its row.
pub(crate) const PROTOCOLS: [&dyn Protocol; 3] = [&native::Native, &icomet::Icomet, &v1::V1];

/// The same, as far as the hub knows them.
pub(crate) const ENCODERS: Encoders = Encoders(&[PROTOCOLS[0], PROTOCOLS[1], PROTOCOLS[2]]);

/// A protocol, as far as it is none of the hub's business.
pub(crate) trait Protocol: Encoder {
    /// Returns the head of a stream's response, with the fields for pages of other origins, or `None` if the connection has
    /// been taken over already. `target` is what the client named for the protocol to address.
    fn stream_head(&self, format: Format, target: &str, fields: &[Field]) -> Option<Response>;

    /// Returns the response that carries a reply.
    fn answer(&self, format: Format, body: ReplyBody, fields: &[Field]) -> Answer;

    /// Returns what pages can make of an answer.
    fn exposure<'a>(&self, delivery: &'a Delivery) -> Exposure<'a>;

    /// Returns whether streams of this format are read by a browser's `EventSource`, which comes back by itself, but not
    /// after it was refused.
    fn is_event_source(&self, _format: Format) -> bool {
        false
    }
}

/// A reply, ready to be sent.
#[derive(Debug)]
pub(crate) enum Answer {
    Whole(Response),
    /// As a stream that ends at once: its head, and its body.
    Streamed(Response, Bytes),
}

/// What pages can make of an answer.
#[derive(Debug, Default)]
pub(crate) struct Exposure<'a> {
    /// It is a script, which any page can load.
    pub(crate) is_script: bool,
    /// The origin whose pages are handed what is read, if that is not the server's own.
    pub(crate) listener: Option<&'a str>,
    /// The script function that a refusal is an argument of.
    pub(crate) callback: Option<&'a str>,
}

/// Returns the protocol that a format is of.
pub(crate) fn of(format: Format) -> &'static dyn Protocol {
    PROTOCOLS[format.row()]
}
