//! Foreign descriptors as sources of events. `guard.rs` holds the object of a source and keeps it
//! registered, `table.rs` what the loop knows of each source.

#[cfg(unix)]
mod guard;
// Only a guard adds and removes entries.
#[cfg_attr(not(unix), allow(dead_code))]
mod table;

#[cfg(unix)]
pub use self::guard::{Interest, Source};
pub(crate) use self::table::Sources;
use crate::net::Readiness;

/// What the system has reported for a source, in one or several events: see
/// [`Service::ready`](crate::Service::ready).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts, any of which may hold
pub struct Ready {
    readable: bool,
    writable: bool,
    ended: bool,
    failed: bool,
}

impl Ready {
    fn of(event: &Readiness) -> Self {
        let Readiness { readable, writable, ended, failed, .. } = *event;
        Self { readable: readable || ended || failed, writable: writable || failed, ended, failed }
    }

    /// Returns whether a read may succeed: bytes have arrived, or the read returns the end or an
    /// error. Reports can be spurious: a read may still return
    /// [`WouldBlock`](std::io::ErrorKind::WouldBlock).
    pub fn readable(self) -> bool {
        self.readable
    }

    /// Returns whether a write may succeed: there is room for bytes, or the write returns an error.
    /// Reports can be spurious: a write may still return
    /// [`WouldBlock`](std::io::ErrorKind::WouldBlock).
    pub fn writable(self) -> bool {
        self.writable
    }

    /// Returns whether the other end has been closed or sends no more bytes. Bytes that it sent
    /// before may still have to be read; the end follows them.
    pub fn ended(self) -> bool {
        self.ended
    }

    /// Returns whether the descriptor is in an error state, such as a pipe whose reading end has
    /// been closed. The next read or write returns the error.
    pub fn failed(self) -> bool {
        self.failed
    }

    /// Returns what either of two reports contains.
    fn and(self, other: Self) -> Self {
        Self {
            readable: self.readable || other.readable,
            writable: self.writable || other.writable,
            ended: self.ended || other.ended,
            failed: self.failed || other.failed,
        }
    }
}
