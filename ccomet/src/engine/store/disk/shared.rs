//! The part of the store that all loops share: the queue of the writer, the log, the index, and the
//! threads that use them. A loop leaves work here and gets events back; it never waits for the
//! disk.
//!
//! One writer serves all loops. It takes all batches that wait and keeps them in one frame: while
//! the disk is busy with one frame, the batches of the next one gather.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sealed::disk::{Directory, File, Lock};
use sealed::{WorkError, Workers, fault};
use tracing::{error, info, warn};

use super::checkpoint::Checkpoint;
use super::events::Event;
use super::index::{Index, LogPosition};
use super::log::{AppendError, Log, segment_name};
use super::places::SegmentId;
use super::record::{ChannelId, FRAME_HEADER_BYTES, Salt};
use super::retention::Compacted;
use super::room::Rescue;
use super::settings::{StoreSettings, StoreTimes};
use crate::core::health::HealthProblem;
use crate::core::position::Epoch;
use crate::core::tally::StoreFigures;
use crate::engine::store::NotKept;
use crate::engine::store::Wake;

/// The maximum number of bytes of a frame, unless a single batch is larger.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The bytes of a batch from which on nothing is added to it.
const BATCH_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// The maximum number of open segments that are kept for reading.
const FILES_MAX: usize = 64;

/// The records that a loop submits in one tick.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) from: usize,
    /// The loop's number of the batch.
    pub(super) number: u64,
    pub(super) records: Vec<u8>,
    /// Set if its changes free room on the disk.
    pub(super) is_relief: bool,
}

/// The threads of a store.
#[derive(Debug, Clone)]
pub(crate) struct Crews {
    /// One thread, which appends to the log.
    pub(crate) writer: Workers,
    /// Threads that read messages.
    pub(crate) readers: Workers,
    /// One thread, which writes checkpoints.
    pub(crate) keeper: Workers,
    /// One thread, which syncs the log at intervals.
    pub(crate) syncer: Workers,
}

/// Whether publications can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskState {
    Good,
    /// There is no room for the next part of the log.
    Full,
    /// Nothing is written any more, until the server is restarted.
    Failed,
}

/// The batches that wait for the writer.
#[derive(Debug)]
struct Queue {
    batches: VecDeque<Batch>,
    is_writing: bool,
    /// The end of the last frame whose events the loops have.
    written: LogPosition,
    /// All bytes that were written.
    bytes_written: u64,
}

/// The events that a loop has not taken yet.
#[derive(Debug, Default)]
struct Inbox {
    events: Mutex<VecDeque<Event>>,
    wake: Mutex<Option<Wake>>,
}

/// The state that all loops share.
#[derive(Debug)]
pub(crate) struct SharedStore {
    pub(super) settings: StoreSettings,
    times: Mutex<StoreTimes>,
    pub(super) directory: Directory,
    pub(super) salt: Salt,
    pub(super) crews: Crews,
    pub(super) index: RwLock<Index>,
    /// The greatest epoch of the channels when the store was opened.
    pub(super) last_epoch: Epoch,
    pub(super) checkpoint: Mutex<Checkpoint>,
    pub(super) log: Mutex<Log>,
    queue: Mutex<Queue>,
    /// The bytes of the batches that wait.
    bytes_waiting: AtomicU64,
    last_channel: AtomicU64,
    files: Mutex<BTreeMap<SegmentId, File>>,
    /// The last channel that retention has visited.
    pub(super) visited: Mutex<ChannelId>,
    pub(super) compacted: Mutex<Compacted>,
    pub(super) rescue: Mutex<Rescue>,
    /// The number of segments and their bytes, after the last checkpoint.
    pub(super) measured: Mutex<Option<(u64, u64)>>,
    /// The messages that cannot be read, which the log of the server has.
    pub(super) reported: Mutex<BTreeSet<(ChannelId, u64)>>,
    /// The segments that could not be read at the last attempt.
    pub(super) unreadable: Mutex<BTreeSet<SegmentId>>,
    inboxes: Vec<Inbox>,
    state: Mutex<DiskState>,
    /// Set once it was looked whether the disk is full.
    pub(super) has_looked: AtomicBool,
    _lock: Option<Lock>,
}

/// What opening a store has found.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) settings: StoreSettings,
    pub(super) directory: Directory,
    pub(super) lock: Lock,
    pub(super) crews: Crews,
    pub(super) index: Index,
    pub(super) log: Log,
    pub(super) salt: Salt,
    pub(super) last_channel: ChannelId,
    pub(super) last_epoch: Epoch,
}

/// Locks a mutex. What it protects is valid after each statement, so that a panic leaves no damage.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn read_lock<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write_lock<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl SharedStore {
    pub(super) fn new(parts: Parts, loops: usize) -> Self {
        let Parts { settings, directory, lock, crews, index, log, salt, last_channel, last_epoch } = parts;
        let written = log.position();
        Self {
            times: Mutex::new(settings.times),
            settings,
            directory,
            salt,
            crews,
            index: RwLock::new(index),
            last_epoch,
            checkpoint: Mutex::new(Checkpoint::new(loops, written)),
            log: Mutex::new(log),
            queue: Mutex::new(Queue { batches: VecDeque::new(), is_writing: false, written, bytes_written: 0 }),
            bytes_waiting: AtomicU64::new(0),
            last_channel: AtomicU64::new(if fault!("channel-number-used-again") { 0 } else { last_channel }),
            files: Mutex::new(BTreeMap::new()),
            visited: Mutex::new(0),
            compacted: Mutex::new(Compacted::default()),
            rescue: Mutex::new(Rescue::default()),
            measured: Mutex::new(None),
            reported: Mutex::new(BTreeSet::new()),
            unreadable: Mutex::new(BTreeSet::new()),
            inboxes: (0..loops).map(|_| Inbox::default()).collect(),
            state: Mutex::new(DiskState::Good),
            has_looked: AtomicBool::new(fault!("full-disk-seen-late")),
            _lock: (!fault!("lock-given-back")).then_some(lock),
        }
    }

    /// Sets how a loop is woken.
    pub(crate) fn set_wake(&self, index: usize, wake: Wake) {
        if let Some(inbox) = self.inboxes.get(index) {
            *lock(&inbox.wake) = Some(wake);
        }
    }

    /// Returns the times of the store.
    pub(super) fn times(&self) -> StoreTimes {
        *lock(&self.times)
    }

    /// Changes the times of the store.
    pub(crate) fn set_times(&self, times: StoreTimes) {
        *lock(&self.times) = times;
    }

    /// Returns the number of a new channel.
    pub(super) fn new_channel(&self) -> ChannelId {
        self.last_channel.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn last_channel(&self) -> ChannelId {
        self.last_channel.load(Ordering::Relaxed)
    }

    /// Returns whether the writer takes more now, in addition to a batch of so many bytes.
    pub(super) fn has_room_after(&self, bytes: usize) -> bool {
        // Places have 32 bits.
        let bytes_max = self.settings.waiting_bytes_max.min(BATCH_BYTES_MAX) as u64;
        self.bytes_waiting.load(Ordering::Relaxed) + (bytes as u64) < bytes_max
    }

    /// Returns the end of the last frame whose events the loops have, and all bytes that were
    /// written.
    pub(super) fn written(&self) -> (LogPosition, u64) {
        let queue = lock(&self.queue);
        (queue.written, queue.bytes_written)
    }

    /// Returns the counts of the store.
    pub(super) fn figures(&self) -> StoreFigures {
        let (_, written_bytes) = self.written();
        let waiting_bytes = self.bytes_waiting.load(Ordering::Relaxed);
        StoreFigures { waiting_bytes, written_bytes, log: *lock(&self.measured) }
    }

    /// Queues a batch for the writer.
    pub(super) fn submit(self: &Arc<Self>, batch: Batch) {
        self.bytes_waiting.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        queue.batches.push_back(batch);
        if std::mem::replace(&mut queue.is_writing, true) {
            return;
        }
        drop(queue);
        let shared = self.clone();
        if let Err(why) = self.crews.writer.spawn(move || shared.write_waiting()) {
            self.refuse_waiting(&why);
        }
    }

    fn refuse_waiting(&self, why: &WorkError) {
        error!("cannot write to the store: {why}");
        let batches = {
            let mut queue = lock(&self.queue);
            queue.is_writing = false;
            std::mem::take(&mut queue.batches)
        };
        for Batch { from, number, records, .. } in batches {
            self.bytes_waiting.fetch_sub(records.len() as u64, Ordering::Relaxed);
            self.post(from, Event::Written { number, place: Err(NotKept::Unavailable) });
        }
    }

    /// Writes until nothing waits.
    fn write_waiting(self: &Arc<Self>) {
        loop {
            let batches = self.take_waiting();
            if batches.is_empty() {
                return;
            }
            self.write(batches);
            self.checkpoint_if_due();
        }
    }

    /// Takes the batches for one frame. If there are none, the writer ends.
    fn take_waiting(&self) -> Vec<Batch> {
        let is_full = self.state() == DiskState::Full;
        let mut queue = lock(&self.queue);
        let (mut batches, mut bytes) = (Vec::<Batch>::new(), 0);
        while let Some(next) = queue.batches.front() {
            bytes += next.records.len();
            let is_whole = bytes > FRAME_BYTES_MAX || fault!("batch-split-over-frames");
            // What frees room on a full disk is kept, and the rest is not.
            let differs = |first: &Batch| is_full && first.is_relief != next.is_relief;
            if is_whole && !batches.is_empty() || batches.first().is_some_and(differs) {
                break;
            }
            batches.extend(queue.batches.pop_front());
        }
        queue.is_writing = !batches.is_empty();
        batches
    }

    fn write(&self, batches: Vec<Batch>) {
        let length = batches.iter().map(|batch| batch.records.len()).sum::<usize>();
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + length);
        frame.resize(FRAME_HEADER_BYTES, 0);
        for batch in &batches {
            frame.extend_from_slice(&batch.records);
        }
        let (kept, position) = {
            let mut log = lock(&self.log);
            // While the disk is full, only `look_for_room` begins segments.
            let begins_segments = self.state() != DiskState::Full || fault!("each-publication-looks-for-room");
            let mut kept = log.append(&mut frame, begins_segments);
            if let Err(error @ AppendError::Full(_)) = &kept
                && batches.iter().all(|batch| batch.is_relief)
                && !fault!("removal-refused-on-full-disk")
            {
                self.note_state(Some(error));
                kept = self.append_relief(&mut log, &mut frame);
            }
            (kept, log.position())
        };
        // A full disk stays so if a small frame fits into what is left of the segment.
        if kept.is_err() || self.state() != DiskState::Full {
            self.note_state(kept.as_ref().err());
        }
        let kept = kept.map_err(|why| match why {
            AppendError::Full(_) => NotKept::Full,
            AppendError::Refused(_) => NotKept::Unavailable,
            AppendError::Failed(_) => NotKept::Failed,
        });
        let is_kept = kept.is_ok();
        let mut offset = FRAME_HEADER_BYTES as u32;
        for Batch { from, number, records, .. } in batches {
            let place = kept.map(|(segment, begin)| (segment, begin + offset));
            offset += if fault!("places-of-second-loop-wrong") { 0 } else { records.len() as u32 };
            self.post(from, Event::Written { number, place });
        }
        self.bytes_waiting.fetch_sub(length as u64, Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        queue.written = position;
        queue.bytes_written += if is_kept { frame.len() as u64 } else { 0 };
    }

    /// Waits for the threads to end their work, after the loops have ended.
    pub(crate) fn finish(&self) {
        self.crews.writer.finish();
        if let Err(error) = lock(&self.log).sync() {
            error!("cannot write to the store: {error}");
        }
        for crew in [&self.crews.syncer, &self.crews.keeper, &self.crews.readers] {
            crew.finish();
        }
    }

    /// Puts the log on the disk soon.
    pub(super) fn sync_soon(self: &Arc<Self>) {
        let shared = self.clone();
        // If this is refused, a sync is under way, and another one waits.
        let _ = self.crews.syncer.spawn(move || {
            let synced = lock(&shared.log).sync();
            if let Err(error) = synced {
                shared.note_state(Some(&AppendError::Failed(error)));
            }
        });
    }

    /// Logs changes of the state of the disk.
    pub(super) fn note_state(&self, error: Option<&AppendError>) {
        let (before, state) = {
            let mut held = lock(&self.state);
            let state = match error {
                _ if *held == DiskState::Failed => DiskState::Failed,
                None => DiskState::Good,
                Some(AppendError::Refused(_)) => *held,
                Some(AppendError::Full(_)) => DiskState::Full,
                Some(AppendError::Failed(_)) => DiskState::Failed,
            };
            (std::mem::replace(&mut *held, state), state)
        };
        match error {
            None if before == DiskState::Full => info!("the disk of the store has room again: publishing goes on"),
            Some(AppendError::Refused(error)) => warn!("the store cannot begin a file of its log: {error}"),
            Some(AppendError::Full(error)) if before != state => {
                error!("the disk of the store is full, publishing is refused until it has room: {error}");
            }
            Some(AppendError::Failed(error)) if before != state => {
                error!("the disk of the store has failed, publishing is refused until a restart: {error}");
            }
            _ => {}
        }
    }

    /// Returns the state of the disk.
    pub(super) fn state(&self) -> DiskState {
        *lock(&self.state)
    }

    /// Returns what prevents the store from keeping or reading messages.
    pub(super) fn problems(&self) -> Vec<HealthProblem> {
        let (is_unreadable, is_unwritable) = self.index_problems();
        let state = self.state();
        let all = [
            (state == DiskState::Full, HealthProblem::StoreFull),
            (state == DiskState::Failed, HealthProblem::StoreFailed),
            (is_unreadable, HealthProblem::StoreUnreadable),
            // Otherwise, nothing is kept at all.
            (is_unwritable && state != DiskState::Failed, HealthProblem::CheckpointFails),
        ];
        all.into_iter().filter(|(is_there, _)| *is_there).map(|(_, problem)| problem).collect()
    }

    /// Sends an event to a loop.
    pub(super) fn post(&self, to: usize, event: Event) {
        let Some(inbox) = self.inboxes.get(to) else { return };
        lock(&inbox.events).push_back(event);
        self.wake(to);
    }

    pub(super) fn wake(&self, to: usize) {
        if let Some(Wake(wake)) = self.inboxes.get(to).and_then(|inbox| lock(&inbox.wake).clone()) {
            wake();
        }
    }

    pub(super) fn loops(&self) -> usize {
        self.inboxes.len()
    }

    /// Takes the events for a loop.
    pub(super) fn take_events(&self, index: usize) -> VecDeque<Event> {
        self.inboxes.get(index).map_or_else(VecDeque::new, |inbox| std::mem::take(&mut *lock(&inbox.events)))
    }

    /// Opens a segment for reading.
    pub(super) fn segment(&self, id: SegmentId) -> std::io::Result<File> {
        // The lock is held meanwhile, so that no segment stays open that is being removed.
        let mut files = lock(&self.files);
        if let Some(file) = files.get(&id) {
            return Ok(file.clone());
        }
        let file = self.directory.open(&segment_name(id))?;
        if files.len() >= FILES_MAX {
            files.pop_first();
        }
        files.insert(id, file.clone());
        Ok(file)
    }

    /// Closes a segment that is to be removed.
    pub(super) fn forget_segment(&self, id: SegmentId) {
        lock(&self.files).remove(&id);
    }
}
