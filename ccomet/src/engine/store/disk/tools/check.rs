//! `check`: reads all of a store, and compares its parts with each other.

use std::collections::BTreeMap;

use sealed::disk::Directory;

use super::records::Records;
use super::view::{View, open_index};
use super::{Damage, segment_name, segments};
use crate::engine::store::disk::index::{ChannelRow, INDEX_FILE, Index, IndexError, StoreState};
use crate::engine::store::disk::log::Segment;
use crate::engine::store::disk::opening::Refused;
use crate::engine::store::disk::places::SegmentId;
use crate::engine::store::disk::record::{ChannelId, SEGMENT_HEADER_BYTES, Salt, SegmentHeader};

/// The number of places of a channel that are compared at a time.
const PLACES: usize = 4_096;

/// The maximum number of damages that are returned.
const DAMAGES_MAX: usize = 1_000;

#[derive(Debug, Default)]
struct Damages(Vec<Damage>);

impl Damages {
    fn note(&mut self, file: &str, offset: Option<u64>, what: impl Into<String>) {
        if self.0.len() < DAMAGES_MAX {
            self.0.push(Damage { file: file.to_owned(), offset, what: what.into() });
        }
    }

    fn index(&mut self, what: impl Into<String>) {
        self.note(INDEX_FILE, None, what);
    }
}

/// Returns what is wrong with a store.
pub(in crate::engine::store::disk) fn check(
    directory: &Directory,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Damage>, Refused> {
    let mut damages = Damages::default();
    let opened = open_index(directory).and_then(|(mut index, state)| {
        progress("checksums of the index");
        Ok(index.verify().map(|()| (index, state))?)
    });
    let opened = match opened {
        Ok(opened) => Some(opened),
        Err(Refused::Index(error)) => {
            damages.index(error.to_string());
            None
        }
        Err(Refused::Damaged(what)) => {
            damages.index(what);
            None
        }
        Err(other) => return Err(other),
    };
    let salt = opened.as_ref().map(|(_, state)| state.salt);
    check_log(directory, salt, &mut damages, progress)?;
    let Some((index, state)) = opened else { return Ok(damages.0) };
    if let Err(error) = check_index(directory, &index, &state, &mut damages, progress) {
        damages.index(error.to_string());
    }
    // The damages of the log would be found here once more.
    if damages.0.is_empty() {
        progress("the log since the last checkpoint");
        match View::new(directory.clone(), index, state) {
            Ok(_) => {}
            Err(Refused::Damaged(what)) => damages.note("the log", None, what),
            Err(other) => return Err(other),
        }
    }
    Ok(damages.0)
}

/// Verifies the checksums of all segments, and that no commit is missing between others.
fn check_log(
    directory: &Directory,
    mut salt: Option<Salt>,
    damages: &mut Damages,
    progress: &mut dyn FnMut(&str),
) -> Result<(), Refused> {
    let ids = segments(directory).map_err(|error| Refused::Io("list the segments", error))?;
    // The last commit of a segment, and the segment.
    let mut before: Option<(SegmentId, u64, usize)> = None;
    for (count, id) in ids.iter().enumerate() {
        progress(&format!("segment {} of {}", count + 1, ids.len()));
        let name = segment_name(*id);
        let segment = match Segment::read(directory, *id) {
            Ok(segment) => segment,
            Err(error) => {
                damages.note(&name, None, error.to_string());
                continue;
            }
        };
        let sequence = match segment.header {
            SegmentHeader::Newer(version) => return Err(Refused::Newer(version)),
            SegmentHeader::Whole { id: has, salt: found, sequence }
                if has == u64::from(*id) && found == *salt.get_or_insert(found) =>
            {
                sequence
            }
            // It was being created.
            _ if count + 1 == ids.len() && salt.is_none_or(|salt| segment.next_frame(0, salt).is_none()) => {
                return Ok(());
            }
            _ => {
                damages.note(&name, Some(0), "the header of the segment is damaged, or of another store");
                continue;
            }
        };
        let Some(salt) = salt else { continue };
        if let Some((last, end, place)) = before
            && last + 1 == *id
            && end != sequence
        {
            let what = format!("the commits {} to {sequence} are missing at the end of the segment", end + 1);
            damages.note(&segment_name(last), Some(place as u64), what);
        }
        let (sequence, end) = check_segment(&name, &segment, salt, sequence, damages);
        before = Some((*id, sequence, end));
    }
    Ok(())
}

/// Verifies the frames of a segment. Returns the sequence of the last one, and its end.
fn check_segment(name: &str, segment: &Segment, salt: Salt, before: u64, damages: &mut Damages) -> (u64, usize) {
    let (mut sequence, mut offset) = (before, SEGMENT_HEADER_BYTES);
    loop {
        while let Some(frame) = segment.frame(offset, salt) {
            if frame.sequence != sequence + 1 {
                let what = format!("commit {} follows commit {sequence}", frame.sequence);
                damages.note(name, Some(offset as u64), what);
            }
            for record in frame.records(salt) {
                if record.is_none() {
                    damages.note(name, Some(offset as u64), "a record of the commit cannot be read");
                }
            }
            (sequence, offset) = (frame.sequence, offset + frame.length());
        }
        // A broken commit is a damage if a later one knows that it was on the disk.
        let mut place = offset;
        let lost = loop {
            let Some((next, frame)) = segment.next_frame(place, salt) else { return (sequence, offset) };
            if frame.synced > sequence {
                break next;
            }
            place = next;
        };
        let what = format!("a commit is damaged: the next one that can be read is at byte {lost}");
        damages.note(name, Some(offset as u64), what);
        if let Some((_, frame)) = segment.next_frame(lost - 1, salt) {
            sequence = frame.sequence - 1;
        }
        offset = lost;
    }
}

/// Compares the channels of the index with their messages, and the bytes of segments with both.
fn check_index(
    directory: &Directory,
    index: &Index,
    state: &StoreState,
    damages: &mut Damages,
    progress: &mut dyn FnMut(&str),
) -> Result<(), IndexError> {
    let mut records = Records::new(directory.clone(), state.salt);
    let (mut live, mut last, mut count) = (BTreeMap::new(), 0, 0_u64);
    loop {
        let rows = index.checked_rows_after(last, 1_000)?;
        if rows.is_empty() {
            break;
        }
        for (id, row) in rows {
            // What has places but no channel is between the channels.
            while let Some(owner) = index.owner_after(last)?.filter(|owner| *owner < id) {
                damages.index(format!("messages are listed for channel id {owner}, which no channel has"));
                last = owner;
            }
            if index.id_of(row.name.as_str())? != Some(id) {
                damages.index(format!("the name {} does not lead to its channel, id {id}", row.name));
            }
            check_channel(index, id, &row, &mut records, &mut live, damages)?;
            (last, count) = (id, count + 1);
        }
        progress(&format!("{count} channels"));
    }
    if let Some(owner) = index.owner_after(last)? {
        damages.index(format!("messages are listed for channel id {owner}, which no channel has"));
    }
    if index.name_count()? != count {
        damages.index(format!("the index has {} names for {count} channels", index.name_count()?));
    }
    let counted = index.segments()?;
    for id in live.keys().chain(counted.keys().filter(|id| !live.contains_key(id))) {
        let (is, counts) = (live.get(id).copied().unwrap_or(0), counted.get(id).copied().unwrap_or(0));
        if is != counts {
            damages.index(format!(
                "the kept messages in {} have {is} bytes, but the index counts {counts}",
                segment_name(*id)
            ));
        }
    }
    Ok(())
}

/// Compares a channel of the index with its messages. Adds their bytes to those of the segments.
fn check_channel(
    index: &Index,
    id: ChannelId,
    row: &ChannelRow,
    records: &mut Records,
    live: &mut BTreeMap<SegmentId, u64>,
    damages: &mut Damages,
) -> Result<(), IndexError> {
    let (mut next, mut bytes) = (row.first, 0);
    loop {
        let entries = index.entries(id, next, false, PLACES)?;
        let Some((last, _)) = entries.last() else { break };
        let after = last + 1;
        for (number, entry) in entries {
            if number != next || number >= row.next {
                damages.index(format!("channel {} has message number {number} instead of {next}", row.name));
            }
            next = number + 1;
            bytes += u64::from(entry.cost);
            *live.entry(entry.segment).or_default() += u64::from(entry.length);
            let what = match records.message(id, number, entry) {
                Err(why) => why,
                Ok(message) if message.time() != entry.time || message.cost() != entry.cost as usize => {
                    "time or size differ from the index".to_owned()
                }
                Ok(_) => continue,
            };
            let what = format!("message number {number} of channel {}: {what}", row.name);
            damages.note(&segment_name(entry.segment), Some(entry.offset.into()), what);
        }
        next = next.max(after);
    }
    if next != row.next {
        damages.index(format!("channel {} lacks the message numbers {next} to {}", row.name, row.next - 1));
    }
    if bytes != row.bytes {
        damages.index(format!(
            "the messages of channel {} have {bytes} bytes, but the index counts {}",
            row.name, row.bytes
        ));
    }
    Ok(())
}
