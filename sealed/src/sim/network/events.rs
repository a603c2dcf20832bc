//! What is going to happen on the network, and when.

use std::io;
use std::time::Duration;

use super::datagrams::Transit;
use super::partitions::Hosts;
use crate::address::Address;
#[cfg(unix)]
use crate::sim::trace::DescriptorId;
use crate::sim::trace::{End, PortId};

pub(super) struct Scheduled {
    pub(super) at: Duration,
    pub(super) serial: u64,
    pub(super) event: Event,
}

pub(super) enum Event {
    Data {
        from: End,
        to: End,
        bytes: Box<[u8]>,
    },
    Fin {
        to: End,
    },
    Reset {
        to: End,
        kind: io::ErrorKind,
    },
    Acknowledge {
        to: End,
        count: usize,
    },
    Connect {
        from: End,
        source: Address,
        address: Address,
        tries: u8,
    },
    Connected {
        to: End,
    },
    /// Readiness is reported again: what a fault held back is available now.
    Announce {
        to: End,
    },
    Datagram(Transit),
    /// The network has transmitted a datagram, which makes room in the buffer of its sender.
    PortSent {
        to: PortId,
        count: usize,
    },
    /// A connected datagram socket learns that its peer does not exist.
    PortRefused {
        to: PortId,
    },
    AnnouncePort {
        to: PortId,
    },
    /// The readiness of a descriptor is reported, late; or a readiness that it does not have.
    #[cfg(unix)]
    AnnounceDescriptor {
        to: DescriptorId,
        is_spurious: bool,
    },
    Wake {
        poller: u32,
        token: usize,
    },
    /// The kernel gives up on a peer that fell silent. This is a time limit, not in transit.
    GiveUp {
        to: End,
    },
    /// The same for a connection that a partition has cut off, if the partition still exists.
    CutOff {
        to: End,
        hosts: Hosts,
        number: u64,
    },
}

impl Event {
    /// Returns whether this is a time limit, and not in transit.
    pub(super) fn is_limit(&self) -> bool {
        matches!(self, Self::GiveUp { .. } | Self::CutOff { .. })
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}
