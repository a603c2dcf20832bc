//! Accepting: for this loop, and for others of its pool.

use std::io;

use super::EventLoop;
use crate::address::Address;
#[cfg(feature = "tls")]
use crate::context::Due;
use crate::context::{ATTEMPTS, Accepting};
#[cfg(feature = "tls")]
use crate::error::CloseReason;
use crate::id::{ConnectionId, ListenerId};
use crate::mailbox::Handed;
use crate::net::Stream;
use crate::service::Service;

impl Accepting {
    /// Whether there may be somebody who can be accepted.
    pub(super) fn can_accept(&self) -> bool {
        self.ready && self.connections < self.connections_max
    }
}

impl<S: Service> EventLoop<S> {
    pub(super) fn accept(&mut self) {
        if self.accept_after.is_some_and(|after| self.cx.now < after) {
            return;
        }
        self.accept_after = None;
        for index in 0..self.cx.listeners.len() {
            let mut budget = self.cx.config.accepts_per_tick;
            while budget > 0 && self.accept_after.is_none() && self.cx.listeners[index].can_accept() {
                self.accept_one(index);
                budget -= 1;
            }
        }
    }

    fn accept_one(&mut self, index: usize) {
        if self.is_full() {
            return self.pause_accepting();
        }
        let held = &mut self.cx.listeners[index];
        let Some(listener) = &held.listener else { return };
        let (stream, peer) = match listener.accept(&held.socket) {
            Ok(accepted) => accepted,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    held.ready = false;
                    return;
                }
                // The peer gave up while it waited; others may be behind it.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => return,
                _ => return self.pause_accepting(),
            },
        };
        let listener = ListenerId(index as u32);
        let kept = match &mut self.cx.hand_over {
            Some(hand_over) if held.for_all => hand_over.offer(stream, listener, peer),
            _ => Some((stream, peer)),
        };
        if let Some((stream, peer)) = kept
            && self.take_in(stream, listener, &peer).is_err()
        {
            self.pause_accepting();
        }
    }

    /// Takes over a connection that another loop has accepted. Where there is no room for it, it is closed.
    pub(super) fn take_over(&mut self, handed: Handed) {
        let Handed { stream, listener, peer } = handed;
        let held = &self.cx.listeners[listener.index()];
        let has_room = !self.cx.is_draining() && !self.is_full() && held.connections < held.connections_max;
        // What cannot be registered is closed, and its peer hears of it.
        let id = has_room.then(|| self.cx.insert_connected(stream, S::Connection::default()).ok()).flatten();
        // Counted when it is among the connections: who accepts may count it twice for a moment, but never leave it out.
        self.cx.counters.taken_over.add(1);
        if let Some(id) = id {
            self.welcome(id, listener, &peer);
        }
    }

    fn take_in(&mut self, stream: Stream, listener: ListenerId, peer: &Address) -> io::Result<()> {
        let id = self.cx.insert_connected(stream, S::Connection::default())?;
        self.welcome(id, listener, peer);
        Ok(())
    }

    fn welcome(&mut self, id: ConnectionId, listener: ListenerId, peer: &Address) {
        self.cx.slots.0[id.slot as usize].listener = listener.index() as u16;
        self.cx.listeners[listener.index()].connections += 1;
        self.cx.counters.accepted.add(1);
        self.begin_handshake(id, listener);
        self.service.accepted(&mut self.cx, id, listener, peer);
    }

    #[cfg(not(feature = "tls"))]
    #[allow(clippy::unused_self)] // with TLS there is something to do
    fn begin_handshake(&mut self, _: ConnectionId, _: ListenerId) {}

    #[cfg(feature = "tls")]
    fn begin_handshake(&mut self, id: ConnectionId, listener: ListenerId) {
        let Some(acceptor) = self.cx.listeners[listener.index()].tls.clone() else { return };
        let limit = self.cx.set_due(self.cx.config.handshake_limit, Due::Limit(id));
        match acceptor.session(limit) {
            Ok(session) => self.cx.begin_tls(id, session),
            Err(_) => self.cx.end_now(id.slot, CloseReason::Failed(io::ErrorKind::InvalidInput)),
        }
    }

    fn is_full(&self) -> bool {
        self.cx.slots.0.len() >= self.cx.config.connections_max.min(ATTEMPTS).min(u32::MAX as usize)
    }

    /// Lets the backlog hold who comes until a connection is freed, or a while has passed: the kernel would report
    /// the same failure at once, for ever.
    fn pause_accepting(&mut self) {
        self.cx.counters.accept_pauses.add(1);
        self.accept_after = Some(self.cx.now + self.cx.config.accept_retry);
    }
}
