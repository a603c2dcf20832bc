//! Tools for a store: `check`, `stats`, `dump` and `salvage` for one whose server is stopped, and
//! `backup` for one that is in use.
//!
//! A tool that reads sees a store as the server would after a start (`view.rs`), but writes
//! nothing. A tool that makes a store writes it to a directory with another name, which it renames
//! at the end: a directory with the final name has a complete store.

pub(super) mod backup;
pub(super) mod check;
pub(super) mod dump;
mod records;
mod rescue;
pub(super) mod salvage;
pub(super) mod stats;
pub(super) mod view;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use sealed::disk::{Directory, Disk};

pub use self::backup::BackedUp;
pub use self::salvage::Salvaged;
pub use self::stats::{SegmentStats, StoreStats};
use self::view::{Held, View};
use super::error::StoreError;
use super::log::{segment_name, segments};
use super::opening::Refused;

/// A damaged place in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The name of the file.
    pub file: String,
    /// The offset in the file, if the damage is at one place.
    pub offset: Option<u64>,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} at byte {offset}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// The tools for the store in a directory.
///
/// All but [`backup`](Self::backup) need the store for themselves: they return
/// [`StoreError::InUse`] while a server uses it.
///
/// # Examples
/// ```no_run
/// let tools = ccomet::StoreTools::new("/var/lib/ccomet/store");
/// let mut tools = tools.on_progress(|step| eprintln!("{step}"));
/// for damage in tools.check()? {
///     println!("{damage}");
/// }
/// # Ok::<(), ccomet::StoreError>(())
/// ```
pub struct StoreTools {
    path: PathBuf,
    progress: Box<dyn FnMut(&str)>,
}

impl fmt::Debug for StoreTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreTools").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StoreTools {
    /// Creates the tools for a directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), progress: Box::new(|_| {}) }
    }

    /// Sets a function that the tools call often, with the current step of the work as text.
    #[must_use]
    pub fn on_progress(mut self, progress: impl FnMut(&str) + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Reads all of the store, and returns each damaged place, at most 1,000.
    ///
    /// # Errors
    /// If the directory has no store, if it is in use, or if it cannot be read.
    pub fn check(&mut self) -> Result<Vec<Damage>, StoreError> {
        let held = self.hold()?;
        check::check(&held.directory, &mut *self.progress).map_err(|refused| refused.at(self.path.clone()))
    }

    /// Counts the channels, messages and bytes of the store.
    ///
    /// # Errors
    /// In the cases of [`check`](Self::check), and if the store is damaged.
    pub fn stats(&mut self) -> Result<StoreStats, StoreError> {
        let held = self.hold()?;
        stats::stats(&held.directory, &mut *self.progress).map_err(|refused| refused.at(self.path.clone()))
    }

    /// Writes the messages of one channel, or of all, each as a line of JSON. Returns their number.
    ///
    /// # Errors
    /// In the cases of [`check`](Self::check), if the store is damaged or does not have the
    /// channel, and if `out` fails.
    pub fn dump(&mut self, channel: Option<&str>, out: &mut dyn io::Write) -> Result<u64, StoreError> {
        let held = self.hold()?;
        let dumped = View::open(&held.directory).and_then(|view| dump::dump(&view, channel, out, &mut *self.progress));
        let dumped = dumped.map_err(|refused| refused.at(self.path.clone()))?;
        let channel = || channel.unwrap_or_default().to_owned();
        dumped.ok_or_else(|| StoreError::NoChannel { path: self.path.clone(), channel: channel() })
    }

    /// Makes a new store in the directory `to`, with all messages of this one that can be read.
    /// This store does not change, and may be one that the server refuses to open.
    ///
    /// With `new_epochs`, all channels get new epochs, so that readers that resume are notified of
    /// a gap. Use it if clients may have read messages that are newer than this store: otherwise
    /// their positions could come to refer to other messages.
    ///
    /// # Errors
    /// If the directory has no store, if it is in use, if `to` exists, is in the directory of this
    /// store or cannot be written, or if a newer version has written the store.
    pub fn salvage(&mut self, to: &Path, new_epochs: bool) -> Result<Salvaged, StoreError> {
        let held = self.hold()?;
        let (path, progress) = (&self.path, &mut *self.progress);
        make(path, to, |new| salvage::salvage(&held.directory, new, new_epochs, progress))
    }

    /// Copies the store to the directory `to`, whether a server uses the store or not. The copy has
    /// everything that was accepted before the call.
    ///
    /// # Errors
    /// If the directory has no store, if `to` exists, is in the directory of this store or cannot
    /// be written, or if the copy is damaged, which means that the store is damaged too.
    pub fn backup(&mut self, to: &Path) -> Result<BackedUp, StoreError> {
        let directory = self.open()?;
        let (path, progress) = (&self.path, &mut *self.progress);
        make(path, to, |new| backup::backup(&directory, new, progress))
    }

    fn open(&self) -> Result<Directory, StoreError> {
        let none = || StoreError::NoStore(self.path.clone());
        if !self.path.is_dir() {
            return Err(none());
        }
        let opened = Disk::system().open_dir(&self.path).and_then(|directory| {
            let has_log = !segments(&directory)?.is_empty();
            let has_index = directory.list()?.iter().any(|name| name == super::index::INDEX_FILE);
            Ok((directory, has_log || has_index))
        });
        match opened {
            Ok((directory, true)) => Ok(directory),
            Ok((_, false)) => Err(none()),
            Err(source) => Err(StoreError::Io { action: "open the directory", path: self.path.clone(), source }),
        }
    }

    fn hold(&self) -> Result<Held, StoreError> {
        let path = self.path.clone();
        Held::lock(self.open()?).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::InUse(path),
            _ => StoreError::Io { action: "lock the directory", path, source: error },
        })
    }
}

/// Returns a random number for the salt of a new store, or for an epoch.
fn random() -> Result<u32, Refused> {
    let bits: Result<[u8; 4], _> = ring::rand::generate(&SystemRandom::new()).map(ring::rand::Random::expose);
    let failed = |_| Refused::Io("get random bits for the store", io::Error::other("the system has none"));
    bits.map(u32::from_ne_bytes).map_err(failed)
}

/// Makes a directory, out of the store in `from`, under another name, fills it, and renames it at
/// the end.
fn make<T>(from: &Path, to: &Path, fill: impl FnOnce(&Directory) -> Result<T, Refused>) -> Result<T, StoreError> {
    let disk = Disk::system();
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    // Of a symbolic link too, even if it leads to nothing.
    if to.symlink_metadata().is_ok() {
        return Err(StoreError::Exists(to.to_owned()));
    }
    if partial.symlink_metadata().is_ok() {
        return Err(StoreError::Unfinished(partial));
    }
    if is_inside(from, to) {
        return Err(StoreError::Inside(to.to_owned()));
    }
    let io = |action| move |source| StoreError::Io { action, path: to.to_owned(), source };
    let directory = disk.open_dir(&partial).map_err(io("create the directory"))?;
    let filled = fill(&directory);
    drop(directory);
    if filled.is_err() {
        // Otherwise, the next attempt would be refused because of it.
        let _ = std::fs::remove_dir_all(&partial);
    }
    // The store is only read.
    let filled = filled.map_err(|refused| {
        let full = if refused.says_full() { to } else { from };
        refused.at(full.to_owned())
    })?;
    std::fs::rename(&partial, to).map_err(io("rename the new directory"))?;
    disk.open_dir(parent_of(to)).and_then(|parent| parent.sync()).map_err(io("sync the directory above"))?;
    Ok(filled)
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns whether a directory that does not exist would be in another one.
fn is_inside(outer: &Path, new: &Path) -> bool {
    let Ok(outer) = outer.canonicalize() else { return false };
    let mut above = new.ancestors().map(parent_of).filter_map(|above| above.canonicalize().ok());
    above.next().is_some_and(|above| above.starts_with(outer))
}
