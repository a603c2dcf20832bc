//! Requests, one per row: what they mean, or the error that refuses them and the reason. RFC
//! numbers are 9110 and 9112 where a row does not name another, and 9112 in the tables of chunks.

use sealed_http::codec::{DecodeError, Limits};

use super::Case;

/// Expands to a GET request with these header fields.
macro_rules! get {
    ($($fields:literal),*) => { concat!("GET / HTTP/1.1\r\nHost: h\r\n", $($fields, "\r\n",)* "\r\n") };
}

/// Expands to a GET request for this target.
macro_rules! target {
    ($target:literal) => {
        concat!("GET ", $target, " HTTP/1.1\r\nHost: h\r\n\r\n")
    };
}

/// Expands to a GET request with this Host.
macro_rules! host {
    ($host:literal) => {
        concat!("GET / HTTP/1.1\r\nHost: ", $host, "\r\n\r\n")
    };
}

/// Expands to a POST request with these header fields, followed by this body.
macro_rules! post {
    ($($fields:literal),*; $body:literal) => {
        concat!("POST /p HTTP/1.1\r\nHost: h\r\n", $($fields, "\r\n",)* "\r\n", $body)
    };
}

mod bodies;
mod chunked;
mod fields;
mod lines;
mod sizes;

pub use bodies::{LENGTHS, PIPELINES, TRANSFER_CODINGS};
pub use chunked::{CHUNKS, EXTENSIONS, TRAILERS};
pub use fields::{CONNECTIONS, EXPECTATIONS, HEADER_FIELDS, HOSTS};
pub use lines::{REQUEST_LINES, TARGETS, VERSIONS};
pub use sizes::{LIMITS as TIGHT, SIZES};

const OK: Result<&str, DecodeError> = Ok("GET / 1.1 keep");

/// Cases of one kind, and the limits under which they are decoded.
pub struct Table {
    pub name: &'static str,
    pub cases: &'static [Case],
    pub limits: Limits,
}

/// Returns all tables of requests.
pub fn tables() -> Vec<Table> {
    let table = |name, cases| Table { name, cases, limits: Limits::default() };
    vec![
        table("request lines", REQUEST_LINES),
        table("versions", VERSIONS),
        table("targets", TARGETS),
        table("hosts", HOSTS),
        table("header fields", HEADER_FIELDS),
        table("connections", CONNECTIONS),
        table("expectations", EXPECTATIONS),
        table("lengths", LENGTHS),
        table("transfer codings", TRANSFER_CODINGS),
        table("pipelines", PIPELINES),
        table("chunks", CHUNKS),
        table("extensions", EXTENSIONS),
        table("trailers", TRAILERS),
        Table { name: "sizes", cases: SIZES, limits: TIGHT },
    ]
}
