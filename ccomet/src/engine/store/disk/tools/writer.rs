//! Writing a new store: its log, and its index in parts, so that it may be larger than the memory.

use std::io;
use std::sync::Arc;

use sealed::disk::Directory;

use super::random;
use crate::core::message::Message;
use crate::core::position::Epoch;
use crate::core::time::UnixMillis;
use crate::engine::store::KeptKey;
use crate::engine::store::disk::index::{ChannelRow, ChannelUpdate, Index, LogPosition, StoreState, Updates};
use crate::engine::store::disk::log::{AppendError, Log, segment_name};
use crate::engine::store::disk::opening::Refused;
use crate::engine::store::disk::places::Entry;
use crate::engine::store::disk::record::{ChannelId, FRAME_HEADER_BYTES, RecordWriter, SEGMENT_HEADER_BYTES, Salt};
use crate::engine::store::disk::settings::LogSync;

/// Simulated disks are in memory.
const SEGMENT_BYTES: u32 = if cfg!(test) { 16 * 1024 } else { 64 * 1024 * 1024 };
const CACHE_BYTES: usize = 32 * 1024 * 1024;
/// The bytes of a frame, and those of the log between two parts of the index.
const FRAME_BYTES: usize = 1024 * 1024;
const PART_BYTES: usize = 64 * 1024 * 1024;

/// A store that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    directory: Directory,
    log: Log,
    index: Index,
    salt: Salt,
    last_channel: ChannelId,
    last_epoch: Epoch,
    /// The records of the next frame, after room for its header.
    frame: Vec<u8>,
    /// The channels of the next frame, with offsets in it.
    waiting: Vec<ChannelUpdate>,
    /// The channels that the index lacks.
    written: Vec<ChannelUpdate>,
    bytes: usize,
}

impl Writer {
    pub(super) fn new(directory: &Directory) -> Result<Self, Refused> {
        let salt = Salt(random()?);
        let position = LogPosition { segment: 1, offset: SEGMENT_HEADER_BYTES as u32, sequence: 0 };
        Ok(Self {
            directory: directory.clone(),
            log: Log::new(directory.clone(), salt, position, SEGMENT_BYTES, LogSync::Never),
            index: Index::open(directory, CACHE_BYTES)?,
            salt,
            last_channel: 0,
            last_epoch: Epoch(0),
            frame: vec![0; FRAME_HEADER_BYTES],
            waiting: Vec::new(),
            written: Vec::new(),
            bytes: 0,
        })
    }

    /// Begins a channel, whose first message has the number `row.next`.
    pub(super) fn begin(&mut self, row: ChannelRow, keys: Vec<KeptKey>) {
        self.last_channel += 1;
        self.last_epoch = self.last_epoch.max(row.epoch);
        let (id, begin) = (self.last_channel, row.next);
        RecordWriter { out: &mut self.frame, salt: self.salt }.made(id, begin, row.epoch, &row.name);
        self.waiting.push(ChannelUpdate { id, row, begin, entries: Vec::new(), keys });
    }

    /// Adds a message to the channel that was begun last. `has_key` adds its idempotency key too.
    pub(super) fn add(&mut self, message: &Arc<Message>, has_key: bool) -> Result<(), Refused> {
        let Some(update) = self.waiting.last_mut() else { return Ok(()) };
        let offset = self.frame.len() as u32;
        let number = update.row.next;
        let length = RecordWriter { out: &mut self.frame, salt: self.salt }.message(update.id, number, message) as u32;
        let (cost, time) = (message.cost() as u32, message.time());
        update.entries.push(Entry { segment: 0, offset, length, cost, time });
        update.row.next += 1;
        update.row.bytes += u64::from(cost);
        update.row.used = time;
        if has_key {
            update.keys.extend(crate::engine::store::disk::key_of(message, number + 1));
        }
        if self.frame.len() >= FRAME_BYTES { self.write_frame() } else { Ok(()) }
    }

    fn write_frame(&mut self) -> Result<(), Refused> {
        let kept = self.log.append(&mut self.frame, true);
        let (segment, begin) = kept.map_err(|why| match why {
            AppendError::Full(error) | AppendError::Refused(error) | AppendError::Failed(error) => {
                Refused::Io("write the log", error)
            }
        })?;
        self.bytes += self.frame.len();
        self.frame.truncate(FRAME_HEADER_BYTES);
        // The channel that was begun last goes on in the next frame.
        let last = self.waiting.last().map(|ChannelUpdate { id, row, .. }| {
            let (entries, keys) = (Vec::new(), Vec::new());
            ChannelUpdate { id: *id, row: row.clone(), begin: row.next, entries, keys }
        });
        for mut update in std::mem::replace(&mut self.waiting, last.into_iter().collect()) {
            for entry in &mut update.entries {
                (entry.segment, entry.offset) = (segment, begin + entry.offset);
            }
            self.written.push(update);
        }
        if self.bytes >= PART_BYTES { self.write_index() } else { Ok(()) }
    }

    fn write_index(&mut self) -> Result<(), Refused> {
        self.log.sync().map_err(|error| Refused::Io("sync the log", error))?;
        let (position, salt) = (self.log.position(), self.salt);
        let state = StoreState { salt, position, last_channel: self.last_channel, last_epoch: self.last_epoch };
        let updates = Updates { channels: std::mem::take(&mut self.written), removed: Vec::new() };
        self.index.write(&state, &[&updates], UnixMillis::default())?;
        self.bytes = 0;
        Ok(())
    }

    /// Puts all on the disk.
    pub(super) fn finish(mut self) -> Result<(), Refused> {
        if self.frame.len() > FRAME_HEADER_BYTES {
            self.write_frame()?;
        }
        self.write_index()?;
        // Returns what the last segment has not used.
        let LogPosition { segment, offset, .. } = self.log.position();
        let cut = match self.directory.open(&segment_name(segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            file => file.and_then(|file| file.set_len(offset.into()).and_then(|()| file.sync_data())),
        };
        cut.map_err(|error| Refused::Io("cut the last segment", error))
    }
}
