//! The handles of a process on a simulated disk. `disk/` wraps them.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::state::{FileId, ProcessId};
use crate::sim::Handle;

/// The handle of one process on the disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(super) handle: Handle,
    pub(super) process: ProcessId,
}

impl Disk {
    pub(crate) fn open_dir(&self, path: &Path) -> io::Result<Directory> {
        let on_disk = canonical(path);
        self.handle.lock().open_directory(self.process, &on_disk)?;
        Ok(Directory { disk: self.clone(), opened: path.into(), on_disk: on_disk.into() })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Directory {
    disk: Disk,
    opened: Arc<Path>,
    on_disk: Arc<Path>,
}

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.opened
    }

    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        let id = self.disk.handle.lock().create_file(self.disk.process, &self.file(name))?;
        Ok(File::new(&self.disk, id))
    }

    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        let id = self.disk.handle.lock().open_file(self.disk.process, &self.file(name))?;
        Ok(File::new(&self.disk, id))
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.handle.lock().rename_file(self.disk.process, &self.file(from), &self.file(to))
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.handle.lock().remove_file(self.disk.process, &self.file(name))
    }

    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.handle.lock().disk(self.disk.process)?.names.list(&self.on_disk))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.handle.lock().sync_directory(self.disk.process, &self.on_disk)
    }

    pub(crate) fn lock(&self, name: &str) -> io::Result<Lock> {
        let id = self.disk.handle.lock().lock_file(self.disk.process, &self.file(name))?;
        Ok(Lock { disk: self.disk.clone(), id })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.on_disk.join(name)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct File(Arc<OpenFile>);

#[derive(Debug)]
struct OpenFile {
    disk: Disk,
    id: FileId,
}

impl File {
    fn new(disk: &Disk, id: FileId) -> Self {
        Self(Arc::new(OpenFile { disk: disk.clone(), id }))
    }

    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let OpenFile { disk, id } = &*self.0;
        disk.handle.lock().read_file(disk.process, *id, buffer, offset)
    }

    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        let OpenFile { disk, id } = &*self.0;
        disk.handle.lock().write_file(disk.process, *id, data, offset)
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        let OpenFile { disk, id } = &*self.0;
        disk.handle.lock().sync_file(disk.process, *id)
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        let OpenFile { disk, id } = &*self.0;
        disk.handle.lock().file_length(disk.process, *id)
    }

    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        let OpenFile { disk, id } = &*self.0;
        disk.handle.lock().set_file_length(disk.process, *id, length)
    }

    pub(crate) fn allocate(&self, length: u64) -> io::Result<()> {
        let OpenFile { disk, id } = &*self.0;
        disk.handle.lock().allocate_file(disk.process, *id, length)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Ok(state) = self.disk.handle.lock().disk(self.disk.process) {
            state.close(self.id);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Lock {
    disk: Disk,
    id: FileId,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.handle.lock().unlock_file(self.disk.process, self.id);
    }
}

/// Returns the spelling under which a path is kept.
pub(super) fn canonical(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}
