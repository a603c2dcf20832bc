use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

#[cfg(unix)]
use super::network::DescriptorState;
use super::network::Hosts;

/// Default number of entries kept, the newest ones.
const KEPT_MAX: usize = 4_096;

/// The trace of a simulation: a digest of all events, and the newest entries.
#[derive(Debug)]
pub(super) struct Trace {
    digest: u64,
    count: u64,
    pub(super) kept_max: usize,
    kept: VecDeque<(Duration, Entry)>,
}

/// An end of a connection, as the trace names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct End {
    pub(super) index: u32,
    pub(super) serial: u32,
}

/// A datagram socket, as the trace names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PortId {
    pub(super) index: u32,
    pub(super) serial: u32,
}

/// The descriptor of a test's object, as the trace names it.
#[cfg(unix)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DescriptorId {
    pub(super) index: u32,
    pub(super) serial: u32,
}

/// Why a datagram is lost.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) enum Lost {
    OnTheWay,
    Nobody,
    BufferFull,
}

#[derive(Debug, Hash)]
pub(super) enum Entry {
    Turn {
        node: usize,
    },
    Ended {
        node: usize,
    },
    Connects {
        end: End,
    },
    Refused {
        end: End,
    },
    Arrives {
        listener: u32,
        end: End,
    },
    Accepts {
        listener: u32,
        end: End,
    },
    AcceptFails {
        listener: u32,
    },
    Reads {
        end: End,
        room: usize,
        count: usize,
    },
    Writes {
        end: End,
        offered: usize,
        count: usize,
    },
    WouldBlock {
        end: End,
        reading: bool,
    },
    Receives {
        end: End,
        count: usize,
        digest: u64,
    },
    Ends {
        end: End,
    },
    Fails {
        end: End,
        kind: io::ErrorKind,
    },
    Closes {
        end: End,
        reset: bool,
    },
    Vanishes {
        end: End,
    },
    Parts {
        hosts: Hosts,
    },
    Heals {
        hosts: Hosts,
    },
    PowersOff {
        host: IpAddr,
    },
    PowersOn {
        host: IpAddr,
    },
    Opens {
        port: PortId,
    },
    Sends {
        port: PortId,
        count: usize,
        digest: u64,
    },
    PortBlocks {
        port: PortId,
    },
    Loses {
        port: PortId,
        why: Lost,
    },
    Delivers {
        port: PortId,
        count: usize,
        digest: u64,
    },
    Takes {
        port: PortId,
        count: usize,
    },
    PortRefused {
        port: PortId,
    },
    ClosesPort {
        port: PortId,
    },
    #[cfg(unix)]
    Becomes {
        descriptor: DescriptorId,
        state: DescriptorState,
    },
    #[cfg(unix)]
    Reports {
        descriptor: DescriptorId,
        state: DescriptorState,
    },
    Wakes {
        poller: usize,
    },
    Interleaves,
    Stalls {
        node: usize,
    },
    Jumps {
        by: Duration,
    },
    Spends {
        time: Duration,
    },
    StartsWork {
        crew: usize,
        ticket: u64,
    },
    EndsWork {
        crew: usize,
        ticket: u64,
    },
    #[cfg(feature = "disk")]
    Disk {
        disk: u32,
        did: super::disk::Did,
    },
    Fault {
        number: u64,
        name: &'static str,
    },
    Says {
        text: String,
    },
    Remarks {
        node: Option<usize>,
        text: String,
    },
}

impl Default for Trace {
    fn default() -> Self {
        Self { digest: 0, count: 0, kept_max: KEPT_MAX, kept: VecDeque::new() }
    }
}

impl Trace {
    pub(super) fn note(&mut self, now: Duration, entry: Entry) {
        let mut hasher = DefaultHasher::new();
        (self.digest, now, &entry).hash(&mut hasher);
        self.digest = hasher.finish();
        self.count += 1;
        if self.kept.len() >= self.kept_max {
            self.kept.pop_front();
        }
        self.kept.push_back((now, entry));
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns the newest entries, one per line.
    pub(super) fn text(&self, entries_max: usize) -> String {
        let mut text = String::new();
        let shown = self.kept.len().min(entries_max);
        let earlier = self.count - shown as u64;
        if earlier > 0 {
            text = format!("({earlier} earlier entries)\n");
        }
        for (now, entry) in self.kept.iter().skip(self.kept.len() - shown) {
            let _ = writeln!(text, "{:>14.6} s  {entry}", now.as_secs_f64());
        }
        text
    }
}

pub(super) fn digest_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "end {}#{}", self.index, self.serial)
    }
}

impl fmt::Debug for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}#{}", self.index, self.serial)
    }
}

#[cfg(unix)]
impl fmt::Debug for DescriptorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {}#{}", self.index, self.serial)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn { node } => write!(f, "loop {node} turns"),
            Self::Ended { node } => write!(f, "loop {node} has ended"),
            Self::Connects { end } => write!(f, "{end:?} connects"),
            Self::Refused { end } => write!(f, "{end:?} is refused"),
            Self::Arrives { listener, end } => write!(f, "{end:?} waits at listener {listener}"),
            Self::Accepts { listener, end } => write!(f, "listener {listener} accepts {end:?}"),
            Self::AcceptFails { listener } => write!(f, "listener {listener} fails to accept"),
            Self::Reads { end, room, count } => write!(f, "{end:?} reads {count}, with room for {room}"),
            Self::Writes { end, offered, count } => write!(f, "{end:?} writes {count} of {offered}"),
            Self::WouldBlock { end, reading: true } => write!(f, "{end:?} has nothing to read"),
            Self::WouldBlock { end, reading: false } => write!(f, "{end:?} cannot write"),
            Self::Receives { end, count, .. } => write!(f, "{end:?} receives {count}"),
            Self::Ends { end } => write!(f, "{end:?} hears the end"),
            Self::Fails { end, kind } => write!(f, "{end:?} fails: {kind}"),
            Self::Closes { end, reset: false } => write!(f, "{end:?} closes"),
            Self::Closes { end, reset: true } => write!(f, "{end:?} closes, with a reset"),
            Self::Vanishes { end } => write!(f, "{end:?} falls silent"),
            Self::Parts { hosts: (one, other) } => write!(f, "{one} and {other} are cut off from each other"),
            Self::Heals { hosts: (one, other) } => write!(f, "{one} and {other} reach each other again"),
            Self::PowersOff { host } => write!(f, "{host} loses its power"),
            Self::PowersOn { host } => write!(f, "{host} has power again"),
            Self::Opens { port } => write!(f, "{port:?} opens"),
            Self::Sends { port, count, .. } => write!(f, "{port:?} sends a datagram of {count}"),
            Self::PortBlocks { port } => write!(f, "{port:?} would block"),
            Self::Loses { port, why: Lost::OnTheWay } => write!(f, "  the datagram of {port:?} is lost"),
            Self::Loses { port, why: Lost::Nobody } => write!(f, "a datagram of {port:?} reaches nobody"),
            Self::Loses { port, why: Lost::BufferFull } => write!(f, "{port:?} has no room for a datagram"),
            Self::Delivers { port, count, .. } => write!(f, "a datagram of {count} arrives at {port:?}"),
            Self::Takes { port, count } => write!(f, "{port:?} receives a datagram of {count}"),
            Self::PortRefused { port } => write!(f, "{port:?} is refused"),
            Self::ClosesPort { port } => write!(f, "{port:?} closes"),
            #[cfg(unix)]
            Self::Becomes { descriptor, state } => write!(f, "{descriptor:?} becomes {state}"),
            #[cfg(unix)]
            Self::Reports { descriptor, state } => write!(f, "{descriptor:?} is reported as {state}"),
            Self::Wakes { poller } => write!(f, "loop {poller} is woken"),
            Self::Interleaves => write!(f, "  others run in between"),
            Self::Stalls { node } => write!(f, "loop {node} stalls"),
            Self::Jumps { by } => write!(f, "the clock jumps {by:?} ahead"),
            Self::Spends { time } => write!(f, "  its tick takes {time:?} more"),
            Self::StartsWork { crew, ticket } => write!(f, "workers {crew} start work {ticket}"),
            Self::EndsWork { crew, ticket } => write!(f, "workers {crew} end work {ticket}"),
            #[cfg(feature = "disk")]
            Self::Disk { disk, did } => write!(f, "disk {disk}: {did}"),
            Self::Fault { number, name } => write!(f, "fault {number}: {name}"),
            Self::Says { text } | Self::Remarks { node: None, text } => write!(f, "-- {text}"),
            Self::Remarks { node: Some(node), text } => write!(f, "-- loop {node}: {text}"),
        }
    }
}
