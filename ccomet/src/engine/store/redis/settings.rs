//! The settings of the links to Redis.

use std::fmt;

use sealed::Connect;

/// The settings of the links to Redis.
#[derive(Clone)]
pub(crate) struct LinkSettings {
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
}

impl fmt::Debug for LinkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSettings").field("shown", &self.shown).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
