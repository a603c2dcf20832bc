//! The simulated network itself: sockets, the data in transit between them, and the clock. It knows
//! nothing about loops.
//!
//! This file handles transmission and arrival; `listening.rs` makes connections, `sockets.rs` holds
//! the operations of loops on their sockets, `peers.rs` those of tests on their peers,
//! `datagrams.rs` holds datagram sockets, `descriptors.rs` those of other objects, `partitions.rs`
//! hosts that cannot reach each other, and `events.rs` what is going to happen.

mod datagrams;
#[cfg(unix)]
mod descriptors;
mod events;
mod listening;
mod partitions;
mod peers;
mod sockets;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

#[cfg(unix)]
pub(in crate::sim) use descriptors::DescriptorState;
pub(in crate::sim) use partitions::Hosts;
pub(in crate::sim) use peers::PeerState;

use events::{Event, Scheduled};

use super::occurrences::Occurrences;
#[cfg(unix)]
use super::trace::DescriptorId;
use super::trace::{End, Entry, PortId, Trace, digest_of};
use super::workers::Crews;
use super::{Faults, Link, Random};
use crate::address::Address;

/// Start of a simulation by the calendar clock, in seconds since 1970.
const START_S: u64 = 1_800_000_000;

pub(in crate::sim) struct Net {
    pub(in crate::sim) now: Duration,
    pub(in crate::sim) calendar_start: Duration,
    pub(in crate::sim) random: Random,
    pub(in crate::sim) faults: Faults,
    pub(in crate::sim) link: Arc<Link>,
    pub(in crate::sim) descriptors_max: usize,
    pub(in crate::sim) trace: Trace,
    /// Number of further accepts that fail regardless of chance.
    pub(in crate::sim) accepts_to_fail: u32,
    pub(in crate::sim) occurrences: Occurrences,
    /// Addresses that do not answer, even if there is a listener.
    pub(in crate::sim) unreachable: Vec<Address>,
    /// Whether the kernel is closing sockets on behalf of a killed loop.
    pub(in crate::sim) is_killing: bool,
    /// The loop whose code is running, innermost if it has interrupted another.
    pub(in crate::sim) running: Option<usize>,
    /// Number of calls that loops have made so far.
    pub(in crate::sim) calls: u64,
    pub(in crate::sim) crews: Crews,
    #[cfg(feature = "disk")]
    pub(in crate::sim) disks: Vec<super::disk::State>,
    /// The addresses of hosts, by name.
    pub(in crate::sim) names: BTreeMap<String, Vec<IpAddr>>,
    partitions: partitions::Partitions,
    endpoints: Slab<Endpoint>,
    listeners: Slab<Listening>,
    ports: Slab<datagrams::SimulatedPort>,
    #[cfg(unix)]
    foreign: Slab<descriptors::Descriptor>,
    pollers: Vec<Polling>,
    events: BinaryHeap<Reverse<Scheduled>>,
    /// Number of the events above that are in transit; the others are time limits.
    in_flight: usize,
    serial: u64,
    next_port: u16,
    descriptors: usize,
    /// Bytes that peers sent before they were connected. This is not a hash map because the size of
    /// a hash map would differ from run to run.
    unsent: BTreeMap<u32, Unsent>,
}

#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    finish: bool,
}

/// One end of a connection.
#[allow(clippy::struct_excessive_bools)] // independent facts, any of which may hold
struct Endpoint {
    serial: u32,
    /// The other end; `None` while connecting, and after the other end is gone.
    other: Option<End>,
    owner: Owner,
    remote: Address,
    /// The hosts of this end and the other; `None` for a Unix socket.
    hosts: Option<Hosts>,
    link: Arc<Link>,
    received: VecDeque<u8>,
    /// Number of bytes of `received` that have not been acknowledged.
    owed: usize,
    /// Number of bytes sent and not acknowledged.
    unacknowledged: usize,
    /// Arrival time of the last segment sent: the next segment must not overtake it.
    last_arrival: Duration,
    error: Option<io::ErrorKind>,
    silence_max: Option<Duration>,
    connected: bool,
    fin_sent: bool,
    /// Close with a reset.
    resets: bool,
    fin_received: bool,
    vanished: bool,
    /// The end is in the ready list of its poller.
    listed: bool,
    /// A peer that does not read for now.
    stalled: bool,
    /// A peer that discards its input and only counts it.
    discards: bool,
    count_received: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// In a listener's queue, or not registered yet.
    Nobody,
    Poller {
        poller: u32,
        token: usize,
    },
    /// A peer of the test.
    Peer,
}

struct Listening {
    address: Address,
    shared: bool,
    poller: Option<(u32, usize)>,
    queue: VecDeque<End>,
    backlog: usize,
    silence_max: Option<Duration>,
    listed: bool,
}

#[derive(Default)]
struct Polling {
    ready: Vec<Source>,
    woken: Option<usize>,
}

#[derive(Clone, Copy)]
enum Source {
    Endpoint(End),
    Listener(u32),
    Port(PortId),
    #[cfg(unix)]
    Descriptor(DescriptorId),
}

impl Endpoint {
    /// Returns the host of this end; `None` for a Unix socket.
    fn local_host(&self) -> Option<IpAddr> {
        let remote = self.remote.inet()?.ip();
        self.hosts.map(|(one, other)| if one == remote { other } else { one })
    }
}

impl Net {
    pub(in crate::sim) fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            calendar_start: Duration::from_secs(START_S),
            random: Random::new(seed),
            faults: Faults::default(),
            link: Arc::new(Link::default()),
            descriptors_max: usize::MAX,
            trace: Trace::default(),
            accepts_to_fail: 0,
            occurrences: Occurrences::default(),
            unreachable: Vec::new(),
            is_killing: false,
            running: None,
            calls: 0,
            crews: Crews::default(),
            #[cfg(feature = "disk")]
            disks: Vec::new(),
            names: BTreeMap::new(),
            partitions: partitions::Partitions::default(),
            endpoints: Slab::new(),
            listeners: Slab::new(),
            ports: Slab::new(),
            #[cfg(unix)]
            foreign: Slab::new(),
            pollers: Vec::new(),
            events: BinaryHeap::new(),
            in_flight: 0,
            serial: 0,
            next_port: 40_000,
            descriptors: 0,
            unsent: BTreeMap::new(),
        }
    }

    /// Returns the index of the running loop; 0 outside of loops.
    pub(in crate::sim) fn running_index(&self) -> u32 {
        self.running.unwrap_or(0) as u32
    }

    pub(in crate::sim) fn note(&mut self, entry: Entry) {
        self.trace.note(self.now, entry);
    }

    /// Returns the time at which something happens next.
    pub(in crate::sim) fn next_time(&self) -> Option<Duration> {
        self.next_event().into_iter().chain(self.crews.next_time()).min()
    }

    /// Returns the time of the next event.
    pub(in crate::sim) fn next_event(&self) -> Option<Duration> {
        self.events.peek().map(|Reverse(scheduled)| scheduled.at)
    }

    /// Returns whether nothing is in transit, and no work is being done.
    pub(in crate::sim) fn is_quiet(&self) -> bool {
        self.in_flight == 0 && self.crews.next_time().is_none()
    }

    /// Executes the next event if its time has come.
    pub(in crate::sim) fn happen(&mut self) -> bool {
        if self.next_event().is_none_or(|at| at > self.now) {
            return false;
        }
        let Some(Reverse(Scheduled { serial, event, .. })) = self.events.pop() else { return false };
        if !event.is_limit() {
            self.in_flight -= 1;
        }
        let Some(event) = self.hold_up(serial, event) else { return true };
        match event {
            Event::Data { from, to, bytes } => self.data(from, to, &bytes),
            Event::Fin { to } => self.fin(to),
            Event::Reset { to, kind } => self.fail(to, kind),
            Event::Acknowledge { to, count } => self.acknowledge(to, count),
            Event::Connect { from, source, address, tries } => self.connect_arrives(from, source, address, tries),
            Event::Connected { to } => self.connected(to),
            Event::Announce { to } => self.announce(to),
            Event::Datagram(transit) => self.datagram_arrives(transit),
            Event::PortSent { to, count } => self.port_sent(to, count),
            Event::PortRefused { to } => self.port_refused(to),
            Event::AnnouncePort { to } => self.announce_port(to),
            #[cfg(unix)]
            Event::AnnounceDescriptor { to, is_spurious } => self.announce_descriptor(to, is_spurious),
            Event::Wake { poller, token } => self.wake_now(poller, token),
            Event::GiveUp { to } => self.fail(to, io::ErrorKind::TimedOut),
            Event::CutOff { to, hosts, number } => self.cut_off(to, hosts, number),
        }
        true
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.schedule_at(self.now + delay, event);
    }

    fn schedule_at(&mut self, at: Duration, event: Event) {
        self.serial += 1;
        self.schedule_as(self.serial, at, event);
    }

    /// Schedules an event with a serial number, which determines the order of simultaneous events.
    fn schedule_as(&mut self, serial: u64, at: Duration, event: Event) {
        if !event.is_limit() {
            self.in_flight += 1;
        }
        self.events.push(Reverse(Scheduled { at, serial, event }));
    }

    fn fault_delay(&mut self) -> Duration {
        let longest = self.faults.delay_max;
        self.random.time(longest)
    }

    fn find(&mut self, end: End) -> Option<&mut Endpoint> {
        self.endpoints.get_mut(end.index as usize).filter(|endpoint| endpoint.serial == end.serial)
    }

    fn open(&mut self, owner: Owner, remote: Address, link: Arc<Link>, silence_max: Option<Duration>) -> End {
        self.serial += 1;
        let serial = self.serial as u32;
        let index = self.endpoints.insert(Endpoint {
            serial,
            other: None,
            owner,
            remote,
            hosts: None,
            link,
            received: VecDeque::new(),
            owed: 0,
            unacknowledged: 0,
            last_arrival: Duration::ZERO,
            error: None,
            silence_max,
            connected: false,
            fin_sent: false,
            resets: false,
            fin_received: false,
            vanished: false,
            listed: false,
            stalled: false,
            discards: false,
            count_received: 0,
        });
        End { index: index as u32, serial }
    }

    /// Returns when bytes sent from an end now arrive, after everything sent before.
    fn arrival(&mut self, from: End, bytes: usize) -> Option<Duration> {
        let now = self.now;
        let endpoint = self.find(from)?;
        let link = endpoint.link.clone();
        let earliest = endpoint.last_arrival;
        let (shortest, longest) = (link.latency_min.as_nanos() as u64, link.latency_max.as_nanos() as u64);
        let latency = Duration::from_nanos(self.random.within(shortest..=longest.max(shortest)));
        let nanos = link.bandwidth.map_or(0, |bandwidth| bytes as u64 * 1_000_000_000 / bandwidth.max(1));
        let at = (now + latency).max(earliest) + Duration::from_nanos(nanos);
        self.find(from)?.last_arrival = at;
        Some(at)
    }

    /// Sends an event from one end to the other, in order, unless one of the ends is cut off.
    fn transmit(&mut self, from: End, bytes: usize, event: impl FnOnce(End) -> Event) {
        let Some(endpoint) = self.find(from) else { return };
        let Some(other) = endpoint.other else { return };
        if endpoint.vanished {
            return;
        }
        if let Some(at) = self.arrival(from, bytes) {
            self.schedule_at(at, event(other));
        }
    }

    fn data(&mut self, from: End, to: End, bytes: &[u8]) {
        let Faults { reset, vanish, .. } = self.faults;
        let Some(endpoint) = self.find(to) else {
            // The receiver is gone; its kernel answers with a reset.
            return self
                .schedule(Duration::from_micros(20), Event::Reset { to: from, kind: io::ErrorKind::ConnectionReset });
        };
        if endpoint.vanished || endpoint.error.is_some() {
            return;
        }
        let is_peer = endpoint.owner == Owner::Peer;
        if self.occurs("reset", to.index, reset) {
            self.fail(to, io::ErrorKind::ConnectionReset);
            return self.fail(from, io::ErrorKind::ConnectionReset);
        }
        if is_peer && self.occurs("vanish", to.index, vanish) {
            return self.vanish(to);
        }
        self.note(Entry::Receives { end: to, count: bytes.len(), digest: digest_of(bytes) });
        let Some(endpoint) = self.find(to) else { return };
        endpoint.count_received += bytes.len() as u64;
        endpoint.owed += bytes.len();
        if !endpoint.discards {
            endpoint.received.extend(bytes);
        }
        if is_peer && !endpoint.stalled {
            self.pay(to);
        }
        self.announce(to);
    }

    /// Acknowledges the bytes that an end has read.
    pub(super) fn pay(&mut self, end: End) {
        let Some(endpoint) = self.find(end) else { return };
        let count = std::mem::take(&mut endpoint.owed);
        if count > 0 {
            self.transmit(end, 0, |other| Event::Acknowledge { to: other, count });
        }
    }

    fn acknowledge(&mut self, to: End, count: usize) {
        let Some(endpoint) = self.find(to).filter(|endpoint| !endpoint.vanished) else { return };
        endpoint.unacknowledged = endpoint.unacknowledged.saturating_sub(count);
        self.announce(to);
    }

    fn fin(&mut self, to: End) {
        let there = |endpoint: &&mut Endpoint| !endpoint.vanished && endpoint.error.is_none();
        let Some(endpoint) = self.find(to).filter(there) else { return };
        endpoint.fin_received = true;
        self.note(Entry::Ends { end: to });
        self.announce(to);
    }

    fn fail(&mut self, to: End, kind: io::ErrorKind) {
        let Some(endpoint) = self.find(to).filter(|endpoint| !endpoint.vanished) else { return };
        if endpoint.error.is_some() {
            return;
        }
        endpoint.error = Some(kind);
        // Systems differ in whether bytes that came before a reset can still be read.
        let of_loop = matches!(endpoint.owner, Owner::Poller { .. });
        if of_loop
            && self.random.chance(0.5)
            && let Some(endpoint) = self.find(to)
        {
            endpoint.received.clear();
        }
        self.note(Entry::Fails { end: to, kind });
        self.announce(to);
    }

    /// Adds an end to the ready list of its poller.
    fn announce(&mut self, end: End) {
        let Some(endpoint) = self.find(end) else { return };
        let Owner::Poller { poller, .. } = endpoint.owner else { return };
        if !endpoint.listed {
            endpoint.listed = true;
            self.pollers[poller as usize].ready.push(Source::Endpoint(end));
        }
    }
}
