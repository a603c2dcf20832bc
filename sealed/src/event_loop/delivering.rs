//! Messages to the service: deferred ones, those from the mailbox, and the outputs of work and of
//! futures.

use std::mem;
use std::task::{self, Poll};

use super::Hosted;
use crate::caught;
use crate::id::ConnectionId;
use crate::mailbox::{BATCH, FromAddresses, Mail, Worked};
use crate::resolver;
use crate::service::Service;

impl<S: Service> Hosted<S> {
    pub(super) fn mail(&mut self) {
        let deferred = if fault!("deferred-done-same-tick") { usize::MAX } else { self.cx.deferred.len() };
        for _ in 0..deferred {
            let Some(message) = self.cx.deferred.pop_front() else { break };
            self.call(None, |service, cx| service.message(cx, message));
        }
        // Rearm in every tick, even without messages: a post is not atomic, so its wake-up may come
        // after its message was taken.
        if fault!("rearmed-with-mail-only") && self.cx.inlet.is_empty() {
            return;
        }
        let rearms_late = fault!("mailbox-rearmed-late") && !self.cx.inlet.is_empty();
        if !fault!("mailbox-rearmed-late") {
            self.cx.inlet.rearm();
        }
        let mut batch = mem::take(&mut self.mail);
        let mut budget = self.cx.config.messages_per_tick;
        while budget > 0 {
            let taken = self.cx.inlet.take(&mut batch, budget.min(BATCH));
            if taken == 0 {
                if rearms_late {
                    self.cx.inlet.rearm();
                }
                break;
            }
            budget -= taken;
            for mail in batch.drain(..) {
                match mail {
                    Mail::Message(message) => {
                        self.cx.counters.messages.add(1);
                        self.call(None, |service, cx| service.message(cx, message));
                    }
                    Mail::Connection(handed) => self.take_over(*handed),
                    Mail::Work(worked) => self.worked(*worked),
                }
            }
        }
        self.mail = batch;
    }

    /// Handles a result from another thread.
    fn worked(&mut self, worked: Worked<S::Message>) {
        self.cx.counters.messages.add(1);
        match worked {
            Worked::Addresses(outcome, FromAddresses(make)) => self.call(None, |service, cx| {
                let message = make(resolver::owned(outcome));
                service.message(cx, message);
            }),
            Worked::Resolved(id, outcome) => self.resolved(id, outcome),
            Worked::Progress(work, message) => match self.cx.works.find(work.slot, work.serial) {
                Some((_, connection)) => self.deliver_for(connection, message),
                None => caught::discard(message),
            },
            Worked::Done(work, message) => match self.cx.works.remove(work.slot, work.serial) {
                Some((_, connection)) => self.deliver_for(connection, message),
                None => caught::discard(message),
            },
            Worked::Panicked(work, payload) => match self.cx.works.remove(work.slot, work.serial) {
                Some((_, connection)) if self.is_open(connection) => self.judge(connection, payload),
                _ => caught::discard(payload),
            },
        }
    }

    /// Returns whether there is somebody to deliver to: the connection, or the service itself.
    fn is_open(&self, connection: Option<ConnectionId>) -> bool {
        connection.is_none_or(|connection| self.cx.is_open(connection))
    }

    /// Delivers a message on behalf of a connection, if the connection is open.
    fn deliver_for(&mut self, connection: Option<ConnectionId>, message: S::Message) {
        if self.is_open(connection) {
            self.call(connection, |service, cx| service.message(cx, message));
        } else {
            caught::discard(message);
        }
    }

    /// Polls the futures that have been woken. Those that are woken from now on have their turn in
    /// the next tick.
    pub(super) fn poll_futures(&mut self) {
        for id in self.cx.futures.take_woken() {
            let Some((mut future, waker, connection)) = self.cx.futures.begin_poll(id) else { continue };
            let mut polled = None;
            self.call(connection, |_, _| polled = Some(future.as_mut().poll(&mut task::Context::from_waker(&waker))));
            match polled {
                Some(Poll::Pending) => self.cx.futures.end_poll(id, future),
                Some(Poll::Ready(message)) => {
                    self.cx.futures.remove(id);
                    let mut done = Some(future);
                    // Dropping it can panic as well as polling it.
                    self.call(connection, |_, _| drop(done.take()));
                    caught::discard(done);
                    self.deliver_for(connection, message);
                }
                None => {
                    self.cx.futures.remove(id);
                    // It has panicked, and the panic has been reported.
                    caught::discard(future);
                }
            }
        }
    }
}
