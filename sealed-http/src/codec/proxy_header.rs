//! The PROXY protocol: the header in which a proxy reports, before the first request, for which
//! client it forwards a connection.

// The crates `ppp` and `proxy-header` accept ports with a sign. `proxy-header` also accepts lines
// longer than the protocol allows if they arrive at once, and refuses a LOCAL header with an
// unknown family, although the family has to be ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sealed::fault;

/// Maximum size in bytes of a version 1 header, including its line end.
const LINE_BYTES_MAX: usize = 107;
const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The size of signature, version and command, family, and length.
const FIXED_BYTES: usize = SIGNATURE.len() + 4;

/// The header of the PROXY protocol, with which a proxy describes a connection that it forwards:
/// version 1, a line of text, or version 2, binary. Anybody can send such a header: trust it only
/// on a connection from your own proxy.
///
/// The header precedes the first request: see the example of
/// [`Handler::preface`](crate::Handler::preface).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The connection is the proxy's own, for example for a health check, or is not a TCP
    /// connection that the protocol can describe. The peer address of the connection is the address
    /// of the client.
    Local,
    /// The proxy forwards the connection for a client.
    Proxied {
        /// The address of the client.
        source: SocketAddr,
        /// The address to which the client connected.
        destination: SocketAddr,
    },
}

/// The reason why bytes are not a header of the PROXY protocol. Close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadProxyHeader {
    /// The bytes begin like neither version.
    #[error("this is no header of the PROXY protocol")]
    Signature,
    /// A line of version 1 is not `PROXY TCP4 SOURCE DESTINATION PORT PORT`, its counterpart with
    /// `TCP6`, or `PROXY UNKNOWN`.
    #[error("the line of the PROXY protocol is malformed")]
    Line,
    /// In version 2, the version number, the command or the family is not defined.
    #[error("the PROXY protocol has no such version, command or family")]
    Unknown,
    /// In version 2, the declared length is too short for the addresses.
    #[error("the addresses of the PROXY protocol are cut short")]
    Short,
    /// The header is longer than its version or the limit allows.
    #[error("the header of the PROXY protocol is too long")]
    TooLong,
}

impl ProxyHeader {
    /// Decodes the header at the start of the input, of at most `bytes_max` bytes. Returns the size
    /// of the header in bytes and the header, or `None` if the header is incomplete: call again
    /// with the same bytes and those that followed. The result does not depend on how the bytes are
    /// split.
    ///
    /// In version 2, everything after the addresses is skipped, without validation: checksums in it
    /// are not verified.
    ///
    /// # Errors
    /// If the bytes are not a header, or the header is too long.
    pub fn decode(input: &[u8], bytes_max: usize) -> Result<Option<(usize, Self)>, BadProxyHeader> {
        let begins = |with: &[u8]| input.iter().zip(with).all(|(byte, expected)| byte == expected);
        if begins(LINE_START) {
            return decode_line(input, bytes_max.min(LINE_BYTES_MAX));
        }
        if !begins(SIGNATURE) {
            return Err(BadProxyHeader::Signature);
        }
        decode_binary(input, bytes_max)
    }
}

/// Decodes version 1.
fn decode_line(input: &[u8], bytes_max: usize) -> Result<Option<(usize, ProxyHeader)>, BadProxyHeader> {
    let within = &input[..input.len().min(bytes_max)];
    let is_end = |byte: &u8| *byte == b'\r' && !fault!("proxy-line-return-skipped") || *byte == b'\n';
    let line = within.split(is_end).next().unwrap_or_default();
    match within.get(line.len()..).unwrap_or_default() {
        [] | [b'\r'] if input.len() < bytes_max => return Ok(None),
        [] | [b'\r'] => return Err(BadProxyHeader::TooLong),
        [b'\r', b'\n', ..] => {}
        // Half a line end is an error at once: do not wait for more.
        _ => return Err(BadProxyHeader::Line),
    }
    // Bytes that are not UTF-8 can only be where everything is ignored.
    let header = line.strip_prefix(LINE_START).and_then(|line| parse_line(&String::from_utf8_lossy(line)));
    header.map(|header| Some((line.len() + 2, header))).ok_or(BadProxyHeader::Line)
}

fn parse_line(line: &str) -> Option<ProxyHeader> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // The rest of the line must be ignored.
        return Some(ProxyHeader::Local);
    }
    let address = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    words.next().is_none().then_some(ProxyHeader::Proxied { source, destination })
}

/// Parses a port in its canonical form only: no sign, and no leading zeros.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain)
}

/// Decodes version 2.
fn decode_binary(input: &[u8], bytes_max: usize) -> Result<Option<(usize, ProxyHeader)>, BadProxyHeader> {
    let Some((fixed, behind)) = input.split_at_checked(FIXED_BYTES) else {
        return if input.len() < bytes_max { Ok(None) } else { Err(BadProxyHeader::TooLong) };
    };
    let [command, family, high, low] = fixed[SIGNATURE.len()..] else { return Err(BadProxyHeader::Signature) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED_BYTES + length > bytes_max {
        return Err(BadProxyHeader::TooLong);
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(BadProxyHeader::Unknown),
    };
    // The byte holds an address family and a transport protocol. Only some numbers of both are
    // assigned.
    if !is_local && (family >> 4 > 3 || family & 0xf > 2) {
        return Err(BadProxyHeader::Unknown);
    }
    let addresses_bytes = match family {
        0x11 if !is_local => 12,
        0x21 if !is_local => 36,
        _ => 0,
    };
    if length < addresses_bytes {
        return Err(BadProxyHeader::Short);
    }
    let Some(block) = behind.get(..length) else { return Ok(None) };
    let header = match addresses_bytes {
        12 => addresses(block, |bytes: [u8; 4]| Ipv4Addr::from(bytes).into()),
        36 => addresses(block, |bytes: [u8; 16]| Ipv6Addr::from(bytes).into()),
        _ => Some(ProxyHeader::Local),
    };
    header.map(|header| Some((FIXED_BYTES + length, header))).ok_or(BadProxyHeader::Short)
}

/// Parses two addresses, followed by two ports.
fn addresses<const N: usize>(block: &[u8], address: impl Fn([u8; N]) -> IpAddr) -> Option<ProxyHeader> {
    let (source, rest) = block.split_first_chunk()?;
    let (destination, rest) = rest.split_first_chunk()?;
    let (from, rest) = rest.split_first_chunk()?;
    let to = rest.first_chunk()?;
    let socket = |ip: &[u8; N], port: &[u8; 2]| SocketAddr::new(address(*ip), u16::from_be_bytes(*port));
    Some(ProxyHeader::Proxied { source: socket(source, from), destination: socket(destination, to) })
}
