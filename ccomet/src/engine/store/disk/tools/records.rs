//! Reading single messages of the log by their places.

use std::io;

use sealed::disk::{Directory, File};

use crate::core::message::Message;
use crate::engine::store::disk::log::segment_name;
use crate::engine::store::disk::places::{Entry, SegmentId};
use crate::engine::store::disk::record::{ChannelId, Record, Salt, read_record};

/// The bytes that are read in one call while records follow each other closely.
const AHEAD_BYTES: usize = 256 * 1024;

/// A reader of messages. It reads ahead while places are in the order of the log.
#[derive(Debug)]
pub(super) struct Records {
    directory: Directory,
    salt: Salt,
    file: Option<(SegmentId, File)>,
    /// Bytes of the file, and their offset.
    buffer: Vec<u8>,
    begin: u64,
}

impl Records {
    pub(super) fn new(directory: Directory, salt: Salt) -> Self {
        Self { directory, salt, file: None, buffer: Vec::new(), begin: 0 }
    }

    /// Reads a message. Returns the reason if it is not there.
    pub(super) fn message(&mut self, channel: ChannelId, number: u64, entry: Entry) -> Result<Message, String> {
        let salt = self.salt;
        let bytes = self.bytes(entry).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "the segment is missing".to_owned(),
            io::ErrorKind::UnexpectedEof => "the segment ends before its end".to_owned(),
            _ => error.to_string(),
        })?;
        match read_record(bytes, salt) {
            Some(Record::Message { channel: has, number: found, message }) if (has, found) == (channel, number) => {
                Ok(message)
            }
            Some(_) => Err("another record is there".to_owned()),
            None => Err("the checksum is wrong".to_owned()),
        }
    }

    fn bytes(&mut self, entry: Entry) -> io::Result<&[u8]> {
        let (offset, length) = (u64::from(entry.offset), entry.length as usize);
        let is_same = self.file.as_ref().is_some_and(|(id, _)| *id == entry.segment);
        if !is_same {
            (self.file, self.buffer) = (None, Vec::new());
            self.file = Some((entry.segment, self.directory.open(&segment_name(entry.segment))?));
        }
        let end = self.begin + self.buffer.len() as u64;
        let is_there = (self.begin..=end).contains(&offset) && offset + length as u64 <= end;
        if !is_there {
            let is_near = is_same && offset >= self.begin && offset - self.begin <= 2 * AHEAD_BYTES as u64;
            self.fill(offset, if is_near { length.max(AHEAD_BYTES) } else { length })?;
        }
        let from = (offset - self.begin) as usize;
        self.buffer.get(from..from + length).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn fill(&mut self, offset: u64, wanted: usize) -> io::Result<()> {
        let Some((_, file)) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        self.begin = offset;
        self.buffer.resize(wanted, 0);
        let mut filled = 0;
        while filled < wanted {
            match file.read_at(&mut self.buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}
