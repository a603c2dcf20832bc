//! Responses into bytes.

use std::borrow::Cow;

use bytes::Bytes;

use crate::fields::{BadHeaderValue, Fields, encode_field};

/// The interim response that asks for the body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes of a body from which on it is handed to the loop as it is: shorter ones are copied behind their head sooner.
const SHARED_MIN: usize = 8 * 1024;

/// What the encoder writes itself.
const WRITTEN: [&str; 4] = ["Content-Length", "Transfer-Encoding", "Connection", "Date"];

/// A response: status, header fields, and a body that is all there.
///
/// The encoder writes the length or the transfer coding, `Date` and `Connection`: they cannot be set here.
///
/// # Example
/// ```
/// let mut out = Vec::new();
/// let response = sealed_http::Response::new(200).header("Content-Type", "text/plain").body("hello");
/// response.encode(&mut out, 1, true, false, "Sun, 06 Nov 1994 08:49:37 GMT");
/// assert!(out.starts_with(b"HTTP/1.1 200 OK\r\n") && out.ends_with(b"Content-Length: 5\r\n\r\nhello"));
/// ```
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    fields: Fields,
    body: Bytes,
    close: bool,
    says_keep_alive: bool,
}

impl Response {
    /// A response of that status, from 200 to 599, without a body; or 101, for [`Http::upgrade`](crate::Http::upgrade).
    ///
    /// # Panics
    /// On any other status.
    pub fn new(status: u16) -> Self {
        assert!((200..600).contains(&status) || status == 101, "not the status of a final response: {status}");
        Self { status, fields: Fields::default(), body: Bytes::new(), close: false, says_keep_alive: false }
    }

    /// Adds a header field that is written down in the program.
    ///
    /// # Panics
    /// Where the value has control characters, or the name is not a token or one that the encoder writes.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.add(name, value, &WRITTEN);
        self
    }

    /// Adds a header field whose value comes from elsewhere.
    ///
    /// # Panics
    /// Where the name is not a token, or one that the encoder writes.
    pub fn try_header(mut self, name: &'static str, value: impl Into<String>) -> Result<Self, BadHeaderValue> {
        self.fields.try_add(name, Cow::Owned(value.into()), &WRITTEN)?;
        Ok(self)
    }

    /// Adds header fields that were made by the program or checked before.
    ///
    /// # Panics
    /// As [`Response::header`] does.
    #[must_use]
    pub fn with(mut self, headers: &[(&'static str, String)]) -> Self {
        for (name, value) in headers {
            self.fields.add(name, value.clone(), &WRITTEN);
        }
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Lets the connection be closed behind the response.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Lets it say `Connection: keep-alive` where the connection is kept, though HTTP/1.1 needs no such word: for clients
    /// that look for it.
    #[must_use]
    pub fn saying_keep_alive(mut self) -> Self {
        self.says_keep_alive = true;
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the connection is to be closed behind the response.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// Appends the response for a client of HTTP/1.`version_minor`. With `head_only`, as HEAD wants it, the body is left out
    /// but its length is told.
    ///
    /// # Panics
    /// Where the status is 101: behind that no HTTP follows.
    pub fn encode(&self, out: &mut Vec<u8>, version_minor: u8, keep_alive: bool, head_only: bool, date: &str) {
        assert!(self.status != 101, "101 is an answer for Http::upgrade alone");
        self.encode_fields(out, version_minor, keep_alive, date);
        let body = match self.status {
            204 | 304 => return out.extend_from_slice(b"\r\n"),
            // RFC 9110, 15.3.6: it has no content, but only its length says so.
            205 => &[][..],
            _ => &self.body,
        };
        out.extend_from_slice(b"Content-Length: ");
        write_decimal(out, body.len() as u64);
        out.extend_from_slice(b"\r\n\r\n");
        if !head_only {
            out.extend_from_slice(body);
        }
    }

    /// Appends the head of a response whose body is streamed: in chunks, or, for HTTP/1.0, until the connection closes,
    /// which `keep_alive` does not change then.
    ///
    /// # Panics
    /// Where the status cannot have a body: 204, 205 and 304.
    pub fn encode_stream_head(&self, out: &mut Vec<u8>, version_minor: u8, keep_alive: bool, date: &str) {
        assert!(self.may_have_body(), "a response of status {} cannot be streamed", self.status);
        let chunked = version_minor > 0;
        self.encode_fields(out, version_minor, keep_alive && chunked, date);
        out.extend_from_slice(if chunked { b"Transfer-Encoding: chunked\r\n\r\n" } else { b"\r\n" });
    }

    /// Appends the head behind which another protocol is spoken: 101, or 200 to a CONNECT.
    pub(crate) fn encode_switch(&self, out: &mut Vec<u8>, date: &str) {
        self.encode_fields(out, 1, true, date);
        out.extend_from_slice(if self.status == 101 { b"Connection: Upgrade\r\n\r\n" } else { b"\r\n" });
    }

    /// The body, if it is so long that it had better not be copied.
    pub(crate) fn body_to_share(&self) -> Option<Bytes> {
        (self.may_have_body() && self.body.len() >= SHARED_MIN).then(|| self.body.clone())
    }

    fn may_have_body(&self) -> bool {
        !matches!(self.status, 101 | 204 | 205 | 304)
    }

    fn encode_fields(&self, out: &mut Vec<u8>, version_minor: u8, keep_alive: bool, date: &str) {
        out.extend_from_slice(b"HTTP/1.1 ");
        write_decimal(out, u64::from(self.status));
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        encode_field(out, "Date", date);
        self.fields.encode(out);
        if self.status == 426 {
            // RFC 9110, 7.8: Upgrade, which it has to have, is for the next on the way alone.
            encode_field(out, "Connection", if keep_alive { "Upgrade" } else { "close, Upgrade" });
        } else if !keep_alive {
            encode_field(out, "Connection", "close");
        } else if version_minor == 0 || self.says_keep_alive {
            encode_field(out, "Connection", "keep-alive");
        }
    }
}

/// Appends a chunk. Nothing, if it is empty: an empty chunk would end the body.
pub fn encode_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let digits = (64 - (bytes.len() as u64).leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[bytes.len() >> (4 * digit) & 15]);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends what ends a chunked body.
pub fn encode_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// The standard phrase of a status of HTTP itself; `Unknown` for others.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

pub(crate) fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}
