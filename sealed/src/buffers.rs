//! What a connection borrows from its loop while bytes are in flight: an inbox for input that the service has not
//! taken yet, and an outbox for output that the kernel has not taken yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

use crate::net::Stream;
use crate::rate::Pace;
#[cfg(feature = "tls")]
use crate::tls;

/// Slices handed to the kernel in one write.
const SLICES_MAX: usize = 64;

/// Shared bytes up to this length are copied behind what is queued: cheaper than a slice of their own.
const COPY_MAX: usize = 256;

/// Both boxes of one connection, pooled by the loop.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) extras: Option<Box<Extras>>,
}

/// What only some connections have. They keep their buffers as long as they have it; all others pay nothing for it.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) pace: Option<Pace>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tls::Session>,
}

impl Extras {
    fn is_empty(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return false;
        }
        self.pace.is_none()
    }
}

impl Buffers {
    /// Whether the connection can do without.
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.outbox.is_done() && self.extras.is_none()
    }

    /// Whether output is queued, or ciphered and not with the kernel yet.
    pub(crate) fn has_unsent(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.extras.as_ref().and_then(|extras| extras.tls.as_ref()) {
            return tls.has_unsent(!self.outbox.is_empty());
        }
        !self.outbox.is_empty()
    }

    /// Whether nothing stands between what is written and the kernel.
    pub(crate) fn is_idle(&self) -> bool {
        self.outbox.is_done() && self.extras.is_none()
    }

    pub(crate) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Gives the box of extras back once nothing is in it.
    pub(crate) fn trim(&mut self) {
        if self.extras.as_ref().is_some_and(|extras| extras.is_empty()) {
            self.extras = None;
        }
    }

    /// Returns the bytes of memory that it takes while it is empty.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + self.inbox.bytes.capacity()
            + self.outbox.tail.capacity()
            + self.outbox.chunks.capacity() * size_of::<Bytes>()
    }

    /// Makes it as new, keeping at most `keep` bytes of capacity in each box.
    pub(crate) fn reset(&mut self, keep: usize) {
        self.inbox.bytes.clear();
        self.inbox.start = 0;
        self.inbox.bytes.shrink_to(keep);
        self.outbox.clear(keep);
        self.extras = None;
    }
}

/// Input that the service left for later.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) bytes: Vec<u8>,
    /// How much of `bytes` the service has taken.
    pub(crate) start: usize,
}

impl Inbox {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves what is left to the front once the taken part is the larger, so that the cost of moving is paid by
    /// bytes already taken.
    pub(crate) fn compact(&mut self) {
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

/// Where an outbox is emptied into.
pub(crate) trait Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Sink for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Stream::write(self, bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Stream::write_vectored(self, slices)
    }
}

/// Output in order: shared chunks first, then a tail of copied bytes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Bytes>,
    tail: Vec<u8>,
    tail_start: usize,
    bytes: usize,
    /// Bytes that went to the kernel without having been queued, of which the next flush is to tell.
    pub(crate) sent_ahead: usize,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether there is nothing to send, and nothing to tell.
    fn is_done(&self) -> bool {
        self.is_empty() && self.sent_ahead == 0
    }

    pub(crate) fn push_copy(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.tail.extend_from_slice(bytes);
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_MAX {
            return self.push_copy(&bytes);
        }
        self.bytes += bytes.len();
        if !self.tail.is_empty() && !fault!("shared-overtakes-copied") {
            let mut tail = Bytes::from(std::mem::take(&mut self.tail));
            tail.advance(std::mem::take(&mut self.tail_start));
            self.chunks.push_back(tail);
        }
        self.chunks.push_back(bytes);
    }

    /// Writes until all is with the kernel, or `limit` bytes are, or it takes no more: then returns false.
    pub(crate) fn flush(&mut self, stream: &mut impl Sink, limit: usize) -> io::Result<bool> {
        let end = self.bytes.saturating_sub(limit);
        while self.bytes > end {
            match self.write_once(stream, self.bytes - end) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.take(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write_once(&self, stream: &mut impl Sink, limit: usize) -> io::Result<usize> {
        let tail = &self.tail[self.tail_start..];
        if self.chunks.is_empty() {
            return stream.write(&tail[..tail.len().min(limit)]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut left) = (0, limit);
        let all = self.chunks.iter().map(Bytes::as_ref).chain(std::iter::once(tail));
        for (slot, slice) in slices.iter_mut().zip(all) {
            let slice = &slice[..slice.len().min(left)];
            if slice.is_empty() {
                break;
            }
            *slot = IoSlice::new(slice);
            left -= slice.len();
            count += 1;
        }
        stream.write_vectored(&slices[..count])
    }

    fn take(&mut self, mut taken: usize) {
        debug_assert!(taken <= self.bytes);
        self.bytes -= taken;
        while let Some(front) = self.chunks.front_mut() {
            if taken < front.len() {
                if !fault!("front-not-advanced") {
                    front.advance(taken);
                }
                return;
            }
            taken -= front.len();
            self.chunks.pop_front();
        }
        self.tail_start = if fault!("tail-start-not-summed") { taken } else { self.tail_start + taken };
        if self.tail_start == self.tail.len() {
            self.tail.clear();
            self.tail_start = 0;
        }
    }

    fn clear(&mut self, keep: usize) {
        self.chunks.clear();
        self.chunks.shrink_to(8);
        self.tail.clear();
        self.tail.shrink_to(keep);
        self.tail_start = 0;
        self.bytes = 0;
        self.sent_ahead = 0;
    }
}
