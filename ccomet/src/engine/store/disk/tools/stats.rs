//! `stats`: how much a store has.

use std::time::{Duration, SystemTime};

use sealed::disk::Directory;

use super::view::View;
use super::{segment_name, segments};
use crate::core::time::UnixMillis;
use crate::engine::store::disk::index::INDEX_FILE;
use crate::engine::store::disk::opening::Refused;

/// The size of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// The number of channels.
    pub channels: u64,
    /// The number of messages that are kept.
    pub messages: u64,
    /// The bytes that kept messages take in the log.
    pub bytes_kept: u64,
    /// The length of all files of the store.
    pub bytes_on_disk: u64,
    /// The length of the index.
    pub index_bytes: u64,
    /// The segments of the log, in order.
    pub segments: Vec<SegmentStats>,
    /// The time of the oldest message.
    pub oldest: Option<SystemTime>,
    /// The time of the newest message.
    pub newest: Option<SystemTime>,
    /// The segment and the offset up to which the index has the log.
    pub checkpoint: (String, u64),
    /// The bytes of the log after the checkpoint, which the server reads when it starts.
    pub bytes_behind_checkpoint: u64,
}

/// The size of a segment of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentStats {
    /// The name of its file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// The bytes that kept messages take.
    pub live_bytes: u64,
}

/// Counts what a store has.
pub(in crate::engine::store::disk) fn stats(
    directory: &Directory,
    progress: &mut dyn FnMut(&str),
) -> Result<StoreStats, Refused> {
    let view = View::open(directory)?;
    let mut stats = StoreStats::default();
    count_messages(&view, &mut stats, progress)?;
    let length = |name: &str| {
        let length = directory.open(name).and_then(|file| file.len());
        length.map_err(|error| Refused::Io("read the size of a file", error))
    };
    let live = view.live_bytes()?;
    let position = view.state.position;
    for id in segments(directory).map_err(|error| Refused::Io("list the segments", error))? {
        let file = segment_name(id);
        let bytes = length(&file)?;
        let live_bytes = live.get(&id).copied().unwrap_or(0);
        stats.bytes_kept += live_bytes;
        stats.bytes_on_disk += bytes;
        let end = if id == view.end.0 { view.end.1 as u64 } else { bytes };
        if id >= position.segment && id <= view.end.0 {
            let begin = if id == position.segment { position.offset.into() } else { 0 };
            stats.bytes_behind_checkpoint += end.saturating_sub(begin);
        }
        stats.segments.push(SegmentStats { file, bytes, live_bytes });
    }
    stats.index_bytes = length(INDEX_FILE)?;
    stats.bytes_on_disk += stats.index_bytes;
    stats.checkpoint = (segment_name(position.segment), position.offset.into());
    Ok(stats)
}

fn count_messages(view: &View, stats: &mut StoreStats, progress: &mut dyn FnMut(&str)) -> Result<(), Refused> {
    let (mut oldest, mut newest): (Option<UnixMillis>, Option<UnixMillis>) = (None, None);
    for id in view.channels()?.into_values() {
        let Some(row) = view.row(id)? else { continue };
        stats.channels += 1;
        stats.messages += row.next - row.first;
        if let Some((_, first)) = view.entries(id, row.first, 1)?.first() {
            oldest = Some(oldest.map_or(first.time, |oldest| oldest.min(first.time)));
            newest = newest.max(Some(row.used));
        }
        if stats.channels.is_multiple_of(1_000) {
            progress(&format!("{} channels", stats.channels));
        }
    }
    let time = |time: UnixMillis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(time.as_millis()));
    (stats.oldest, stats.newest) = (oldest.and_then(time), newest.and_then(time));
    Ok(())
}
