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
    /// The directory to which a tool writes is there already.
    #[error("{} is there already: name a directory that does not exist", .0.display())]
    Exists(PathBuf),
    /// The directory that a tool makes first is there already.
    #[error("{} is left from a tool that was ended: remove it if none is running", .0.display())]
    Unfinished(PathBuf),
    /// A newer version of the program has written the store.
    #[error("the store {} has format {found}, which a newer version has written: this one knows {known}", path.display())]
    Newer {
        /// The directory of the store.
        path: PathBuf,
        /// The format of the store.
        found: u32,
        /// The newest format that this version of the program knows.
        known: u32,
    },
    /// Parts of the store are missing or damaged: a disk has changed or lost them.
    #[error("the store {} is damaged: {what}. `ccomet store salvage` keeps what can be read", path.display())]
    Damaged {
        /// The directory of the store.
        path: PathBuf,
        /// The damage, and where it is.
        what: String,
    },
    /// The index cannot be read or written.
    #[error(
        "the index of the store {} cannot be used: restore a backup, or keep what can be read with `ccomet store salvage`",
        path.display()
    )]
    Index {
        /// The directory of the store.
        path: PathBuf,
        /// The error of the database.
        source: Box<redb::Error>,
    },
}
