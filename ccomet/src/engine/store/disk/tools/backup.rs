//! `backup`: a copy of a store that a server uses.
//!
//! The server writes the index, and removes segments that the index no longer needs, while it holds
//! the lock of the index. The backup holds this lock while it opens all segments and copies the
//! index, and the server waits with the next checkpoint. What is removed afterwards can still be
//! read from the open files. Segments only grow: all but the last are complete, and the last one is
//! copied up to the first frame that is not whole. So the copy is what a server would find if it
//! had been killed at some moment during the call.

use std::io;

use sealed::disk::{Directory, File};

use super::{check, segment_name, segments};
use crate::engine::store::disk::index::INDEX_FILE;
use crate::engine::store::disk::log::{Segment, copy};
use crate::engine::store::disk::opening::{Refused, lock_index_if_there};
use crate::engine::store::disk::places::SegmentId;
use crate::engine::store::disk::record::{SEGMENT_HEADER_BYTES, SegmentHeader};

/// The size of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedUp {
    /// The number of segments.
    pub segments: u64,
    /// The bytes of all files.
    pub bytes: u64,
}

/// Copies a store, and checks the copy.
pub(in crate::engine::store::disk) fn backup(
    from: &Directory,
    to: &Directory,
    progress: &mut dyn FnMut(&str),
) -> Result<BackedUp, Refused> {
    progress("the index");
    let (files, mut bytes) = hold_still(from, to).map_err(|error| Refused::Io("copy the index", error))?;
    let count = files.len();
    for (index, (id, file)) in files.iter().enumerate() {
        progress(&format!("segment {} of {count}", index + 1));
        let copied = if index + 1 == count {
            copy_last(*id, file, to)
        } else {
            to.create(&segment_name(*id)).and_then(|new| copy(file, &new))
        };
        bytes += copied.map_err(|error| Refused::Io("copy a segment", error))?;
    }
    to.sync().map_err(|error| Refused::Io("sync the directory", error))?;
    match check::check(to, progress)?.first() {
        Some(damage) => Err(Refused::Damaged(damage.to_string())),
        None => Ok(BackedUp { segments: count as u64, bytes }),
    }
}

/// Opens all segments and copies the index while neither changes. Returns the segments, and the
/// bytes of the index.
fn hold_still(from: &Directory, to: &Directory) -> io::Result<(Vec<(SegmentId, File)>, u64)> {
    let lock = lock_index_if_there(from)?;
    let mut files = Vec::new();
    for id in segments(from)? {
        match from.open(&segment_name(id)) {
            Ok(file) => files.push((id, file)),
            // The index does not need it since the last checkpoint.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let bytes = copy(&from.open(INDEX_FILE)?, &to.create(INDEX_FILE)?)?;
    if lock.is_none() && lock_index_if_there(from)?.is_some() {
        return Err(io::Error::other("a server has begun to use the store meanwhile: try again"));
    }
    Ok((files, bytes))
}

/// Copies the last segment, which the server may be writing, up to the first frame that is not
/// whole.
fn copy_last(id: SegmentId, from: &File, to: &Directory) -> io::Result<u64> {
    let segment = read(from)?;
    // Otherwise it is being created.
    let SegmentHeader::Whole { salt, .. } = segment.header else { return Ok(0) };
    let mut end = SEGMENT_HEADER_BYTES;
    while let Some(frame) = segment.frame(end, salt) {
        end += frame.length();
    }
    // A frame that was written during the call is whole now.
    if segment.next_frame(end, salt).is_some() && read(from)?.frame(end, salt).is_none() {
        return Err(io::Error::other(format!("{} is damaged at byte {end}", segment_name(id))));
    }
    let file = to.create(&segment_name(id))?;
    file.write_all_at(&segment.bytes[..end], 0)?;
    file.sync_data()?;
    Ok(end as u64)
}

fn read(file: &File) -> io::Result<Segment> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    let mut filled = 0;
    // The server may cut off what the segment has not used.
    while let count @ 1.. = file.read_at(&mut bytes[filled..], filled as u64)? {
        filled += count;
    }
    bytes.truncate(filled);
    Ok(Segment::of(bytes))
}
