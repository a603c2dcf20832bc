//! The members of channels on this loop: their connections are counted here and reported to the
//! shards.

use std::collections::HashMap;
use std::sync::Arc;

use super::Hub;
use crate::core::message::{ChannelKind, ChannelName};
use crate::engine::Order;

/// Members of a channel, each with its number of connections.
#[derive(Debug, Default)]
pub(super) struct Members(HashMap<Arc<str>, u32>);

/// Members whose number of connections differs from what was reported.
pub(super) type Moved = Vec<(ChannelName, Arc<str>)>;

impl Hub {
    /// Adds a connection of a member to a channel.
    pub(super) fn come(&mut self, channel: u32, id: &Arc<str>) {
        let channel = &mut self.channels[channel as usize];
        match channel.name.kind() {
            ChannelKind::Named(_) => {}
            ChannelKind::Presence(_) | ChannelKind::Pattern(_) => return,
        }
        *channel.members.get_or_insert_default().0.entry(id.clone()).or_default() += 1;
        self.moved.push((channel.name.clone(), id.clone()));
    }

    /// Removes a connection of a member from a channel.
    pub(super) fn go(&mut self, channel: u32, id: &Arc<str>) {
        let Some(channel) = self.channels.get_mut(channel as usize) else { return };
        let Some(Members(members)) = channel.members.as_deref_mut() else { return };
        let Some(count) = members.get_mut(id) else { return };
        *count -= 1;
        if *count == 0 {
            members.remove(id);
        }
        if members.is_empty() {
            channel.members = None;
        }
        self.moved.push((channel.name.clone(), id.clone()));
    }

    /// Has all members of a channel reported to its shard at the end of the tick.
    pub(super) fn report_members(&mut self, key: u32) {
        let channel = &self.channels[key as usize];
        let members = channel.members.iter().flat_map(|members| members.0.keys());
        self.moved.extend(members.map(|id| (channel.name.clone(), id.clone())));
    }

    /// Reports the changes of this tick to the shards.
    pub(super) fn tell_moved(&mut self) {
        let mut moved = std::mem::take(&mut self.moved);
        moved.sort_unstable();
        moved.dedup();
        for (name, id) in moved {
            // The shard of a channel that is gone knows that nobody is in it.
            let Some(channel) = self.channel_named(&name).filter(|channel| channel.takes_orders()) else { continue };
            let connections = channel.members.as_ref().and_then(|members| members.0.get(&id).copied()).unwrap_or(0);
            self.orders.push(Order::SetMember { channel: name, id, connections });
        }
    }
}
