//! Removes subscribers: from the lists of their channels, and from memory.

use sealed::fault;

use super::subscriber::Flags;
use super::{Hub, SubscriberKey};
use crate::core::time::UnixMillis;
use crate::engine::Order;

impl Hub {
    /// Removes the subscriber of a connection that is gone.
    pub(crate) fn unsubscribe(&mut self, key: SubscriberKey, now: UnixMillis) {
        self.now = now;
        self.leave(key.0);
    }

    /// Removes a subscriber from its channels and from memory. With the first subscriber of a
    /// connection, also removes those that were added to the connection.
    pub(super) fn leave(&mut self, key: u32) {
        if !self.subscribers.contains(key as usize) {
            return;
        }
        for added in self.sessions.end(&self.subscribers[key as usize], key) {
            self.leave_channels(added);
            self.forget(added);
        }
        self.leave_channels(key);
        self.forget(key);
    }

    /// Removes a subscriber from the lists of its channels.
    fn leave_channels(&mut self, key: u32) {
        for index in 0.. {
            let Some((channel, place)) = self.subscribers[key as usize].place(index) else { break };
            let channel_state = &mut self.channels[channel as usize];
            channel_state.left = if fault!("just-left-is-long-ago") { UnixMillis::default() } else { self.now };
            channel_state.mark_for_recount(channel, &mut self.recount);
            let members = &mut channel_state.subscribers;
            debug_assert_eq!(members[place as usize], key);
            members.swap_remove(place as usize);
            if members.is_empty() {
                members.shrink_to_fit();
            } else if let Some(moved) = members.get(place as usize).copied() {
                self.subscribers[moved as usize].set_place(channel, place);
            }
        }
    }

    /// Removes a subscriber that no channel lists any more.
    pub(super) fn forget(&mut self, key: u32) {
        let subscriber = self.subscribers.remove(key as usize);
        if subscriber.is(Flags::DIRTY) {
            self.dirty_many.retain(|dirty| *dirty != key);
        }
        let only = subscriber.only_channel();
        let Some(details) = subscriber.details else { return };
        if let Some(member) = &details.member {
            for channel in only.into_iter().chain(details.cursors.iter().map(|cursor| cursor.channel)) {
                self.remove_connection(channel, member);
            }
        }
        if let (Some(claim), Some(name), Some(cursor)) = (details.claim, details.name, details.cursors.first()) {
            self.claims.remove(&claim.0);
            let channel = self.channels[cursor.channel as usize].name.clone();
            self.orders.push(Order::ReleaseName { channel, name, claim });
        }
    }
}
