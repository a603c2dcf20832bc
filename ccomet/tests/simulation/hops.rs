//! How proxies name the clients of their requests: by the PROXY protocol, and in header fields.

use std::net::{IpAddr, Ipv4Addr};

use ccomet::ForwardedBy;
use sealed::sim::Random;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The length of addresses in the family of Unix sockets.
const UNIX_BYTES: usize = 216;

/// The version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Version 1, a line of text.
    Line,
    /// Version 2, binary.
    Binary,
}

/// Returns the header of the PROXY protocol for a client.
pub fn announcement(version: Version, client: IpAddr, random: &mut Random) -> Vec<u8> {
    // An IPv4 address may be written as an IPv6 one.
    let client = match client {
        IpAddr::V4(ip) if random.chance(0.2) => IpAddr::V6(ip.to_ipv6_mapped()),
        client => client,
    };
    let own: IpAddr = if client.is_ipv4() { "10.0.0.1" } else { "fd00::1" }.parse().expect("an address");
    if version == Version::Line {
        let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        return format!("PROXY {family} {client} {own} 4711 80\r\n").into_bytes();
    }
    let block = [addresses(client, own), extension(random)].concat();
    binary(0x21, if client.is_ipv4() { 0x11 } else { 0x21 }, &block)
}

/// Returns the header of the PROXY protocol for a connection of the proxy itself.
pub fn own_announcement(version: Version, random: &mut Random) -> Vec<u8> {
    if version == Version::Line {
        let lines = ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN 192.0.2.66 10.0.0.1 4711 80\r\n"];
        return random.pick(&lines).expect("one").as_bytes().to_vec();
    }
    // The server has to ignore the bytes in the place of the addresses.
    let ignored = addresses(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    match random.below(4) {
        0 => binary(0x20, 0, &[]),
        1 => binary(0x20, 0x11, &ignored),
        2 => binary(0x21, 0, &[ignored, extension(random)].concat()),
        _ => binary(0x21, 0x31, &[0x2f; UNIX_BYTES]),
    }
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a short block").to_be_bytes();
    [SIGNATURE, &[command, family], &length[..], block].concat()
}

/// Returns both addresses, and both ports.
fn addresses(client: IpAddr, own: IpAddr) -> Vec<u8> {
    let bytes = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    [bytes(client), bytes(own), 4711_u16.to_be_bytes().to_vec(), 80_u16.to_be_bytes().to_vec()].concat()
}

/// Returns what follows the addresses: entries of a type, a length and a value, or nothing. Some
/// look like a request.
fn extension(random: &mut Random) -> Vec<u8> {
    let request = b"\r\n\r\nGET /channels/a HTTP/1.1\r\nHost: sim\r\n\r\n";
    match random.below(4) {
        0 | 1 => Vec::new(),
        2 => [&[0x04, 0, request.len() as u8], &request[..]].concat(),
        _ => [&[0xe0, 1, 0][..], &[0xff; 256]].concat(),
    }
}

/// The last hops of a request.
#[derive(Debug, Clone, Copy)]
pub struct Hops {
    /// `None` if the proxy next to the client cannot name its address.
    pub client: Option<IpAddr>,
    /// A proxy between that proxy and the one that connects.
    pub between: Option<IpAddr>,
}

impl Hops {
    /// Returns the header field that names the client. The client's own claim stands before the
    /// hops that the proxies add.
    pub fn field(self, by: ForwardedBy, random: &mut Random) -> Vec<u8> {
        let name: &[u8] = match by {
            ForwardedBy::XForwardedFor => b"X-Forwarded-For: ",
            ForwardedBy::Forwarded => b"Forwarded: ",
        };
        let claimed = Some(claim(by, random)).filter(|claim| !claim.is_empty());
        let own = match self.client {
            Some(client) => readable(by, client, random),
            None => unreadable(by, random),
        };
        let between = self.between.map(|proxy| readable(by, proxy, random));
        let mut field = name.to_vec();
        for (index, hop) in claimed.into_iter().chain([own]).chain(between).enumerate() {
            if index > 0 {
                // A header line of its own is equivalent to a comma.
                field.extend(if random.chance(0.2) { [b"\r\n", name].concat() } else { b", ".to_vec() });
            }
            field.extend(hop);
        }
        field.extend(b"\r\n");
        field
    }
}

/// Returns a hop that the client claims itself.
fn claim(by: ForwardedBy, random: &mut Random) -> Vec<u8> {
    let claims: [&[u8]; 4] = [b"", b"127.0.0.1", b"192.0.2.1, 10.0.0.2", b"nonsense"];
    let hostile: [&[u8]; 5] = [b"\xff", b"\"", b"unknown", b",", b"10.0.0.1, \xff\xff"];
    let is_hostile = random.chance(0.5);
    let claim = random.pick(if is_hostile { &hostile[..] } else { &claims[..] }).expect("one").to_vec();
    if by == ForwardedBy::XForwardedFor || claim.is_empty() {
        return claim;
    }
    let spaced = claim.iter().flat_map(|byte| if *byte == b' ' { b" for=".to_vec() } else { vec![*byte] });
    b"for=".iter().copied().chain(spaced).collect()
}

/// Returns a hop with a readable address.
fn readable(by: ForwardedBy, address: IpAddr, random: &mut Random) -> Vec<u8> {
    let with_port = if address.is_ipv6() { format!("[{address}]:4711") } else { format!("{address}:4711") };
    let text = if random.chance(0.3) { with_port } else { address.to_string() };
    let hop = match by {
        ForwardedBy::XForwardedFor => text,
        ForwardedBy::Forwarded if text.contains(':') => format!("for=\"{text}\";proto=https"),
        ForwardedBy::Forwarded => format!("for={text}"),
    };
    hop.into_bytes()
}

/// Returns a hop with an unreadable address, which could belong to any client.
fn unreadable(by: ForwardedBy, random: &mut Random) -> Vec<u8> {
    let hop: &[u8] = match by {
        ForwardedBy::XForwardedFor => {
            let hops: [&[u8]; 6] = [b"\xff", b"unknown", b"_hidden", b"", b"192.0.2.1\xff", b"192.0.2.1:http"];
            random.pick(&hops).expect("one")
        }
        ForwardedBy::Forwarded => {
            let twice = b"for=192.0.2.1;for=192.0.2.2";
            let hops: [&[u8]; 6] = [b"for=\xff", b"for=unknown", b"for=_hidden", b"for=", b"proto=https", twice];
            random.pick(&hops).expect("one")
        }
    };
    hop.to_vec()
}
