//! Connecting, listening and accepting.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::partitions::hosts_of;
use super::{Event, Listening, Net, Owner, Source, Unsent};
use crate::address::Address;
use crate::sim::trace::{End, Entry};
use crate::sim::{Faults, Link};

/// The time after which a lost connection attempt is repeated, and the number of repetitions.
const CONNECT_RETRY: Duration = Duration::from_secs(1);
const CONNECT_TRIES: u8 = 6;

/// "Too many open files", as numbered on Unix.
const EMFILE: i32 = 24;

impl Net {
    pub(in crate::sim) fn connect_for_peer(&mut self, address: &Address, from: &Address, link: Option<Link>) -> End {
        let link = link.map_or_else(|| self.link.clone(), Arc::new);
        let end = self.open(Owner::Peer, address.clone(), link, None);
        self.connect_from(end, address, from);
        end
    }

    pub(in crate::sim) fn connect(
        &mut self,
        host: IpAddr,
        address: &Address,
        silence_max: Option<Duration>,
    ) -> io::Result<End> {
        self.take_descriptor()?;
        let link = self.link.clone();
        let end = self.open(Owner::Nobody, address.clone(), link, silence_max);
        let from = match address {
            Address::Inet(_) => Address::Inet(SocketAddr::new(host, 0)),
            Address::Unix(_) => Address::unix(""),
        };
        self.connect_from(end, address, &from);
        Ok(end)
    }

    fn connect_from(&mut self, end: End, address: &Address, from: &Address) {
        self.note(Entry::Connects { end });
        let mut source = from.clone();
        if let Address::Inet(source) = &mut source {
            self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
            source.set_port(self.next_port);
        }
        if let Some(endpoint) = self.find(end) {
            endpoint.hosts = hosts_of(&source, address);
        }
        if let Some(at) = self.arrival(end, 0) {
            let address = address.clone();
            self.schedule_at(at, Event::Connect { from: end, source, address, tries: CONNECT_TRIES });
        }
    }

    pub(super) fn connect_arrives(&mut self, from: End, source: Address, address: Address, tries: u8) {
        let Faults { refuse, slow_connect, .. } = self.faults;
        if self.find(from).is_none_or(|endpoint| endpoint.vanished) {
            return;
        }
        if self.unreachable.contains(&address) || self.is_off(&source, &address) {
            return self.repeat_connect(from, source, address, tries);
        }
        let listening: Vec<usize> =
            self.listeners.iter().filter(|(_, listener)| listener.address == address).map(|(key, _)| key).collect();
        let Some(&key) = self.random.pick(&listening) else {
            return self.refuse(from);
        };
        if self.occurs("refuse", from.index, refuse) {
            return self.refuse(from);
        }
        let full = self.listeners[key].queue.len() >= self.listeners[key].backlog;
        if full || self.occurs("slow_connect", from.index, slow_connect) {
            return self.repeat_connect(from, source, address, tries);
        }
        let silence_max = self.listeners[key].silence_max;
        let Some(endpoint) = self.find(from) else { return };
        let (link, hosts) = (endpoint.link.clone(), endpoint.hosts);
        let end = self.open(Owner::Nobody, source, link, silence_max);
        if let Some(endpoint) = self.find(end) {
            endpoint.hosts = hosts;
            endpoint.other = Some(from);
            endpoint.connected = true;
        }
        if let Some(endpoint) = self.find(from) {
            endpoint.other = Some(end);
        }
        self.note(Entry::Arrives { listener: key as u32, end });
        self.transmit(end, 0, |other| Event::Connected { to: other });
        self.listeners[key].queue.push_back(end);
        self.announce_listener(key);
    }

    /// Repeats a lost connection attempt, or gives it up.
    fn repeat_connect(&mut self, from: End, source: Address, address: Address, tries: u8) {
        match tries.checked_sub(1) {
            Some(tries) => self.schedule(CONNECT_RETRY, Event::Connect { from, source, address, tries }),
            None => self.fail(from, io::ErrorKind::TimedOut),
        }
    }

    fn refuse(&mut self, from: End) {
        self.note(Entry::Refused { end: from });
        self.schedule(Duration::from_micros(50), Event::Reset { to: from, kind: io::ErrorKind::ConnectionRefused });
    }

    pub(super) fn connected(&mut self, to: End) {
        let Some(endpoint) = self.find(to) else { return };
        endpoint.connected = true;
        self.announce(to);
        if let Some(Unsent { bytes, finish }) = self.unsent.remove(&to.index) {
            self.send(to, &bytes);
            if finish {
                self.shut_down_writing(to);
            }
        }
    }

    pub(in crate::sim) fn reserve_port(&mut self, mut address: SocketAddr) -> io::Result<SocketAddr> {
        let taken = |net: &Self, address: SocketAddr| {
            net.listeners.iter().any(|(_, listener)| listener.address == Address::Inet(address))
        };
        if address.port() == 0 {
            while address.port() == 0 || taken(self, address) {
                self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
                address.set_port(self.next_port);
            }
        } else if taken(self, address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(address)
    }

    pub(in crate::sim) fn bind(
        &mut self,
        address: &Address,
        shared: bool,
        backlog: i32,
        silence_max: Option<Duration>,
    ) -> io::Result<(u32, Address)> {
        let taken = self.listeners.iter().any(|(_, held)| held.address == *address && !(held.shared && shared));
        if taken {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let address = match address {
            Address::Inet(address) if address.port() == 0 => Address::Inet(self.reserve_port(*address)?),
            address => address.clone(),
        };
        self.take_descriptor()?;
        let key = self.listeners.insert(Listening {
            address: address.clone(),
            shared,
            poller: None,
            queue: VecDeque::new(),
            backlog: usize::try_from(backlog).unwrap_or(0).max(1),
            silence_max,
            listed: false,
        });
        Ok((key as u32, address))
    }

    pub(in crate::sim) fn listen(&mut self, key: u32, poller: u32, token: usize) {
        self.listeners[key as usize].poller = Some((poller, token));
        self.announce_listener(key as usize);
    }

    fn announce_listener(&mut self, key: usize) {
        let listener = &mut self.listeners[key];
        if let (Some((poller, _)), false) = (listener.poller, listener.listed) {
            listener.listed = true;
            self.pollers[poller as usize].ready.push(Source::Listener(key as u32));
        }
    }

    pub(in crate::sim) fn accept(&mut self, key: u32) -> io::Result<(End, Address)> {
        let listener = key;
        self.calls += 1;
        let accept_fails = self.faults.accept;
        if self.listeners[key as usize].queue.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.accepts_to_fail > 0 || self.occurs("accept", key, accept_fails) {
            self.accepts_to_fail = self.accepts_to_fail.saturating_sub(1);
            self.note(Entry::AcceptFails { listener });
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        if let Err(error) = self.take_descriptor() {
            self.note(Entry::AcceptFails { listener });
            return Err(error);
        }
        let Some(end) = self.listeners[key as usize].queue.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        self.note(Entry::Accepts { listener, end });
        let remote = self.find(end).map(|endpoint| endpoint.remote.clone());
        remote.map(|remote| (end, remote)).ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }

    pub(in crate::sim) fn close_listener(&mut self, key: u32) {
        self.descriptors -= 1;
        let listener = self.listeners.remove(key as usize);
        for end in listener.queue {
            self.close_unowned(end, true);
        }
    }

    /// Listens for the peers of a test.
    pub(in crate::sim) fn listen_for_peers(&mut self, address: &Address) -> io::Result<(u32, Address)> {
        let bound = self.bind(address, false, i32::MAX, None)?;
        self.descriptors -= 1;
        Ok(bound)
    }

    /// Accepts a connection from the queue of a test's listener.
    pub(in crate::sim) fn accept_for_peer(&mut self, key: u32) -> Option<End> {
        let end = self.listeners[key as usize].queue.pop_front()?;
        self.note(Entry::Accepts { listener: key, end });
        let endpoint = self.find(end)?;
        endpoint.owner = Owner::Peer;
        self.pay(end);
        Some(end)
    }

    pub(in crate::sim) fn close_peer_listener(&mut self, key: u32) {
        self.descriptors += 1;
        self.close_listener(key);
    }

    pub(super) fn take_descriptor(&mut self) -> io::Result<()> {
        if self.descriptors >= self.descriptors_max {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        self.descriptors += 1;
        Ok(())
    }

    /// Returns the number of sockets that loops have open.
    pub(in crate::sim) fn descriptors(&self) -> usize {
        self.descriptors
    }
}
