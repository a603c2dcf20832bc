//! The index of the log: which channels there are, and where the log has their messages. It is a
//! redb database, which is written at checkpoints only: what the log has gained since the last
//! checkpoint is read again at the start.

use std::collections::BTreeMap;
use std::io;

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use sealed::disk::{Directory, File};
use sealed::fault;

use super::backend::Backend;
use super::places::{BLOCK_ENTRIES, Entry, SegmentId, append_entries, decode_block};
use super::record::{ChannelId, Input, Salt};
use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::core::time::UnixMillis;
use crate::engine::store::KeptKey;

const FILE: &str = "index.redb";
const NEW_FILE: &str = "index.new";
/// Exists while the index is written, and after that has failed or was not finished: the system may
/// then show an index that the disk does not have, and never will.
const UNSURE_FILE: &str = "index.unsure";

/// The bytes of the index that are copied at a time.
const COPIED_BYTES: usize = 1024 * 1024;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const NAMES: TableDefinition<'_, &str, u64> = TableDefinition::new("names");
const CHANNELS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("channels");
/// The places of messages, by the channel and the number of the first message of each block.
const BLOCKS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("blocks");
/// Idempotency keys, by the channel: the digest, the number after the message, and the time.
const KEYS: TableDefinition<'_, (u64, &str), (u64, u64, u64)> = TableDefinition::new("keys");
const KEY_TIMES: TableDefinition<'_, (u64, u64, &str), ()> = TableDefinition::new("key times");
/// The bytes of each segment that are still kept.
const SEGMENTS: TableDefinition<'_, u32, u64> = TableDefinition::new("segments");

/// An error of the database.
pub(super) type IndexError = Box<redb::Error>;
type Result<T> = std::result::Result<T, IndexError>;

fn wrap(error: impl Into<redb::Error>) -> IndexError {
    Box::new(error.into())
}

pub(super) fn io_error(error: io::Error) -> IndexError {
    Box::new(redb::Error::Io(error))
}

fn open(file: File, cache_bytes: usize) -> Result<Database> {
    Database::builder().set_cache_size(cache_bytes).create_with_backend(Backend(file)).map_err(wrap)
}

fn damaged(what: &str) -> IndexError {
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

/// The changes since the last checkpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Updates {
    pub(super) channels: Vec<ChannelUpdate>,
    pub(super) removed: Vec<ChannelId>,
}

impl ChannelRow {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40 + self.name.as_str().len());
        for number in [self.epoch.0, self.first, self.next, self.bytes, self.used.as_millis()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(self.name.as_str().as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut rest = Input(bytes);
        let mut number = || rest.u64().ok_or_else(|| damaged("a channel is too short"));
        let (epoch, first, next, bytes) = (Epoch(number()?), number()?, number()?, number()?);
        let used = UnixMillis::from_millis(number()?);
        let name = std::str::from_utf8(rest.0).ok().and_then(|name| ChannelName::new(name).ok());
        let name = name.ok_or_else(|| damaged("a channel has no name"))?;
        Ok(Self { name, epoch, first, next, bytes, used })
    }
}

/// The index.
#[derive(Debug)]
pub(super) struct Index(Option<Database>);

impl Index {
    /// Opens the index of a store, or creates it. It is [unsure](Self::begin_writing) until
    /// [`end_writing`](Self::end_writing).
    pub(super) fn open(directory: &Directory, cache_bytes: usize) -> Result<Self> {
        if directory.open(UNSURE_FILE).is_ok() {
            Self::renew(directory).map_err(io_error)?;
        }
        Self::begin_writing(directory).map_err(io_error)?;
        let file = match directory.open(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::create(directory, cache_bytes),
            other => other.map_err(io_error)?,
        };
        open(file, cache_bytes).map(|database| Self(Some(database)))
    }

    /// Creates the index under another name, so that it is never found half made.
    fn create(directory: &Directory, cache_bytes: usize) -> Result<Self> {
        match directory.remove(NEW_FILE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
        let file = directory.create(NEW_FILE).map_err(io_error)?;
        let database = open(file.clone(), cache_bytes)?;
        file.sync_data().map_err(io_error)?;
        directory.rename(NEW_FILE, FILE).and_then(|()| directory.sync()).map_err(io_error)?;
        Ok(Self(Some(database)))
    }

    /// Notes on the disk that the index is being written.
    pub(super) fn begin_writing(directory: &Directory) -> io::Result<()> {
        match directory.create(UNSURE_FILE) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => directory.sync(),
        }
    }

    /// Notes that the disk has all of the index.
    pub(super) fn end_writing(directory: &Directory) {
        // If this fails, the index is copied needlessly.
        let _ = directory.remove(UNSURE_FILE);
    }

    /// Copies the index, as the system shows it, to a new file. After a failed sync, later ones
    /// succeed without writing what the failed one has given up.
    fn renew(directory: &Directory) -> io::Result<()> {
        let old = match directory.open(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match directory.remove(NEW_FILE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let new = directory.create(NEW_FILE)?;
        let (length, mut offset) = (old.len()?, 0);
        let mut bytes = vec![0; COPIED_BYTES];
        while offset < length {
            let count = usize::try_from(length - offset).unwrap_or(COPIED_BYTES).min(COPIED_BYTES);
            old.read_exact_at(&mut bytes[..count], offset)?;
            new.write_all_at(&bytes[..count], offset)?;
            offset += count as u64;
        }
        new.sync_data()?;
        directory.rename(NEW_FILE, FILE)?;
        directory.sync()
    }

    /// Opens the index again after an error.
    pub(super) fn reopen(&mut self, directory: &Directory, cache_bytes: usize) -> Result<()> {
        // The database must be closed first.
        self.0 = None;
        *self = Self::open(directory, cache_bytes)?;
        Ok(())
    }

    fn database(&self) -> Result<&Database> {
        self.0.as_ref().ok_or_else(|| damaged("it could not be opened again after an error"))
    }

    /// Returns the state of the store; `None` if it is new.
    pub(super) fn state(&self) -> Result<Option<StoreState>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let meta = match transaction.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other.map_err(wrap)?,
        };
        let number = |key| -> Result<u64> {
            let value = meta.get(key).map_err(wrap)?;
            value.map(|value| value.value()).ok_or_else(|| damaged("it lacks the state of the store"))
        };
        let narrow = |key| number(key).map(|value| value as u32);
        let position =
            LogPosition { segment: narrow("segment")?, offset: narrow("offset")?, sequence: number("sequence")? };
        Ok(Some(StoreState {
            salt: Salt(narrow("salt")?),
            position,
            last_channel: number("last channel")?,
            last_epoch: Epoch(number("last epoch")?),
        }))
    }

    /// Writes a checkpoint in one transaction: it is there as a whole, or not at all. Keys older
    /// than `keys_from` are dropped.
    pub(super) fn write(&self, state: &StoreState, parts: &[&Updates], keys_from: UnixMillis) -> Result<()> {
        let mut transaction = self.database()?.begin_write().map_err(wrap)?;
        // Otherwise, opening the index after a crash would read all of it.
        transaction.set_quick_repair(true);
        {
            let mut tables = Tables::open(&transaction)?;
            for part in parts {
                part.removed.iter().try_for_each(|id| tables.remove(*id))?;
                part.channels.iter().try_for_each(|update| tables.update(update))?;
            }
            tables.drop_keys(keys_from)?;
            tables.finish(state)?;
        }
        transaction.commit().map_err(wrap)
    }

    /// Returns the channel of a name.
    pub(super) fn channel(&self, name: &str) -> Result<Option<(ChannelId, ChannelRow)>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let names = transaction.open_table(NAMES).map_err(wrap)?;
        let Some(id) = names.get(name).map_err(wrap)?.map(|id| id.value()) else { return Ok(None) };
        Ok(row(&transaction.open_table(CHANNELS).map_err(wrap)?, id)?.map(|row| (id, row)))
    }

    /// Returns the row of a channel.
    pub(super) fn row(&self, id: ChannelId) -> Result<Option<ChannelRow>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        row(&transaction.open_table(CHANNELS).map_err(wrap)?, id)
    }

    /// Returns the channels whose names begin with `prefix` and are after `after`, in the order of
    /// their names.
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
                found.extend(row(&channels, id.value())?);
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
                let block = numbered(&item.map_err(wrap)?)?;
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
            let block = numbered(&item.map_err(wrap)?)?;
            found.extend(block.into_iter().filter(|(number, _)| *number >= begin));
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Returns the idempotency keys of a channel that are not older than `from`.
    pub(super) fn keys(&self, id: ChannelId, from: UnixMillis) -> Result<Vec<KeptKey>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let keys = transaction.open_table(KEYS).map_err(wrap)?;
        let mut found = Vec::new();
        for item in keys.range((id, "")..(id + 1, "")).map_err(wrap)? {
            let (key, value) = item.map_err(wrap)?;
            let ((digest, next, time), key) = (value.value(), key.value().1.into());
            found.push(KeptKey { key, digest, next, time: UnixMillis::from_millis(time) });
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
            found.insert(segment.value(), bytes.value());
        }
        Ok(found)
    }
}

fn row(channels: &impl ReadableTable<u64, &'static [u8]>, id: ChannelId) -> Result<Option<ChannelRow>> {
    channels.get(id).map_err(wrap)?.map(|row| ChannelRow::decode(row.value())).transpose()
}

type BlockItem<'a> = (redb::AccessGuard<'a, (u64, u64)>, redb::AccessGuard<'a, &'static [u8]>);

fn numbered((key, value): &BlockItem<'_>) -> Result<Vec<(u64, Entry)>> {
    let entries = decode_block(value.value()).ok_or_else(|| damaged("a block of places cannot be read"))?;
    Ok((key.value().1..).zip(entries).collect())
}

/// The tables of a transaction.
struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    names: Table<'t, &'static str, u64>,
    channels: Table<'t, u64, &'static [u8]>,
    blocks: Table<'t, (u64, u64), &'static [u8]>,
    keys: Table<'t, (u64, &'static str), (u64, u64, u64)>,
    key_times: Table<'t, (u64, u64, &'static str), ()>,
    segments: Table<'t, u32, u64>,
    /// The bytes of each segment that are kept in addition, or no longer.
    gained: BTreeMap<SegmentId, i64>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self> {
        Ok(Self {
            meta: transaction.open_table(META).map_err(wrap)?,
            names: transaction.open_table(NAMES).map_err(wrap)?,
            channels: transaction.open_table(CHANNELS).map_err(wrap)?,
            blocks: transaction.open_table(BLOCKS).map_err(wrap)?,
            keys: transaction.open_table(KEYS).map_err(wrap)?,
            key_times: transaction.open_table(KEY_TIMES).map_err(wrap)?,
            segments: transaction.open_table(SEGMENTS).map_err(wrap)?,
            gained: BTreeMap::new(),
        })
    }

    fn update(&mut self, update: &ChannelUpdate) -> Result<()> {
        let ChannelUpdate { id, row: new, begin, entries, keys } = update;
        let earlier = self.names.insert(new.name.as_str(), id).map_err(wrap)?.map(|earlier| earlier.value());
        if let Some(earlier) = earlier.filter(|earlier| earlier != id) {
            // Its publication was refused, or its removal is not in the log.
            self.remove(earlier)?;
        }
        let old = row(&self.channels, *id)?;
        if let Some(old) = &old
            && new.first > old.first
        {
            self.drop_before(*id, old.first, new.first)?;
        }
        // The log may show again what the index has.
        let from = old.map_or(new.first, |old| old.next.max(new.first));
        let skipped = usize::try_from(from.saturating_sub(*begin)).unwrap_or(usize::MAX).min(entries.len());
        self.append(*id, begin + skipped as u64, &entries[skipped..])?;
        for KeptKey { key, digest, next, time } in keys {
            self.keys.insert((*id, &**key), (*digest, *next, time.as_millis())).map_err(wrap)?;
            self.key_times.insert((time.as_millis(), *id, &**key), ()).map_err(wrap)?;
        }
        self.channels.insert(id, new.encode().as_slice()).map_err(wrap)?;
        Ok(())
    }

    /// Adds places to the last block of a channel, and to new blocks.
    fn append(&mut self, id: ChannelId, mut begin: u64, mut entries: &[Entry]) -> Result<()> {
        for entry in entries {
            *self.gained.entry(entry.segment).or_default() += i64::from(entry.length);
        }
        let last = {
            let last = self.blocks.range((id, 0)..=(id, begin)).map_err(wrap)?.next_back();
            let last = last.transpose().map_err(wrap)?;
            last.map(|item| Ok::<_, IndexError>((item.0.value().1, item.1.value().to_vec(), numbered(&item)?)))
        };
        if let Some((first, mut block, held)) = last.transpose()?
            && held.last().is_some_and(|(number, _)| number + 1 == begin)
            && held.len() < BLOCK_ENTRIES
        {
            let (now, later) = entries.split_at(entries.len().min(BLOCK_ENTRIES - held.len()));
            append_entries(&mut block, held.last().map(|(_, entry)| *entry), now);
            self.blocks.insert((id, first), block.as_slice()).map_err(wrap)?;
            (begin, entries) = (begin + now.len() as u64, later);
        }
        for entries in entries.chunks(BLOCK_ENTRIES) {
            let mut block = Vec::new();
            append_entries(&mut block, None, entries);
            self.blocks.insert((id, begin), block.as_slice()).map_err(wrap)?;
            begin += entries.len() as u64;
        }
        Ok(())
    }

    /// Drops the places of the messages `first .. end` of a channel, which are the oldest.
    fn drop_before(&mut self, id: ChannelId, first: u64, end: u64) -> Result<()> {
        let (gained, mut error) = (&mut self.gained, None);
        let keep = |(_, begin): (u64, u64), block: &[u8]| {
            let Some(entries) = decode_block(block) else {
                error = Some(damaged("a block of places cannot be read"));
                return true;
            };
            for (number, entry) in (begin..).zip(&entries) {
                if (first..end).contains(&number) && !fault!("dropped-places-still-count") {
                    *gained.entry(entry.segment).or_default() -= i64::from(entry.length);
                }
            }
            begin + entries.len() as u64 > end
        };
        self.blocks.retain_in((id, 0)..(id, end), keep).map_err(wrap)?;
        error.map_or(Ok(()), Err)
    }

    fn remove(&mut self, id: ChannelId) -> Result<()> {
        let Some(row) = row(&self.channels, id)? else { return Ok(()) };
        self.drop_before(id, row.first, u64::MAX)?;
        self.channels.remove(id).map_err(wrap)?;
        let named = self.names.get(row.name.as_str()).map_err(wrap)?.map(|named| named.value());
        if named == Some(id) {
            self.names.remove(row.name.as_str()).map_err(wrap)?;
        }
        self.keys.retain_in((id, "")..(id + 1, ""), |_, _| false).map_err(wrap)
    }

    fn drop_keys(&mut self, from: UnixMillis) -> Result<()> {
        let mut old = Vec::new();
        for item in self.key_times.range((0, 0, "")..(from.as_millis(), 0, "")).map_err(wrap)? {
            let key = item.map_err(wrap)?.0;
            let (time, id, key) = key.value();
            old.push((time, id, key.to_owned()));
        }
        for (time, id, key) in &old {
            self.key_times.remove((*time, *id, key.as_str())).map_err(wrap)?;
            let kept = self.keys.get((*id, key.as_str())).map_err(wrap)?.map(|value| value.value().2);
            // The key may have been used again.
            if kept == Some(*time) {
                self.keys.remove((*id, key.as_str())).map_err(wrap)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, state: &StoreState) -> Result<()> {
        for (segment, gained) in std::mem::take(&mut self.gained) {
            let bytes = self.segments.get(segment).map_err(wrap)?.map_or(0, |bytes| bytes.value());
            match bytes.saturating_add_signed(gained) {
                0 => drop(self.segments.remove(segment).map_err(wrap)?),
                bytes => drop(self.segments.insert(segment, bytes).map_err(wrap)?),
            }
        }
        let StoreState { salt, position, last_channel, last_epoch } = state;
        for (key, value) in [
            ("salt", u64::from(salt.0)),
            ("segment", u64::from(position.segment)),
            ("offset", u64::from(position.offset)),
            ("sequence", position.sequence),
            ("last channel", *last_channel),
            ("last epoch", last_epoch.0),
        ] {
            self.meta.insert(key, value).map_err(wrap)?;
        }
        Ok(())
    }
}
