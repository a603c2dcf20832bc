//! Checkpoints: each loop hands over what has changed in its channels, and a thread writes it to
//! the index, in one transaction with the place up to which the log is in the index.
//!
//! A loop hands over its changes after it has processed the events of all frames before that place.
//! It keeps the places of these messages until the checkpoint is written.

use std::sync::Arc;
use std::time::Duration;

use sealed::fault;
use tracing::{error, info};

use super::events::Event;
use super::index::{IndexError, LogPosition, StoreState, Updates, row_damage};
use super::log::AppendError;
use super::opening::try_lock_index;
use super::places::SegmentId;
use super::reading::SegmentUnreadable;
use super::reserve::release_reserve;
use super::room::Backoff;
use super::shared::{DiskState, SharedStore, lock, read_lock, write_lock};
use crate::core::position::Epoch;
use crate::core::time::{LoopTime, UnixMillis};

/// The checkpoint that is in progress, or the last one.
#[derive(Debug)]
pub(super) struct Checkpoint {
    number: u64,
    stage: Stage,
    /// All before this place is in the index once it is written.
    position: LogPosition,
    /// What each loop has handed over.
    parts: Vec<Option<Updates>>,
    last_epoch: Epoch,
    now: UnixMillis,
    /// The bytes written to the log when the last checkpoint was begun.
    bytes_before: u64,
    /// Set if there is something to write although nothing was published.
    is_forced: bool,
    /// Set if the index is to be opened again first.
    reopens_index: bool,
    /// Set if the last attempt to write a checkpoint has failed.
    has_failed: bool,
    /// When the next attempt is made if the disk is full.
    backoff: Backoff,
    /// The segment in which the last checkpoint ends that was written.
    written: SegmentId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    /// The loops hand over their changes.
    Gathering,
    Writing,
    /// The changes could not be written, and wait for another attempt.
    Failed,
}

impl Checkpoint {
    pub(super) fn new(loops: usize, position: LogPosition) -> Self {
        Self {
            number: 0,
            stage: Stage::Idle,
            position,
            parts: vec![None; loops],
            last_epoch: Epoch(0),
            now: UnixMillis::default(),
            bytes_before: 0,
            is_forced: false,
            reopens_index: false,
            has_failed: false,
            backoff: Backoff::default(),
            written: position.segment,
        }
    }

    /// Notes that the checkpoint could not be written. Logs the first failure.
    fn note_failure(&mut self, error: &dyn std::fmt::Display) {
        self.backoff.failed();
        if !std::mem::replace(&mut self.has_failed, true) {
            error!("cannot write a checkpoint of the store, which is tried again: {error}");
        }
    }

    fn note_success(&mut self) {
        self.backoff = Backoff::default();
        if std::mem::take(&mut self.has_failed) {
            info!("checkpoints of the store are written again");
        }
    }
}

/// The changes of a loop for a checkpoint.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) number: u64,
    pub(super) updates: Updates,
    pub(super) last_epoch: Epoch,
    pub(super) now: UnixMillis,
}

impl SharedStore {
    /// Begins a checkpoint if the log has grown enough since the last one.
    pub(super) fn checkpoint_if_due(self: &Arc<Self>) {
        let (_, written) = self.written();
        let is_due = {
            let checkpoint = lock(&self.checkpoint);
            let grown = written - checkpoint.bytes_before;
            // A checkpoint that has failed is tried again from time to time.
            grown >= self.settings.checkpoint_bytes && checkpoint.stage != Stage::Failed
        };
        if is_due {
            self.begin_checkpoint();
        }
    }

    /// Returns whether the index cannot be read, and whether the last checkpoint could not be
    /// written.
    pub(super) fn index_problems(&self) -> (bool, bool) {
        let checkpoint = lock(&self.checkpoint);
        (checkpoint.reopens_index, checkpoint.has_failed)
    }

    /// Begins the next checkpoint also if nothing was published.
    pub(super) fn force_checkpoint(&self) {
        lock(&self.checkpoint).is_forced = true;
    }

    /// Returns whether a checkpoint is being written.
    pub(super) fn is_writing_checkpoint(&self) -> bool {
        lock(&self.checkpoint).stage == Stage::Writing
    }

    /// Begins a checkpoint on a full disk. If the last one has failed, it is tried again less and
    /// less often, as long as the disk has no room.
    pub(super) fn checkpoint_on_full_disk(self: &Arc<Self>, has_room: bool) {
        {
            let mut checkpoint = lock(&self.checkpoint);
            checkpoint.is_forced = true;
            if checkpoint.stage == Stage::Failed && !has_room && !checkpoint.backoff.is_due() {
                return;
            }
        }
        self.begin_checkpoint();
    }

    /// Notes that the index could not be read. The database reads nothing more then, until it is
    /// opened again.
    pub(super) fn index_failed(&self, error: &IndexError) {
        if SegmentUnreadable::is_cause_of(error) || row_damage(error).is_some() {
            // Only what is in the segment, or what the row is about, cannot be read.
            return;
        }
        let mut checkpoint = lock(&self.checkpoint);
        checkpoint.is_forced = true;
        if !std::mem::replace(&mut checkpoint.reopens_index, true) {
            drop(checkpoint);
            error!("cannot read from the store: {error}");
        }
    }

    /// Looks for old messages after the last checkpoint, if none is in progress.
    pub(super) fn retain_soon(self: &Arc<Self>, now: UnixMillis) {
        let shared = self.clone();
        let _ = self.crews.keeper.spawn(move || {
            let (number, end) = {
                let checkpoint = lock(&shared.checkpoint);
                if checkpoint.stage != Stage::Idle {
                    return;
                }
                (checkpoint.number, checkpoint.position.segment)
            };
            shared.relieve(number, end, now);
            shared.compact_after(end);
        });
    }

    /// Begins a checkpoint, unless one is in progress or there is nothing to write. Tries again if
    /// the last one has failed. Returns whether a checkpoint is in progress.
    pub(super) fn begin_checkpoint(self: &Arc<Self>) -> bool {
        let (position, written) = self.written();
        let mut checkpoint = lock(&self.checkpoint);
        match checkpoint.stage {
            Stage::Idle if checkpoint.bytes_before != written || checkpoint.is_forced => {
                checkpoint.number += 1;
                checkpoint.is_forced = false;
                checkpoint.stage = Stage::Gathering;
                checkpoint.position = position;
                checkpoint.bytes_before = written;
                drop(checkpoint);
                (0..self.loops()).for_each(|to| self.wake(to));
            }
            Stage::Failed => {
                checkpoint.stage = Stage::Writing;
                drop(checkpoint);
                self.start_checkpoint();
            }
            Stage::Idle => return false,
            Stage::Gathering | Stage::Writing => {}
        }
        true
    }

    /// Returns the number of the checkpoint that waits for a loop's changes.
    pub(super) fn wanted_checkpoint(&self, index: usize) -> Option<u64> {
        let checkpoint = lock(&self.checkpoint);
        let is_missing = || checkpoint.parts.get(index).is_some_and(Option::is_none);
        (checkpoint.stage == Stage::Gathering && is_missing()).then_some(checkpoint.number)
    }

    /// Takes the changes of a loop. The last loop starts the writing.
    pub(super) fn hand_over(self: &Arc<Self>, index: usize, changes: HandedOver) {
        let HandedOver { number, updates, last_epoch, now } = changes;
        {
            let mut checkpoint = lock(&self.checkpoint);
            if checkpoint.number != number {
                return;
            }
            checkpoint.last_epoch = checkpoint.last_epoch.max(last_epoch);
            checkpoint.now = checkpoint.now.max(now);
            if let Some(part) = checkpoint.parts.get_mut(index) {
                *part = Some(updates);
            }
            if checkpoint.parts.iter().any(Option::is_none) {
                return;
            }
            checkpoint.stage = Stage::Writing;
        }
        self.start_checkpoint();
    }

    fn start_checkpoint(self: &Arc<Self>) {
        let shared = self.clone();
        if let Err(why) = self.crews.keeper.spawn(move || shared.run_checkpoint()) {
            let mut checkpoint = lock(&self.checkpoint);
            checkpoint.stage = Stage::Failed;
            checkpoint.note_failure(&why);
        }
    }

    fn run_checkpoint(&self) {
        let (number, now, state, parts) = {
            let mut checkpoint = lock(&self.checkpoint);
            let mut parts = std::mem::take(&mut checkpoint.parts);
            let Checkpoint { number, position, last_epoch, now, .. } = *checkpoint;
            let state = StoreState { salt: self.salt, position, last_channel: self.last_channel(), last_epoch };
            drop(checkpoint);
            for part in parts.iter_mut().flatten() {
                part.channels.sort_unstable_by_key(|update| update.id);
            }
            (number, now, state, parts)
        };
        let written = self.write_checkpoint(&state, &parts, now.minus(self.times().key_age));
        if written.is_ok() {
            // Before another checkpoint can begin: a loop would take this event for the end of
            // that.
            (0..self.loops()).for_each(|to| self.post(to, Event::Checkpointed));
        }
        let mut checkpoint = lock(&self.checkpoint);
        if let Err(error) = written {
            (checkpoint.parts, checkpoint.stage) = (parts, Stage::Failed);
            checkpoint.note_failure(&*error);
            return;
        }
        checkpoint.note_success();
        checkpoint.written = state.position.segment;
        checkpoint.parts.resize(self.loops(), None);
        drop(checkpoint);
        // Before another checkpoint can begin: what it finds would be out of date.
        self.relieve(number, state.position.segment, now);
        self.keep_reserve();
        lock(&self.checkpoint).stage = Stage::Idle;
        self.compact_after(state.position.segment);
    }

    fn write_checkpoint(
        &self,
        state: &StoreState,
        parts: &[Option<Updates>],
        keys_from: UnixMillis,
    ) -> Result<(), Box<dyn std::error::Error>> {
        // A backup that copies the index holds the lock; the next attempt writes the checkpoint.
        let _lock = try_lock_index(&self.directory).map_err(|_| "a backup copies the index")?;
        if !fault!("checkpoint-before-log") {
            let synced = lock(&self.log).sync().map_err(AppendError::Failed);
            if let Err(error) = synced {
                self.note_state(Some(&error));
                return Err("the log cannot be synced".into());
            }
        }
        if self.state() == DiskState::Full && read_lock(&self.index).is_on_disk() {
            // The loops have handed over: none knows places that the last checkpoint did not have.
            let end = lock(&self.checkpoint).written;
            self.remove_dead_segments(end);
        }
        let parts: Vec<&Updates> = parts.iter().flatten().collect();
        if std::mem::take(&mut lock(&self.checkpoint).reopens_index) {
            write_lock(&self.index).reopen(self.settings.cache_bytes)?;
        }
        let mut written = read_lock(&self.index).write(state, &parts, keys_from);
        if written.is_err() {
            release_reserve(&self.directory);
            // After an error, the database has to be opened again.
            let mut index = write_lock(&self.index);
            index.reopen(self.settings.cache_bytes)?;
            written = index.write(state, &parts, keys_from);
        }
        Ok(written?)
    }

    /// Opens the index again if it could not be read, as long as that fails.
    pub(super) fn mend_soon(self: &Arc<Self>) {
        if !lock(&self.checkpoint).reopens_index {
            return;
        }
        let shared = self.clone();
        // If this is refused, a checkpoint is in progress, which does the same.
        let _ = self.crews.keeper.spawn(move || {
            if !lock(&shared.checkpoint).reopens_index {
                return;
            }
            let index_lock = try_lock_index(&shared.directory);
            let mut index = write_lock(&shared.index);
            // Without the lock, which a backup may hold, the index must not be written.
            let _ = match index_lock {
                Ok(_lock) => index.reopen(shared.settings.cache_bytes),
                Err(_) => index.reopen_read_only(shared.settings.cache_bytes),
            };
            let is_open = index.is_open();
            drop(index);
            if is_open {
                lock(&shared.checkpoint).reopens_index = false;
                info!("the index of the store can be read again");
            }
        });
    }
}

/// The time of a loop's next attempt to begin a checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NextTime(Option<LoopTime>);

impl NextTime {
    /// Returns whether the interval has passed.
    pub(super) fn is_due(&mut self, now: LoopTime, interval: Duration) -> bool {
        match self.0 {
            Some(at) if at > now => false,
            earlier => {
                self.0 = Some(now.plus(interval));
                earlier.is_some()
            }
        }
    }
}
