//! The members of channels on this loop: the hub counts their connections and reports the numbers
//! to the shards.

use std::collections::HashMap;
use std::sync::Arc;

use super::Hub;
use crate::core::message::{ChannelKind, ChannelName};
use crate::engine::Order;

/// The members of a channel, each with its number of connections.
#[derive(Debug, Default)]
pub(super) struct Members(HashMap<Arc<str>, u32>);

/// The members whose number of connections may differ from the number reported last.
pub(super) type ChangedMembers = Vec<(ChannelName, Arc<str>)>;

impl Hub {
    /// Adds a connection of a member to a channel.
    pub(super) fn add_connection(&mut self, channel: u32, id: &Arc<str>) {
        let channel = &mut self.channels[channel as usize];
        match channel.name.kind() {
            ChannelKind::Named(_) => {}
            ChannelKind::Presence(_) | ChannelKind::Pattern(_) => return,
        }
        *channel.members.get_or_insert_default().0.entry(id.clone()).or_default() += 1;
        self.changed_members.push((channel.name.clone(), id.clone()));
    }

    /// Removes a connection of a member from a channel.
    pub(super) fn remove_connection(&mut self, channel: u32, id: &Arc<str>) {
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
        self.changed_members.push((channel.name.clone(), id.clone()));
    }

    /// Marks all members of a channel, so that they are reported to its shard at the end of the
    /// tick.
    pub(super) fn mark_members(&mut self, key: u32) {
        let channel = &self.channels[key as usize];
        let members = channel.members.iter().flat_map(|members| members.0.keys());
        self.changed_members.extend(members.map(|id| (channel.name.clone(), id.clone())));
    }

    /// Reports the changes of this tick to the shards.
    pub(super) fn report_members(&mut self) {
        let mut changed = std::mem::take(&mut self.changed_members);
        changed.sort_unstable();
        changed.dedup();
        for (name, id) in changed {
            // The shard of a channel that is gone knows that no member is in it.
            let Some(channel) = self.channel_named(&name).filter(|channel| channel.takes_orders()) else { continue };
            let connections = channel.members.as_ref().and_then(|members| members.0.get(&id).copied()).unwrap_or(0);
            self.orders.push(Order::SetMember { channel: name, id, connections });
        }
    }
}
