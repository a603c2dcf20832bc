//! The slot of a connection in the slab.

use std::ops::{BitOr, BitOrAssign};

use crate::buffers::{Buffers, Extras};
use crate::error::CloseReason;
use crate::net::Stream;
use crate::rate::Way;
use crate::service::Service;
use crate::wheel;

/// The state that a loop keeps for one connection, besides the buffers that it lends while bytes
/// are in flight.
#[derive(Debug)]
pub(crate) struct Slot<C> {
    pub(crate) stream: Stream,
    pub(crate) serial: u32,
    pub(crate) deadline: wheel::Node,
    pub(crate) flags: Flags,
    /// The listener that accepted the connection, or [`NO_LISTENER`].
    pub(crate) listener: u16,
    pub(crate) buffers: Option<Box<Buffers>>,
    pub(crate) state: C,
}

/// The listener number of a connection that no listener accepted.
pub(crate) const NO_LISTENER: u16 = u16::MAX;

// The cost of an idle connection. In debug builds mio also stores the id of a selector in each
// socket, and a socket that may be simulated holds its network.
#[cfg(all(target_pointer_width = "64", not(debug_assertions), not(feature = "sim")))]
const _: () = assert!(size_of::<Slot<()>>() <= 40 && size_of::<Slot<u64>>() <= 48);

/// Returns the bytes that a loop keeps for each connection of a service, including the service's
/// state. The value is a constant, so a service can check it against a budget.
pub const fn slot_bytes<S: Service>() -> usize {
    // The slab wraps each slot as occupied or vacant.
    size_of::<Option<Slot<S::Connection>>>()
}

impl<C> Slot<C> {
    pub(crate) fn new(stream: Stream, serial: u32, flags: Flags, state: C) -> Self {
        Self { stream, serial, deadline: wheel::Node::default(), flags, listener: NO_LISTENER, buffers: None, state }
    }

    pub(crate) fn is(&self, flags: Flags) -> bool {
        self.flags.0 & flags.0 != 0
    }

    pub(crate) fn set(&mut self, flags: Flags) {
        self.flags |= flags;
    }

    pub(crate) fn clear(&mut self, flags: Flags) {
        self.flags.0 &= !flags.0;
    }

    /// Sets a flag and returns whether it was clear before.
    pub(crate) fn raise(&mut self, flag: Flags) -> bool {
        let was_clear = !self.is(flag);
        self.set(flag);
        was_clear
    }

    pub(crate) fn output_len(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers.output_len())
    }

    /// Returns whether output would be lost if the connection ended now.
    pub(crate) fn has_unsent(&self) -> bool {
        self.buffers.as_ref().is_some_and(|buffers| buffers.has_unsent())
    }

    /// Returns the number of encrypted bytes that the kernel has taken; 0 without TLS.
    pub(crate) fn ciphered_sent(&self) -> u64 {
        let extras = self.buffers.as_ref().and_then(|buffers| buffers.extras.as_ref());
        extras.and_then(|extras| extras.tls.as_ref()).map_or(0, |tls| tls.sent)
    }

    pub(crate) fn sent_ahead(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers.outbox.sent_ahead)
    }

    /// Returns whether the service may still be called.
    pub(crate) fn is_open(&self) -> bool {
        !self.is(Flags::FINISHING | Flags::CLOSING)
    }

    /// Returns whether the service may still write.
    pub(crate) fn is_writable(&self) -> bool {
        !self.is(Flags::FINISHING | Flags::CLOSING | Flags::SHUT)
    }

    /// Returns the extras of the connection, if it has any.
    pub(crate) fn extras(&mut self) -> Option<&mut Extras> {
        self.buffers.as_mut().and_then(|buffers| buffers.extras.as_deref_mut())
    }

    pub(crate) fn has_extras(&self) -> bool {
        self.buffers.as_ref().is_some_and(|buffers| buffers.extras.is_some())
    }

    /// Returns whether the rate limit of the connection holds its output back.
    pub(crate) fn is_held_back(&self) -> bool {
        let extras = self.buffers.as_ref().and_then(|buffers| buffers.extras.as_ref());
        extras.and_then(|extras| extras.pace.as_ref()).is_some_and(|pace| pace.waits(Way::Out))
    }

    /// Returns why the connection ends, once the service has closed it.
    pub(crate) fn finish_reason(&self) -> CloseReason {
        if self.is(Flags::ENDING) { CloseReason::Ended } else { CloseReason::Closed }
    }
}

/// The state of a connection, one bit per fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(u16);

impl Flags {
    /// The kernel may have bytes to read.
    pub(crate) const READABLE: Self = Self(1);
    /// The kernel takes bytes, as far as is known.
    pub(crate) const WRITABLE: Self = Self(1 << 1);
    /// The connection is in the list of connections to read.
    pub(crate) const TO_READ: Self = Self(1 << 2);
    /// The connection is in the list of connections to flush.
    pub(crate) const TO_FLUSH: Self = Self(1 << 3);
    /// The service has paused reading.
    pub(crate) const PAUSED: Self = Self(1 << 4);
    /// The service is to see its leftover input again, even if no more has come.
    pub(crate) const AGAIN: Self = Self(1 << 5);
    /// The kernel reported the end of the peer's output; a short read does not mean that the stream
    /// is empty.
    pub(crate) const END_SEEN: Self = Self(1 << 6);
    /// The end of the peer's output has been read.
    pub(crate) const ENDED: Self = Self(1 << 7);
    /// The connection has not been made yet.
    pub(crate) const CONNECTING: Self = Self(1 << 8);
    /// The service closed the connection: send the queued output, then wait for the peer's end.
    pub(crate) const FINISHING: Self = Self(1 << 9);
    /// The end of this side's output has been sent; only the peer's end is missing.
    pub(crate) const LINGERING: Self = Self(1 << 10);
    /// The connection is in the list of connections that end with this tick.
    pub(crate) const CLOSING: Self = Self(1 << 11);
    /// `closed` has been called.
    pub(crate) const CLOSED: Self = Self(1 << 12);
    /// The service has half-closed the connection: this side's end is sent after the queued output.
    pub(crate) const SHUT: Self = Self(1 << 13);
    /// The peer's TLS `close_notify` has been reported.
    #[cfg_attr(not(feature = "tls"), allow(dead_code))] // only `tls.rs` uses it
    pub(crate) const TLS_ENDED: Self = Self(1 << 15);
    /// The service closed the connection because the peer ended.
    pub(crate) const ENDING: Self = Self(1 << 14);
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
