//! Channels in use, and their tokens.

use std::time::Duration;

use sealed::fault;

use super::{Asker, ChannelState, Shard, ShardLimits};
use crate::core::message::ChannelName;
use crate::core::owner::Owner;
use crate::core::position::Spot;
use crate::core::time::LoopTime;
use crate::engine::{ChannelSummary, Refusal, Reply, Tick, Token};

/// The token issued for a channel.
#[derive(Debug)]
pub(super) struct IssuedToken {
    token: Token,
    /// The time until which the token keeps the channel in use.
    pub(super) held_until: LoopTime,
}

impl ChannelState {
    pub(super) fn subscribers(&self) -> u64 {
        self.attached.iter().map(|attachment| u64::from(attachment.subscribers)).sum()
    }

    /// Returns the time until which it is in use: for ever if it has subscribers.
    pub(super) fn used_until(&self, limits: &ShardLimits) -> LoopTime {
        if self.subscribers() > 0 {
            return LoopTime::MAX;
        }
        let held = self.token.as_ref().map_or_else(LoopTime::default, |token| token.held_until);
        if self.stored.as_ref().is_some_and(|stored| stored.is_unused) {
            return held;
        }
        held.max(self.last_used.plus(limits.use_max))
    }

    pub(super) fn note_use(&mut self, now: LoopTime) {
        self.last_used = now;
        if let Some(stored) = &mut self.stored {
            stored.is_unused = false;
        }
    }
}

impl Shard {
    /// Creates a channel if it does not exist, and holds it in use for a while. Returns its token,
    /// which is `token` if it had none.
    pub(super) fn issue_token(
        &mut self,
        now: Tick,
        name: ChannelName,
        hold: Duration,
        token: Token,
    ) -> Result<Reply, Refusal> {
        let key = self.open(now, name, Owner::default())?;
        let channel = &mut self.channels[key];
        let held_until = now.loop_time.plus(hold);
        let first = channel.kept_from();
        channel.note_use(now.loop_time);
        let issued = channel.token.get_or_insert_with(|| Box::new(IssuedToken { token, held_until }));
        issued.held_until = issued.held_until.max(held_until);
        let reply = Reply::TokenIssued { first, token: issued.token };
        self.watch.note(&channel.name, now.loop_time, &mut self.outbox);
        Ok(reply)
    }

    pub(super) fn has_token(&self, name: &ChannelName, token: Option<Token>) -> bool {
        let issued = self.names.get(name).and_then(|key| self.channels[*key].token.as_ref());
        issued.zip(token).is_some_and(|(issued, token)| issued.token.is(&token) || fault!("any-token-is-right"))
    }

    pub(super) fn inspect(&mut self, now: Tick, asker: Asker, name: &ChannelName) {
        let info = self.names.get(name).map(|key| self.info(&self.channels[*key], now));
        self.reply(asker, Ok(Reply::Info(info)));
    }

    pub(super) fn info(&self, channel: &ChannelState, now: Tick) -> ChannelSummary {
        ChannelSummary {
            subscribers: channel.subscribers(),
            in_use: channel.used_until(&self.limits) > now.loop_time,
            messages: channel.log.next() - channel.kept_from(),
            bytes: self.store.bytes(&channel.name).unwrap_or(channel.log.bytes() as u64),
            spot: Spot { epoch: channel.epoch, next: channel.log.next() },
        }
    }

    pub(super) fn count(&mut self, from: usize, now: Tick, name: &ChannelName, subscribers: u32) {
        let Some(key) = self.names.get(name).copied() else { return };
        let channel = &mut self.channels[key];
        let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) else { return };
        attachment.subscribers = subscribers;
        self.touch(key, now);
    }

    /// Records activity in a channel.
    pub(super) fn touch(&mut self, key: usize, now: Tick) {
        let channel = &mut self.channels[key];
        channel.note_use(now.loop_time);
        if channel.is_derived() {
            return;
        }
        self.watch.note(&channel.name, now.loop_time, &mut self.outbox);
        self.watch.check_at(&channel.name, channel.used_until(&self.limits));
    }

    pub(super) fn set_watch(&mut self, from: usize, now: Tick, wanted: bool) {
        let was_on = self.watch.is_on();
        self.watch.set(from, wanted);
        if !wanted {
            return;
        }
        // Loops that watch later learn of the channels in use when these are reported again.
        for (_, channel) in self.channels.iter().filter(|(_, channel)| !was_on && !channel.is_derived()) {
            if channel.used_until(&self.limits) > now.loop_time {
                self.watch.note(&channel.name, now.loop_time, &mut self.outbox);
                self.watch.check_at(&channel.name, channel.used_until(&self.limits));
            }
        }
    }
}
