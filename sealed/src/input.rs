//! Bytes that came and were not taken yet.

/// What a connection received, lent for one call.
///
/// The bytes are contiguous. What is taken is gone; what is not is there again at the next call, behind which more
/// may have come.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    taken: usize,
    bytes_max: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8], bytes_max: usize) -> Self {
        Self { bytes, taken: 0, bytes_max }
    }

    /// All bytes not taken yet.
    pub fn bytes(&self) -> &'a [u8] {
        &self.bytes[self.taken..]
    }

    /// How many bytes are there to take.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Whether everything has been taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing more comes unless some of this is taken: [`Config::input_bytes_max`](crate::Config::input_bytes_max)
    /// is reached. A service that cannot use what is there yet will never be able to, and had better close.
    pub fn is_full(&self) -> bool {
        self.len() >= self.bytes_max
    }

    /// Takes the first `count` bytes.
    ///
    /// # Panics
    /// Where fewer are there.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let taken = &self.bytes()[..count];
        self.taken += count;
        taken
    }

    /// Takes all bytes.
    pub fn take_all(&mut self) -> &'a [u8] {
        self.take(self.len())
    }

    /// Takes the bytes up to and including the first `end`, or nothing where it is not there yet.
    pub fn take_until(&mut self, end: u8) -> Option<&'a [u8]> {
        let position = self.bytes().iter().position(|byte| *byte == end)?;
        Some(self.take(position + 1))
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}
