//! Channels that nobody needs: which they are, when they go, and which makes room where there are as many as there may be.

use std::collections::VecDeque;
use std::time::Duration;

use sealed::fault;

use super::{ChannelState, Shard};
use crate::core::time::LoopTime;
use crate::engine::Tick;

/// Channels looked at in one call for one that can make room.
const LOOKS: usize = 32;

/// Channels that were found idle, in the order in which they became so: the place of each, and when it was touched last.
#[derive(Debug, Default)]
pub(super) struct Idle(VecDeque<(u32, LoopTime)>);

impl ChannelState {
    /// Whether nobody reads it or is in it, and it has nothing to be read.
    fn is_idle(&self, now: LoopTime) -> bool {
        let is_held = self.token.as_ref().is_some_and(|token| token.held_until > now);
        let is_awaited = self.gathering.as_ref().is_some_and(|gathering| gathering.is_awaited());
        // The channel of a pattern is fed though nobody reads it.
        let is_busy = self.stored.as_ref().is_some_and(|stored| stored.is_busy());
        let is_empty = self.kept_from() == self.log.next() && !is_busy || self.is_derived();
        let is_left = (self.attached.is_empty() || fault!("attached-channel-goes-idle")) && self.presence.is_none();
        is_left && is_empty && (!is_awaited || fault!("awaited-pattern-goes")) && !is_held && !self.dirty
    }

    /// Whether nothing would be lost with it but its name: whatever is published first has the same number without it.
    fn is_unused(&self) -> bool {
        !self.is_derived() && self.log.next() == 0
    }
}

impl Shard {
    /// Lets a channel go that nobody needs any more. One in which something was published keeps its place in its numbers for a
    /// while, and one that is made of others for a shorter one, in which its readers may come back.
    pub(super) fn release_idle(&mut self, key: usize, now: Tick) {
        let channel = &self.channels[key];
        if !channel.is_idle(now.loop_time) {
            return;
        }
        let is_told_of = self.watch.is_on() && channel.used_until(&self.limits) > now.loop_time;
        let kept = match () {
            () if channel.is_derived() => self.limits.linger,
            () if channel.is_unused() && !is_told_of && !fault!("unused-channel-kept-long") => Duration::ZERO,
            () => self.limits.idle_max,
        };
        if now.loop_time.saturating_since(channel.touched) >= kept {
            return self.remove(key);
        }
        if !channel.is_noted_idle {
            let channel = &mut self.channels[key];
            channel.is_noted_idle = true;
            let entry = (key as u32, channel.touched);
            let idle = if channel.gathering.is_some() { &mut self.idle_patterns } else { &mut self.idle };
            idle.0.push_back(entry);
            if idle.0.len() > 2 * self.channels.len() + 64 {
                // What has gone in the meantime is still noted.
                let channels = &self.channels;
                idle.0.retain(|(key, _)| channels.get(*key as usize).is_some_and(|channel| channel.is_noted_idle));
            }
        }
    }

    /// Lets the channel go that has been idle longest, or, for a pattern, the pattern that has. Returns whether one went.
    pub(super) fn make_room(&mut self, now: Tick, for_pattern: bool) -> bool {
        for _ in 0..LOOKS {
            let idle = if for_pattern { &mut self.idle_patterns } else { &mut self.idle };
            let Some((key, touched)) = idle.0.pop_front() else { return false };
            let Some(channel) = self.channels.get_mut(key as usize) else { continue };
            if !std::mem::take(&mut channel.is_noted_idle) || !channel.is_idle(now.loop_time) {
                continue;
            }
            if channel.touched > touched && !fault!("used-since-goes-first") {
                // It was in use since.
                channel.is_noted_idle = true;
                idle.0.push_back((key, channel.touched));
                continue;
            }
            self.remove(key as usize);
            return true;
        }
        false
    }
}
