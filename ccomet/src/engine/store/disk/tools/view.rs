//! A stopped store, as the tools read it: the index, and above it the log after the last
//! checkpoint. Nothing is written, except that the database of the index repairs itself after a
//! crash.

use std::collections::{BTreeMap, HashSet};
use std::io;

use sealed::disk::{Directory, Lock};

use super::records::Records;
use crate::core::message::ChannelName;
use crate::engine::store::disk::index::{ChannelRow, ChannelUpdate, Index, IndexError, StoreState};
use crate::engine::store::disk::log::segments;
use crate::engine::store::disk::opening::{Refused, Replay, lock_for_tool, read_state};
use crate::engine::store::disk::places::{Entry, SegmentId};
use crate::engine::store::disk::record::ChannelId;

/// The number of rows that are read at a time.
const ROWS: usize = 1_000;

/// A store that nobody else uses.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) directory: Directory,
    _locks: Vec<Lock>,
}

impl Held {
    pub(super) fn lock(directory: Directory) -> io::Result<Self> {
        let locks = lock_for_tool(&directory)?;
        Ok(Self { directory, _locks: locks })
    }
}

/// The channels and messages of a store.
#[derive(Debug)]
pub(in crate::engine::store::disk) struct View {
    pub(super) directory: Directory,
    pub(super) index: Index,
    /// The state at the last checkpoint.
    pub(super) state: StoreState,
    /// What has changed since.
    tail: BTreeMap<ChannelId, ChannelUpdate>,
    removed: HashSet<ChannelId>,
    /// The end of the log.
    pub(super) end: (SegmentId, usize),
}

impl View {
    /// Reads the log after the last checkpoint.
    pub(super) fn new(directory: Directory, index: Index, state: StoreState) -> Result<Self, Refused> {
        let files = segments(&directory).map_err(|error| Refused::Io("list the segments", error))?;
        let behind: Vec<_> = files.into_iter().filter(|id| *id >= state.position.segment).collect();
        let mut replay = Replay::new(&index, state);
        replay.read(&directory, &behind)?;
        let (tail, removed, end) = (replay.channels, replay.removed.into_iter().collect(), replay.end);
        Ok(Self { directory, index, state, tail, removed, end })
    }

    /// Opens the index and reads the end of the log.
    pub(in crate::engine::store::disk) fn open(directory: &Directory) -> Result<Self, Refused> {
        let (index, state) = open_index(directory)?;
        Self::new(directory.clone(), index, state)
    }

    pub(super) fn records(&self) -> Records {
        Records::new(self.directory.clone(), self.state.salt)
    }

    /// Returns the ids of all channels, by name.
    pub(super) fn channels(&self) -> Result<BTreeMap<ChannelName, ChannelId>, IndexError> {
        let mut channels = BTreeMap::new();
        let mut last = 0;
        loop {
            let rows = self.index.checked_rows_after(last, ROWS)?;
            let Some((id, _)) = rows.last() else { break };
            last = *id;
            let rows = rows.into_iter().filter(|(id, _)| !self.removed.contains(id));
            channels.extend(rows.map(|(id, row)| (row.name, id)));
        }
        channels.extend(self.tail.iter().map(|(id, update)| (update.row.name.clone(), *id)));
        Ok(channels)
    }

    pub(super) fn row(&self, id: ChannelId) -> Result<Option<ChannelRow>, IndexError> {
        match self.tail.get(&id) {
            Some(update) => Ok(Some(update.row.clone())),
            None => self.index.row(id),
        }
    }

    /// Returns places of messages of a channel, from number `begin` on: at most `limit`, none only
    /// if there are no more.
    pub(super) fn entries(&self, id: ChannelId, begin: u64, limit: usize) -> Result<Vec<(u64, Entry)>, IndexError> {
        let update = self.tail.get(&id);
        let tail_begin = update.map_or(u64::MAX, |update| update.begin);
        let mut found = Vec::new();
        if begin < tail_begin {
            found = self.index.entries(id, begin, false, limit)?;
            found.retain(|(number, _)| *number < tail_begin);
            found.truncate(limit);
        }
        if let Some(update) = update {
            let skipped = usize::try_from(begin.saturating_sub(tail_begin)).unwrap_or(usize::MAX);
            let newer = (tail_begin..).zip(update.entries.iter().copied()).skip(skipped);
            found.extend(newer.take(limit - found.len()));
        }
        Ok(found)
    }

    /// Returns the bytes of each segment that are kept.
    pub(super) fn live_bytes(&self) -> Result<BTreeMap<SegmentId, u64>, IndexError> {
        let mut live = self.index.segments()?;
        for entry in self.tail.values().flat_map(|update| &update.entries) {
            *live.entry(entry.segment).or_default() += u64::from(entry.length);
        }
        Ok(live)
    }
}

/// Opens the index of a store, and reads its state.
pub(super) fn open_index(directory: &Directory) -> Result<(Index, StoreState), Refused> {
    let index = Index::open_existing(directory)?;
    let index = index.ok_or_else(|| Refused::Damaged("it has a log, but no index".to_owned()))?;
    let state = read_state(&index)?.ok_or_else(|| Refused::Damaged("its index is empty".to_owned()))?;
    Ok((index, state))
}
