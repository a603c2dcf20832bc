//! A response's status line and header fields: `httparse` finds them, and this module interprets
//! them.

use crate::codec::error::DecodeError;
use crate::codec::framing::FramingFields;
use crate::codec::head::check_line_ends;
use crate::codec::limits::{HEADERS_MAX, Limits};

/// The kind of request, as far as the framing of the response depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// HEAD: no body follows, regardless of the header fields.
    Head,
    /// CONNECT: what follows a head with a 2xx status is not HTTP.
    Connect,
    /// Anything else.
    Other,
}

/// How the end of the body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseFraming {
    /// There is no body.
    None,
    Length(u64),
    Chunked,
    /// The body ends with the connection.
    ToTheEnd,
    /// What follows is not HTTP.
    Switched,
}

/// A response's status line and header fields, borrowed from the bytes that they were decoded from.
#[derive(Debug, Clone)]
pub struct ResponseHead<'a> {
    status: u16,
    reason: &'a str,
    version_minor: u8,
    keep_alive: bool,
    framing: ResponseFraming,
    headers: [httparse::Header<'a>; HEADERS_MAX],
    header_count: usize,
}

impl<'a> ResponseHead<'a> {
    /// Parses a complete head, from the status line to the empty line, of the response to a request
    /// of kind `asked`. Of the limits, only the number of header fields is checked.
    ///
    /// # Errors
    /// If the head is malformed, has too many header fields, or cannot be framed unambiguously.
    pub fn parse(bytes: &'a [u8], asked: Asked, limits: &Limits) -> Result<Self, DecodeError> {
        check_line_ends(bytes)?;
        if bytes.starts_with(b"\r\n") {
            return Err(DecodeError::StatusLine);
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers[..limits.headers_max.min(HEADERS_MAX)]);
        match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(DecodeError::StatusLine),
            Err(error) => return Err(what_is_wrong(error, bytes)),
        }
        let status = response.code.filter(|status| *status >= 100).ok_or(DecodeError::StatusLine)?;
        let version_minor = response.version.ok_or(DecodeError::Version)?;
        let (reason, header_count) = (response.reason.unwrap_or(""), response.headers.len());
        let mut fields = FramingFields::default();
        headers[..header_count].iter().try_for_each(|header| fields.read(header, version_minor))?;
        fields.check()?;
        let framing = framing_of(&fields, status, asked);
        // A body that 204 cannot have is left unread, and so is the rest of the connection.
        let is_left_unread = status == 204 && fields.has_body();
        let ends = matches!(framing, ResponseFraming::ToTheEnd | ResponseFraming::Switched);
        let keep_alive = fields.keep_alive(version_minor) && !is_left_unread && !ends;
        Ok(Self { status, reason, version_minor, keep_alive, framing, headers, header_count })
    }

    /// Returns the status, from 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns whether the status is one of success: from 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the reason phrase, which has no meaning and is often empty.
    pub fn reason(&self) -> &'a str {
        self.reason
    }

    /// Returns the minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub fn version_minor(&self) -> u8 {
        self.version_minor
    }

    /// Returns whether the server will answer more requests on the connection.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Returns the value of the first header field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns the value of the first header field of that name, if that value is ASCII.
    pub fn header_str(&self, name: &str) -> Option<&'a str> {
        self.header(name).filter(|value| value.is_ascii()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Returns all header fields in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.headers[..self.header_count].iter().map(|header| (header.name, header.value))
    }

    pub(crate) fn framing(&self) -> ResponseFraming {
        self.framing
    }
}

/// Applies the rules of RFC 9112, 6.3, in their order.
fn framing_of(fields: &FramingFields, status: u16, asked: Asked) -> ResponseFraming {
    match (status, asked) {
        (101, _) | (200..300, Asked::Connect) => ResponseFraming::Switched,
        (100..200 | 204 | 304, _) | (_, Asked::Head) => ResponseFraming::None,
        _ if fields.chunked => ResponseFraming::Chunked,
        _ => fields.length.map_or(ResponseFraming::ToTheEnd, ResponseFraming::Length),
    }
}

fn what_is_wrong(error: httparse::Error, bytes: &[u8]) -> DecodeError {
    match error {
        httparse::Error::TooManyHeaders => DecodeError::HeadTooLarge,
        httparse::Error::HeaderName | httparse::Error::HeaderValue | httparse::Error::NewLine => DecodeError::Header,
        httparse::Error::Version if bytes.starts_with(b"HTTP/") => DecodeError::Version,
        _ => DecodeError::StatusLine,
    }
}
