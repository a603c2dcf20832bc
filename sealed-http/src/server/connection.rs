//! The state that a server keeps for each connection.

use crate::server::intake::Partial;

/// The state that a server keeps for each connection.
#[derive(Debug)]
pub struct Connection<C> {
    /// A request that has arrived in part. Most requests arrive completely and need no such state.
    pub(crate) partial: Option<Box<Partial>>,
    /// Output that the client had not taken when this was last checked, in the steps of `how_much`.
    pub(crate) queued: u16,
    pub(crate) phase: Phase,
    pub(crate) marks: Marks,
    pub(crate) state: C,
}

impl<C: Default> Connection<C> {
    /// Creates a connection that speaks another protocol from the start.
    pub(crate) fn raw(state: C) -> Self {
        Self { phase: Phase::Raw, ..Self::with(state) }
    }

    /// Creates a connection that waits for its first request.
    pub(crate) fn with(state: C) -> Self {
        Self { state, ..Self::default() }
    }

    /// Creates a connection of the client to an upstream.
    pub(crate) fn outgoing() -> Self {
        Self { phase: Phase::Outgoing, ..Self::default() }
    }
}

impl<C: Default> Default for Connection<C> {
    fn default() -> Self {
        Self { partial: None, queued: 0, phase: Phase::Reading, marks: Marks::KEEP_ALIVE, state: C::default() }
    }
}

/// Flags on which a response depends, one bit each: every idle connection has one of these sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks(u8);

impl Marks {
    /// The client may send more requests, and the server will answer them.
    pub(crate) const KEEP_ALIVE: Self = Self(1);
    /// The request uses HTTP/1.0.
    pub(crate) const OLD: Self = Self(1 << 1);
    /// The request is HEAD: the response has no body.
    pub(crate) const HEAD_ONLY: Self = Self(1 << 2);
    /// The request asks for another protocol.
    pub(crate) const MAY_SWITCH: Self = Self(1 << 3);
    /// The end of the request body has not been found.
    pub(crate) const BODY_IS_COMING: Self = Self(1 << 4);

    /// A request has arrived on the connection. Before that, the time for its head runs from the
    /// start of the connection.
    pub(crate) const ASKED: Self = Self(1 << 5);
    /// The client has closed its sending side.
    pub(crate) const ENDED: Self = Self(1 << 6);
    /// There is, or may be, input that was not consumed.
    pub(crate) const INPUT_LEFT: Self = Self(1 << 7);

    /// Returns the flags with which the connection's next request begins.
    pub(crate) fn of_next_request(self) -> Self {
        Self(self.0 & (Self::ENDED.0 | Self::INPUT_LEFT.0) | Self::ASKED.0)
    }

    /// Returns whether all input has been consumed and no more can arrive.
    pub(crate) fn is_last(self) -> bool {
        self.has(Self::ENDED) && !self.has(Self::INPUT_LEFT)
    }

    pub(crate) fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    pub(crate) fn set(&mut self, mark: Self, holds: bool) {
        if holds { self.0 |= mark.0 } else { self.0 &= !mark.0 }
    }

    /// Marks the connection to be closed after the response, unless the condition holds.
    pub(crate) fn keep_if(&mut self, holds: bool) {
        self.set(Self::KEEP_ALIVE, self.has(Self::KEEP_ALIVE) && holds);
    }

    /// Returns the minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub(crate) fn version_minor(self) -> u8 {
        u8::from(!self.has(Self::OLD))
    }
}

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Reading the preface in front of the first request.
    Preface,
    /// Between requests, or receiving one.
    Reading,
    /// The handler has the request and has not started the response.
    Answering,
    /// The handler has started a streamed response.
    Streaming,
    /// The handler has started a streamed response whose length it has announced.
    Sized,
    /// The last response has been queued; no more requests are answered.
    Over,
    /// The connection speaks another protocol.
    Raw,
    /// A connection of the client to an upstream.
    Outgoing,
}

/// Returns a coarse measure of queued output, to see whether it has become less: in steps of 1 KiB,
/// and from 32 MiB on in steps of 64 KiB.
pub(crate) fn how_much(bytes: usize) -> u16 {
    const FINE_MAX: u16 = 1 << 15;
    match u16::try_from(bytes / 1024) {
        Ok(kib) if kib < FINE_MAX => kib,
        _ => u16::try_from(bytes / (64 * 1024)).map_or(u16::MAX, |steps| steps.saturating_add(FINE_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_sizes_keep_their_order() {
        let sizes =
            [0, 1 << 10, 5 << 10, (32 << 20) - 1024, 32 << 20, 40 << 20, 65 << 20, 1 << 30, (2 << 30) - (1 << 17)];
        assert!(sizes.windows(2).all(|pair| how_much(pair[0]) < how_much(pair[1])), "{:?}", sizes.map(how_much));
        assert_eq!(how_much(usize::MAX), u16::MAX);
    }
}
