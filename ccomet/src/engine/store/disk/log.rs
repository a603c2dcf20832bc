//! The log: segments, to the last of which frames are appended.

use std::io;

use sealed::disk::{Directory, File};
use sealed::fault;

use super::index::LogPosition;
use super::places::SegmentId;
use super::record::{
    FRAME_HEADER_BYTES, Frame, Record, SEGMENT_HEADER_BYTES, Salt, SegmentHeader, finish_frame, read_segment_header,
    segment_header,
};
use super::settings::LogSync;

/// The bytes that are copied at a time.
const COPIED_BYTES: usize = 1024 * 1024;

/// The shares of a segment that are tried in turn if the disk has no room for a whole one, and the
/// bytes that a segment has at least.
const SHARES: [u32; 3] = [1, 4, 16];
const SMALL_BYTES_MIN: u32 = 4 * 1024;

/// The frames like the last one for which a disk that was full has to have room again. So it does
/// not become full again at once.
const ROOM_FRAMES: u32 = 16;

/// The name of the file that shows whether the disk has room.
const PROBE_FILE: &str = "probe";

/// The end of the names of segments' files.
const SUFFIX: &str = ".log";

/// Returns the name of a segment's file.
pub(super) fn segment_name(id: SegmentId) -> String {
    format!("{id:010}{SUFFIX}")
}

/// Returns the segments of a directory, in order. A file with another name, such as `3.log`, is
/// none.
pub(super) fn segments(directory: &Directory) -> io::Result<Vec<SegmentId>> {
    let names = directory.list()?;
    let id = |name: &String| name.strip_suffix(SUFFIX)?.parse().ok().filter(|id| segment_name(*id) == *name);
    let mut ids: Vec<_> = names.iter().filter_map(id).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Writes all bytes of one file to another, or to itself, and syncs it. Returns their number.
pub(super) fn copy(from: &File, to: &File) -> io::Result<u64> {
    let (mut part, mut offset) = (vec![0; COPIED_BYTES], 0);
    loop {
        match from.read_at(&mut part, offset) {
            Ok(0) => break,
            Ok(count) => {
                to.write_all_at(&part[..count], offset)?;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    to.sync_data()?;
    Ok(offset)
}

/// A segment that was read into memory.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) bytes: Vec<u8>,
}

impl Segment {
    pub(super) fn read(directory: &Directory, id: SegmentId) -> io::Result<Self> {
        let file = directory.open(&segment_name(id))?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::of(bytes))
    }

    /// Creates a segment of the contents of its file.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { header: read_segment_header(&bytes), bytes }
    }

    /// Visits the records of all whole frames: the offset and the length of each, and the record.
    pub(super) fn each_record(&self, salt: Salt, mut visit: impl FnMut(usize, usize, Record)) {
        let mut at = self.frame(SEGMENT_HEADER_BYTES, salt).map(|frame| (SEGMENT_HEADER_BYTES, frame));
        at = at.or_else(|| self.next_frame(SEGMENT_HEADER_BYTES, salt));
        while let Some((offset, frame)) = at {
            for (place, length, record) in frame.records(salt).flatten() {
                visit(offset + place, length, record);
            }
            let end = offset + frame.length();
            at = self.frame(end, salt).map(|frame| (end, frame)).or_else(|| self.next_frame(end, salt));
        }
    }

    /// Returns bytes of the segment.
    pub(super) fn bytes(&self, offset: usize, length: usize) -> Option<&[u8]> {
        self.bytes.get(offset..offset.checked_add(length)?)
    }

    /// Returns the frame at an offset, if there is a whole one.
    pub(super) fn frame(&self, offset: usize, salt: Salt) -> Option<Frame<'_>> {
        Frame::read(self.bytes.get(offset..)?, salt)
    }

    /// Returns the next whole frame after an offset, with its own offset.
    pub(super) fn next_frame(&self, offset: usize, salt: Salt) -> Option<(usize, Frame<'_>)> {
        let (distance, frame) = Frame::find(self.bytes.get(offset..)?, salt)?;
        Some((offset + distance, frame))
    }
}

/// The reason why a frame was not kept.
#[derive(Debug)]
pub(super) enum AppendError {
    /// The disk is full. Later frames may be kept.
    Full(io::Error),
    /// The next segment cannot be begun, for want of descriptors for example. Nothing was written;
    /// later frames may be kept.
    Refused(io::Error),
    /// The disk has failed: nothing is known of what it has, and nothing more is written.
    Failed(io::Error),
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Log {
    directory: Directory,
    salt: Salt,
    segment_bytes: u32,
    sync: LogSync,
    current: Option<Current>,
    /// The last segment that was begun.
    last_segment: SegmentId,
    /// The sequence of the last frame.
    sequence: u64,
    /// The sequence of the last frame that is on the disk.
    synced: u64,
    has_failed: bool,
    /// The length of the longest frame for which there was no room, since there was room last.
    refused: u32,
}

/// The segment that is being written.
#[derive(Debug)]
struct Current {
    file: File,
    /// The end of its last frame.
    end: u32,
    capacity: u32,
}

impl Log {
    /// Creates a log that continues after a position, in a new segment.
    pub(super) fn new(directory: Directory, salt: Salt, after: LogPosition, segment_bytes: u32, sync: LogSync) -> Self {
        Self {
            directory,
            salt,
            segment_bytes,
            sync,
            current: None,
            last_segment: after.segment - 1,
            sequence: after.sequence,
            synced: after.sequence,
            has_failed: false,
            refused: 0,
        }
    }

    /// Returns the end of the log.
    pub(super) fn position(&self) -> LogPosition {
        let (segment, offset) = match &self.current {
            Some(current) => (self.last_segment, current.end),
            None => (self.last_segment + 1, SEGMENT_HEADER_BYTES as u32),
        };
        LogPosition { segment, offset, sequence: self.sequence }
    }

    /// Keeps a frame, whose header is made here. Returns its place. If the frame does not fit into
    /// the current segment, `begins_segments` determines whether another one is begun.
    pub(super) fn append(&mut self, frame: &mut [u8], begins_segments: bool) -> Result<(SegmentId, u32), AppendError> {
        if self.has_failed {
            return Err(AppendError::Failed(io::Error::other("the disk has failed before")));
        }
        let length = u32::try_from(frame.len()).map_err(|error| AppendError::Full(io::Error::other(error)))?;
        if self.current.as_ref().is_none_or(|current| current.capacity - current.end < length) {
            let begun = if begins_segments { self.begin_roomy(length) } else { Err(no_room()) };
            if matches!(begun, Err(AppendError::Full(_))) {
                self.refused = self.refused.max(length);
            }
            begun?;
        }
        finish_frame(frame, self.sequence + 1, self.synced, self.salt);
        let result = self.write(frame);
        if matches!(result, Err(AppendError::Full(_))) {
            self.refused = self.refused.max(length);
        }
        self.has_failed |= matches!(result, Err(AppendError::Failed(_)));
        result
    }

    fn write(&mut self, frame: &[u8]) -> Result<(SegmentId, u32), AppendError> {
        let Some(current) = &mut self.current else { return Err(AppendError::Failed(io::Error::other("no segment"))) };
        let begin = current.end;
        let is_synced = self.sync == LogSync::Commit && !fault!("accepted-before-sync");
        let written = current.file.write_all_at(frame, begin.into()).map_err(|error| (error, false));
        let synced = || if is_synced { current.file.sync_data().map_err(|error| (error, true)) } else { Ok(()) };
        if let Err((error, was_syncing)) = written.and_then(|()| synced()) {
            // The publishers are refused. The system may show the frame to the next process even if
            // the disk does not have it.
            let is_erased = !fault!("unsynced-frame-stays")
                && current.file.write_all_at(&[0; FRAME_HEADER_BYTES], begin.into()).is_ok();
            // The file system may not have reserved the space. The next frame takes the same place.
            let is_full = is_full(&error) && is_erased && !was_syncing;
            return Err(if is_full { AppendError::Full(error) } else { AppendError::Failed(error) });
        }
        current.end += frame.len() as u32;
        self.sequence += 1;
        if self.sync == LogSync::Commit {
            self.synced = self.sequence;
        }
        Ok((self.last_segment, begin))
    }

    /// Puts all frames on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.has_failed {
            return Err(io::Error::other("the disk has failed before"));
        }
        if self.synced < self.sequence
            && !fault!("segment-left-unsynced")
            && let Some(current) = &self.current
        {
            let synced = current.file.sync_data();
            self.has_failed |= synced.is_err();
            synced?;
        }
        self.synced = self.sequence;
        Ok(())
    }

    /// Begins the next segment, in which there is room for frames, after the disk was full: for
    /// several of those that were refused. Nothing of the last segment may be kept any more, and
    /// then the next checkpoint removes that.
    pub(super) fn make_room(&mut self) -> Result<(), AppendError> {
        let few = self.refused.saturating_mul(ROOM_FRAMES).min(self.segment_bytes);
        let needed = self.refused.max(few);
        let needed = if fault!("room-for-any-frame") { 1 } else { needed };
        if self.current.as_ref().is_none_or(|current| current.capacity - current.end < needed.max(1)) {
            self.begin_roomy(needed)?;
        }
        self.refused = 0;
        Ok(())
    }

    /// Returns an error if the disk has no room for a small segment and none is begun.
    pub(super) fn probe(&self) -> Result<(), AppendError> {
        if self.current.is_some() {
            return Ok(());
        }
        let made = self.directory.create(PROBE_FILE).and_then(|file| file.allocate(self.smallest().into()));
        let _ = self.directory.remove(PROBE_FILE);
        match made {
            Err(error) if is_full(&error) => Err(AppendError::Full(error)),
            _ => Ok(()),
        }
    }

    /// Returns the bytes of the smallest segment.
    fn smallest(&self) -> u32 {
        SHARES.iter().map(|share| self.segment_bytes / share).min().unwrap_or(0).max(SMALL_BYTES_MIN)
    }

    /// Returns the sizes of a segment with room for so many bytes of frames, from large to small.
    pub(super) fn sizes(&self, bytes: u32) -> Vec<u32> {
        let needed = (SEGMENT_HEADER_BYTES as u32).saturating_add(bytes).max(SMALL_BYTES_MIN);
        let mut sizes = SHARES.map(|share| (self.segment_bytes / share).max(needed)).to_vec();
        sizes.dedup();
        sizes
    }

    /// Returns the bytes that are left of the current segment.
    pub(super) fn room_left(&self) -> u32 {
        self.current.as_ref().map_or(0, |current| current.capacity - current.end)
    }

    /// Keeps a frame as `append` does. If it does not fit into the current segment, the smallest
    /// one is begun.
    pub(super) fn append_small(&mut self, frame: &mut [u8]) -> Result<(SegmentId, u32), AppendError> {
        let length = u32::try_from(frame.len()).map_err(|error| AppendError::Full(io::Error::other(error)))?;
        if self.current.is_none() || self.room_left() < length {
            let size = self.sizes(length).pop().unwrap_or(length);
            self.begin_segment(size)?;
        }
        self.append(frame, false)
    }

    /// Begins the next segment, with room for so many bytes of frames. If the disk has no room for
    /// a whole segment, it is a smaller one.
    fn begin_roomy(&mut self, bytes: u32) -> Result<(), AppendError> {
        let mut begun = Err(no_room());
        for size in self.sizes(bytes) {
            begun = self.begin_segment(size);
            if !matches!(begun, Err(AppendError::Full(_))) {
                break;
            }
        }
        begun
    }

    /// Begins a segment of so many bytes. Its blocks are allocated now, so that the disk is not
    /// full later.
    pub(super) fn begin_segment(&mut self, capacity: u32) -> Result<(), AppendError> {
        self.sync().map_err(AppendError::Failed)?;
        let id = self.last_segment + 1;
        let file = self.create(id, capacity).map_err(|(error, was_syncing)| {
            // What is left of it would take room.
            let _ = self.directory.remove(&segment_name(id));
            match error {
                error if is_full(&error) => AppendError::Full(error),
                error if was_syncing => AppendError::Failed(error),
                error => AppendError::Refused(error),
            }
        });
        if matches!(file, Err(AppendError::Failed(_))) || file.is_err() && fault!("full-disk-latched") {
            self.has_failed = true;
        }
        let file = file?;
        if let Some(last) = self.current.take() {
            // Returns what the segment has not used.
            let _ = last.file.set_len(last.end.into());
        }
        self.last_segment = id;
        self.current = Some(Current { file, end: SEGMENT_HEADER_BYTES as u32, capacity });
        Ok(())
    }

    /// Creates a segment, and puts it on the disk. An error comes with whether syncing has failed.
    fn create(&self, id: SegmentId, capacity: u32) -> Result<File, (io::Error, bool)> {
        let file = self.create_file(id, capacity).map_err(|error| (error, false))?;
        file.sync_data().map_err(|error| (error, true))?;
        if !fault!("directory-not-synced") {
            self.directory.sync().map_err(|error| (error, true))?;
        }
        Ok(file)
    }

    fn create_file(&self, id: SegmentId, capacity: u32) -> io::Result<File> {
        let name = segment_name(id);
        let file = match self.directory.create(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.directory.remove(&name)?;
                self.directory.create(&name)?
            }
            other => other?,
        };
        file.allocate(capacity.into())?;
        file.write_all_at(&segment_header(id.into(), self.sequence, self.salt), 0)?;
        Ok(file)
    }
}

fn no_room() -> AppendError {
    AppendError::Full(io::ErrorKind::StorageFull.into())
}

/// Returns whether an error says that there is no room on the disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
