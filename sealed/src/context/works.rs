//! Passes work that blocks to workers, and resolves names.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use slab::Slab;

use super::Context;
use crate::id::{ConnectionId, WorkId};
use crate::mailbox::Worked;
use crate::resolver::{Outcome, Resolver};
use crate::service::Service;
use crate::workers::{Job, Ticket, WorkError, Workers};

/// The work that is done for a service.
#[derive(Debug, Default)]
pub(crate) struct Works {
    held: Slab<Held>,
    /// The slots of the work that is done for a connection.
    of_connections: BTreeSet<(ConnectionId, u32)>,
}

struct Held {
    serial: u32,
    connection: Option<ConnectionId>,
    workers: Workers,
    ticket: Ticket,
    cancelled: Arc<AtomicBool>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Works {
    fn is_held(&self, id: WorkId) -> bool {
        self.held.get(id.slot as usize).is_some_and(|held| held.serial == id.serial)
    }

    /// Returns the connection that work is done for, or an error if nobody waits for the work.
    fn connection(&self, id: WorkId) -> Result<Option<ConnectionId>, Stale> {
        let held = self.held.get(id.slot as usize).filter(|held| held.serial == id.serial);
        held.map(|held| held.connection).ok_or(Stale)
    }

    fn remove(&mut self, id: WorkId) -> Option<Held> {
        if !self.is_held(id) {
            return None;
        }
        let held = self.held.try_remove(id.slot as usize)?;
        if let Some(connection) = held.connection {
            self.of_connections.remove(&(connection, id.slot));
        }
        if self.held.is_empty() && self.held.capacity() > 64 {
            self.held = Slab::new();
        }
        Some(held)
    }

    fn cancel(&mut self, id: WorkId) -> bool {
        let Some(held) = self.remove(id) else { return false };
        if !fault!("cancelled-work-not-told") {
            held.cancelled.store(true, Ordering::Release);
        }
        if !fault!("cancelled-work-stays-queued") {
            held.workers.withdraw(held.ticket);
        }
        true
    }

    /// Cancels the work that is done for a connection.
    pub(crate) fn cancel_of(&mut self, connection: ConnectionId) {
        if self.of_connections.is_empty() || fault!("work-outlives-connection") {
            return;
        }
        while let Some((_, slot)) = self.of_connections.range((connection, 0)..=(connection, u32::MAX)).next() {
            let Some(serial) = self.held.get(*slot as usize).map(|held| held.serial) else { return };
            self.cancel(WorkId { slot: *slot, serial });
        }
    }
}

/// The error for work that was cancelled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stale;

impl<S: Service> Context<S> {
    /// Passes work that blocks to `workers`. The message that it returns is delivered by
    /// [`message`](Service::message), after those that the work [reported](Job::report) before. A
    /// result is delivered even if the mailbox is full.
    ///
    /// If the work panics, [`panicked`](Service::panicked) decides, as if a call of the service had
    /// panicked; by default, the loop ends with an error. Work keeps no loop running: results that
    /// are not there when the loop ends are lost, but the work is done nevertheless.
    ///
    /// # Errors
    ///
    /// Returns an error if the workers refuse the work. The service gets no message then.
    pub fn offload(
        &mut self,
        workers: &Workers,
        work: impl FnOnce(&Job<S::Message>) -> S::Message + Send + 'static,
    ) -> Result<WorkId, WorkError> {
        self.begin_work(None, workers, work)
    }

    /// Passes work that blocks to `workers`, as [`offload`](Self::offload) does, on behalf of a
    /// connection: when the connection ends, the work is [cancelled](Self::cancel_work). A panic of
    /// the work counts as one of a call for the connection.
    ///
    /// # Errors
    ///
    /// Returns [`WorkError::Gone`] if the connection is not open, and an error if the workers
    /// refuse the work. The service gets no message then.
    pub fn offload_for(
        &mut self,
        id: ConnectionId,
        workers: &Workers,
        work: impl FnOnce(&Job<S::Message>) -> S::Message + Send + 'static,
    ) -> Result<WorkId, WorkError> {
        if !self.is_open(id) {
            return Err(WorkError::Gone);
        }
        self.begin_work(Some(id), workers, work)
    }

    fn begin_work(
        &mut self,
        connection: Option<ConnectionId>,
        workers: &Workers,
        work: impl FnOnce(&Job<S::Message>) -> S::Message + Send + 'static,
    ) -> Result<WorkId, WorkError> {
        let serial = self.next_serial();
        let entry = self.works.held.vacant_entry();
        let id = WorkId { slot: entry.key() as u32, serial };
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job::new(id, cancelled.clone(), self.inlet.mailbox().clone());
        let ticket = workers.submit(Box::new(move || job.run(work)), Some(self.inlet.waker()))?;
        entry.insert(Held { serial, connection, workers: workers.clone(), ticket, cancelled });
        if let Some(connection) = connection {
            self.works.of_connections.insert((connection, id.slot));
        }
        Ok(id)
    }

    /// Cancels work: no message of it is delivered any more. Work that waits for a thread is
    /// dropped; work that has begun can [see](Job::is_cancelled) that it was cancelled, and goes on
    /// otherwise. Returns false if the result has been delivered, or the work was cancelled before.
    pub fn cancel_work(&mut self, work: WorkId) -> bool {
        self.works.cancel(work)
    }

    /// Returns the number of pieces of work whose results have not been delivered.
    pub fn works(&self) -> usize {
        self.works.held.len()
    }

    /// Looks up the IP addresses of a host without blocking the loop. `message` makes the message
    /// by which the service gets the outcome, always after this call has returned. It may run on
    /// another thread.
    ///
    /// # Errors
    ///
    /// Returns an error if the resolver's workers refuse the work. The service gets no message
    /// then. An unknown name is not an error here but an outcome.
    pub fn resolve(
        &mut self,
        resolver: &Resolver,
        host: &str,
        message: impl FnOnce(io::Result<Vec<IpAddr>>) -> S::Message + Send + 'static,
    ) -> Result<(), WorkError> {
        if let Some(outcome) = resolver.known(host) {
            self.defer(message(owned(outcome)));
            return Ok(());
        }
        let mailbox = self.inlet.mailbox().clone();
        let waiter = move |outcome| mailbox.send_result(Worked::Message(message(owned(outcome))));
        resolver.look_up(host, Box::new(waiter))
    }

    /// Returns the connection that finished or unfinished work is done for, unless the work was
    /// cancelled.
    pub(crate) fn work_connection(&self, id: WorkId) -> Result<Option<ConnectionId>, Stale> {
        let connection = self.works.connection(id)?;
        match connection {
            Some(connection) if !self.is_open(connection) => Err(Stale),
            _ => Ok(connection),
        }
    }

    /// Records that the result of work has arrived.
    pub(crate) fn end_work(&mut self, id: WorkId) {
        self.works.remove(id);
    }
}

/// Returns the outcome of a lookup with an error of its own.
fn owned(outcome: Outcome) -> io::Result<Vec<IpAddr>> {
    outcome.map_err(|error| io::Error::new(error.kind(), error))
}
