//! Mail between loops about a reload of the settings.

use std::sync::Arc;

use sealed::ConnectionId;

use crate::config::table::Changes;
use crate::in_force::{InForce, Keys};

/// Mail about a reload.
#[derive(Debug)]
pub(crate) enum ReloadMail {
    /// To the first loop: a client asks for a reload.
    Asked(ReloadAsker),
    /// To the first loop, from its worker: the settings that were read, or their error.
    Read(Result<NewSettings, String>),
    /// To each loop: the settings to use from the end of the tick on.
    Adopt(InForce),
    /// To the first loop: a loop uses the new settings.
    Adopted,
    /// To each loop: the keys of `auth.jwks_url` have changed.
    Keys(Keys),
    /// To the loop of a client: the answer.
    Answer(ConnectionId, Arc<ReloadOutcome>),
}

/// A client that asks for a reload, and its loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReloadAsker {
    pub(crate) loop_index: usize,
    pub(crate) client: ConnectionId,
}

/// Settings that were read and checked.
#[derive(Debug)]
pub(crate) struct NewSettings {
    pub(crate) in_force: InForce,
    pub(crate) changes: Changes,
}

/// The outcome of a reload.
#[derive(Debug)]
pub(crate) enum ReloadOutcome {
    Applied(Changes),
    /// The settings have this error. Nothing was changed.
    Refused(String),
    /// The embedder has named no source of settings.
    NoSource,
}
