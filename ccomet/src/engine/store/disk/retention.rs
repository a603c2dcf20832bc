//! Retention, on the thread of the checkpoints: segments of which nothing is kept are removed,
//! those of which little is kept are written again, and channels that no loop has in memory lose
//! their old messages.
//!
//! Only the loop of a channel drops messages of it. So this module finds what is to be dropped, and
//! sends it to the loops; the next checkpoint writes it to the index.

use std::collections::{BTreeMap, BTreeSet};

use sealed::fault;
use tracing::{error, info, warn};

use super::events::Event;
use super::index::{ChannelRow, Index, IndexError, Moved, guarded, row_damage};
use super::log::{AppendError, Segment, segment_name, segments};
use super::opening::try_lock_index;
use super::places::{Entry, SegmentId};
use super::record::{ChannelId, FRAME_HEADER_BYTES, Record};
use super::settings::StoreSettings;
use super::shared::{DiskState, SharedStore, lock, read_lock};
use crate::core::time::UnixMillis;

/// The number of channels that are visited after a checkpoint.
const VISITED_MAX: usize = 10_000;

/// The number of entries that are looked at for old messages of a channel.
const LOOKED_AT: usize = 64;

/// A segment is written again if less than this share of it, in percent, is kept. After a
/// checkpoint, one segment is written again, and others as long as that takes less than what
/// publishers have written since the last time: so the log does not grow.
pub(super) const KEPT_MIN: u64 = 50;

/// A segment is not written again if, since the last look at it, it has lost more than this share
/// of what it had, in percent: the rest may go soon by itself. That does not count if the log is
/// larger than twice what is kept and some segments, or than half of its limit.
const LOSS_MAX: u64 = 25;

/// The segments that the log may have in addition to twice what is kept.
const SPARE_SEGMENTS: u64 = 4;

/// The bytes of a frame of moved messages: the writer waits while it is written.
pub(super) const MOVED_BYTES_MAX: usize = 1024 * 1024;

/// Messages that a channel is to drop.
#[derive(Debug)]
pub(super) struct Relief {
    pub(super) id: ChannelId,
    /// The channel as the index has it.
    pub(super) row: ChannelRow,
    pub(super) drops: Drops,
}

/// What a channel is to drop.
#[derive(Debug)]
pub(super) enum Drops {
    /// The messages from the first on of which these are the bytes that count against the limit of
    /// the history.
    Oldest(Vec<u32>),
    /// All messages.
    All,
    /// The channel, since nothing of it has been kept for long.
    Channel,
}

/// The segments at the last look for one to write again.
#[derive(Debug, Default)]
pub(super) struct Compacted {
    /// The last segment that was written again.
    last: SegmentId,
    /// The bytes of each segment that were kept.
    kept: BTreeMap<SegmentId, u64>,
    /// The bytes that publishers had written.
    written: u64,
}

/// Returns the row of a channel, unless it is damaged: then its messages stay where they are.
fn readable_row(index: &Index, id: ChannelId) -> Result<Option<ChannelRow>, IndexError> {
    match index.row(id) {
        Err(error) if row_damage(&error).is_some() => Ok(None),
        other => other,
    }
}

/// The messages of a segment that are kept.
type Live = BTreeMap<ChannelId, Vec<(u64, Entry)>>;

impl SharedStore {
    /// Keeps the disk within its limits after the checkpoint of that number, which ends before
    /// segment `end`: removes segments of which nothing is kept, and lets channels drop messages.
    pub(super) fn relieve(&self, checkpoint: u64, end: SegmentId, now: UnixMillis) {
        // A backup that copies the index holds the lock.
        let Ok(_lock) = try_lock_index(&self.directory) else { return };
        self.remove_dead_segments(end);
        if let Err(error) = guarded(|| self.reliefs(end, now)).map(|reliefs| self.send(checkpoint, reliefs)) {
            error!("cannot look for old messages in the store: {error}");
        }
    }

    /// Writes the messages of segments before `end` again of which little is kept.
    pub(super) fn compact_after(&self, end: SegmentId) {
        let Ok(_lock) = try_lock_index(&self.directory) else { return };
        match self.state() {
            DiskState::Good if !self.is_rescuing() => {
                self.end_rescue();
                if let Err(error) = guarded(|| self.compact(end)) {
                    error!("cannot move messages of the store to another segment: {error}");
                }
            }
            DiskState::Good | DiskState::Full => {
                if let Err(error) = guarded(|| self.rescue(end)) {
                    self.rescue_failed(&error);
                }
            }
            DiskState::Failed => {}
        }
    }

    fn send(&self, checkpoint: u64, reliefs: Vec<Relief>) {
        if reliefs.is_empty() {
            return;
        }
        self.force_checkpoint();
        let mut by_loop: BTreeMap<usize, Vec<Relief>> = BTreeMap::new();
        for relief in reliefs {
            by_loop.entry(relief.row.name.shard(self.loops())).or_default().push(relief);
        }
        for (to, reliefs) in by_loop {
            self.post(to, Event::Relieve { checkpoint, reliefs });
        }
    }

    /// Returns what is to be dropped: because the log is too large, or because it is too old.
    fn reliefs(&self, end: SegmentId, now: UnixMillis) -> Result<Vec<Relief>, IndexError> {
        let mut drops: BTreeMap<ChannelId, Relief> = BTreeMap::new();
        for segment in self.excess(end)? {
            let live = match Segment::read(&self.directory, segment) {
                Ok(read) => self.live(segment, &read)?,
                Err(error) => {
                    warn!("cannot read segment {segment} of the store: {error}");
                    continue;
                }
            };
            info!("the store exceeds store.bytes_max: its oldest messages, of {} channels, are dropped", live.len());
            for (id, entries) in live {
                let before = entries.last().map_or(0, |(number, _)| number + 1);
                if let Some(relief) = self.relief(id, before)? {
                    drops.insert(id, relief);
                }
            }
        }
        let from = *lock(&self.visited);
        let rows = read_lock(&self.index).rows_after(from, VISITED_MAX)?;
        *lock(&self.visited) = if rows.len() < VISITED_MAX { 0 } else { rows.last().map_or(0, |(id, _)| *id) };
        for (id, row) in rows {
            if let Some(relief) = self.outdated(id, row, now)?
                && !drops.contains_key(&id)
            {
                drops.insert(id, relief);
            }
        }
        Ok(drops.into_values().collect())
    }

    fn relief(&self, id: ChannelId, before: u64) -> Result<Option<Relief>, IndexError> {
        let index = read_lock(&self.index);
        let Some(row) = readable_row(&index, id)?.filter(|row| row.first < before) else { return Ok(None) };
        let count = usize::try_from(before - row.first).unwrap_or(usize::MAX);
        let dropped = index.entries(id, row.first, false, count)?;
        let dropped = dropped.iter().take_while(|(number, _)| *number < before);
        let drops = Drops::Oldest(dropped.map(|(_, entry)| entry.cost).collect());
        Ok(Some(Relief { id, row, drops }))
    }

    /// Returns what a channel has to drop because of its age.
    fn outdated(&self, id: ChannelId, row: ChannelRow, now: UnixMillis) -> Result<Option<Relief>, IndexError> {
        // The log does not have the time of a channel that no loop has trimmed yet.
        let times = self.times();
        let kept_for = row.kept_for.min(times.kept_for);
        let not_before = now.minus(kept_for);
        if row.first == row.next {
            let is_removed = now.saturating_since(row.used) > times.idle.saturating_add(kept_for);
            return Ok(is_removed.then_some(Relief { id, row, drops: Drops::Channel }));
        }
        if row.used < not_before {
            return Ok(Some(Relief { id, row, drops: Drops::All }));
        }
        let oldest = read_lock(&self.index).entries(id, row.first, false, LOOKED_AT)?;
        let old = oldest.iter().take_while(|(_, entry)| entry.time < not_before);
        let costs: Vec<u32> = old.map(|(_, entry)| entry.cost).collect();
        Ok((!costs.is_empty()).then_some(Relief { id, row, drops: Drops::Oldest(costs) }))
    }

    /// Returns the oldest segments, by which the log exceeds its limit. A segment that will be
    /// written again counts with what is kept of it, unless the log is larger than its limit and
    /// what may be written until the next checkpoints.
    fn excess(&self, end: SegmentId) -> Result<Vec<SegmentId>, IndexError> {
        let kept = read_lock(&self.index).segments()?;
        let lengths = self.lengths();
        let sum = |lengths: &[(SegmentId, u64)]| lengths.iter().map(|(_, length)| length).sum::<u64>();
        let total = sum(&lengths);
        *lock(&self.measured) = Some((lengths.len() as u64, total));
        let StoreSettings { bytes_max, segment_bytes, checkpoint_bytes, .. } = self.settings;
        let is_beyond = total > bytes_max.saturating_add(2 * (u64::from(segment_bytes) + checkpoint_bytes));
        let counted = |(id, length): (SegmentId, u64)| {
            let kept = kept.get(&id).copied().unwrap_or(0);
            let is_sparse = id < end && kept * 100 < length * KEPT_MIN;
            (id, if is_sparse && !is_beyond { kept } else { length })
        };
        let counted: Vec<_> = lengths.into_iter().map(counted).collect();
        let (mut left, mut excess) = (sum(&counted), Vec::new());
        for (id, length) in counted.into_iter().filter(|(id, _)| *id < end) {
            if left <= bytes_max {
                break;
            }
            left -= length;
            excess.push(id);
        }
        Ok(excess)
    }

    /// Returns the segments with their lengths, in order.
    pub(super) fn lengths(&self) -> Vec<(SegmentId, u64)> {
        let length = |id: SegmentId| (id, self.segment(id).and_then(|file| file.len()).unwrap_or(0));
        segments(&self.directory).unwrap_or_default().into_iter().map(length).collect()
    }

    /// Finds the messages of a segment that are kept.
    fn live(&self, segment: SegmentId, read: &Segment) -> Result<Live, IndexError> {
        let mut numbers: BTreeMap<ChannelId, BTreeSet<u64>> = BTreeMap::new();
        read.each_record(self.salt, |_, _, record| {
            if let Record::Message { channel, number, .. } = record {
                numbers.entry(channel).or_default().insert(number);
            }
        });
        let index = read_lock(&self.index);
        let mut live = Live::new();
        for (id, numbers) in numbers {
            let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { continue };
            let Some(row) = readable_row(&index, id)?.filter(|row| row.first <= *last) else { continue };
            let begin = row.first.max(*first);
            let count = usize::try_from(last - begin).unwrap_or(usize::MAX).saturating_add(1);
            let mut entries = index.entries(id, begin, false, count)?;
            entries.retain(|(number, entry)| numbers.contains(number) && entry.segment == segment);
            if !entries.is_empty() {
                live.insert(id, entries);
            }
        }
        Ok(live)
    }

    /// Writes the messages of segments again of which little is kept.
    fn compact(&self, end: SegmentId) -> Result<(), IndexError> {
        let (_, written) = self.written();
        let mut allowed = {
            let before = std::mem::replace(&mut lock(&self.compacted).written, written);
            (written - before).max(1)
        };
        for segment in self.sparse(end)? {
            if allowed == 0 || self.state() != DiskState::Good {
                break;
            }
            lock(&self.compacted).last = segment;
            allowed = allowed.saturating_sub(self.write_again(segment)?.max(1));
        }
        Ok(())
    }

    /// Returns the segments of which little is kept, in turn: a segment whose messages cannot be
    /// read does not keep others waiting.
    fn sparse(&self, end: SegmentId) -> Result<Vec<SegmentId>, IndexError> {
        let kept = read_lock(&self.index).segments()?;
        let lengths: BTreeMap<SegmentId, u64> = self.lengths().into_iter().collect();
        let is_sparse = |(id, bytes): &(&SegmentId, &u64)| {
            **id < end && **bytes * 100 < lengths.get(id).copied().unwrap_or(0) * KEPT_MIN
        };
        let (last, before) = {
            let mut compacted = lock(&self.compacted);
            (compacted.last, std::mem::replace(&mut compacted.kept, kept.clone()))
        };
        let total: u64 = lengths.values().sum();
        let is_large = total > 2 * kept.values().sum::<u64>() + SPARE_SEGMENTS * u64::from(self.settings.segment_bytes);
        let is_crowded = is_large || total > self.settings.bytes_max / 2;
        let is_settled = |(id, bytes): &(&SegmentId, &u64)| {
            is_crowded || before.get(id).is_some_and(|before| **bytes * 100 >= before * (100 - LOSS_MAX))
        };
        let in_turn = kept.range(last + 1..).chain(kept.range(..=last)).filter(is_settled).filter(is_sparse);
        Ok(in_turn.map(|(segment, _)| *segment).collect())
    }

    /// Writes the messages of a segment again that are kept. Returns their bytes.
    pub(super) fn write_again(&self, segment: SegmentId) -> Result<u64, IndexError> {
        let Ok(read) = Segment::read(&self.directory, segment) else { return Ok(0) };
        let live = self.live(segment, &read)?;
        let mut moves: Vec<Moved> = Vec::new();
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        let all = live.into_iter().flat_map(|(id, entries)| entries.into_iter().map(move |entry| (id, entry)));
        let mut first_of_frame = 0;
        for (id, (number, from)) in all {
            let Some(record) = read.bytes(from.offset as usize, from.length as usize) else { continue };
            let offset = frame.len() as u32;
            frame.extend_from_slice(record);
            moves.push(Moved { id, number, from, to: Entry { offset, ..from } });
            if frame.len() >= MOVED_BYTES_MAX {
                if !self.append_moved(&mut frame, &mut moves[first_of_frame..]) {
                    moves.truncate(first_of_frame);
                    break;
                }
                first_of_frame = moves.len();
            }
        }
        if frame.len() > FRAME_HEADER_BYTES && !self.append_moved(&mut frame, &mut moves[first_of_frame..]) {
            moves.truncate(first_of_frame);
        }
        if moves.is_empty() {
            return Ok(0);
        }
        self.move_places(&moves)?;
        Ok(moves.iter().map(|moved| u64::from(moved.to.length)).sum())
    }

    /// Appends a frame of moved messages, and notes their places. Returns whether it is kept.
    fn append_moved(&self, frame: &mut Vec<u8>, moves: &mut [Moved]) -> bool {
        let appended = {
            let mut log = lock(&self.log);
            let appended = log.append(frame, self.state() != DiskState::Full);
            appended.and_then(|place| log.sync().map(|()| place).map_err(AppendError::Failed))
        };
        if let Err(error @ AppendError::Failed(_)) = &appended {
            self.note_state(Some(error));
        }
        frame.truncate(FRAME_HEADER_BYTES);
        let Ok((segment, begin)) = appended else { return false };
        for moved in moves {
            moved.to = Entry { segment, offset: begin + moved.to.offset, ..moved.to };
        }
        true
    }

    /// Removes the segments before `end` of which nothing is kept.
    pub(super) fn remove_dead_segments(&self, end: SegmentId) {
        let (Ok(kept), Ok(segments)) = (guarded(|| read_lock(&self.index).segments()), segments(&self.directory))
        else {
            return;
        };
        for id in segments.into_iter().filter(|id| *id < end || fault!("segment-removed-too-early")) {
            if kept.contains_key(&id) {
                continue;
            }
            if let Err(error) = self.directory.remove(&segment_name(id)) {
                warn!("cannot remove segment {id} of the store: {error}");
            }
            self.forget_segment(id);
        }
    }
}
