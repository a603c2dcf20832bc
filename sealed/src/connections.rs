//! The connections of a service: their slots and deadlines, what is to be done for them in this
//! tick, and the buffers that they borrow.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use slab::Slab;

use crate::buffers::{Buffers, Extras, Spares};
use crate::config::Config;
use crate::error::CloseReason;
use crate::id::ConnectionId;
use crate::net::Stream;
use crate::shrink::Shrink;
use crate::slot::{Flags, Slot};
use crate::wheel::{self, Nodes, Wheel};

/// The owner of a service's connections.
///
/// The loop addresses a connection by its index, which is valid while the slot is occupied. The
/// service addresses it by its id, which may be stale.
#[derive(Debug)]
pub(crate) struct Connections<C> {
    slots: Slots<C>,
    deadlines: Wheel,
    /// Linger times of the connections that have their own.
    lingers: BTreeMap<ConnectionId, Duration>,
    linger: Duration,
    to_read: Vec<u32>,
    to_flush: Vec<u32>,
    /// The connections that end in this tick, each once.
    closing: Vec<(u32, CloseReason)>,
    pub(crate) spares: Spares,
    shrink: Shrink,
}

#[derive(Debug)]
struct Slots<C>(Slab<Slot<C>>);

impl<C> Connections<C> {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            slots: Slots(Slab::new()),
            deadlines: Wheel::default(),
            lingers: BTreeMap::new(),
            linger: config.linger,
            to_read: Vec::new(),
            to_flush: Vec::new(),
            closing: Vec::new(),
            spares: Spares::new(config.pooled_buffers_max, config.pooled_buffer_bytes_max),
            shrink: Shrink::default(),
        }
    }

    /// Returns the number of connections, including those that are being made or are ending.
    pub(crate) fn len(&self) -> usize {
        self.slots.0.len()
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<&Slot<C>> {
        self.get(id.slot).filter(|slot| fault!("generation-not-checked") || slot.serial == id.serial)
    }

    pub(crate) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Slot<C>> {
        self.get_mut(id.slot).filter(|slot| slot.serial == id.serial)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Slot<C>> {
        self.slots.0.get(index as usize)
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Slot<C>> {
        self.slots.0.get_mut(index as usize)
    }

    pub(crate) fn id_at(&self, index: u32) -> ConnectionId {
        ConnectionId { slot: index, serial: self[index].serial }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Slot<C>)> {
        self.slots.0.iter().map(|(index, slot)| (index as u32, slot))
    }

    /// Returns the index that the next inserted slot gets.
    pub(crate) fn next_index(&self) -> usize {
        self.slots.0.vacant_key()
    }

    /// Allocates the slot of a connection; its socket may be added later.
    pub(crate) fn insert(&mut self, stream: Stream, serial: u32, flags: Flags, state: C) -> ConnectionId {
        let index = self.slots.0.insert(Slot::new(stream, serial, flags, state)) as u32;
        ConnectionId { slot: index, serial }
    }

    /// Frees the slot of a connection. If its buffers are of no more use, give them to the
    /// [spares](Self::spares).
    pub(crate) fn remove(&mut self, index: u32) -> Slot<C> {
        let slot = self.slots.0.remove(index as usize);
        if !self.lingers.is_empty() {
            self.lingers.remove(&ConnectionId { slot: index, serial: slot.serial });
        }
        slot
    }

    /// Schedules a connection to be read in this tick, or in the next if this tick has already
    /// read.
    pub(crate) fn will_read(&mut self, index: u32) {
        if self[index].raise(Flags::TO_READ) {
            self.to_read.push(index);
        }
    }

    /// Schedules the queued output of a connection to be sent at the end of the tick.
    pub(crate) fn will_flush(&mut self, index: u32) {
        if self[index].raise(Flags::TO_FLUSH) {
            self.to_flush.push(index);
        }
    }

    /// Returns the connections that are scheduled to be read, and continues with an empty list.
    pub(crate) fn take_to_read(&mut self, empty: Vec<u32>) -> Vec<u32> {
        std::mem::replace(&mut self.to_read, empty)
    }

    /// Returns the connections that are scheduled to be flushed, and continues with an empty list.
    pub(crate) fn take_to_flush(&mut self, empty: Vec<u32>) -> Vec<u32> {
        std::mem::replace(&mut self.to_flush, empty)
    }

    /// Returns whether a connection is scheduled to be read, flushed or ended.
    pub(crate) fn has_work(&self) -> bool {
        !self.to_read.is_empty() || !self.to_flush.is_empty() || !self.closing.is_empty()
    }

    /// Sets the deadline of a connection, in place of an earlier one.
    pub(crate) fn set_deadline(&mut self, index: u32, now: Duration, delay: Duration) {
        self.deadlines.arm(&mut self.slots, index, now, delay);
    }

    pub(crate) fn clear_deadline(&mut self, index: u32) {
        self.deadlines.cancel(&mut self.slots, index);
    }

    /// Returns the time from `now` until the deadline of a connection.
    pub(crate) fn deadline(&self, index: u32, now: Duration) -> Option<Duration> {
        self.deadlines.left(&self[index].deadline, now)
    }

    /// Removes and returns one deadline that has passed. Call again until it returns `None`.
    pub(crate) fn next_expired(&mut self, now: Duration) -> Option<u32> {
        self.deadlines.expire(&mut self.slots, now)
    }

    /// Returns the time from `now` until the deadlines have to be checked.
    pub(crate) fn next_wait(&self, now: Duration) -> Option<Duration> {
        self.deadlines.next_wait(now)
    }

    /// Gives a connection a linger time of its own.
    pub(crate) fn set_linger(&mut self, id: ConnectionId, linger: Duration) {
        self.lingers.insert(id, linger);
    }

    /// Sets the time after which a closed connection ends if its peer has accepted no output.
    pub(crate) fn arm_linger(&mut self, index: u32, now: Duration) {
        let own = if self.lingers.is_empty() { None } else { self.lingers.get(&self.id_at(index)).copied() };
        self.set_deadline(index, now, own.unwrap_or(self.linger));
    }

    /// Ends a connection at the end of this tick. The first reason given is reported, unless output
    /// is lost: then the peer sees a reset, and the service gets the reason that cut the output
    /// off.
    pub(crate) fn end_now(&mut self, index: u32, reason: CloseReason) {
        let slot = &mut self[index];
        if slot.is(Flags::CLOSING) {
            return;
        }
        let loses_output =
            slot.has_unsent() || reason == CloseReason::OutputFull && !fault!("overfull-queue-lost-silently");
        if loses_output && !fault!("output-lost-silently") {
            slot.stream.reset_on_close();
        }
        let tells_loss = loses_output && !fault!("lost-output-reported-closed");
        let reason = if slot.is(Flags::FINISHING) && !tells_loss { slot.finish_reason() } else { reason };
        slot.set(Flags::CLOSING);
        self.closing.push((index, reason));
        if !fault!("deadline-outlives-connection") {
            self.clear_deadline(index);
        }
    }

    /// Returns an entry of the list of connections that end in this tick, which may become longer
    /// meanwhile.
    pub(crate) fn closing_at(&self, position: usize) -> Option<(u32, CloseReason)> {
        self.closing.get(position).copied()
    }

    /// Returns the list of connections that end in this tick, to free their slots.
    pub(crate) fn take_closing(&mut self) -> Vec<(u32, CloseReason)> {
        std::mem::take(&mut self.closing)
    }

    /// Removes freed slots from the lists, and keeps the memory of `closing` for the next tick. The
    /// lists are short, and in most ticks no connection ends.
    pub(crate) fn forget_freed(&mut self, mut closing: Vec<(u32, CloseReason)>) {
        let Slots(slots) = &self.slots;
        self.to_read.retain(|index| slots.contains(*index as usize));
        self.to_flush.retain(|index| slots.contains(*index as usize));
        closing.clear();
        closing.shrink_to(64);
        self.closing = closing;
    }

    /// Releases memory once connections use little of it. Returns whether they do.
    pub(crate) fn shrink(&mut self, freed: usize) -> bool {
        let (used, capacity) = (self.len(), self.slots.0.capacity());
        if !self.shrink.is_due(freed, used, capacity) {
            return false;
        }
        if used == 0 {
            self.slots.0 = Slab::new();
            self.spares.truncate(16);
        } else {
            self.slots.0.shrink_to_fit();
        }
        self.to_read.shrink_to_fit();
        self.to_flush.shrink_to_fit();
        true
    }

    /// Returns the extras of a connection, which only some connections have, and allocates them if
    /// there are none yet.
    pub(crate) fn extras(&mut self, id: ConnectionId) -> Option<&mut Extras> {
        self.find(id)?;
        Some(self.buffers_mut(id.slot).extras_mut())
    }

    /// Returns the buffers of a connection, and lends it some if it has none.
    pub(crate) fn buffers_mut(&mut self, index: u32) -> &mut Buffers {
        let spares = &mut self.spares;
        self.slots.0[index as usize].buffers.get_or_insert_with(|| spares.take())
    }

    /// Takes the buffers of a connection back if they are empty.
    pub(crate) fn recycle(&mut self, index: u32) {
        let Some(slot) = self.slots.0.get_mut(index as usize) else { return };
        if let Some(buffers) = slot.buffers.take_if(|buffers| buffers.is_empty()) {
            self.spares.put(buffers);
        }
    }
}

impl<C> Index<u32> for Connections<C> {
    type Output = Slot<C>;

    #[inline]
    fn index(&self, index: u32) -> &Slot<C> {
        &self.slots.0[index as usize]
    }
}

impl<C> IndexMut<u32> for Connections<C> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut Slot<C> {
        &mut self.slots.0[index as usize]
    }
}

impl<C> Nodes for Slots<C> {
    fn node(&mut self, key: u32) -> &mut wheel::Node {
        &mut self.0[key as usize].deadline
    }
}

/// If a loop is dropped before it has drained, its queued output is lost, and the peers must see a
/// reset.
impl<C> Drop for Slots<C> {
    fn drop(&mut self) {
        for (_, slot) in &mut self.0 {
            if slot.has_unsent() && !fault!("dropped-loop-ends-whole") {
                slot.stream.reset_on_close();
            }
        }
    }
}
