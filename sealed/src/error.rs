//! What can go wrong, by what was tried.

use std::io;

/// An error of the loop itself. What befalls one connection comes as a [`CloseReason`] instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system gave no readiness queue or no wake-up: descriptors or memory have run out.
    #[error("cannot create an event loop")]
    Create(#[source] io::Error),
    /// The address cannot be listened on: taken, not ours, or not allowed.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address, as it was asked for.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A connection could not even be started.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address, or addresses, as they were asked for.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A socket made elsewhere cannot be taken over.
    #[error("cannot take over a socket")]
    Adopt(#[source] io::Error),
    /// The readiness queue broke; the loop cannot go on.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
    /// Signals could not be caught.
    #[error("cannot catch signals")]
    Signal(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A loop of a pool panicked; the others were stopped.
    #[error("an event loop panicked")]
    Panicked,
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The service closed it, and what was queued was sent.
    Closed,
    /// The service aborted it.
    Aborted,
    /// The peer sent its last byte, and the service let the connection end.
    Ended,
    /// It failed: reset by the peer, unreachable, timed out in the kernel.
    Failed(io::ErrorKind),
    /// An outgoing connection was not made.
    NotConnected(io::ErrorKind),
    /// Its deadline passed.
    TimedOut,
    /// More was queued for it than [`Config::output_bytes_max`](crate::Config::output_bytes_max).
    OutputFull,
    /// The loop went down and its time limit had passed.
    Shutdown,
}
