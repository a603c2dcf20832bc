//! What can go wrong, by what was tried.

use std::any::Any;
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
    /// A call of the service panicked with this message, and the loop cannot go on: see
    /// [`Service::panicked`](crate::Service::panicked). Where it was one of a pool, the others were stopped.
    #[error("an event loop panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// What a panic says, as far as it is text.
    pub(crate) fn of_panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panicked(text.unwrap_or("no message").to_owned())
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a connection ended.
///
/// Of [`Closed`](Self::Closed) and [`Ended`](Self::Ended) all output is with the system, which goes on sending it. Where queued
/// output is lost, another reason is told, whoever closed the connection first, and the peer sees a reset: never an ordinary end
/// behind a part of the output. (Unix sockets know no resets; there the reason alone tells.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The service closed it, and all that was queued is with the system.
    Closed,
    /// The service aborted it.
    Aborted,
    /// The peer sent its last byte, the service let the connection end, and all that was queued is with the system.
    Ended,
    /// It failed: reset by the peer, unreachable, timed out in the kernel.
    Failed(io::ErrorKind),
    /// An outgoing connection was not made.
    NotConnected(io::ErrorKind),
    /// Its deadline passed; or it was closed, and its peer took nothing of what was queued for as long as the
    /// [linger](crate::Context::set_linger).
    TimedOut,
    /// More was to be queued for it than [`Config::output_bytes_max`](crate::Config::output_bytes_max).
    OutputFull,
    /// The loop went down and its time limit had passed.
    Shutdown,
    /// A call of the service for it panicked, and the service [kept the loop](crate::Service::panicked).
    Panicked,
}
