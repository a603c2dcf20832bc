//! The state of one disk, and the ends of the processes that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::DiskFaults;
use super::contents::Contents;
use super::names::Names;
use super::trace::Did;
use crate::sim::Random;
use crate::sim::network::Net;
use crate::sim::trace::Entry;

/// The probability with which a power cut loses anything of a file, or of the names.
const LOSSY: f64 = 0.75;

/// Identifies a file, whatever its name. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sim) struct FileId(u64);

/// A process, as the disk knows it: all handles that were obtained between two ends.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct ProcessId {
    pub(super) disk: u32,
    number: u64,
}

#[derive(Debug, Default)]
pub(in crate::sim) struct State {
    /// Number of processes that have ended.
    processes: u64,
    pub(super) is_dead: bool,
    pub(super) stop: Option<Stop>,
    pub(super) operations: u64,
    pub(super) capacity: Option<u64>,
    pub(super) faults: DiskFaults,
    pub(super) names: Names,
    pub(super) locks: BTreeSet<FileId>,
    files: BTreeMap<FileId, Stored>,
    created: u64,
}

#[derive(Debug)]
pub(super) struct Stored {
    /// The path with which the file was created or renamed last.
    pub(super) label: Arc<str>,
    pub(super) contents: Contents,
    /// Number of open handles.
    opens: usize,
}

/// The planned end of the process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    /// Number of operations up to the one that does not happen, including it.
    pub(super) operations: u64,
    /// A write that does not happen may have happened in part.
    pub(super) is_cut: bool,
}

/// Why an operation does not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The process has ended.
    Gone,
    /// The power goes off during this operation.
    Cut,
}

impl From<Refused> for io::Error {
    fn from(_: Refused) -> Self {
        Self::other("the process that opened it is gone")
    }
}

impl State {
    pub(super) fn process(&self, disk: u32) -> ProcessId {
        ProcessId { disk, number: self.processes }
    }

    pub(super) fn is_gone(&self, process: ProcessId) -> bool {
        self.is_dead || process.number != self.processes
    }

    pub(super) fn add(&mut self, label: Arc<str>, contents: Contents) -> FileId {
        self.created += 1;
        let id = FileId(self.created);
        self.files.insert(id, Stored { label, contents, opens: 0 });
        id
    }

    pub(super) fn open(&mut self, id: FileId) -> FileId {
        if let Some(file) = self.files.get_mut(&id) {
            file.opens += 1;
        }
        id
    }

    pub(super) fn close(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.opens = file.opens.saturating_sub(1);
            if file.opens == 0 {
                self.forget_unreachable();
            }
        }
    }

    #[allow(clippy::expect_used)] // a mistake of the simulation
    pub(super) fn file(&mut self, id: FileId) -> &mut Stored {
        self.files.get_mut(&id).expect("a file stays while it has a name or is open")
    }

    pub(super) fn bytes_used(&self) -> u64 {
        let named: BTreeSet<_> = self.names.files().map(|(_, id)| id).collect();
        let used = self.files.iter().filter(|(id, file)| file.opens > 0 || named.contains(id));
        used.map(|(_, file)| file.contents.allocated() as u64).sum()
    }

    /// Returns the number of bytes that can be allocated.
    pub(super) fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.bytes_used()))
    }

    pub(super) fn forget_unreachable(&mut self) {
        let reachable = self.names.reachable();
        self.files.retain(|id, file| file.opens > 0 || reachable.contains(id));
    }

    /// Ends the process: its handles and locks are gone.
    fn end_process(&mut self) {
        self.processes += 1;
        self.is_dead = false;
        self.stop = None;
        self.locks.clear();
        self.files.values_mut().for_each(|file| file.opens = 0);
        self.forget_unreachable();
    }
}

impl Net {
    pub(super) fn note_disk(&mut self, disk: u32, did: Did) {
        self.note(Entry::Disk { disk, did });
    }

    /// Returns the disk of a process that is alive.
    pub(super) fn disk(&mut self, process: ProcessId) -> io::Result<&mut State> {
        let state = &mut self.disks[process.disk as usize];
        if state.is_gone(process) { Err(Refused::Gone.into()) } else { Ok(state) }
    }

    /// Begins an operation that writes, syncs or changes names, unless the process ends with it.
    pub(super) fn begin(&mut self, process: ProcessId) -> Result<&mut State, Refused> {
        let state = &mut self.disks[process.disk as usize];
        if state.is_gone(process) {
            return Err(Refused::Gone);
        }
        if let Some(stop) = &mut state.stop {
            stop.operations = stop.operations.saturating_sub(1);
            if stop.operations == 0 {
                let refused = if stop.is_cut { Refused::Cut } else { Refused::Gone };
                state.is_dead = true;
                self.note_disk(process.disk, Did::Dies);
                return Err(refused);
            }
        }
        let state = &mut self.disks[process.disk as usize];
        state.operations += 1;
        Ok(state)
    }

    pub(super) fn kill_process(&mut self, disk: u32) {
        self.note_disk(disk, Did::Killed);
        self.disks[disk as usize].end_process();
    }

    pub(super) fn cut_power(&mut self, disk: u32) {
        self.note_disk(disk, Did::PowerCut);
        let pending = self.disks[disk as usize].names.pending();
        if pending > 0
            && let Some(mut random) = self.occurs_with("disk.lost_names", disk, LOSSY, stream)
        {
            let survivors = self.disks[disk as usize].names.lose(&mut random);
            self.note_disk(disk, Did::LosesNames { lost: pending - survivors, of: pending });
        }
        let files: Vec<_> = self.disks[disk as usize].files.keys().copied().collect();
        for id in files {
            let file = self.disks[disk as usize].file(id);
            if !file.contents.is_dirty() {
                // Shows what the disk has of sectors that a failed sync gave up.
                file.contents.lose(&mut Random::new(0));
                continue;
            }
            let lossy = self.occurs_with("disk.lost_writes", disk, LOSSY, stream);
            let file = self.disks[disk as usize].file(id);
            let sectors = file.contents.dirty_sectors();
            if lossy.is_none() {
                file.contents.sync();
            }
            file.contents.lose(&mut lossy.clone().unwrap_or_else(|| Random::new(0)));
            let (path, length) = (file.label.clone(), file.contents.len());
            if lossy.is_some() {
                self.note_disk(disk, Did::LosesWrites { path, sectors, length });
            }
        }
        let state = &mut self.disks[disk as usize];
        state.names.restart();
        state.end_process();
    }
}

/// Returns a stream of random numbers of its own.
pub(super) fn stream(random: &mut Random) -> Random {
    Random::new(random.bits())
}
