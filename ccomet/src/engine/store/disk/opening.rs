//! Opening a store: the log after the last checkpoint is read, and brought into the index. So no
//! channel costs anything at the start, unless something was published in it since then.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealed::disk::{Directory, Disk, Lock};
use sealed::fault;
use tracing::{info, warn};

use super::error::StoreError;
use super::index::{ChannelRow, ChannelUpdate, Index, IndexError, LogPosition, StoreState, Updates, damaged};
use super::log::{Log, Segment, is_full, segment_name, segments};
use super::places::{Entry, SegmentId};
use super::record::{ChannelId, Frame, Record, SEGMENT_HEADER_BYTES, Salt, SegmentHeader, VERSION};
use super::reserve::release_reserve;
use super::settings::StoreSettings;
use super::shared::{Crews, Parts, SharedStore};
use crate::core::message::Message;
use crate::core::position::Epoch;
use crate::core::time::UnixMillis;

const LOCK: &str = "lock";

/// The lock of the process that writes or copies the index. A backup holds it while it copies the
/// index of a running server, which waits with the next checkpoint.
const INDEX_LOCK: &str = "index.lock";

/// The time for which a server that starts, and a tool, wait for the lock of the index.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60);

/// The reason why a store cannot be opened, without its path.
#[derive(Debug)]
pub(super) enum Refused {
    Io(&'static str, io::Error),
    Index(IndexError),
    Newer(u32),
    Older(u32),
    Damaged(String),
}

impl From<IndexError> for Refused {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl Refused {
    /// Returns whether a disk has no room.
    pub(super) fn says_full(&self) -> bool {
        match self {
            Self::Io(_, error) => is_full(error),
            Self::Index(error) => matches!(&**error, redb::Error::Io(error) if is_full(error)),
            _ => false,
        }
    }

    pub(super) fn at(self, path: PathBuf) -> StoreError {
        match self {
            Self::Io(_, source) if is_full(&source) => StoreError::Full { path, source },
            Self::Io(action, source) => StoreError::Io { action, path, source },
            Self::Index(source) => match *source {
                redb::Error::Io(source) if is_full(&source) => StoreError::Full { path, source },
                source => StoreError::Index { path, source: Box::new(source) },
            },
            Self::Older(found) => StoreError::Older { path, found, known: VERSION },
            Self::Newer(found) => StoreError::Newer { path, found, known: VERSION },
            Self::Damaged(what) => StoreError::Damaged { path, what },
        }
    }
}

/// Tries to lock the index.
pub(super) fn try_lock_index(directory: &Directory) -> io::Result<Lock> {
    directory.lock(INDEX_LOCK)
}

/// Waits until no other process writes or copies the index, and locks it.
pub(super) fn lock_index(directory: &Directory) -> io::Result<Lock> {
    directory.lock_within(INDEX_LOCK, LOCK_WAIT_MAX)
}

/// Locks a store for a tool; a file that is not there is not created, because it would belong to
/// the user of the tool. A server creates both before anything else, and leaves them behind:
/// without them, none uses the store.
pub(super) fn lock_for_tool(directory: &Directory) -> io::Result<Vec<Lock>> {
    let lock = if has_file(directory, LOCK)? { Some(directory.lock(LOCK)?) } else { None };
    Ok(lock.into_iter().chain(lock_index_if_there(directory)?).collect())
}

/// Locks the index as `lock_index` does, if its lock is there.
pub(super) fn lock_index_if_there(directory: &Directory) -> io::Result<Option<Lock>> {
    if has_file(directory, INDEX_LOCK)? { lock_index(directory).map(Some) } else { Ok(None) }
}

fn has_file(directory: &Directory, name: &str) -> io::Result<bool> {
    Ok(directory.list()?.iter().any(|found| found == name))
}

/// Says more about an error of opening a directory.
fn explained(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            io::Error::new(error.kind(), "it is a file, or a symbolic link to something that does not exist")
        }
        _ => error,
    }
}

impl SharedStore {
    /// Opens the store of a server with so many loops. A new store gets the salt. Blocks while it
    /// reads the end of the log.
    pub(crate) fn open(
        disk: &Disk,
        settings: StoreSettings,
        crews: Crews,
        salt: u32,
        loops: usize,
    ) -> Result<Arc<Self>, StoreError> {
        let path = settings.path.clone();
        let io = |action| {
            let path = path.clone();
            move |source| StoreError::Io { action, path, source }
        };
        let directory = disk.open_dir(&settings.path).map_err(explained).map_err(io("open the directory"))?;
        let lock = match directory.lock(LOCK) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(StoreError::InUse(path)),
            other => other.map_err(io("lock the directory"))?,
        };
        let index_lock = lock_index(&directory).map_err(io("lock the index"))?;
        let opened = catch_unwind(AssertUnwindSafe(|| read_all(&directory, &settings, Salt(salt))));
        let opened = opened.unwrap_or_else(|_| Err(damaged("it cannot be read").into()));
        drop(index_lock);
        let (index, log, state) = opened.map_err(|refused| refused.at(path))?;
        let StoreState { salt, last_channel, last_epoch, .. } = state;
        let parts = Parts { settings, directory, lock, crews, index, log, salt, last_channel, last_epoch };
        let shared = Arc::new(Self::new(parts, loops));
        shared.remove_dead_segments(state.position.segment);
        shared.keep_reserve();
        Ok(shared)
    }
}

/// Opens the index, and brings it up to the end of the log.
fn read_all(directory: &Directory, settings: &StoreSettings, salt: Salt) -> Result<(Index, Log, StoreState), Refused> {
    let mut index = Index::open(directory, settings.cache_bytes);
    if index.is_err() {
        // The disk may be full.
        release_reserve(directory);
        index = Index::open(directory, settings.cache_bytes);
    }
    let mut index = index?;
    let files = segments(directory).map_err(|error| Refused::Io("list the segments", error))?;
    let state = match read_state(&index)? {
        Some(state) => state,
        None if files.is_empty() => {
            let position = LogPosition { segment: 1, offset: SEGMENT_HEADER_BYTES as u32, sequence: 0 };
            let state = StoreState { salt, position, last_channel: 0, last_epoch: Epoch(0) };
            index.write(&state, &[], UnixMillis::default())?;
            info!("created a new store in {}", settings.path.display());
            state
        }
        None => return Err(Refused::Damaged("it has a log, but no index".to_owned())),
    };
    for (id, kept) in index.segments()?.into_iter().filter(|_| !fault!("lost-segment-unnoticed")) {
        let length = match directory.open(&segment_name(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            other => other.and_then(|file| file.len()).map_err(|error| Refused::Io("look at a segment", error))?,
        };
        if length < kept {
            let what = if length == 0 { "is missing" } else { "is too short" };
            return Err(Refused::Damaged(format!("segment {id} of its log {what}")));
        }
    }
    let mut replay = Replay::new(&index, state);
    let behind: Vec<_> = files.into_iter().filter(|id| *id >= state.position.segment).collect();
    replay.read(directory, &behind)?;
    let ended = replay.finish(directory, &behind)?;
    if !behind.is_empty() {
        ended.keep(&mut index, directory, settings.cache_bytes)?;
    }
    let state = ended.state;
    let log = Log::new(directory.clone(), state.salt, state.position, settings.segment_bytes, settings.sync);
    Ok((index, log, state))
}

/// Reads the state of a store; `None` if it is new.
pub(super) fn read_state(index: &Index) -> Result<Option<StoreState>, Refused> {
    match index.version()? {
        Some(version) if version > VERSION => Err(Refused::Newer(version)),
        Some(version) if version < VERSION => Err(Refused::Older(version)),
        _ => Ok(index.state()?),
    }
}

/// The log after the last checkpoint, as it is read.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    index: &'a Index,
    state: StoreState,
    pub(super) channels: BTreeMap<ChannelId, ChannelUpdate>,
    pub(super) removed: BTreeSet<ChannelId>,
    messages: u64,
    /// The end of the last frame.
    pub(super) end: (SegmentId, usize),
    /// The frames of which no later one says that they are on the disk: the sequence, the segment,
    /// the offset and the bytes of each.
    unsure: Vec<(u64, SegmentId, u64, Vec<u8>)>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(index: &'a Index, state: StoreState) -> Self {
        let end = (state.position.segment, state.position.offset as usize);
        Self { index, state, channels: BTreeMap::new(), removed: BTreeSet::new(), messages: 0, end, unsure: Vec::new() }
    }

    /// Reads the frames of these segments.
    pub(super) fn read(&mut self, directory: &Directory, ids: &[SegmentId]) -> Result<(), Refused> {
        let (position, kept) = (self.state.position, self.index.segments()?);
        if ids.is_empty() && position.offset as usize > SEGMENT_HEADER_BYTES {
            return Err(Refused::Damaged(format!("segment {} of its log is missing", position.segment)));
        }
        for (index, id) in ids.iter().enumerate() {
            if *id != position.segment + index as u32 {
                return Err(Refused::Damaged(format!("segment {} of its log is missing", id - 1)));
            }
            let segment = Segment::read(directory, *id).map_err(|error| Refused::Io("read a segment", error))?;
            let kept = kept.get(id).copied().unwrap_or(0);
            match segment.header {
                SegmentHeader::Newer(version) => return Err(Refused::Newer(version)),
                _ if index == 0 && !reaches(&segment, self.state.salt, position) => {
                    return Err(Refused::Damaged(format!("segment {id} of its log ends before the last checkpoint")));
                }
                SegmentHeader::Whole { id: found, salt, .. } if found == u64::from(*id) && salt == self.state.salt => {}
                // It was being created.
                _ if index + 1 == ids.len() && kept == 0 && segment.next_frame(0, self.state.salt).is_none() => {
                    return Ok(());
                }
                _ => return Err(Refused::Damaged(format!("segment {id} of its log has no header"))),
            }
            let begin = if index == 0 { position.offset as usize } else { SEGMENT_HEADER_BYTES };
            let end = self.read_segment(*id, &segment, begin)?;
            // Messages may have been moved to it since the last checkpoint.
            if (end as u64) < kept {
                return Err(Refused::Damaged(format!("segment {id} of its log ends before what is kept of it")));
            }
            if self.is_lost(directory, &segment, end, &ids[index + 1..])? {
                return Err(Refused::Damaged(format!("a commit in segment {id} at byte {end} cannot be read")));
            }
        }
        Ok(())
    }

    /// Reads the frames of a segment. Returns the end of the last one.
    fn read_segment(&mut self, id: SegmentId, segment: &Segment, begin: usize) -> Result<usize, Refused> {
        let mut offset = begin;
        while let Some(frame) = segment.frame(offset, self.state.salt)
            && frame.sequence == self.state.position.sequence + 1
        {
            for record in frame.records(self.state.salt) {
                let Some((place, length, record)) = record else {
                    return Err(Refused::Damaged(format!("segment {id} has no whole record at byte {offset}")));
                };
                self.take(id, offset + place, length, record)?;
            }
            self.unsure.retain(|(sequence, ..)| *sequence > frame.synced);
            let bytes = segment.bytes(offset, frame.length()).unwrap_or_default().to_vec();
            self.unsure.push((frame.sequence, id, offset as u64, bytes));
            offset += frame.length();
            self.state.position.sequence = frame.sequence;
            self.end = (id, offset);
        }
        Ok(offset)
    }

    /// Returns whether a frame that was on the disk is missing after an offset of a segment: a
    /// later one knows of it.
    fn is_lost(
        &self,
        directory: &Directory,
        segment: &Segment,
        mut offset: usize,
        later: &[SegmentId],
    ) -> Result<bool, Refused> {
        if fault!("damage-ends-log") {
            return Ok(false);
        }
        let (salt, sequence) = (self.state.salt, self.state.position.sequence);
        let knows = |frame: Frame<'_>| frame.synced > sequence;
        while let Some((place, frame)) = segment.next_frame(offset, salt) {
            if knows(frame) {
                return Ok(true);
            }
            offset = place;
        }
        let Some(next) = later.first() else { return Ok(false) };
        let next = Segment::read(directory, *next).map_err(|error| Refused::Io("read a segment", error))?;
        Ok(matches!(next.header, SegmentHeader::Whole { sequence: before, .. } if before > sequence))
    }

    fn take(&mut self, segment: SegmentId, offset: usize, length: usize, record: Record) -> Result<(), Refused> {
        match record {
            Record::Made { channel, next, epoch, name } => {
                self.state.last_channel = self.state.last_channel.max(channel);
                self.state.last_epoch = self.state.last_epoch.max(epoch);
                if self.update_of(channel)?.is_none() {
                    let epoch = if fault!("epoch-not-persisted") { Epoch(1) } else { epoch };
                    let row = ChannelRow::new(name, epoch, next);
                    self.channels.insert(channel, new_update(channel, row));
                }
            }
            Record::Message { channel, number, message } => {
                let Some(update) = self.update_of(channel)? else { return Ok(()) };
                if number > update.row.next {
                    let name = &update.row.name;
                    return Err(Refused::Damaged(format!("channel {name} lacks messages before number {number}")));
                }
                if number == update.row.next || fault!("index-applied-twice") {
                    add_message(update, segment, (offset, length), &message);
                    self.messages += 1;
                }
            }
            Record::Cleared { channel, next } => {
                if let Some(update) = self.update_of(channel)?
                    && update.row.next == next
                {
                    if !fault!("kept-from-not-raised-by-clear") {
                        update.row.first = next;
                    }
                    (update.row.bytes, update.begin) = (0, next);
                    update.entries.clear();
                }
            }
            Record::Removed { channel } => {
                self.channels.remove(&channel);
                if !fault!("removal-not-replayed") {
                    self.removed.insert(channel);
                }
            }
        }
        Ok(())
    }

    /// Returns the changes of a channel, if it exists.
    fn update_of(&mut self, id: ChannelId) -> Result<Option<&mut ChannelUpdate>, IndexError> {
        match self.channels.entry(id) {
            MapEntry::Occupied(update) => Ok(Some(update.into_mut())),
            MapEntry::Vacant(place) => {
                let row = if self.removed.contains(&id) { None } else { self.index.row(id)? };
                Ok(row.map(|row| place.insert(new_update(id, row))))
            }
        }
    }

    /// Puts what was read on the disk. The log continues in a new segment.
    fn finish(mut self, directory: &Directory, behind: &[SegmentId]) -> Result<Ended, Refused> {
        // What the index refers to must be on the disk. If syncing has failed before, the system
        // may have given a frame up, and show it all the same: only a frame that is written again
        // is synced again.
        for (_, id, offset, bytes) in self.unsure.iter().filter(|_| !fault!("last-frames-not-written-again")) {
            let write = || directory.open(&segment_name(*id)).and_then(|file| file.write_all_at(bytes, *offset));
            // Some file systems write to another place, and need room for that.
            let written = write().or_else(|_| {
                release_reserve(directory);
                write()
            });
            written.map_err(|error| Refused::Io("write the end of the log again", error))?;
        }
        for id in behind.iter().filter(|_| !fault!("tail-not-synced-at-opening")) {
            let synced = directory.open(&segment_name(*id)).and_then(|file| file.sync_data());
            synced.map_err(|error| Refused::Io("sync a segment", error))?;
        }
        if let Some(last) = behind.last() {
            self.state.position.segment = last + 1;
            self.state.position.offset = SEGMENT_HEADER_BYTES as u32;
        }
        let updates =
            Updates { channels: self.channels.into_values().collect(), removed: self.removed.into_iter().collect() };
        Ok(Ended { state: self.state, updates, messages: self.messages, end: self.end })
    }
}

/// What the index lacks of a log that was read to its end.
struct Ended {
    state: StoreState,
    updates: Updates,
    messages: u64,
    end: (SegmentId, usize),
}

impl Ended {
    /// Writes it to the index.
    fn keep(&self, index: &mut Index, directory: &Directory, cache_bytes: usize) -> Result<(), Refused> {
        let write = |index: &Index| index.write(&self.state, &[&self.updates], UnixMillis::default());
        if let Err(error) = write(index) {
            if fault!("start-on-full-disk-without-reserve") {
                return Err(error.into());
            }
            // The disk may be full. After an error, the database has to be opened again.
            release_reserve(directory);
            index.reopen(cache_bytes)?;
            write(index)?;
        }
        if self.messages > 0 {
            info!("the store has {} messages that were not in its index yet", self.messages);
        }
        let (segment, end) = self.end;
        match directory.open(&segment_name(segment)).and_then(|file| file.set_len(end as u64)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!("cannot shorten segment {segment} of the store: {error}");
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns whether the segment in which the last checkpoint ends has all before that place. A
/// message that was changed is not missed here: readers get a gap in its place. But if nothing
/// follows the last whole frame, later frames may be lost too.
pub(super) fn reaches(segment: &Segment, salt: Salt, position: LogPosition) -> bool {
    let at = position.offset as usize;
    if at <= SEGMENT_HEADER_BYTES || fault!("lost-end-of-log-unnoticed") {
        return true;
    }
    let (id, header) = (u64::from(position.segment), segment.header);
    let Some(rest) = segment.bytes.get(at - 1..) else { return false };
    if !matches!(header, SegmentHeader::Whole { id: found, salt: has, .. } if (found, has) == (id, salt)) {
        return false;
    }
    if rest.iter().any(|byte| *byte != 0) {
        return true;
    }
    let mut end = SEGMENT_HEADER_BYTES;
    while end < at {
        let next = segment.frame(end, salt).map(|frame| (end, frame)).or_else(|| segment.next_frame(end, salt));
        match next.filter(|(place, _)| *place < at) {
            Some((place, frame)) => end = place + frame.length(),
            None => return false,
        }
    }
    true
}

fn new_update(id: ChannelId, row: ChannelRow) -> ChannelUpdate {
    ChannelUpdate { id, begin: row.next, row, entries: Vec::new(), keys: Vec::new() }
}

fn add_message(update: &mut ChannelUpdate, segment: SegmentId, place: (usize, usize), message: &Message) {
    let cost = message.cost();
    let entry =
        Entry { segment, offset: place.0 as u32, length: place.1 as u32, cost: cost as u32, time: message.time() };
    let row = &mut update.row;
    row.next += 1;
    row.bytes += cost as u64;
    row.used = message.time();
    update.entries.push(entry);
    update.keys.extend(super::key_of(message, row.next).filter(|_| !fault!("keys-not-replayed")));
}
