//! The handle that a loop holds on a simulated datagram socket, and a test's end of datagrams.

use std::io;

use super::handles::{Handle, Poller};
use super::trace::PortId;
use super::{PATIENCE, Simulation};
use crate::address::Address;
use crate::datagram::{Datagram, DatagramOptions, Multicast};
use crate::error::{Error, Result};
use crate::net::Refusal;

#[derive(Debug)]
pub(crate) struct DatagramSocket {
    handle: Handle,
    port: PortId,
}

impl Handle {
    pub(crate) fn datagram(
        &self,
        address: &Address,
        peer: Option<&Address>,
        options: &DatagramOptions,
    ) -> io::Result<DatagramSocket> {
        let port = self.lock().open_port(address, peer, options, true)?;
        Ok(DatagramSocket { handle: self.clone(), port })
    }
}

impl Poller {
    pub(crate) fn add_datagram(&self, socket: &DatagramSocket, token: usize) {
        socket.handle.lock().register_port(socket.port, self.index(), token);
    }
}

impl DatagramSocket {
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        self.handle.lock().receive_datagram(self.port, buffer)
    }

    pub(crate) fn send(&self, to: Option<&Address>, bytes: &[u8]) -> std::result::Result<(), Refusal> {
        self.handle.lock().send_datagram(self.port, to, bytes)
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.handle.lock().datagram_bytes_max(self.port)
    }

    pub(crate) fn join(&self, group: &Multicast) -> io::Result<()> {
        self.handle.lock().join_group(self.port, group.group())
    }

    pub(crate) fn leave(&self, group: &Multicast) -> io::Result<()> {
        self.handle.lock().leave_group(self.port, group.group())
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        self.handle.lock().port_address(self.port)
    }
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        self.handle.lock().close_port(self.port);
    }
}

/// A test's datagram socket. The test decides which datagrams it sends, and time passes while the
/// peer waits. Dropping a peer closes it.
///
/// ```
/// use sealed::Address;
/// use sealed::sim::Simulation;
///
/// let sim = Simulation::new(1);
/// let ann = sim.datagram_peer("10.0.0.1:53")?;
/// let ben = sim.datagram_peer("10.0.0.2:53")?;
/// ann.send_to(ben.address(), "hello");
/// assert_eq!(ben.expect(), (ann.address(), b"hello".to_vec()));
/// # Ok::<(), sealed::Error>(())
/// ```
#[derive(Debug)]
pub struct DatagramPeer {
    sim: Simulation,
    port: PortId,
}

impl Simulation {
    /// Opens a datagram socket with the test at its end. With port 0 the network chooses a port. Of
    /// the settings, the addresses, the groups and [`Datagram::reuse_port`] have an effect.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Datagram`] if the address is in use.
    pub fn datagram_peer(&self, datagram: impl Into<Datagram>) -> Result<DatagramPeer> {
        let mut datagram = datagram.into();
        let opened = datagram.candidates().and_then(|candidates| {
            let (address, peer) = candidates.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
            self.net(|net| net.open_port(&address, peer.as_ref(), &datagram.options, false))
        });
        let port = opened.map_err(|source| Error::Datagram { address: datagram.name(), source })?;
        Ok(DatagramPeer { sim: self.clone(), port })
    }
}

impl DatagramPeer {
    /// Returns the address of the peer.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)] // it is open as long as the peer exists
    pub fn address(&self) -> Address {
        self.sim.net(|net| net.port_address(self.port)).expect("an open socket")
    }

    /// Sends a datagram. Does not wait. The faults of the network apply, and its link, but not the
    /// limits on size and buffers.
    pub fn send_to(&self, to: impl Into<Address>, bytes: impl AsRef<[u8]>) {
        let to = to.into();
        self.sim.net(|net| net.put_on_wire(self.port, &to, bytes.as_ref()));
    }

    /// Takes the oldest datagram that has arrived, with the address of its sender. Does not wait.
    pub fn take(&self) -> Option<(Address, Vec<u8>)> {
        self.sim.net(|net| net.take_datagram(self.port)).map(|(from, bytes)| (from, bytes.into()))
    }

    /// Lets time pass until a datagram arrives, and returns it with the address of its sender.
    ///
    /// # Panics
    ///
    /// Panics with the trace if ten simulated minutes pass before, or if a loop ends with an error.
    pub fn expect(&self) -> (Address, Vec<u8>) {
        let mut taken = None;
        self.sim.run_until(PATIENCE, || {
            taken = self.take();
            taken.is_some()
        });
        taken.unwrap_or_else(|| panic!("a datagram was expected, and none came\n{}", self.sim.trace()))
    }

    /// Lets time pass until a datagram arrives from this address, and returns it. Those from other
    /// addresses are discarded.
    ///
    /// # Panics
    ///
    /// Panics with the trace if ten simulated minutes pass before, or if a loop ends with an error.
    pub fn expect_from(&self, from: impl Into<Address>) -> Vec<u8> {
        let wanted = from.into();
        loop {
            let (from, bytes) = self.expect();
            if from == wanted {
                return bytes;
            }
        }
    }

    /// Lets this much time pass, and returns whether no datagram has arrived.
    ///
    /// # Panics
    ///
    /// Panics with the trace if a loop ends with an error.
    pub fn is_silent_for(&self, time: std::time::Duration) -> bool {
        self.sim.run_for(time);
        self.sim.net(|net| !net.has_datagrams(self.port))
    }
}

impl Drop for DatagramPeer {
    fn drop(&mut self) {
        self.sim.net(|net| net.close_port(self.port));
    }
}
