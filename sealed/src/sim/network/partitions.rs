//! Partitions: hosts that cannot reach each other for a while.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::{Event, Net};
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

    /// Returns whether a datagram cannot reach its receiver.
    pub(super) fn is_parted(&self, one: &Address, other: &Address) -> bool {
        let open = &self.partitions.open;
        !open.is_empty() && hosts_of(one, other).is_some_and(|hosts| open.contains_key(&hosts))
    }

    /// Keeps an event that a partition holds up. Returns the others.
    pub(super) fn hold_up(&mut self, serial: u64, event: Event) -> Option<Event> {
        if self.partitions.open.is_empty() || fault!("partition-leaks") {
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
