//! What a loop makes of the events of the store's threads: changes that are kept, channels that are
//! opened, checkpoints, and messages that are to be dropped.

use sealed::fault;

use super::channel::Channel;
use super::checkpoint::HandedOver;
use super::events::{Event, Found};
use super::index::{ChannelRow, Updates};
use super::places::{Entry, SegmentId};
use super::retention::{Drops, Relief};
use super::{Change, ChangeKind, DiskStore, InFlight};
use crate::core::message::ChannelName;
use crate::core::position::Spot;
use crate::engine::Tick;
use crate::engine::store::{KeptChannel, KeptSummary, NotKept, Outcome, Unreadable};

/// The changes that are being handed over to a checkpoint.
#[derive(Debug)]
pub(super) struct Handing {
    number: u64,
    /// The channels that are still to be handed over.
    names: Vec<ChannelName>,
    updates: Updates,
}

impl DiskStore {
    pub(super) fn take_events(&mut self, now: Tick) {
        for event in self.shared.take_events(self.index) {
            match event {
                Event::Written { number, place } => self.written(now, number, place),
                Event::Page { read, part } => {
                    self.reads.end_one();
                    self.tally.pages += 1;
                    self.outcomes.push_back(Outcome::Page { read, part: part.map_err(|_| Unreadable) });
                }
                Event::Opened { channel, found } => self.opened(channel, found.map_err(|_| Unreadable)),
                Event::Oldest { channel, id, begin, entries } => {
                    if let Some(channel) = self.channels.get_mut(&channel).filter(|channel| channel.id == id) {
                        channel.take_oldest(begin, entries);
                    }
                }
                Event::Names { read, found } => self.named(read, found.map_err(|_| Unreadable)),
                Event::Checkpointed => self.checkpointed(),
                Event::Relieve { checkpoint, reliefs } => {
                    for relief in reliefs {
                        self.relieve(checkpoint, relief);
                    }
                }
            }
        }
        // No other event may come that would begin the reads that wait.
        if !fault!("waiting-read-forgotten") {
            self.begin_reads();
        }
    }

    /// Completes the changes of a batch.
    fn written(&mut self, now: Tick, number: u64, place: Result<(SegmentId, u32), NotKept>) {
        debug_assert_eq!(
            self.in_flight.front().map(|batch| batch.number),
            Some(number),
            "batches are written in order"
        );
        let Some(InFlight { changes, since, .. }) = self.in_flight.pop_front() else { return };
        if place.is_ok() {
            self.tally.commits.note(now.loop_time.saturating_since(since));
        }
        for Change { channel: name, made, kind } in changes {
            if let Ok((segment, begin)) = place
                && let Some(channel) = self.channels.get_mut(&name)
            {
                channel.id = made.unwrap_or(channel.id);
                channel.is_dirty = true;
                match kind {
                    ChangeKind::Append { entries, keys } => {
                        for entry in entries {
                            channel.add(Entry { segment, offset: begin + entry.offset, ..entry });
                        }
                        for key in keys {
                            channel.add_key(key);
                        }
                    }
                    ChangeKind::Clear => channel.clear(),
                    ChangeKind::Remove => {
                        self.gone(&name);
                        self.outcomes.push_back(Outcome::Changed { channel: name, kept: Ok(()) });
                        continue;
                    }
                }
                if channel.list() {
                    self.changed.push(name.clone());
                }
            }
            self.outcomes.push_back(Outcome::Changed { channel: name, kept: place.map(|_| ()) });
        }
    }

    /// Notes that a channel is removed.
    pub(super) fn gone(&mut self, name: &ChannelName) {
        if let Some(channel) = self.channels.remove(name)
            && channel.id != 0
        {
            self.removed.push(channel.id);
            self.removed_names.insert(name.clone());
            // The checkpoint in progress may bring an earlier channel of the name into the index,
            // which the next one removes.
            if !fault!("removed-name-forgotten-too-early") {
                self.handed_over.1.remove(name);
            }
        }
    }

    fn opened(&mut self, name: ChannelName, found: Result<Option<Box<Found>>, Unreadable>) {
        self.reads.end_one();
        self.opening.remove(&name);
        let kept = found.map(|found| {
            found.map(|found| {
                let Found { id, row, window, keys, oldest_begin, oldest } = *found;
                self.last_epoch = self.last_epoch.max(row.epoch);
                let channel = self.channels.entry(name.clone()).or_insert_with(|| Channel::boxed(id, row));
                channel.is_loaded = true;
                if channel.id == id && !fault!("oldest-places-not-taken") {
                    channel.take_oldest(oldest_begin, oldest);
                }
                KeptChannel { window, keys }
            })
        });
        self.outcomes.push_back(Outcome::Opened { channel: name, kept });
    }

    fn named(&mut self, read: u32, found: Result<(Vec<ChannelRow>, bool), Unreadable>) {
        let summary = |row: ChannelRow| {
            let ChannelRow { name, epoch, first, next, bytes, .. } = row;
            KeptSummary { channel: name, kept_from: first, bytes, spot: Spot { epoch, next } }
        };
        let has_more = matches!(found, Ok((_, true)));
        let names = found.map(|(rows, _)| rows.into_iter().map(summary).collect());
        self.outcomes.push_back(Outcome::Names { read, names, has_more });
    }

    /// Drops old messages of a channel. What was found of a channel that is not in memory is out of
    /// date if the index has changed since.
    fn relieve(&mut self, checkpoint: u64, relief: Relief) {
        let Relief { id, row, drops } = relief;
        if let Some(channel) = self.channels.get_mut(&row.name) {
            // A channel in memory drops what is too old, and ends, by itself.
            if let Drops::Oldest(costs) = drops
                && channel.id == id
            {
                channel.drop_oldest_of(row.first, &costs);
                if channel.list() {
                    self.changed.push(row.name);
                }
            }
            return;
        }
        let is_stale = self.last_checkpoint > checkpoint;
        if is_stale || self.opening.contains(&row.name) || self.removed_names.contains(&row.name) {
            return;
        }
        let (name, first) = (row.name.clone(), row.first);
        let mut channel = Channel::boxed(id, row);
        channel.is_loaded = false;
        match drops {
            Drops::Oldest(costs) => channel.drop_oldest_of(first, &costs),
            Drops::All => channel.clear(),
            Drops::Channel => {
                self.write_removal(id);
                self.removed.push(id);
                self.removed_names.insert(name);
                return;
            }
        }
        channel.is_dirty = true;
        if channel.list() {
            self.changed.push(name.clone());
        }
        self.channels.insert(name, channel);
    }

    /// Begins to hand over the changes since the last checkpoint.
    pub(super) fn begin_hand_over(&mut self, number: u64) {
        self.last_checkpoint = number;
        let updates = Updates { removed: std::mem::take(&mut self.removed), ..Updates::default() };
        self.handed_over = (Vec::new(), self.removed_names.clone());
        self.handing = Some(Handing { number, names: std::mem::take(&mut self.changed), updates });
    }

    /// Hands over some of the changes. A channel that changes before its turn is handed over as it
    /// is then, since reading the log again does not repeat what the index has.
    pub(super) fn hand_over(&mut self, now: Tick) {
        let Some(handing) = &mut self.handing else { return };
        let count = handing.names.len().min(self.shared.settings.channels_at_once);
        for name in handing.names.drain(handing.names.len() - count..) {
            let Some(channel) = self.channels.get_mut(&name) else { continue };
            channel.is_listed = false;
            if channel.is_dirty && channel.id != 0 {
                handing.updates.channels.push(channel.hand_over());
                self.handed_over.0.push(name);
            }
        }
        if let Some(Handing { number, updates, .. }) = self.handing.take_if(|handing| handing.names.is_empty()) {
            let (last_epoch, now) = (self.last_epoch, now.time);
            self.shared.hand_over(self.index, HandedOver { number, updates, last_epoch, now });
        }
    }

    fn checkpointed(&mut self) {
        let (names, removed) = std::mem::take(&mut self.handed_over);
        self.concluding = names;
        for name in removed {
            self.removed_names.remove(&name);
        }
    }

    /// Forgets some of what the index has since the last checkpoint.
    pub(super) fn conclude(&mut self) {
        let count = self.concluding.len().min(self.shared.settings.channels_at_once);
        for name in self.concluding.drain(self.concluding.len() - count..) {
            if let Some(channel) = self.channels.get_mut(&name) {
                channel.checkpointed();
                if !channel.is_loaded && channel.is_in_index() {
                    self.channels.remove(&name);
                }
            }
        }
        if !self.concluding.is_empty() {
            return;
        }
        self.concluding = Vec::new();
        // Of many channels that were published in at once, most are in the index alone now.
        if self.channels.capacity() / 8 > self.channels.len() {
            self.channels.shrink_to(2 * self.channels.len());
        }
    }
}
