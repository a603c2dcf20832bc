//! Datagram sockets: how to open one, what becomes of a sent datagram, and the failures.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::address::{Address, Named, ToAddresses};

/// The longest datagram that UDP has, with its header: a socket receives every UDP datagram whole
/// unless its limit is lower.
const RECEIVED_BYTES_MAX: usize = 65_535;
/// The highest limit for received datagrams. Only Unix sockets have datagrams of this length.
const RECEIVED_BYTES_MOST: usize = 1024 * 1024;
/// Default bound of the send queue.
const QUEUE_BYTES_MAX: usize = 256 * 1024;

/// Where and how to open a datagram socket. An address converts into a `Datagram` with default
/// settings.
///
/// ```
/// use std::net::Ipv4Addr;
/// use sealed::Datagram;
///
/// let server = Datagram::on("127.0.0.1:5353").queue_bytes_max(64 * 1024);
/// let client = Datagram::to("127.0.0.1:53");
/// let group = Datagram::on("0.0.0.0:5353").reuse_port(true).join(Ipv4Addr::new(224, 0, 0, 251));
/// # let _ = (server, client, group);
/// ```
#[derive(Debug, Clone)]
pub struct Datagram {
    at: Option<Named>,
    peer: Option<Named>,
    pub(crate) received_bytes_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) options: DatagramOptions,
}

/// The settings of a datagram socket that the network below the loop applies.
#[derive(Debug, Clone, Default)]
pub(crate) struct DatagramOptions {
    pub(crate) reuse_port: bool,
    pub(crate) broadcast: bool,
    pub(crate) receive_buffer_bytes: Option<usize>,
    pub(crate) send_buffer_bytes: Option<usize>,
    pub(crate) groups: Vec<Multicast>,
    pub(crate) multicast_loop: Option<bool>,
    pub(crate) multicast_ttl: Option<u32>,
    pub(crate) multicast_interface: Option<Multicast>,
}

impl Datagram {
    /// Binds a socket to `address`: UDP, or a Unix socket if the address is a path. With port 0 the
    /// system chooses a port. A name is looked up at once, which may block; if it resolves to
    /// several addresses, the first usable one is taken. An empty path (`unix:`) makes an unnamed
    /// Unix socket, which can send but cannot be answered. The file of a Unix socket that a dead
    /// process left behind is replaced; the file of one that is in use is not. The file is removed
    /// when the socket is closed.
    pub fn on(address: impl ToAddresses) -> Self {
        Self { at: Some(Named::look_up(&address)), ..Self::default() }
    }

    /// Opens a socket that is connected to `peer`. A UDP socket gets a port that the system
    /// chooses. A Unix socket has no name, so the peer cannot answer. A name is looked up at once,
    /// which may block.
    pub fn to(peer: impl ToAddresses) -> Self {
        Self { peer: Some(Named::look_up(&peer)), ..Self::default() }
    }

    /// Connects the socket to a peer: it receives datagrams only from there, and
    /// [`Context::send`](crate::Context::send) sends to it. If a name resolves to several
    /// addresses, the first one of the family of the bound address is taken.
    #[must_use]
    pub fn connect(mut self, peer: impl ToAddresses) -> Self {
        self.peer = Some(Named::look_up(&peer));
        self
    }

    /// Sets whether other sockets of the same user may bind the same UDP port (`SO_REUSEPORT`).
    /// Needs Unix; elsewhere opening fails with the kind `Unsupported`. The kernel distributes the
    /// datagrams over them by the addresses of both ends; those of a multicast group go to all of
    /// them. Has no effect on Unix sockets. Default false.
    #[must_use]
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.options.reuse_port = reuse_port;
        self
    }

    /// Sets whether the socket may send to broadcast addresses. Has no effect on Unix sockets.
    /// Default false.
    #[must_use]
    pub fn broadcast(mut self, broadcast: bool) -> Self {
        self.options.broadcast = broadcast;
        self
    }

    /// Sets the bytes of the kernel's receive buffer, beyond which it drops datagrams. By default
    /// the system decides.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Self {
        self.options.receive_buffer_bytes = Some(bytes);
        self
    }

    /// Sets the bytes of the kernel's send buffer. By default the system decides.
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.options.send_buffer_bytes = Some(bytes);
        self
    }

    /// Sets the maximum length of a received datagram. A longer one is dropped, and reported as
    /// [`DatagramError::TooLong`]. Default 65,535 bytes, more than any UDP datagram has; at most
    /// 1 MiB. The read buffer of the loop ([`Config::read_buffer_bytes`]) grows to one byte more if
    /// it is smaller.
    ///
    /// [`Config::read_buffer_bytes`]: crate::Config::read_buffer_bytes
    #[must_use]
    pub fn received_bytes_max(mut self, bytes: usize) -> Self {
        self.received_bytes_max = bytes.min(RECEIVED_BYTES_MOST);
        self
    }

    /// Sets the maximum bytes of datagrams that wait until the kernel takes them. Each datagram
    /// counts with 64 bytes more than its length. Beyond this limit, sent datagrams are
    /// [dropped](Sent::Dropped). Default 256 KiB; 0 means that no datagram waits.
    #[must_use]
    pub fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.queue_bytes_max = bytes;
        self
    }

    /// Joins a multicast group: the socket receives datagrams that are sent to the group and the
    /// port of the socket. Opening a Unix socket with a group fails.
    #[must_use]
    pub fn join(mut self, group: impl Into<Multicast>) -> Self {
        self.options.groups.push(group.into());
        self
    }

    /// Sets whether datagrams that the socket sends to a multicast group come back to this host. By
    /// default the system decides; most systems do that.
    #[must_use]
    pub fn multicast_loop(mut self, comes_back: bool) -> Self {
        self.options.multicast_loop = Some(comes_back);
        self
    }

    /// Sets how many networks a datagram to a multicast group may cross: the time to live of IPv4,
    /// or the hop limit of IPv6. By default the system decides; for most systems it is 1, the local
    /// network.
    #[must_use]
    pub fn multicast_ttl(mut self, ttl: u32) -> Self {
        self.options.multicast_ttl = Some(ttl);
        self
    }

    /// Sets the interface through which the socket sends to multicast groups. Only the interface of
    /// `like` is used, not its group. By default the system decides.
    #[must_use]
    pub fn multicast_interface(mut self, like: impl Into<Multicast>) -> Self {
        self.options.multicast_interface = Some(like.into());
        self
    }

    /// Returns the name that errors use for the socket.
    pub(crate) fn name(&self) -> String {
        self.at.as_ref().or(self.peer.as_ref()).map(|named| named.name.clone()).unwrap_or_default()
    }

    /// Returns the addresses to bind, in the order in which they are to be tried, each with the
    /// peer to connect to.
    pub(crate) fn candidates(&mut self) -> io::Result<Vec<(Address, Option<Address>)>> {
        let peers = self.peer.as_mut().map(Named::take).transpose()?;
        let Some(at) = &mut self.at else {
            return Ok(peers.into_iter().flatten().map(|peer| (unspecified(&peer), Some(peer))).collect());
        };
        let Some(peers) = peers else {
            return Ok(at.take()?.into_iter().map(|address| (address, None)).collect());
        };
        let with_peer = |address: Address| {
            let peer = peers.iter().find(|peer| is_same_family(peer, &address))?.clone();
            Some((address, Some(peer)))
        };
        let candidates: Vec<_> = at.take()?.into_iter().filter_map(with_peer).collect();
        if candidates.is_empty() {
            return Err(io::Error::other("the peer is of another address family"));
        }
        Ok(candidates)
    }
}

impl Default for Datagram {
    fn default() -> Self {
        Self {
            at: None,
            peer: None,
            received_bytes_max: RECEIVED_BYTES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            options: DatagramOptions::default(),
        }
    }
}

impl<A: ToAddresses> From<A> for Datagram {
    fn from(address: A) -> Self {
        Self::on(address)
    }
}

/// Returns the address of the peer's family that stands for any.
fn unspecified(peer: &Address) -> Address {
    match peer {
        Address::Inet(SocketAddr::V4(_)) => Address::Inet(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
        Address::Inet(SocketAddr::V6(_)) => Address::Inet(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        Address::Unix(_) => Address::unix(""),
    }
}

fn is_same_family(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Inet(one), Address::Inet(other)) => one.is_ipv4() == other.is_ipv4(),
        (Address::Unix(_), Address::Unix(_)) => true,
        _ => false,
    }
}

/// A multicast group, and the interface of this host to use for it. An IP address converts into a
/// group on the interface that the system chooses.
///
/// ```
/// use std::net::Ipv4Addr;
/// use sealed::{Datagram, Multicast};
///
/// let (group, interface) = (Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::new(10, 0, 0, 1));
/// let datagram = Datagram::on("0.0.0.0:5000").join(Multicast::V4 { group, interface });
/// # let _ = datagram;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Multicast {
    /// A group of IPv4.
    V4 {
        /// The address of the group.
        group: Ipv4Addr,
        /// The address of the interface; the unspecified address leaves the choice to the system.
        interface: Ipv4Addr,
    },
    /// A group of IPv6.
    V6 {
        /// The address of the group.
        group: Ipv6Addr,
        /// The index of the interface; 0 leaves the choice to the system.
        interface: u32,
    },
}

impl Multicast {
    /// Returns the address of the group.
    pub fn group(&self) -> IpAddr {
        match self {
            Self::V4 { group, .. } => (*group).into(),
            Self::V6 { group, .. } => (*group).into(),
        }
    }
}

impl From<Ipv4Addr> for Multicast {
    fn from(group: Ipv4Addr) -> Self {
        Self::V4 { group, interface: Ipv4Addr::UNSPECIFIED }
    }
}

impl From<Ipv6Addr> for Multicast {
    fn from(group: Ipv6Addr) -> Self {
        Self::V6 { group, interface: 0 }
    }
}

impl From<IpAddr> for Multicast {
    fn from(group: IpAddr) -> Self {
        match group {
            IpAddr::V4(group) => group.into(),
            IpAddr::V6(group) => group.into(),
        }
    }
}

/// What the loop did with a datagram that a service sent. Even `Taken` does not mean that it
/// arrives.
#[must_use = "a dropped datagram is not sent later"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// The kernel has taken the datagram.
    Taken,
    /// The datagram waits, after those that were sent before it, until the kernel takes it.
    /// [`Service::datagrams_drained`](crate::Service::datagrams_drained) reports when none waits
    /// any more.
    Queued,
    /// The datagram is gone, and counted in
    /// [`Stats::datagrams_dropped`](crate::Stats::datagrams_dropped). Either the kernel has no room
    /// now and the queue is [full](Datagram::queue_bytes_max), or the system cannot say when there
    /// is room again, as for a Unix socket that is not connected.
    Dropped,
}

/// The reason why a datagram was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The datagram is longer than the socket can send. UDP has at most 65,507 bytes over IPv4.
    #[error("the datagram is too long")]
    TooLong,
    /// The socket has been closed.
    #[error("the socket is closed")]
    Closed,
    /// The system refused the datagram: there is no route, a filter forbids it, the address is of
    /// another family, no process has the Unix socket, or the socket is not connected and no
    /// address was given.
    #[error("the system refused the datagram")]
    Failed(#[source] io::Error),
}

/// A failure of a datagram socket, for
/// [`Service::datagram_failed`](crate::Service::datagram_failed). The socket stays open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// A received datagram was longer than [`Datagram::received_bytes_max`], and is dropped.
    #[error("a datagram from {from} was too long")]
    TooLong {
        /// The address of the sender.
        from: Address,
    },
    /// A datagram that waited in the send queue could not be sent.
    #[error("a queued datagram could not be sent")]
    Unsent {
        /// The address that the datagram was for; `None` if it was for the connected peer.
        to: Option<Address>,
        /// The reason.
        #[source]
        source: SendError,
    },
    /// The system reported a failure of an earlier datagram, such as
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) on a connected socket whose peer
    /// does not exist. It does not say which datagram.
    #[error("the socket failed")]
    Failed(#[source] io::Error),
}
