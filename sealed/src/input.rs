//! Received bytes that the service has not taken yet.

/// The received bytes of one connection, lent to the service for one call.
///
/// The bytes are contiguous. Taken bytes are gone; untaken bytes are shown again by the next call,
/// with any newer bytes after them.
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

    /// Returns all bytes that have not been taken yet.
    pub fn bytes(&self) -> &'a [u8] {
        &self.bytes[self.taken..]
    }

    /// Returns the number of bytes that have not been taken yet.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Returns whether all bytes have been taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether [`Config::input_bytes_max`](crate::Config::input_bytes_max) is reached, so
    /// that the loop reads no more until some bytes are taken. A service that cannot use the input
    /// at this point will never be able to and should close the connection.
    pub fn is_full(&self) -> bool {
        self.len() >= self.bytes_max
    }

    /// Takes the first `count` bytes.
    ///
    /// # Panics
    ///
    /// Panics if fewer than `count` bytes are left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let taken = &self.bytes()[..count];
        self.taken += count;
        taken
    }

    /// Takes all bytes.
    pub fn take_all(&mut self) -> &'a [u8] {
        self.take(self.len())
    }

    /// Takes the bytes up to and including the first `end`. Returns `None` and takes nothing if
    /// there is no `end` yet.
    pub fn take_until(&mut self, end: u8) -> Option<&'a [u8]> {
        let position = self.bytes().iter().position(|byte| *byte == end)?;
        Some(self.take(position + 1))
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}
