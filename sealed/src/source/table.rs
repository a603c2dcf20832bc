//! What the loop knows of each source of a service, and the sources to call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use super::Ready;
use crate::id::SourceId;
use crate::net::Readiness;

/// The sources of a service, as its loop sees them.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// `None` until the service has added its first source.
    table: Option<Table>,
    /// The sources to call, in order. A source may be removed while it is in this list.
    due: VecDeque<SourceId>,
}

impl Sources {
    /// Returns the table of the service, for a guard.
    pub(super) fn table(&mut self) -> Table {
        self.table.get_or_insert_default().clone()
    }

    /// Records an event of the source in this slot of the table.
    pub(crate) fn note(&mut self, slot: usize, event: &Readiness) {
        let Some(table) = &self.table else { return };
        self.due.extend(table.note(slot, Ready::of(event)));
    }

    /// Requests a call for a source, even if nothing is reported for it.
    pub(super) fn ask(&mut self, id: SourceId) {
        let Some(table) = &self.table else { return };
        if !fault!("ready-again-forgotten") {
            self.due.extend(table.ask(id));
        }
    }

    /// Returns the number of sources to call. Some of them may have been removed since.
    pub(crate) fn due(&self) -> usize {
        self.due.len()
    }

    /// Takes the next source to call.
    pub(crate) fn next(&mut self) -> Option<SourceId> {
        self.due.pop_front()
    }

    /// Takes what to report for a source; `None` if it needs no call any more.
    pub(crate) fn take(&self, id: SourceId) -> Option<Ready> {
        self.table.as_ref()?.take(id)
    }
}

/// The table of the sources of a service. Clones, which may be on any thread, are the same table:
/// each guard has one, to remove its own entry wherever it is dropped. The table is never locked
/// during a call of the service.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    slots: Slab<Entry>,
    serial: u32,
}

#[derive(Debug)]
struct Entry {
    serial: u32,
    /// What has been reported since the last call.
    fresh: Ready,
    /// What has been reported before the last call.
    seen: Ready,
    /// Whether the source is in the list of sources to call.
    is_due: bool,
    /// Whether the service has requested the next call.
    is_asked: bool,
}

impl Table {
    pub(super) fn insert(&self) -> SourceId {
        let mut entries = self.lock();
        entries.serial = entries.serial.wrapping_add(1);
        let serial = entries.serial;
        let entry = Entry { serial, fresh: Ready::default(), seen: Ready::default(), is_due: false, is_asked: false };
        SourceId { slot: entries.slots.insert(entry) as u32, serial }
    }

    pub(super) fn remove(&self, id: SourceId) {
        let mut entries = self.lock();
        if entries.find(id).is_some() {
            entries.slots.remove(id.slot as usize);
        }
    }

    /// Forgets what has been reported for a source: the system is about to report it again.
    pub(super) fn renew(&self, id: SourceId) {
        if let Some(entry) = self.lock().find(id)
            && !fault!("old-readiness-kept")
        {
            (entry.fresh, entry.seen) = (Ready::default(), Ready::default());
        }
    }

    /// Returns the id of the source if it was not due before.
    fn note(&self, slot: usize, ready: Ready) -> Option<SourceId> {
        let mut entries = self.lock();
        let entry = entries.slots.get_mut(slot)?;
        entry.fresh = entry.fresh.and(ready);
        entry.makes_due().then_some(SourceId { slot: slot as u32, serial: entry.serial })
    }

    /// Returns the id of the source if it was not due before.
    fn ask(&self, id: SourceId) -> Option<SourceId> {
        let mut entries = self.lock();
        let entry = entries.find(id)?;
        entry.is_asked = true;
        entry.makes_due().then_some(id)
    }

    /// Returns what to report to the service in a call for this source.
    fn take(&self, id: SourceId) -> Option<Ready> {
        let mut entries = self.lock();
        let entry = entries.find(id)?;
        entry.is_due = false;
        let (fresh, is_asked) = (entry.fresh, entry.is_asked);
        let all = entry.seen.and(fresh);
        (entry.fresh, entry.seen, entry.is_asked) = (Ready::default(), all, false);
        if is_asked { Some(all) } else { Some(fresh).filter(|fresh| *fresh != Ready::default()) }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn find(&mut self, id: SourceId) -> Option<&mut Entry> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        (entry.serial == id.serial || fault!("source-serial-not-checked")).then_some(entry)
    }
}

impl Entry {
    /// Puts the source in the list of sources to call, and returns whether it was not there before.
    fn makes_due(&mut self) -> bool {
        !std::mem::replace(&mut self.is_due, true)
    }
}
