//! Reading all of an index, for the tools.

use std::io;

use redb::{ReadableDatabase, ReadableTableMetadata};
use sealed::disk::Directory;

use super::{BLOCKS, CHANNELS, ChannelRow, FILE, Index, NAMES, Result, damaged, guarded, io_error, open, wrap};
use crate::engine::store::disk::backend::ReadOnlyBackend;
use crate::engine::store::disk::record::ChannelId;

/// The name of the index's file, for reports.
pub(in super::super) const INDEX_FILE: &str = FILE;

/// The cache of an index that a tool reads.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

impl Index {
    /// Opens the index of a store for reading; `None` if there is none. The file stays as it is,
    /// also if the database repairs itself after a crash.
    pub(in super::super) fn open_existing(directory: &Directory) -> Result<Option<Self>> {
        let file = match directory.open(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io_error)?,
        };
        if file.len().map_err(io_error)? == 0 {
            return Err(damaged("it is empty"));
        }
        let backend = ReadOnlyBackend::new(file).map_err(io_error)?;
        let database = guarded(|| open(backend, CACHE_BYTES))?;
        Ok(Some(Self { is_read_only: true, ..Self::over(Some(database), directory) }))
    }

    /// Verifies the checksums of all pages. Returns an error if one is wrong.
    pub(in super::super) fn verify(&mut self) -> Result<()> {
        let Some(database) = &mut self.database else { return Err(damaged("it is closed")) };
        let is_whole = guarded(|| database.check_integrity().map_err(wrap))?;
        if is_whole { Ok(()) } else { Err(damaged("pages had wrong checksums")) }
    }

    /// Returns the channels after a number, in the order of their numbers. Returns an error if a
    /// row is damaged.
    pub(in super::super) fn checked_rows_after(
        &self,
        id: ChannelId,
        limit: usize,
    ) -> Result<Vec<(ChannelId, ChannelRow)>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let channels = transaction.open_table(CHANNELS).map_err(wrap)?;
        let mut rows = Vec::new();
        for item in channels.range(id + 1..).map_err(wrap)?.take(limit) {
            let (id, row) = item.map_err(wrap)?;
            rows.push((id.value(), ChannelRow::decode(id.value(), row.value())?));
        }
        Ok(rows)
    }

    /// Returns the id that a name has.
    pub(in super::super) fn id_of(&self, name: &str) -> Result<Option<ChannelId>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let names = transaction.open_table(NAMES).map_err(wrap)?;
        Ok(names.get(name).map_err(wrap)?.map(|id| id.value()))
    }

    /// Returns the number of names.
    pub(in super::super) fn name_count(&self) -> Result<u64> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        transaction.open_table(NAMES).map_err(wrap)?.len().map_err(wrap)
    }

    /// Returns the next channel, after an id, that has places of messages.
    pub(in super::super) fn owner_after(&self, after: ChannelId) -> Result<Option<ChannelId>> {
        let transaction = self.database()?.begin_read().map_err(wrap)?;
        let blocks = transaction.open_table(BLOCKS).map_err(wrap)?;
        let next = blocks.range((after + 1, 0)..).map_err(wrap)?.next().transpose().map_err(wrap)?;
        Ok(next.map(|(key, _)| key.value().0))
    }
}
