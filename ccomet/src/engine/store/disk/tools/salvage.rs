//! `salvage`: a new store with all messages of a damaged one that can be read.
//!
//! If the index is whole, it says which channels and messages there were. A channel that may have
//! lost messages gets a new epoch, and consecutive numbers: readers are notified of a gap, and no
//! position means two messages.
//!
//! Otherwise, all segments are read, and all channels get new epochs: the newest segments may have
//! been removed because no message in them was kept, so that nothing says which number comes next.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealed::disk::Directory;

use super::random;
use super::records::Records;
use super::rescue::{Rescue, find_salt};
use super::view::open_index;
use super::writer::Writer;
use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::core::time::UnixMillis;
use crate::engine::store::disk::index::{ChannelRow, Index, StoreState};
use crate::engine::store::disk::opening::Refused;
use crate::engine::store::disk::places::Entry;
use crate::engine::store::disk::record::ChannelId;

const ROWS: usize = 1_000;
const PLACES: usize = 4_096;

/// What a salvage has kept, and what is lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Salvaged {
    /// The number of channels.
    pub channels: u64,
    /// The number of messages.
    pub messages: u64,
    /// The damages, and the channels that lost messages or may have, as text.
    pub lost: Vec<String>,
}

/// A channel of the damaged store.
#[derive(Debug)]
struct Plan {
    id: ChannelId,
    epoch: Epoch,
    kept_for: Duration,
    /// The messages that were kept.
    kept: Range<u64>,
    /// The index has the places of the messages before this one.
    indexed: u64,
    /// Whether the newest messages may be lost without a trace.
    is_end_lost: bool,
    /// Whether the channel gets a new epoch even if nothing is lost.
    is_new: bool,
}

/// Writes all messages of a store that can be read to a new one. With `new_epochs`, all channels
/// get new epochs.
pub(in crate::engine::store::disk) fn salvage(
    old: &Directory,
    new: &Directory,
    new_epochs: bool,
    progress: &mut dyn FnMut(&str),
) -> Result<Salvaged, Refused> {
    let mut salvaged = Salvaged::default();
    let index = whole_index(old, &mut salvaged.lost, progress)?;
    let salt = index.as_ref().map_or_else(|| find_salt(old), |(_, state)| Ok(state.salt))?;
    let position = index.as_ref().map(|(_, state)| state.position);
    let row = |id| index.as_ref().and_then(|(index, _)| index.row(id).ok().flatten());
    let next_of = |id| row(id).map_or(0, |row| row.next);
    let rescue = Rescue::read(old, salt, position, &next_of, progress)?;
    salvaged.lost.extend(rescue.losses.iter().map(ToString::to_string));
    let is_new = new_epochs || index.is_none();
    let plans = plans(index.as_ref().map(|(index, _)| index), &rescue, is_new, &mut salvaged.lost)?;
    let earlier = plans.values().map(|plan| plan.epoch).chain(index.iter().map(|(_, state)| state.last_epoch)).max();
    let mut salvage = Salvage {
        index: index.map(|(index, _)| index),
        rescue,
        records: Records::new(old.clone(), salt),
        writer: Writer::new(new)?,
        last_epoch: earlier.unwrap_or(Epoch(0)),
        salvaged,
    };
    for (name, plan) in plans {
        salvage.copy(&name, &plan)?;
        let Salvaged { channels, messages, .. } = &salvage.salvaged;
        progress(&format!("{channels} channels, {messages} messages"));
    }
    salvage.writer.finish()?;
    Ok(salvage.salvaged)
}

/// Returns the index, if all of it can be read.
fn whole_index(
    old: &Directory,
    lost: &mut Vec<String>,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<(Index, StoreState)>, Refused> {
    progress("checksums of the index");
    let opened = open_index(old).and_then(|(mut index, state)| {
        index.verify()?;
        let mut last = 0;
        while let Some((id, _)) = index.checked_rows_after(last, ROWS)?.last() {
            last = *id;
        }
        Ok((index, state))
    });
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(Refused::Newer(version)) => Err(Refused::Newer(version)),
        Err(Refused::Older(version)) => {
            lost.push(format!("the index, and with it the epochs of all channels: it has format {version}"));
            Ok(None)
        }
        Err(Refused::Io(action, error)) => Err(Refused::Io(action, error)),
        Err(Refused::Index(error)) => {
            lost.push(format!("the index, and with it the epochs of all channels: {error}"));
            Ok(None)
        }
        Err(Refused::Damaged(why)) => {
            lost.push(format!("the index, and with it the epochs of all channels: {why}"));
            Ok(None)
        }
    }
}

/// Returns the channels by name.
fn plans(
    index: Option<&Index>,
    rescue: &Rescue,
    is_new: bool,
    lost: &mut Vec<String>,
) -> Result<BTreeMap<ChannelName, Plan>, Refused> {
    let mut plans = BTreeMap::new();
    let mut last = 0;
    while let Some(index) = index {
        let rows = index.checked_rows_after(last, ROWS)?;
        let Some((id, _)) = rows.last() else { break };
        last = *id;
        for (id, row) in rows {
            let found = rescue.channels.get(&id);
            if found.is_some_and(|found| found.is_removed) {
                continue;
            }
            let (first, next) = found.map_or((0, 0), |found| (found.first, found.next));
            let kept = row.first.max(first)..row.next.max(next);
            let is_end_lost = rescue.is_end_lost(id);
            let ChannelRow { name, epoch, kept_for, .. } = row;
            plans.insert(name, Plan { id, epoch, kept_for, kept, indexed: row.next, is_end_lost, is_new });
        }
    }
    for (id, found) in rescue.channels.iter().filter(|(_, found)| !found.is_removed) {
        if let Some(index) = index
            && index.row(*id)?.is_some()
        {
            continue;
        }
        let (name, epoch) = if let Some(made) = &found.made {
            made.clone()
        } else {
            let name = format!("salvage.{id}");
            lost.push(format!("the name of channel {id}, whose messages are in {name}"));
            // No epoch is 0: the channel gets a new one.
            (ChannelName::new(&name).map_err(|error| Refused::Damaged(error.to_string()))?, Epoch(0))
        };
        // Without an index, nothing says which of the oldest messages were dropped.
        let first = found.entries.keys().next().copied().unwrap_or(found.next);
        let first = if index.is_some() { found.first } else { first.max(found.first) };
        let is_end_lost = rescue.is_end_lost(*id);
        let is_new = is_new || found.made.is_none();
        let (id, kept, kept_for) = (*id, first..found.next, Duration::MAX);
        plans.insert(name, Plan { id, epoch, kept_for, kept, indexed: 0, is_end_lost, is_new });
    }
    Ok(plans)
}

struct Salvage {
    index: Option<Index>,
    rescue: Rescue,
    records: Records,
    writer: Writer,
    last_epoch: Epoch,
    salvaged: Salvaged,
}

impl Salvage {
    /// Copies a channel. Its messages are read twice: the epoch depends on whether all are there.
    fn copy(&mut self, name: &ChannelName, plan: &Plan) -> Result<(), Refused> {
        let missing = self.missing(plan)?;
        let is_whole = missing.is_empty() && !plan.is_end_lost;
        let (mut epoch, mut keys) = (plan.epoch, Vec::new());
        if let Some(index) = self.index.as_ref().filter(|_| is_whole && plan.indexed > 0) {
            keys = index.keys(plan.id, UnixMillis::default())?;
        }
        if !is_whole || plan.is_new {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            epoch = Epoch::new(UnixMillis::since_1970(now), random()?.into(), self.last_epoch);
            self.last_epoch = epoch;
        }
        if !is_whole {
            self.salvaged.lost.push(describe(name, plan, &missing));
        }
        let row = ChannelRow { kept_for: plan.kept_for, ..ChannelRow::new(name.clone(), epoch, plan.kept.start) };
        self.writer.begin(row, keys);
        self.salvaged.channels += 1;
        let mut next = plan.kept.start;
        while let Some(entries) = self.entries(plan, next)? {
            for (number, entry) in entries {
                next = number + 1;
                if let Ok(message) = self.records.message(plan.id, number, entry) {
                    let has_key = !is_whole || number >= plan.indexed;
                    self.writer.add(&Arc::new(message), has_key)?;
                    self.salvaged.messages += 1;
                }
            }
        }
        Ok(())
    }

    /// Returns the numbers of the messages that cannot be read.
    fn missing(&mut self, plan: &Plan) -> Result<Vec<Range<u64>>, Refused> {
        let (mut missing, mut next): (Vec<Range<u64>>, _) = (Vec::new(), plan.kept.start);
        let mut lose = |numbers: Range<u64>| match missing.last_mut() {
            _ if numbers.is_empty() => {}
            Some(last) if last.end == numbers.start => last.end = numbers.end,
            _ => missing.push(numbers),
        };
        while let Some(entries) = self.entries(plan, next)? {
            for (number, entry) in entries {
                lose(next..number);
                if self.records.message(plan.id, number, entry).is_err() {
                    lose(number..number + 1);
                }
                next = number + 1;
            }
        }
        lose(next..plan.kept.end);
        Ok(missing)
    }

    /// Returns places of messages from a number on; `None` if there are no more.
    fn entries(&self, plan: &Plan, begin: u64) -> Result<Option<Vec<(u64, Entry)>>, Refused> {
        let mut entries = Vec::new();
        if let Some(index) = self.index.as_ref().filter(|_| begin < plan.indexed) {
            entries = index.entries(plan.id, begin, false, PLACES)?;
            entries.retain(|(number, _)| plan.kept.contains(number) && *number < plan.indexed);
        }
        if entries.is_empty()
            && let Some(found) = self.rescue.channels.get(&plan.id)
        {
            let from = begin.max(plan.indexed).max(plan.kept.start);
            entries = found.entries.range(from..).take(PLACES).map(|(number, entry)| (*number, *entry)).collect();
        }
        Ok(Some(entries).filter(|entries| !entries.is_empty()))
    }
}

fn describe(name: &ChannelName, plan: &Plan, missing: &[Range<u64>]) -> String {
    const SHOWN: usize = 20;
    let range = |range: &Range<u64>| match (range.start, range.end - 1) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first} to {last}"),
    };
    let mut parts: Vec<_> = missing.iter().take(SHOWN).map(range).collect();
    if missing.len() > SHOWN {
        parts.push(format!("{} more", missing.len() - SHOWN));
    }
    if plan.is_end_lost {
        let last = plan.kept.end.checked_sub(1);
        parts.push(last.map_or_else(|| "possibly all".to_owned(), |last| format!("possibly any after {last}")));
    }
    format!("channel {name}: message numbers {}", parts.join(", "))
}
