//! Messages that are too large, under limits so tight that each case stays readable.

use sealed_http::codec::{DecodeError as E, Limits};

use super::Case;

pub const LIMITS: Limits = Limits {
    request_line_bytes_max: 24,
    head_bytes_max: 80,
    headers_max: 4,
    body_bytes_max: 4,
    chunk_line_bytes_max: 8,
    chunk_extension_bytes_max: 8,
    trailer_bytes_max: 8,
    connect_allowed: false,
};

/// Expands to a POST request with this chunked body.
macro_rules! body {
    ($body:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", $body)
    };
}

const LINE: Result<&str, E> = Err(E::RequestLineTooLong);
const HEAD: Result<&str, E> = Err(E::HeadTooLarge);
const BODY: Result<&str, E> = Err(E::BodyTooLarge);
const CHUNK: Result<&str, E> = Err(E::Chunk);

pub const SIZES: &[Case] = &[
    ("line beyond its limit by one", "24 bytes", "GET /90123456789 HTTP/1.1\r\nHost: h\r\n\r\n", LINE),
    ("long target", "9112 3: 414", "GET /a?b=01234567890123456789 HTTP/1.1\r\nHost: h\r\n\r\n", LINE),
    ("long method", "9112 3", "GETGETGETGETGETGET / HTTP/1.1\r\nHost: h\r\n\r\n", LINE),
    ("long line that is none", "its length is seen first", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n", LINE),
    ("line without end", "no end could be in time", "GET /0123456789012345678901", LINE),
    ("line of spaces", "no end could be in time", "                          ", LINE),
    ("long line behind an empty one", "the empty one does not count", "\r\nGET /90123456789 HTTP/1.1\r\n", LINE),
    (
        "one long field",
        "6585 5: 431",
        "GET / HTTP/1.1\r\nHost: h\r\nX: 01234567890123456789012345678901234567890123456789\r\n\r\n",
        HEAD,
    ),
    (
        "one long name",
        "6585 5",
        "GET / HTTP/1.1\r\nHost: h\r\nX01234567890123456789012345678901234567890123456789: \r\n\r\n",
        HEAD,
    ),
    (
        "long fields together",
        "6585 5",
        "GET / HTTP/1.1\r\nHost: h\r\nX: 012345678901234567890123\r\nY: 012345678901234567890123\r\n\r\n",
        HEAD,
    ),
    (
        "field without end",
        "no end could be in time",
        "GET / HTTP/1.1\r\nHost: h\r\nX: 0123456789012345678901234567890123456789012345678901",
        HEAD,
    ),
    ("many fields", "four", "GET / HTTP/1.1\r\nHost: h\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n", HEAD),
    ("length", "9110 15.5.14: 413", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", BODY),
    ("length in 1.0", "9110 15.5.14", "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", BODY),
    ("chunk", "9110 15.5.14", body!("5\r\nhello\r\n0\r\n\r\n"), BODY),
    ("chunks together", "9110 15.5.14", body!("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), BODY),
    ("chunk line", "nobody needs it", body!("2;456789\r\nhi\r\n0\r\n\r\n"), Ok("POST / 1.1 keep [hi]")),
    ("long chunk line", "9112 7.1.1: a limit on extensions", body!("2;4567890\r\nhi\r\n0\r\n\r\n"), CHUNK),
    ("long chunk line of noughts", "digits count too", body!("000000002\r\nhi\r\n0\r\n\r\n"), CHUNK),
    ("extensions together", "9112 7.1.1", body!("1;aaa\r\nh\r\n1;aaa\r\ni\r\n0;\r\n\r\n"), CHUNK),
    ("long trailer", "6585 5", body!("0\r\nX: 4567\r\n\r\n"), HEAD),
    ("trailers together", "6585 5", body!("0\r\nX:\r\nY:\r\nZ:\r\n\r\n"), HEAD),
    ("trailer without end", "no end could be in time", body!("0\r\nX: 456789"), HEAD),
];
