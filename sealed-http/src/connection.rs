//! What a server keeps for each connection.

use crate::intake::Partial;

/// What a server keeps for each connection.
#[derive(Debug)]
pub struct Connection<C> {
    /// A request of which a part has come. Most come whole, and need nothing kept.
    pub(crate) partial: Option<Box<Partial>>,
    /// KiB of an answer that the client had not taken when that was looked at last.
    pub(crate) queued: u16,
    pub(crate) phase: Phase,
    pub(crate) marks: Marks,
    pub(crate) state: C,
}

impl<C: Default> Connection<C> {
    /// One that speaks another protocol from the start.
    pub(crate) fn raw(state: C) -> Self {
        Self { phase: Phase::Raw, ..Self::with(state) }
    }

    /// One on which the first request is awaited.
    pub(crate) fn with(state: C) -> Self {
        Self { state, ..Self::default() }
    }

    /// One that this side makes, to ask something of a server.
    pub(crate) fn outgoing() -> Self {
        Self { phase: Phase::Outgoing, ..Self::default() }
    }
}

impl<C: Default> Default for Connection<C> {
    fn default() -> Self {
        Self { partial: None, queued: 0, phase: Phase::Reading, marks: Marks::KEEP_ALIVE, state: C::default() }
    }
}

/// What an answer depends on, a bit each: there is one of these for each idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks(u8);

impl Marks {
    /// The client will send more requests, and may.
    pub(crate) const KEEP_ALIVE: Self = Self(1);
    /// Its request is of HTTP/1.0.
    pub(crate) const OLD: Self = Self(1 << 1);
    /// It wants a head, and no body.
    pub(crate) const HEAD_ONLY: Self = Self(1 << 2);
    /// It asked for another protocol.
    pub(crate) const MAY_SWITCH: Self = Self(1 << 3);
    /// The end of its request's body has not been found.
    pub(crate) const BODY_IS_COMING: Self = Self(1 << 4);

    /// A request has come on it: time for the first one's head runs from the connection.
    pub(crate) const ASKED: Self = Self(1 << 5);
    /// The client has sent its end.
    pub(crate) const ENDED: Self = Self(1 << 6);
    /// There is, or may be, input that was not taken.
    pub(crate) const INPUT_LEFT: Self = Self(1 << 7);

    /// Those that belong to the connection, as a new request begins on it.
    pub(crate) fn of_next_request(self) -> Self {
        Self(self.0 & (Self::ENDED.0 | Self::INPUT_LEFT.0) | Self::ASKED.0)
    }

    /// Whether nothing can come any more that has not been taken.
    pub(crate) fn is_last(self) -> bool {
        self.has(Self::ENDED) && !self.has(Self::INPUT_LEFT)
    }

    pub(crate) fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    pub(crate) fn set(&mut self, mark: Self, holds: bool) {
        if holds { self.0 |= mark.0 } else { self.0 &= !mark.0 }
    }

    /// Where this does not hold, the connection is closed behind the answer.
    pub(crate) fn keep_if(&mut self, holds: bool) {
        self.set(Self::KEEP_ALIVE, self.has(Self::KEEP_ALIVE) && holds);
    }

    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub(crate) fn version_minor(self) -> u8 {
        u8::from(!self.has(Self::OLD))
    }
}

/// Where a connection is in its exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In front of the first request, in what is no request.
    Preface,
    /// Between requests, or within one.
    Reading,
    /// The handler has the request.
    Answering,
    /// The handler has started a stream.
    Streaming,
    /// Nothing more will be answered.
    Over,
    /// Another protocol is spoken.
    Raw,
    /// It is this side that asks.
    Outgoing,
}

/// How much is queued, so that it can be seen whether that is less than it was: in steps of 1 KiB, and from 32 MiB on of 64 KiB.
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
    fn less_is_less_at_every_size() {
        let sizes =
            [0, 1 << 10, 5 << 10, (32 << 20) - 1024, 32 << 20, 40 << 20, 65 << 20, 1 << 30, (2 << 30) - (1 << 17)];
        assert!(sizes.windows(2).all(|pair| how_much(pair[0]) < how_much(pair[1])), "{:?}", sizes.map(how_much));
        assert_eq!(how_much(usize::MAX), u16::MAX);
    }
}
