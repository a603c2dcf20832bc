//! The operations of loops on their sockets, and the readiness that their pollers report.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use super::{Event, Net, Owner, Polling, Source};
use crate::address::Address;
use crate::net::Readiness;
use crate::sim::trace::{End, Entry};
use crate::sim::{Faults, Random};

/// Maximum number of readiness reports in one wait.
const EVENTS_MAX: usize = 1024;

impl Net {
    pub(in crate::sim) fn register(&mut self, end: End, poller: u32, token: usize) {
        if let Some(endpoint) = self.find(end) {
            endpoint.owner = Owner::Poller { poller, token };
            self.announce(end);
        }
    }

    pub(in crate::sim) fn read(&mut self, end: End, buffer: &mut [u8]) -> io::Result<usize> {
        let Faults { short_read, would_block, .. } = self.faults;
        let room = buffer.len();
        self.calls += 1;
        let Some(endpoint) = self.find(end) else { return Err(io::ErrorKind::NotConnected.into()) };
        let can_block = !endpoint.received.is_empty() || endpoint.fin_received && endpoint.error.is_none();
        let delay = if can_block {
            self.occurs_for("would_block", end.index, would_block)
        } else {
            self.random.chance(would_block);
            None
        };
        let Some(endpoint) = self.find(end) else { return Err(io::ErrorKind::NotConnected.into()) };
        if endpoint.received.is_empty() {
            if let Some(kind) = endpoint.error {
                return Err(kind.into());
            }
            if !endpoint.fin_received {
                self.note(Entry::WouldBlock { end, reading: true });
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let (available, is_ended) = (endpoint.received.len().min(room), endpoint.received.is_empty());
        if let Some(delay) = delay {
            return self.hold_back(end, true, delay);
        }
        if is_ended {
            self.note(Entry::Reads { end, room, count: 0 });
            return Ok(0);
        }
        let short = self.occurs_with("short_read", end.index, short_read, |random| 1 + random.below(available));
        let count = short.unwrap_or(available);
        let Some(endpoint) = self.find(end) else { return Ok(0) };
        let (front, back) = endpoint.received.as_slices();
        let from_front = front.len().min(count);
        buffer[..from_front].copy_from_slice(&front[..from_front]);
        buffer[from_front..count].copy_from_slice(&back[..count - from_front]);
        endpoint.received.drain(..count);
        if endpoint.received.is_empty() {
            endpoint.received = VecDeque::new();
        }
        self.note(Entry::Reads { end, room, count });
        self.pay(end);
        if count < available {
            // As if the rest came a moment later.
            let delay = self.fault_delay();
            self.schedule(delay, Event::Announce { to: end });
        }
        Ok(count)
    }

    pub(in crate::sim) fn write(&mut self, end: End, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Faults { short_write, would_block, .. } = self.faults;
        self.calls += 1;
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let Some(endpoint) = self.find(end) else { return Err(io::ErrorKind::NotConnected.into()) };
        if let Some(kind) = endpoint.error {
            return Err(kind.into());
        }
        if endpoint.fin_sent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !endpoint.connected {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let room = endpoint.link.buffer_bytes.saturating_sub(endpoint.unacknowledged);
        if room == 0 {
            self.note(Entry::WouldBlock { end, reading: false });
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Some(delay) = self.occurs_for("would_block", end.index, would_block) {
            return self.hold_back(end, false, delay);
        }
        let mut count = offered.min(room);
        let longest = self.faults.delay_max;
        let short = |random: &mut Random| (1 + random.below(count), random.time(longest));
        if count > 0
            && let Some((fewer, delay)) = self.occurs_with("short_write", end.index, short_write, short)
        {
            count = fewer;
            self.schedule(delay, Event::Announce { to: end });
        }
        let mut bytes = Vec::with_capacity(count);
        for slice in slices {
            let part = slice.len().min(count - bytes.len());
            bytes.extend_from_slice(&slice[..part]);
        }
        self.note(Entry::Writes { end, offered, count });
        self.send(end, &bytes);
        Ok(count)
    }

    fn hold_back(&mut self, end: End, reading: bool, delay: Duration) -> io::Result<usize> {
        self.note(Entry::WouldBlock { end, reading });
        self.schedule(delay, Event::Announce { to: end });
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Sends bytes, regardless of the room in the buffers.
    pub(super) fn send(&mut self, end: End, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(endpoint) = self.find(end) {
            endpoint.unacknowledged += bytes.len();
        }
        self.transmit(end, bytes.len(), |other| Event::Data { from: end, to: other, bytes: bytes.into() });
    }

    pub(in crate::sim) fn shut_down_writing(&mut self, end: End) {
        let Some(endpoint) = self.find(end) else { return };
        if !std::mem::replace(&mut endpoint.fin_sent, true) {
            self.transmit(end, 0, |other| Event::Fin { to: other });
        }
        // Report readiness every time, as Linux does.
        self.announce(end);
    }

    /// Makes the end close with a reset.
    pub(in crate::sim) fn reset_on_close(&mut self, end: End) {
        let is_killing = self.is_killing;
        if let Some(endpoint) = self.find(end).filter(|_| !is_killing) {
            endpoint.resets = true;
        }
    }

    pub(in crate::sim) fn take_error(&mut self, end: End) -> Option<io::ErrorKind> {
        self.find(end).and_then(|endpoint| endpoint.error)
    }

    pub(in crate::sim) fn remote(&mut self, end: End) -> io::Result<Address> {
        match self.find(end) {
            Some(endpoint) if endpoint.connected => Ok(endpoint.remote.clone()),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(in crate::sim) fn local(&mut self, end: End) -> io::Result<Address> {
        let other = self.find(end).and_then(|endpoint| endpoint.other);
        other.ok_or_else(|| io::ErrorKind::NotConnected.into()).and_then(|other| self.remote(other))
    }

    /// Closes a socket of a loop.
    pub(in crate::sim) fn close(&mut self, end: End) {
        self.descriptors -= 1;
        self.close_unowned(end, false);
    }

    /// Closes an end: with an ordinary end of its output, or, if bytes were left unread, with a
    /// reset.
    pub(in crate::sim) fn close_unowned(&mut self, end: End, reset: bool) {
        let Some(endpoint) = self.find(end) else { return };
        let reset = reset || endpoint.resets || !endpoint.received.is_empty();
        let (failed, fin_sent) = (endpoint.error.is_some(), endpoint.fin_sent);
        self.note(Entry::Closes { end, reset });
        if reset && !failed {
            self.transmit(end, 0, |other| Event::Reset { to: other, kind: io::ErrorKind::ConnectionReset });
        } else if !failed && !fin_sent {
            self.transmit(end, 0, |other| Event::Fin { to: other });
        }
        self.unsent.remove(&end.index);
        self.endpoints.remove(end.index as usize);
        if self.endpoints.is_empty() {
            self.endpoints.shrink_to_fit();
        }
    }

    pub(in crate::sim) fn add_poller(&mut self) -> u32 {
        self.pollers.push(Polling::default());
        self.pollers.len() as u32 - 1
    }

    pub(in crate::sim) fn is_ready(&self, poller: u32) -> bool {
        let poller = &self.pollers[poller as usize];
        poller.woken.is_some() || !poller.ready.is_empty()
    }

    pub(in crate::sim) fn take_ready(&mut self, poller: u32, out: &mut Vec<Readiness>) {
        let polling = &mut self.pollers[poller as usize];
        if let Some(token) = polling.woken.take() {
            out.push(Readiness { token, readable: true, writable: false, ended: false, failed: false });
        }
        let mut ready = std::mem::take(&mut polling.ready);
        let rest = ready.split_off(ready.len().min(EVENTS_MAX));
        self.pollers[poller as usize].ready = rest;
        self.random.shuffle(&mut ready);
        for source in ready {
            let readiness = match source {
                Source::Endpoint(end) => self.readiness(end),
                Source::Listener(key) => self.listener_readiness(key, poller),
                Source::Port(id) => self.port_readiness(id),
                #[cfg(unix)]
                Source::Descriptor(id) => self.descriptor_readiness(id),
            };
            out.extend(readiness);
        }
    }

    fn readiness(&mut self, end: End) -> Option<Readiness> {
        let endpoint = self.find(end)?;
        endpoint.listed = false;
        let Owner::Poller { token, .. } = endpoint.owner else { return None };
        let failed = endpoint.error.is_some();
        let ended = endpoint.fin_received || failed;
        let room = endpoint.link.buffer_bytes.saturating_sub(endpoint.unacknowledged);
        let has_room = room >= endpoint.link.writable_room_bytes.max(1);
        Some(Readiness {
            token,
            readable: !endpoint.received.is_empty() || ended,
            writable: failed || endpoint.connected && has_room,
            ended,
            failed,
        })
    }

    fn listener_readiness(&mut self, key: u32, poller: u32) -> Option<Readiness> {
        // The key may have been reused after its listener was closed.
        let listener = self.listeners.get_mut(key as usize)?;
        let (_, token) = listener.poller.filter(|(held_by, _)| *held_by == poller)?;
        listener.listed = false;
        Some(Readiness { token, readable: !listener.queue.is_empty(), writable: false, ended: false, failed: false })
    }

    pub(in crate::sim) fn wake(&mut self, poller: u32, token: usize) {
        let Faults { late_wake, double_wake, .. } = self.faults;
        if let Some(delay) = self.occurs_for("double_wake", poller, double_wake) {
            self.schedule(delay, Event::Wake { poller, token });
        }
        if let Some(delay) = self.occurs_for("late_wake", poller, late_wake) {
            self.schedule(delay, Event::Wake { poller, token });
        } else {
            self.wake_now(poller, token);
        }
    }

    pub(super) fn wake_now(&mut self, poller: u32, token: usize) {
        self.note(Entry::Wakes { poller: poller as usize });
        self.pollers[poller as usize].woken = Some(token);
    }
}
