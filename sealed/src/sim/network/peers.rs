//! The operations of a test's peers.

use std::collections::VecDeque;
use std::io;

use super::{Event, Net};
use crate::sim::trace::{End, Entry};

/// The state of a connection that its peer can observe.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::sim) struct PeerState {
    pub(in crate::sim) connected: bool,
    pub(in crate::sim) ended: bool,
    pub(in crate::sim) error: Option<io::ErrorKind>,
    pub(in crate::sim) vanished: bool,
    pub(in crate::sim) count_received: u64,
}

impl Net {
    pub(in crate::sim) fn peer_sends(&mut self, end: End, bytes: &[u8]) {
        let Some(endpoint) = self.find(end) else { return };
        if endpoint.error.is_some() || endpoint.fin_sent {
            return;
        }
        if endpoint.connected {
            self.send(end, bytes);
        } else {
            self.unsent.entry(end.index).or_default().bytes.extend_from_slice(bytes);
        }
    }

    pub(in crate::sim) fn peer_finishes(&mut self, end: End) {
        let Some(endpoint) = self.find(end) else { return };
        if endpoint.connected {
            self.shut_down_writing(end);
        } else {
            self.unsent.entry(end.index).or_default().finish = true;
        }
    }

    /// Makes a peer fall silent permanently. The kernel of the other end gives up on it after
    /// `silence_max`.
    pub(in crate::sim) fn vanish(&mut self, end: End) {
        let Some(endpoint) = self.find(end) else { return };
        if std::mem::replace(&mut endpoint.vanished, true) {
            return;
        }
        let other = endpoint.other;
        self.note(Entry::Vanishes { end });
        let Some(other) = other else { return };
        if let Some(silence_max) = self.find(other).and_then(|endpoint| endpoint.silence_max) {
            self.schedule(silence_max, Event::GiveUp { to: other });
        }
    }

    pub(in crate::sim) fn set_stalled(&mut self, end: End, stalled: bool) {
        let Some(endpoint) = self.find(end) else { return };
        endpoint.stalled = stalled;
        if !stalled {
            self.pay(end);
        }
    }

    pub(in crate::sim) fn set_discards(&mut self, end: End) {
        if let Some(endpoint) = self.find(end) {
            endpoint.discards = true;
            endpoint.received = VecDeque::new();
        }
    }

    pub(in crate::sim) fn peer_takes(&mut self, end: End) -> Vec<u8> {
        self.find(end).map_or_else(Vec::new, |endpoint| std::mem::take(&mut endpoint.received).into())
    }

    pub(in crate::sim) fn peer_received(&mut self, end: End) -> Vec<u8> {
        self.find(end).map_or_else(Vec::new, |endpoint| endpoint.received.iter().copied().collect())
    }

    /// Puts back bytes that a peer took but did not need.
    pub(in crate::sim) fn peer_gives_back(&mut self, end: End, bytes: &[u8]) {
        if let Some(endpoint) = self.find(end) {
            debug_assert!(endpoint.received.is_empty());
            endpoint.received.extend(bytes);
        }
    }

    pub(in crate::sim) fn peer_state(&mut self, end: End) -> PeerState {
        let Some(endpoint) = self.find(end) else { return PeerState::default() };
        PeerState {
            connected: endpoint.connected,
            ended: endpoint.fin_received,
            error: endpoint.error,
            vanished: endpoint.vanished,
            count_received: endpoint.count_received,
        }
    }
}
