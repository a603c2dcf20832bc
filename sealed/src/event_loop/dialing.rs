//! Outgoing connections: the results of connection attempts.

use std::{io, mem};

use super::Hosted;
use crate::error::CloseReason;
use crate::id::ConnectionId;
use crate::resolver::LookupOutcome;
use crate::service::Service;
use crate::slot::Flags;
use crate::token::Registered;

impl<S: Service> Hosted<S> {
    /// Handles the attempts for which an event was reported.
    pub(super) fn complete_dials(&mut self) {
        if self.answered.is_empty() {
            return;
        }
        for attempt in mem::take(&mut self.answered) {
            let Some((slot, stream)) = self.cx.dials.attempt(attempt) else { continue };
            if self.cx.connections[slot].is(Flags::CLOSING) {
                continue;
            }
            match stream.take_error().and_then(|()| stream.peer_addr()) {
                Ok(_) => self.attempt_succeeded(attempt),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                Err(error) => {
                    self.cx.dials.fail(attempt, error.kind());
                    if !fault!("failed-attempt-is-last") {
                        self.try_next(slot);
                    }
                }
            }
        }
    }

    /// Continues with a connection whose name has been resolved.
    pub(super) fn resolved(&mut self, id: ConnectionId, outcome: LookupOutcome) {
        let is_asked = |asked| asked == id || fault!("late-lookup-reaches-successor");
        let Some(dial) = self.cx.dials.find(id.slot).filter(|dial| is_asked(dial.id)) else { return };
        match outcome {
            Ok(addresses) => {
                dial.set_addresses(addresses);
                self.try_next(id.slot);
            }
            Err(error) => self.cx.connections.end_now(id.slot, CloseReason::NotConnected(error.kind())),
        }
    }

    /// Starts an attempt with the next address, when its timer expires.
    pub(super) fn dial_on(&mut self, id: ConnectionId) {
        if let Some(dial) = self.cx.dials.find(id.slot).filter(|dial| dial.id == id) {
            dial.next = None;
            if fault!("limit-starts-anew")
                && let (Some(timer), time) = (dial.limit, dial.connect.limit)
            {
                self.cx.move_timer(timer, time);
            }
            self.try_next(id.slot);
        }
    }

    fn try_next(&mut self, slot: u32) {
        if let Err(error) = self.cx.dial_next(slot) {
            self.cx.connections.end_now(slot, CloseReason::NotConnected(error.kind()));
        }
    }

    fn attempt_succeeded(&mut self, attempt: usize) {
        let Some((mut stream, dial)) = self.cx.dials.succeed(attempt) else { return };
        if let Some(timer) = dial.next.filter(|_| !fault!("next-address-timer-left")) {
            self.cx.timers.cancel(timer);
        }
        let id = dial.id;
        if let Err(error) = self.cx.registry.move_stream(&mut stream, Registered::Connection(id.slot as usize)) {
            return self.cx.connections.end_now(id.slot, CloseReason::NotConnected(error.kind()));
        }
        let slot = &mut self.cx.connections[id.slot];
        slot.stream = stream;
        slot.clear(Flags::CONNECTING);
        slot.set(Flags::READABLE | Flags::WRITABLE);
        self.cx.connections.will_read(id.slot);
        self.cx.connections.will_flush(id.slot);
        if let Some((connector, name)) = dial.connect.tls {
            // The time limit includes the handshake.
            let limit = dial.limit.filter(|_| !fault!("limit-cuts-off-later"));
            return match connector.session(name, limit) {
                Ok(session) => self.cx.begin_tls(id, session),
                Err(_) => self.cx.connections.end_now(id.slot, CloseReason::NotConnected(io::ErrorKind::InvalidInput)),
            };
        }
        if let Some(timer) = dial.limit.filter(|_| !fault!("limit-outlives-connecting")) {
            self.cx.timers.cancel(timer);
        }
        self.made(id);
    }

    /// Reports an established connection to the service.
    pub(super) fn made(&mut self, id: ConnectionId) {
        self.cx.counters.connected.add(1);
        if self.cx.is_open(id) || fault!("closed-reported-connected") {
            self.call(Some(id), |service, cx| service.connected(cx, id));
        }
    }

    /// Ends a connection attempt or a handshake whose time limit has passed.
    pub(super) fn limit_passed(&mut self, id: ConnectionId) {
        let Some(slot) = self.cx.connections.find_mut(id) else { return };
        let is_connecting = slot.is(Flags::CONNECTING);
        if let Some(tls) = slot.extras().and_then(|extras| extras.tls.as_mut()) {
            tls.limit = None;
            let reason = tls.failure(io::ErrorKind::TimedOut);
            self.cx.connections.end_now(id.slot, reason);
        }
        if is_connecting {
            if let Some(dial) = self.cx.dials.find(id.slot) {
                dial.limit = None;
            }
            self.cx.connections.end_now(id.slot, CloseReason::NotConnected(io::ErrorKind::TimedOut));
        }
    }
}
