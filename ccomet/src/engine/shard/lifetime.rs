//! The creation and the removal of channels in memory.

use sealed::fault;

use super::elsewhere::Behind;
use super::followers::Follower;
use super::{ChannelState, RESERVED_SHARE, Shard};
use crate::core::message::ChannelName;
use crate::core::owner::Owner;
use crate::core::position::Epoch;
use crate::core::window::MessageLog;
use crate::engine::peer::{Parcel, ToLoop};
use crate::engine::{ChannelEvent, Refusal, Reply, Tick};

impl Shard {
    /// Returns the key of the channel of that name. If it does not exist, creates it, and counts it
    /// for `owner`.
    pub(super) fn open(&mut self, now: Tick, name: ChannelName, owner: Owner) -> Result<usize, Refusal> {
        if let Some(key) = self.names.get(&name) {
            return Ok(*key);
        }
        if !self.owners.may_make(owner, name.is_pattern()) && !fault!("client-makes-any-number") {
            return Err(Refusal::ClientLimit);
        }
        if !self.has_room(now, owner.is_counted()) {
            return Err(Refusal::ChannelLimit);
        }
        let gathering = if name.is_pattern() { Some(self.gather(now, &name)?) } else { None };
        let is_derived = gathering.is_some() || name.is_presence();
        let epoch = if is_derived { self.epochs.fresh(now) } else { self.epoch_of_absent(now, &name) };
        let key = self.create(now, name, epoch, owner);
        self.channels[key].gathering = gathering;
        Ok(key)
    }

    /// Returns the epoch of a channel that does not exist, which it has once it is created.
    pub(super) fn epoch_of_absent(&mut self, now: Tick, name: &ChannelName) -> Epoch {
        self.gate.assigned_epoch(name).unwrap_or_else(|| self.epochs.of_absent(now, name))
    }

    /// Returns whether the store keeps messages of a channel of that name elsewhere than in memory.
    pub(super) fn may_be_kept(&self, name: &ChannelName) -> bool {
        self.is_stored && !name.is_pattern() && !name.is_presence()
    }

    /// Returns whether one more channel may be in memory. Removes an idle channel if that is
    /// necessary.
    pub(super) fn has_room(&mut self, now: Tick, is_of_client: bool) -> bool {
        // A back end can create channels even if clients have filled the server.
        let leaves_room = is_of_client && !fault!("no-room-for-back-end");
        let reserved = if leaves_room { self.limits.channels_max / RESERVED_SHARE } else { 0 };
        self.channels.len() < self.limits.channels_max - reserved || self.make_room(now, false)
    }

    /// Creates an empty channel.
    pub(super) fn create(&mut self, now: Tick, name: ChannelName, epoch: Epoch, owner: Owner) -> usize {
        let key = self.channels.insert(ChannelState {
            rule: self.limits.rules.find(&name),
            name: name.clone(),
            epoch,
            log: MessageLog::starting_at(0),
            stored: self.may_be_kept(&name).then(Box::default),
            shared_bytes: 0,
            shared_length: 0,
            attached: Vec::new(),
            waits: None,
            last_used: now.loop_time,
            token: None,
            gathering: None,
            presence: None,
            dirty: false,
            truncated: false,
            is_noted_idle: false,
            counted: self.owners.made(owner, name.is_pattern()),
        });
        self.presences += usize::from(name.is_presence());
        self.names.insert(name, key);
        key
    }

    /// Deletes a channel and its presence channel. Returns the number of its next message.
    pub(super) fn delete(&mut self, key: usize) -> u64 {
        let (name, next) = (self.channels[key].name.clone(), self.channels[key].log.next());
        self.forget_in_patterns(&name);
        self.end(key);
        self.end_movements(&name);
        next
    }

    /// Removes the presence channel of a channel that is gone.
    pub(super) fn end_movements(&mut self, name: &ChannelName) {
        if let Some(key) = self.names.get(&ChannelName::of_presence(name)).copied()
            && !fault!("movements-outlive-channel")
        {
            self.end(key);
        }
    }

    /// Removes a channel and notifies the loops that follow it.
    fn end(&mut self, key: usize) {
        self.end_followers(key);
        self.remove(key);
    }

    /// Notifies the loops that follow a channel of its end.
    pub(super) fn end_followers(&mut self, key: usize) {
        let attached = self.change(key, |channel, _| std::mem::take(&mut channel.attached));
        let name = &self.channels[key].name;
        let closed =
            |attachment: Follower| (attachment.to, Parcel::Loop(ToLoop::Channel(name.clone(), ChannelEvent::Closed)));
        self.outbox.extend(attached.into_iter().map(closed));
    }

    /// Clears a channel's history, here and in patterns. Returns the number of its next message.
    pub(super) fn clear(&mut self, key: usize) -> u64 {
        let (name, next) = (self.channels[key].name.clone(), self.drop_history(key));
        if !fault!("pattern-remembers-cleared") {
            self.forget_in_patterns(&name);
        }
        next
    }

    /// Removes a channel that keeps nothing, or whose messages are to be dropped.
    pub(super) fn remove(&mut self, key: usize) {
        let channel = self.take_out(key);
        let is_spent = channel.log.next() > 0 || fault!("unused-epoch-spent");
        if is_spent && !fault!("epoch-not-renewed") {
            self.epochs.spend(&channel.name);
        }
        if channel.gathering.is_some() {
            self.disperse(&channel.name);
        }
        self.presences -= usize::from(channel.name.is_presence());
        self.store.forget(&channel.name);
    }

    /// Unloads a channel: it is in memory no more, and the store keeps it.
    pub(super) fn unload(&mut self, key: usize) {
        let channel = self.take_out(key);
        // If the store drops all messages of it, another channel of its name begins with number 0.
        if !fault!("epoch-of-unloaded-used-again") {
            self.epochs.spend(&channel.name);
        }
        self.gate.unloaded(&channel.name);
        self.store.unload(&channel.name);
    }

    /// Takes a channel and its messages out of memory.
    fn take_out(&mut self, key: usize) -> ChannelState {
        self.change(key, |channel, dropped| {
            channel.log.drop_before(channel.log.next(), |message| dropped.note(&message));
        });
        let mut channel = self.channels.remove(key);
        for behind in channel.stored.iter_mut().flat_map(|stored| std::mem::take(&mut stored.behind)) {
            // A loop learns of the end of the channel.
            if let Behind::Read(asker, _) = behind {
                self.reply(asker, Ok(Reply::Page(None)));
            }
        }
        self.members -= channel.presence.as_ref().map_or(0, |presence| presence.len());
        if !fault!("gone-channel-still-counts") {
            self.owners.gone(channel.counted, channel.name.is_pattern());
        }
        self.skip_in_patterns(key);
        self.names.remove(&channel.name);
        self.watch.remove(&channel.name, &mut self.outbox);
        self.dirty.retain(|dirty| *dirty != key);
        self.truncated.retain(|truncated| *truncated != key);
        for link in &mut self.links {
            link.queue.retain(|queued| *queued != key);
        }
        channel
    }
}
