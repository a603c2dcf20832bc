//! Which channels are in use, and what was signed for them.

use std::time::Duration;

use sealed::fault;

use super::{Home, HomeChannel, HomeLimits};
use crate::broker::{ChannelInfo, Event, Now, Owner, Ticket, Token};
use crate::message::ChannelName;
use crate::position::Spot;
use crate::time::LoopTime;

/// What was signed for a channel.
#[derive(Debug)]
pub(super) struct Signed {
    token: Token,
    /// It is in use until then at least.
    pub(super) held_until: LoopTime,
}

impl HomeChannel {
    pub(super) fn subscribers(&self) -> u64 {
        self.attached.iter().map(|attachment| u64::from(attachment.subscribers)).sum()
    }

    /// Until when it is in use: for ever, where it has subscribers.
    pub(super) fn used_until(&self, limits: &HomeLimits) -> LoopTime {
        if self.subscribers() > 0 {
            return LoopTime::MAX;
        }
        let held = self.signed.as_ref().map_or_else(LoopTime::default, |signed| signed.held_until);
        held.max(self.touched.plus(limits.use_max))
    }
}

impl Home {
    pub(super) fn sign_for(
        &mut self,
        from: usize,
        now: Now,
        name: ChannelName,
        hold: Duration,
        token: Token,
        ticket: Ticket,
    ) {
        let key = match self.open(now, name, Owner::default()) {
            Ok(key) => key,
            Err(why) => return self.say(from, Event::Refused { ticket, why }),
        };
        let channel = &mut self.channels[key];
        let held_until = now.loop_time.plus(hold);
        let signed = channel.signed.get_or_insert_with(|| Box::new(Signed { token, held_until }));
        signed.held_until = signed.held_until.max(held_until);
        channel.touched = now.loop_time;
        let (first, token) = (channel.log.first(), signed.token);
        self.watch.note(&channel.name, now.loop_time, &mut self.said);
        self.say(from, Event::Signed { ticket, first, token });
    }

    pub(super) fn admit(&mut self, from: usize, name: &ChannelName, token: Option<Token>, ticket: Ticket) {
        let signed = self.names.get(name).and_then(|key| self.channels[*key].signed.as_ref());
        let is_right =
            signed.zip(token).is_some_and(|(signed, token)| signed.token.is(&token) || fault!("any-token-is-right"));
        self.say(from, Event::Admitted { ticket, is_right });
    }

    pub(super) fn inspect(&mut self, from: usize, now: Now, name: &ChannelName, ticket: Ticket) {
        let info = self.names.get(name).map(|key| self.info(&self.channels[*key], now));
        self.say(from, Event::Inspected { ticket, info });
    }

    pub(super) fn info(&self, channel: &HomeChannel, now: Now) -> ChannelInfo {
        ChannelInfo {
            subscribers: channel.subscribers(),
            in_use: channel.used_until(&self.limits) > now.loop_time,
            messages: channel.log.next() - channel.log.first(),
            bytes: channel.log.bytes() as u64,
            spot: Spot { epoch: channel.epoch, next: channel.log.next() },
        }
    }

    pub(super) fn count(&mut self, from: usize, now: Now, name: &ChannelName, subscribers: u32) {
        let Some(key) = self.names.get(name).copied() else { return };
        let channel = &mut self.channels[key];
        let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) else { return };
        attachment.subscribers = subscribers;
        self.touch(key, now);
    }

    /// Something happened in a channel that has a part in whether it is in use.
    pub(super) fn touch(&mut self, key: usize, now: Now) {
        let channel = &mut self.channels[key];
        channel.touched = now.loop_time;
        if channel.is_derived() {
            return;
        }
        self.watch.note(&channel.name, now.loop_time, &mut self.said);
        self.watch.look_at(&channel.name, channel.used_until(&self.limits));
    }

    pub(super) fn set_watch(&mut self, from: usize, now: Now, wanted: bool) {
        let was_on = self.watch.is_on();
        self.watch.set(from, wanted);
        if !wanted {
            return;
        }
        // Who comes later hears of the others when they are told again.
        for (_, channel) in self.channels.iter().filter(|(_, channel)| !was_on && !channel.is_derived()) {
            if channel.used_until(&self.limits) > now.loop_time {
                self.watch.note(&channel.name, now.loop_time, &mut self.said);
                self.watch.look_at(&channel.name, channel.used_until(&self.limits));
            }
        }
    }
}
