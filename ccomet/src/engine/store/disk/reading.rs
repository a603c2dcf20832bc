//! Reading from the log, on threads: pages of a channel's history, and channels that are opened.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sealed::fault;
use tracing::error;

use super::events::{Event, Found};
use super::index::{ChannelRow, Index, IndexError, guarded, io_error};
use super::places::{BLOCK_ENTRIES, Entry, SegmentId};
use super::record::{ChannelId, Record, Salt, read_record};
use super::shared::{SharedStore, lock, read_lock};
use crate::core::message::{ChannelName, Message};
use crate::core::position::Spot;
use crate::core::time::UnixMillis;
use crate::engine::Window;
use crate::engine::store::{KeptKey, NameRange, Part, PartRange};

/// The maximum bytes of one read, and of the gap between two records that are read together.
const READ_BYTES_MAX: u32 = 1024 * 1024;
const READ_GAP_MAX: u32 = 4096;

/// The maximum number of messages that cannot be read which are logged.
const DAMAGES_MAX: usize = 1_000;

/// The number of names that are read at a time, those of all loops together.
const NAMES_READ: usize = 1_000;

/// The limits of the messages that are read when a channel is opened.
const WINDOW_MESSAGES: usize = 100;
const WINDOW_BYTES: usize = 64 * 1024;

/// A message with its number; `None` if it is damaged or gone.
type ReadMessage = (u64, Option<Arc<Message>>);

/// An error of reading a segment: other segments, and the index, may be readable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SegmentUnreadable(io::Error);

impl SegmentUnreadable {
    /// Returns whether an error of a read is this one, and not one of the index.
    pub(super) fn is_cause_of(error: &IndexError) -> bool {
        let redb::Error::Io(error) = &**error else { return false };
        matches!(error.get_ref(), Some(inner) if inner.is::<Self>())
    }
}

/// A channel, as a loop knows it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) id: ChannelId,
    pub(super) row: ChannelRow,
    /// The places of messages that may not be in the index, up to the newest.
    pub(super) tail: Vec<Entry>,
    pub(super) keys: Vec<KeptKey>,
}

/// A request for a part of a channel's history.
#[derive(Debug)]
pub(super) struct PageRequest {
    pub(super) read: u32,
    pub(super) id: ChannelId,
    pub(super) kept: Range<u64>,
    /// The kept messages whose places are in the index or in `tail`. The page ends there.
    pub(super) reach: Range<u64>,
    /// The number of the first entry of `tail`, and the places of messages that may not be in the
    /// index.
    pub(super) tail_begin: u64,
    pub(super) tail: Vec<Entry>,
    pub(super) range: PartRange,
    /// Set if the page is to have no gaps: it ends at the first message that cannot be read.
    pub(super) is_window: bool,
    pub(super) now: UnixMillis,
}

impl SharedStore {
    /// Reads a page for a loop.
    pub(super) fn read_page(&self, to: usize, request: &PageRequest) {
        let part = guarded(|| self.page(request)).inspect_err(|error| self.index_failed(error));
        self.post(to, Event::Page { read: request.read, part });
    }

    fn page(&self, request: &PageRequest) -> Result<Part, IndexError> {
        let PageRequest { kept, reach, range, now, .. } = request;
        let PartRange { begin, is_backward, limit, bytes_max } = *range;
        let kept_from = kept.start;
        let empty = Part { entries: Vec::new(), end: begin, has_more: false, kept_from, readable_from: 0 };
        let mut part = if is_backward { Part { end: begin.min(kept.end), ..empty } } else { empty };
        let mut bytes = 0;
        loop {
            let wanted = (limit - part.entries.len()).min(BLOCK_ENTRIES * 4) + 1;
            let entries = places(&read_lock(&self.index), request, part.end, wanted)?;
            let is_last = entries.len() < wanted;
            for (number, message) in self.messages_there(request.id, &entries)? {
                let Some(message) = message else {
                    if request.is_window {
                        // A window has no gaps.
                        return Ok(part);
                    }
                    // The page ends before it, and the next one begins behind it.
                    let ends = is_backward && fault!("history-ends-at-damage");
                    part.has_more = !part.entries.is_empty() && !ends;
                    if part.has_more && !is_backward {
                        return Ok(part);
                    }
                    part.end = if is_backward { number } else { number + 1 };
                    if part.has_more || ends {
                        return Ok(part);
                    }
                    if !is_backward {
                        part.readable_from = number + 1;
                    }
                    continue;
                };
                if !message.is_expired(*now) {
                    bytes += message.payload.len();
                    if part.entries.len() == limit || bytes > bytes_max && !part.entries.is_empty() {
                        part.has_more = true;
                        return Ok(part);
                    }
                    part.entries.push((number, message));
                }
                part.end = if is_backward { number } else { number + 1 };
            }
            if is_last {
                let is_cut = if is_backward { kept.start < reach.start } else { reach.end < kept.end };
                part.has_more = is_cut && !fault!("rest-behind-places-left-out");
                // What is missing up to there was dropped.
                part.end = if is_backward && is_cut {
                    reach.start
                } else if is_backward {
                    part.end
                } else {
                    reach.end
                };
                return Ok(part);
            }
        }
    }

    /// Reads the messages at places, in their order; `None` for one that is damaged or gone. If one
    /// is not there, the index may have another place for it by now.
    fn messages_there(&self, id: ChannelId, entries: &[(u64, Entry)]) -> Result<Vec<ReadMessage>, IndexError> {
        let messages = self.messages(id, entries)?;
        let numbers = || entries.iter().map(|(number, _)| *number);
        let (Some(first), Some(last)) = (numbers().min(), numbers().max()) else { return Ok(messages) };
        if messages.iter().all(|(_, message)| message.is_some()) {
            return Ok(messages);
        }
        let now = read_lock(&self.index).entries(id, first, false, (last - first + 1) as usize)?;
        let now: BTreeMap<u64, Entry> = now.into_iter().collect();
        let again: Vec<_> =
            entries.iter().map(|(number, entry)| (*number, *now.get(number).unwrap_or(entry))).collect();
        let messages = self.messages(id, &again)?;
        for ((number, _), (_, entry)) in messages.iter().zip(&again).filter(|((_, message), _)| message.is_none()) {
            self.report_damage(id, *number, *entry);
        }
        Ok(messages)
    }

    /// Logs that a message cannot be read, once.
    fn report_damage(&self, id: ChannelId, number: u64, Entry { segment, offset, .. }: Entry) {
        // A channel that was removed meanwhile lacks nothing.
        let Ok(Some(ChannelRow { name, epoch, .. })) = read_lock(&self.index).row(id) else { return };
        let mut reported = lock(&self.reported);
        if reported.len() < DAMAGES_MAX && reported.insert((id, number)) {
            let position = Spot { epoch, next: number + 1 };
            error!(
                "the store is damaged: segment {segment} has no message at {offset}, of channel {name} at {position}"
            );
        }
    }

    fn messages(&self, id: ChannelId, entries: &[(u64, Entry)]) -> Result<Vec<ReadMessage>, IndexError> {
        let mut messages = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while !rest.is_empty() {
            let (together, later) = rest.split_at(together(rest));
            rest = later;
            let begin = together.iter().map(|(_, entry)| entry.offset).min().unwrap_or(0);
            let end = together.iter().map(|(_, entry)| entry.end()).max().unwrap_or(0);
            let bytes = match self.read(together[0].1.segment, begin, end) {
                // The segment was removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Bytes::new(),
                Err(error) if fault!("unreadable-log-is-index") => return Err(io_error(error)),
                Err(error) => return Err(io_error(self.segment_failed(together[0].1.segment, error))),
                Ok(bytes) => bytes,
            };
            for (number, entry) in together {
                let offset = (entry.offset - begin) as usize;
                let record = bytes.get(offset..offset + entry.length as usize);
                let message = record.and_then(|record| message(record, self.salt, id, *number));
                messages.push((*number, message.map(Arc::new)));
            }
        }
        Ok(messages)
    }

    /// Notes that a segment cannot be read. Returns an error that is not one of the index.
    fn segment_failed(&self, segment: SegmentId, error: io::Error) -> io::Error {
        if lock(&self.unreadable).insert(segment) {
            error!("cannot read segment {segment} of the store: {error}");
        }
        io::Error::new(error.kind(), SegmentUnreadable(error))
    }

    /// Reads a part of a segment, as much of it as there is: the segment may have been cut.
    fn read(&self, segment: u32, begin: u32, end: u32) -> io::Result<Bytes> {
        let file = self.segment(segment)?;
        let (mut bytes, mut filled) = (vec![0; (end - begin) as usize], 0);
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], u64::from(begin) + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        lock(&self.unreadable).remove(&segment);
        bytes.truncate(if filled < bytes.len() && fault!("cut-segment-unread") { 0 } else { filled });
        Ok(bytes.into())
    }

    /// Finds a channel for a loop. `known` is what the loop has of it that may not be in the index.
    pub(super) fn open_channel(&self, to: usize, channel: ChannelName, known: Option<Known>, now: UnixMillis) {
        let found = guarded(|| self.find(&channel, known, now.minus(self.times().key_age)));
        let found = found.inspect_err(|error| self.index_failed(error));
        self.post(to, Event::Opened { channel, found: found.map(|found| found.map(Box::new)) });
    }

    fn find(
        &self,
        channel: &ChannelName,
        known: Option<Known>,
        keys_from: UnixMillis,
    ) -> Result<Option<Found>, IndexError> {
        let index = read_lock(&self.index);
        let known = match known {
            Some(known) => known,
            None => match index.channel(channel.as_str())? {
                Some((id, row)) => Known { id, row, tail: Vec::new(), keys: Vec::new() },
                None => return Ok(None),
            },
        };
        let Known { id, row, tail, keys: newer } = known;
        let mut keys = index.keys(id, keys_from)?;
        keys.retain(|key| !newer.iter().any(|other| other.key == key.key));
        keys.extend(newer);
        let tail_begin = row.next - tail.len() as u64;
        let range = PartRange { begin: row.next, is_backward: true, limit: WINDOW_MESSAGES, bytes_max: WINDOW_BYTES };
        // The shard drops old messages at once, before a client can read them.
        let oldest = if row.first < tail_begin { index.entries(id, row.first, false, 1)? } else { Vec::new() };
        let oldest_begin = oldest.first().map_or(row.first, |(number, _)| *number);
        let oldest = oldest.into_iter().map(|(_, entry)| entry).collect();
        let (kept, now) = (row.first..row.next, UnixMillis::default());
        let reach = kept.clone();
        let request = PageRequest { read: 0, id, kept, reach, tail_begin, tail, range, is_window: true, now };
        drop(index);
        // With the time 0, nothing has expired, so that no number is left out.
        let mut part = self.page(&request)?;
        part.entries.reverse();
        let first = part.entries.first().map_or(row.next, |(number, _)| *number);
        let entries = part.entries.into_iter().map(|(_, message)| message).collect();
        let window = Window { epoch: row.epoch, kept_from: row.first, first, entries };
        if fault!("keys-not-in-store") {
            keys.clear();
        }
        Ok(Some(Found { id, row, window, keys, oldest_begin, oldest }))
    }

    /// Reads names for a loop. `newer` are channels of the loop that the index may not have, and
    /// `gone` names that it may still have.
    pub(super) fn read_names(
        &self,
        to: usize,
        read: u32,
        range: &NameRange,
        newer: Vec<ChannelRow>,
        gone: &HashSet<ChannelName>,
    ) {
        let found = guarded(|| self.own_names(to, range, gone)).map(|(rows, is_whole)| {
            let last = rows.last().filter(|_| !is_whole).map(|row| row.name.clone());
            let mut all: BTreeMap<_, _> = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
            let newer = newer.into_iter().filter(|row| last.as_ref().is_none_or(|last| row.name <= *last));
            all.extend(newer.map(|row| (row.name.clone(), row)));
            let has_more = !is_whole || all.len() > range.limit;
            (all.into_values().take(range.limit).collect(), has_more)
        });
        let found = found.inspect_err(|error| self.index_failed(error));
        self.post(to, Event::Names { read, found });
    }

    /// Reads more names of a loop than a range asks for, or all that there are. Returns whether
    /// these are all.
    fn own_names(
        &self,
        to: usize,
        range: &NameRange,
        gone: &HashSet<ChannelName>,
    ) -> Result<(Vec<ChannelRow>, bool), IndexError> {
        let NameRange { prefix, after, limit } = range;
        let (mut own, mut after): (Vec<ChannelRow>, Box<str>) = (Vec::new(), after.clone());
        loop {
            let rows = read_lock(&self.index).names(prefix, &after, NAMES_READ)?;
            let is_last = rows.len() < NAMES_READ;
            after = rows.last().map_or(after, |row| row.name.as_str().into());
            let is_own = |row: &ChannelRow| row.name.shard(self.loops()) == to && !gone.contains(&row.name);
            own.extend(rows.into_iter().filter(is_own));
            if is_last || own.len() > *limit {
                return Ok((own, is_last));
            }
        }
    }

    /// Reads the places of the oldest messages of a channel for a loop.
    pub(super) fn read_oldest(&self, to: usize, channel: ChannelName, id: ChannelId, begin: u64) {
        let entries = guarded(|| read_lock(&self.index).entries(id, begin, false, 1));
        let entries = entries.inspect_err(|error| self.index_failed(error));
        let entries = entries.unwrap_or_default();
        let begin = entries.first().map_or(begin, |(number, _)| *number);
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        self.post(to, Event::Oldest { channel, id, begin, entries });
    }
}

/// Returns the places of messages from number `begin` on or, backward, before it.
fn places(index: &Index, request: &PageRequest, begin: u64, limit: usize) -> Result<Vec<(u64, Entry)>, IndexError> {
    let PageRequest { id, reach: kept, tail_begin, tail, range, .. } = request;
    let in_tail = |number: u64| Some((number, *tail.get(usize::try_from(number.checked_sub(*tail_begin)?).ok()?)?));
    if range.is_backward {
        let newest: Vec<_> =
            (kept.start.max(*tail_begin)..begin.min(kept.end)).rev().map_while(in_tail).take(limit).collect();
        if newest.len() == limit {
            return Ok(newest);
        }
        let older = index.entries(*id, begin.min(*tail_begin), true, limit - newest.len())?;
        let older = older.into_iter().take_while(|(number, _)| *number >= kept.start);
        return Ok(newest.into_iter().chain(older).take(limit).collect());
    }
    let begin = begin.max(kept.start);
    let mut found = Vec::new();
    if begin < *tail_begin {
        found = index.entries(*id, begin, false, limit)?;
        found.retain(|(number, _)| number < tail_begin);
        found.truncate(limit);
    }
    if fault!("page-without-tail") && begin < *tail_begin {
        return Ok(found);
    }
    let next = found.last().map_or(begin, |(number, _)| number + 1).max(*tail_begin);
    found.extend((next..kept.end).map_while(in_tail).take(limit - found.len()));
    Ok(found)
}

/// Returns how many of the first entries are read together.
fn together(entries: &[(u64, Entry)]) -> usize {
    let Some(((_, first), later)) = entries.split_first() else { return 0 };
    let mut range = first.offset..first.end();
    let is_near = |(_, entry): &&(u64, Entry)| {
        let whole = range.start.min(entry.offset)..range.end.max(entry.end());
        let gap = entry.offset.saturating_sub(range.end).max(range.start.saturating_sub(entry.end()));
        let is_near =
            entry.segment == first.segment && gap <= READ_GAP_MAX && whole.end - whole.start <= READ_BYTES_MAX;
        if is_near {
            range = whole;
        }
        is_near
    };
    1 + later.iter().take_while(is_near).count()
}

fn message(bytes: &[u8], salt: Salt, id: ChannelId, number: u64) -> Option<Message> {
    match read_record(bytes, salt)? {
        Record::Message { channel, number: found, message } if (channel, found) == (id, number) => Some(message),
        _ => None,
    }
}
