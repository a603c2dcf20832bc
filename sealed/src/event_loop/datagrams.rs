//! Datagram sockets: receiving, how they share the tick, and sending what was queued.

use std::{io, mem};

use super::Hosted;
use crate::datagram::{DatagramError, SendError};
use crate::id::DatagramId;
use crate::net::{Readiness, Refusal};
use crate::service::Service;

impl<S: Service> Hosted<S> {
    /// Records an event that the kernel reported for a datagram socket.
    pub(super) fn note_datagram(&mut self, slot: u32, ready: &Readiness) {
        let Some((id, port)) = self.cx.datagrams.at(slot) else { return };
        // A receive returns the error that the socket holds, and clears it.
        port.is_readable |= ready.readable || ready.ended || ready.failed;
        if port.is_readable || port.queue_len() > 0 {
            self.cx.datagrams.will_serve(id);
        }
    }

    /// Serves the sockets that have work, in turn.
    pub(super) fn serve_datagrams(&mut self) {
        if self.cx.datagrams.to_serve.is_empty() {
            return;
        }
        let spare = mem::take(&mut self.spare);
        let mut list = mem::replace(&mut self.cx.datagrams.to_serve, spare);
        for slot in list.drain(..) {
            if let Some(id) = self.cx.datagrams.unlist(slot) {
                self.send_queued(id);
                self.receive_datagrams(id);
            }
        }
        self.keep_spare(list);
    }

    /// Offers the queued datagrams of a socket to the kernel.
    fn send_queued(&mut self, id: DatagramId) {
        let count = self.cx.datagrams.find(id).map_or(0, |port| port.queue_len());
        // A call for a failure may queue more, which has to wait for the next tick.
        for _ in 0..count {
            let Some(port) = self.cx.datagrams.find(id) else { return };
            let Some(queued) = port.dequeue() else { return };
            let source = match port.offer(queued.to.as_ref(), &queued.bytes) {
                Ok(()) => {
                    self.cx.counters.datagrams_sent.add(1);
                    continue;
                }
                Err(Refusal::Blocked) => return port.put_back(queued),
                Err(Refusal::NoRoom) => {
                    self.cx.counters.datagrams_dropped.add(1);
                    continue;
                }
                Err(Refusal::TooLong(_)) => SendError::TooLong,
                Err(Refusal::Failed(error)) => SendError::Failed(error),
            };
            self.tell_failure(id, DatagramError::Unsent { to: queued.to, source });
        }
        let left = self.cx.datagrams.find(id).map(|port| port.queue_len());
        if left.is_some_and(|left| left > 0) {
            self.cx.datagrams.will_serve(id);
        } else if left.is_some() && count > 0 && !fault!("datagrams-drained-silently") {
            self.call(None, |service, cx| service.datagrams_drained(cx, id));
        }
    }

    /// Receives datagrams from a socket until it has no more, or until its budget for this tick is
    /// used up; the kernel does not announce the rest again.
    fn receive_datagrams(&mut self, id: DatagramId) {
        let budget = self.cx.config.datagrams_per_tick.max(1);
        let budget = if fault!("datagram-budget-ignored") { usize::MAX } else { budget };
        for _ in 0..budget {
            let Some(port) = self.cx.datagrams.find(id) else { return };
            if let Some(error) = port.failure.take() {
                self.tell_failure(id, DatagramError::Failed(error));
            } else if !port.is_readable {
                return;
            } else if let Err(error) = self.receive_datagram(id) {
                if error.kind() != io::ErrorKind::WouldBlock {
                    // Other sockets get their turn before this one fails again.
                    self.cx.datagrams.will_serve(id);
                    return self.tell_failure(id, DatagramError::Failed(error));
                }
                if let Some(port) = self.cx.datagrams.find(id) {
                    port.is_readable = false;
                }
            }
        }
        if !fault!("rest-of-datagrams-left") {
            self.cx.datagrams.will_serve(id);
        }
    }

    /// Receives a datagram into the loop's buffer, and shows it to the service.
    fn receive_datagram(&mut self, id: DatagramId) -> io::Result<()> {
        let cx = &mut self.cx;
        let Some(port) = cx.datagrams.find(id) else { return Ok(()) };
        // A datagram that fills one byte more than the limit is too long.
        let room = port.received_bytes_max + 1;
        if cx.buffers.fresh.len() < room {
            cx.buffers.fresh.contents().resize(room, 0);
        }
        let (count, from) = port.socket.receive(&mut cx.buffers.fresh.contents()[..room])?;
        if count == room && !fault!("cut-datagram-passed-on") {
            cx.counters.datagrams_too_long.add(1);
            self.tell_failure(id, DatagramError::TooLong { from });
            return Ok(());
        }
        cx.counters.datagrams_received.add(1);
        let lent = cx.buffers.lend(count);
        self.call(None, |service, cx| service.datagram(cx, id, &from, &lent[..count]));
        self.cx.buffers.take_back(lent);
        Ok(())
    }

    fn tell_failure(&mut self, id: DatagramId, error: DatagramError) {
        self.call(None, |service, cx| service.datagram_failed(cx, id, error));
    }
}
