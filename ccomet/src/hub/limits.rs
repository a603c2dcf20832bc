//! Limits of a loop's hub.

use std::sync::Arc;
use std::time::Duration;

use super::encoder::Encoders;
use crate::config::rules::Rules;

/// The limits of a loop's hub, its times, and its protocols.
#[derive(Debug, Clone)]
pub(crate) struct HubLimits {
    pub(crate) rules: Arc<Rules>,
    pub(crate) encoders: Encoders,
    pub(crate) subscribers_max: usize,
    /// The maximum number of bytes delivered to one subscriber at a time.
    pub(crate) batch_bytes_max: usize,
    /// The maximum number of bytes of encoded messages that the cache keeps.
    pub(crate) encoded_bytes_max: usize,
    /// How long a loop follows a channel without readers on it: longer than the pause between two
    /// polls.
    pub(crate) linger: Duration,
    /// The time between two heartbeats.
    pub(crate) heartbeat: Duration,
    /// The silence in a channel after which its streams get a heartbeat, in protocols that count
    /// from the channel's last event.
    pub(crate) channel_silence_max: Duration,
}
