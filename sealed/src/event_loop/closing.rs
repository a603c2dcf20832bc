//! Flushing queued output to the kernel, and ending connections: reporting and freeing them.

use std::mem;

use super::Hosted;
use crate::buffers::Buffers;
use crate::context::{Context, Due};
use crate::error::CloseReason;
use crate::id::ConnectionId;
use crate::rate::Way;
use crate::service::Service;
use crate::slot::{Flags, NO_LISTENER};

/// How far a flush got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// The kernel has taken all output.
    All,
    /// The kernel takes no more for now.
    Blocked,
    /// The output has to wait for something else: a handshake, or the rate limit.
    Waiting,
}

impl<S: Service> Hosted<S> {
    pub(super) fn flush(&mut self) {
        let spare = mem::take(&mut self.spare);
        let mut list = self.cx.connections.take_to_flush(spare);
        for index in list.drain(..) {
            self.flush_slot(index);
        }
        self.keep_spare(list);
    }

    /// Sends the queued output of one connection, and handles the consequences.
    fn flush_slot(&mut self, index: u32) {
        let cx = &mut self.cx;
        let slot = &mut cx.connections[index];
        slot.clear(Flags::TO_FLUSH);
        if slot.is(Flags::CLOSING | Flags::CONNECTING) || !slot.is(Flags::WRITABLE) {
            return;
        }
        let before = slot.output_len() + slot.sent_ahead();
        let ciphered = slot.ciphered_sent();
        let flushed = match cx.flush_one(index) {
            Ok(flushed) => flushed,
            Err(error) => return cx.connections.end_now(index, CloseReason::Failed(error.kind())),
        };
        let slot = &mut cx.connections[index];
        let after = slot.output_len();
        if flushed == Flushed::Blocked {
            slot.clear(Flags::WRITABLE);
        }
        let (low, is_finishing) = (cx.config.output_low_bytes, slot.is(Flags::FINISHING));
        let goes_on = after < before
            || slot.ciphered_sent() != ciphered && !fault!("ciphered-progress-ignored")
            || slot.is_held_back() && !fault!("held-back-given-up");
        let goes_on = goes_on && !(fault!("closing-cuts-off-rate") && flushed == Flushed::Waiting);
        if flushed != Flushed::All && goes_on && is_finishing {
            // The connection is slow, not dead.
            cx.connections.arm_linger(index, cx.now);
        } else if flushed == Flushed::All && is_finishing {
            return self.linger(index);
        } else if (flushed == Flushed::All || fault!("half-close-overtakes")) && slot.is(Flags::SHUT) {
            self.shut(index);
        }
        if (before > low || fault!("drained-below-low-mark") && after < before) && after <= low && !is_finishing {
            let cx = &mut self.cx;
            cx.connections.recycle(index);
            let id = cx.connections.id_at(index);
            if cx.is_open(id) {
                self.call(Some(id), |service, cx| service.drained(cx, id));
            }
        } else if before > 0 && after == 0 {
            self.cx.connections.recycle(index);
        }
    }

    /// Offers the queued output of a connection whose time has run out to the kernel again. Returns
    /// whether the connection has more time. The kernel reports writability only when much room is
    /// free, so a peer that takes little at a time must not be mistaken for a dead one.
    pub(super) fn ask_again(&mut self, index: u32) -> bool {
        let slot = &mut self.cx.connections[index];
        if !slot.has_unsent() || slot.is(Flags::CONNECTING) {
            return false;
        }
        slot.set(Flags::WRITABLE);
        self.flush_slot(index);
        let slot = &self.cx.connections[index];
        let is_moved = slot.deadline.is_armed() && (slot.is(Flags::FINISHING) || !fault!("moved-deadline-reported"));
        is_moved || slot.is(Flags::CLOSING)
    }

    /// Completes a half-close: sends the end of this side's output.
    fn shut(&mut self, index: u32) {
        let slot = &mut self.cx.connections[index];
        if slot.raise(Flags::LINGERING) {
            // If this fails, the connection has failed; a read reports the error, after the bytes
            // that can still be read.
            let _ = slot.stream.shut_down_writing();
        }
        if slot.is(Flags::ENDED) && !fault!("both-ended-stays") {
            let id = self.cx.connections.id_at(index);
            self.cx.close(id);
        }
    }

    /// Sends the end of this side's output, and waits for the peer's end: closing with unread input
    /// would make the kernel reset the connection, and the peer might lose the last bytes.
    fn linger(&mut self, index: u32) {
        let cx = &mut self.cx;
        let slot = &mut cx.connections[index];
        // Only once: the kernel reports every time the socket becomes writable, and the limit must
        // not be extended.
        let is_first = slot.raise(Flags::LINGERING);
        let over = slot.is(Flags::ENDED) || is_first && slot.stream.shut_down_writing().is_err();
        if over {
            return cx.connections.end_now(index, CloseReason::Closed);
        }
        if is_first {
            cx.connections.arm_linger(index, cx.now);
        }
        cx.connections.will_read(index);
    }

    /// Reports each connection that ended in this tick to the service, then frees their slots.
    /// Returns whether memory was released.
    pub(super) fn close(&mut self) -> bool {
        let mut next = 0;
        while let Some((index, reason)) = self.cx.connections.closing_at(next) {
            next += 1;
            let id = self.cx.connections.id_at(index);
            let slot = &mut self.cx.connections[index];
            assert!(slot.raise(Flags::CLOSED), "closed is called once");
            if slot.is(Flags::CONNECTING) {
                self.cx.end_dial(index);
            }
            let state = mem::take(&mut self.cx.connections[index].state);
            self.call(Some(id), |service, cx| service.closed(cx, id, state, reason));
        }
        if next == 0 {
            return false;
        }
        let cx = &mut self.cx;
        let closing = cx.connections.take_closing();
        let closed = closing.len();
        for (index, _) in &closing {
            cx.free(*index);
        }
        cx.connections.forget_freed(closing);
        cx.counters.closed.add(closed as u64);
        cx.counters.connections.set(cx.connections.len() as u64);
        cx.listeners.iter_mut().for_each(|held| held.after = None);
        cx.connections.shrink(closed)
    }
}

impl<S: Service> Context<S> {
    /// Sends as much of a connection's queued output as possible.
    fn flush_one(&mut self, index: u32) -> std::io::Result<Flushed> {
        let slot = &mut self.connections[index];
        let is_last = slot.is(Flags::FINISHING | Flags::SHUT);
        let Some(buffers) = &mut slot.buffers else { return Ok(Flushed::All) };
        let Buffers { outbox, extras, .. } = &mut **buffers;
        let queued = outbox.len() + mem::take(&mut outbox.sent_ahead);
        let Some(extras) = extras else {
            let all = outbox.flush(&mut slot.stream, usize::MAX);
            self.counters.bytes_sent.add((queued - outbox.len()) as u64);
            return all.map(Flushed::from_all);
        };
        let (limit, wait) = match &mut extras.pace {
            Some(pace) => self.groups.allowance(pace, Way::Out, self.now),
            None => (usize::MAX, std::time::Duration::ZERO),
        };
        let (mut sent_plain, mut is_plain_left) = (0, false);
        let flushed = match &mut extras.tls {
            Some(tls) => {
                sent_plain = tls.ahead.len();
                let flushed = tls.flush(outbox, &mut slot.stream, limit, is_last);
                sent_plain -= tls.ahead.len();
                is_plain_left = !tls.ahead.is_empty();
                flushed
            }
            None => outbox.flush(&mut slot.stream, limit).map(Flushed::from_all),
        };
        let sent = queued - outbox.len() + sent_plain;
        self.counters.bytes_sent.add(sent as u64);
        let is_held_back = sent == limit && (!outbox.is_empty() || is_plain_left);
        if let Some(pace) = &mut extras.pace {
            self.groups.take(pace, Way::Out, sent);
            if is_held_back && !pace.set_waits(Way::Out, true) {
                let id = self.connections.id_at(index);
                self.set_due(wait, Due::Pace(id, Way::Out));
            }
        }
        let held_back = if fault!("held-back-is-blocked") { Flushed::Blocked } else { Flushed::Waiting };
        flushed.map(|flushed| if is_held_back { held_back } else { flushed })
    }

    /// Resumes a connection whose rate allows more bytes.
    pub(super) fn go_on(&mut self, id: ConnectionId, way: Way) {
        let Some(slot) = self.connections.find_mut(id) else { return };
        let Some(pace) = slot.extras().and_then(|extras| extras.pace.as_mut()) else { return };
        pace.set_waits(way, false);
        if pace.is_free() {
            self.settle_pace(id);
        }
        match way {
            Way::In => self.connections.will_read(id.slot),
            Way::Out => self.connections.will_flush(id.slot),
        }
    }

    fn free(&mut self, index: u32) {
        let mut slot = self.connections.remove(index);
        let id = ConnectionId { slot: index, serial: slot.serial };
        self.cancel_works_of(id);
        self.futures.cancel_of(id);
        if slot.listener != NO_LISTENER && !fault!("listener-forgets-leavers") {
            self.listeners[usize::from(slot.listener)].connections -= 1;
        }
        if let Some(limit) = slot.extras().and_then(|extras| extras.tls.as_mut()?.limit.take()) {
            self.timers.cancel(limit);
        }
        let group = slot.extras().and_then(|extras| extras.pace.as_ref()?.group);
        if let Some(group) = group.and_then(|group| self.groups.get(group)) {
            group.members -= 1;
        }
        if let Some(buffers) = slot.buffers {
            self.connections.spares.put(buffers);
        }
    }
}

impl Flushed {
    fn from_all(all: bool) -> Self {
        if all { Self::All } else { Self::Blocked }
    }
}
