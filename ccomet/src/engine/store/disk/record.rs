//! The format of the log. A segment is a file of frames; a frame has the records of one commit, and
//! is kept as a whole or not at all.
//!
//! ```text
//! segment  magic [8] | version u32 | salt u32 | segment id u64
//!          | sequence u64 | checksum u32 | frames
//! frame    magic [4] | length of the records u32 | sequence u64 | synced u64
//!          | checksum u32 | records
//! record   length of the body u32 | checksum u32 | body
//! body     kind u8 | channel id, number: varints | what the kind has
//! ```
//!
//! Numbers of fixed length are little-endian. Checksums are CRC-32, and begin with the salt, a
//! random number of the store: so a publisher cannot make a payload that passes for a frame.
//!
//! The sequences of frames are consecutive; a segment begins with the sequence of the last frame
//! before it. All frames up to `synced` were on the disk when the frame was written, and all
//! earlier frames when a segment was begun. If a broken frame has later frames or segments that say
//! that it was on the disk, the disk has lost it; otherwise, it was being written when the process
//! or the machine stopped.

use crc32fast::Hasher;
use sealed::fault;

use crate::core::message::{ChannelName, Message};
use crate::core::position::Epoch;
use crate::engine::store::binary::{Input, put_message, put_varint, read_message};

/// The version of the format, of the log and of the index. A server refuses to open a store with a
/// greater one, and an index with a lower one.
pub(super) const VERSION: u32 = 2;

const SEGMENT_MAGIC: [u8; 8] = *b"ccometlg";
const FRAME_MAGIC: [u8; 4] = [0xcc, 0x0e, 0x7f, 0x01];

pub(super) const SEGMENT_HEADER_BYTES: usize = 36;
pub(super) const FRAME_HEADER_BYTES: usize = 28;
const RECORD_HEADER_BYTES: usize = 8;

/// The random number with which the checksums of a store begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(pub(super) u32);

impl Salt {
    fn checksum(self, parts: &[&[u8]]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// The number of a channel in the store. Each incarnation of a channel has its own; 0 is none.
pub(super) type ChannelId = u64;

/// A change that the log has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Message {
        channel: ChannelId,
        number: u64,
        message: Message,
    },
    /// The channel was created; its first message has the number `next`.
    Made {
        channel: ChannelId,
        next: u64,
        epoch: Epoch,
        name: ChannelName,
    },
    /// The channel's messages before number `next` were dropped.
    Cleared {
        channel: ChannelId,
        next: u64,
    },
    /// The channel was removed.
    Removed {
        channel: ChannelId,
    },
}

const MESSAGE: u8 = 1;
const MADE: u8 = 2;
const CLEARED: u8 = 3;
const REMOVED: u8 = 4;

/// Returns the header of a segment that follows the frame of that sequence.
pub(super) fn segment_header(id: u64, sequence: u64, salt: Salt) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&salt.0.to_le_bytes());
    header[16..24].copy_from_slice(&id.to_le_bytes());
    header[24..32].copy_from_slice(&sequence.to_le_bytes());
    let checksum = salt.checksum(&[&header[..32]]);
    header[32..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The header of a segment, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentHeader {
    Whole {
        id: u64,
        /// The sequence of the last frame before the segment.
        sequence: u64,
        salt: Salt,
    },
    /// The version is one that this program does not know.
    Newer(u32),
    Damaged,
}

/// Reads the header of a segment.
pub(super) fn read_segment_header(bytes: &[u8]) -> SegmentHeader {
    let header = || {
        let mut rest = Input(bytes);
        Some((rest.take(8)?, rest.u32()?, Salt(rest.u32()?), rest.u64()?, rest.u64()?, rest.u32()?))
    };
    match header() {
        Some((magic, version, ..)) if magic == SEGMENT_MAGIC && version > VERSION => SegmentHeader::Newer(version),
        Some((magic, _, salt, id, sequence, checksum))
            if magic == SEGMENT_MAGIC && salt.checksum(&[&bytes[..32]]) == checksum =>
        {
            SegmentHeader::Whole { id, sequence, salt }
        }
        _ => SegmentHeader::Damaged,
    }
}

/// A frame, as it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) sequence: u64,
    pub(super) synced: u64,
    pub(super) records: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn length(&self) -> usize {
        FRAME_HEADER_BYTES + self.records.len()
    }

    /// Reads the frame at the beginning of `bytes`, if it is whole.
    pub(super) fn read(bytes: &'a [u8], salt: Salt) -> Option<Self> {
        let mut rest = Input(bytes);
        if rest.take(4)? != FRAME_MAGIC {
            return None;
        }
        let length = rest.u32()?;
        let (sequence, synced) = (rest.u64()?, rest.u64()?);
        let checksum = rest.u32()?;
        let records = rest.take(length as usize)?;
        let header = if fault!("frame-checksum-without-header") { &[][..] } else { &bytes[4..24] };
        let is_whole = salt.checksum(&[header, records]) == checksum || fault!("frame-not-checked");
        is_whole.then_some(Self { sequence, synced, records })
    }

    /// Finds the next whole frame after the beginning of `bytes`. Returns its offset too.
    pub(super) fn find(bytes: &'a [u8], salt: Salt) -> Option<(usize, Self)> {
        let mut offset = 0;
        loop {
            let rest = bytes.get(offset + 1..)?;
            offset += 1 + rest.windows(FRAME_MAGIC.len()).position(|window| window == FRAME_MAGIC)?;
            if let Some(frame) = Self::read(&bytes[offset..], salt) {
                return Some((offset, frame));
            }
        }
    }

    /// Returns the records, each with its offset in the frame and its length; `None` for one that
    /// cannot be read.
    pub(super) fn records(&self, salt: Salt) -> impl Iterator<Item = Option<(usize, usize, Record)>> {
        let (mut offset, records) = (0, self.records);
        std::iter::from_fn(move || {
            let rest = records.get(offset..).filter(|rest| !rest.is_empty())?;
            let length = Input(rest).u32().map_or(rest.len(), |length| RECORD_HEADER_BYTES + length as usize);
            let record = read_record(rest.get(..length).unwrap_or(rest), salt);
            let begin = FRAME_HEADER_BYTES + offset;
            offset = offset.saturating_add(length);
            Some(record.map(|record| (begin, length, record)))
        })
    }
}

/// Writes the header of a frame over the beginning of `frame`, whose records follow it.
///
/// # Panics
/// If `frame` is shorter than a header.
pub(super) fn finish_frame(frame: &mut [u8], sequence: u64, synced: u64, salt: Salt) {
    let length = (frame.len() - FRAME_HEADER_BYTES) as u32;
    frame[..4].copy_from_slice(&FRAME_MAGIC);
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame[8..16].copy_from_slice(&sequence.to_le_bytes());
    frame[16..24].copy_from_slice(&synced.to_le_bytes());
    let header = if fault!("frame-checksum-without-header") { &[][..] } else { &frame[4..24] };
    let checksum = salt.checksum(&[header, &frame[FRAME_HEADER_BYTES..]]);
    frame[24..28].copy_from_slice(&checksum.to_le_bytes());
}

/// Appends records to a frame.
#[derive(Debug)]
pub(super) struct RecordWriter<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) salt: Salt,
}

impl RecordWriter<'_> {
    /// Appends a message. Returns the length of its record.
    pub(super) fn message(&mut self, channel: ChannelId, number: u64, message: &Message) -> usize {
        self.record(MESSAGE, channel, number, |out| put_message(out, message))
    }

    pub(super) fn made(&mut self, channel: ChannelId, next: u64, epoch: Epoch, name: &ChannelName) {
        self.record(MADE, channel, next, |out| {
            out.extend_from_slice(&epoch.0.to_le_bytes());
            out.extend_from_slice(name.as_str().as_bytes());
        });
    }

    pub(super) fn cleared(&mut self, channel: ChannelId, next: u64) {
        self.record(CLEARED, channel, next, |_| {});
    }

    pub(super) fn removed(&mut self, channel: ChannelId) {
        self.record(REMOVED, channel, 0, |_| {});
    }

    fn record(&mut self, kind: u8, channel: ChannelId, number: u64, rest: impl FnOnce(&mut Vec<u8>)) -> usize {
        let begin = self.out.len();
        self.out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        self.out.push(kind);
        put_varint(self.out, channel);
        put_varint(self.out, number);
        rest(self.out);
        let record = &mut self.out[begin..];
        let length = record.len();
        record[..4].copy_from_slice(&((length - RECORD_HEADER_BYTES) as u32).to_le_bytes());
        let checksum = self.salt.checksum(&[&record[..4], &record[RECORD_HEADER_BYTES..]]);
        record[4..8].copy_from_slice(&checksum.to_le_bytes());
        length
    }
}

/// Reads a record, if `bytes` are exactly one whole record.
pub(super) fn read_record(bytes: &[u8], salt: Salt) -> Option<Record> {
    let body = checked_body(bytes, salt)?;
    let mut rest = Input(body);
    let (kind, channel, number) = (rest.u8()?, rest.varint()?, rest.varint()?);
    match kind {
        MESSAGE => Some(Record::Message { channel, number, message: read_message(rest)? }),
        MADE => {
            let epoch = Epoch(rest.u64()?);
            let name = ChannelName::new(std::str::from_utf8(rest.0).ok()?).ok()?;
            Some(Record::Made { channel, next: number, epoch, name })
        }
        CLEARED => Some(Record::Cleared { channel, next: number }),
        REMOVED => Some(Record::Removed { channel }),
        _ => None,
    }
}

fn checked_body(bytes: &[u8], salt: Salt) -> Option<&[u8]> {
    let mut rest = Input(bytes);
    let (length, checksum) = (rest.u32()?, rest.u32()?);
    let is_right = salt.checksum(&[&bytes[..4], rest.0]) == checksum || fault!("record-not-checked");
    (is_right && rest.0.len() == length as usize).then_some(rest.0)
}
