//! Idle channels: when they are removed, and which of them makes room at the limit.

use std::collections::VecDeque;
use std::time::Duration;

use sealed::fault;

use super::{ChannelState, Shard};
use crate::core::time::LoopTime;
use crate::engine::Tick;

/// The maximum number of channels that one call visits to make room.
const LOOKS: usize = 32;

/// Channels in the order in which they were found idle: the slot of each, and the time of its last
/// use.
#[derive(Debug, Default)]
pub(super) struct Idle(VecDeque<(u32, LoopTime)>);

impl ChannelState {
    /// Returns whether it has no followers, members, messages, token or changes in progress.
    fn is_idle(&self, now: LoopTime) -> bool {
        let is_held = self.token.as_ref().is_some_and(|token| token.held_until > now);
        let is_awaited = self.gathering.as_ref().is_some_and(|gathering| gathering.is_awaited());
        // A pattern's channel gets messages even if it has no reader.
        let is_busy = self.stored.as_ref().is_some_and(|stored| stored.is_busy());
        let is_empty = self.kept_from() == self.log.next() && !is_busy || self.is_derived();
        let is_left = (self.attached.is_empty() || fault!("attached-channel-goes-idle")) && self.presence.is_none();
        is_left && is_empty && (!is_awaited || fault!("awaited-pattern-goes")) && !is_held && !self.dirty
    }

    /// Returns whether nothing was ever published in it, so that a new channel of its name is the
    /// same.
    fn is_unused(&self) -> bool {
        !self.is_derived() && self.log.next() == 0
    }
}

impl Shard {
    /// Removes a channel if it is idle. A channel with spent numbers stays for `idle_max`, and a
    /// derived one for `linger`, in case its readers return.
    pub(super) fn release_idle(&mut self, key: usize, now: Tick) {
        let channel = &self.channels[key];
        if !channel.is_idle(now.loop_time) {
            return;
        }
        let is_reported = self.watch.is_on() && channel.used_until(&self.limits) > now.loop_time;
        let kept = match () {
            () if channel.is_derived() => self.limits.linger,
            () if channel.is_unused() && !is_reported && !fault!("unused-channel-kept-long") => Duration::ZERO,
            () => self.limits.idle_max,
        };
        if now.loop_time.saturating_since(channel.last_used) >= kept {
            return self.remove(key);
        }
        if !channel.is_noted_idle {
            let channel = &mut self.channels[key];
            channel.is_noted_idle = true;
            let entry = (key as u32, channel.last_used);
            let idle = if channel.gathering.is_some() { &mut self.idle_patterns } else { &mut self.idle };
            idle.0.push_back(entry);
            if idle.0.len() > 2 * self.channels.len() + 64 {
                // The list still has channels that are gone.
                let channels = &self.channels;
                idle.0.retain(|(key, _)| channels.get(*key as usize).is_some_and(|channel| channel.is_noted_idle));
            }
        }
    }

    /// Removes the channel, or the pattern, that has been idle longest. Returns whether it removed
    /// one.
    pub(super) fn make_room(&mut self, now: Tick, for_pattern: bool) -> bool {
        for _ in 0..LOOKS {
            let idle = if for_pattern { &mut self.idle_patterns } else { &mut self.idle };
            let Some((key, last_used)) = idle.0.pop_front() else { return false };
            let Some(channel) = self.channels.get_mut(key as usize) else { continue };
            if !std::mem::take(&mut channel.is_noted_idle) || !channel.is_idle(now.loop_time) {
                continue;
            }
            if channel.last_used > last_used && !fault!("used-since-goes-first") {
                // It has been used since.
                channel.is_noted_idle = true;
                idle.0.push_back((key, channel.last_used));
                continue;
            }
            self.remove(key as usize);
            return true;
        }
        false
    }
}
