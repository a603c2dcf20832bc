//! Who is in the channels of this loop under a name: counted here, and known at the channels'
//! shards.

use std::collections::HashMap;
use std::sync::Arc;

use super::Hub;
use crate::core::message::ChannelName;
use crate::engine::Order;

/// Members of a channel, each with how many connections.
#[derive(Debug, Default)]
pub(super) struct Members(HashMap<Arc<str>, u32>);

/// Members of channels of whom there is another number of connections than their shards were told.
pub(super) type Moved = Vec<(ChannelName, Arc<str>)>;

impl Hub {
    /// A member has one more connection in a channel.
    pub(super) fn come(&mut self, channel: u32, id: &Arc<str>) {
        let channel = &mut self.channels[channel as usize];
        if channel.name.is_presence() || channel.name.is_pattern() {
            return;
        }
        *channel.members.get_or_insert_default().0.entry(id.clone()).or_default() += 1;
        self.moved.push((channel.name.clone(), id.clone()));
    }

    /// A member has one connection less in a channel.
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

    /// Tells the channels' shards what has come of it in this tick.
    pub(super) fn tell_moved(&mut self) {
        let mut moved = std::mem::take(&mut self.moved);
        moved.sort_unstable();
        moved.dedup();
        for (name, id) in moved {
            // One that is gone, its shard knows to be empty.
            let Some(channel) = self.channel_named(&name) else { continue };
            let connections = channel.members.as_ref().and_then(|members| members.0.get(&id).copied()).unwrap_or(0);
            self.orders.push(Order::SetMember { channel: name, id, connections });
        }
    }
}
