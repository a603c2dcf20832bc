//! A request's line and header fields: `httparse` finds them, this file decides what they mean.

use std::mem::MaybeUninit;

use sealed::fault;

use crate::decoder::find_line_feed;
use crate::error::DecodeError;
use crate::limits::{HEADERS_MAX, Limits};

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
    /// CONNECT, where it is let through.
    Connect,
    /// PATCH
    Patch,
    /// Any other token; [`RequestHead::method_name`] has it.
    Other,
}

/// How the body's end is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    Length(u64),
    Chunked,
}

/// A request's line and header fields. It borrows from the bytes it was decoded from.
#[derive(Debug, Clone)]
pub struct RequestHead<'a> {
    method: Method,
    method_name: &'a str,
    /// That of the target, where it has one.
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    version_minor: u8,
    keep_alive: bool,
    expects_continue: bool,
    asks_upgrade: bool,
    body: BodyFraming,
    /// The lines of the header fields, with their ends.
    lines: &'a [u8],
}

const _: () = assert!(size_of::<RequestHead<'_>>() <= 112, "it is moved on its way to the handler");

impl<'a> RequestHead<'a> {
    /// Parses a whole head, from the request line to the empty line, one empty line in front forgiven. Of the limits,
    /// only the number of header fields is looked at: the decoder has enforced the others when it calls this.
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
        // Behind the request line, without the empty one at the end.
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

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as it was sent.
    pub fn method_name(&self) -> &'a str {
        self.method_name
    }

    /// Whom the request is for: a host, with or without a port. Where the target has one it counts, and otherwise that of
    /// the Host field (RFC 9112, 3.2.2); only a request of HTTP/1.0 may have neither.
    pub fn authority(&self) -> Option<&'a str> {
        self.authority.or_else(|| self.header_str("Host"))
    }

    /// The path, not decoded. It starts with `/`, or is `*` for OPTIONS, or empty for CONNECT.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// What follows the first `?` of the target, not decoded.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub fn version_minor(&self) -> u8 {
        self.version_minor
    }

    /// Whether the client will send more requests on the connection.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The protocols that the client would rather speak, as it lists them, where it asks for that (RFC 9110, 7.8).
    pub fn upgrade(&self) -> Option<&'a str> {
        self.header_str("Upgrade").filter(|_| self.asks_upgrade)
    }

    /// Whether a body follows, be it an empty one in chunks.
    pub fn has_body(&self) -> bool {
        self.body != BodyFraming::Length(0)
    }

    /// The length of the body, where it is known before.
    pub fn content_length(&self) -> Option<u64> {
        match self.body {
            BodyFraming::Length(length) => Some(length),
            BodyFraming::Chunked => None,
        }
    }

    /// The first header field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let is_it = |line: &&[u8]| {
            line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
        };
        lines(self.lines).find(is_it).map(|line| line[name.len() + 1..].trim_ascii())
    }

    /// The first header field of that name, if it is ASCII.
    pub fn header_str(&self, name: &str) -> Option<&'a str> {
        self.header(name).filter(|value| value.is_ascii()).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All header fields in order.
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

/// The lines of a head that has been checked, with their ends.
fn lines(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = find_line_feed(rest)?;
        let (line, behind) = rest.split_at(end + 1);
        rest = behind;
        Some(line)
    })
}

/// What the header fields say of the message and its connection.
struct Meaning {
    keep_alive: bool,
    expects_continue: bool,
    asks_upgrade: bool,
    body: BodyFraming,
}

impl Meaning {
    fn read(headers: &[httparse::Header<'_>], version_minor: u8) -> Result<Self, DecodeError> {
        let (mut host, mut length, mut chunked) = (None, None, false);
        let (mut close, mut keep, mut upgrade, mut expects_continue) = (false, false, false, false);
        for header in headers {
            check_value(header.value)?;
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                if host.replace(header.value).is_some() || !is_host(header.value) {
                    return Err(DecodeError::Host);
                }
            } else if is("content-length") {
                if length.replace(parse_length(header.value)?).is_some() {
                    return Err(DecodeError::ContentLength);
                }
            } else if is("transfer-encoding") {
                if chunked || version_minor == 0 {
                    return Err(DecodeError::TransferEncoding);
                }
                check_transfer_coding(header.value)?;
                chunked = true;
            } else if is("connection") {
                close |= has_token(header.value, "close");
                keep |= has_token(header.value, "keep-alive");
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
        let body = match (length, chunked) {
            (Some(_), true) => return Err(DecodeError::TransferEncoding),
            (_, true) => BodyFraming::Chunked,
            (length, false) => BodyFraming::Length(length.unwrap_or(0)),
        };
        let keep_alive = !close && (version_minor > 0 || keep);
        // RFC 9110, 7.8: from a client of HTTP/1.0 it is to be ignored.
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

/// A request's target, taken apart.
struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// In origin, absolute or asterisk form; for CONNECT in authority form.
    fn split(method: Method, target: &'a str) -> Result<Self, DecodeError> {
        // Neither raw bytes beyond ASCII nor a fragment belong here.
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
        // RFC 9110, 7.1: no path at all is the root's, and with OPTIONS the server's.
        let whole_server = method == Method::Options && query.is_none();
        let path = match path {
            "" if whole_server => "*",
            "" => "/",
            path => path,
        };
        Ok(Self { authority, path, query })
    }
}

/// The authority of an absolute `http` or `https` URI, and what follows it.
fn split_authority(target: &str) -> Result<(Option<&str>, &str), DecodeError> {
    let (scheme, rest) = target.split_once("://").ok_or(DecodeError::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(DecodeError::Target);
    }
    let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if is_host(authority.as_bytes()) { Ok((Some(authority), local)) } else { Err(DecodeError::Target) }
}

/// A name, an IPv4 address or an IPv6 address in brackets, with or without a port.
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
    // Registered names with what RFC 3986 lets stand in them, but percent-encoding, which no host needs, and the
    // comma, which is what becomes of two Host fields when somebody on the way joins them.
    let is_name = |host: &[u8]| !host.is_empty() && host.iter().all(|byte| NAME_BYTES[usize::from(*byte)]);
    port_is_fine && host.is_none_or(is_name)
}

const NAME_BYTES: [bool; 256] = letters_digits_and(b"-._~!$&'()*+;=");
const TOKEN_BYTES: [bool; 256] = letters_digits_and(b"!#$%&'*+-.^_`|~");

/// For each byte, whether it is a letter, a digit, or one of those.
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

/// RFC 3986 lets a port be empty.
fn is_port(digits: &[u8]) -> bool {
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && u16::try_from(digits.iter().fold(0, |port, digit| port * 10 + u32::from(digit - b'0'))).is_ok()
}

/// Whether a list has this token, in any case.
pub(crate) fn has_token(list: &[u8], wanted: &str) -> bool {
    list.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// RFC 9112, 6.3: where `chunked` is not last, nobody knows where the body ends. Before it, only once, there might be
/// another coding, which is not understood here.
pub(crate) fn check_transfer_coding(value: &[u8]) -> Result<(), DecodeError> {
    let mut codings =
        value.rsplit(|byte| *byte == b',').map(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"));
    match (codings.next(), codings.next()) {
        (Some(true), None) => Ok(()),
        (Some(true), Some(false)) if codings.all(|is_chunked| !is_chunked) => Err(DecodeError::TransferCoding),
        _ => Err(DecodeError::TransferEncoding),
    }
}

pub(crate) fn parse_length(value: &[u8]) -> Result<u64, DecodeError> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(DecodeError::ContentLength);
    }
    // At most 19 digits: it fits.
    Ok(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// Whether a byte can stand in a token: a method, or a field's name.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[usize::from(byte)]
}

/// Whether a header field's value has no control characters.
pub(crate) fn is_value(value: &[u8]) -> bool {
    // To the end without a branch: several bytes at a time.
    let odd = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    !value.iter().fold(false, |any, byte| any | odd(*byte))
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), DecodeError> {
    if is_value(value) { Ok(()) } else { Err(DecodeError::Header) }
}

/// Every CR is followed by LF, and every LF comes after CR: what different readers take for the end of a line is
/// what smuggling is made of.
pub(crate) fn check_line_ends(bytes: &[u8]) -> Result<(), DecodeError> {
    // To the end without a branch: several bytes at a time.
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

/// Whether the request line is one but for its version, which is well-formed: one digit, a dot, one digit.
fn has_other_version(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\r').unwrap_or(bytes.len());
    let mut words = bytes[..end].split(|byte| *byte == b' ');
    let (_method, _target, version) = (words.next(), words.next(), words.next());
    let well_formed = matches!(version, Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit());
    well_formed && words.next().is_none()
}
