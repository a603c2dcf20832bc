//! The contents of one file: what the cache shows, and what the disk has.

use std::collections::BTreeMap;

use crate::sim::Random;

/// The unit in which a power cut keeps or loses bytes.
pub(super) const SECTOR_BYTES: usize = 512;

/// Maximum number of earlier states that are kept of a sector, any of which can survive.
const STATES_MAX: usize = 4;

type Sector = Box<[u8; SECTOR_BYTES]>;

#[derive(Debug, Default)]
pub(super) struct Contents {
    cached: Vec<u8>,
    /// Sectors on the disk, which may lie beyond `durable_length`; missing ones are zeros.
    durable: Vec<u8>,
    durable_length: usize,
    /// The sectors that differ from the disk and will be written, each with the states that it has
    /// had since it was written last, without the newest.
    dirty: BTreeMap<usize, Vec<Sector>>,
    /// The lengths that the file has had since its length was written last, including the newest.
    lengths: Vec<usize>,
    allocated: usize,
    durable_allocated: usize,
}

impl Contents {
    /// Makes the contents of bytes that are durable.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        Self {
            durable: bytes.clone(),
            cached: bytes,
            durable_length: length,
            allocated: length,
            durable_allocated: length,
            ..Self::default()
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.cached
    }

    pub(super) fn len(&self) -> usize {
        self.cached.len()
    }

    pub(super) fn allocated(&self) -> usize {
        self.allocated
    }

    /// Returns whether a power cut could lose something.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.lengths.is_empty()
    }

    pub(super) fn dirty_sectors(&self) -> usize {
        self.dirty.len()
    }

    pub(super) fn write(&mut self, data: &[u8], offset: usize) {
        let end = offset + data.len();
        self.touch(offset, end);
        if end > self.cached.len() {
            self.resize(end);
        }
        self.cached[offset..end].copy_from_slice(data);
        self.allocated = self.allocated.max(end);
    }

    pub(super) fn set_len(&mut self, length: usize) {
        if length < self.cached.len() {
            self.touch(length, self.cached.len());
        }
        if length != self.cached.len() {
            self.resize(length);
        }
        self.allocated = self.allocated.min(length);
    }

    pub(super) fn allocate(&mut self, length: usize) {
        if length > self.cached.len() {
            self.resize(length);
        }
        self.allocated = self.allocated.max(length);
    }

    fn resize(&mut self, length: usize) {
        self.cached.resize(length, 0);
        self.lengths.push(length);
    }

    /// Notes that the bytes of a range are about to change.
    fn touch(&mut self, start: usize, end: usize) {
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            match self.dirty.get_mut(&sector) {
                Some(states) if states.len() < STATES_MAX => states.push(cut_out(&self.cached, sector)),
                Some(_) => {}
                None => drop(self.dirty.insert(sector, Vec::new())),
            }
        }
    }

    /// Writes everything to the disk.
    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            self.put(sector, &cut_out(&self.cached, sector));
        }
        self.sync_length();
        self.durable_allocated = self.allocated;
    }

    /// Fails to write: each dirty sector is written, given up as if it had been written, or left.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        for (sector, states) in std::mem::take(&mut self.dirty) {
            match random.below(3) {
                0 => self.put(sector, &cut_out(&self.cached, sector)),
                1 => {}
                _ => drop(self.dirty.insert(sector, states)),
            }
        }
        match random.below(3) {
            0 => self.sync_length(),
            1 => self.lengths.clear(),
            _ => {}
        }
    }

    fn sync_length(&mut self) {
        if self.lengths.is_empty() {
            return;
        }
        self.lengths.clear();
        self.durable_length = self.cached.len();
        // Bytes beyond the end do not come back when the file grows again.
        self.durable.truncate(self.durable_length);
    }

    /// Loses a random part of what is not durable, and then shows what the disk has.
    pub(super) fn lose(&mut self, random: &mut Random) {
        let rate = [0.0, 0.1, 0.5, 0.9][random.below(4)];
        for (sector, mut states) in std::mem::take(&mut self.dirty) {
            if !random.chance(rate) {
                continue;
            }
            states.push(cut_out(&self.cached, sector));
            let newest = states.len() - 1;
            let survivor = if random.chance(0.5) { newest } else { random.below(states.len()) };
            self.put(sector, &states[survivor]);
        }
        if let Some(newest) = self.lengths.last().copied() {
            self.durable_length = match random.below(3) {
                0 => self.durable_length,
                1 => newest,
                _ => self.lengths[random.below(self.lengths.len())],
            };
        }
        let mut survivors = std::mem::take(&mut self.durable);
        let allocated = self.durable_allocated.max(survivors.len()).min(self.durable_length);
        survivors.resize(self.durable_length, 0);
        *self = Self { allocated, durable_allocated: allocated, ..Self::durable(survivors) };
    }

    /// Inverts a bit in the cache and on the disk. Returns false if there is no such bit.
    pub(super) fn flip(&mut self, bit: u64) -> bool {
        let (at, mask) = (usize::try_from(bit / 8).unwrap_or(usize::MAX), 1 << (bit % 8));
        let Some(byte) = self.cached.get_mut(at) else { return false };
        *byte ^= mask;
        if let Some(byte) = self.durable.get_mut(at) {
            *byte ^= mask;
        }
        true
    }

    fn put(&mut self, sector: usize, state: &[u8; SECTOR_BYTES]) {
        let (start, end) = (sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(state);
    }
}

/// Returns a sector, filled up with zeros.
fn cut_out(bytes: &[u8], sector: usize) -> Sector {
    let start = (sector * SECTOR_BYTES).min(bytes.len());
    let end = (start + SECTOR_BYTES).min(bytes.len());
    let mut state = Box::new([0; SECTOR_BYTES]);
    state[..end - start].copy_from_slice(&bytes[start..end]);
    state
}
