//! A store on disk: a log of all changes, and an index of the log.
//!
//! A change takes this way: `submit` appends its records to the batch of the tick, and `flush`
//! hands the batch to the writer, which keeps the batches of all loops in one frame of the log
//! (`shared.rs`, `log.rs`, with the format in `record.rs`). Then the loop gets the event `Written`,
//! notes where the messages are (`outcomes.rs`, `channel.rs`), and reports the change as kept. From
//! time to time the loops hand over these places for the index (`checkpoint.rs`, `index.rs`). After
//! a restart, only the log after the last checkpoint is read (`opening.rs`).
//!
//! Reads go to threads (`reading.rs`), and come back as events. On the thread of the checkpoints,
//! `retention.rs` removes what is kept no more.

mod backend;
mod channel;
mod checkpoint;
mod error;
mod events;
mod index;
mod log;
mod opening;
mod outcomes;
mod places;
mod reading;
mod reads;
mod record;
mod reserve;
mod retention;
mod room;
mod settings;
mod shared;
mod tables;
pub(crate) mod tools;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sealed::fault;

use self::channel::{Channel, Trimmed};
use self::checkpoint::NextTime;
use self::index::ChannelRow;
use self::outcomes::Handing;
use self::places::Entry;
use self::reads::{Reads, Wanted};
use self::record::{ChannelId, RecordWriter};
use self::shared::{Batch, DiskState};
use super::{
    ChannelPlace, KeptKey, NameRange, NotKept, Opened, Outcome, PartRange, Store, StoreChange, Submitted, Unreadable,
    digest,
};
use crate::core::health::HealthProblem;
use crate::core::message::{ChannelName, Message};
use crate::core::position::Epoch;
use crate::core::tally::{StoreFigures, StoreTally};
use crate::core::time::LoopTime;
use crate::core::window::HistoryLimits;
use crate::engine::Tick;

pub use error::StoreError;
pub(crate) use settings::{LogSync, StoreSettings, StoreTimes};
pub(crate) use shared::{Crews, SharedStore};

/// The time between two looks whether a full disk has room again.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// The store of one loop's shard.
#[derive(Debug)]
pub(crate) struct DiskStore {
    shared: Arc<SharedStore>,
    /// The index of the loop.
    index: usize,
    /// The channels that the shard has in memory, and those that have changed since the last
    /// checkpoint. They are boxed so that little is moved when the table grows.
    channels: HashMap<ChannelName, Box<Channel>>,
    /// The names of channels that were removed, and are still in the index.
    removed_names: HashSet<ChannelName>,
    /// The channels that were removed since the last checkpoint was begun.
    removed: Vec<ChannelId>,
    /// The channels that have changed since the last checkpoint was begun.
    changed: Vec<ChannelName>,
    /// The changes that are being handed over to the checkpoint in progress.
    handing: Option<Handing>,
    /// The channels of the last checkpoint of which the loop still has what the index has.
    concluding: Vec<ChannelName>,
    /// The channels of the checkpoint in progress, and the names that will be gone with it.
    handed_over: (Vec<ChannelName>, HashSet<ChannelName>),
    last_epoch: Epoch,
    /// The records of this tick, and the changes that they make.
    batch: Vec<u8>,
    changes: Vec<Change>,
    /// The batches that the writer has.
    in_flight: VecDeque<InFlight>,
    last_batch: u64,
    outcomes: VecDeque<Outcome>,
    /// The number of the last checkpoint to which this loop has contributed.
    last_checkpoint: u64,
    reads: Reads,
    /// The channels that are being opened.
    opening: HashSet<ChannelName>,
    next_checkpoint: NextTime,
    next_sync: NextTime,
    next_look: NextTime,
    tally: StoreTally,
}

/// A batch that the writer has.
#[derive(Debug)]
struct InFlight {
    number: u64,
    changes: Vec<Change>,
    /// The time at which the writer got it.
    since: LoopTime,
}

/// A change that the log does not have yet.
#[derive(Debug)]
struct Change {
    channel: ChannelName,
    /// The number of the channel, if the change creates it.
    made: Option<ChannelId>,
    kind: ChangeKind,
}

#[derive(Debug)]
enum ChangeKind {
    Append {
        /// The places of the messages, with offsets in the batch.
        entries: Vec<Entry>,
        keys: Vec<KeptKey>,
    },
    Clear,
    Remove,
}

/// Returns the idempotency key of a message, before number `next`.
fn key_of(message: &Message, next: u64) -> Option<KeptKey> {
    let key = message.key()?.into();
    Some(KeptKey { key, digest: digest(message), next, time: message.time() })
}

impl DiskStore {
    pub(crate) fn new(shared: Arc<SharedStore>, index: usize) -> Self {
        Self {
            last_epoch: shared.last_epoch,
            shared,
            index,
            channels: HashMap::new(),
            removed_names: HashSet::new(),
            removed: Vec::new(),
            changed: Vec::new(),
            handing: None,
            concluding: Vec::new(),
            handed_over: (Vec::new(), HashSet::new()),
            batch: Vec::new(),
            changes: Vec::new(),
            in_flight: VecDeque::new(),
            last_batch: 0,
            outcomes: VecDeque::new(),
            last_checkpoint: 0,
            reads: Reads::default(),
            opening: HashSet::new(),
            next_checkpoint: NextTime::default(),
            next_sync: NextTime::default(),
            next_look: NextTime::default(),
            tally: StoreTally::default(),
        }
    }

    /// Returns a channel of the shard.
    fn channel_of(&mut self, place: ChannelPlace<'_>) -> &mut Channel {
        self.last_epoch = self.last_epoch.max(place.epoch);
        self.channels
            .entry(place.channel.clone())
            .or_insert_with(|| Channel::boxed(0, ChannelRow::new(place.channel.clone(), place.epoch, place.next)))
    }

    fn append(&mut self, now: Tick, place: ChannelPlace<'_>, messages: &[Arc<Message>]) {
        let id = self.channel_of(place).id;
        let made = (id == 0).then(|| self.shared.new_channel());
        let id = made.unwrap_or(id);
        if fault!("batch-split-over-frames") && messages.len() > 1 && made.is_none() {
            let (first, rest) = messages.split_at(1);
            self.append(now, place, first);
            self.hand_to_writer(now);
            return self.append(now, ChannelPlace { next: place.next + 1, ..place }, rest);
        }
        let mut writer = RecordWriter { out: &mut self.batch, salt: self.shared.salt };
        if made.is_some() {
            writer.made(id, place.next, place.epoch, place.channel);
        }
        let (mut entries, mut keys) = (Vec::with_capacity(messages.len()), Vec::new());
        for (number, message) in (place.next..).zip(messages) {
            let offset = writer.out.len() as u32;
            let length = writer.message(id, number, message) as u32;
            let cost = message.cost() as u32;
            entries.push(Entry { segment: 0, offset, length, cost, time: message.time() });
            keys.extend(key_of(message, number + 1));
        }
        let kind = ChangeKind::Append { entries, keys };
        self.changes.push(Change { channel: place.channel.clone(), made, kind });
    }

    /// Appends a record of the removal of a channel that the log has.
    fn write_removal(&mut self, id: ChannelId) {
        if fault!("removal-not-in-log") {
            return RecordWriter { out: &mut self.batch, salt: self.shared.salt }.removed(0);
        }
        RecordWriter { out: &mut self.batch, salt: self.shared.salt }.removed(id);
    }

    /// Returns whether all changes of the batch free room on the disk.
    fn frees_room(&self) -> bool {
        !self.changes.iter().any(|change| matches!(change.kind, ChangeKind::Append { .. }))
    }

    /// Hands the batch to the writer.
    fn hand_to_writer(&mut self, now: Tick) {
        self.last_batch += 1;
        let is_relief = self.frees_room();
        let changes = std::mem::take(&mut self.changes);
        self.in_flight.push_back(InFlight { number: self.last_batch, changes, since: now.loop_time });
        let records = std::mem::take(&mut self.batch);
        self.shared.submit(Batch { from: self.index, number: self.last_batch, records, is_relief });
    }

    /// Starts periodic work. One loop does this for all.
    fn keep_time(&mut self, now: Tick) {
        let settings = &self.shared.settings;
        let (now, time) = (now.loop_time, now.time);
        if self.next_checkpoint.is_due(now, settings.checkpoint_interval) && !self.shared.begin_checkpoint() {
            self.shared.retain_soon(time);
        }
        if let LogSync::Interval(interval) = settings.sync
            && self.next_sync.is_due(now, interval)
        {
            self.shared.sync_soon();
        }
        if self.next_look.is_due(now, ROOM_INTERVAL) {
            self.shared.look_for_room();
            self.shared.mend_soon();
        }
    }
}

impl Store for DiskStore {
    fn window_max(&self) -> Option<usize> {
        Some(self.shared.settings.window_max)
    }

    fn bytes(&self, channel: &ChannelName) -> Option<u64> {
        self.channels.get(channel).map(|channel| channel.row.bytes)
    }

    fn problems(&self) -> Vec<HealthProblem> {
        self.shared.problems()
    }

    fn tally(&self) -> Option<&StoreTally> {
        Some(&self.tally)
    }

    fn figures(&self) -> Option<StoreFigures> {
        Some(self.shared.figures())
    }

    fn last_epoch(&self) -> Epoch {
        self.last_epoch
    }

    fn submit(&mut self, now: Tick, place: ChannelPlace<'_>, change: StoreChange<'_>) -> Submitted {
        if !self.shared.has_room_after(self.batch.len()) {
            return Submitted::Refused(NotKept::Unavailable);
        }
        // A change that was refused may be in the log, and another one must not follow it.
        if self.shared.state() == DiskState::Failed && !fault!("change-after-failure-kept") {
            return Submitted::Refused(NotKept::Failed);
        }
        let frees_room = !matches!(change, StoreChange::Append(_));
        if self.shared.state() == DiskState::Full && !self.batch.is_empty() && self.frees_room() != frees_room {
            // What frees room on a full disk is kept, and the rest is not.
            self.hand_to_writer(now);
        }
        let id = self.channel_of(place).id;
        let kind = match change {
            StoreChange::Append(messages) => {
                self.append(now, place, messages);
                return Submitted::Later;
            }
            // The log does not have the channel.
            StoreChange::Clear if id == 0 => return Submitted::Kept,
            StoreChange::Remove if id == 0 => {
                // The next channel of the name has another epoch.
                self.channels.remove(place.channel);
                return Submitted::Kept;
            }
            StoreChange::Clear => {
                RecordWriter { out: &mut self.batch, salt: self.shared.salt }.cleared(id, place.next);
                ChangeKind::Clear
            }
            StoreChange::Remove => {
                self.write_removal(id);
                ChangeKind::Remove
            }
        };
        self.changes.push(Change { channel: place.channel.clone(), made: None, kind });
        Submitted::Later
    }

    fn trim(&mut self, now: Tick, name: &ChannelName, limits: &HistoryLimits) -> Option<u64> {
        let Some(channel) = self.channels.get_mut(name) else { return Some(0) };
        if let Trimmed::Wants(begin) = channel.trim(limits, now.time)
            && !channel.is_reading
        {
            let (shared, to, name, id) = (self.shared.clone(), self.index, name.clone(), channel.id);
            let started = self.shared.crews.readers.spawn(move || shared.read_oldest(to, name, id, begin));
            channel.is_reading = started.is_ok();
        }
        if channel.list() {
            self.changed.push(name.clone());
        }
        Some(channel.row.first)
    }

    fn forget(&mut self, name: &ChannelName) {
        let id = self.channels.get(name).map_or(0, |channel| channel.id);
        if id != 0 {
            self.write_removal(id);
        }
        self.gone(name);
        self.channels.remove(name);
    }

    fn unload(&mut self, name: &ChannelName) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.is_loaded = false;
            if channel.is_in_index() || fault!("unloaded-before-checkpoint") {
                self.channels.remove(name);
            }
        }
    }

    fn open(&mut self, now: Tick, name: &ChannelName, _: bool) -> Opened {
        let known = self.channels.get(name).map(|channel| channel.id);
        if known == Some(0) {
            // Nothing of it was kept.
            self.channels.remove(name);
            return Opened::Absent;
        }
        if known.is_none() && self.removed_names.contains(name) && !fault!("removed-channel-found-in-index") {
            return Opened::Absent;
        }
        self.opening.insert(name.clone());
        self.reads.add(Wanted::Open { channel: name.clone(), now: now.time });
        self.begin_reads();
        Opened::Later
    }

    fn names(&mut self, _: Tick, read: u32, range: NameRange) {
        let is_meant = |name: &str| name.starts_with(&*range.prefix) && *name > *range.after;
        // What the index does not have yet, or still has.
        let newer = self.channels.iter().filter(|(name, channel)| channel.id != 0 && is_meant(name.as_str()));
        let newer = newer.map(|(_, channel)| channel.row.clone()).collect();
        let gone = self.removed_names.iter().filter(|name| !self.channels.contains_key(name)).cloned().collect();
        let (shared, to) = (self.shared.clone(), self.index);
        if self.shared.crews.readers.spawn(move || shared.read_names(to, read, &range, newer, &gone)).is_err() {
            self.outcomes.push_back(Outcome::Names { read, names: Err(Unreadable), has_more: false });
        }
    }

    fn read(&mut self, now: Tick, read: u32, place: ChannelPlace<'_>, range: PartRange) {
        let ChannelPlace { channel, epoch, .. } = place;
        self.reads.add(Wanted::Page { read, channel: channel.clone(), epoch, range, now: now.time });
        self.begin_reads();
    }

    fn flush(&mut self, now: Tick) {
        if !self.batch.is_empty() {
            self.hand_to_writer(now);
        }
        if self.index == 0 {
            self.keep_time(now);
        }
        self.begin_reads();
    }

    fn next_outcome(&mut self, now: Tick) -> Option<Outcome> {
        if self.outcomes.is_empty() {
            // In this order: the events of all frames before the checkpoint were sent before it was
            // begun.
            let wanted = self.shared.wanted_checkpoint(self.index);
            self.take_events(now);
            self.conclude();
            if let Some(number) = wanted
                && self.handing.is_none()
                && self.concluding.is_empty()
            {
                self.begin_hand_over(number);
            }
            self.hand_over(now);
        }
        let outcome = self.outcomes.pop_front();
        if outcome.is_none() && !self.batch.is_empty() && !fault!("changes-after-outcomes-wait") {
            // Changes that had waited for those whose outcomes the shard has just processed.
            self.hand_to_writer(now);
        }
        outcome
    }

    fn due(&self) -> Option<LoopTime> {
        let has_work = !self.outcomes.is_empty() || self.handing.is_some() || !self.concluding.is_empty();
        has_work.then(LoopTime::default)
    }
}
