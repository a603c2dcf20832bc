//! Reading a log that may be damaged: all records that are whole, and where others are lost.

use std::collections::BTreeMap;
use std::io;

use sealed::disk::Directory;

use super::{Damage, segment_name, segments};
use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::engine::store::binary::Input;
use crate::engine::store::disk::index::LogPosition;
use crate::engine::store::disk::log::Segment;
use crate::engine::store::disk::opening::{Refused, reaches};
use crate::engine::store::disk::places::{Entry, SegmentId};
use crate::engine::store::disk::record::{ChannelId, Record, SEGMENT_HEADER_BYTES, Salt, SegmentHeader, read_record};

/// The bytes that are taken as lost together if they cannot be read.
const SECTION_BYTES: usize = 64 * 1024;

const MISSING: &str = "the segment is missing";

/// The length of a record before its body, and the shortest record.
const RECORD_HEADER_BYTES: usize = 8;
const RECORD_BYTES_MIN: usize = RECORD_HEADER_BYTES + 3;

/// What the log has of a channel.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its name and epoch, if the log has its creation.
    pub(super) made: Option<(ChannelName, Epoch)>,
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) is_removed: bool,
    /// The number before which the index has its messages.
    indexed: u64,
    /// The number of losses before its last new record.
    losses_before: usize,
}

impl Found {
    fn new(indexed: u64) -> Self {
        Self { indexed, next: indexed, ..Self::default() }
    }
}

/// All that a log has.
#[derive(Debug, Default)]
pub(super) struct Rescue {
    pub(super) channels: BTreeMap<ChannelId, Found>,
    pub(super) losses: Vec<Damage>,
}

/// Returns the number before which the index has the messages of a channel.
pub(super) type NextOf<'a> = &'a dyn Fn(ChannelId) -> u64;

/// A log that is being read.
struct Reader<'a> {
    rescue: Rescue,
    salt: Salt,
    next_of: NextOf<'a>,
    /// The sequence of the last frame.
    sequence: u64,
}

/// Returns the salt of a log, from the first segment whose header is whole.
pub(super) fn find_salt(directory: &Directory) -> Result<Salt, Refused> {
    let ids = segments(directory).map_err(|error| Refused::Io("list the segments", error))?;
    for id in ids {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = directory.open(&segment_name(id)).and_then(|file| file.read_exact_at(&mut header, 0));
        match Segment::of(header.to_vec()).header {
            SegmentHeader::Whole { salt, .. } if read.is_ok() => return Ok(salt),
            SegmentHeader::Newer(version) if read.is_ok() => return Err(Refused::Newer(version)),
            _ => {}
        }
    }
    Err(Refused::Damaged("no segment of its log has a header that can be read".to_owned()))
}

impl Rescue {
    /// Reads the log from a position on, or from its beginning.
    pub(super) fn read(
        directory: &Directory,
        salt: Salt,
        from: Option<LogPosition>,
        next_of: NextOf<'_>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, Refused> {
        let sequence = from.map_or(0, |from| from.sequence);
        let mut reader = Reader { rescue: Self::default(), salt, next_of, sequence };
        let ids = segments(directory).map_err(|error| Refused::Io("list the segments", error))?;
        let ids: Vec<_> = ids.into_iter().filter(|id| from.is_none_or(|from| *id >= from.segment)).collect();
        if let Some(from) = from.filter(|from| from.offset as usize > SEGMENT_HEADER_BYTES)
            && ids.first() != Some(&from.segment)
        {
            reader.lose(from.segment, 0, MISSING.to_owned());
        }
        let mut before = None;
        for (count, id) in ids.iter().enumerate() {
            progress(&format!("segment {} of {}", count + 1, ids.len()));
            let segment = match read_sections(directory, *id) {
                Ok(bytes) => Segment::of(bytes),
                Err(error) => {
                    reader.lose(*id, 0, error.to_string());
                    continue;
                }
            };
            let sequence = match segment.header {
                SegmentHeader::Newer(version) => return Err(Refused::Newer(version)),
                _ if from.is_some_and(|from| from.segment == *id && !reaches(&segment, salt, from)) => {
                    // Nothing is known of what followed.
                    reader.lose(*id, 0, "the segment ends before the last checkpoint".to_owned());
                    None
                }
                SegmentHeader::Whole { sequence, salt: has, .. } if has == salt => Some(sequence),
                _ => None,
            };
            if sequence.is_some_and(|sequence| sequence > reader.sequence) {
                match before {
                    Some((last, end)) if last + 1 == *id => reader.lose_end(directory, last, end),
                    // Without an index, nothing says whether it was needed.
                    _ if from.is_none() => {}
                    _ => reader.lose(id - 1, 0, MISSING.to_owned()),
                }
            }
            let begin =
                from.filter(|from| from.segment == *id).map_or(SEGMENT_HEADER_BYTES, |from| from.offset as usize);
            before = Some((*id, reader.read_segment(*id, &segment, begin)));
        }
        Ok(reader.rescue)
    }

    /// Returns whether a channel may have lost its newest messages, of which nothing is left.
    pub(super) fn is_end_lost(&self, id: ChannelId) -> bool {
        let known = self.channels.get(&id).map_or(0, |found| found.losses_before);
        known < self.losses.len()
    }
}

impl Reader<'_> {
    /// Reads a segment. Returns the end of its last frame.
    fn read_segment(&mut self, id: SegmentId, segment: &Segment, begin: usize) -> usize {
        let (mut offset, salt) = (begin, self.salt);
        loop {
            while let Some(frame) = segment.frame(offset, salt).filter(|frame| frame.sequence > self.sequence) {
                for (place, length, record) in frame.records(salt).flatten() {
                    self.take(id, offset + place, length, record);
                }
                (self.sequence, offset) = (frame.sequence, offset + frame.length());
            }
            let mut place = offset;
            let next = loop {
                let Some((next, frame)) = segment.next_frame(place, salt) else { return offset };
                // Otherwise, the broken frame was never acknowledged.
                if frame.synced > self.sequence {
                    break next;
                }
                place = next;
            };
            self.take_loose(id, offset, &segment.bytes[offset..next]);
            self.lose(id, offset, format!("a commit is damaged, up to byte {next}"));
            offset = next;
        }
    }

    /// Notes that the end of a segment is lost, and takes the records that it still has.
    fn lose_end(&mut self, directory: &Directory, id: SegmentId, end: usize) {
        if let Ok(bytes) = read_sections(directory, id)
            && let Some(rest) = bytes.get(end..)
        {
            self.take_loose(id, end, rest);
        }
        self.lose(id, end, "the last commits of the segment are damaged".to_owned());
    }

    fn lose(&mut self, id: SegmentId, offset: usize, what: String) {
        let loss = Damage { file: segment_name(id), offset: Some(offset as u64), what };
        if self.rescue.losses.last() != Some(&loss) {
            self.rescue.losses.push(loss);
        }
    }

    /// Takes the whole records of a broken frame: each has a checksum of its own.
    fn take_loose(&mut self, id: SegmentId, begin: usize, bytes: &[u8]) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= RECORD_BYTES_MIN) {
            let length = Input(rest).u32().map_or(0, |length| RECORD_HEADER_BYTES.saturating_add(length as usize));
            let is_possible = (RECORD_BYTES_MIN..=rest.len()).contains(&length);
            match rest.get(..length).filter(|_| is_possible).and_then(|record| read_record(record, self.salt)) {
                Some(record) => {
                    self.take(id, begin + at, length, record);
                    at += length;
                }
                None => at += 1,
            }
        }
    }

    fn take(&mut self, segment: SegmentId, offset: usize, length: usize, record: Record) {
        let (Record::Message { channel, .. }
        | Record::Made { channel, .. }
        | Record::Cleared { channel, .. }
        | Record::Removed { channel }) = &record;
        let (channel, losses) = (*channel, self.rescue.losses.len());
        let next_of = self.next_of;
        let found = self.rescue.channels.entry(channel).or_insert_with(|| Found::new(next_of(channel)));
        if let Record::Message { number, .. } = &record
            && *number < found.next
        {
            // It was written again, to another place, and says nothing of later messages.
            if *number < found.indexed {
                return;
            }
        } else {
            found.losses_before = losses;
        }
        match record {
            Record::Made { next, epoch, name, .. } => {
                found.made = Some((name, epoch));
                found.first = found.first.max(next);
                found.next = found.next.max(next);
            }
            Record::Message { number, message, .. } => {
                let (offset, length, cost) = (offset as u32, length as u32, message.cost() as u32);
                found.entries.insert(number, Entry { segment, offset, length, cost, time: message.time() });
                found.next = found.next.max(number + 1);
            }
            Record::Cleared { next, .. } => {
                found.entries = found.entries.split_off(&next);
                found.first = found.first.max(next);
                found.next = found.next.max(next);
            }
            Record::Removed { .. } => {
                found.is_removed = true;
                found.entries.clear();
            }
        }
    }
}

/// Reads a segment; sections that cannot be read are zeros.
fn read_sections(directory: &Directory, id: SegmentId) -> io::Result<Vec<u8>> {
    let file = directory.open(&segment_name(id))?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    for (index, section) in bytes.chunks_mut(SECTION_BYTES).enumerate() {
        if file.read_exact_at(section, (index * SECTION_BYTES) as u64).is_err() {
            section.fill(0);
        }
    }
    Ok(bytes)
}
