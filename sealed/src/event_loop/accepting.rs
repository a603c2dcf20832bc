//! Accepting connections, for this loop and for other loops of its pool.

use std::io;

use super::Hosted;
use crate::address::Address;
use crate::context::{Accepting, Due};
use crate::error::CloseReason;
use crate::id::{ConnectionId, ListenerId};
use crate::mailbox::Handed;
use crate::net::Stream;
use crate::service::Service;
use crate::token::CONNECTIONS_MAX;

impl Accepting {
    /// Returns whether a waiting connection could be accepted.
    pub(super) fn can_accept(&self) -> bool {
        // A loop that accepts for all may itself be full.
        self.ready && self.after.is_none() && (self.for_all && !fault!("full-acceptor-holds-up") || self.has_room())
    }

    fn has_room(&self) -> bool {
        self.connections < self.connections_max
    }
}

impl<S: Service> Hosted<S> {
    pub(super) fn accept(&mut self) {
        for index in 0..self.cx.listeners.len() {
            let held = &mut self.cx.listeners[index];
            held.after = held.after.filter(|after| self.cx.now < *after);
            let mut budget = self.cx.config.accepts_per_tick;
            while budget > 0 && self.cx.listeners[index].can_accept() {
                self.accept_one(index);
                budget -= 1;
                if fault!("listener-read-once") {
                    self.cx.listeners[index].ready = false;
                }
            }
        }
    }

    fn accept_one(&mut self, index: usize) {
        let has_room = !self.is_full() && self.cx.listeners[index].has_room();
        if !has_room && !self.another_has_room(index) {
            return self.pause_accepting(index);
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
                // The peer gave up while it waited; others may wait behind it.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => return,
                _ if fault!("accepting-given-up") => {
                    held.ready = false;
                    return;
                }
                _ => return self.pause_accepting(index),
            },
        };
        let listener = ListenerId(index as u32);
        let kept = match &mut self.cx.hand_over {
            Some(hand_over) if held.for_all => hand_over.offer(stream, listener, peer),
            _ => Some((stream, peer)),
        };
        // A connection meant for another loop that could not be sent there is closed if this loop
        // has no room.
        if let Some((stream, peer)) = kept
            && (!has_room || self.take_in(stream, listener, &peer).is_err())
        {
            self.pause_accepting(index);
        }
    }

    /// Returns whether this loop accepts for others, at least one of which has room.
    fn another_has_room(&self, index: usize) -> bool {
        let held = &self.cx.listeners[index];
        let connections_max = held.connections_max.min(self.cx.config.connections_max);
        let hand_over = self.cx.hand_over.as_ref().filter(|_| held.for_all);
        hand_over.is_some_and(|hand_over| hand_over.another_has_fewer_than(connections_max))
    }

    /// Takes over a connection that another loop accepted. If there is no room, the connection is
    /// closed.
    pub(super) fn take_over(&mut self, handed: Handed) {
        let Handed { stream, listener, peer } = handed;
        let held = &self.cx.listeners[listener.index()];
        let most = held.connections_max.saturating_add(usize::from(fault!("handed-over-past-limit")));
        let is_draining = self.cx.is_draining() && !fault!("taken-over-while-draining");
        let has_room = !is_draining && !self.is_full() && held.connections < most;
        // A connection that cannot be registered is closed, which its peer sees.
        let id = has_room.then(|| self.cx.insert_connected(stream, S::Connection::default()).ok()).flatten();
        // Increment `taken_over` only after the connection is in the count of connections: the
        // accepting loop may then count the connection twice for a moment, but never misses it.
        if id.is_some() || !fault!("refused-counts-for-ever") {
            self.cx.counters.taken_over.add(1);
        }
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
        self.cx.connections[id.slot].listener = listener.index() as u16;
        self.cx.listeners[listener.index()].connections += 1;
        self.cx.counters.accepted.add(1);
        self.begin_handshake(id, listener);
        self.call(Some(id), |service, cx| service.accepted(cx, id, listener, peer));
    }

    fn begin_handshake(&mut self, id: ConnectionId, listener: ListenerId) {
        let Some(acceptor) = self.cx.listeners[listener.index()].tls.clone() else { return };
        let limit = self.cx.set_due(self.cx.config.handshake_limit, Due::Limit(id));
        match acceptor.session(limit) {
            Ok(session) => self.cx.begin_tls(id, session),
            Err(_) => self.cx.connections.end_now(id.slot, CloseReason::Failed(io::ErrorKind::InvalidInput)),
        }
    }

    fn is_full(&self) -> bool {
        self.cx.connections.len() >= self.cx.config.connections_max.min(CONNECTIONS_MAX).min(u32::MAX as usize)
    }

    /// Pauses accepting until a connection is freed or `accept_retry` has passed; new connections
    /// wait in the backlog. Without the pause, the kernel would report the same failure again and
    /// again.
    fn pause_accepting(&mut self, index: usize) {
        self.cx.counters.accept_pauses.add(1);
        self.cx.listeners[index].after = Some(self.cx.now.saturating_add(self.cx.config.accept_retry));
    }
}
