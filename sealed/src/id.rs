//! Ids of the objects that a loop owns. Each id is a slot and a serial number, so a stale id is
//! harmless.

use std::fmt;

/// Identifies a connection of one loop.
///
/// The id of a connection that is gone finds nothing, even if its slot has been reused: the serial
/// numbers of a loop repeat only after 4,294,967,296 connections. Ids are valid only on the loop
/// that issued them. The default value identifies no connection.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}#{}", self.slot, self.serial)
    }
}

/// Identifies a datagram socket of one loop. The id of a socket that has been closed finds nothing,
/// like that of a connection that is gone. The default value identifies no socket.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatagramId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

impl fmt::Debug for DatagramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "datagram socket {}#{}", self.slot, self.serial)
    }
}

/// Identifies a timer of one loop.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

impl fmt::Debug for TimerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timer {}#{}", self.slot, self.serial)
    }
}

/// Identifies a future that a loop runs for a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FutureId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

impl fmt::Debug for FutureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "future {}#{}", self.slot, self.serial)
    }
}

/// Identifies work that a service of one loop has passed to [`Workers`](crate::Workers).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

impl fmt::Debug for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "work {}#{}", self.slot, self.serial)
    }
}

/// Identifies a listener of one loop. Listeners are numbered from 0 in the order in which they were
/// added, so an address has the same number on every loop of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub(crate) u32);

impl ListenerId {
    /// Returns the number of the listener, from 0 in the order in which listeners were added.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Identifies a source of one service: see [`Context::add_source`](crate::Context::add_source).
///
/// The id of a source that is gone finds nothing, even if its slot has been reused: the serial
/// numbers of a service repeat only after 4,294,967,296 sources. The default value identifies no
/// source.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source {}#{}", self.slot, self.serial)
    }
}
