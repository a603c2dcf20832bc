//! Ids of the objects that a loop owns. Each id is a slot and a serial number, so a stale id is
//! harmless.

use std::fmt;

/// Defines ids, each with the word that stands for it in debug output.
macro_rules! ids {
    ($($(#[$documentation:meta])* $name:ident $word:literal;)*) => {$(
        $(#[$documentation])*
        ///
        /// A stale id finds nothing, even if the slot has been reused: serial numbers repeat only
        /// after 4,294,967,296 objects. An id is valid only on the loop, and for the service, that
        /// issued it. The default value identifies nothing.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            pub(crate) slot: u32,
            pub(crate) serial: u32,
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}#{}"), self.slot, self.serial)
            }
        }
    )*};
}

ids! {
    /// Identifies a connection.
    ConnectionId "connection";
    /// Identifies a datagram socket.
    DatagramId "datagram socket";
    /// Identifies a future that a loop runs: see
    /// [`Context::run_future`](crate::Context::run_future).
    FutureId "future";
    /// Identifies a source: see [`Context::add_source`](crate::Context::add_source).
    SourceId "source";
    /// Identifies a timer.
    TimerId "timer";
    /// Identifies work that was passed to [`Workers`](crate::Workers).
    WorkId "work";
}

/// Identifies a listener of one loop. Listeners are numbered from 0 in the order in which they were
/// added, so an address has the same number on every loop of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub(crate) u32);

impl ListenerId {
    /// Returns the number of the listener, from 0 in the order in which listeners were added.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
