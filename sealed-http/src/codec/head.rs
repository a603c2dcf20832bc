//! A request line and header fields: `httparse` finds them, and this module interprets them.

use std::mem::MaybeUninit;

use sealed::fault;

use crate::codec::decoder::find_line_feed;
use crate::codec::error::DecodeError;
use crate::codec::framing::{FramingFields, has_token};
use crate::codec::limits::{HEADERS_MAX, Limits};

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// CONNECT, if [`Limits::connect_allowed`] is set.
    Connect,
    /// PATCH
    Patch,
    /// Any other token; [`RequestHead::method_name`] returns it.
    Other,
}

/// How the end of the body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    Length(u64),
    Chunked,
}

/// A request line and header fields, borrowed from the bytes that they were decoded from.
#[derive(Debug, Clone)]
pub struct RequestHead<'a> {
    method: Method,
    method_name: &'a str,
    /// The authority of the target, if the target has one.
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    version_minor: u8,
    keep_alive: bool,
    expects_continue: bool,
    asks_upgrade: bool,
    body: BodyFraming,
    /// The lines of the header fields, including line ends.
    lines: &'a [u8],
}

const _: () = assert!(size_of::<RequestHead<'_>>() <= 112, "it is moved on its way to the handler");

impl<'a> RequestHead<'a> {
    /// Parses a complete head, from the request line to the empty line, and accepts one empty line
    /// in front of it. Of the limits, only the number of header fields and whether CONNECT is
    /// allowed are checked: the decoder has enforced the others when it calls this function.
    ///
    /// # Errors
    /// If the head is malformed, has too many header fields, or cannot be framed unambiguously.
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        check_line_ends(bytes)?;
        let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        if bytes.starts_with(b"\r\n") {
            return Err(DecodeError::RequestLine);
        }
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut headers[..limits.headers_max.min(HEADERS_MAX)]) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(DecodeError::RequestLine),
            Err(error) => return Err(what_is_wrong(error, bytes)),
        }
        let method_name = request.method.ok_or(DecodeError::RequestLine)?;
        let target = request.path.ok_or(DecodeError::RequestLine)?;
        let version_minor = request.version.ok_or(DecodeError::Version)?;
        let method = method_named(method_name);
        if method == Method::Connect && !limits.connect_allowed {
            return Err(DecodeError::Connect);
        }
        let Target { authority, path, query } = Target::split(method, target)?;
        let meaning = Meaning::read(request.headers, version_minor)?;
        // The lines after the request line, without the empty line at the end.
        let lines = find_line_feed(bytes).and_then(|end| bytes.get(end + 1..bytes.len() - 2)).unwrap_or_default();
        Ok(Self {
            method,
            method_name,
            authority,
            path,
            query,
            version_minor,
            keep_alive: meaning.keep_alive,
            expects_continue: meaning.expects_continue,
            asks_upgrade: meaning.asks_upgrade,
            body: meaning.body,
            lines,
        })
    }

    /// Returns the method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Returns the method as it was sent.
    pub fn method_name(&self) -> &'a str {
        self.method_name
    }

    /// Returns the host that the request is for, with or without a port: the authority of the
    /// target, if present, and otherwise the value of the Host field (RFC 9112, 3.2.2). Only a
    /// request of HTTP/1.0 may have neither.
    pub fn authority(&self) -> Option<&'a str> {
        self.authority.or_else(|| self.header_str("Host"))
    }

    /// Returns the path, not decoded. The path starts with `/`, or is `*` for OPTIONS, or empty for
    /// CONNECT.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// Returns the part of the target after the first `?`, not decoded.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// Returns the minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub fn version_minor(&self) -> u8 {
        self.version_minor
    }

    /// Returns whether the client may send more requests on the connection.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Returns whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Returns the value of the Upgrade field: the protocols that the client prefers, as the client
    /// lists them. `None` if the request does not ask for an upgrade (RFC 9110, 7.8).
    pub fn upgrade(&self) -> Option<&'a str> {
        self.header_str("Upgrade").filter(|_| self.asks_upgrade)
    }

    /// Returns whether a body follows. A body in chunked coding counts even if it is empty.
    pub fn has_body(&self) -> bool {
        self.body != BodyFraming::Length(0)
    }

    /// Returns the length of the body, if the head declares it.
    pub fn content_length(&self) -> Option<u64> {
        match self.body {
            BodyFraming::Length(length) => Some(length),
            BodyFraming::Chunked => None,
        }
    }

    /// Returns the value of the first header field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let is_it = |line: &&[u8]| {
            line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
        };
        lines(self.lines).find(is_it).map(|line| line[name.len() + 1..].trim_ascii())
    }

    /// Returns the value of the first header field of that name, if that value is ASCII.
    pub fn header_str(&self, name: &str) -> Option<&'a str> {
        self.header(name).filter(|value| value.is_ascii()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Returns all header fields in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        lines(self.lines).map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            // A name is a token, which is ASCII.
            let name = std::str::from_utf8(&line[..colon]).unwrap_or_default();
            (name, line.get(colon + 1..).unwrap_or_default().trim_ascii())
        })
    }

    pub(crate) fn body(&self) -> BodyFraming {
        self.body
    }
}

/// Returns the lines of a head that has been checked, including line ends.
fn lines(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = find_line_feed(rest)?;
        let (line, behind) = rest.split_at(end + 1);
        rest = behind;
        Some(line)
    })
}

/// The statements of the header fields about the message and its connection.
struct Meaning {
    keep_alive: bool,
    expects_continue: bool,
    asks_upgrade: bool,
    body: BodyFraming,
}

impl Meaning {
    fn read(headers: &[httparse::Header<'_>], version_minor: u8) -> Result<Self, DecodeError> {
        let (mut host, mut framing) = (None, FramingFields::default());
        let (mut upgrade, mut expects_continue) = (false, false);
        for header in headers {
            framing.read(header, version_minor)?;
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                if host.replace(header.value).is_some() || !is_host(header.value) {
                    return Err(DecodeError::Host);
                }
            } else if is("connection") {
                upgrade |= has_token(header.value, "upgrade");
            } else if is("expect") {
                if !header.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(DecodeError::Expectation);
                }
                expects_continue = version_minor > 0;
            }
        }
        if host.is_none() && version_minor > 0 {
            return Err(DecodeError::Host);
        }
        framing.check()?;
        let length = framing.length.unwrap_or(0);
        let body = if framing.chunked { BodyFraming::Chunked } else { BodyFraming::Length(length) };
        let keep_alive = framing.keep_alive(version_minor);
        // RFC 9110, 7.8: an Upgrade field in an HTTP/1.0 request must be ignored.
        let asks_upgrade = upgrade && (version_minor > 0 || fault!("old-version-switched"));
        Ok(Self { keep_alive, expects_continue, asks_upgrade, body })
    }
}

fn method_named(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        "CONNECT" => Method::Connect,
        _ => Method::Other,
    }
}

/// The parts of a request target.
struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Splits a target in origin, absolute or asterisk form; for CONNECT in authority form.
    fn split(method: Method, target: &'a str) -> Result<Self, DecodeError> {
        // A target has neither raw bytes beyond ASCII nor a fragment.
        let odd = |byte: u8| !byte.is_ascii_graphic() || byte == b'#';
        if target.bytes().fold(false, |any, byte| any | odd(byte)) {
            return Err(DecodeError::Target);
        }
        if method == Method::Connect {
            let has_port =
                target.rsplit_once(':').is_some_and(|(_, port)| is_port(port.as_bytes()) && !port.is_empty());
            let is_authority = has_port && is_host(target.as_bytes());
            let authority = is_authority.then_some(target).ok_or(DecodeError::Target)?;
            return Ok(Self { authority: Some(authority), path: "", query: None });
        }
        if target == "*" {
            let path = if method == Method::Options { Ok(target) } else { Err(DecodeError::Target) };
            return Ok(Self { authority: None, path: path?, query: None });
        }
        let (authority, local) = if target.starts_with('/') { (None, target) } else { split_authority(target)? };
        let (path, query) = local.split_once('?').map_or((local, None), |(path, query)| (path, Some(query)));
        // RFC 9110, 7.1: an empty path means the root, and with OPTIONS the whole server.
        let whole_server = method == Method::Options && query.is_none();
        let path = match path {
            "" if whole_server => "*",
            "" => "/",
            path => path,
        };
        Ok(Self { authority, path, query })
    }
}

/// Splits an absolute `http` or `https` URI into its authority and the rest.
fn split_authority(target: &str) -> Result<(Option<&str>, &str), DecodeError> {
    let (scheme, rest) = target.split_once("://").ok_or(DecodeError::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(DecodeError::Target);
    }
    let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if is_host(authority.as_bytes()) { Ok((Some(authority), local)) } else { Err(DecodeError::Target) }
}

/// Returns whether the value is a name, an IPv4 address or an IPv6 address in brackets, with or
/// without a port.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let (host, port) = if let Some(rest) = value.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        let address = std::str::from_utf8(&rest[..end]).ok();
        if address.and_then(|text| text.parse::<std::net::Ipv6Addr>().ok()).is_none() {
            return false;
        }
        (None, &rest[end + 1..])
    } else {
        let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
        (Some(&value[..end]), &value[end..])
    };
    let port_is_fine = match port {
        [] => true,
        [b':', digits @ ..] => is_port(digits),
        _ => false,
    };
    // A registered name may have all bytes that RFC 3986 allows, except percent-encoding, which no
    // host needs, and the comma, which appears if an intermediary joins two Host fields.
    let is_name = |host: &[u8]| !host.is_empty() && host.iter().all(|byte| NAME_BYTES[usize::from(*byte)]);
    port_is_fine && host.is_none_or(is_name)
}

const NAME_BYTES: [bool; 256] = letters_digits_and(b"-._~!$&'()*+;=");
const TOKEN_BYTES: [bool; 256] = letters_digits_and(b"!#$%&'*+-.^_`|~");

/// Returns a table of the bytes that are a letter, a digit, or one of `others`.
const fn letters_digits_and(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
}

/// Returns whether the digits are a port. RFC 3986 allows an empty port.
fn is_port(digits: &[u8]) -> bool {
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && u16::try_from(digits.iter().fold(0, |port, digit| port * 10 + u32::from(digit - b'0'))).is_ok()
}

/// Returns whether a byte may occur in a token: a method, or the name of a field.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[usize::from(byte)]
}

/// Returns whether the value of a header field has no control characters.
pub(crate) fn is_value(value: &[u8]) -> bool {
    // Checks all bytes without branching, so that several bytes are compared at a time.
    let odd = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    !value.iter().fold(false, |any, byte| any | odd(*byte))
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), DecodeError> {
    if is_value(value) { Ok(()) } else { Err(DecodeError::Header) }
}

/// Checks that every CR is followed by LF, and that every LF follows CR. Line ends on which parsers
/// disagree enable request smuggling.
pub(crate) fn check_line_ends(bytes: &[u8]) -> Result<(), DecodeError> {
    // Checks all bytes without branching, so that several bytes are compared at a time.
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    let odd = pairs.fold(0, |odd, (byte, next)| odd | u8::from((*byte == b'\r') != (*next == b'\n')));
    if odd != 0 || bytes.first() == Some(&b'\n') || bytes.last() == Some(&b'\r') {
        return Err(DecodeError::LineEnd);
    }
    Ok(())
}

fn what_is_wrong(error: httparse::Error, bytes: &[u8]) -> DecodeError {
    match error {
        httparse::Error::TooManyHeaders => DecodeError::HeadTooLarge,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => DecodeError::Header,
        httparse::Error::NewLine => DecodeError::LineEnd,
        httparse::Error::Version if has_other_version(bytes) => DecodeError::Version,
        _ => DecodeError::RequestLine,
    }
}

/// Returns whether only the version of the request line is unsupported, but well-formed: one digit,
/// a dot, one digit.
fn has_other_version(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\r').unwrap_or(bytes.len());
    let mut words = bytes[..end].split(|byte| *byte == b' ');
    let (_method, _target, version) = (words.next(), words.next(), words.next());
    let well_formed = matches!(version, Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit());
    well_formed && words.next().is_none()
}
