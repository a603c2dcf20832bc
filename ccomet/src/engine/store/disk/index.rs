//! The index of the log: which channels there are, and where the log has their messages. It is a
//! redb database, which is written at checkpoints only: what the log has gained since the last
//! checkpoint is read again at the start.

mod rows;
mod scan;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use sealed::disk::Directory;
use sealed::fault;

use super::backend::{Backend, ReadOnlyBackend};
use super::log::{copy, is_full};
use super::places::{Entry, SegmentId, decode_block};
use super::record::{ChannelId, Salt};
use super::tables::Tables;
use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::core::time::UnixMillis;
use crate::engine::store::KeptKey;

pub(super) use rows::KeyValue;
use rows::{Reported, decode_state, decode_version};
pub(super) use rows::{
    block_places, damaged_row, decode_count, decode_key, encode_block, encode_count, encode_key, encode_state,
    report_row, row_damage,
};
pub(super) use scan::INDEX_FILE;

const FILE: &str = "index.redb";
const NEW_FILE: &str = "index.new";
/// Exists while the index is written, and after that has failed or was not finished: the system may
/// then show an index that the disk does not have, and never will.
const UNSURE_FILE: &str = "index.unsure";

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const NAMES: TableDefinition<'_, &str, u64> = TableDefinition::new("names");
pub(super) const CHANNELS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("channels");
/// The places of messages, by the channel and the number of the first message of each block.
pub(super) const BLOCKS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("blocks");
/// Idempotency keys, by the channel.
pub(super) const KEYS: TableDefinition<'_, (u64, &str), KeyValue> = TableDefinition::new("keys");
pub(super) const KEY_TIMES: TableDefinition<'_, (u64, u64, &str), ()> = TableDefinition::new("key times");
/// The bytes of each segment that are still kept, and a checksum.
pub(super) const SEGMENTS: TableDefinition<'_, u32, (u64, u32)> = TableDefinition::new("segments");

/// An error of the database.
pub(super) type IndexError = Box<redb::Error>;
pub(super) type Result<T> = std::result::Result<T, IndexError>;

#[allow(clippy::unnecessary_box_returns)] // as in results
pub(super) fn wrap(error: impl Into<redb::Error>) -> IndexError {
    Box::new(error.into())
}

#[allow(clippy::unnecessary_box_returns)] // as in results
pub(super) fn io_error(error: io::Error) -> IndexError {
    Box::new(redb::Error::Io(error))
}

fn open(backend: impl StorageBackend, cache_bytes: usize) -> Result<Database> {
    Database::builder().set_cache_size(cache_bytes).create_with_backend(backend).map_err(wrap)
}

fn remove_if_there(directory: &Directory, name: &str) -> io::Result<()> {
    match directory.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs code of the database, which panics if the file has been damaged in certain ways.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(damaged("it cannot be read")))
}

#[allow(clippy::unnecessary_box_returns)] // as in results
pub(super) fn damaged(what: &str) -> IndexError {
    Box::new(redb::Error::Corrupted(what.to_owned()))
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogPosition {
    pub(super) segment: SegmentId,
    pub(super) offset: u32,
    /// The sequence of the last frame before.
    pub(super) sequence: u64,
}

/// The state of a store that its index has.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreState {
    pub(super) salt: Salt,
    /// All that the log has before this place is in the index.
    pub(super) position: LogPosition,
    pub(super) last_channel: ChannelId,
    pub(super) last_epoch: Epoch,
}

/// A channel of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChannelRow {
    pub(super) name: ChannelName,
    pub(super) epoch: Epoch,
    /// The number of the oldest message kept.
    pub(super) first: u64,
    pub(super) next: u64,
    /// The bytes of the kept messages that count against the limit of the history.
    pub(super) bytes: u64,
    /// The time of the newest message.
    pub(super) used: UnixMillis,
    /// The time for which its messages are kept.
    pub(super) kept_for: Duration,
}

/// The state of a channel that has changed since the last checkpoint.
#[derive(Debug, Clone)]
pub(super) struct ChannelUpdate {
    pub(super) id: ChannelId,
    pub(super) row: ChannelRow,
    /// The number of the first entry.
    pub(super) begin: u64,
    pub(super) entries: Vec<Entry>,
    pub(super) keys: Vec<KeptKey>,
}

/// A message that has another place now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    pub(super) id: ChannelId,
    pub(super) number: u64,
    pub(super) from: Entry,
    pub(super) to: Entry,
}

/// The changes since the last checkpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Updates {
    pub(super) channels: Vec<ChannelUpdate>,
    pub(super) removed: Vec<ChannelId>,
}

impl ChannelRow {
    /// Creates the row of a channel in which nothing was published.
    pub(super) fn new(name: ChannelName, epoch: Epoch, next: u64) -> Self {
        let (bytes, used, kept_for) = (0, UnixMillis::default(), Duration::MAX);
        Self { name, epoch, first: next, next, bytes, used, kept_for }
    }
}

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    database: Option<Database>,
    directory: Directory,
    /// Set if it could not be opened again for writing after an error.
    is_read_only: bool,
    reported: Reported,
}

impl Index {
    /// Opens the index of a store, or creates it.
    pub(super) fn open(directory: &Directory, cache_bytes: usize) -> Result<Self> {
        if directory.open(UNSURE_FILE).is_ok() {
            Self::renew(directory).map_err(io_error)?;
        }
        Self::begin_writing(directory).map_err(io_error)?;
        let file = match directory.open(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::create(directory, cache_bytes),
            other => other.map_err(io_error)?,
        };
        let mut index = Self::over(None, directory);
        index.database = Some(guarded(|| open(Backend(file), cache_bytes))?);
        Self::end_writing(directory);
        Ok(index)
    }

    fn over(database: Option<Database>, directory: &Directory) -> Self {
        Self { database, directory: directory.clone(), is_read_only: false, reported: Reported::default() }
    }

    /// Creates the index under another name, so that it is never found half made.
    fn create(directory: &Directory, cache_bytes: usize) -> Result<Self> {
        remove_if_there(directory, NEW_FILE).map_err(io_error)?;
        let file = directory.create(NEW_FILE).map_err(io_error)?;
        let database = open(Backend(file.clone()), cache_bytes)?;
        file.sync_data().map_err(io_error)?;
        directory.rename(NEW_FILE, FILE).and_then(|()| directory.sync()).map_err(io_error)?;
        Self::end_writing(directory);
        Ok(Self::over(Some(database), directory))
    }

    /// Notes on the disk that the index is being written.
    fn begin_writing(directory: &Directory) -> io::Result<()> {
        match directory.create(UNSURE_FILE) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => directory.sync(),
        }
    }

    /// Notes that the disk has all of the index.
    fn end_writing(directory: &Directory) {
        // If this fails, the index is copied needlessly.
        let _ = directory.remove(UNSURE_FILE);
    }

    /// Writes the index, as the system shows it, to a new file or, if there is no room for it, once
    /// more in its place. After a failed sync, later ones succeed without writing what the failed
    /// one has given up.
    fn renew(directory: &Directory) -> io::Result<()> {
        let old = match directory.open(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        remove_if_there(directory, NEW_FILE)?;
        match directory.create(NEW_FILE).and_then(|new| copy(&old, &new)) {
            Ok(_) => {
                drop(old);
                directory.rename(NEW_FILE, FILE)?;
                directory.sync()
            }
            Err(error) => {
                remove_if_there(directory, NEW_FILE)?;
                if is_full(&error) { copy(&old, &old).map(drop) } else { Err(error) }
            }
        }
    }

    /// Opens the index again after an error. If that fails, as it may while the disk is full, it
    /// can be read as before the error.
    pub(super) fn reopen(&mut self, cache_bytes: usize) -> Result<()> {
        // The database must be closed first.
        self.database = None;
        match Self::open(&self.directory, cache_bytes) {
            Ok(index) => *self = index,
            Err(error) => {
                if !fault!("index-closed-on-full-disk") {
                    let _ = self.reopen_read_only(cache_bytes);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Returns whether the disk has all of the index as it can be read.
    pub(super) fn is_on_disk(&self) -> bool {
        let is_missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        !self.is_read_only && self.directory.open(UNSURE_FILE).err().is_some_and(is_missing)
    }

    pub(super) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// Opens the index again after an error, for reading alone.
    pub(super) fn reopen_read_only(&mut self, cache_bytes: usize) -> Result<()> {
        (self.database, self.is_read_only) = (None, true);
        self.database = Some(Self::open_read_only(&self.directory, cache_bytes)?);
        Ok(())
    }

    fn open_read_only(directory: &Directory, cache_bytes: usize) -> Result<Database> {
        let backend = directory.open(FILE).and_then(ReadOnlyBackend::new).map_err(io_error)?;
        guarded(|| open(backend, cache_bytes))
    }

    fn database(&self) -> Result<&Database> {
        self.database.as_ref().ok_or_else(|| damaged("it could not be opened again after an error"))
    }

    /// Returns the version of the format; `None` if the store is new.
    pub(super) fn version(&self) -> Result<Option<u32>> {
        self.meta(|get| decode_version(get))
    }

    /// Returns the state of the store; `None` if it is new.
    pub(super) fn state(&self) -> Result<Option<StoreState>> {
        self.meta(|get| decode_state(get))
    }

    fn meta<T>(&self, read: impl FnOnce(&dyn Fn(&str) -> Result<Option<u64>>) -> Result<T>) -> Result<Option<T>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let meta = match transaction.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other.map_err(wrap)?,
        };
        read(&|key| Ok(meta.get(key).map_err(wrap)?.map(|value| value.value()))).map(Some)
    }

    /// Writes a checkpoint in one transaction: it is there as a whole, or not at all. Keys older
    /// than `keys_from` are dropped.
    pub(super) fn write(&self, state: &StoreState, parts: &[&Updates], keys_from: UnixMillis) -> Result<()> {
        self.change(|tables| {
            for part in parts {
                part.removed.iter().try_for_each(|id| tables.remove(*id))?;
                part.channels.iter().try_for_each(|update| tables.update(update))?;
            }
            tables.drop_keys(keys_from)?;
            tables.finish(state)
        })
    }

    /// Changes the index in one transaction.
    fn change(&self, change: impl FnOnce(&mut Tables<'_>) -> Result<()>) -> Result<()> {
        if self.is_read_only {
            return Err(io_error(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        Self::begin_writing(&self.directory).map_err(io_error)?;
        guarded(|| self.try_change(change))?;
        Self::end_writing(&self.directory);
        Ok(())
    }

    fn try_change(&self, change: impl FnOnce(&mut Tables<'_>) -> Result<()>) -> Result<()> {
        let mut transaction = self.database()?.begin_write().map_err(wrap)?;
        // Otherwise, opening the index after a crash would read all of it.
        transaction.set_quick_repair(true);
        change(&mut Tables::open(&transaction)?)?;
        transaction.commit().map_err(wrap)
    }

    /// Replaces the places of messages that were moved, in one transaction.
    pub(super) fn move_places(&self, moves: &[Moved]) -> Result<()> {
        self.change(|tables| {
            moves.iter().try_for_each(|moved| tables.move_place(moved))?;
            tables.count_segments()
        })
    }

    /// Returns the channels after a number, in the order of their numbers, without those whose rows
    /// are damaged.
    pub(super) fn rows_after(&self, id: ChannelId, limit: usize) -> Result<Vec<(ChannelId, ChannelRow)>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let channels = transaction.open_table(CHANNELS).map_err(wrap)?;
        let mut rows = Vec::new();
        for item in channels.range(id + 1..).map_err(wrap)? {
            let (id, row) = item.map_err(wrap)?;
            let id = id.value();
            rows.extend(self.reported(id, ChannelRow::decode(id, row.value())).ok().map(|row| (id, row)));
            if rows.len() >= limit {
                break;
            }
        }
        Ok(rows)
    }

    /// Logs that a row is damaged, once for each channel.
    fn reported<T>(&self, id: ChannelId, found: Result<T>) -> Result<T> {
        found.inspect_err(|error| self.reported.report(id, error))
    }

    /// Returns the channel of a name.
    pub(super) fn channel(&self, name: &str) -> Result<Option<(ChannelId, ChannelRow)>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let names = transaction.open_table(NAMES).map_err(wrap)?;
        let Some(id) = names.get(name).map_err(wrap)?.map(|id| id.value()) else { return Ok(None) };
        let row = named(&transaction.open_table(CHANNELS).map_err(wrap)?, id, name);
        self.reported(id, row).map(|row| Some((id, row)))
    }

    /// Returns the row of a channel.
    pub(super) fn row(&self, id: ChannelId) -> Result<Option<ChannelRow>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        row(&transaction.open_table(CHANNELS).map_err(wrap)?, id)
    }

    /// Returns the channels whose names begin with `prefix` and are after `after`, in the order of
    /// their names, without those whose rows are damaged.
    pub(super) fn names(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<ChannelRow>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let names = transaction.open_table(NAMES).map_err(wrap)?;
        let channels = transaction.open_table(CHANNELS).map_err(wrap)?;
        let mut found = Vec::new();
        for item in names.range(prefix.max(after)..).map_err(wrap)? {
            let (name, id) = item.map_err(wrap)?;
            if !name.value().starts_with(prefix) || found.len() >= limit {
                break;
            }
            if name.value() != after {
                match self.reported(id.value(), named(&channels, id.value(), name.value())) {
                    Err(error) if row_damage(&error).is_some() => {}
                    row => found.push(row?),
                }
            }
        }
        Ok(found)
    }

    /// Returns the places of at least `limit` messages of a channel, if there are as many: from
    /// number `begin` on or, if `is_backward`, the newest before it.
    pub(super) fn entries(
        &self,
        id: ChannelId,
        begin: u64,
        is_backward: bool,
        limit: usize,
    ) -> Result<Vec<(u64, Entry)>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let blocks = transaction.open_table(BLOCKS).map_err(wrap)?;
        let mut found = Vec::new();
        if is_backward {
            for item in blocks.range((id, 0)..(id, begin)).map_err(wrap)?.rev() {
                let block = self.reported(id, numbered(&item.map_err(wrap)?))?;
                found.extend(block.into_iter().rev().filter(|(number, _)| *number < begin));
                if found.len() >= limit {
                    break;
                }
            }
            return Ok(found);
        }
        let before = blocks.range((id, 0)..=(id, begin)).map_err(wrap)?.next_back().transpose().map_err(wrap)?;
        let from = before.map_or(begin, |(key, _)| key.value().1);
        for item in blocks.range((id, from)..=(id, u64::MAX)).map_err(wrap)? {
            let block = self.reported(id, numbered(&item.map_err(wrap)?))?;
            found.extend(block.into_iter().filter(|(number, _)| *number >= begin));
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Returns the idempotency keys of a channel that are not older than `from`, without those
    /// whose rows are damaged.
    pub(super) fn keys(&self, id: ChannelId, from: UnixMillis) -> Result<Vec<KeptKey>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let keys = transaction.open_table(KEYS).map_err(wrap)?;
        let mut found = Vec::new();
        for item in keys.range((id, "")..(id + 1, "")).map_err(wrap)? {
            let (key, value) = item.map_err(wrap)?;
            // Without the key, a message that is published under it again is another one.
            found.extend(self.reported(id, decode_key(id, key.value().1, value.value())).ok());
        }
        found.retain(|key| key.time >= from);
        found.sort_by_key(|key| key.next);
        Ok(found)
    }

    /// Returns the bytes of each segment that are kept, for segments that have some.
    pub(super) fn segments(&self) -> Result<BTreeMap<SegmentId, u64>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let segments = transaction.open_table(SEGMENTS).map_err(wrap)?;
        let mut found = BTreeMap::new();
        for item in segments.range(0..).map_err(wrap)? {
            let (segment, bytes) = item.map_err(wrap)?;
            found.insert(segment.value(), decode_count(segment.value(), bytes.value())?);
        }
        Ok(found)
    }
}

pub(super) fn row(channels: &impl ReadableTable<u64, &'static [u8]>, id: ChannelId) -> Result<Option<ChannelRow>> {
    channels.get(id).map_err(wrap)?.map(|row| ChannelRow::decode(id, row.value())).transpose()
}

/// Returns the row to which a name leads.
fn named(channels: &impl ReadableTable<u64, &'static [u8]>, id: ChannelId, name: &str) -> Result<ChannelRow> {
    let row = row(channels, id)?.filter(|row| row.name.as_str() == name);
    row.ok_or_else(|| damaged_row(&format!("the name {name} leads to the id {id}, which is not that of the channel")))
}

pub(super) type BlockItem<'a> = (redb::AccessGuard<'a, (u64, u64)>, redb::AccessGuard<'a, &'static [u8]>);

pub(super) fn numbered((key, value): &BlockItem<'_>) -> Result<Vec<(u64, Entry)>> {
    let (id, begin) = key.value();
    let entries = block_places(id, begin, value.value()).and_then(decode_block).ok_or_else(|| {
        damaged_row(&format!("the places of messages from number {begin} on, of the channel with id {id}"))
    })?;
    Ok((begin..).zip(entries).collect())
}
