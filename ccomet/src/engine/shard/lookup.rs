//! Pages of the list of channels.

use sealed::fault;

use super::{Asker, ChannelState, Shard};
use crate::engine::{Listed, Listing, Reply, Tick};

impl Shard {
    pub(super) fn list(&mut self, now: Tick, asker: Asker, listing: &Listing) {
        let is_meant = |channel: &&ChannelState| {
            let name = channel.name.as_str();
            *name > *listing.after && listing.pattern.matches(name)
        };
        let mut found: Vec<&ChannelState> = self.sources().filter(is_meant).collect();
        // Only the first channels are sorted, and one more, which shows that there are more.
        let wanted = listing.limit.saturating_add(usize::from(!fault!("list-ends-early")));
        if found.len() > wanted {
            found.select_nth_unstable_by(wanted - 1, |one, other| one.name.cmp(&other.name));
            found.truncate(wanted);
        }
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let listed = |channel: &&ChannelState| Listed { channel: channel.name.clone(), info: self.info(channel, now) };
        let channels = found.iter().map(listed).collect();
        // The recipient takes a channel beyond the limit as the sign that there are more.
        self.reply(asker, Ok(Reply::List { channels, has_more: false }));
    }
}
