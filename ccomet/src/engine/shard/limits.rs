//! Limits of one shard.

use std::sync::Arc;
use std::time::Duration;

use super::idempotency::KeyLimits;
use super::owners::OwnerLimits;
use super::presence::PresenceLimits;
use crate::config::Config;
use crate::config::rules::Rules;

/// The limits of one shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardLimits {
    pub(super) rules: Arc<Rules>,
    pub(super) channels_max: usize,
    pub(super) patterns_max: usize,
    /// The maximum number of broadcasts in progress.
    pub(super) broadcasts_max: usize,
    /// The maximum number of deliveries in transit to one loop.
    pub(super) deliveries_max: usize,
    /// The maximum bytes of messages in transit to one loop; a single delivery may have more.
    pub(super) delivery_bytes_max: usize,
    /// The maximum bytes of the history of all channels together, including the copies on the loops
    /// that follow them.
    pub(super) history_bytes_max: usize,
    /// The maximum bytes of changes that wait in the channels, and of what waits at the gate.
    pub(super) waiting_bytes_max: usize,
    pub(super) keys: KeyLimits,
    pub(super) owners: OwnerLimits,
    pub(super) presence: PresenceLimits,
    /// How long a channel without history and subscribers keeps its epoch.
    pub(super) idle_max: Duration,
    /// How long an idle derived channel stays, and an idle channel that the store keeps, in case
    /// their readers return.
    pub(super) linger: Duration,
    /// How long a channel without subscribers counts as in use.
    pub(super) use_max: Duration,
}

impl ShardLimits {
    /// Returns the limits of one of `loops` shards. A channel without subscribers counts as in use
    /// for `use_max`.
    pub(crate) fn new(config: &Config, rules: Arc<Rules>, loops: usize, use_max: Duration) -> Self {
        let share = |whole: usize| whole.div_ceil(loops);
        Self {
            rules,
            channels_max: share(config.limits.channels_max),
            deliveries_max: config.limits.deliveries_under_way_max,
            // The deliveries to all other loops together may have a quarter of the history's bytes.
            delivery_bytes_max: (share(config.history.total_bytes_max) / 4 / loops.saturating_sub(1).max(1)).max(1),
            history_bytes_max: share(config.history.total_bytes_max),
            waiting_bytes_max: share(config.store.waiting_bytes_max),
            owners: OwnerLimits {
                channels_max: share(config.limits.channels_per_client_max),
                patterns_max: share(config.limits.patterns_per_client_max),
            },
            keys: KeyLimits {
                keys_max: share(config.history.keys_max),
                age_max: Duration::from_secs(config.history.keys_age_max_s),
            },
            idle_max: Duration::from_secs(config.times.channel_idle_s),
            linger: Duration::from_secs(config.times.channel_linger_s),
            presence: PresenceLimits {
                members_max: config.limits.members_per_channel_max,
                grace: Duration::from_secs(config.times.presence_grace_s),
                are_reported: config.hooks.presence,
            },
            patterns_max: share(config.limits.patterns_max),
            broadcasts_max: config.limits.broadcasts_under_way_max,
            use_max,
        }
    }
}
