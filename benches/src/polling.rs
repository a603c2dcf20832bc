//! The crate `polling`, as the loops of the benchmarks use it: sockets are registered once and told of changes alone.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};

use polling::{Event, Events, PollMode, Poller};

/// What became ready, and room for as much as the other loops take at a time.
pub(crate) fn events() -> Events {
    Events::with_capacity(NonZeroUsize::new(1024).expect("some"))
}

/// Lets the poller tell what the socket becomes ready for, under this number.
#[allow(unsafe_code)] // there is no other way
pub(crate) fn watch(poller: &Poller, socket: &impl AsRawFd, key: usize) {
    // SAFETY: the descriptor is open, and stays so until it is removed by `forget`, or the poller is gone: whoever calls
    // keeps the socket until then.
    unsafe { poller.add_with_mode(socket, Event::all(key), PollMode::Edge) }.expect("registered");
}

/// Takes a socket out that is about to be closed.
pub(crate) fn forget(poller: &Poller, socket: impl AsFd) {
    poller.delete(socket).expect("it was there");
}
