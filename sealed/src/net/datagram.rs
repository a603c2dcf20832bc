//! Datagram sockets.

use std::io;

use super::{Network, system};
use crate::address::Address;
use crate::datagram::{DatagramOptions, Multicast};
#[cfg(feature = "sim")]
use crate::sim;

/// A non-blocking datagram socket.
#[derive(Debug)]
pub(crate) enum DatagramSocket {
    System(system::DatagramSocket),
    #[cfg(feature = "sim")]
    Simulated(sim::DatagramSocket),
}

/// Why the network has not taken a datagram.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no room. The readiness queue reports when there is some again.
    Blocked,
    /// There is no room, and nothing reports when there is some again.
    NoRoom,
    TooLong(io::Error),
    Failed(io::Error),
}

impl Network {
    /// Opens a socket at `address`, connected to `peer` if there is one.
    pub(crate) fn datagram(
        &self,
        address: &Address,
        peer: Option<&Address>,
        options: &DatagramOptions,
    ) -> io::Result<DatagramSocket> {
        match self {
            Self::System => system::DatagramSocket::open(address, peer, options).map(DatagramSocket::System),
            #[cfg(feature = "sim")]
            Self::Simulated(handle, _) => handle.datagram(address, peer, options).map(DatagramSocket::Simulated),
        }
    }
}

impl DatagramSocket {
    /// Receives a datagram, and returns its length and its sender. Of a datagram that is longer
    /// than `buffer`, the rest is lost.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        match self {
            Self::System(socket) => socket.receive(buffer),
            #[cfg(feature = "sim")]
            Self::Simulated(socket) => socket.receive(buffer),
        }
    }

    /// Sends a datagram to an address, or to the connected peer.
    pub(crate) fn send(&self, to: Option<&Address>, bytes: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::System(socket) => socket.send(to, bytes),
            #[cfg(feature = "sim")]
            Self::Simulated(socket) => socket.send(to, bytes),
        }
    }

    /// Returns the length above which the socket certainly does not send a datagram.
    pub(crate) fn bytes_max(&self) -> usize {
        match self {
            Self::System(socket) => socket.bytes_max(),
            #[cfg(feature = "sim")]
            Self::Simulated(socket) => socket.bytes_max(),
        }
    }

    pub(crate) fn join(&self, group: &Multicast) -> io::Result<()> {
        match self {
            Self::System(socket) => socket.join(group),
            #[cfg(feature = "sim")]
            Self::Simulated(socket) => socket.join(group),
        }
    }

    pub(crate) fn leave(&self, group: &Multicast) -> io::Result<()> {
        match self {
            Self::System(socket) => socket.leave(group),
            #[cfg(feature = "sim")]
            Self::Simulated(socket) => socket.leave(group),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::System(socket) => socket.local_addr(),
            #[cfg(feature = "sim")]
            Self::Simulated(socket) => socket.local_addr(),
        }
    }
}
