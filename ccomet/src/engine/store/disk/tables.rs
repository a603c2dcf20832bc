//! Writing the index: the tables of one transaction.

use std::collections::BTreeMap;

use redb::{ReadableTable, Table, WriteTransaction};
use sealed::fault;

use super::index::{
    BLOCKS, CHANNELS, ChannelRow, ChannelUpdate, IndexError, KEY_TIMES, KEYS, KeyValue, META, Moved, NAMES, Result,
    SEGMENTS, StoreState, block_places, damaged_row, decode_count, decode_key, encode_block, encode_count, encode_key,
    encode_state, numbered, report_row, row, row_damage, wrap,
};
use super::places::{BLOCK_ENTRIES, Entry, SegmentId, append_entries, decode_block};
use super::record::ChannelId;
use crate::core::time::UnixMillis;

/// The tables of a transaction.
pub(super) struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    names: Table<'t, &'static str, u64>,
    channels: Table<'t, u64, &'static [u8]>,
    blocks: Table<'t, (u64, u64), &'static [u8]>,
    keys: Table<'t, (u64, &'static str), KeyValue>,
    key_times: Table<'t, (u64, u64, &'static str), ()>,
    segments: Table<'t, u32, (u64, u32)>,
    /// The bytes of each segment that are kept in addition, or no longer.
    gained: BTreeMap<SegmentId, i64>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self> {
        Ok(Self {
            meta: transaction.open_table(META).map_err(wrap)?,
            names: transaction.open_table(NAMES).map_err(wrap)?,
            channels: transaction.open_table(CHANNELS).map_err(wrap)?,
            blocks: transaction.open_table(BLOCKS).map_err(wrap)?,
            keys: transaction.open_table(KEYS).map_err(wrap)?,
            key_times: transaction.open_table(KEY_TIMES).map_err(wrap)?,
            segments: transaction.open_table(SEGMENTS).map_err(wrap)?,
            gained: BTreeMap::new(),
        })
    }

    pub(super) fn update(&mut self, update: &ChannelUpdate) -> Result<()> {
        let ChannelUpdate { id, row: new, begin, entries, keys } = update;
        let earlier = self.names.insert(new.name.as_str(), id).map_err(wrap)?.map(|earlier| earlier.value());
        if let Some(earlier) = earlier.filter(|earlier| earlier != id) {
            // Its publication was refused, or its removal is not in the log.
            self.remove(earlier)?;
        }
        let old = self.row_before(*id, new)?;
        if let Some(old) = &old
            && new.first > old.first
        {
            self.drop_before(*id, old.first, new.first)?;
        }
        // The log may show again what the index has.
        let from = old.map_or(new.first, |old| old.next.max(new.first));
        let skipped = usize::try_from(from.saturating_sub(*begin)).unwrap_or(usize::MAX).min(entries.len());
        self.append(*id, begin + skipped as u64, &entries[skipped..])?;
        for key in keys {
            self.keys.insert((*id, &*key.key), encode_key(*id, key)).map_err(wrap)?;
            self.key_times.insert((key.time.as_millis(), *id, &*key.key), ()).map_err(wrap)?;
        }
        self.channels.insert(id, new.encode(*id).as_slice()).map_err(wrap)?;
        Ok(())
    }

    /// Returns the row that an update replaces. If it is damaged, the new one mends it, and what
    /// the channel drops before that counts as kept.
    fn row_before(&self, id: ChannelId, new: &ChannelRow) -> Result<Option<ChannelRow>> {
        match row(&self.channels, id) {
            Err(error) if row_damage(&error).is_some() => report_row(&error),
            other => return other,
        }
        let last = self.blocks.range((id, 0)..=(id, u64::MAX)).map_err(wrap)?.next_back();
        let last = last.transpose().map_err(wrap)?.map(|item| numbered(&item)).transpose()?;
        let next = last.and_then(|block| block.last().map(|(number, _)| number + 1)).unwrap_or(new.first);
        Ok(Some(ChannelRow { next, ..new.clone() }))
    }

    /// Adds places to the last block of a channel, and to new blocks.
    fn append(&mut self, id: ChannelId, mut begin: u64, mut entries: &[Entry]) -> Result<()> {
        for entry in entries {
            *self.gained.entry(entry.segment).or_default() += i64::from(entry.length);
        }
        let last = {
            let last = self.blocks.range((id, 0)..=(id, begin)).map_err(wrap)?.next_back();
            let last = last.transpose().map_err(wrap)?;
            last.map(|item| {
                let held = numbered(&item)?;
                let ((id, first), value) = (item.0.value(), item.1.value());
                let places = block_places(id, first, value).unwrap_or_default().to_vec();
                Ok::<_, IndexError>((first, places, held))
            })
        };
        if let Some((first, mut block, held)) = last.transpose()?
            && held.last().is_some_and(|(number, _)| number + 1 == begin)
            && held.len() < BLOCK_ENTRIES
        {
            let (now, later) = entries.split_at(entries.len().min(BLOCK_ENTRIES - held.len()));
            append_entries(&mut block, held.last().map(|(_, entry)| *entry), now);
            self.blocks.insert((id, first), encode_block(id, first, block).as_slice()).map_err(wrap)?;
            (begin, entries) = (begin + now.len() as u64, later);
        }
        for entries in entries.chunks(BLOCK_ENTRIES) {
            let mut block = Vec::new();
            append_entries(&mut block, None, entries);
            self.blocks.insert((id, begin), encode_block(id, begin, block).as_slice()).map_err(wrap)?;
            begin += entries.len() as u64;
        }
        Ok(())
    }

    /// Drops the places of the messages `first .. end` of a channel, which are the oldest.
    fn drop_before(&mut self, id: ChannelId, first: u64, end: u64) -> Result<()> {
        let (gained, mut error) = (&mut self.gained, None);
        let keep = |(_, begin): (u64, u64), block: &[u8]| {
            let Some(entries) = block_places(id, begin, block).and_then(decode_block) else {
                error = Some(damaged_row(&format!("the places of messages of the channel with id {id}")));
                return true;
            };
            for (number, entry) in (begin..).zip(&entries) {
                if (first..end).contains(&number) && !fault!("dropped-places-still-count") {
                    *gained.entry(entry.segment).or_default() -= i64::from(entry.length);
                }
            }
            begin + entries.len() as u64 > end
        };
        self.blocks.retain_in((id, 0)..(id, end), keep).map_err(wrap)?;
        error.map_or(Ok(()), Err)
    }

    pub(super) fn remove(&mut self, id: ChannelId) -> Result<()> {
        let row = match row(&self.channels, id) {
            // What the channel has dropped before is not known: all its bytes count as kept.
            Err(error) if row_damage(&error).is_some() => {
                report_row(&error);
                self.drop_before(id, u64::MAX, u64::MAX)?;
                self.channels.remove(id).map_err(wrap)?;
                self.names.retain(|_, named| named != id).map_err(wrap)?;
                return self.keys.retain_in((id, "")..(id + 1, ""), |_, _| false).map_err(wrap);
            }
            row => row?,
        };
        let Some(row) = row else { return Ok(()) };
        self.drop_before(id, row.first, u64::MAX)?;
        self.channels.remove(id).map_err(wrap)?;
        let named = self.names.get(row.name.as_str()).map_err(wrap)?.map(|named| named.value());
        if named == Some(id) {
            self.names.remove(row.name.as_str()).map_err(wrap)?;
        }
        self.keys.retain_in((id, "")..(id + 1, ""), |_, _| false).map_err(wrap)
    }

    pub(super) fn drop_keys(&mut self, from: UnixMillis) -> Result<()> {
        let mut old = Vec::new();
        for item in self.key_times.range((0, 0, "")..(from.as_millis(), 0, "")).map_err(wrap)? {
            let key = item.map_err(wrap)?.0;
            let (time, id, key) = key.value();
            old.push((time, id, key.to_owned()));
        }
        for (time, id, key) in &old {
            self.key_times.remove((*time, *id, key.as_str())).map_err(wrap)?;
            let kept = self.keys.get((*id, key.as_str())).map_err(wrap)?.map(|value| value.value());
            // The key may have been used again.
            let is_old = |kept| decode_key(*id, key, kept).map_or(true, |kept| kept.time.as_millis() == *time);
            if kept.is_some_and(is_old) {
                self.keys.remove((*id, key.as_str())).map_err(wrap)?;
            }
        }
        Ok(())
    }

    /// Replaces the place of a message that was moved, unless it was dropped meanwhile.
    pub(super) fn move_place(&mut self, moved: &Moved) -> Result<()> {
        let Moved { id, number, from, to } = *moved;
        if row(&self.channels, id)?.is_none_or(|row| row.first > number) {
            return Ok(());
        }
        let found = {
            let block = self.blocks.range((id, 0)..=(id, number)).map_err(wrap)?.next_back();
            block.transpose().map_err(wrap)?.map(|item| Ok::<_, IndexError>((item.0.value().1, numbered(&item)?)))
        };
        let Some((begin, mut entries)) = found.transpose()? else { return Ok(()) };
        let Some((_, entry)) = entries.iter_mut().find(|(found, entry)| *found == number && *entry == from) else {
            return Ok(());
        };
        *entry = to;
        let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
        let mut block = Vec::new();
        append_entries(&mut block, None, &entries);
        self.blocks.insert((id, begin), encode_block(id, begin, block).as_slice()).map_err(wrap)?;
        *self.gained.entry(from.segment).or_default() -= i64::from(from.length);
        *self.gained.entry(to.segment).or_default() += i64::from(to.length);
        Ok(())
    }

    /// Writes what the segments have gained and lost.
    pub(super) fn count_segments(&mut self) -> Result<()> {
        for (segment, gained) in std::mem::take(&mut self.gained) {
            let row = self.segments.get(segment).map_err(wrap)?.map(|row| row.value());
            let bytes = row.map_or(Ok(0), |row| decode_count(segment, row))?;
            match bytes.saturating_add_signed(gained) {
                0 => drop(self.segments.remove(segment).map_err(wrap)?),
                bytes => drop(self.segments.insert(segment, encode_count(segment, bytes)).map_err(wrap)?),
            }
        }
        Ok(())
    }

    /// Completes a checkpoint.
    pub(super) fn finish(&mut self, state: &StoreState) -> Result<()> {
        self.count_segments()?;
        for (key, value) in encode_state(state) {
            self.meta.insert(key, value).map_err(wrap)?;
        }
        Ok(())
    }
}
