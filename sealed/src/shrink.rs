//! The time at which a table frees memory.

/// The rule that decides when a table is shrunk: once at most a quarter of it is used, and again
/// whenever half of the entries that were left then are removed. A table can free only the memory
/// behind its last entry, so once may not be enough.
#[derive(Debug, Default)]
pub(crate) struct Shrink {
    /// Maximum number of entries since the table was last shrunk.
    peak: usize,
}

impl Shrink {
    /// Tables of less capacity are kept as they are.
    const CAPACITY_MIN: usize = 64;

    /// Records that `removed` entries were removed and that `used` entries are left, and returns
    /// whether to shrink now.
    pub(crate) fn is_due(&mut self, removed: usize, used: usize, capacity: usize) -> bool {
        self.peak = self.peak.max(used + removed);
        let is_due = capacity >= Self::CAPACITY_MIN && used * 4 <= capacity && used * 2 <= self.peak;
        if is_due {
            self.peak = used;
        }
        is_due && !fault!("tables-keep-their-memory")
    }
}
