use std::io;
use std::time::Duration;

use super::network::PeerState;
use super::trace::End;
use super::{PATIENCE, Simulation};
use crate::address::Address;

/// A test's own end of a connection to a loop: it says what it wants on the wire, and time passes while it waits.
///
/// Dropping it closes the connection, with a reset where something was received and not taken.
#[derive(Debug)]
pub struct Peer {
    sim: Simulation,
    end: End,
}

impl Peer {
    pub(super) fn new(sim: Simulation, end: End) -> Self {
        Self { sim, end }
    }

    /// Sends bytes, as soon as the connection is there. Does not wait. Nothing is sent once it has failed.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.sim.net(|net| net.peer_sends(self.end, bytes.as_ref()));
    }

    /// Sends its end: no more will come, but it still reads.
    pub fn finish(&mut self) {
        self.sim.net(|net| net.peer_finishes(self.end));
    }

    /// Resets the connection.
    pub fn reset(self) {
        self.sim.net(|net| net.close_unowned(self.end, true));
    }

    /// Falls silent for good: nothing is sent or acknowledged any more, as when a phone loses its network.
    pub fn vanish(&mut self) {
        self.sim.net(|net| net.vanish(self.end));
    }

    /// Stops reading: buffers fill up on the way here.
    pub fn stall(&mut self) {
        self.sim.net(|net| net.set_stalled(self.end, true));
    }

    /// Goes on reading.
    pub fn unstall(&mut self) {
        self.sim.net(|net| net.set_stalled(self.end, false));
    }

    /// From now on reads and keeps nothing but a count.
    pub fn discard(&mut self) {
        self.sim.net(|net| net.set_discards(self.end));
    }

    /// Everything received and not taken yet. Does not wait.
    pub fn take(&mut self) -> Vec<u8> {
        self.sim.net(|net| net.peer_takes(self.end))
    }

    /// How many bytes have been received in all.
    pub fn count_received(&self) -> u64 {
        self.state().count_received
    }

    /// Whether the connection has been made.
    pub fn is_connected(&self) -> bool {
        self.state().connected
    }

    /// Whether the other end has said that no more will come.
    pub fn is_ended(&self) -> bool {
        self.state().ended
    }

    /// Why the connection failed, if it did: refused, reset, timed out.
    pub fn failure(&self) -> Option<io::ErrorKind> {
        self.state().error
    }

    /// Whether nothing more will come: ended, failed, or silent for good.
    pub fn is_over(&self) -> bool {
        let state = self.state();
        state.ended || state.error.is_some() || state.vanished
    }

    /// Lets time pass until this text has come, and returns everything up to its end; what is behind it is left for the
    /// next call.
    ///
    /// # Panics
    ///
    /// With the trace, if the connection ends or ten simulated minutes pass before.
    pub fn expect(&mut self, text: impl AsRef<[u8]>) -> Vec<u8> {
        let text = text.as_ref();
        let mut held = Vec::new();
        let sim = self.sim.clone();
        let found = sim.run_until(PATIENCE, || {
            held.append(&mut self.take());
            find(&held, text).is_some() || self.is_over()
        });
        match find(&held, text) {
            Some(at) if found => {
                let rest = held.split_off(at + text.len());
                self.sim.net(|net| net.peer_gives_back(self.end, &rest));
                held
            }
            _ => panic!(
                "{:?} was expected, and this came: {:?} {:?}\n{}",
                String::from_utf8_lossy(text),
                String::from_utf8_lossy(&held),
                self.state(),
                sim.trace()
            ),
        }
    }

    /// Lets time pass until the connection ends, and returns what came before.
    ///
    /// # Panics
    ///
    /// With the trace, if ten simulated minutes pass before.
    pub fn expect_end(&mut self) -> Vec<u8> {
        let sim = self.sim.clone();
        let over = sim.run_until(PATIENCE, || self.is_over());
        assert!(over, "the end was expected, and this came: {:?}\n{}", self.take(), sim.trace());
        self.take()
    }

    /// Lets this time pass, and returns whether nothing came and nothing ended meanwhile.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        let count = self.count_received();
        self.sim.run_for(time);
        self.count_received() == count && !self.is_over()
    }

    fn state(&self) -> PeerState {
        self.sim.net(|net| net.peer_state(self.end))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.sim.net(|net| net.close_unowned(self.end, false));
    }
}

/// A test's own listener, for loops to connect to.
#[derive(Debug)]
pub struct Host {
    sim: Simulation,
    key: u32,
    address: Address,
}

impl Host {
    pub(super) fn new(sim: Simulation, key: u32, address: Address) -> Self {
        Self { sim, key, address }
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        self.address.clone()
    }

    /// Takes a connection that has arrived, if one has. Does not wait.
    pub fn accept(&self) -> Option<Peer> {
        let end = self.sim.net(|net| net.accept_for_peer(self.key))?;
        Some(Peer::new(self.sim.clone(), end))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.sim.net(|net| net.close_peer_listener(self.key));
    }
}

fn find(held: &[u8], text: &[u8]) -> Option<usize> {
    if text.is_empty() {
        return Some(0);
    }
    held.windows(text.len()).position(|window| window == text)
}
