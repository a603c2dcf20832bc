//! A channel from the order to open it to its end.
//!
//! A shard may refuse to open a channel for one client and open it for the next. Until it has
//! opened the channel, it drops all other orders about it. Therefore, the order to open a channel
//! is sent alone, and the readers are reported when the channel is open.

use sealed::fault;

use super::channel::Channel;
use super::{Hub, Sink};
use crate::core::message::ChannelName;
use crate::core::owner::Owner;
use crate::core::problem::Problem;
use crate::engine::{Claim, Order, Refusal, Window};

impl Hub {
    /// Returns the key of the channel of that name. Orders it to be opened if this loop does not
    /// follow it.
    pub(super) fn channel(&mut self, name: &ChannelName, owner: Owner) -> u32 {
        if let Some(key) = self.names.get(name) {
            return *key;
        }
        let crowd_rule = self.limits.rules.find_for_readers(name);
        let key = self.channels.insert(Channel::attaching(name.clone(), crowd_rule, self.now)) as u32;
        self.names.insert(name.clone(), key);
        self.orders.push(Order::Open { channel: name.clone(), owner });
        key
    }

    pub(super) fn is_attaching(&self, name: &ChannelName) -> bool {
        self.names.get(name).is_some_and(|key| !self.channels[*key as usize].is_attached())
    }

    /// Handles the opening of a channel: reports its readers to its shard, and starts them.
    pub(super) fn opened(&mut self, name: &ChannelName, window: Window, sink: &mut impl Sink) {
        let Some(key) = self.names.get(name).copied() else { return };
        self.channels[key as usize].attach(window);
        if !fault!("orders-ahead-of-channel") {
            self.channels[key as usize].mark_for_recount(key, &mut self.recount);
            self.mark_members(key);
            self.send_claims(key);
            self.catch_up_starts(key);
        }
        self.start_all(key, sink);
    }

    /// Catches up with a newly opened channel, if readers start beyond its window.
    fn catch_up_starts(&mut self, key: u32) {
        if fault!("early-comer-not-synchronised") {
            return;
        }
        let Self { channels, subscribers, followers, limits, .. } = self;
        let channel = &channels[key as usize];
        let sync = channel.next_sync();
        let mut is_any = followers.wait_for(key, channel, sync);
        for subscriber in &channel.subscribers {
            let subscriber = &mut subscribers[*subscriber as usize];
            let encoder = limits.encoders.get(subscriber.format);
            let cursors = subscriber.cursors_mut().iter_mut();
            for cursor in cursors.filter(|cursor| cursor.channel == key && cursor.is_behind(channel, encoder)) {
                cursor.syncs = sync;
                is_any = true;
            }
        }
        if is_any {
            self.channels[key as usize].catch_up(&mut self.orders);
        }
    }

    pub(super) fn synced(&mut self, name: &ChannelName, sink: &mut impl Sink) {
        let Some(key) = self.names.get(name).copied() else { return };
        if !self.is_attaching(name) {
            self.channels[key as usize].rare_mut().syncs += 1;
            self.start_all(key, sink);
        }
    }

    /// Claims the name under which a subscriber waits.
    pub(super) fn claim(&mut self, key: u32) {
        self.last_claim += 1;
        let claim = Claim(self.last_claim);
        self.claims.insert(claim.0, key);
        if let Some(details) = &mut self.subscribers[key as usize].details {
            details.claim = Some(claim);
        }
        self.send_claim(key);
    }

    /// Sends the claims of the subscribers that wait in a channel, in the order of their arrival.
    fn send_claims(&mut self, key: u32) {
        let claim_of = |subscriber: u32| {
            let details = self.subscribers[subscriber as usize].details.as_ref()?;
            details.cursors.first().filter(|cursor| cursor.channel == key)?;
            Some((details.claim?.0, subscriber))
        };
        let waiting = self.channels[key as usize].subscribers.iter();
        let mut waiting: Vec<(u64, u32)> = waiting.filter_map(|subscriber| claim_of(*subscriber)).collect();
        waiting.sort_unstable();
        for (_, subscriber) in waiting {
            self.send_claim(subscriber);
        }
    }

    /// Sends the claim of a subscriber, if it has one, to the shard of its first channel.
    fn send_claim(&mut self, key: u32) {
        let Some(details) = &self.subscribers[key as usize].details else { return };
        if let (Some(claim), Some(name), Some(cursor)) = (details.claim, &details.name, details.cursors.first())
            && let Some(channel) = self.channels.get(cursor.channel as usize).filter(|channel| channel.takes_orders())
        {
            let channel = channel.name.clone();
            self.orders.push(Order::AcquireName { channel, name: name.clone(), claim });
        }
    }

    /// Handles a shard's refusal to open a channel for a client: ends the subscribers for which the
    /// shard would refuse it too.
    pub(super) fn refused(&mut self, name: &ChannelName, owner: Owner, why: Refusal, sink: &mut impl Sink) {
        match why {
            Refusal::ClientLimit => {
                let is_meant = |other| other == owner || fault!("other-clients-refused-too");
                self.end_those(name, why.into(), is_meant, sink);
            }
            // Some channels are reserved for owners that are not counted.
            Refusal::ChannelLimit if owner.is_counted() && !fault!("reserve-refused-with-client") => {
                self.end_those(name, why.into(), Owner::is_counted, sink);
            }
            _ => self.end_channel(name, Some(why.into()), sink),
        }
    }

    /// Ends the subscribers of some owners, and opens the channel for the others.
    fn end_those(
        &mut self,
        name: &ChannelName,
        problem: Problem,
        is_meant: impl Fn(Owner) -> bool,
        sink: &mut impl Sink,
    ) {
        let Some(key) = self.names.get(name).copied() else { return };
        let owner_of = |hub: &Self, subscriber: u32| {
            hub.subscribers[subscriber as usize].details.as_ref().map_or(Owner::default(), |details| details.owner)
        };
        let all = self.channels[key as usize].subscribers.iter().copied();
        for subscriber in all.filter(|subscriber| is_meant(owner_of(self, *subscriber))).collect::<Vec<_>>() {
            self.conclude_closed(subscriber, name, Some(problem), sink);
        }
        let owner = match self.channels[key as usize].subscribers.first().copied() {
            Some(other) => owner_of(self, other),
            None if self.followers.count(key) > 0 => Owner::default(),
            None => return self.end_channel(name, None, sink),
        };
        self.orders.push(Order::Open { channel: name.clone(), owner });
    }

    /// Ends all subscribers of the channel, and removes it.
    pub(super) fn end_channel(&mut self, name: &ChannelName, problem: Option<Problem>, sink: &mut impl Sink) {
        let Some(key) = self.names.get(name).copied() else { return };
        while let Some(subscriber) = self.channels[key as usize].subscribers.last().copied() {
            self.conclude_closed(subscriber, name, problem, sink);
        }
        self.end_followers(key, problem);
        self.remove(key, name);
    }

    /// Removes a channel that has no readers.
    pub(super) fn remove(&mut self, key: u32, name: &ChannelName) {
        self.names.remove(name);
        self.dirty.retain(|dirty| *dirty != key);
        self.truncated.retain(|(truncated, ..)| *truncated != key);
        self.channels.remove(key as usize);
    }
}
