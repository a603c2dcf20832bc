//! Reading from sockets to the service: how much is read in one tick, where untaken input is kept,
//! and how connections share the tick.

use std::{io, mem};

use super::Hosted;
use crate::context::{Context, Due};
use crate::error::CloseReason;
use crate::id::ConnectionId;
use crate::input::Input;
use crate::rate::Way;
use crate::service::Service;
use crate::slot::Flags;

impl<S: Service> Hosted<S> {
    /// Reads from the connections that have input, in turn.
    pub(super) fn read_all(&mut self) {
        let spare = mem::take(&mut self.spare);
        let mut list = self.cx.connections.take_to_read(spare);
        for index in list.drain(..) {
            self.cx.connections[index].clear(Flags::TO_READ);
            let mut budget = self.cx.config.read_bytes_per_tick;
            if self.cx.connections[index].has_extras() {
                budget = budget.min(self.cx.may_read(index));
                if budget == 0 {
                    continue;
                }
            }
            while self.read_once(index, &mut budget) {
                if budget == 0 {
                    if !fault!("rest-not-read-again") {
                        self.cx.connections.will_read(index);
                    }
                    break;
                }
            }
        }
        self.keep_spare(list);
    }

    /// Reads once from a connection and shows the service the input. Returns whether there may be
    /// more.
    fn read_once(&mut self, index: u32, budget: &mut usize) -> bool {
        let cx = &mut self.cx;
        let slot = &mut cx.connections[index];
        if slot.is(Flags::CLOSING | Flags::CONNECTING) {
            return false;
        }
        let is_finishing = slot.is(Flags::FINISHING);
        if slot.is(Flags::PAUSED) && !is_finishing {
            return false;
        }
        let is_left_to_tls = slot.extras().is_some_and(|extras| mem::take(&mut extras.left_to_tls));
        if is_left_to_tls && !(is_finishing && fault!("handshake-discarded")) {
            slot.clear(Flags::AGAIN);
            return self.decipher_left(self.cx.connections.id_at(index));
        }
        if is_finishing {
            return self.discard(index, budget);
        }
        let again = slot.is(Flags::AGAIN);
        slot.clear(Flags::AGAIN);

        let left = slot.buffers.as_ref().map_or(0, |buffers| buffers.inbox.len());
        if again && left > 0 {
            // Show the leftovers before reading anything else: the end must not be reported before
            // the input that precedes it.
            let id = self.cx.connections.id_at(index);
            self.show_inbox(id, 0);
            // A service that asks to see the input again gets it in the next tick, so that no
            // connection can run forever in one tick.
            return fault!("shown-again-same-tick") || !self.cx.connections[index].is(Flags::AGAIN);
        }
        let room = self.cx.config.input_bytes_max.saturating_sub(left);
        let got = self.fetch(index, room.min(*budget));
        *budget = budget.saturating_sub(got.count);
        let id = self.cx.connections.id_at(index);
        if self.cx.connections[index].has_extras() {
            return self.unwrap(id, &got, left);
        }
        self.show(id, got.count, left);
        self.tell_end(id, got.ended);
        got.more
    }

    /// Shows the service `count` bytes of the loop's buffer, after the input that it left before.
    fn show(&mut self, id: ConnectionId, count: usize, left: usize) {
        if count == 0 || !self.cx.is_open(id) {
        } else if left > 0 {
            self.show_inbox(id, count);
        } else {
            self.show_fresh(id, count);
        }
    }

    fn tell_end(&mut self, id: ConnectionId, ended: bool) {
        if !ended || !self.cx.is_open(id) {
            return;
        }
        self.call(Some(id), |service, cx| service.ended(cx, id));
        if self.cx.connections.find(id).is_some_and(|slot| slot.is_open() && slot.is(Flags::SHUT)) {
            self.cx.close(id);
        }
    }

    /// Handles bytes read from a connection with extras: counts them against its rates, and
    /// decrypts them.
    fn unwrap(&mut self, id: ConnectionId, got: &Fetched, left: usize) -> bool {
        self.cx.has_read(id.slot, got.count);
        if self.cx.connections[id.slot].extras().is_some_and(|extras| extras.tls.is_some()) {
            return self.decipher(id, got, left);
        }
        self.show(id, got.count, left);
        self.tell_end(id, got.ended);
        got.more
    }

    fn decipher(&mut self, id: ConnectionId, got: &Fetched, left: usize) -> bool {
        let deciphered = self.cx.decipher(id.slot, got.count, got.ended);
        match deciphered.news {
            News::Nothing => {}
            News::Made => self.made(id),
            News::Secured => self.secured(id),
        }
        // The service is shown the loop's buffer, so the decrypted bytes take the buffer's place
        // for the call.
        self.cx.buffers.swap();
        if self.cx.connections.find(id).is_some_and(|slot| slot.is(Flags::PAUSED)) && !fault!("shown-though-paused") {
            // The service has paused the connection in the call about the handshake.
            let buffer = mem::take(&mut self.cx.buffers.fresh);
            self.cx.keep_input(id, &buffer[..deciphered.count]);
            self.cx.buffers.fresh = buffer;
        } else {
            self.show(id, deciphered.count, left);
        }
        self.cx.buffers.swap();
        let ended = self.cx.tls_ended(id.slot);
        self.tell_end(id, ended);
        got.more
    }

    /// Reports TLS that was started on an existing connection.
    fn secured(&mut self, id: ConnectionId) {
        if self.cx.is_open(id) {
            self.call(Some(id), |service, cx| service.secured(cx, id));
        }
    }

    /// Decrypts the input that the service left when it started TLS, which belongs to the
    /// handshake.
    fn decipher_left(&mut self, id: ConnectionId) -> bool {
        let slot = &mut self.cx.connections[id.slot];
        let ended = slot.is(Flags::ENDED);
        let inbox = slot.buffers.as_mut().map(|buffers| mem::take(&mut buffers.inbox)).unwrap_or_default();
        let left = inbox.bytes.get(inbox.start..).unwrap_or_default().to_vec();
        let got = Fetched { count: left.len(), more: true, ended };
        let buffer = mem::replace(&mut self.cx.buffers.fresh, left.into());
        let goes_on = self.decipher(id, &got, 0);
        self.cx.buffers.fresh = buffer;
        goes_on
    }

    /// Reads at most `room` bytes into the loop's buffer.
    fn fetch(&mut self, index: u32, room: usize) -> Fetched {
        let nothing = Fetched { count: 0, more: false, ended: false };
        let cx = &mut self.cx;
        let slot = &mut cx.connections[index];
        let room = room.min(cx.buffers.fresh.len());
        if room == 0 || !slot.is(Flags::READABLE) || slot.is(Flags::ENDED) {
            return nothing;
        }
        match slot.stream.read(&mut cx.buffers.fresh.contents()[..room]) {
            Ok(0) => {
                slot.clear(Flags::READABLE);
                slot.set(Flags::ENDED);
                Fetched { ended: true, ..nothing }
            }
            Ok(count) => {
                cx.counters.bytes_received.add(count as u64);
                // A short read has emptied the stream, and the kernel announces later bytes.
                let more = count == room || slot.is(Flags::END_SEEN);
                if !more {
                    slot.clear(Flags::READABLE);
                }
                Fetched { count, more, ended: false }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.clear(Flags::READABLE);
                nothing
            }
            Err(error) => {
                cx.connections.end_now(index, CloseReason::Failed(error.kind()));
                nothing
            }
        }
    }

    /// Shows the service `count` bytes of the loop's buffer, and copies the untaken rest to an
    /// inbox.
    fn show_fresh(&mut self, id: ConnectionId, count: usize) {
        let lent = self.cx.buffers.lend(count);
        let mut input = Input::new(&lent[..count], self.cx.config.input_bytes_max);
        self.receive(id, &mut input);
        self.cx.keep_input(id, input.bytes());
        self.cx.buffers.take_back(lent);
    }

    fn receive(&mut self, id: ConnectionId, input: &mut Input<'_>) {
        self.cx.receiving = Some(id.slot);
        self.call(Some(id), |service, cx| service.received(cx, id, input));
        self.cx.receiving = None;
        let slot = &mut self.cx.connections[id.slot];
        if slot.is(Flags::AGAIN) {
            if input.is_empty() {
                slot.clear(Flags::AGAIN);
            } else {
                self.cx.connections.will_read(id.slot);
            }
        }
    }

    /// Appends `count` bytes of the loop's buffer to the inbox, and shows the service the whole
    /// inbox.
    fn show_inbox(&mut self, id: ConnectionId, count: usize) {
        let cx = &mut self.cx;
        let Some(buffers) = &mut cx.connections[id.slot].buffers else { return };
        let mut inbox = mem::take(&mut buffers.inbox);
        inbox.bytes.extend_from_slice(&cx.buffers.fresh[..count]);
        let mut input = Input::new(&inbox.bytes[inbox.start..], cx.config.input_bytes_max);
        self.receive(id, &mut input);
        inbox.start += input.taken();
        inbox.compact();
        let cx = &mut self.cx;
        // The call may have made the connection return its buffers, because they looked empty
        // without the inbox.
        if cx.connections[id.slot].buffers.is_some() || !inbox.is_empty() {
            cx.connections.buffers_mut(id.slot).inbox = inbox;
        }
        cx.connections.recycle(id.slot);
    }

    /// Discards input of a connection that this side has closed, until the peer's end.
    fn discard(&mut self, index: u32, budget: &mut usize) -> bool {
        let cx = &mut self.cx;
        let slot = &mut cx.connections[index];
        match slot.stream.read(cx.buffers.fresh.contents()) {
            Ok(0) => {
                slot.set(Flags::ENDED);
                if slot.is(Flags::LINGERING) && !fault!("waits-though-peer-ended") {
                    cx.connections.end_now(index, CloseReason::Ended);
                }
                false
            }
            Ok(count) => {
                *budget = budget.saturating_sub(count);
                cx.decipher(index, count, false);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                cx.connections.end_now(index, CloseReason::Failed(error.kind()));
                false
            }
        }
    }
}

impl<S: Service> Context<S> {
    /// Keeps input that the service has not taken, to be shown later.
    fn keep_input(&mut self, id: ConnectionId, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.connections.buffers_mut(id.slot).inbox.bytes.extend_from_slice(bytes);
    }

    /// Returns how many bytes may be read from a connection now. If none may, sets a timer to read
    /// again later.
    fn may_read(&mut self, index: u32) -> usize {
        let slot = &mut self.connections[index];
        if slot.is(Flags::FINISHING) && !fault!("discarding-held-to-rate") {
            // The input is discarded, so no rate applies.
            return usize::MAX;
        }
        let Some(pace) = slot.extras().and_then(|extras| extras.pace.as_mut()) else { return usize::MAX };
        let (allowed, wait) = self.groups.allowance(pace, Way::In, self.now);
        if allowed == 0 && !pace.set_waits(Way::In, true) {
            let id = self.connections.id_at(index);
            self.set_due(wait, Due::Pace(id, Way::In));
        }
        allowed
    }

    fn has_read(&mut self, index: u32, count: usize) {
        if let Some(pace) = self.connections[index].extras().and_then(|extras| extras.pace.as_mut()) {
            self.groups.take(pace, Way::In, count);
        }
    }
}

/// What decryption has brought about.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "tls"), allow(dead_code))] // nothing is decrypted then
pub(crate) enum News {
    #[default]
    Nothing,
    /// The handshake of an outgoing connection is done.
    Made,
    /// The handshake of TLS that was started on an existing connection is done.
    Secured,
}

/// The result of a read.
struct Fetched {
    count: usize,
    /// Whether more bytes may be available at once.
    more: bool,
    /// Whether the peer has ended: it sends no more bytes.
    ended: bool,
}
