//! Hosts that cannot reach each other for a while (partitions), and hosts without power.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use super::{Endpoint, Event, Net};
use crate::address::Address;
use crate::sim::trace::{End, Entry};

/// Two hosts, in the order of their addresses.
pub(in crate::sim) type Hosts = (IpAddr, IpAddr);

/// The hosts that cannot reach each other, and what waits until they can.
#[derive(Default)]
pub(in crate::sim) struct Partitions {
    /// Each partition with its number.
    open: BTreeMap<Hosts, u64>,
    /// What streams have sent, in order, each with its serial number.
    held: Vec<(Hosts, u64, Event)>,
    /// The hosts without power.
    off: BTreeSet<IpAddr>,
}

impl Partitions {
    fn is_off(&self, (one, other): Hosts) -> bool {
        self.off.contains(&one) || self.off.contains(&other)
    }
}

/// Returns the hosts at the ends of a connection; `None` for Unix sockets.
pub(super) fn hosts_of(one: &Address, other: &Address) -> Option<Hosts> {
    Some(ordered(one.inet()?.ip(), other.inet()?.ip()))
}

fn ordered(one: IpAddr, other: IpAddr) -> Hosts {
    (one.min(other), one.max(other))
}

impl Net {
    /// Cuts two hosts off from each other. The kernel of an end that has a limit for silence gives
    /// up after it.
    pub(in crate::sim) fn partition(&mut self, one: IpAddr, other: IpAddr) {
        let hosts = ordered(one, other);
        if self.partitions.open.contains_key(&hosts) {
            return;
        }
        self.note(Entry::Parts { hosts });
        self.serial += 1;
        let number = self.serial;
        self.partitions.open.insert(hosts, number);
        let cut_off = self.endpoints.iter().filter(|(_, endpoint)| endpoint.hosts == Some(hosts));
        let limits = cut_off.filter_map(|(index, endpoint)| {
            Some((End { index: index as u32, serial: endpoint.serial }, endpoint.silence_max?))
        });
        for (to, silence_max) in limits.collect::<Vec<_>>() {
            self.schedule(silence_max, Event::CutOff { to, hosts, number });
        }
    }

    /// Ends a partition. What was sent meanwhile arrives, in order.
    pub(in crate::sim) fn heal(&mut self, one: IpAddr, other: IpAddr) {
        let hosts = ordered(one, other);
        if self.partitions.open.remove(&hosts).is_none() {
            return;
        }
        if fault!("healing-ends-all-partitions") {
            self.partitions.open.clear();
        }
        self.note(Entry::Heals { hosts });
        for (parted, serial, event) in std::mem::take(&mut self.partitions.held) {
            if parted == hosts {
                // With its old number, it comes before what is due now and was sent later.
                let serial = if fault!("healed-out-of-order") { self.serial } else { serial };
                self.schedule_as(serial, self.now, event);
            } else {
                self.partitions.held.push((parted, serial, event));
            }
        }
    }

    /// Cuts the power of a host. Its ends of connections are gone without a word to the others.
    pub(in crate::sim) fn power_off(&mut self, host: IpAddr) {
        if !self.partitions.off.insert(host) {
            return;
        }
        self.note(Entry::PowersOff { host });
        let is_there = |endpoint: &Endpoint| endpoint.local_host() == Some(host);
        let ends = self.endpoints.iter().filter(|(_, endpoint)| is_there(endpoint));
        let ends = ends.map(|(index, endpoint)| End { index: index as u32, serial: endpoint.serial });
        for end in ends.collect::<Vec<_>>() {
            self.vanish(end);
        }
    }

    /// Gives a host its power back. It knows nothing of earlier connections.
    pub(in crate::sim) fn power_on(&mut self, host: IpAddr) {
        if self.partitions.off.remove(&host) {
            self.note(Entry::PowersOn { host });
        }
    }

    /// Returns whether one of these hosts has no power.
    pub(super) fn is_off(&self, one: &Address, other: &Address) -> bool {
        hosts_of(one, other).is_some_and(|hosts| self.partitions.is_off(hosts))
    }

    /// Returns whether a datagram cannot reach its receiver.
    pub(super) fn is_parted(&self, one: &Address, other: &Address) -> bool {
        let open = &self.partitions.open;
        self.is_off(one, other)
            || !open.is_empty() && hosts_of(one, other).is_some_and(|hosts| open.contains_key(&hosts))
    }

    /// Keeps an event that a partition holds up, and drops one that a host without power would have
    /// sent or received. Returns the others.
    pub(super) fn hold_up(&mut self, serial: u64, event: Event) -> Option<Event> {
        let is_whole = self.partitions.open.is_empty() && self.partitions.off.is_empty();
        if is_whole || fault!("partition-leaks") {
            return Some(event);
        }
        let (one, other) = match event {
            Event::Data { from, to, .. } => (to, Some(from)),
            Event::Fin { to } | Event::Reset { to, .. } | Event::Acknowledge { to, .. } | Event::Connected { to } => {
                (to, None)
            }
            Event::Connect { from, .. } => (from, None),
            _ => return Some(event),
        };
        let mut ends = std::iter::once(one).chain(other);
        let hosts = ends.find_map(|end| self.find(end)?.hosts);
        let is_attempt = matches!(event, Event::Connect { .. });
        if hosts.is_some_and(|hosts| self.partitions.is_off(hosts))
            && !is_attempt
            && !fault!("host-answers-without-power")
        {
            return None;
        }
        match hosts.filter(|hosts| self.partitions.open.contains_key(hosts)) {
            Some(hosts) => self.partitions.held.push((hosts, serial, event)),
            None => return Some(event),
        }
        None
    }

    /// Gives up on a connection that was cut off, if it still is.
    pub(super) fn cut_off(&mut self, to: End, hosts: Hosts, number: u64) {
        if self.partitions.open.get(&hosts) == Some(&number) {
            self.fail(to, io::ErrorKind::TimedOut);
        }
    }
}
