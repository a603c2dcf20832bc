//! Addresses of sockets.

use std::fmt;
use std::io;
use std::net::{AddrParseError, IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The prefix of the path of a Unix socket in text.
const UNIX_PREFIX: &str = "unix:";

/// The address of a socket: an IP address with a port, or the path of a Unix socket.
///
/// In text, the path of a Unix socket follows the prefix `unix:`.
///
/// ```
/// use sealed::Address;
///
/// let address: Address = "127.0.0.1:80".parse()?;
/// assert_eq!(address.inet(), Some(([127, 0, 0, 1], 80).into()));
/// let address: Address = "unix:/run/app.sock".parse()?;
/// assert_eq!(address.path(), Some("/run/app.sock".as_ref()));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address, of version 4 or 6, and a port.
    Inet(SocketAddr),
    /// The path of a Unix socket. It is empty for an unnamed socket, as most connecting Unix
    /// sockets are.
    Unix(PathBuf),
}

impl Address {
    /// Returns the address of a Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }

    /// Returns the IP address and the port, if this is not the address of a Unix socket.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Returns the IP address, if this is not the address of a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        self.inet().map(|address| address.ip())
    }

    /// Returns the path, if this is the address of a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Inet(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = AddrParseError;

    /// Parses a path after `unix:`, or an IP address with a port. Names are not resolved.
    ///
    /// # Errors
    ///
    /// Returns an error if text without the prefix `unix:` is not an IP address with a port.
    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text.strip_prefix(UNIX_PREFIX) {
            Some(path) => Ok(Self::unix(path)),
            None => text.parse().map(Self::Inet),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

/// Converts to one or more addresses. Implemented for an [`Address`], a socket address, and text
/// such as `localhost:80` or `unix:/run/app.sock`. The system resolves a name, which may block: do
/// so before the loop runs, or use [`Connect::by_name`](crate::Connect::by_name).
pub trait ToAddresses {
    /// Returns the addresses, in the order in which they are to be tried.
    ///
    /// # Errors
    ///
    /// Returns the error of the resolver if a name cannot be resolved.
    fn to_addresses(&self) -> io::Result<Vec<Address>>;

    /// Returns the name that errors use for the addresses.
    fn name(&self) -> String;
}

fn look_up(name: impl ToSocketAddrs) -> io::Result<Vec<Address>> {
    Ok(name.to_socket_addrs()?.map(Address::Inet).collect())
}

impl ToAddresses for str {
    fn to_addresses(&self) -> io::Result<Vec<Address>> {
        match self.strip_prefix(UNIX_PREFIX) {
            Some(_) if fault!("unix-prefix-kept") => Ok(vec![Address::unix(self)]),
            Some(path) => Ok(vec![Address::unix(path)]),
            None => look_up(self),
        }
    }

    fn name(&self) -> String {
        self.to_owned()
    }
}

impl ToAddresses for String {
    fn to_addresses(&self) -> io::Result<Vec<Address>> {
        self.as_str().to_addresses()
    }

    fn name(&self) -> String {
        self.clone()
    }
}

impl ToAddresses for (&str, u16) {
    fn to_addresses(&self) -> io::Result<Vec<Address>> {
        look_up(self)
    }

    fn name(&self) -> String {
        format!("{}:{}", self.0, self.1)
    }
}

impl ToAddresses for SocketAddr {
    fn to_addresses(&self) -> io::Result<Vec<Address>> {
        Ok(vec![Address::Inet(*self)])
    }

    fn name(&self) -> String {
        self.to_string()
    }
}

impl ToAddresses for Address {
    fn to_addresses(&self) -> io::Result<Vec<Address>> {
        Ok(vec![self.clone()])
    }

    fn name(&self) -> String {
        self.to_string()
    }
}

impl<T: ToAddresses + ?Sized> ToAddresses for &T {
    fn to_addresses(&self) -> io::Result<Vec<Address>> {
        (**self).to_addresses()
    }

    fn name(&self) -> String {
        (**self).name()
    }
}

/// Addresses that were requested by name, after the lookup.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    /// The error is shared because an `io::Error` cannot be cloned.
    addresses: Result<Vec<Address>, Arc<io::Error>>,
}

impl Named {
    pub(crate) fn look_up(what: &impl ToAddresses) -> Self {
        Self { name: what.name(), addresses: what.to_addresses().map_err(Arc::new) }
    }

    /// Returns a name that is looked up later.
    pub(crate) fn later(name: String) -> Self {
        Self { name, addresses: Ok(Vec::new()) }
    }

    /// Returns the addresses of all names. The error of a name is kept only if there is no address
    /// at all.
    pub(crate) fn look_up_all(all: impl IntoIterator<Item = impl ToAddresses>) -> Self {
        let mut together = Self { name: String::new(), addresses: Ok(Vec::new()) };
        for what in all {
            let Self { name, addresses } = Self::look_up(&what);
            together.name += if together.name.is_empty() { "" } else { ", " };
            together.name += &name;
            together.addresses = match (together.addresses, addresses) {
                (Ok(before), Ok(more)) => Ok([before, more].concat()),
                (Ok(before), Err(error)) if before.is_empty() => Err(error),
                (Ok(before), Err(_)) => Ok(before),
                (Err(_), found) => found,
            };
        }
        together
    }

    /// Takes the addresses, or returns the error of the lookup.
    pub(crate) fn take(&mut self) -> io::Result<Vec<Address>> {
        match &mut self.addresses {
            Ok(addresses) => Ok(std::mem::take(addresses)),
            Err(error) => Err(io::Error::new(error.kind(), error.clone())),
        }
    }

    /// Calls `attempt` with one address after the other until a call succeeds.
    pub(crate) fn find<T>(mut self, mut attempt: impl FnMut(Address) -> io::Result<T>) -> io::Result<T> {
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for address in self.take()? {
            outcome = attempt(address);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// A TCP address can be used wherever the standard library accepts one; the address of a Unix
/// socket returns an error there.
impl ToSocketAddrs for Address {
    type Iter = std::option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let address = self.inet().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Some(address).into_iter())
    }
}
