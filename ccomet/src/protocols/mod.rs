//! The protocols that clients speak: a folder each, a row each in [`PROTOCOLS`], and in `format/`
//! what they share.
//!
//! A protocol reads requests, encodes what happens to its subscribers for the hub ([`Encoder`]),
//! and makes the responses that carry that over HTTP.

pub(crate) mod call;
pub(crate) mod format;
pub(crate) mod icomet;
pub(crate) mod native;
pub(crate) mod route;
#[cfg(test)]
pub(crate) mod toy;
pub(crate) mod v1;

use bytes::Bytes;
use call::{Call, Refused};
use route::{Ahead, Incoming};
use sealed_http::Response;
use sealed_http::site::Field;

use crate::config::Api;
use crate::hub::{Delivery, Encoder, Encoders, Format, ReplyBody};

/// All protocols, each in the row that its formats name.
pub(crate) const PROTOCOLS: [&dyn Protocol; 3] =
    in_rows([(native::ROW, &native::Native), (icomet::ROW, &icomet::Icomet), (v1::ROW, &v1::V1)]);

/// The same table, as the hub knows it.
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

/// A protocol: its requests and its answers over HTTP, of which the hub knows nothing.
pub(crate) trait Protocol: Encoder {
    /// Returns whether a listener with these APIs speaks it.
    fn is_spoken(&self, apis: &[Api]) -> bool;

    /// Reads a request, if its path is one of this protocol's at that listener.
    fn read(&self, incoming: &Incoming<'_>) -> Option<Result<Call, Refused>>;

    /// Reads the head of a request that has a body, if what it is going to be must be known before
    /// the body comes.
    fn read_ahead(&self, _incoming: &Incoming<'_>) -> Option<Result<Ahead, Refused>> {
        None
    }

    /// Returns how long the body of a request to the admin listener may be, if it may be longer
    /// than a message.
    fn body_bytes_max(&self, _incoming: &Incoming<'_>) -> Option<usize> {
        None
    }

    /// Returns whether a GET of that path at the admin listener changes something.
    fn get_has_effect(&self, _path: &str) -> bool {
        false
    }

    /// Returns the head of a stream's response, with the fields for pages of other origins, or
    /// `None` if the connection has been taken over already. `target` is what the client named for
    /// the protocol to address.
    fn stream_head(&self, format: Format, target: &str, fields: &[Field]) -> Option<Response>;

    /// Returns the response that carries a reply.
    fn answer(&self, format: Format, body: ReplyBody, fields: &[Field]) -> Answer;

    /// Returns what web pages can do with an answer.
    fn exposure<'a>(&self, delivery: &'a Delivery) -> Exposure<'a>;

    /// Returns whether streams of this format are read by a browser's `EventSource`, which comes
    /// back by itself, but not after it was refused.
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

/// What web pages can do with an answer.
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
