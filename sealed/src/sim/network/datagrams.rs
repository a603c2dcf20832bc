//! Datagram sockets, of loops and of tests, and the datagrams in transit between them.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{Event, Net, Owner, Source, digest_of};
use crate::address::Address;
use crate::datagram::{DatagramOptions, Multicast};
use crate::net::{Readiness, Refusal};
use crate::sim::trace::{Entry, Lost, PortId};
use crate::sim::{Faults, Link};

/// A datagram socket.
pub(super) struct SimulatedPort {
    serial: u32,
    address: Address,
    peer: Option<Address>,
    shared: bool,
    owner: Owner,
    link: Arc<Link>,
    groups: Vec<IpAddr>,
    hears_itself: bool,
    received: VecDeque<(Address, Box<[u8]>)>,
    received_bytes: usize,
    /// Bytes sent that the network has not transmitted yet.
    unsent: usize,
    /// Arrival time of the last datagram in order.
    last_arrival: Duration,
    error: Option<io::ErrorKind>,
    /// The socket is in the ready list of its poller.
    listed: bool,
}

/// A datagram in transit.
pub(super) struct Transit {
    from: PortId,
    source: Address,
    /// The sender, if what it sends to a group does not come back to it.
    except: Option<PortId>,
    to: Address,
    bytes: Box<[u8]>,
}

impl Net {
    /// Opens a socket: of a loop, or of a test, which needs no descriptor.
    pub(in crate::sim) fn open_port(
        &mut self,
        address: &Address,
        peer: Option<&Address>,
        options: &DatagramOptions,
        is_of_loop: bool,
    ) -> io::Result<PortId> {
        let address = self.free_address(address, options.reuse_port, peer.is_some())?;
        if is_of_loop {
            self.take_descriptor()?;
        }
        self.serial += 1;
        let serial = self.serial as u32;
        let index = self.ports.insert(SimulatedPort {
            serial,
            address,
            peer: peer.cloned(),
            shared: options.reuse_port,
            owner: if is_of_loop { Owner::Nobody } else { Owner::Peer },
            link: self.link.clone(),
            groups: options.groups.iter().map(Multicast::group).collect(),
            hears_itself: options.multicast_loop.unwrap_or(true),
            received: VecDeque::new(),
            received_bytes: 0,
            unsent: 0,
            last_arrival: Duration::ZERO,
            error: None,
            listed: false,
        });
        let port = PortId { index: index as u32, serial };
        self.note(Entry::Opens { port });
        Ok(port)
    }

    /// Returns the address that a new socket gets.
    fn free_address(&mut self, address: &Address, shared: bool, is_connected: bool) -> io::Result<Address> {
        let is_taken = |net: &Self, address: &Address| {
            let is_named = address.path().is_none_or(|path| !path.as_os_str().is_empty());
            is_named && net.ports.iter().any(|(_, held)| held.address == *address && !(held.shared && shared))
        };
        let mut address = address.clone();
        if let Address::Inet(address) = &mut address
            && is_connected
            && address.ip().is_unspecified()
        {
            address.set_ip(home(address.ip()));
        }
        while let Address::Inet(inet) = &mut address
            && inet.port() == 0
        {
            self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
            let mut candidate = *inet;
            candidate.set_port(self.next_port);
            if !is_taken(self, &Address::Inet(candidate)) {
                *inet = candidate;
            }
        }
        if is_taken(self, &address) { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(address) }
    }

    fn port(&mut self, id: PortId) -> Option<&mut SimulatedPort> {
        self.ports.get_mut(id.index as usize).filter(|port| port.serial == id.serial)
    }

    pub(in crate::sim) fn register_port(&mut self, id: PortId, poller: u32, token: usize) {
        if let Some(port) = self.port(id) {
            port.owner = Owner::Poller { poller, token };
            self.announce_port(id);
        }
    }

    pub(in crate::sim) fn port_address(&mut self, id: PortId) -> io::Result<Address> {
        self.port(id).map(|port| port.address.clone()).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub(in crate::sim) fn datagram_bytes_max(&mut self, id: PortId) -> usize {
        self.port(id).map_or(0, |port| port.link.datagram_bytes_max)
    }

    pub(in crate::sim) fn join_group(&mut self, id: PortId, group: IpAddr) -> io::Result<()> {
        let port = self.port(id).ok_or(io::ErrorKind::NotConnected)?;
        if port.groups.contains(&group) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        port.groups.push(group);
        Ok(())
    }

    pub(in crate::sim) fn leave_group(&mut self, id: PortId, group: IpAddr) -> io::Result<()> {
        let port = self.port(id).ok_or(io::ErrorKind::NotConnected)?;
        let before = port.groups.len();
        port.groups.retain(|held| *held != group);
        if port.groups.len() == before { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(()) }
    }

    /// Sends a datagram for a loop.
    pub(in crate::sim) fn send_datagram(
        &mut self,
        id: PortId,
        to: Option<&Address>,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let would_block = self.faults.would_block;
        self.calls += 1;
        let failed = |kind: io::ErrorKind| Refusal::Failed(kind.into());
        let port = self.port(id).ok_or_else(|| failed(io::ErrorKind::NotConnected))?;
        if let Some(kind) = port.error.take() {
            return Err(failed(kind));
        }
        let to = to.or(port.peer.as_ref()).cloned().ok_or_else(|| failed(io::ErrorKind::NotConnected))?;
        if !is_same_family(&to, &port.address) {
            return Err(failed(io::ErrorKind::InvalidInput));
        }
        if bytes.len() > port.link.datagram_bytes_max {
            return Err(Refusal::TooLong(io::ErrorKind::InvalidInput.into()));
        }
        let (unsent, buffer_bytes) = (port.unsent, port.link.buffer_bytes);
        let source = port.address.clone();
        if to.path().is_some() && self.receivers(&source, &to, None).is_empty() {
            return Err(failed(io::ErrorKind::ConnectionRefused));
        }
        let is_full = unsent > 0 && unsent + bytes.len() > buffer_bytes;
        let delay = if is_full { None } else { self.occurs_for("would_block", subject(id), would_block) };
        if is_full || delay.is_some() {
            self.note(Entry::PortBlocks { port: id });
            if let Some(delay) = delay {
                self.schedule(delay, Event::AnnouncePort { to: id });
            }
            return Err(Refusal::Blocked);
        }
        self.put_on_wire(id, &to, bytes);
        Ok(())
    }

    /// Sends a datagram, regardless of the room in the buffers.
    pub(in crate::sim) fn put_on_wire(&mut self, id: PortId, to: &Address, bytes: &[u8]) {
        let Faults { lose, duplicate, reorder, .. } = self.faults;
        let now = self.now;
        let Some(port) = self.port(id) else { return };
        let link = port.link.clone();
        let source = source_of(&port.address, to);
        let except = (!port.hears_itself).then_some(id);
        port.unsent += bytes.len();
        let nanos = link.bandwidth.map_or(0, |bandwidth| bytes.len() as u64 * 1_000_000_000 / bandwidth.max(1));
        let in_order = port.last_arrival;
        self.note(Entry::Sends { port: id, count: bytes.len(), digest: digest_of(bytes) });
        let (shortest, longest) = (link.latency_min.as_nanos() as u64, link.latency_max.as_nanos() as u64);
        let latency = Duration::from_nanos(self.random.within(shortest..=longest.max(shortest)));
        let arrival = (now + latency).max(in_order) + Duration::from_nanos(nanos);
        if let Some(port) = self.port(id) {
            port.last_arrival = arrival;
        }
        self.schedule_at(arrival, Event::PortSent { to: id, count: bytes.len() });
        let transit = || Transit { from: id, source: source.clone(), except, to: to.clone(), bytes: bytes.into() };
        // Unix sockets lose nothing and keep the order.
        let is_udp = to.path().is_none();
        if is_udp && self.occurs("lose", subject(id), lose)
            || self.unreachable.contains(to)
            || self.is_parted(&source, to)
        {
            return self.note(Entry::Loses { port: id, why: Lost::OnTheWay });
        }
        if is_udp && let Some(delay) = self.occurs_for("duplicate", subject(id), duplicate) {
            self.schedule_at(arrival + delay, Event::Datagram(transit()));
        }
        let delay = if is_udp { self.occurs_for("reorder", subject(id), reorder) } else { None };
        self.schedule_at(arrival + delay.unwrap_or_default(), Event::Datagram(transit()));
    }

    pub(super) fn port_sent(&mut self, id: PortId, count: usize) {
        if let Some(port) = self.port(id) {
            port.unsent -= count;
            self.announce_port(id);
        }
    }

    pub(super) fn datagram_arrives(&mut self, transit: Transit) {
        let Transit { from, source, except, to, bytes } = transit;
        let receivers = self.receivers(&source, &to, except);
        if receivers.is_empty() {
            self.note(Entry::Loses { port: from, why: Lost::Nobody });
            // Only a socket that is connected to the address hears of it.
            if self.port(from).is_some_and(|port| port.peer.as_ref() == Some(&to)) {
                self.schedule(Duration::from_micros(50), Event::PortRefused { to: from });
            }
        }
        for to in receivers {
            self.receive_into(to, &source, &bytes);
        }
    }

    fn receive_into(&mut self, id: PortId, source: &Address, bytes: &[u8]) {
        let Some(port) = self.port(id) else { return };
        let is_full = port.received_bytes > 0 && port.received_bytes + bytes.len() > port.link.buffer_bytes;
        if is_full && source.path().is_none() && !matches!(port.owner, Owner::Peer) {
            return self.note(Entry::Loses { port: id, why: Lost::BufferFull });
        }
        port.received_bytes += bytes.len();
        port.received.push_back((source.clone(), bytes.into()));
        self.note(Entry::Delivers { port: id, count: bytes.len(), digest: digest_of(bytes) });
        self.announce_port(id);
    }

    /// Returns the sockets that a datagram to an address reaches.
    fn receivers(&mut self, source: &Address, to: &Address, except: Option<PortId>) -> Vec<PortId> {
        let is_open_to = |port: &SimulatedPort| port.peer.as_ref().is_none_or(|peer| peer == source);
        let id = |(index, port): (usize, &SimulatedPort)| PortId { index: index as u32, serial: port.serial };
        let open = || self.ports.iter().filter(|(_, port)| is_open_to(port));
        if let Some(group) = to.inet().filter(|to| to.ip().is_multicast()) {
            let is_member = |port: &SimulatedPort| {
                port.groups.contains(&group.ip()) && port.address.inet().is_some_and(|at| at.port() == group.port())
            };
            let members = open().filter(|(_, port)| is_member(port)).map(id);
            return members.filter(|member| Some(*member) != except).collect();
        }
        let mut found: Vec<PortId> = open().filter(|(_, port)| port.address == *to).map(id).collect();
        if found.is_empty() {
            found = open().filter(|(_, port)| stands_for(&port.address, to)).map(id).collect();
        }
        self.random.pick(&found).copied().into_iter().collect()
    }

    pub(super) fn port_refused(&mut self, id: PortId) {
        if let Some(port) = self.port(id) {
            port.error = Some(io::ErrorKind::ConnectionRefused);
            self.note(Entry::PortRefused { port: id });
            self.announce_port(id);
        }
    }

    /// Receives a datagram for a loop; the rest of one that is longer than `buffer` is lost.
    pub(in crate::sim) fn receive_datagram(&mut self, id: PortId, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        let would_block = self.faults.would_block;
        self.calls += 1;
        let port = self.port(id).ok_or(io::ErrorKind::NotConnected)?;
        if let Some(kind) = port.error.take() {
            return Err(kind.into());
        }
        if port.received.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Some(delay) = self.occurs_for("would_block", subject(id), would_block) {
            self.note(Entry::PortBlocks { port: id });
            self.schedule(delay, Event::AnnouncePort { to: id });
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (source, bytes) = self.take_datagram(id).ok_or(io::ErrorKind::WouldBlock)?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok((count, source))
    }

    /// Takes the oldest datagram that a socket has received.
    pub(in crate::sim) fn take_datagram(&mut self, id: PortId) -> Option<(Address, Box<[u8]>)> {
        let port = self.port(id)?;
        let (source, bytes) = port.received.pop_front()?;
        port.received_bytes -= bytes.len();
        self.note(Entry::Takes { port: id, count: bytes.len() });
        Some((source, bytes))
    }

    pub(in crate::sim) fn has_datagrams(&mut self, id: PortId) -> bool {
        self.port(id).is_some_and(|port| !port.received.is_empty())
    }

    pub(in crate::sim) fn close_port(&mut self, id: PortId) {
        if self.port(id).is_some() {
            self.note(Entry::ClosesPort { port: id });
            let port = self.ports.remove(id.index as usize);
            self.descriptors -= usize::from(!matches!(port.owner, Owner::Peer));
        }
    }

    pub(super) fn announce_port(&mut self, id: PortId) {
        let Some(port) = self.port(id) else { return };
        let Owner::Poller { poller, .. } = port.owner else { return };
        if !port.listed {
            port.listed = true;
            self.pollers[poller as usize].ready.push(Source::Port(id));
        }
    }

    pub(super) fn port_readiness(&mut self, id: PortId) -> Option<Readiness> {
        let port = self.port(id)?;
        port.listed = false;
        let Owner::Poller { token, .. } = port.owner else { return None };
        let failed = port.error.is_some();
        Some(Readiness {
            token,
            readable: !port.received.is_empty() || failed,
            writable: port.unsent < port.link.buffer_bytes,
            ended: false,
            failed,
        })
    }
}

/// Returns the local address of this family.
fn home(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Returns the address that a receiver sees: one that it can answer to.
fn source_of(bound: &Address, to: &Address) -> Address {
    match (bound, to) {
        (Address::Inet(bound), Address::Inet(_)) if bound.ip().is_unspecified() => {
            Address::Inet(SocketAddr::new(home(bound.ip()), bound.port()))
        }
        _ => bound.clone(),
    }
}

/// Returns whether a socket that is bound to no specific IP address receives datagrams to `to`.
fn stands_for(bound: &Address, to: &Address) -> bool {
    match (bound, to) {
        (Address::Inet(bound), Address::Inet(to)) => {
            bound.ip().is_unspecified() && bound.port() == to.port() && bound.is_ipv4() == to.is_ipv4()
        }
        _ => false,
    }
}

fn is_same_family(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Inet(one), Address::Inet(other)) => one.is_ipv4() == other.is_ipv4(),
        (Address::Unix(_), Address::Unix(_)) => true,
        _ => false,
    }
}

/// Returns what identifies a datagram socket among all sockets that faults occur at.
fn subject(id: PortId) -> u32 {
    id.index | 1 << 31
}
