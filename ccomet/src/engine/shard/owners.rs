//! Counts the existing channels of a shard that each client has made.

use std::collections::HashMap;
use std::num::NonZeroU64;

use crate::core::owner::Owner;

/// Limits the channels and patterns of one shard that one client may have made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnerLimits {
    pub(crate) channels_max: usize,
    pub(crate) patterns_max: usize,
}

/// Clients that have made channels, by address and by subject: at most two entries for each channel.
#[derive(Debug)]
pub(super) struct Owners {
    limits: OwnerLimits,
    held: HashMap<NonZeroU64, Held>,
}

#[derive(Debug, Default)]
struct Held {
    channels: usize,
    patterns: usize,
}

impl Held {
    fn count_mut(&mut self, is_pattern: bool) -> &mut usize {
        if is_pattern { &mut self.patterns } else { &mut self.channels }
    }
}

impl Owners {
    pub(super) fn new(limits: OwnerLimits) -> Self {
        Self { limits, held: HashMap::new() }
    }

    /// Returns whether a client may make one more.
    pub(super) fn may_make(&self, owner: Owner, is_pattern: bool) -> bool {
        let held = owner.parts().filter_map(|part| self.held.get(&part));
        let mut counts = held.map(|held| if is_pattern { held.patterns } else { held.channels });
        let max = if is_pattern { self.limits.patterns_max } else { self.limits.channels_max };
        counts.all(|count| count < max)
    }

    pub(super) fn made(&mut self, owner: Owner, is_pattern: bool) {
        for part in owner.parts() {
            *self.held.entry(part).or_default().count_mut(is_pattern) += 1;
        }
    }

    pub(super) fn gone(&mut self, owner: Owner, is_pattern: bool) {
        for part in owner.parts() {
            let Some(held) = self.held.get_mut(&part) else { continue };
            let count = held.count_mut(is_pattern);
            *count = count.saturating_sub(1);
            if held.channels + held.patterns == 0 {
                self.held.remove(&part);
            }
        }
        if self.held.is_empty() && self.held.capacity() > 64 {
            self.held = HashMap::new();
        }
    }
}
