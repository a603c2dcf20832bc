//! The reasons why a store cannot be opened or used.

use std::io;
use std::path::PathBuf;

/// The reason why a store cannot be opened, or a tool cannot do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory, or a file in it, cannot be created, read or written.
    #[error("cannot {action} in the store {}", path.display())]
    Io {
        /// What failed.
        action: &'static str,
        /// The directory of the store.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The operating system has no random bits for a new store.
    #[error("the operating system has no random bits for the store")]
    NoRandomBits,
    /// Another process uses the directory.
    #[error("another process uses the store {}: stop it, or make a backup and use that", .0.display())]
    InUse(PathBuf),
    /// The directory has no store.
    #[error("there is no store in {}", .0.display())]
    NoStore(PathBuf),
    /// The store does not have the channel that a tool is to print.
    #[error("the store {} has no channel {channel:?}", path.display())]
    NoChannel {
        /// The directory of the store.
        path: PathBuf,
        /// The name.
        channel: String,
    },
    /// The directory to which a tool writes exists already.
    #[error("{} exists already: name a directory that does not exist", .0.display())]
    Exists(PathBuf),
    /// The directory to which a tool writes first exists already.
    #[error("{} is left over from a tool that was interrupted: remove it, unless a tool is running", .0.display())]
    Unfinished(PathBuf),
    /// The directory to which a tool writes is in that of the store.
    #[error("{} is in the directory of the store: name a directory outside of it", .0.display())]
    Inside(PathBuf),
    /// A newer version of the program has written the store.
    #[error("the store {} has format {found}, of a newer version: this version knows formats up to {known}", path.display())]
    Newer {
        /// The directory of the store.
        path: PathBuf,
        /// The format of the store.
        found: u32,
        /// The newest format that this version of the program knows.
        known: u32,
    },
    /// An earlier version of the program has written the store.
    #[error(
        "the store {} has format {found}, of an earlier version: this version knows format {known}. Keep its messages \
         with `ccomet store salvage`",
        path.display()
    )]
    Older {
        /// The directory of the store.
        path: PathBuf,
        /// The format of the store.
        found: u32,
        /// The format that this version of the program writes.
        known: u32,
    },
    /// The disk has no room for what is to be written.
    #[error("the disk of {} is full: make room on it", path.display())]
    Full {
        /// The directory for which there is no room.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Parts of the store are missing or damaged: a disk has changed or lost them.
    #[error("the store {} is damaged: {what}. Restore a backup, or keep what can be read with `ccomet store salvage`", path.display())]
    Damaged {
        /// The directory of the store.
        path: PathBuf,
        /// The damage, and where it is.
        what: String,
    },
    /// The index cannot be read or written.
    #[error(
        "the index of the store {} cannot be used: look with `ccomet store check`, and restore a backup, or keep what \
         can be read with `ccomet store salvage`",
        path.display()
    )]
    Index {
        /// The directory of the store.
        path: PathBuf,
        /// The error of the database.
        source: Box<redb::Error>,
    },
}
