use crate::sim::Random;

/// Random faults of a simulated disk, each with a probability from 0 to 1 per call. All of them can
/// happen on a real disk.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DiskFaults {
    /// A sync fails. A random part of what it should have written is on the disk. Another part
    /// counts as written although it is not, as on Linux: reads still return it, and later syncs
    /// succeed without writing it. It is gone after a power cut.
    pub failed_sync: f64,
    /// A write takes fewer bytes than were passed, down to one.
    pub short_write: f64,
    /// A read returns fewer bytes than there are, down to one.
    pub short_read: f64,
    /// A write fails, and writes nothing.
    pub failed_write: f64,
    /// A read fails.
    pub failed_read: f64,
    /// There is no space: for a new file, a longer length, more allocated bytes, or a write beyond
    /// the allocated part.
    pub no_space: f64,
}

impl DiskFaults {
    /// Returns a random mixture of faults: each run gets its own, and some runs get few or none.
    pub fn any(random: &mut Random) -> Self {
        let mut some = |most: f64| most * [0.0, 0.1, 1.0][random.below(3)];
        Self {
            failed_sync: some(0.05),
            short_write: some(0.5),
            short_read: some(0.5),
            failed_write: some(0.05),
            failed_read: some(0.05),
            no_space: some(0.05),
        }
    }
}
