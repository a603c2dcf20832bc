//! The file of the index, as redb uses it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use sealed::disk::File;

/// The bytes of a block of a [`Cover`].
const BLOCK: u64 = 4096;

/// The file of the index.
#[derive(Debug)]
pub(super) struct Backend(pub(super) File);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// The file of an index that is only read: what the database writes when it is opened, to repair
/// itself, stays in memory.
#[derive(Debug)]
pub(super) struct ReadOnlyBackend {
    file: File,
    cover: Mutex<Cover>,
}

/// What differs from the file.
#[derive(Debug)]
struct Cover {
    /// The length that the file seems to have.
    length: u64,
    /// The part of the file that is still valid. What follows it seems to be zero.
    valid: u64,
    /// The blocks that were written.
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl ReadOnlyBackend {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.len()?;
        Ok(Self { file, cover: Mutex::new(Cover { length, valid: length, blocks: BTreeMap::new() }) })
    }

    fn cover(&self) -> MutexGuard<'_, Cover> {
        self.cover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the file.
    fn read_valid(&self, valid: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let count = valid.saturating_sub(offset).min(out.len() as u64) as usize;
        let (there, beyond) = out.split_at_mut(count);
        beyond.fill(0);
        self.file.read_exact_at(there, offset)
    }
}

/// Splits the bytes of a read or write at `offset` into those of each block: the block's index, the
/// offset within it, and the range of the bytes.
fn split(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % BLOCK) as usize;
        let count = (length - done).min(BLOCK as usize - within);
        let part = (at / BLOCK, within, done..done + count);
        done += count;
        (count > 0).then_some(part)
    })
}

impl StorageBackend for ReadOnlyBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.cover().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let cover = self.cover();
        for (index, within, part) in split(offset, out.len()) {
            let out = &mut out[part];
            match cover.blocks.get(&index) {
                Some(block) => out.copy_from_slice(&block[within..within + out.len()]),
                None => self.read_valid(cover.valid, index * BLOCK + within as u64, out)?,
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut cover = self.cover();
        (cover.length, cover.valid) = (length, cover.valid.min(length));
        cover.blocks.retain(|index, _| index * BLOCK < length);
        if let Some(last) = cover.blocks.get_mut(&(length / BLOCK)) {
            last[(length % BLOCK) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Cover { valid, blocks, .. } = &mut *self.cover();
        for (index, within, part) in split(offset, data.len()) {
            let data = &data[part];
            let block = match blocks.entry(index) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(vacant) => {
                    let mut block = vec![0; BLOCK as usize];
                    self.read_valid(*valid, index * BLOCK, &mut block)?;
                    vacant.insert(block.into())
                }
            };
            block[within..within + data.len()].copy_from_slice(data);
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use sealed::sim::Simulation;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_file_stays_as_it_is() {
        let sim = Simulation::new(1);
        let directory = sim.disk().disk().open_dir("data").unwrap();
        let file = directory.create("index").unwrap();
        // A plain buffer that has the same writes is what is to be read.
        let mut expected: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        file.write_all_at(&expected, 0).unwrap();
        let before = expected.clone();
        let backend = ReadOnlyBackend::new(file.clone()).unwrap();
        let mut random = sim.random(1);
        for round in 0..1_000_u32 {
            match random.below(10) {
                0 => {
                    let length = random.below(20_000);
                    backend.set_len(length as u64).unwrap();
                    expected.resize(length, 0);
                }
                _ if expected.is_empty() => {}
                _ => {
                    let begin = random.below(expected.len());
                    let end = begin + random.below(expected.len() - begin + 1);
                    let data = vec![round as u8; end - begin];
                    backend.write(begin as u64, &data).unwrap();
                    expected[begin..end].copy_from_slice(&data);
                }
            }
            assert_eq!(backend.len().unwrap(), expected.len() as u64);
            let mut read = vec![0; expected.len()];
            backend.read(0, &mut read).unwrap();
            assert!(read == expected, "round {round}");
        }
        let mut after = vec![0; before.len()];
        file.read_exact_at(&mut after, 0).unwrap();
        assert!(after == before);
    }
}
