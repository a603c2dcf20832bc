//! The operating system's file system.

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
#[cfg(unix)]
use std::os::unix::fs::FileExt;
#[cfg(windows)]
use std::os::windows::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(super) struct Directory(Arc<OpenDirectory>);

#[derive(Debug)]
struct OpenDirectory {
    path: PathBuf,
    /// Open for as long as this lives: the system reports to it what failed before a `sync`.
    #[cfg(unix)]
    handle: fs::File,
}

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        create_missing(path)?;
        if !fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(Arc::new(OpenDirectory {
            path: path.to_owned(),
            #[cfg(unix)]
            handle: fs::File::open(path)?,
        })))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let opened = OpenOptions::new().read(true).write(true).create_new(true).open(self.file(name));
        opened.map(File::new)
    }

    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.file(name)).map(File::new)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.file(from), self.file(to))
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.file(name))
    }

    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0.path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.file_type()?.is_file()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    #[cfg(unix)]
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.handle.sync_all()
    }

    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // directories cannot be synced there
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn lock(&self, name: &str) -> io::Result<Lock> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = options.open(self.file(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }
}

/// Creates a directory and its parents, and makes durable the name of each that was missing.
fn create_missing(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    fs::create_dir_all(path)?;
    #[cfg(unix)]
    for created in missing.iter().rev() {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
        fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    #[cfg(not(unix))]
    drop(missing);
    Ok(())
}

#[derive(Debug, Clone)]
pub(super) struct File(Arc<fs::File>);

impl File {
    fn new(file: fs::File) -> Self {
        Self(Arc::new(file))
    }

    #[cfg(unix)]
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    #[cfg(windows)]
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.seek_read(buffer, offset)
    }

    #[cfg(unix)]
    pub(super) fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(data, offset)
    }

    #[cfg(windows)]
    pub(super) fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        self.0.seek_write(data, offset)
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    pub(super) fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    pub(super) fn allocate(&self, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        if !self.reserve(length)? && length > self.len()? {
            self.set_len(length)?;
        }
        Ok(())
    }

    /// Reserves space, and extends the file. Returns false if the file system cannot do that.
    #[cfg(target_os = "linux")]
    fn reserve(&self, length: u64) -> io::Result<bool> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        loop {
            match fallocate(&*self.0, FallocateFlags::empty(), 0, length) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // no call that all of them have
    fn reserve(&self, _: u64) -> io::Result<bool> {
        Ok(false)
    }
}

/// The system releases the lock when the file is closed.
#[derive(Debug)]
pub(super) struct Lock {
    _file: fs::File,
}
