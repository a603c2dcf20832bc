//! The PROXY protocol: what a proxy says in front of the first request about whose connection it passes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sealed::fault;

/// How long a header of version 1 can be, with its end.
const LINE_BYTES_MAX: usize = 107;
const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = SIGNATURE.len() + 4;

/// What a proxy says of a connection that it passes on, by the PROXY protocol: version 1, a line of text, or version 2,
/// binary. Anybody can send one: it is to be believed only of a connection that comes from a proxy of one's own.
///
/// It is read in front of the first request: [`Handler::preface`](crate::Handler::preface) has an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The connection is the proxy's own, as its checks of health are, or no TCP connection that could be named: it is whose it
    /// seems to be.
    Local,
    /// It is passed on for somebody else.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// To where the client connected.
        destination: SocketAddr,
    },
}

/// Why bytes are no header of the PROXY protocol. The connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadProxyHeader {
    /// It begins like neither version.
    #[error("this is no header of the PROXY protocol")]
    Signature,
    /// A line of version 1 is not `PROXY TCP4 SOURCE DESTINATION PORT PORT`, the same with `TCP6`, or `PROXY UNKNOWN`.
    #[error("the line of the PROXY protocol is malformed")]
    Line,
    /// Of version 2, the version itself, the command or the family is none that there is.
    #[error("the PROXY protocol has no such version, command or family")]
    Unknown,
    /// Of version 2, the addresses are longer than what is there for them.
    #[error("the addresses of the PROXY protocol are cut short")]
    Short,
    /// It is longer than its version allows, or the limit.
    #[error("the header of the PROXY protocol is too long")]
    TooLong,
}

impl ProxyHeader {
    /// Decodes the header that the input starts with, of at most so many bytes. Returns it, and how many bytes it is, or nothing while
    /// it is not there whole: come back with more behind the same bytes. What comes out is the same however they are split.
    ///
    /// Of version 2, what stands behind the addresses is skipped: neither is it looked at, nor are checksums in it.
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

/// Version 1.
fn decode_line(input: &[u8], bytes_max: usize) -> Result<Option<(usize, ProxyHeader)>, BadProxyHeader> {
    let within = &input[..input.len().min(bytes_max)];
    let is_end = |byte: &u8| *byte == b'\r' && !fault!("proxy-line-return-skipped") || *byte == b'\n';
    let line = within.split(is_end).next().unwrap_or_default();
    match within.get(line.len()..).unwrap_or_default() {
        [] | [b'\r'] if input.len() < bytes_max => return Ok(None),
        [] | [b'\r'] => return Err(BadProxyHeader::TooLong),
        [b'\r', b'\n', ..] => {}
        // Half an end: none is waited for behind it.
        _ => return Err(BadProxyHeader::Line),
    }
    // What is not UTF-8 can stand only where everything is ignored.
    let header = line.strip_prefix(LINE_START).and_then(|line| parse_line(&String::from_utf8_lossy(line)));
    header.map(|header| Some((line.len() + 2, header))).ok_or(BadProxyHeader::Line)
}

fn parse_line(line: &str) -> Option<ProxyHeader> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
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

/// A number as it is written, and not as it could be: no sign, and no zeros in front.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain)
}

/// Version 2.
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
    // A family, and a kind of transport: of both, some numbers only are given out.
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

/// Two addresses, and then two ports.
fn addresses<const N: usize>(block: &[u8], address: impl Fn([u8; N]) -> IpAddr) -> Option<ProxyHeader> {
    let (source, rest) = block.split_first_chunk()?;
    let (destination, rest) = rest.split_first_chunk()?;
    let (from, rest) = rest.split_first_chunk()?;
    let to = rest.first_chunk()?;
    let socket = |ip: &[u8; N], port: &[u8; 2]| SocketAddr::new(address(*ip), u16::from_be_bytes(*port));
    Some(ProxyHeader::Proxied { source: socket(source, from), destination: socket(destination, to) })
}
