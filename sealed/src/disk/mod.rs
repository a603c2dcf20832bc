//! Files that survive a crash, on the system's file system or on a simulated disk; enabled by the
//! feature `disk`.
//!
//! A [`Disk`] opens directories, a [`Directory`] is one flat directory of files, and a [`File`] is
//! read and written by offset. Code that uses these types runs unchanged on a disk of a simulation
//! (feature `sim`), which loses power, fills up and fails on demand.
//!
//! ```
//! use sealed::disk::Disk;
//!
//! # let folder = std::env::temp_dir().join(format!("sealed-disk-{}", std::process::id()));
//! let directory = Disk::system().open_dir(&folder)?;
//! let _lock = directory.lock("lock")?;
//! let file = directory.create("greeting")?;
//! file.write_all_at(b"hello", 0)?;
//! file.sync_data()?;
//! directory.sync()?;
//! // From here on, the file and its contents survive a power cut.
//! assert_eq!(directory.list()?, ["greeting", "lock"]);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # All calls block
//!
//! No call belongs on the thread of a loop: a call can take seconds on a busy disk. Make them on
//! [`Workers`](crate::Workers). All types can be sent to other threads and shared between them.
//!
//! # What survives a power cut
//!
//! - Bytes written and the length of a file, once [`File::sync_data`] has returned without an
//!   error. Before that, any part of what was written may survive, in any order.
//! - Names: a file that was created, renamed or removed, once [`Directory::sync`] has returned
//!   without an error. A file whose contents are synced but whose name is not can be gone.
//!
//! After an error of `sync_data` or `sync`, the state on the disk is unknown, and a later call that
//! succeeds does not change that: the system may have given up data that it could not write, and
//! still return it to readers. Do not repeat the call; write the data to another file, or open the
//! file again after a restart and check its contents.

mod system;

use std::io;
use std::path::{Component, Path};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "sim")]
use crate::sim;

/// The time between two attempts to lock a file.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// A file system: the system's, or a simulated disk (`sealed::sim::SimDisk`). Clones refer to the
/// same file system.
#[derive(Debug, Clone)]
pub struct Disk(DiskKind);

#[derive(Debug, Clone)]
enum DiskKind {
    System,
    #[cfg(feature = "sim")]
    Simulated(sim::Disk),
}

/// One flat directory of files. Clones refer to the same directory.
///
/// A name is a plain file name: a call returns [`io::ErrorKind::InvalidInput`] for a name that is
/// empty or that contains a separator (`/` or `\`) or a NUL, and for `.` and `..`.
#[derive(Debug, Clone)]
pub struct Directory(DirectoryKind);

#[derive(Debug, Clone)]
enum DirectoryKind {
    System(system::Directory),
    #[cfg(feature = "sim")]
    Simulated(sim::Directory),
}

/// An open file. Clones refer to the same open file, and any number of threads can use it at once.
/// No call moves a position: each names the offset.
#[derive(Debug, Clone)]
pub struct File(FileKind);

#[derive(Debug, Clone)]
enum FileKind {
    System(system::File),
    #[cfg(feature = "sim")]
    Simulated(sim::File),
}

/// An exclusive lock on a file, which is released when this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] LockKind); // held for its `Drop`

#[derive(Debug)]
#[allow(dead_code)] // held for their `Drop`
enum LockKind {
    System(system::Lock),
    #[cfg(feature = "sim")]
    Simulated(sim::Lock),
}

impl Disk {
    /// Returns the file system of the operating system.
    pub fn system() -> Self {
        Self(DiskKind::System)
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated(disk: sim::Disk) -> Self {
        Self(DiskKind::Simulated(disk))
    }

    /// Opens a directory. Creates it and its parents if they are missing, and makes their names
    /// durable.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be created or opened.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> io::Result<Directory> {
        let path = path.as_ref();
        match &self.0 {
            DiskKind::System => system::Directory::open(path).map(DirectoryKind::System).map(Directory),
            #[cfg(feature = "sim")]
            DiskKind::Simulated(disk) => disk.open_dir(path).map(DirectoryKind::Simulated).map(Directory),
        }
    }
}

impl Directory {
    /// Returns the path with which the directory was opened.
    pub fn path(&self) -> &Path {
        match &self.0 {
            DirectoryKind::System(directory) => directory.path(),
            #[cfg(feature = "sim")]
            DirectoryKind::Simulated(directory) => directory.path(),
        }
    }

    /// Creates an empty file, for reading and writing. Its name is durable after
    /// [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::AlreadyExists`] if there is a file of this name, and errors of the
    /// file system.
    pub fn create(&self, name: &str) -> io::Result<File> {
        check_name(name)?;
        match &self.0 {
            DirectoryKind::System(directory) => directory.create(name).map(FileKind::System).map(File),
            #[cfg(feature = "sim")]
            DirectoryKind::Simulated(directory) => directory.create(name).map(FileKind::Simulated).map(File),
        }
    }

    /// Opens a file that exists, for reading and writing.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::NotFound`] if there is no file of this name, and errors of the file
    /// system.
    pub fn open(&self, name: &str) -> io::Result<File> {
        check_name(name)?;
        match &self.0 {
            DirectoryKind::System(directory) => directory.open_file(name).map(FileKind::System).map(File),
            #[cfg(feature = "sim")]
            DirectoryKind::Simulated(directory) => directory.open_file(name).map(FileKind::Simulated).map(File),
        }
    }

    /// Renames a file. Replaces a file with the new name, if there is one. After a power cut the
    /// directory has either both changes or neither; the rename is durable after
    /// [`sync`](Self::sync). Open files stay open, and follow the rename.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::NotFound`] if there is no file with the name `from`, and errors of
    /// the file system.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        match &self.0 {
            DirectoryKind::System(directory) => directory.rename(from, to),
            #[cfg(feature = "sim")]
            DirectoryKind::Simulated(directory) => directory.rename(from, to),
        }
    }

    /// Removes a file. The removal is durable after [`sync`](Self::sync). The contents stay
    /// readable through files that are open, and take space until these are dropped.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::NotFound`] if there is no file of this name, and errors of the file
    /// system.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        match &self.0 {
            DirectoryKind::System(directory) => directory.remove(name),
            #[cfg(feature = "sim")]
            DirectoryKind::Simulated(directory) => directory.remove(name),
        }
    }

    /// Returns the names of the files, sorted by their bytes. Leaves out everything that is not a
    /// regular file, and names that are not UTF-8.
    ///
    /// # Errors
    ///
    /// Returns errors of the file system.
    pub fn list(&self) -> io::Result<Vec<String>> {
        match &self.0 {
            DirectoryKind::System(directory) => directory.list(),
            #[cfg(feature = "sim")]
            DirectoryKind::Simulated(directory) => directory.list(),
        }
    }

    /// Makes the names of the directory durable: all earlier creations, renames and removals.
    /// Does nothing on Windows, where names are durable by the journal of NTFS. Does not make the
    /// contents of files durable.
    ///
    /// # Errors
    ///
    /// Returns errors of the file system. After an error it is unknown which names are durable.
    pub fn sync(&self) -> io::Result<()> {
        match &self.0 {
            DirectoryKind::System(directory) => directory.sync(),
            #[cfg(feature = "sim")]
            DirectoryKind::Simulated(directory) => directory.sync(),
        }
    }

    /// Locks a file as [`lock`](Self::lock) does, but waits while another lock is held. In a
    /// simulation, no time passes during a call, so the call does not wait.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::WouldBlock`] if the lock is still held after `wait_max`, and errors
    /// of the file system.
    pub fn lock_within(&self, name: &str, wait_max: Duration) -> io::Result<Lock> {
        let end = Instant::now().checked_add(wait_max);
        loop {
            match self.lock(name) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let is_system = matches!(self.0, DirectoryKind::System(_));
            if !is_system || end.is_some_and(|end| Instant::now() >= end) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            thread::sleep(LOCK_INTERVAL);
        }
    }

    /// Locks a file exclusively. Creates the file if it is missing, and leaves it behind. Does not
    /// wait. A process that ends releases its locks, however it ends.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::WouldBlock`] if another process, or another [`Lock`] of this
    /// process, holds the lock, and errors of the file system.
    pub fn lock(&self, name: &str) -> io::Result<Lock> {
        check_name(name)?;
        match &self.0 {
            DirectoryKind::System(directory) => directory.lock(name).map(LockKind::System).map(Lock),
            #[cfg(feature = "sim")]
            DirectoryKind::Simulated(directory) => directory.lock(name).map(LockKind::Simulated).map(Lock),
        }
    }
}

impl File {
    /// Reads at an offset. Returns the number of bytes read, which can be less than the buffer has
    /// room for; 0 if the offset is at or beyond the end, or the buffer is empty.
    ///
    /// # Errors
    ///
    /// Returns errors of the file system.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.0 {
            FileKind::System(file) => file.read_at(buffer, offset),
            #[cfg(feature = "sim")]
            FileKind::Simulated(file) => file.read_at(buffer, offset),
        }
    }

    /// Fills the buffer from an offset.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::UnexpectedEof`] if the file ends before, and errors of the file
    /// system. After an error the contents of the buffer are unspecified.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes at an offset. Returns the number of bytes written, which can be less than was passed.
    /// A file that is shorter than the offset is extended with zeros. What was written is durable
    /// after [`sync_data`](Self::sync_data).
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::StorageFull`] if there is no space, and other errors of the file
    /// system.
    pub fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        match &self.0 {
            FileKind::System(file) => file.write_at(data, offset),
            #[cfg(feature = "sim")]
            FileKind::Simulated(file) => file.write_at(data, offset),
        }
    }

    /// Writes all bytes at an offset.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`write_at`](Self::write_at), and [`io::ErrorKind::WriteZero`] if
    /// the file takes no more bytes. After an error any part of the bytes may have been written.
    pub fn write_all_at(&self, mut data: &[u8], mut offset: u64) -> io::Result<()> {
        while !data.is_empty() {
            match self.write_at(data, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    data = &data[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the contents and the length durable, with all writes that have returned.
    ///
    /// # Errors
    ///
    /// Returns errors of the file system. After an error it is unknown what is durable, and
    /// repeating the call does not help; see [the module](self#what-survives-a-power-cut).
    pub fn sync_data(&self) -> io::Result<()> {
        match &self.0 {
            FileKind::System(file) => file.sync_data(),
            #[cfg(feature = "sim")]
            FileKind::Simulated(file) => file.sync_data(),
        }
    }

    /// Returns the length of the file in bytes.
    ///
    /// # Errors
    ///
    /// Returns errors of the file system.
    #[allow(clippy::len_without_is_empty)] // asks the file system, and can fail
    pub fn len(&self) -> io::Result<u64> {
        match &self.0 {
            FileKind::System(file) => file.len(),
            #[cfg(feature = "sim")]
            FileKind::Simulated(file) => file.len(),
        }
    }

    /// Sets the length: cuts the file off, or extends it with zeros, which need not take space on
    /// the disk until they are overwritten. The length is durable after
    /// [`sync_data`](Self::sync_data).
    ///
    /// # Errors
    ///
    /// Returns errors of the file system.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        match &self.0 {
            FileKind::System(file) => file.set_len(length),
            #[cfg(feature = "sim")]
            FileKind::Simulated(file) => file.set_len(length),
        }
    }

    /// Reserves space, so that writes before the offset `length` do not fail because of a full
    /// disk, and extends the file with zeros to at least that length. Never makes the file shorter.
    /// The length is durable after [`sync_data`](Self::sync_data).
    ///
    /// Only Linux reserves space (`fallocate`). On other systems, and on file systems that cannot
    /// reserve, this only extends the file, and later writes can fail because the disk is full.
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::StorageFull`] if there is not enough space, and other errors of the
    /// file system.
    pub fn allocate(&self, length: u64) -> io::Result<()> {
        match &self.0 {
            FileKind::System(file) => file.allocate(length),
            #[cfg(feature = "sim")]
            FileKind::Simulated(file) => file.allocate(length),
        }
    }
}

/// Refuses a name that is not the name of a file in a flat directory, on any system.
fn check_name(name: &str) -> io::Result<()> {
    let mut parts = Path::new(name).components();
    let is_plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    if is_plain && !name.contains(['\\', '\0']) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a plain file name")))
}
