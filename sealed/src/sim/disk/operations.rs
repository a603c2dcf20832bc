//! The operations of processes on a disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::contents::{Contents, SECTOR_BYTES};
use super::state::{FileId, ProcessId, Refused, State, stream};
use super::trace::Did;
use super::{DiskFaults, FILE_BYTES_MAX};
use crate::sim::network::Net;
use crate::sim::trace::digest_of;

/// The probability with which a write during which the power goes off happens in part.
const TORN: f64 = 0.75;

impl Net {
    pub(super) fn open_directory(&mut self, process: ProcessId, path: &Path) -> io::Result<()> {
        let is_possible = self.disk(process)?.names.add_directory(path);
        if is_possible { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    pub(super) fn create_file(&mut self, process: ProcessId, path: &Path) -> io::Result<FileId> {
        let state = self.begin(process)?;
        if state.names.find(path).is_some() || state.names.is_directory(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let label = label(path);
        if self.disk_fails(process, "disk.no_space", |faults| faults.no_space) {
            return Err(self.full(process, label));
        }
        let state = self.disk(process)?;
        let id = state.add(label.clone(), Contents::default());
        state.names.create(path, id);
        state.open(id);
        self.note_disk(process.disk, Did::Creates { path: label });
        Ok(id)
    }

    pub(super) fn open_file(&mut self, process: ProcessId, path: &Path) -> io::Result<FileId> {
        let state = self.disk(process)?;
        let id = state.find(path)?;
        state.open(id);
        self.note_disk(process.disk, Did::Opens { path: label(path) });
        Ok(id)
    }

    pub(super) fn rename_file(&mut self, process: ProcessId, from: &Path, to: &Path) -> io::Result<()> {
        let state = self.begin(process)?;
        let id = state.find(from)?;
        if state.names.is_directory(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        state.names.rename(from, to, id);
        state.file(id).label = label(to);
        self.note_disk(process.disk, Did::Renames { from: label(from), to: label(to) });
        Ok(())
    }

    pub(super) fn remove_file(&mut self, process: ProcessId, path: &Path) -> io::Result<()> {
        let state = self.begin(process)?;
        let id = state.find(path)?;
        state.names.remove(path, id);
        self.note_disk(process.disk, Did::Removes { path: label(path) });
        Ok(())
    }

    pub(super) fn sync_directory(&mut self, process: ProcessId, path: &Path) -> io::Result<()> {
        self.begin(process)?;
        let probability = self.disk(process)?.faults.failed_sync;
        if let Some(mut random) = self.occurs_with("disk.failed_sync", process.disk, probability, stream) {
            self.disk(process)?.names.fail_sync(path, &mut random);
            return Err(self.failure(process, label(path), "a sync"));
        }
        let state = self.disk(process)?;
        let changes = state.names.sync(path);
        state.forget_unreachable();
        self.note_disk(process.disk, Did::SyncsNames { path: label(path), changes });
        Ok(())
    }

    pub(super) fn lock_file(&mut self, process: ProcessId, path: &Path) -> io::Result<FileId> {
        let state = self.disk(process)?;
        let id = match state.find(path) {
            Ok(id) => state.open(id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_file(process, path)?,
            Err(error) => return Err(error),
        };
        let state = self.disk(process)?;
        if !state.locks.insert(id) {
            state.close(id);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.note_disk(process.disk, Did::Locks { path: label(path) });
        Ok(id)
    }

    pub(super) fn unlock_file(&mut self, process: ProcessId, id: FileId) {
        let Ok(state) = self.disk(process) else { return };
        state.locks.remove(&id);
        let path = state.file(id).label.clone();
        state.close(id);
        self.note_disk(process.disk, Did::Unlocks { path });
    }

    pub(super) fn read_file(
        &mut self,
        process: ProcessId,
        id: FileId,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        let file = self.disk(process)?.file(id);
        let (path, end) = (file.label.clone(), file.contents.len());
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(end);
        let available = buffer.len().min(end - start);
        if self.disk_fails(process, "disk.failed_read", |faults| faults.failed_read) {
            return Err(self.failure(process, path, "a read"));
        }
        let count = self.shortened(process, "disk.short_read", available, |faults| faults.short_read);
        let bytes = self.disk(process)?.file(id).contents.bytes();
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        self.note_disk(process.disk, Did::Reads { path, offset, count });
        Ok(count)
    }

    pub(super) fn write_file(&mut self, process: ProcessId, id: FileId, data: &[u8], offset: u64) -> io::Result<usize> {
        let end = offset.saturating_add(data.len() as u64);
        if let Err(refused) = self.begin(process) {
            if refused == Refused::Cut && end <= FILE_BYTES_MAX {
                self.tear(process, id, data, offset as usize);
            }
            return Err(refused.into());
        }
        if data.is_empty() {
            return Ok(0);
        }
        let file = self.disk(process)?.file(id);
        let (path, is_allocated) = (file.label.clone(), end <= file.contents.allocated() as u64);
        check_length(end)?;
        if self.disk_fails(process, "disk.failed_write", |faults| faults.failed_write) {
            return Err(self.failure(process, path, "a write"));
        }
        if !is_allocated && self.disk_fails(process, "disk.no_space", |faults| faults.no_space) {
            return Err(self.full(process, path));
        }
        let offered = data.len();
        let count = self.shortened(process, "disk.short_write", offered, |faults| faults.short_write);
        let state = self.disk(process)?;
        let count = state.room(id, offset, count);
        if count == 0 {
            return Err(self.full(process, path));
        }
        let data = &data[..count];
        state.file(id).contents.write(data, offset as usize);
        self.note_disk(process.disk, Did::Writes { path, offset, offered, count, digest: digest_of(data) });
        Ok(count)
    }

    /// Writes a part of what a process writes when the power goes off: up to some sector.
    fn tear(&mut self, process: ProcessId, id: FileId, data: &[u8], offset: usize) {
        let Some(mut random) = self.occurs_with("disk.torn_write", process.disk, TORN, stream) else { return };
        let end = offset + data.len();
        let sectors = end.div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES;
        let torn = (offset / SECTOR_BYTES + 1 + random.below(sectors)) * SECTOR_BYTES;
        let state = &mut self.disks[process.disk as usize];
        let count = state.room(id, offset as u64, torn.min(end) - offset);
        let data = &data[..count];
        let file = state.file(id);
        file.contents.write(data, offset);
        let (path, offered) = (file.label.clone(), end - offset);
        let (offset, digest) = (offset as u64, digest_of(data));
        self.note_disk(process.disk, Did::Writes { path, offset, offered, count, digest });
    }

    pub(super) fn sync_file(&mut self, process: ProcessId, id: FileId) -> io::Result<()> {
        let state = self.begin(process)?;
        let probability = state.faults.failed_sync;
        let path = state.file(id).label.clone();
        if let Some(mut random) = self.occurs_with("disk.failed_sync", process.disk, probability, stream) {
            self.disk(process)?.file(id).contents.fail_sync(&mut random);
            return Err(self.failure(process, path, "a sync"));
        }
        let contents = &mut self.disk(process)?.file(id).contents;
        let sectors = contents.dirty_sectors();
        contents.sync();
        self.note_disk(process.disk, Did::Syncs { path, sectors });
        Ok(())
    }

    pub(super) fn file_length(&mut self, process: ProcessId, id: FileId) -> io::Result<u64> {
        Ok(self.disk(process)?.file(id).contents.len() as u64)
    }

    pub(super) fn set_file_length(&mut self, process: ProcessId, id: FileId, length: u64) -> io::Result<()> {
        let file = self.begin(process)?.file(id);
        let (path, grows) = (file.label.clone(), length > file.contents.len() as u64);
        check_length(length)?;
        if grows && self.disk_fails(process, "disk.no_space", |faults| faults.no_space) {
            return Err(self.full(process, path));
        }
        self.disk(process)?.file(id).contents.set_len(length as usize);
        self.note_disk(process.disk, Did::SetsLength { path, length });
        Ok(())
    }

    pub(super) fn allocate_file(&mut self, process: ProcessId, id: FileId, length: u64) -> io::Result<()> {
        let state = self.begin(process)?;
        let file = state.file(id);
        let path = file.label.clone();
        let wanted = length.saturating_sub(file.contents.allocated() as u64);
        check_length(length)?;
        let fits = wanted <= state.free();
        let is_full = wanted > 0 && self.disk_fails(process, "disk.no_space", |faults| faults.no_space);
        if is_full || !fits {
            return Err(self.full(process, path));
        }
        self.disk(process)?.file(id).contents.allocate(length as usize);
        self.note_disk(process.disk, Did::Allocates { path, length });
        Ok(())
    }

    // Faults.

    fn disk_fails(&mut self, process: ProcessId, name: &'static str, of: impl Fn(&DiskFaults) -> f64) -> bool {
        let probability = of(&self.disks[process.disk as usize].faults);
        self.occurs(name, process.disk, probability)
    }

    /// Returns the length of a read or a write, which a fault may shorten.
    fn shortened(
        &mut self,
        process: ProcessId,
        name: &'static str,
        most: usize,
        of: impl Fn(&DiskFaults) -> f64,
    ) -> usize {
        let probability = of(&self.disks[process.disk as usize].faults);
        if most < 2 {
            return most;
        }
        let short = self.occurs_with(name, process.disk, probability, |random| 1 + random.below(most - 1));
        // In a repeated run the amount may come from another call.
        short.map_or(most, |short| short.min(most))
    }

    fn failure(&mut self, process: ProcessId, path: Arc<str>, doing: &'static str) -> io::Error {
        self.note_disk(process.disk, Did::Fails { path, doing });
        io::Error::other("simulated input/output error")
    }

    fn full(&mut self, process: ProcessId, path: Arc<str>) -> io::Error {
        self.note_disk(process.disk, Did::Full { path });
        io::ErrorKind::StorageFull.into()
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<FileId> {
        if self.names.is_directory(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.names.find(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Returns how many of `count` bytes there is space for at an offset.
    fn room(&mut self, id: FileId, offset: u64, count: usize) -> usize {
        let end = offset + count as u64;
        let allocated = self.file(id).contents.allocated() as u64;
        if end <= allocated {
            return count;
        }
        let end = end.min(allocated.saturating_add(self.free()));
        end.saturating_sub(offset) as usize
    }
}

fn check_length(length: u64) -> io::Result<()> {
    if length <= FILE_BYTES_MAX { Ok(()) } else { Err(io::ErrorKind::FileTooLarge.into()) }
}

pub(super) fn label(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}
