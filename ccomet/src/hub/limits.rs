//! What a loop's hub may hold.

use std::sync::Arc;
use std::time::Duration;

use super::encoder::Encoders;
use crate::config::rules::Rules;

/// What a loop's hub may hold, how long it waits, and in which protocols it writes.
#[derive(Debug, Clone)]
pub(crate) struct HubLimits {
    pub(crate) rules: Arc<Rules>,
    pub(crate) encoders: Encoders,
    pub(crate) subscribers_max: usize,
    /// Bytes handed to one subscriber at a time.
    pub(crate) batch_bytes_max: usize,
    /// Bytes of encoded messages that are kept for others.
    pub(crate) encoded_bytes_max: usize,
    /// How long a loop stays attached to a channel that nobody on it reads: the pause between two
    /// polls, and more.
    pub(crate) linger: Duration,
    /// The time between two heartbeats.
    pub(crate) heartbeat: Duration,
    /// The silence in a channel after which its streams get a heartbeat, in protocols that count
    /// from there.
    pub(crate) channel_silence_max: Duration,
}
