//! Decodes requests from bytes, however the bytes are split.

use sealed::fault;

use crate::codec::chunked::{Chunk, ChunkedDecoder};
use crate::codec::error::DecodeError;
use crate::codec::head::{BodyFraming, RequestHead};
use crate::codec::limits::Limits;

/// Decodes the requests of one connection, one after the other. The decoder holds no bytes and
/// allocates nothing.
///
/// # Example
/// ```
/// use sealed_http::codec::{Event, Limits, RequestDecoder};
///
/// let mut input: &[u8] = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";
/// let mut decoder = RequestDecoder::new();
/// let mut body = Vec::new();
/// loop {
///     let (used, event) = decoder.decode(input, &Limits::default())?;
///     input = &input[used..];
///     match event {
///         Event::Head(head) => assert_eq!(head.path(), "/a"),
///         Event::Data(data) => body.extend_from_slice(data),
///         Event::End => break,
///         Event::Incomplete => unreachable!("all of it is there"),
///     }
/// }
/// assert_eq!(body, b"hi");
/// # Ok::<(), sealed_http::codec::DecodeError>(())
/// ```
#[derive(Debug)]
pub struct RequestDecoder {
    state: State,
}

const _: () = assert!(size_of::<RequestDecoder>() <= 32, "it is kept with each request that is coming in");

#[derive(Debug)]
enum State {
    /// Within a head, or before one.
    Head {
        /// Number of bytes that have been searched for the end of the head.
        searched: u32,
        /// Position of the end of the request line, once known; 0 before.
        line_end: u32,
        /// Whether an empty line in front of the head was skipped.
        skipped: bool,
    },
    Length(u64),
    Chunked(ChunkedDecoder),
    Poisoned,
}

const IDLE: State = State::Head { searched: 0, line_end: 0, skipped: false };

/// A decoded part of a request. Data and head borrow from the input.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a head is used where it is decoded, and not kept
pub enum Event<'a> {
    /// More bytes are needed.
    Incomplete,
    /// The head of a request.
    Head(RequestHead<'a>),
    /// A piece of the body. A body of known length that is completely in the input is one piece.
    Data(&'a [u8]),
    /// The end of the request; the next request follows.
    End,
}

impl RequestDecoder {
    /// Creates a decoder for a new connection.
    pub const fn new() -> Self {
        Self { state: IDLE }
    }

    /// Decodes the next part of the input, and returns how many bytes were used. Keep the others,
    /// and pass them to the next call; after [`Event::Incomplete`], append new ones to them first.
    /// No byte of a head is used until the head is complete, so the buffer must have room for
    /// [`Limits::head_bytes_max`]. The work is linear in the number of bytes, however they are
    /// split.
    ///
    /// # Errors
    /// If the request is malformed or exceeds a limit. After an error the connection can only be
    /// closed: all later calls fail.
    pub fn decode<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<(usize, Event<'a>), DecodeError> {
        let decoded = self.next_event(input, limits);
        if decoded.is_err() {
            self.state = State::Poisoned;
        }
        decoded
    }

    /// Returns whether nothing of the next request has been seen.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head { searched: 0, skipped: false, .. })
    }

    /// Returns whether the body is complete, and only its end has not been reported.
    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self.state, State::Length(0))
    }

    fn next_event<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<(usize, Event<'a>), DecodeError> {
        match &mut self.state {
            State::Head { .. } => self.head(input, limits),
            State::Length(0) => {
                self.state = IDLE;
                Ok((0, Event::End))
            }
            State::Length(_) if input.is_empty() => Ok((0, Event::Incomplete)),
            State::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= length as u64;
                Ok((length, Event::Data(&input[..length])))
            }
            State::Chunked(chunked) => {
                let (used, chunk) = chunked.decode(input, limits)?;
                Ok(match chunk {
                    Chunk::Incomplete => (used, Event::Incomplete),
                    Chunk::Data(data) => (used, Event::Data(data)),
                    Chunk::End => {
                        self.state = IDLE;
                        (used, Event::End)
                    }
                })
            }
            State::Poisoned => Err(DecodeError::Poisoned),
        }
    }

    fn head<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<(usize, Event<'a>), DecodeError> {
        let State::Head { searched, line_end, skipped } = &mut self.state else { return Err(DecodeError::Poisoned) };
        // RFC 9112, 2.2: accept one empty line in front of a request, because old clients send one
        // after a body.
        if !*skipped && input.starts_with(b"\r\n") {
            (*skipped, *searched) = (true, 0);
            let (used, event) = self.head(&input[2..], limits)?;
            return Ok((used + 2, event));
        }
        // Without this, the client would wait for the answer until its handshake times out.
        if input.first() == Some(&TLS_HANDSHAKE) && !*skipped && !fault!("tls-client-waits") {
            return Err(DecodeError::Tls);
        }
        let end = find_head_end(input, searched, line_end, limits)?;
        let Some(end) = end else { return Ok((0, Event::Incomplete)) };
        let head = RequestHead::parse(&input[..end], limits)?;
        self.state = match head.body() {
            BodyFraming::Length(length) if length > limits.body_bytes_max => return Err(DecodeError::BodyTooLarge),
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::Chunked(ChunkedDecoder::new()),
        };
        Ok((end, Event::Head(head)))
    }
}

impl Default for RequestDecoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The first byte of a TLS connection: the type of the record of a handshake. No request begins
/// with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// Searches for the empty line from where the last search ended. Already on the way this function
/// refuses a head that exceeds a size limit, and a line end that lacks CR or LF. The first error in
/// the input is reported, however the bytes are split.
pub(crate) fn find_head_end(
    input: &[u8],
    searched: &mut u32,
    line_end: &mut u32,
    limits: &Limits,
) -> Result<Option<usize>, DecodeError> {
    let mut from = *searched as usize;
    // The last search may have ended between the two bytes of a line end.
    let was_cr = from.checked_sub(1).and_then(|last| input.get(last)) == Some(&b'\r');
    if was_cr && !fault!("last-return-forgotten") && input.get(from).is_some_and(|next| *next != b'\n') {
        return Err(DecodeError::LineEnd);
    }
    let find_end = if fault!("lone-return-waited-on") { find_line_feed } else { find_line_end };
    while let Some(offset) = input.get(from..).and_then(find_end) {
        let mut at = from + offset;
        if input[at] == b'\r' {
            // The line feed may still arrive.
            let Some(next) = input.get(at + 1) else { break };
            at += 1;
            if *next != b'\n' {
                check_size(at, *line_end > 0, limits)?;
                return Err(DecodeError::LineEnd);
            }
        }
        // The size is checked before the line end: the result must not depend on how the bytes were
        // split.
        check_size(at, *line_end > 0, limits)?;
        if at == 0 || input[at - 1] != b'\r' {
            return Err(DecodeError::LineEnd);
        }
        if *line_end == 0 {
            // An empty request line: this is a second empty line in front.
            if at == 1 {
                return Err(DecodeError::RequestLine);
            }
            *line_end = at as u32;
        } else if input[..at - 1].ends_with(b"\n") {
            return Ok(Some(at + 1));
        }
        from = at + 1;
    }
    check_size(input.len(), *line_end > 0, limits)?;
    *searched = input.len() as u32;
    Ok(None)
}

/// Returns the position of the first carriage return or line feed.
fn find_line_end(bytes: &[u8]) -> Option<usize> {
    find(bytes, |byte| byte == b'\n' || byte == b'\r')
}

pub(crate) fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    find(bytes, |byte| byte == b'\n')
}

/// Compares several bytes at a time: browsers send heads with long lines.
fn find(bytes: &[u8], is_wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let is_end = |byte: &u8| is_wanted(*byte);
    let (chunks, _) = bytes.as_chunks::<16>();
    let passed =
        chunks.iter().take_while(|chunk| !chunk.iter().fold(false, |any, byte| any | is_end(byte))).count() * 16;
    bytes[passed..].iter().position(is_end).map(|offset| passed + offset)
}

/// Refuses a head if, after this many bytes, its end can only come beyond a limit.
fn check_size(seen: usize, line_ended: bool, limits: &Limits) -> Result<(), DecodeError> {
    // The searched length is kept in 32 bits.
    let head_bytes_max = limits.head_bytes_max.min(u32::MAX as usize);
    if line_ended {
        return if seen >= head_bytes_max { Err(DecodeError::HeadTooLarge) } else { Ok(()) };
    }
    // A carriage return at the end may be part of the line end.
    let line_bytes_max = limits.request_line_bytes_max.saturating_add(1);
    // A request line that fills the head is too long whatever its own limit, and is always reported
    // as such.
    if seen > line_bytes_max || seen >= head_bytes_max { Err(DecodeError::RequestLineTooLong) } else { Ok(()) }
}
