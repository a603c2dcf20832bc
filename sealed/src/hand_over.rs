//! The distribution of accepted connections over the loops of a pool, by the loop that accepts for
//! all.

use std::sync::Arc;

use crate::address::Address;
use crate::id::ListenerId;
use crate::mailbox::{Handed, Mail, Mailbox, PostError};
use crate::net::Stream;
use crate::stats::Counters;

/// Sends each connection of a loop that accepts for all to the loop with the fewest connections.
#[derive(Debug)]
pub(crate) struct HandOver<M> {
    own: usize,
    mailboxes: Vec<Mailbox<M>>,
    counters: Vec<Arc<Counters>>,
    /// Number of connections sent to each loop so far.
    sent: Vec<u64>,
}

impl<M> HandOver<M> {
    pub(crate) fn new(own: usize, mailboxes: Vec<Mailbox<M>>, counters: Vec<Arc<Counters>>) -> Self {
        let sent = vec![0; mailboxes.len()];
        Self { own, mailboxes, counters, sent }
    }

    /// Returns the number of connections that a loop has, including those in transit to it.
    fn load(&self, index: usize) -> u64 {
        let counters = &self.counters[index];
        // The order of these two reads matters: see `EventLoop::take_over`.
        let under_way = self.sent[index].wrapping_sub(counters.taken_over.get());
        counters.connections.get() + if fault!("under-way-not-counted") { 0 } else { under_way }
    }

    pub(crate) fn another_has_fewer_than(&self, connections: usize) -> bool {
        let mut others = (0..self.mailboxes.len()).filter(|index| *index != self.own);
        others.any(|index| self.load(index) < connections as u64)
    }

    /// Sends a connection to the loop with the fewest connections. Returns the connection if that
    /// is this loop, or if the mailbox of the other loop refuses it.
    pub(crate) fn offer(&mut self, stream: Stream, listener: ListenerId, peer: Address) -> Option<(Stream, Address)> {
        let load = |index: &usize| (self.load(*index), *index != self.own);
        let least = (0..self.mailboxes.len()).min_by_key(load).filter(|index| *index != self.own);
        let Some(least) = least else { return Some((stream, peer)) };
        match self.mailboxes[least].send(Mail::Connection(Box::new(Handed { stream, listener, peer }))) {
            Ok(()) => self.sent[least] += 1,
            Err(PostError::Full(Mail::Connection(back)) | PostError::Gone(Mail::Connection(back)))
                if !fault!("full-mailbox-loses-connection") =>
            {
                return Some((back.stream, back.peer));
            }
            Err(_) => {}
        }
        None
    }
}
