//! The settings of a store in Redis.

use std::fmt;

use sealed::Connect;

/// The settings of a store in Redis.
#[derive(Clone)]
pub(crate) struct RedisSettings {
    /// The way to Redis: its address, and TLS.
    pub(crate) connect: Connect,
    /// The address as logs and errors show it, without a secret.
    pub(crate) shown: Box<str>,
    /// The user; with a password alone, the user `default`.
    pub(crate) user: Option<Box<str>>,
    pub(crate) password: Option<Box<str>>,
    /// The number of the database.
    pub(crate) db: u32,
    /// The beginning of all names of keys.
    pub(crate) prefix: Box<str>,
    /// The number of messages of a channel that are in memory at most.
    pub(crate) window_max: usize,
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("shown", &self.shown)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
