//! The protocols of clients. Each has a folder, and a row in [`PROTOCOLS`]; `format/` is shared.
//!
//! A protocol parses requests, encodes events for the hub's subscribers ([`Encoder`]), and creates
//! the HTTP responses that carry the encoded events.

pub(crate) mod call;
pub(crate) mod format;
pub(crate) mod icomet;
pub(crate) mod native;
pub(crate) mod route;
#[cfg(test)]
pub(crate) mod toy;
pub(crate) mod v1;

use bytes::Bytes;
use call::{Call, RefusedCall};
use route::{Ahead, Incoming};
use sealed_http::Response;
use sealed_http::site::Field;

use crate::config::Api;
use crate::hub::{Delivery, Encoder, Encoders, Format, ReplyBody};

/// All protocols, each in the row to which its formats refer.
pub(crate) const PROTOCOLS: [&dyn Protocol; 3] =
    in_rows([(native::ROW, &native::Native), (icomet::ROW, &icomet::IcometApi), (v1::ROW, &v1::V1)]);

/// The same protocols as encoders, for the hub.
pub(crate) const ENCODERS: Encoders = Encoders(&encoders_of(PROTOCOLS));

/// Checks that each protocol is in its row.
const fn in_rows<const N: usize>(rows: [(u8, &'static dyn Protocol); N]) -> [&'static dyn Protocol; N] {
    let mut table = [rows[0].1; N];
    let mut row = 0;
    while row < N {
        assert!(rows[row].0 as usize == row, "a protocol is in another row than its formats name");
        table[row] = rows[row].1;
        row += 1;
    }
    table
}

const fn encoders_of<const N: usize>(protocols: [&'static dyn Protocol; N]) -> [&'static dyn Encoder; N] {
    let mut table: [&dyn Encoder; N] = [protocols[0]; N];
    let mut row = 0;
    while row < N {
        table[row] = protocols[row];
        row += 1;
    }
    table
}

/// A protocol: its requests and its HTTP responses, which the hub does not know.
pub(crate) trait Protocol: Encoder {
    /// Returns whether a listener with these APIs serves it.
    fn is_spoken(&self, apis: &[Api]) -> bool;

    /// Reads a request, if its path is one of this protocol's at that listener.
    fn read(&self, incoming: &Incoming<'_>) -> Option<Result<Call, RefusedCall>>;

    /// Reads the head of a request with a body, if its purpose must be known before the body
    /// arrives.
    fn read_ahead(&self, _incoming: &Incoming<'_>) -> Option<Result<Ahead, RefusedCall>> {
        None
    }

    /// Returns the maximum length of the body of a request to the admin listener, if it may be
    /// longer than a message.
    fn body_bytes_max(&self, _incoming: &Incoming<'_>) -> Option<usize> {
        None
    }

    /// Returns whether a GET of this path at the admin listener changes something.
    fn get_has_effect(&self, _path: &str) -> bool {
        false
    }

    /// Returns the head of a stream's response, with the fields for pages of other origins; `None`
    /// if the connection was switched to another protocol already. `target` is the recipient that
    /// the client named, such as the origin of a page.
    fn stream_head(&self, format: Format, target: &str, fields: &[Field]) -> Option<Response>;

    /// Returns the response that carries a reply.
    fn answer(&self, format: Format, body: ReplyBody, fields: &[Field]) -> Answer;

    /// Returns how web pages can use an answer.
    fn exposure<'a>(&self, delivery: &'a Delivery) -> Exposure<'a>;

    /// Returns whether a browser's `EventSource` reads streams of this format. It reconnects by
    /// itself, but not after a refusal.
    fn is_event_source(&self, _format: Format) -> bool {
        false
    }
}

/// A reply that is ready to be sent.
#[derive(Debug)]
pub(crate) enum Answer {
    Whole(Response),
    /// The head and the body of a stream that ends at once.
    Streamed(Response, Bytes),
}

/// The ways in which web pages can use an answer.
#[derive(Debug, Default)]
pub(crate) struct Exposure<'a> {
    /// Whether it is a script, which any page can load.
    pub(crate) is_script: bool,
    /// The origin whose pages receive what is read, if it is not the server's own.
    pub(crate) listener: Option<&'a str>,
    /// The script function to which a refusal is passed.
    pub(crate) callback: Option<&'a str>,
}

/// Returns the protocol of a format.
pub(crate) fn of(format: Format) -> &'static dyn Protocol {
    PROTOCOLS[format.row()]
}
