//! Passes work that blocks to workers, and resolves names.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use super::Context;
use crate::id::{ConnectionId, WorkId};
use crate::mailbox::{FromAddresses, Worked};
use crate::resolver::{self, Resolver};
use crate::service::Service;
use crate::workers::{Job, Ticket, WorkError, Workers};

/// Work that a service waits for.
pub(crate) struct Work {
    workers: Workers,
    ticket: Ticket,
    cancelled: Arc<AtomicBool>,
}

impl Work {
    fn cancel(self) {
        if !fault!("cancelled-work-unaware") {
            self.cancelled.store(true, Ordering::Release);
        }
        if !fault!("cancelled-work-stays-queued") {
            self.workers.withdraw(self.ticket);
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// Work that blocks, on other threads.
impl<S: Service> Context<S> {
    /// Passes work that blocks to `workers`. The message that it returns is delivered by
    /// [`message`](Service::message), after those that the work [reported](Job::report) before. A
    /// result is delivered even if the mailbox is full.
    ///
    /// If the work panics, [`panicked`](Service::panicked) decides, as if a call of the service had
    /// panicked; by default, the loop ends with an error. Work keeps no loop running: results that
    /// are not there when the loop ends are lost; the work itself is still done.
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
    /// connection: once the connection is closed, messages of the work are dropped, and when it has
    /// ended, the work is [cancelled](Self::cancel_work). A panic of the work counts as one of a
    /// call for the connection.
    ///
    /// # Errors
    ///
    /// Returns [`WorkError::NotOpen`] if the connection is not open, and an error if the workers
    /// refuse the work. The service gets no message then.
    pub fn offload_for(
        &mut self,
        id: ConnectionId,
        workers: &Workers,
        work: impl FnOnce(&Job<S::Message>) -> S::Message + Send + 'static,
    ) -> Result<WorkId, WorkError> {
        if !self.is_open(id) {
            return Err(WorkError::NotOpen);
        }
        self.begin_work(Some(id), workers, work)
    }

    fn begin_work(
        &mut self,
        connection: Option<ConnectionId>,
        workers: &Workers,
        work: impl FnOnce(&Job<S::Message>) -> S::Message + Send + 'static,
    ) -> Result<WorkId, WorkError> {
        let id = WorkId { slot: self.works.vacant_slot(), serial: self.next_serial() };
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job::new(id, cancelled.clone(), self.inlet.mailbox().clone());
        let ticket = workers.submit(Box::new(move || job.run(work)), Some(self.inlet.waker()))?;
        self.works.insert(id.serial, connection, Work { workers: workers.clone(), ticket, cancelled });
        Ok(id)
    }

    /// Cancels work: no message of it is delivered any more. Work that waits for a thread is
    /// dropped; work that has begun runs to its end, unless it checks
    /// [`is_cancelled`](Job::is_cancelled). Returns false if the result has been delivered, or the
    /// work was cancelled before.
    pub fn cancel_work(&mut self, work: WorkId) -> bool {
        let held = self.works.remove(work.slot, work.serial);
        held.map(|(held, _)| held.cancel()).is_some()
    }

    /// Cancels the work that is done for a connection.
    pub(crate) fn cancel_works_of(&mut self, connection: ConnectionId) {
        while let Some(held) = self.works.remove_one_of(connection) {
            if !fault!("work-outlives-connection") {
                held.cancel();
            }
        }
    }

    /// Returns the number of pieces of work whose results have not been delivered.
    pub fn works(&self) -> usize {
        self.works.len()
    }

    /// Looks up the IP addresses of a host without blocking the loop. The closure converts the
    /// outcome into a message, which [`Service::message`] gets in a later call. The closure itself
    /// runs on the thread of the loop: within this call if the outcome is cached, and otherwise
    /// when the lookup has finished. A panic in it counts as one of the service.
    ///
    /// # Errors
    ///
    /// Returns an error if the resolver's workers refuse the work. The service gets no message
    /// then. An unknown name is not an error here but an outcome.
    pub fn resolve(
        &mut self,
        resolver: &Resolver,
        host: &str,
        convert: impl FnOnce(io::Result<Vec<IpAddr>>) -> S::Message + Send + 'static,
    ) -> Result<(), WorkError> {
        if let Some(outcome) = resolver.known(host) {
            self.defer(convert(resolver::owned(outcome)));
            return Ok(());
        }
        let mailbox = self.inlet.mailbox().clone();
        let message = FromAddresses(Box::new(convert));
        let waiter = move |outcome| mailbox.send_result(Worked::Addresses(outcome, message));
        resolver.look_up(host, Box::new(waiter))
    }
}
