//! Idle channels: when they are removed, and which of them makes room at the limit.
//!
//! A channel with messages that a store keeps elsewhere is idle as well. It is unloaded: it is in
//! memory no more, but the store keeps it, and the next request opens it again. While a pattern
//! searches the slots of channels for its first messages, no channel is unloaded: it might return
//! in another slot, and be found twice.

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
        self.is_at_rest(now) && self.is_empty() && !self.is_busy()
    }

    /// Returns whether it is idle, except that the store keeps messages of it.
    fn is_unloadable(&self, now: LoopTime) -> bool {
        let is_read = self.stored.as_ref().is_none_or(|stored| stored.reads > 0);
        let is_busy = self.is_busy() && !fault!("unloaded-while-changing");
        self.is_at_rest(now) && !self.is_empty() && !is_busy && !is_read
    }

    /// Returns whether no messages of it are kept. A pattern's channel gets messages even if it has
    /// no reader.
    fn is_empty(&self) -> bool {
        self.kept_from() == self.log.next() || self.is_derived()
    }

    fn is_busy(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.is_busy() || !stored.behind.is_empty())
    }

    /// Returns whether it has no followers, members or token.
    fn is_at_rest(&self, now: LoopTime) -> bool {
        let is_held = self.token.as_ref().is_some_and(|token| token.held_until > now);
        let is_awaited = self.gathering.as_ref().is_some_and(|gathering| gathering.is_awaited());
        let is_left = (self.attached.is_empty() || fault!("attached-channel-goes-idle")) && self.presence.is_none();
        is_left && (!is_awaited || fault!("awaited-pattern-goes")) && !is_held && !self.dirty
    }

    /// Returns the time of its last use or of the last look at its history.
    fn last_visited(&self) -> LoopTime {
        self.stored.as_ref().map_or(self.last_used, |stored| self.last_used.max(stored.visited))
    }

    /// Returns whether nothing was ever published in it, so that a new channel of its name is the
    /// same.
    fn is_unused(&self) -> bool {
        !self.is_derived() && self.log.next() == 0
    }
}

impl Shard {
    /// Removes a channel if it is idle. A channel with spent numbers stays for `idle_max`; a
    /// derived one, and one that the store keeps, for `linger`, in case its readers return.
    pub(super) fn release_idle(&mut self, key: usize, now: Tick) {
        let channel = &self.channels[key];
        let may_be_unloaded = self.may_be_unloaded(channel, now);
        if !may_be_unloaded && !channel.is_idle(now.loop_time) {
            return;
        }
        let is_reported = self.watch.is_on() && channel.used_until(&self.limits) > now.loop_time;
        let kept = match () {
            () if may_be_unloaded => self.unload_after(),
            () if channel.is_derived() => self.limits.linger,
            () if channel.is_unused() && !is_reported && !fault!("unused-channel-kept-long") => Duration::ZERO,
            () => self.limits.idle_max,
        };
        if now.loop_time.saturating_since(channel.last_visited()) >= kept {
            return if may_be_unloaded { self.unload(key) } else { self.remove(key) };
        }
        self.note_idle(key);
    }

    /// Returns how long an idle channel that the store keeps stays in memory. Within this time it
    /// goes out of use.
    fn unload_after(&self) -> Duration {
        #[cfg(feature = "sim")]
        if let Some(idle_max) = self.store.idle_max() {
            return idle_max;
        }
        self.limits.linger.max(self.limits.use_max)
    }

    fn may_be_unloaded(&self, channel: &ChannelState, now: Tick) -> bool {
        channel.is_unloadable(now.loop_time) && !self.is_cut_off() && !self.is_filling()
    }

    /// Adds a channel to those that make room at the limit.
    pub(super) fn note_idle(&mut self, key: usize) {
        let channel = &mut self.channels[key];
        if !channel.is_noted_idle {
            channel.is_noted_idle = true;
            let entry = (key as u32, channel.last_visited());
            let idle = if channel.gathering.is_some() { &mut self.idle_patterns } else { &mut self.idle };
            idle.0.push_back(entry);
            if idle.0.len() > 2 * self.channels.len() + 64 {
                // The list still has channels that are gone.
                let channels = &self.channels;
                idle.0.retain(|(key, _)| channels.get(*key as usize).is_some_and(|channel| channel.is_noted_idle));
            }
        }
    }

    /// Removes or unloads the channel, or removes the pattern, that has been idle longest. Returns
    /// whether there was one.
    pub(super) fn make_room(&mut self, now: Tick, for_pattern: bool) -> bool {
        for _ in 0..LOOKS {
            let idle = if for_pattern { &mut self.idle_patterns } else { &mut self.idle };
            let Some((key, last_used)) = idle.0.pop_front() else { return false };
            let Some(channel) = self.channels.get_mut(key as usize) else { continue };
            if !std::mem::take(&mut channel.is_noted_idle) {
                continue;
            }
            let channel = &self.channels[key as usize];
            let (is_idle, visited) = (channel.is_idle(now.loop_time), channel.last_visited());
            if !is_idle && !self.may_be_unloaded(channel, now) {
                continue;
            }
            if visited > last_used && !fault!("used-since-goes-first") {
                // It has been used since.
                self.note_idle(key as usize);
                continue;
            }
            if is_idle {
                self.remove(key as usize);
            } else {
                self.unload(key as usize);
            }
            return true;
        }
        false
    }
}
