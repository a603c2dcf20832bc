use std::io;
use std::time::Duration;

use super::network::PeerState;
use super::trace::End;
use super::{PATIENCE, Simulation};
use crate::address::Address;

/// A test's end of a connection to a loop. The test decides what is sent on the wire, and time
/// passes while the peer waits.
///
/// Dropping a peer closes the connection, with a reset if received bytes have not been taken.
#[derive(Debug)]
pub struct Peer {
    sim: Simulation,
    end: End,
}

impl Peer {
    pub(super) fn new(sim: Simulation, end: End) -> Self {
        Self { sim, end }
    }

    /// Sends bytes as soon as the connection is made. Does not wait. If the connection has failed,
    /// nothing is sent.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.sim.net(|net| net.peer_sends(self.end, bytes.as_ref()));
    }

    /// Half-closes the connection: the peer sends no more bytes but still reads.
    pub fn finish(&mut self) {
        self.sim.net(|net| net.peer_finishes(self.end));
    }

    /// Resets the connection.
    pub fn reset(self) {
        self.sim.net(|net| net.close_unowned(self.end, true));
    }

    /// Falls silent permanently: the peer sends and acknowledges nothing any more, like a phone
    /// that has lost its network.
    pub fn vanish(&mut self) {
        self.sim.net(|net| net.vanish(self.end));
    }

    /// Stops reading, so that the buffers on the way to the peer fill up.
    pub fn stall(&mut self) {
        self.sim.net(|net| net.set_stalled(self.end, true));
    }

    /// Resumes reading.
    pub fn unstall(&mut self) {
        self.sim.net(|net| net.set_stalled(self.end, false));
    }

    /// Discards received bytes from now on, and only counts them.
    pub fn discard(&mut self) {
        self.sim.net(|net| net.set_discards(self.end));
    }

    /// Returns all bytes that were received and not taken yet. Does not wait.
    pub fn take(&mut self) -> Vec<u8> {
        self.sim.net(|net| net.peer_takes(self.end))
    }

    /// Returns a copy of the bytes that were received and not taken yet. Does not wait.
    pub fn peek(&self) -> Vec<u8> {
        self.sim.net(|net| net.peer_received(self.end))
    }

    /// Returns the total number of bytes received.
    pub fn count_received(&self) -> u64 {
        self.state().count_received
    }

    /// Returns whether the connection has been made.
    pub fn is_connected(&self) -> bool {
        self.state().connected
    }

    /// Returns whether the other end has sent the end of its output.
    pub fn is_ended(&self) -> bool {
        self.state().ended
    }

    /// Returns why the connection failed, if it did: refused, reset, or timed out.
    pub fn failure(&self) -> Option<io::ErrorKind> {
        self.state().error
    }

    /// Returns whether nothing more will come: the connection has ended or failed, or this peer has
    /// [vanished](Self::vanish).
    pub fn is_over(&self) -> bool {
        let state = self.state();
        state.ended || state.error.is_some() || state.vanished
    }

    /// Lets time pass until `text` has been received, and returns all bytes up to and including it.
    /// Later bytes are left for the next call.
    ///
    /// # Panics
    ///
    /// Panics with the trace if the connection ends or ten simulated minutes pass before, or if a
    /// loop ends with an error.
    #[track_caller]
    pub fn expect(&mut self, text: impl AsRef<[u8]>) -> Vec<u8> {
        let text = text.as_ref();
        let upto = |held: &[u8]| find(held, text).map(|at| ((), at + text.len()));
        match self.wait_for(upto) {
            Ok(((), taken)) => taken,
            Err(held) => self.give_up(&format!("{:?}", String::from_utf8_lossy(text)), &held),
        }
    }

    /// Lets time pass until `count` bytes have been received, and returns them. Later bytes are
    /// left for the next call.
    ///
    /// # Panics
    ///
    /// Panics with the trace if the connection ends or ten simulated minutes pass before, or if a
    /// loop ends with an error.
    #[track_caller]
    pub fn take_exact(&mut self, count: usize) -> Vec<u8> {
        match self.wait_for(|held| (held.len() >= count).then_some(((), count))) {
            Ok(((), taken)) => taken,
            Err(held) => self.give_up(&format!("{count} bytes"), &held),
        }
    }

    /// Lets time pass until `decode` finds a whole frame at the beginning of the bytes that were
    /// received, and returns the frame.
    ///
    /// `decode` gets all bytes that were not taken yet, whenever there are more of them. It returns
    /// `None` as long as the frame is not complete, and then the frame and its length in bytes;
    /// later bytes are left for the next call.
    ///
    /// ```
    /// # use sealed::{Config, ConnectionId, Context, Input, Service};
    /// # struct Echo;
    /// # impl Service for Echo {
    /// #     type Connection = ();
    /// #     type Message = ();
    /// #     type Timer = ();
    /// #     fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
    /// #         cx.write(id, input.take_all());
    /// #     }
    /// # }
    /// /// Decodes a frame: the length in one byte, and then as many bytes.
    /// fn frame(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    ///     let (length, rest) = bytes.split_first()?;
    ///     let body = rest.get(..usize::from(*length))?;
    ///     Some((body.to_vec(), 1 + body.len()))
    /// }
    ///
    /// # let sim = sealed::sim::Simulation::new(1);
    /// # let mut event_loop = sim.event_loop(Config::default(), Echo)?;
    /// # let address = event_loop.listen("10.0.0.1:80")?.address;
    /// # sim.start(event_loop);
    /// let mut peer = sim.connect(address);
    /// peer.send(b"\x05hello\x02you");
    /// assert_eq!(peer.decode(frame), b"hello");
    /// assert_eq!(peer.decode(frame), b"yo");
    /// assert_eq!(peer.peek(), b"u");
    /// # Ok::<(), sealed::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Panics with the trace if the connection ends or ten simulated minutes pass before, or if a
    /// loop ends with an error. Panics also if `decode` returns a length that is greater than the
    /// number of bytes.
    #[track_caller]
    pub fn decode<T>(&mut self, decode: impl FnMut(&[u8]) -> Option<(T, usize)>) -> T {
        match self.wait_for(decode) {
            Ok((frame, _)) => frame,
            Err(held) => self.give_up("a frame", &held),
        }
    }

    /// Lets time pass until `find` returns a value and the number of bytes that belong to it. Takes
    /// these bytes and returns both, or returns all bytes that were received if the connection ends
    /// before.
    #[track_caller]
    fn wait_for<T>(&mut self, mut find: impl FnMut(&[u8]) -> Option<(T, usize)>) -> Result<(T, Vec<u8>), Vec<u8>> {
        let sim = self.sim.clone();
        let mut held = self.take();
        let mut found = find(&held);
        sim.run_until(PATIENCE, || {
            if found.is_none() {
                let more = self.take();
                if !more.is_empty() {
                    held.extend(more);
                    found = find(&held);
                }
            }
            found.is_some() || self.is_over()
        });
        let Some((value, length)) = found else { return Err(held) };
        assert!(length <= held.len(), "a frame of {length} bytes in {}", held.len());
        let rest = held.split_off(length);
        self.sim.net(|net| net.peer_gives_back(self.end, &rest));
        Ok((value, held))
    }

    #[track_caller]
    fn give_up(&self, expected: &str, held: &[u8]) -> ! {
        let (came, trace) = (String::from_utf8_lossy(held), self.sim.trace_of_panic());
        panic!("{expected} was expected, and this came: {came:?} {:?}\n{trace}", self.state());
    }

    /// Lets time pass until the connection ends, and returns the bytes received before.
    ///
    /// # Panics
    ///
    /// Panics with the trace if ten simulated minutes pass before, or if a loop ends with an error.
    #[track_caller]
    pub fn expect_end(&mut self) -> Vec<u8> {
        let sim = self.sim.clone();
        let over = sim.run_until(PATIENCE, || self.is_over());
        assert!(over, "the end was expected, and this came: {:?}\n{}", self.take(), sim.trace_of_panic());
        self.take()
    }

    /// Lets this much time pass, and returns whether no byte was received and the connection did
    /// not end meanwhile.
    ///
    /// # Panics
    ///
    /// Panics with the trace if a loop ends with an error.
    #[track_caller]
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

/// A test's listener, for loops to connect to: see [`Simulation::listen`]. Dropping it closes it.
#[derive(Debug)]
pub struct PeerListener {
    sim: Simulation,
    key: u32,
    address: Address,
}

impl PeerListener {
    pub(super) fn new(sim: Simulation, key: u32, address: Address) -> Self {
        Self { sim, key, address }
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> Address {
        self.address.clone()
    }

    /// Accepts a connection that has arrived, if there is one. Does not wait.
    pub fn accept(&self) -> Option<Peer> {
        let end = self.sim.net(|net| net.accept_for_peer(self.key))?;
        Some(Peer::new(self.sim.clone(), end))
    }
}

impl Drop for PeerListener {
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
