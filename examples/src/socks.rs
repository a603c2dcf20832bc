//! The messages of SOCKS5 (RFC 1928) and of its login by name and password (RFC 1929).

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The version at the start of messages.
pub const VERSION: u8 = 5;
/// The version at the start of the messages of a login.
pub const LOGIN_VERSION: u8 = 1;
/// The method of a client that does not log in.
pub const NO_LOGIN: u8 = 0;
/// The method of a client that logs in with a name and a password.
pub const LOGIN: u8 = 2;
/// The answer to a client that knows none of the methods that the server accepts.
pub const NO_METHOD: u8 = 0xff;
/// The command to connect. The others are BIND (2) and UDP ASSOCIATE (3).
pub const CONNECT: u8 = 1;

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the names are those of the RFC
pub enum Code {
    Succeeded = 0,
    Failed = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

impl From<ErrorKind> for Code {
    fn from(failure: ErrorKind) -> Self {
        match failure {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::NotFound | ErrorKind::HostUnreachable | ErrorKind::TimedOut => Self::HostUnreachable,
            ErrorKind::NetworkUnreachable => Self::NetworkUnreachable,
            ErrorKind::PermissionDenied => Self::NotAllowed,
            _ => Self::Failed,
        }
    }
}

/// A request of a client. Addresses are text, as names are.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// What the client wants, such as [`CONNECT`].
    pub command: u8,
    /// The name or the address of the target.
    pub host: String,
    /// The port of the target.
    pub port: u16,
}

/// Input that begins with a message. What reads from it returns `None` if it is too short.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Reads the version, with which each message begins.
    pub fn version(&mut self) -> Option<u8> {
        self.array().map(|[version]| version)
    }

    /// Reads the methods that a client knows.
    pub fn methods(&mut self) -> Option<&'a [u8]> {
        self.counted()
    }

    /// Reads the name and the password of a client.
    pub fn login(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        Some((self.counted()?, self.counted()?))
    }

    /// Reads a request. Returns an error if its length cannot be known.
    pub fn request(&mut self) -> Option<Result<Request, Code>> {
        let [command, _, kind] = self.array()?;
        let host = match kind {
            IPV4 => IpAddr::from(self.array::<4>()?).to_string(),
            IPV6 => IpAddr::from(self.array::<16>()?).to_string(),
            // A name that is not text is an unknown name.
            NAME => String::from_utf8_lossy(self.counted()?).into_owned(),
            _ => return Some(Err(Code::AddressTypeNotSupported)),
        };
        let port = u16::from_be_bytes(self.array()?);
        Some(Ok(Request { command, host, port }))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    /// Reads a byte, and as many bytes as it says.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let [count] = self.array()?;
        let (bytes, rest) = self.0.split_at_checked(usize::from(count))?;
        self.0 = rest;
        Some(bytes)
    }
}

/// Returns a reply with the address from which the server has connected.
pub fn reply(code: Code, from: Option<SocketAddr>) -> Vec<u8> {
    let from = from.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
    let (kind, ip) = match from.ip() {
        IpAddr::V4(ip) => (IPV4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (IPV6, ip.octets().to_vec()),
    };
    [&[VERSION, code as u8, 0, kind], &*ip, &from.port().to_be_bytes()].concat()
}

/// Compares secrets. The time that it takes depends only on their lengths.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_cut_off_is_no_message() {
        let request = b"\x01\x00\x03\x03tea\x00\x50";
        for length in 0..request.len() {
            assert_eq!(Reader(&request[..length]).request(), None);
        }
        let input = [&request[..], b"data"].concat();
        let mut reader = Reader(&input);
        let wanted = Request { command: CONNECT, host: "tea".to_owned(), port: 80 };
        assert_eq!(reader.request(), Some(Ok(wanted)));
        assert_eq!(reader.0, b"data");
    }
}
