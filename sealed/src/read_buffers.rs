//! The buffers that a loop reads into and lends to its services. A service can keep a part of one;
//! the loop then reads into another.

use std::mem;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

/// Parts of fewer bytes are copied, which is cheaper than another buffer.
const SHARED_BYTES_MIN: usize = 4 * 1024;

/// Maximum number of buffers, of which services keep parts, that are reused once they are free.
const LENT_MAX: usize = 32;

/// A buffer of which others may keep parts. An empty one allocates nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadBuffer(Option<Arc<Vec<u8>>>);

impl From<Vec<u8>> for ReadBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Some(Arc::new(bytes)))
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl ReadBuffer {
    /// Returns the contents, to be written. They are copied first if another handle exists.
    pub(crate) fn contents(&mut self) -> &mut Vec<u8> {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    /// Returns whether there is another handle.
    fn is_shared(&self) -> bool {
        self.0.as_ref().is_some_and(|bytes| Arc::strong_count(bytes) > 1)
    }

    /// Returns whether a part of this many bytes is large enough to keep the buffer.
    fn is_worth_sharing(&self, bytes: usize) -> bool {
        let capacity = self.0.as_ref().map_or(0, |buffer| buffer.capacity());
        bytes >= SHARED_BYTES_MIN && bytes >= capacity / 2 || fault!("little-input-keeps-buffer")
    }

    /// Returns a part of the buffer without copying it; `None` if it is small, or no part of the
    /// buffer.
    fn share(&self, part: &[u8]) -> Option<Bytes> {
        let buffer = self.0.as_ref().filter(|_| self.is_worth_sharing(part.len()))?;
        let start = part.as_ptr().addr().checked_sub(buffer.as_ptr().addr())?;
        let start = if fault!("shared-from-start-of-buffer") { 0 } else { start };
        let range = start..start.checked_add(part.len()).filter(|end| *end <= buffer.len())?;
        Some(Bytes::from_owner(Part { buffer: buffer.clone(), range }))
    }
}

/// A part of a buffer, which keeps the buffer.
struct Part {
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

/// The buffers of a loop. Its services take turns with them. Between the calls of a service,
/// `fresh` and `plain` have no other handles.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffers {
    pub(crate) fresh: ReadBuffer,
    /// Decrypted bytes of `fresh`.
    pub(crate) plain: ReadBuffer,
    /// Buffers of which services kept a part, to be reused once they have dropped it.
    lent: Vec<ReadBuffer>,
}

impl ReadBuffers {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { fresh: vec![0; bytes.max(1)].into(), ..Self::default() }
    }

    pub(crate) fn swap(&mut self) {
        mem::swap(&mut self.fresh, &mut self.plain);
    }

    /// Returns the fresh bytes, of which `count` are input, for the time of a call. If no part of
    /// so few bytes can be shared, the buffer itself is lent, which counts no reference.
    pub(crate) fn lend(&mut self, count: usize) -> ReadBuffer {
        if self.fresh.is_worth_sharing(count) { self.fresh.clone() } else { mem::take(&mut self.fresh) }
    }

    /// Takes the bytes back. If the service has kept a part, the loop goes on with another buffer.
    pub(crate) fn take_back(&mut self, lent: ReadBuffer) {
        if self.fresh.0.is_none() {
            self.fresh = lent;
            return;
        }
        drop(lent);
        if self.fresh.is_shared() {
            self.replace();
        }
    }

    #[cold]
    fn replace(&mut self) {
        let length = self.fresh.len();
        let is_free = |buffer: &ReadBuffer| !buffer.is_shared() && !fault!("dropped-buffers-not-reused");
        let free = self.lent.iter().position(|buffer| is_free(buffer) && buffer.len() >= length);
        let other = free.map_or_else(|| vec![0; length].into(), |free| self.lent.swap_remove(free));
        let kept = mem::replace(&mut self.fresh, other);
        if self.lent.len() < LENT_MAX {
            self.lent.push(kept);
        }
    }

    /// Returns bytes as a value of their own: a part of the fresh bytes, or a copy.
    pub(crate) fn share(&self, part: &[u8]) -> Bytes {
        self.fresh.share(part).unwrap_or_else(|| Bytes::copy_from_slice(part))
    }

    /// Frees the buffers that are kept for reuse.
    pub(crate) fn shrink(&mut self) {
        self.lent = Vec::new();
    }
}
