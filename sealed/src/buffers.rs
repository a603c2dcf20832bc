//! The buffers that a connection borrows from its loop while bytes are in flight: an inbox for
//! input that the service has not taken yet, and an outbox for output that the kernel has not taken
//! yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

use crate::net::Stream;
use crate::rate::Pace;
use crate::tls;

/// Maximum number of slices in one vectored write.
const SLICES_MAX: usize = 64;

/// Shared bytes up to this length are copied after the queued output, which is cheaper than a
/// slice of their own.
const COPY_MAX: usize = 256;

/// The inbox and the outbox of one connection, pooled by the loop.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) extras: Option<Box<Extras>>,
}

/// State that only some connections have. These connections keep their buffers as long as they have
/// extras; all others pay nothing for it.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) pace: Option<Pace>,
    pub(crate) tls: Option<tls::Session>,
    /// The inbox holds input from before TLS was started, which belongs to the handshake.
    pub(crate) left_to_tls: bool,
}

impl Extras {
    fn is_empty(&self) -> bool {
        self.tls.is_none() && self.pace.is_none()
    }
}

impl Buffers {
    /// Returns whether the connection can return these buffers to the pool.
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.outbox.is_done() && self.extras.is_none()
    }

    /// Returns the number of queued bytes, not counting encrypted ones.
    pub(crate) fn output_len(&self) -> usize {
        let tls = self.extras.as_ref().and_then(|extras| extras.tls.as_ref());
        self.outbox.len() + tls.map_or(0, |tls| tls.ahead.len())
    }

    /// Returns whether output is queued, or encrypted and not yet taken by the kernel.
    pub(crate) fn has_unsent(&self) -> bool {
        if let Some(tls) = self.extras.as_ref().and_then(|extras| extras.tls.as_ref()) {
            return tls.has_unsent(!self.outbox.is_empty());
        }
        !self.outbox.is_empty()
    }

    /// Returns whether a write can go directly to the kernel.
    pub(crate) fn is_idle(&self) -> bool {
        self.outbox.is_done() && self.extras.is_none()
    }

    pub(crate) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Frees the extras if they are empty.
    pub(crate) fn trim(&mut self) {
        if self.extras.as_ref().is_some_and(|extras| extras.is_empty()) {
            self.extras = None;
        }
    }

    /// Returns the bytes of memory that the buffers occupy while they are empty.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + self.inbox.bytes.capacity()
            + self.outbox.tail.capacity()
            + self.outbox.chunks.capacity() * size_of::<Bytes>()
    }

    /// Resets the buffers to their initial state, keeping at most `keep` bytes of capacity in each.
    pub(crate) fn reset(&mut self, keep: usize) {
        self.inbox.bytes.clear();
        self.inbox.start = 0;
        self.inbox.bytes.shrink_to(keep);
        self.outbox.clear(keep);
        self.extras = None;
    }
}

/// Buffers that no connection uses, kept for reuse.
#[derive(Debug)]
pub(crate) struct Spares {
    #[allow(clippy::vec_box)] // the boxes themselves move between here and the slots
    held: Vec<Box<Buffers>>,
    /// Maximum number of buffers to keep.
    count_max: usize,
    /// Maximum capacity to keep in each.
    bytes_max: usize,
}

impl Spares {
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { held: Vec::new(), count_max, bytes_max }
    }

    #[allow(clippy::unnecessary_box_returns)] // the box is what is kept
    pub(crate) fn take(&mut self) -> Box<Buffers> {
        self.held.pop().unwrap_or_default()
    }

    pub(crate) fn put(&mut self, mut buffers: Box<Buffers>) {
        if self.held.len() < self.count_max {
            buffers.reset(self.bytes_max);
            self.held.push(buffers);
        }
    }

    pub(crate) fn truncate(&mut self, count: usize) {
        self.held.truncate(count);
    }

    /// Returns the bytes of memory that the buffers occupy.
    pub(crate) fn bytes(&self) -> usize {
        self.held.iter().map(|buffers| buffers.held_bytes()).sum()
    }
}

/// Input that the service has left untaken.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) bytes: Vec<u8>,
    /// Number of bytes of `bytes` that the service has taken.
    pub(crate) start: usize,
}

impl Inbox {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves the untaken bytes to the front once more bytes are taken than untaken, so that the
    /// taken bytes pay for the move.
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

/// The destination of an outbox.
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

/// Output in order: first shared chunks, then a tail of copied bytes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Bytes>,
    tail: Vec<u8>,
    tail_start: usize,
    bytes: usize,
    /// Number of bytes that the kernel took without queueing; the next flush counts them.
    pub(crate) sent_ahead: usize,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns whether no bytes are left to send or to count.
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

    /// Writes until the kernel has taken all bytes or `limit` bytes, and returns true. Returns
    /// false if the kernel takes no more.
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
