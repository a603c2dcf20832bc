//! Pages of the list of channels: those in memory, and those that only the store keeps.

use sealed::fault;

use super::pages::Reading;
use super::{Asker, ChannelState, Shard};
use crate::core::pattern::Pattern;
use crate::core::window::HistoryLimits;
use crate::engine::store::{KeptSummary, NameRange, Unreadable};
use crate::engine::{ChannelSummary, Listed, Listing, Refusal, Reply, Tick};

/// The minimum and maximum number of names that are read from the store at a time.
const NAMES_MIN: usize = 100;
const NAMES_MAX: usize = 1_000;

/// A list whose names the store reads.
#[derive(Debug)]
pub(super) struct ListInProgress {
    asker: Asker,
    listing: Listing,
    /// The channels that the store keeps, as far as they are known.
    found: Vec<Listed>,
}

impl NameRange {
    /// Returns the range of at most that many names that a pattern may match, after `after`.
    pub(super) fn of(pattern: &Pattern, after: &str, limit: usize) -> Self {
        let prefix = pattern.as_str().split('*').next().unwrap_or_default();
        Self { prefix: prefix.into(), after: after.into(), limit: limit.clamp(NAMES_MIN, NAMES_MAX) }
    }
}

impl Listing {
    /// Returns how many channels each shard finds: one more than wanted, which shows that there are
    /// more.
    fn wanted(&self) -> usize {
        self.limit.saturating_add(usize::from(!fault!("list-ends-early")))
    }
}

impl Shard {
    pub(super) fn list(&mut self, now: Tick, asker: Asker, listing: Listing) {
        if !self.is_stored || fault!("list-without-unloaded") {
            return self.conclude_list(now, ListInProgress { asker, listing, found: Vec::new() });
        }
        let range = NameRange::of(&listing.pattern, &listing.after, listing.wanted());
        self.begin_names(now, Reading::List(Box::new(ListInProgress { asker, listing, found: Vec::new() })), range);
    }

    /// Continues a list with names from the store.
    pub(super) fn list_on(
        &mut self,
        now: Tick,
        mut list: Box<ListInProgress>,
        names: Result<Vec<KeptSummary>, Unreadable>,
        has_more: bool,
    ) {
        let Ok(names) = names else { return self.reply(list.asker, Err(Refusal::Unavailable)) };
        let last = names.last().map(|kept| kept.channel.clone());
        let is_meant = |kept: &KeptSummary| list.listing.pattern.matches(kept.channel.as_str());
        let rules = &self.limits.rules;
        let listed = |kept: KeptSummary| {
            // The store may not know yet what the limits no longer allow.
            let limits = rules.bounds(rules.find(&kept.channel)).history;
            Listed::of_kept(kept, &limits)
        };
        list.found.extend(names.into_iter().filter(is_meant).map(listed));
        let wanted = list.listing.wanted();
        match last.filter(|_| has_more && list.found.len() < wanted) {
            Some(last) => {
                let range = NameRange::of(&list.listing.pattern, last.as_str(), wanted);
                self.begin_names(now, Reading::List(list), range);
            }
            None => self.conclude_list(now, *list),
        }
    }

    /// Replies with the channels in memory, and those that the store has found in addition.
    fn conclude_list(&mut self, now: Tick, list: ListInProgress) {
        let ListInProgress { asker, listing, found: kept } = list;
        let is_meant = |channel: &&ChannelState| {
            let name = channel.name.as_str();
            *name > *listing.after && listing.pattern.matches(name)
        };
        let mut found: Vec<&ChannelState> = self.sources().filter(is_meant).collect();
        // Only the first channels are sorted.
        let wanted = listing.wanted();
        if found.len() > wanted {
            found.select_nth_unstable_by(wanted - 1, |one, other| one.name.cmp(&other.name));
            found.truncate(wanted);
        }
        let listed = |channel: &ChannelState| Listed { channel: channel.name.clone(), info: self.info(channel, now) };
        let mut channels: Vec<Listed> = found.into_iter().map(listed).collect();
        let is_unloaded = |row: &Listed| !self.names.contains_key(&row.channel);
        channels.extend(kept.into_iter().filter(is_unloaded));
        channels.sort_unstable_by(|one, other| one.channel.cmp(&other.channel));
        channels.truncate(wanted);
        // The recipient takes a channel beyond the limit as the sign that there are more.
        self.reply(asker, Ok(Reply::List { channels, has_more: false }));
    }
}

impl Listed {
    /// Returns the row of a channel that is not in memory.
    fn of_kept(KeptSummary { channel, kept_from, bytes, spot }: KeptSummary, limits: &HistoryLimits) -> Self {
        let messages = spot.next.saturating_sub(kept_from).min(limits.messages_max as u64);
        let bytes = bytes.min(limits.bytes_max as u64);
        let bytes = if fault!("bytes-of-kept-left-out") { 0 } else { bytes };
        Self { channel, info: ChannelSummary { subscribers: 0, in_use: false, messages, bytes, spot } }
    }
}
