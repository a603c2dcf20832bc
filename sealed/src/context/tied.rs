//! What a service has begun and not got the result of: work on other threads, and futures. Each is
//! for a connection, with which it ends, or for none.

use std::collections::BTreeSet;

use slab::Slab;

use crate::id::ConnectionId;

/// Capacity up to which an empty table is kept.
const SPARE_MAX: usize = 64;

/// A table of objects, each with a slot and a serial number, some of which are tied to connections.
#[derive(Debug)]
pub(crate) struct Tied<T> {
    entries: Slab<Entry<T>>,
    /// The connections that objects are tied to, each with the slot of the object.
    ties: BTreeSet<(ConnectionId, u32)>,
}

#[derive(Debug)]
struct Entry<T> {
    serial: u32,
    connection: Option<ConnectionId>,
    object: T,
}

impl<T> Default for Tied<T> {
    fn default() -> Self {
        Self { entries: Slab::new(), ties: BTreeSet::new() }
    }
}

impl<T> Tied<T> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the slot that the next object gets.
    pub(crate) fn vacant_slot(&self) -> u32 {
        self.entries.vacant_key() as u32
    }

    pub(crate) fn insert(&mut self, serial: u32, connection: Option<ConnectionId>, object: T) {
        let slot = self.entries.insert(Entry { serial, connection, object }) as u32;
        if let Some(connection) = connection {
            self.ties.insert((connection, slot));
        }
    }

    /// Returns an object, and the connection that it is tied to.
    pub(crate) fn find(&mut self, slot: u32, serial: u32) -> Option<(&mut T, Option<ConnectionId>)> {
        let entry = self.entries.get_mut(slot as usize).filter(|entry| entry.serial == serial)?;
        Some((&mut entry.object, entry.connection))
    }

    /// Removes an object, and returns it with the connection that it was tied to.
    pub(crate) fn remove(&mut self, slot: u32, serial: u32) -> Option<(T, Option<ConnectionId>)> {
        self.find(slot, serial)?;
        let Entry { connection, object, .. } = self.entries.try_remove(slot as usize)?;
        if let Some(connection) = connection {
            self.ties.remove(&(connection, slot));
        }
        if self.entries.is_empty() && self.entries.capacity() > SPARE_MAX {
            self.entries = Slab::new();
        }
        Some((object, connection))
    }

    /// Removes one of the objects that are tied to a connection; `None` if there is none left.
    pub(crate) fn remove_one_of(&mut self, connection: ConnectionId) -> Option<T> {
        if self.ties.is_empty() {
            return None;
        }
        let (_, slot) = *self.ties.range((connection, 0)..=(connection, u32::MAX)).next()?;
        let serial = self.entries.get(slot as usize)?.serial;
        self.remove(slot, serial).map(|(object, _)| object)
    }
}
