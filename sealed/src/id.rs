//! Names for what a loop owns. Each is a slot and a serial number, so that a stale one is harmless.

use std::fmt;

/// Names a connection of one loop.
///
/// An id whose connection is gone finds nothing, even where its slot has been given to another: serial numbers of
/// a loop repeat only after 4,294,967,296 connections. Ids of one loop mean nothing to another. The default names none.
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

/// Names a timer of one loop.
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

/// Names a listener of one loop. Listeners are numbered from 0 in the order in which they were added, so that
/// every loop of a pool has the same number for the same address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub(crate) u32);

impl ListenerId {
    /// Its number, from 0 in the order in which listeners were added.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
