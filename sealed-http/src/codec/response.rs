//! Encodes responses into bytes.

use std::borrow::Cow;

use bytes::Bytes;

use crate::codec::fields::{BadHeaderValue, Fields, encode_field};

/// The interim response that asks the client for the request body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Minimum size in bytes of a body that is passed to the loop without copying. A shorter body is
/// copied after its head.
const SHARED_MIN: usize = 8 * 1024;

/// Fields that the encoder writes itself.
const WRITTEN: [&str; 4] = ["Content-Length", "Transfer-Encoding", "Connection", "Date"];

/// A response: the status, the header fields, and a complete body.
///
/// The encoder writes the length or the transfer coding, `Date` and `Connection`: these fields
/// cannot be set here.
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
    /// Creates a response without a body. The status is from 200 to 599, or 101 for
    /// [`Http::upgrade`](crate::Http::upgrade).
    ///
    /// # Panics
    /// If the status is any other.
    pub fn new(status: u16) -> Self {
        assert!((200..600).contains(&status) || status == 101, "not the status of a final response: {status}");
        Self { status, fields: Fields::default(), body: Bytes::new(), close: false, says_keep_alive: false }
    }

    /// Adds a header field whose value is fixed in the program. For computed values, use
    /// [`with`](Self::with), or [`try_header`](Self::try_header) if they may be invalid.
    ///
    /// # Panics
    /// If the value has control characters, the name is not a token, or the encoder writes the
    /// field itself.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.add(name, value, &WRITTEN);
        self
    }

    /// Adds a header field whose value is not known to be valid, such as user input.
    ///
    /// # Errors
    /// If the value has control characters.
    ///
    /// # Panics
    /// If the name is not a token, or the encoder writes the field itself.
    pub fn try_header(mut self, name: &'static str, value: impl Into<String>) -> Result<Self, BadHeaderValue> {
        self.fields.try_add(name, Cow::Owned(value.into()), &WRITTEN)?;
        Ok(self)
    }

    /// Adds header fields whose values were made by the program or checked before.
    ///
    /// # Panics
    /// On the conditions of [`Response::header`].
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

    /// Asks the server to close the connection after the response. The codec alone does not: pass
    /// `keep_alive` to [`encode`](Self::encode) accordingly.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Adds `Connection: keep-alive` if the connection is kept, although HTTP/1.1 does not require
    /// it: for clients that look for it.
    #[must_use]
    pub fn saying_keep_alive(mut self) -> Self {
        self.says_keep_alive = true;
        self
    }

    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns whether the server is to close the connection after the response.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// Appends the response for a client that uses HTTP/1.`version_minor`. `keep_alive` is whether
    /// another request may follow on the connection. With `head_only`, as for HEAD, the body is
    /// omitted, but its length is sent. `date` is the value of the field `Date`, in the format
    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    ///
    /// # Panics
    /// If the status is 101: what follows that is not HTTP.
    pub fn encode(&self, out: &mut Vec<u8>, version_minor: u8, keep_alive: bool, head_only: bool, date: &str) {
        assert!(self.status != 101, "101 is an answer for Http::upgrade alone");
        self.encode_fields(out, version_minor, keep_alive, date);
        let body = match self.status {
            204 | 304 => return out.extend_from_slice(b"\r\n"),
            // RFC 9110, 15.3.6: the response has no content, but a `Content-Length` of 0 has to say
            // so.
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

    /// Appends the head of a response whose body is streamed: with chunked coding, or, for
    /// HTTP/1.0, until the connection closes, whatever `keep_alive` is.
    ///
    /// # Panics
    /// If the status cannot have a body: 101, 204, 205 and 304.
    pub fn encode_stream_head(&self, out: &mut Vec<u8>, version_minor: u8, keep_alive: bool, date: &str) {
        assert!(self.may_have_body(), "a response of status {} cannot be streamed", self.status);
        let chunked = version_minor > 0;
        self.encode_fields(out, version_minor, keep_alive && chunked, date);
        out.extend_from_slice(if chunked { b"Transfer-Encoding: chunked\r\n\r\n" } else { b"\r\n" });
    }

    /// Appends the head of a response whose body, of this length, is sent apart.
    ///
    /// # Panics
    /// If the status cannot have a body: 101, 204, 205 and 304.
    pub fn encode_sized_head(&self, out: &mut Vec<u8>, version_minor: u8, keep_alive: bool, date: &str, length: u64) {
        assert!(self.may_have_body(), "a response of status {} has no body", self.status);
        self.encode_fields(out, version_minor, keep_alive, date);
        out.extend_from_slice(b"Content-Length: ");
        write_decimal(out, length);
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// Appends the head after which the connection speaks another protocol: 101, or 2xx to a
    /// CONNECT.
    pub(crate) fn encode_switch(&self, out: &mut Vec<u8>, date: &str) {
        self.encode_fields(out, 1, true, date);
        out.extend_from_slice(if self.status == 101 { b"Connection: Upgrade\r\n\r\n" } else { b"\r\n" });
    }

    /// Returns the body if it is long enough to be sent without copying.
    pub(crate) fn body_to_share(&self) -> Option<Bytes> {
        (self.may_have_body() && self.body.len() >= SHARED_MIN).then(|| self.body.clone())
    }

    /// Returns the number of bytes of the body that is sent.
    pub(crate) fn body_len(&self) -> usize {
        if self.may_have_body() { self.body.len() } else { 0 }
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
            // RFC 9110, 7.8: the field Upgrade, which 426 requires, is hop-by-hop.
            encode_field(out, "Connection", if keep_alive { "Upgrade" } else { "close, Upgrade" });
        } else if !keep_alive {
            encode_field(out, "Connection", "close");
        } else if version_minor == 0 || self.says_keep_alive {
            encode_field(out, "Connection", "keep-alive");
        }
    }
}

/// Appends a chunk. Appends nothing if `bytes` is empty: an empty chunk would end the body.
///
/// ```
/// use sealed_http::codec::{encode_chunk, encode_last_chunk};
///
/// let mut out = Vec::new();
/// encode_chunk(&mut out, b"hello");
/// encode_last_chunk(&mut out);
/// assert_eq!(out, b"5\r\nhello\r\n0\r\n\r\n");
/// ```
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

/// Appends the last chunk and the empty trailer section, which end a chunked body.
pub fn encode_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Returns the standard reason phrase of a status that HTTP itself defines; `Unknown` for others.
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
        507 => "Insufficient Storage",
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
