//! What can be looked up in a shard: pages of a channel's history, and of the list of channels.

use std::sync::Arc;

use sealed::fault;

use super::{Asker, ChannelState, Shard};
use crate::engine::{Edge, Listed, Listing, Page, Range, Reply, Tick};
use crate::message::{ChannelName, Message};
use crate::position::{Missed, Spot};
use crate::time::UnixMillis;

impl Shard {
    pub(super) fn read(&mut self, now: Tick, asker: Asker, name: &ChannelName, range: Range) {
        let key = self.names.get(name).copied();
        let page = key.map(|key| {
            self.trim(key, now);
            page_of(&self.channels[key], range, now.time)
        });
        self.reply(asker, Ok(Reply::Page(page)));
    }

    pub(super) fn list(&mut self, now: Tick, asker: Asker, listing: &Listing) {
        let is_meant = |channel: &&ChannelState| {
            let name = channel.name.as_str();
            *name > *listing.after && listing.pattern.matches(name)
        };
        let mut found: Vec<&ChannelState> = self.sources().filter(is_meant).collect();
        // Only the first of them are put in order, and one more, which tells that there are more.
        let wanted = listing.limit.saturating_add(usize::from(!fault!("list-ends-early")));
        if found.len() > wanted {
            found.select_nth_unstable_by(wanted - 1, |one, other| one.name.cmp(&other.name));
            found.truncate(wanted);
        }
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let listed = |channel: &&ChannelState| Listed { channel: channel.name.clone(), info: self.info(channel, now) };
        let channels = found.iter().map(listed).collect();
        // The last one, if it is one too many, tells that.
        self.reply(asker, Ok(Reply::List { channels, has_more: false }));
    }
}

fn page_of(channel: &ChannelState, range: Range, now: UnixMillis) -> Page {
    let (first, next) = (channel.log.first(), channel.log.next());
    let (begin, gap) = match range.edge {
        Edge::Begin => (first, None),
        Edge::End => (next, None),
        Edge::At(spot) if spot.epoch == channel.epoch && spot.next <= next => {
            let missed = first.saturating_sub(spot.next);
            (spot.next.max(first), (missed > 0).then_some(Missed(Some(missed))))
        }
        // Of another run of numbers: all that there is now came later.
        Edge::At(_) => (if range.is_backward { next } else { first }, Some(Missed(None))),
    };
    let numbered = |number: u64, entry: &Arc<Message>| (number, entry.clone());
    let living = |(_, message): &(u64, Arc<Message>)| !message.is_expired(now);
    let mut end = begin;
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut take = |(number, message): (u64, Arc<Message>)| {
        bytes += message.payload.len();
        if entries.len() == range.limit || (bytes > range.bytes_max && !entries.is_empty()) {
            return false;
        }
        end = if range.is_backward { number } else { number + 1 };
        entries.push((number, message));
        true
    };
    let more = if range.is_backward {
        let older =
            channel.log.back().skip_while(|(number, _)| *number >= begin + u64::from(fault!("page-begin-repeated")));
        !older.map(|(number, entry)| numbered(number, entry)).filter(living).all(&mut take)
    } else {
        !channel.log.since(begin).map(|(number, entry)| numbered(number, entry)).filter(living).all(&mut take)
    };
    let spot = |next| Spot { epoch: channel.epoch, next };
    // Where there is no more now, what comes next begins where the log ends.
    let end = match (more, range.is_backward) {
        (true, _) => end,
        (false, true) => first.min(begin),
        (false, false) => next,
    };
    Page { entries, gap, begin: spot(begin), end: spot(end), more }
}
