//! A full disk: publications are refused, and the store looks each second whether there is room
//! again. It makes room by itself if little is kept of segments, and keeps changes that free room.
//!
//! What is kept of the sparsest segments is written to one small segment, for which the store gives
//! its reserve up if nothing else is left. The next checkpoint removes the segments, and makes the
//! reserve again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sealed::fault;
use tracing::warn;

use super::index::{IndexError, Moved};
use super::log::{AppendError, Log, is_full};
use super::places::SegmentId;
use super::record::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::reserve::{make_reserve, release_reserve, reserve_bytes};
use super::retention::{KEPT_MIN, MOVED_BYTES_MAX};
use super::shared::{DiskState, SharedStore, lock, read_lock, write_lock};

/// The looks at a full disk, one each second, between two attempts at most.
const LOOKS_MAX: u32 = 60;

/// The number of segments whose messages are moved at a time at most.
const MOVED_SEGMENTS_MAX: usize = 64;

/// The number of times that messages are moved after the disk has room again at most. So the next
/// publications do not fill it at once.
const MOVES_AFTER: u32 = 8;

/// The share of the reserve, in percent, that moved messages may take. The index needs the rest.
const RESERVE_USED_MAX: u64 = 75;

/// The looks at a full disk until something that has failed is tried again: twice as many after
/// each failure.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    /// The looks that are left out before the next attempt.
    left: u32,
}

impl Backoff {
    pub(super) fn failed(&mut self) {
        self.left = (1 << self.failures.min(LOOKS_MAX.ilog2() + 1)).min(LOOKS_MAX) - 1;
        self.failures = self.failures.saturating_add(1);
    }

    /// Returns whether this look is one at which to try.
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = self.left == 0 || fault!("failed-checkpoint-tried-each-second");
        self.left = self.left.saturating_sub(1);
        is_due
    }
}

/// What the store has tried to make room on a full disk.
#[derive(Debug, Default)]
pub(super) struct Rescue {
    backoff: Backoff,
    has_failed: bool,
    /// The number of times that messages are still moved although the disk has room.
    moves_left: u32,
    /// The segments whose messages could not be moved.
    unmoved: BTreeSet<SegmentId>,
}

/// A segment of which little is kept.
#[derive(Debug, Clone, Copy)]
struct Sparse {
    id: SegmentId,
    kept: u64,
    length: u64,
}

impl Sparse {
    /// Returns the bytes of the frames with what is kept.
    fn frames(self) -> u64 {
        self.kept + (self.kept / MOVED_BYTES_MAX as u64 + 1) * FRAME_HEADER_BYTES as u64
    }
}

/// Picks segments, in their order, of which so many bytes have what is kept. Returns also the bytes
/// that all of them take.
fn picked(sparse: &[Sparse], mut bytes: u64) -> (Vec<SegmentId>, u64) {
    let (mut ids, mut gained) = (Vec::new(), 0);
    for segment in sparse {
        if let Some(left) = bytes.checked_sub(segment.frames()) {
            bytes = left;
            ids.push(segment.id);
            gained += segment.length;
        }
    }
    (ids, gained)
}

impl SharedStore {
    /// Looks whether a full disk has room again and, at the first call, whether the disk is full.
    pub(super) fn look_for_room(self: &Arc<Self>) {
        let is_first = !self.has_looked.swap(true, Ordering::Relaxed);
        let is_full = self.state() == DiskState::Full && !fault!("full-until-publication");
        if !is_first && !is_full {
            if self.is_rescuing() {
                self.force_checkpoint();
                self.begin_checkpoint();
            }
            return;
        }
        let shared = self.clone();
        // If this is refused, the writer is busy. Then the next call looks or, if this was the
        // first, the writer finds out.
        let _ = self.crews.writer.spawn(move || {
            if is_full && shared.is_writing_checkpoint() {
                // It may be using the room of the reserve.
                return;
            }
            let made = if is_full { shared.make_room() } else { lock(&shared.log).probe() };
            if is_full || made.is_err() {
                shared.note_state(made.as_ref().err());
            }
            if is_full {
                // What is kept no more goes at the next checkpoint.
                shared.checkpoint_on_full_disk(made.is_ok());
            }
        });
    }

    /// Begins the next segment if there is room for it in addition to the reserve.
    fn make_room(&self) -> Result<(), AppendError> {
        let mut log = lock(&self.log);
        match make_reserve(&self.directory, self.settings.segment_bytes) {
            Err(error) if is_full(&error) && !fault!("publications-take-reserve") => Err(AppendError::Full(error)),
            _ => log.make_room(),
        }
    }

    /// Appends a frame of changes that free room, for which there was none, to a small segment.
    pub(super) fn append_relief(&self, log: &mut Log, frame: &mut [u8]) -> Result<(SegmentId, u32), AppendError> {
        let appended = log.append_small(frame);
        if !matches!(appended, Err(AppendError::Full(_))) {
            return appended;
        }
        release_reserve(&self.directory);
        log.append_small(frame)
    }

    /// Writes what is kept of segments before `end` again, to make room on a full disk.
    pub(super) fn rescue(&self, end: SegmentId) -> Result<(), IndexError> {
        if fault!("full-disk-not-compacted") || !lock(&self.rescue).backoff.is_due() {
            return Ok(());
        }
        let sparse = self.sparsest(end)?;
        let (ids, is_full) = (self.begin_moves(&sparse), self.state() == DiskState::Full);
        {
            let mut rescue = lock(&self.rescue);
            rescue.moves_left = if is_full { MOVES_AFTER } else { rescue.moves_left.saturating_sub(1) };
            if ids.is_empty() {
                rescue.moves_left = 0;
                return Ok(());
            }
        }
        for id in &ids {
            self.write_again(*id)?;
        }
        // It removes the segments.
        self.force_checkpoint();
        let kept = read_lock(&self.index).segments()?;
        let mut rescue = lock(&self.rescue);
        rescue.unmoved.extend(ids.iter().filter(|id| kept.contains_key(id)));
        (rescue.backoff, rescue.has_failed) = (Backoff::default(), false);
        Ok(())
    }

    /// Notes that no room could be made. Logs the first failure.
    pub(super) fn rescue_failed(&self, error: &IndexError) {
        let mut rescue = lock(&self.rescue);
        rescue.backoff.failed();
        rescue.moves_left = 0;
        if !std::mem::replace(&mut rescue.has_failed, true) {
            warn!("the store cannot make room on its full disk, because its index cannot be written: {error}");
        }
    }

    /// Returns whether messages are still moved after the disk was full.
    pub(super) fn is_rescuing(&self) -> bool {
        lock(&self.rescue).moves_left > 0
    }

    /// Forgets what was tried, because the disk has room.
    pub(super) fn end_rescue(&self) {
        *lock(&self.rescue) = Rescue::default();
    }

    /// Returns the segments before `end` of which least is kept, in this order.
    fn sparsest(&self, end: SegmentId) -> Result<Vec<Sparse>, IndexError> {
        let kept = read_lock(&self.index).segments()?;
        let sparse = |(id, length): (SegmentId, u64)| Some(Sparse { id, kept: *kept.get(&id)?, length });
        let mut all: Vec<Sparse> = self.lengths().into_iter().filter_map(sparse).collect();
        let rescue = lock(&self.rescue);
        all.retain(|segment| {
            segment.id < end && segment.kept * 100 < segment.length * KEPT_MIN && !rescue.unmoved.contains(&segment.id)
        });
        all.sort_by_key(|segment| segment.kept.saturating_mul(10_000) / segment.length.max(1));
        all.truncate(MOVED_SEGMENTS_MAX);
        Ok(all)
    }

    /// Makes room in the log for what is kept of some of these segments: in what is left of the
    /// last segment, in a new one or, at last, in a small one instead of the reserve. Returns these
    /// segments, or nothing if no room can be made or none would be gained.
    fn begin_moves(&self, sparse: &[Sparse]) -> Vec<SegmentId> {
        let mut log = lock(&self.log);
        let (ids, _) = picked(sparse, log.room_left().into());
        if !ids.is_empty() {
            return ids;
        }
        self.begin_segment_of(&mut log, sparse, false)
            .or_else(
                || if self.state() == DiskState::Full { self.begin_segment_of(&mut log, sparse, true) } else { None },
            )
            .unwrap_or_default()
    }

    /// Begins a segment for what is kept of some of these segments, instead of the reserve if that
    /// is used. Returns these segments.
    fn begin_segment_of(&self, log: &mut Log, sparse: &[Sparse], uses_reserve: bool) -> Option<Vec<SegmentId>> {
        let reserve_max = u64::from(reserve_bytes(self.settings.segment_bytes)) * RESERVE_USED_MAX / 100;
        let mut size_max = if uses_reserve { reserve_max } else { u64::MAX };
        for (begin, first) in sparse.iter().enumerate() {
            let mut sizes = log.sizes(u32::try_from(first.frames()).unwrap_or(u32::MAX));
            if uses_reserve {
                sizes.drain(..sizes.len() - 1);
            }
            for size in sizes {
                let (ids, gained) = picked(&sparse[begin..], u64::from(size) - SEGMENT_HEADER_BYTES as u64);
                if ids.is_empty() || gained <= size.into() || u64::from(size) > size_max {
                    continue;
                }
                if uses_reserve {
                    release_reserve(&self.directory);
                }
                match log.begin_segment(size) {
                    Ok(()) => return Some(ids),
                    Err(error @ AppendError::Failed(_)) => {
                        self.note_state(Some(&error));
                        return None;
                    }
                    Err(_) if uses_reserve => return None,
                    Err(_) => size_max = u64::from(size) - 1,
                }
            }
        }
        None
    }

    /// Replaces the places of moved messages in the index. If the index cannot be written, it gets
    /// the room of the reserve.
    pub(super) fn move_places(&self, moves: &[Moved]) -> Result<(), IndexError> {
        let moved = read_lock(&self.index).move_places(moves);
        if moved.is_ok() {
            return moved;
        }
        release_reserve(&self.directory);
        // After an error, the database has to be opened again.
        let mut index = write_lock(&self.index);
        index.reopen(self.settings.cache_bytes)?;
        index.move_places(moves)
    }
}
