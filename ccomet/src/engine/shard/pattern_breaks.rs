//! Patterns over several servers: messages of channels that are not in memory here, and gaps.

use std::sync::Arc;

use super::Shard;
use super::patterns::{PatternFeed, gathered, too_old};
use crate::core::message::{ChannelName, Message};
use crate::core::position::Spot;
use crate::core::window::MessageLog;
use crate::engine::peer::{Parcel, PatternMessage, ToShard};
use crate::engine::{ChannelEvent, Tick, Window};

impl Shard {
    /// Adds messages that another server has published to the patterns that match their channel,
    /// which is not in memory here.
    pub(super) fn pass_by(&mut self, name: &ChannelName, messages: Vec<(Spot, Arc<Message>)>) {
        let rules = &self.limits.rules;
        let kept_for = rules.bounds(rules.find(name)).history.kept_for;
        for (spot, message) in messages {
            let copy = gathered(&message, name, spot, too_old(&message, kept_for));
            for followed in self.followed.iter_mut().filter(|followed| followed.pattern.matches(name.as_str())) {
                followed.feed.push(copy.clone());
            }
        }
    }

    /// Tells the followed patterns that messages of their channels may be missing: of the channel
    /// `name` alone, if it is given.
    pub(super) fn break_patterns(&mut self, name: Option<&ChannelName>) {
        self.send_feeds();
        let is_meant = |followed: &&PatternFeed| name.is_none_or(|name| followed.pattern.matches(name.as_str()));
        for followed in self.followed.iter().filter(is_meant) {
            let gap = PatternMessage::Break { pattern: followed.name.clone(), run: followed.run };
            self.outbox.push((followed.to, Parcel::Shard(ToShard::Pattern(gap))));
        }
    }

    /// Begins the numbers of a pattern anew, so that its readers are notified of a gap.
    pub(super) fn begin_pattern_anew(&mut self, now: Tick, name: &ChannelName, run: u64) {
        let Some(key) = self.key_of(name) else { return };
        let Some(gathering) = self.gathering_mut(key).filter(|gathering| gathering.run == run) else { return };
        if gathering.missing > 0 {
            // Nobody has read it yet. What it begins with must have no hole.
            gathering.backfilled.clear();
            gathering.held.clear();
            (gathering.held_bytes, gathering.is_feed_truncated) = (0, true);
            return;
        }
        self.deliver_to_all(key);
        let epoch = self.epochs.fresh(now);
        self.change(key, |channel, dropped| {
            channel.log.drop_before(channel.log.next(), |message| dropped.note(&message));
            channel.log = MessageLog::starting_at(0);
            channel.epoch = epoch;
        });
        let channel = &mut self.channels[key];
        channel.truncated = false;
        for follower in &mut channel.attached {
            follower.cursor = 0;
        }
        let followers: Vec<usize> = channel.attached.iter().map(|follower| follower.to).collect();
        for to in followers {
            let window = Window { epoch, kept_from: 0, first: 0, entries: Vec::new() };
            self.notify(to, name.clone(), ChannelEvent::Restarted(window));
        }
    }
}
