//! A file that only takes room: it is removed if the index cannot be written on a full disk, since
//! a checkpoint is what lets old messages go, and for changes that free room (`room.rs`). It is made again once there is room.

use std::io;

use sealed::disk::Directory;
use sealed::fault;

use super::shared::SharedStore;

const RESERVE_FILE: &str = "reserve";

/// The share of a segment that the reserve takes, so that it is too small for the next segment.
const SHARE: u32 = 4;

/// The bytes that the reserve takes at least: an index changes in pages of 4 KiB.
const RESERVE_BYTES_MIN: u32 = 64 * 1024;

/// Returns the bytes of the reserve of a store with segments of so many bytes.
pub(super) fn reserve_bytes(segment_bytes: u32) -> u32 {
    (segment_bytes / SHARE).max(RESERVE_BYTES_MIN)
}

/// Makes the reserve, if there is room for it.
pub(super) fn make_reserve(directory: &Directory, segment_bytes: u32) -> io::Result<()> {
    let file = match directory.create(RESERVE_FILE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    };
    if let Err(error) = file.allocate(reserve_bytes(segment_bytes).into()) {
        let _ = directory.remove(RESERVE_FILE);
        return Err(error);
    }
    Ok(())
}

/// Gives the room of the reserve back to the disk.
pub(super) fn release_reserve(directory: &Directory) {
    if !fault!("reserve-kept") {
        // Without a reserve, or if this fails, the disk stays full.
        let _ = directory.remove(RESERVE_FILE);
    }
}

impl SharedStore {
    /// Makes the reserve again, if there is room for it.
    pub(super) fn keep_reserve(&self) {
        // If this fails, the next checkpoint tries again.
        let _ = make_reserve(&self.directory, self.settings.segment_bytes);
    }
}
