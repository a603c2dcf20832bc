//! Where the log has the messages of a channel.

use crate::core::time::UnixMillis;
use crate::engine::store::binary::{Input, put_signed, put_varint};

/// The number of a segment. Numbers increase, and are not used twice.
pub(super) type SegmentId = u32;

/// The number of entries of a whole block.
pub(super) const BLOCK_ENTRIES: usize = 64;

/// The place of a message in the log, and what retention has to know of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) segment: SegmentId,
    /// The offset of its record in the segment.
    pub(super) offset: u32,
    /// The length of its record.
    pub(super) length: u32,
    /// Its share of the history's limit, in bytes.
    pub(super) cost: u32,
    pub(super) time: UnixMillis,
}

impl Entry {
    /// Returns the offset after its record.
    pub(super) fn end(&self) -> u32 {
        self.offset.saturating_add(self.length)
    }
}

/// Appends entries to an encoded block. `last` is the entry before, or `None` at the beginning of
/// the block.
pub(super) fn append_entries(block: &mut Vec<u8>, last: Option<Entry>, entries: &[Entry]) {
    let mut before = last.unwrap_or(NOTHING);
    for entry in entries {
        let difference = |now: u64, before: u64| now.wrapping_sub(before).cast_signed();
        put_signed(block, difference(entry.segment.into(), before.segment.into()));
        put_signed(block, difference(entry.offset.into(), before.offset.into()));
        put_varint(block, entry.length.into());
        put_signed(block, difference(entry.cost.into(), entry.length.into()));
        put_signed(block, difference(entry.time.as_millis(), before.time.as_millis()));
        before = *entry;
    }
}

/// Decodes a block; `None` if it is damaged.
pub(super) fn decode_block(block: &[u8]) -> Option<Vec<Entry>> {
    let (mut rest, mut before, mut entries) = (Input(block), NOTHING, Vec::with_capacity(BLOCK_ENTRIES));
    while !rest.0.is_empty() {
        let sum = |before: u64, difference: i64| before.wrapping_add(difference.cast_unsigned());
        let narrow = |value: u64| u32::try_from(value).ok();
        let segment = narrow(sum(before.segment.into(), rest.signed()?))?;
        let offset = narrow(sum(before.offset.into(), rest.signed()?))?;
        let length = narrow(rest.varint()?)?;
        let cost = narrow(sum(length.into(), rest.signed()?))?;
        let time = UnixMillis::from_millis(sum(before.time.as_millis(), rest.signed()?));
        before = Entry { segment, offset, length, cost, time };
        entries.push(before);
    }
    Some(entries)
}

const NOTHING: Entry = Entry { segment: 0, offset: 0, length: 0, cost: 0, time: UnixMillis::from_millis(0) };

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(segment: u32, offset: u32, time: u64) -> Entry {
        Entry { segment, offset, length: 250, cost: 300, time: UnixMillis::from_millis(time) }
    }

    #[test]
    fn a_block_keeps_its_entries_in_any_order_of_places() {
        let entries = [entry(7, 28, 1_000), entry(7, 500, 900), entry(9, 3, u64::MAX), entry(1, u32::MAX, 0)];
        let mut block = Vec::new();
        append_entries(&mut block, None, &entries[..1]);
        append_entries(&mut block, Some(entries[0]), &entries[1..]);
        assert_eq!(decode_block(&block).as_deref(), Some(&entries[..]));
        block.pop();
        assert_eq!(decode_block(&block), None);
    }
}
