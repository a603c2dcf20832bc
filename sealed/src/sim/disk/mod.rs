//! A simulated disk, with a cache that a power cut loses. `handles.rs` has what a process holds,
//! `operations.rs` what it can do, `state.rs` the disk and how processes end, `contents.rs` and
//! `names.rs` what is durable.

mod contents;
mod faults;
mod handles;
mod names;
mod operations;
mod state;
mod trace;

use std::fmt;
use std::path::{Path, PathBuf};

pub use faults::DiskFaults;
pub(crate) use handles::{Directory, Disk, File, Lock};
pub(in crate::sim) use state::State;
pub(in crate::sim) use trace::Did;

use self::contents::Contents;
use self::handles::canonical;
use self::operations::label;
use self::state::{ProcessId, Stop};
use super::{Handle, Simulation};
use crate::disk;

/// Maximum length of a file: its contents are in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The disk of a simulated machine, as the test sees it. Clones refer to the same disk.
///
/// [`disk`](Self::disk) returns the handle that a process uses; all other methods are for the test.
///
/// # The end of a process
///
/// [`kill`](Self::kill) and [`power_cut`](Self::power_cut) end the process: its locks are released,
/// and later calls with its handles return an error. They do not end the loops of the process; call
/// [`Simulation::kill`] for each of them. Work that no loop owns
/// ([`Workers::spawn`](crate::Workers::spawn)) still runs, and its calls return that error.
///
/// # Operations
///
/// An operation is a call that writes, syncs, or changes a name or a length:
/// [`create`](disk::Directory::create),
/// [`rename`](disk::Directory::rename), [`remove`](disk::Directory::remove),
/// [`sync`](disk::Directory::sync), [`lock`](disk::Directory::lock) if it creates the file,
/// [`write_at`](disk::File::write_at), [`sync_data`](disk::File::sync_data),
/// [`set_len`](disk::File::set_len) and [`allocate`](disk::File::allocate). A call counts even if
/// it returns an error. A test can end the process at any operation: see
/// [`cut_after`](Self::cut_after) and [`kill_after`](Self::kill_after).
///
/// # Paths and threads
///
/// The path of a file is the path that was passed to [`Disk::open_dir`](disk::Disk::open_dir),
/// joined with the name of the file. Any thread may use the handles, but a run can be repeated only
/// if one thread uses them, as the [workers](Simulation::workers) of the simulation do.
#[derive(Clone)]
pub struct SimDisk {
    handle: Handle,
    index: u32,
}

impl Simulation {
    /// Creates an empty disk, without faults and without a limit on its capacity.
    pub fn disk(&self) -> SimDisk {
        let handle = self.schedule.handle.clone();
        let mut net = handle.lock();
        net.disks.push(State::default());
        let index = net.disks.len() as u32 - 1;
        drop(net);
        SimDisk { handle, index }
    }
}

impl SimDisk {
    /// Returns a handle for the current process. After a planned end ([`is_dead`](Self::is_dead)),
    /// call [`kill`](Self::kill) or [`power_cut`](Self::power_cut) first; the next handle is then
    /// for a new process.
    pub fn disk(&self) -> disk::Disk {
        disk::Disk::simulated(Disk { handle: self.handle.clone(), process: self.process() })
    }

    // The ends of a process.

    /// Ends the process, as if it had been killed: everything that it wrote stays in the cache, and
    /// the next process reads it.
    pub fn kill(&self) {
        self.handle.lock().kill_process(self.index);
    }

    /// Ends the process and empties the cache, as a power cut does. A random part of what was not
    /// durable survives: see [the module](crate::sim#disks).
    pub fn power_cut(&self) {
        self.handle.lock().cut_power(self.index);
    }

    /// Plans a power cut at an operation, counted from now: 1 is the next one, and 0 counts as 1.
    /// This [operation](SimDisk#operations) and all later ones have no effect and return an error,
    /// except that a write may have happened up to some sector. Then the process
    /// [is dead](Self::is_dead), and the test calls [`power_cut`](Self::power_cut), which empties
    /// the cache. Replaces an earlier plan; the end of the process cancels the plan.
    pub fn cut_after(&self, operations: u64) {
        self.state(|state| state.stop = Some(Stop { operations, is_cut: true }));
    }

    /// Plans the end of the process at an operation, as [`cut_after`](Self::cut_after) does, except
    /// that the operation has no effect even if it is a write. Once the process
    /// [is dead](Self::is_dead), the test calls [`kill`](Self::kill).
    pub fn kill_after(&self, operations: u64) {
        self.state(|state| state.stop = Some(Stop { operations, is_cut: false }));
    }

    /// Returns whether the process has reached its planned end, and neither [`kill`](Self::kill)
    /// nor [`power_cut`](Self::power_cut) has been called since.
    pub fn is_dead(&self) -> bool {
        self.state(|state| state.is_dead)
    }

    // Faults.

    /// Sets the random faults from now on. Initially there are none.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.state(|state| state.faults = faults);
    }

    /// Sets the maximum number of allocated bytes of all files together; beyond it, writes and
    /// allocations return [`StorageFull`](std::io::ErrorKind::StorageFull). If there is space for a
    /// part of a write, the write is short. A file is allocated from its start to the end of its
    /// last write or allocation, gaps included; setting a length allocates nothing.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state(|state| state.capacity = bytes);
    }

    // What is on the disk.

    /// Returns the number of [operations](SimDisk#operations) so far, of all processes.
    pub fn operations(&self) -> u64 {
        self.state(|state| state.operations)
    }

    /// Returns the number of allocated bytes of all files that have a name or are open.
    pub fn bytes_used(&self) -> u64 {
        self.state(|state| state.bytes_used())
    }

    /// Returns the paths of all files, in order, and their lengths, as a process sees them.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.state(|state| {
            let named: Vec<_> = state.names.files().map(|(path, id)| (path.to_owned(), id)).collect();
            named.into_iter().map(|(path, id)| (path, state.file(id).contents.len() as u64)).collect()
        })
    }

    /// Returns the contents of a file, as a process sees them; `None` if there is no such file.
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.state(|state| {
            let id = state.names.find(&canonical(path.as_ref()))?;
            Some(state.file(id).contents.bytes().to_vec())
        })
    }

    /// Replaces the contents of a file, in the cache and on the disk. Creates the file and its
    /// directory if they are missing; its name is durable. Open files see the new contents.
    ///
    /// # Panics
    ///
    /// Panics if the path is a directory, or leads through a file.
    pub fn replace(&self, path: impl AsRef<Path>, contents: impl Into<Vec<u8>>) {
        let (path, contents) = (canonical(path.as_ref()), Contents::durable(contents.into()));
        let replaced = self.state(|state| {
            let has_place = path.parent().is_some_and(|parent| state.names.add_directory(parent));
            if !has_place || state.names.is_directory(&path) {
                return false;
            }
            let id = match state.names.find(&path) {
                Some(id) => {
                    state.file(id).contents = contents;
                    id
                }
                None => state.add(label(&path), contents),
            };
            state.names.put(&path, id);
            true
        });
        assert!(replaced, "{} cannot be a file", path.display());
        self.note_damage(&path);
    }

    /// Inverts a bit of a file, in the cache and on the disk. Bit 0 is the lowest bit of the first
    /// byte.
    ///
    /// # Panics
    ///
    /// Panics if there is no such file, or no such bit.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) {
        let path = canonical(path.as_ref());
        let flipped = self.state(|state| {
            let Some(id) = state.names.find(&path) else { return false };
            state.file(id).contents.flip(bit)
        });
        assert!(flipped, "{} has no bit {bit}", path.display());
        self.note_damage(&path);
    }

    fn note_damage(&self, path: &Path) {
        self.handle.lock().note_disk(self.index, Did::Damages { path: label(path) });
    }

    fn process(&self) -> ProcessId {
        self.state(|state| state.process(self.index))
    }

    fn state<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.handle.lock().disks[self.index as usize])
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("index", &self.index).finish_non_exhaustive()
    }
}
