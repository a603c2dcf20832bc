//! Datagram sockets: UDP and Unix.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

#[cfg(unix)]
use super::socket::{SocketFile, bind_path};
use super::socket::{retry, set_buffers, share_port};
use crate::address::Address;
use crate::datagram::{DatagramOptions, Multicast};
use crate::net::Refusal;
#[cfg(unix)]
use crate::socket::unix_address;

/// The longest datagrams of UDP: 65,535 bytes without the headers of UDP and, for IPv4, of IP.
const V4_BYTES_MAX: usize = 65_507;
const V6_BYTES_MAX: usize = 65_527;

/// "Message too long" and "no buffer space", as the systems number them.
const TOO_LONG: i32 = if cfg!(windows) {
    10_040
} else if cfg!(any(target_os = "linux", target_os = "android")) {
    90
} else {
    40
};
const NO_BUFFERS: i32 = if cfg!(windows) {
    10_055
} else if cfg!(any(target_os = "linux", target_os = "android")) {
    105
} else {
    55
};

/// A non-blocking datagram socket.
#[derive(Debug)]
pub(crate) enum DatagramSocket {
    Udp {
        socket: mio::net::UdpSocket,
        is_v4: bool,
    },
    #[cfg(unix)]
    Unix {
        socket: mio::net::UnixDatagram,
        is_connected: bool,
        /// The file goes with the socket.
        #[allow(dead_code)] // held for its `Drop`
        file: Option<SocketFile>,
    },
}

impl DatagramSocket {
    /// Opens a socket at `address`, connected to `peer` if there is one.
    pub(crate) fn open(address: &Address, peer: Option<&Address>, options: &DatagramOptions) -> io::Result<Self> {
        match address {
            Address::Inet(address) => {
                let peer = peer.map(|peer| peer.inet().ok_or(io::ErrorKind::InvalidInput)).transpose()?;
                Self::open_udp(*address, peer, options)
            }
            #[cfg(unix)]
            Address::Unix(_) if !options.groups.is_empty() => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "a Unix socket has no multicast groups"))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
                set_buffers(&socket, options.receive_buffer_bytes, options.send_buffer_bytes)?;
                let is_named = !path.as_os_str().is_empty();
                if is_named {
                    bind_path(&socket, path, Type::DGRAM)?;
                }
                let file = if is_named { SocketFile::at(path) } else { None };
                if let Some(peer) = peer {
                    socket.connect(&SockAddr::unix(peer.path().ok_or(io::ErrorKind::InvalidInput)?)?)?;
                }
                socket.set_nonblocking(true)?;
                let socket = mio::net::UnixDatagram::from_std(socket.into());
                Ok(Self::Unix { socket, is_connected: peer.is_some(), file })
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn open_udp(address: SocketAddr, peer: Option<SocketAddr>, options: &DatagramOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        share_port(&socket, options.reuse_port)?;
        set_buffers(&socket, options.receive_buffer_bytes, options.send_buffer_bytes)?;
        if options.broadcast {
            socket.set_broadcast(true)?;
        }
        let is_v4 = address.is_ipv4();
        set_multicast(&socket, is_v4, options)?;
        socket.bind(&address.into())?;
        if let Some(peer) = peer {
            socket.connect(&peer.into())?;
        }
        socket.set_nonblocking(true)?;
        let opened = Self::Udp { socket: mio::net::UdpSocket::from_std(socket.into()), is_v4 };
        options.groups.iter().try_for_each(|group| opened.join(group))?;
        Ok(opened)
    }

    /// Receives a datagram, and returns its length and its sender.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        match self {
            Self::Udp { socket, .. } => {
                retry(|| socket.recv_from(buffer)).map(|(count, from)| (count, Address::Inet(from)))
            }
            #[cfg(unix)]
            Self::Unix { socket, .. } => {
                retry(|| socket.recv_from(buffer)).map(|(count, from)| (count, unix_address(&from)))
            }
        }
    }

    /// Sends a datagram to an address, or to the connected peer.
    pub(crate) fn send(&self, to: Option<&Address>, bytes: &[u8]) -> Result<(), Refusal> {
        let sent = match (self, to) {
            (Self::Udp { socket, .. }, None) => retry(|| socket.send(bytes)),
            (Self::Udp { socket, .. }, Some(Address::Inet(to))) => retry(|| socket.send_to(bytes, *to)),
            #[cfg(unix)]
            (Self::Unix { socket, .. }, None) => retry(|| socket.send(bytes)),
            #[cfg(unix)]
            (Self::Unix { socket, .. }, Some(Address::Unix(to))) => retry(|| socket.send_to(bytes, to)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        sent.map(drop).map_err(|error| match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => self.blocked(),
            Some(NO_BUFFERS) => Refusal::NoRoom,
            Some(TOO_LONG) => Refusal::TooLong(error),
            _ => Refusal::Failed(error),
        })
    }

    fn blocked(&self) -> Refusal {
        match self {
            // It is the receiver that has no room, and the kernel does not say when it has.
            #[cfg(unix)]
            Self::Unix { is_connected: false, .. } => Refusal::NoRoom,
            _ => Refusal::Blocked,
        }
    }

    /// Returns the length above which the socket certainly does not send a datagram.
    pub(crate) fn bytes_max(&self) -> usize {
        match self {
            Self::Udp { is_v4: true, .. } => V4_BYTES_MAX,
            Self::Udp { is_v4: false, .. } => V6_BYTES_MAX,
            #[cfg(unix)]
            Self::Unix { .. } => usize::MAX,
        }
    }

    pub(crate) fn join(&self, group: &Multicast) -> io::Result<()> {
        match (self, group) {
            (Self::Udp { socket, .. }, Multicast::V4 { group, interface }) => {
                socket.join_multicast_v4(group, interface)
            }
            (Self::Udp { socket, .. }, Multicast::V6 { group, interface }) => {
                socket.join_multicast_v6(group, *interface)
            }
            #[cfg(unix)]
            (Self::Unix { .. }, _) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) fn leave(&self, group: &Multicast) -> io::Result<()> {
        match (self, group) {
            (Self::Udp { socket, .. }, Multicast::V4 { group, interface }) => {
                socket.leave_multicast_v4(group, interface)
            }
            (Self::Udp { socket, .. }, Multicast::V6 { group, interface }) => {
                socket.leave_multicast_v6(group, *interface)
            }
            #[cfg(unix)]
            (Self::Unix { .. }, _) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::Udp { socket, .. } => socket.local_addr().map(Address::Inet),
            #[cfg(unix)]
            Self::Unix { socket, .. } => socket.local_addr().map(|address| unix_address(&address)),
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Self::Udp { socket, .. } => socket,
            #[cfg(unix)]
            Self::Unix { socket, .. } => socket,
        }
    }
}

/// Sets the options for datagrams that are sent to groups.
fn set_multicast(socket: &Socket, is_v4: bool, options: &DatagramOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match options.multicast_loop {
        Some(comes_back) if is_v4 => socket.set_multicast_loop_v4(comes_back)?,
        Some(comes_back) => socket.set_multicast_loop_v6(comes_back)?,
        None => {}
    }
    match options.multicast_ttl {
        Some(ttl) if is_v4 => socket.set_multicast_ttl_v4(ttl)?,
        Some(ttl) => socket.set_multicast_hops_v6(ttl)?,
        None => {}
    }
    match options.multicast_interface {
        Some(Multicast::V4 { interface, .. }) if interface != Ipv4Addr::UNSPECIFIED => {
            socket.set_multicast_if_v4(&interface)
        }
        Some(Multicast::V6 { interface, .. }) if interface != 0 => socket.set_multicast_if_v6(interface),
        _ => Ok(()),
    }
}
