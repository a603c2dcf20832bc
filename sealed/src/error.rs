//! Errors of the loop, by operation, and the reasons why connections end.

use std::any::Any;
use std::{fmt, io};

/// An error of the loop itself. Failures of a single connection are reported as a [`CloseReason`]
/// instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system could not create a readiness queue or a waker: file descriptors or memory have
    /// run out.
    #[error("cannot create an event loop")]
    Create(#[source] io::Error),
    /// The loop cannot listen on the address: it is in use, not local, or not permitted.
    #[error("cannot listen on {address}")]
    Listen {
        /// The requested address.
        address: String,
        /// The error that the system returned.
        #[source]
        source: io::Error,
    },
    /// A connection could not even be started.
    #[error("cannot connect to {address}")]
    Connect {
        /// The requested address or addresses.
        address: String,
        /// The error that the system returned.
        #[source]
        source: io::Error,
    },
    /// A datagram socket could not be opened: its address is in use, not local, or not permitted,
    /// or an option could not be set.
    #[error("cannot open a datagram socket for {address}")]
    Datagram {
        /// The requested address: the one to bind, or, without one, that of the peer.
        address: String,
        /// The error that the system returned.
        #[source]
        source: io::Error,
    },
    /// A socket created elsewhere could not be taken over.
    #[error("cannot take over a socket")]
    Adopt(#[source] io::Error),
    /// The loop cannot report the readiness of a descriptor.
    #[error("cannot wait for a file descriptor")]
    Source(#[source] io::Error),
    /// The readiness queue failed; the loop cannot continue.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
    /// The signals could not be caught.
    #[error("cannot catch signals")]
    Signal(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A call of the service panicked with this message, and the loop cannot continue: see
    /// [`Service::panicked`](crate::Service::panicked). If the loop belonged to a pool, the other
    /// loops were stopped.
    #[error("an event loop panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// Returns the error for a panic, with the message of its payload if that is text.
    pub(crate) fn of_panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panicked(text.unwrap_or("no message").to_owned())
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why a connection ended.
///
/// With [`Closed`](Self::Closed) and [`Ended`](Self::Ended), the system has taken all output and
/// continues to send it. If queued output is lost, another reason is reported, no matter which side
/// closed the connection first, and the peer sees a reset: it never sees an ordinary end after
/// truncated output. (Unix sockets have no resets; there only the reason shows the loss.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The service closed the connection before the peer had ended, and the system has taken all
    /// queued output.
    Closed,
    /// The service aborted the connection.
    Aborted,
    /// The peer sent its last byte, the service closed the connection after that, and the system
    /// has taken all queued output.
    Ended,
    /// The connection failed: the peer reset it, became unreachable, or timed out in the kernel.
    /// With TLS also if the peer broke the protocol or sent an alert (`InvalidData`), or if it
    /// ended without announcing it (`UnexpectedEof`).
    Failed(io::ErrorKind),
    /// An outgoing connection could not be made.
    NotConnected(io::ErrorKind),
    /// The deadline of the connection passed, or the limit of a TLS handshake, except that of an
    /// outgoing connection that is being made; or the connection was closed, and its peer accepted
    /// no queued output for the [linger time](crate::Context::set_linger).
    TimedOut,
    /// A write would have queued more than
    /// [`Config::output_bytes_max`](crate::Config::output_bytes_max) for the connection.
    OutputFull,
    /// The loop shut down and its drain limit passed.
    Shutdown,
    /// A call of the service for the connection panicked, and the service [kept the
    /// loop](crate::Service::panicked).
    Panicked,
}

/// Writes the reason as a short text for a log.
///
/// ```
/// use sealed::CloseReason;
///
/// assert_eq!(CloseReason::Ended.to_string(), "the peer ended");
/// assert_eq!(CloseReason::Failed(std::io::ErrorKind::ConnectionReset).to_string(), "connection reset");
/// ```
impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed by this side",
            Self::Aborted => "aborted by this side",
            Self::Ended => "the peer ended",
            Self::Failed(kind) => return write!(f, "{kind}"),
            Self::NotConnected(kind) => return write!(f, "not connected: {kind}"),
            Self::TimedOut => "timed out",
            Self::OutputFull => "the peer reads too slowly",
            Self::Shutdown => "the drain limit of the loop has passed",
            Self::Panicked => "a call of the service panicked",
        })
    }
}
