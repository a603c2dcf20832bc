//! The crate `polling`, as the loops of the benchmarks use it: sockets are registered once, and the
//! loops are notified only of changes.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};

use polling::{Event, Events, PollMode, Poller};

/// Returns a list of events, with room for as many as the other loops take at a time.
pub(crate) fn events() -> Events {
    Events::with_capacity(NonZeroUsize::new(1024).expect("some"))
}

/// Makes the poller report the readiness of the socket under this number.
#[allow(unsafe_code)] // the crate has no safe function for this
pub(crate) fn watch(poller: &Poller, socket: &impl AsRawFd, key: usize) {
    // SAFETY: the descriptor is open, and stays open until `forget` removes it or the poller is
    // gone, because the caller keeps the socket until then.
    unsafe { poller.add_with_mode(socket, Event::all(key), PollMode::Edge) }.expect("registered");
}

/// Removes a socket that is about to be closed.
pub(crate) fn forget(poller: &Poller, socket: impl AsFd) {
    poller.delete(socket).expect("it was there");
}
