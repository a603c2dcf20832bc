//! The loops that follow channels: each has a cursor on the channel's log, and is sent the messages
//! after it.

use std::sync::Arc;

use sealed::fault;

use super::Shard;
use super::elsewhere::Behind;
use crate::core::message::{ChannelName, Message};
use crate::core::owner::Owner;
use crate::core::window::MessageLog;
use crate::engine::peer::{Parcel, ToLoop};
use crate::engine::{ChannelEvent, Tick, Window};

/// A loop that gets the channel's messages.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) to: usize,
    /// The number of the next message that it needs.
    pub(super) cursor: u64,
    /// The number of its subscribers, as last reported.
    pub(super) subscribers: u32,
    /// Set while its link's queue lists the channel, because its window was full.
    queued: bool,
}

impl Shard {
    /// Sends each attached loop the messages that it does not have yet, and reports what is no
    /// longer kept.
    pub(super) fn deliver_to_all(&mut self, key: usize) {
        let channel = &mut self.channels[key];
        let announcements = channel.waits.as_mut().map_or(Vec::new(), |waits| std::mem::take(&mut waits.announcements));
        let is_truncated = std::mem::take(&mut channel.truncated);
        let kept_from = channel.kept_from();
        for attachment in &mut channel.attached {
            if attachment.cursor == channel.log.next() && announcements.is_empty() && !is_truncated {
                continue;
            }
            if attachment.queued {
                // Announcements are for clients that wait at this moment: a loop so far behind does
                // not get them.
                continue;
            }
            let link = &mut self.links[attachment.to];
            if attachment.to != self.own && !link.has_room(&self.limits) {
                attachment.queued = true;
                link.queue.push_back(key);
                continue;
            }
            let (delivery, bytes) = deliver(&channel.log, kept_from, attachment, announcements.clone());
            if attachment.to != self.own {
                link.sent(bytes);
            }
            let message = ToLoop::Channel(channel.name.clone(), delivery);
            self.outbox.push((attachment.to, Parcel::Loop(message)));
        }
    }

    pub(super) fn attach(&mut self, from: usize, now: Tick, name: ChannelName, owner: Owner) {
        let key = match self.open(now, name.clone(), owner) {
            Ok(key) => key,
            Err(why) => return self.notify(from, name, ChannelEvent::Refused { owner, why }),
        };
        self.trim(key, now);
        if !self.defers_attaching(key, from) {
            self.attach_to(key, from);
        }
    }

    pub(super) fn attach_to(&mut self, key: usize, from: usize) {
        let channel = &self.channels[key];
        let cursor = channel.log.next() + u64::from(channel.dirty && fault!("attaching-loop-misses-message"));
        self.change(key, |channel, _| {
            if let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) {
                attachment.cursor = cursor;
            } else {
                // Most channels are read on few loops.
                channel.attached.reserve_exact(1);
                channel.attached.push(Follower { to: from, cursor, subscribers: 0, queued: false });
            }
        });
        let channel = &self.channels[key];
        let entries = channel.log.since(0).map(|(_, entry)| entry.clone()).collect();
        let (name, epoch, first) = (channel.name.clone(), channel.epoch, channel.log.first());
        let kept_from = channel.kept_from();
        let is_interrupted = self.is_cut_off() && !channel.is_derived();
        self.notify(from, name.clone(), ChannelEvent::Opened(Window { epoch, kept_from, first, entries }));
        if is_interrupted {
            self.notify(from, name, ChannelEvent::Interrupted);
        }
    }

    /// Returns the channel of that name if the loop follows it. An order for a deleted channel may
    /// arrive when another channel has its name.
    pub(super) fn followed_by(&self, from: usize, name: &ChannelName) -> Option<usize> {
        let key = self.key_of(name)?;
        let is_followed = self.channels[key].attached.iter().any(|follower| follower.to == from);
        (is_followed || fault!("order-for-deleted-channel-carried-out")).then_some(key)
    }

    pub(super) fn catch_up(&mut self, from: usize, name: ChannelName) {
        // If the channel is gone, the loop and all its readers that wait for this answer have been
        // notified.
        let Some(key) = self.followed_by(from, &name) else { return };
        if !self.wait_for_others(key, Behind::Loop(from)) {
            self.catch_up_now(from, name);
        }
    }

    pub(super) fn catch_up_now(&mut self, from: usize, name: ChannelName) {
        let Some(key) = self.followed_by(from, &name) else { return };
        let channel = &mut self.channels[key];
        let kept_from = channel.kept_from();
        let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) else { return };
        let (first, entries) = take_rest(&channel.log, attachment);
        self.notify(from, name, ChannelEvent::CaughtUp { first, entries, kept_from });
    }

    pub(super) fn detach(&mut self, from: usize, now: Tick, name: &ChannelName) {
        let Some(key) = self.names.get(name).copied() else { return };
        self.stop_deferring(key, from);
        self.forget_unread(from, name);
        self.all_gone(from, now, name);
        let channel = &mut self.channels[key];
        channel.note_use(now.loop_time);
        if !fault!("loop-not-detached") {
            self.change(key, |channel, _| channel.attached.retain(|attachment| attachment.to != from));
        }
        let channel = &mut self.channels[key];
        self.watch.check_at(name, channel.used_until(&self.limits));
        if let Some(waits) = &mut channel.waits {
            waits.waiting.retain(|_, (held_by, _)| *held_by != from);
        }
        self.links[from].queue.retain(|queued| *queued != key);
        self.release_idle(key, now);
    }

    pub(super) fn acknowledge(&mut self, from: usize, count: u32) {
        let link = &mut self.links[from];
        link.acknowledged(count);
        while link.has_room(&self.limits) {
            let Some(key) = link.queue.pop_front() else { break };
            let channel = &mut self.channels[key];
            let kept_from = channel.kept_from();
            let Some(attachment) = channel.attached.iter_mut().find(|attachment| attachment.to == from) else {
                continue;
            };
            attachment.queued = false;
            let (delivery, bytes) = deliver(&channel.log, kept_from, attachment, Vec::new());
            link.sent(bytes);
            let message = ToLoop::Channel(channel.name.clone(), delivery);
            self.outbox.push((from, Parcel::Loop(message)));
        }
    }
}

/// Returns the event to send to a loop, and the bytes of its messages.
fn deliver(
    log: &MessageLog<Arc<Message>>,
    kept_from: u64,
    attachment: &mut Follower,
    announcements: Vec<Arc<str>>,
) -> (ChannelEvent, usize) {
    let window_from = log.first();
    let (first, entries) = take_rest(log, attachment);
    if entries.is_empty() && announcements.is_empty() {
        return (ChannelEvent::Truncated { kept_from, window_from }, 0);
    }
    let bytes = entries.iter().map(|message| message.cost()).sum();
    (ChannelEvent::Appended { first, entries, announcements, kept_from, window_from }, bytes)
}

/// Returns the messages from the follower's cursor on and the number of the first, and moves the
/// cursor to the head.
fn take_rest(log: &MessageLog<Arc<Message>>, attachment: &mut Follower) -> (u64, Vec<Arc<Message>>) {
    let first = attachment.cursor.max(log.first());
    attachment.cursor = log.next().saturating_sub(u64::from(fault!("loop-stops-one-short")));
    (first, log.since(first).map(|(_, entry)| entry.clone()).collect())
}
