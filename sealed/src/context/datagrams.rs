//! Datagram sockets: the calls of the service, and the sockets with their send queues.

use std::collections::VecDeque;
use std::io;

use slab::Slab;

use super::Context;
use crate::address::Address;
use crate::datagram::{Datagram, Multicast, SendError, Sent};
use crate::error::{Error, Result};
use crate::id::DatagramId;
use crate::net::{DatagramSocket, Refusal};
use crate::service::Service;
use crate::token::DATAGRAMS_MAX;

/// Bytes with which each queued datagram counts besides its own: otherwise any number of empty
/// datagrams could be queued.
const QUEUED_BYTES: usize = 64;
const _: () = assert!(size_of::<Queued>() <= QUEUED_BYTES);

/// Datagram sockets.
impl<S: Service> Context<S> {
    /// Opens a datagram socket, UDP or Unix. The loop passes what it receives to
    /// [`Service::datagram`]. [`datagram_addr`](Self::datagram_addr) returns its address.
    ///
    /// The socket is not a connection: it does not count in [`connections`](Self::connections), and
    /// its peers are not notified when it is closed. While the loop drains, the socket stays usable
    /// but does not keep the loop running. [`close_datagram`](Self::close_datagram) closes it;
    /// otherwise the loop does so at the drain limit, or when the loop ends, without a call of the
    /// service. Each loop of a pool opens its own sockets; for sockets of several loops on one
    /// port, see [`Datagram::reuse_port`].
    ///
    /// ```
    /// use sealed::{Address, Context, DatagramId, Service};
    ///
    /// fn announce<S: Service>(cx: &mut Context<S>, to: &Address) -> Result<DatagramId, Box<dyn std::error::Error>> {
    ///     let socket = cx.bind_datagram("0.0.0.0:0")?;
    ///     cx.send_to(socket, to, b"here I am")?;
    ///     Ok(socket)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error::Datagram`] if the address cannot be resolved or bound, if the peer cannot
    /// be connected to, if an option cannot be set, or if the
    /// [drain limit](crate::Config::drain_limit) of the loop has passed.
    pub fn bind_datagram(&mut self, datagram: impl Into<Datagram>) -> Result<DatagramId> {
        let mut datagram = datagram.into();
        self.open_datagram(&mut datagram).map_err(|source| Error::Datagram { address: datagram.name(), source })
    }

    fn open_datagram(&mut self, datagram: &mut Datagram) -> io::Result<DatagramId> {
        if self.draining_until.is_some_and(|limit| limit <= self.now) && !fault!("datagrams-bound-past-drain-limit") {
            return Err(io::Error::other("the drain limit of the loop has passed"));
        }
        let slot = self.datagrams.ports.vacant_key();
        if slot >= DATAGRAMS_MAX {
            return Err(io::Error::other("the loop has too many datagram sockets"));
        }
        let mut opened = Err(io::ErrorKind::NotFound.into());
        for (address, peer) in datagram.candidates()? {
            opened = self.network.datagram(&address, peer.as_ref(), &datagram.options);
            if opened.is_ok() {
                break;
            }
        }
        let mut socket = opened?;
        self.registry.add_datagram(&mut socket, slot)?;
        let serial = self.next_serial();
        self.datagrams.ports.insert(Port::new(socket, serial, datagram));
        Ok(DatagramId { slot: slot as u32, serial })
    }

    /// Sends a datagram to an address. If the kernel has no room now, or if datagrams are already
    /// waiting in the queue of the socket, the datagram is queued; beyond
    /// [`Datagram::queue_bytes_max`] it is dropped. The result says which.
    ///
    /// # Errors
    ///
    /// Returns the reason if the datagram can never be sent: it is too long, the system refuses it,
    /// or the socket has been closed. The reason for a queued datagram is reported later, by
    /// [`Service::datagram_failed`].
    pub fn send_to(&mut self, socket: DatagramId, to: &Address, bytes: &[u8]) -> std::result::Result<Sent, SendError> {
        self.send_datagram(socket, Some(to), bytes)
    }

    /// Sends a datagram to the peer of a [connected](Datagram::connect) socket, as
    /// [`send_to`](Self::send_to) does to an address.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`send_to`](Self::send_to), and [`SendError::Failed`] if the
    /// socket is not connected.
    pub fn send(&mut self, socket: DatagramId, bytes: &[u8]) -> std::result::Result<Sent, SendError> {
        self.send_datagram(socket, None, bytes)
    }

    fn send_datagram(
        &mut self,
        id: DatagramId,
        to: Option<&Address>,
        bytes: &[u8],
    ) -> std::result::Result<Sent, SendError> {
        let port = self.datagrams.find(id).ok_or(SendError::Closed)?;
        if port.queue.is_empty() || fault!("datagram-overtakes-queue") {
            let offered = port.offer(to, bytes);
            let has_failure = port.failure.is_some();
            if has_failure {
                self.datagrams.will_serve(id);
            }
            match offered {
                Ok(()) => {
                    self.counters.datagrams_sent.add(1);
                    return Ok(Sent::Taken);
                }
                Err(Refusal::Blocked) => {}
                Err(Refusal::NoRoom) => {
                    self.counters.datagrams_dropped.add(1);
                    return Ok(Sent::Dropped);
                }
                Err(Refusal::TooLong(_)) if fault!("too-long-datagram-dropped-silently") => return Ok(Sent::Dropped),
                Err(Refusal::TooLong(_)) => return Err(SendError::TooLong),
                Err(Refusal::Failed(error)) => return Err(SendError::Failed(error)),
            }
        }
        let port = self.datagrams.find(id).ok_or(SendError::Closed)?;
        if bytes.len() > port.socket.bytes_max() {
            return Err(SendError::TooLong);
        }
        if port.enqueue(to, bytes) {
            return Ok(Sent::Queued);
        }
        if !fault!("dropped-datagram-not-counted") {
            self.counters.datagrams_dropped.add(1);
        }
        Ok(Sent::Dropped)
    }

    /// Returns the bytes of datagrams that wait in the send queue of a socket. Each datagram counts
    /// with 64 bytes more than its length.
    pub fn queued_datagrams(&self, socket: DatagramId) -> usize {
        self.datagrams.get(socket).map_or(0, |port| port.queued_bytes)
    }

    /// Closes a datagram socket at once, and returns whether it was open. The kernel is offered the
    /// datagrams that still wait; those that it does not take are dropped and counted. Datagrams
    /// that have been received and not passed to the service are lost.
    pub fn close_datagram(&mut self, socket: DatagramId) -> bool {
        if self.datagrams.find(socket).is_none() {
            return false;
        }
        let mut port = self.datagrams.ports.remove(socket.slot as usize);
        while let Some(queued) = port.dequeue() {
            match port.offer(queued.to.as_ref(), &queued.bytes) {
                Ok(()) => self.counters.datagrams_sent.add(1),
                Err(_) => self.counters.datagrams_dropped.add(1),
            }
        }
        true
    }

    /// Closes all datagram sockets.
    pub(crate) fn close_datagrams(&mut self) {
        for id in self.datagrams.ids() {
            self.close_datagram(id);
        }
    }

    /// Returns the address of a datagram socket. A socket that is bound to no specific IP address
    /// has the unspecified one. Makes a system call.
    pub fn datagram_addr(&self, socket: DatagramId) -> Option<Address> {
        self.datagrams.get(socket)?.socket.local_addr().ok()
    }

    /// Makes a datagram socket join a multicast group, as [`Datagram::join`] does.
    ///
    /// # Errors
    ///
    /// Returns the error of the system, such as that of an interface that does not exist, or
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the socket has been closed.
    pub fn join_multicast(&mut self, socket: DatagramId, group: impl Into<Multicast>) -> io::Result<()> {
        self.datagrams.find(socket).ok_or(io::ErrorKind::NotConnected)?.socket.join(&group.into())
    }

    /// Makes a datagram socket leave a multicast group, on the interface with which it joined.
    ///
    /// # Errors
    ///
    /// Returns the error of the system if the socket is not in the group, or
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the socket has been closed.
    pub fn leave_multicast(&mut self, socket: DatagramId, group: impl Into<Multicast>) -> io::Result<()> {
        self.datagrams.find(socket).ok_or(io::ErrorKind::NotConnected)?.socket.leave(&group.into())
    }
}

/// All datagram sockets of one service.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    ports: Slab<Port>,
    /// The slots of the sockets to serve in this tick, or in the next if this tick has already
    /// read.
    pub(crate) to_serve: Vec<u32>,
}

/// A datagram socket.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) socket: DatagramSocket,
    serial: u32,
    /// The kernel may have datagrams to receive.
    pub(crate) is_readable: bool,
    /// The socket is in the list of sockets to serve.
    is_listed: bool,
    pub(crate) received_bytes_max: usize,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    queue_bytes_max: usize,
    /// A failure of an earlier datagram that a send returned, to report.
    pub(crate) failure: Option<io::Error>,
}

/// A datagram that waits to be sent.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) to: Option<Address>,
    pub(crate) bytes: Box<[u8]>,
}

impl Queued {
    fn cost(&self) -> usize {
        cost(self.bytes.len())
    }
}

fn cost(bytes: usize) -> usize {
    if fault!("empty-datagrams-queued-free") { bytes } else { bytes.saturating_add(QUEUED_BYTES) }
}

impl Datagrams {
    pub(crate) fn find(&mut self, id: DatagramId) -> Option<&mut Port> {
        let port = self.ports.get_mut(id.slot as usize)?;
        (port.serial == id.serial || fault!("datagram-serial-not-checked")).then_some(port)
    }

    fn get(&self, id: DatagramId) -> Option<&Port> {
        self.ports.get(id.slot as usize).filter(|port| port.serial == id.serial)
    }

    /// Returns the socket in a slot.
    pub(crate) fn at(&mut self, slot: u32) -> Option<(DatagramId, &mut Port)> {
        let port = self.ports.get_mut(slot as usize)?;
        Some((DatagramId { slot, serial: port.serial }, port))
    }

    fn ids(&self) -> Vec<DatagramId> {
        self.ports.iter().map(|(slot, port)| DatagramId { slot: slot as u32, serial: port.serial }).collect()
    }

    /// Puts a socket into the list of sockets to serve.
    pub(crate) fn will_serve(&mut self, id: DatagramId) {
        if let Some(port) = self.find(id)
            && !std::mem::replace(&mut port.is_listed, true)
        {
            self.to_serve.push(id.slot);
        }
    }

    /// Returns the socket that an entry of the list stands for; `None` if the entry is that of a
    /// socket that has been closed.
    pub(crate) fn unlist(&mut self, slot: u32) -> Option<DatagramId> {
        let (id, port) = self.at(slot)?;
        std::mem::take(&mut port.is_listed).then_some(id)
    }
}

impl Port {
    fn new(socket: DatagramSocket, serial: u32, datagram: &Datagram) -> Self {
        Self {
            socket,
            serial,
            is_readable: false,
            is_listed: false,
            received_bytes_max: datagram.received_bytes_max,
            queue: VecDeque::new(),
            queued_bytes: 0,
            queue_bytes_max: datagram.queue_bytes_max,
            failure: None,
        }
    }

    /// Offers a datagram to the kernel. A kernel reports a failure of an earlier datagram by
    /// refusing the next one, although nothing is wrong with it: such a failure is kept, and the
    /// datagram offered again.
    pub(crate) fn offer(&mut self, to: Option<&Address>, bytes: &[u8]) -> std::result::Result<(), Refusal> {
        let first = match self.socket.send(to, bytes) {
            Err(Refusal::TooLong(error) | Refusal::Failed(error)) => error,
            outcome => return outcome,
        };
        if fault!("failure-of-earlier-datagram-blamed") {
            return Err(Refusal::Failed(first));
        }
        let second = self.socket.send(to, bytes);
        if !matches!(second, Err(Refusal::TooLong(_) | Refusal::Failed(_))) {
            self.failure = Some(first);
        }
        second
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Queues a datagram. Returns whether there is room.
    fn enqueue(&mut self, to: Option<&Address>, bytes: &[u8]) -> bool {
        let queued_bytes = self.queued_bytes.saturating_add(cost(bytes.len()));
        if queued_bytes > self.queue_bytes_max && !fault!("datagram-queue-unbounded") {
            return false;
        }
        self.queued_bytes = queued_bytes;
        self.queue.push_back(Queued { to: to.cloned(), bytes: bytes.into() });
        true
    }

    pub(crate) fn dequeue(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_bytes -= queued.cost();
        Some(queued)
    }

    /// Puts back the datagram that was taken from the queue last.
    pub(crate) fn put_back(&mut self, queued: Queued) {
        self.queued_bytes += queued.cost();
        self.queue.push_front(queued);
    }
}
