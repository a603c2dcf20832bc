//! Decodes responses from bytes, however the bytes are split.

use crate::codec::chunked::{Chunk, ChunkedDecoder};
use crate::codec::decoder::find_head_end;
use crate::codec::error::DecodeError;
use crate::codec::limits::Limits;
use crate::codec::response_head::{Asked, ResponseFraming, ResponseHead};

/// Decodes the responses of one connection, one after the other. The decoder holds no bytes and
/// allocates nothing.
///
/// # Example
/// ```
/// use sealed_http::codec::{Asked, Limits, ResponseDecoder, ResponseEvent};
///
/// let mut input: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
/// let mut decoder = ResponseDecoder::new();
/// let mut body = Vec::new();
/// loop {
///     let (used, event) = decoder.decode(input, Asked::Other, &Limits::default())?;
///     input = &input[used..];
///     match event {
///         ResponseEvent::Head(head) => assert_eq!(head.status(), 200),
///         ResponseEvent::Data(data) => body.extend_from_slice(data),
///         ResponseEvent::End => break,
///         ResponseEvent::Interim(_) | ResponseEvent::Incomplete | ResponseEvent::Switched => unreachable!(),
///     }
/// }
/// assert_eq!(body, b"hi");
/// # Ok::<(), sealed_http::codec::DecodeError>(())
/// ```
#[derive(Debug)]
pub struct ResponseDecoder {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Within a head, or before one.
    Head {
        searched: u32,
        line_end: u32,
    },
    Length(u64),
    Chunked(ChunkedDecoder),
    /// Within a body that ends with the connection; the number is how many bytes have arrived.
    ToTheEnd(u64),
    /// What follows is not HTTP.
    Switched,
    Poisoned,
}

const IDLE: State = State::Head { searched: 0, line_end: 0 };

/// A decoded part of a response. Data and heads borrow from the input.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a head is used where it is decoded, and not kept
pub enum ResponseEvent<'a> {
    /// More bytes are needed.
    Incomplete,
    /// The head of an interim response (1xx, but not 101): the final response is still to come.
    Interim(ResponseHead<'a>),
    /// The head of the final response.
    Head(ResponseHead<'a>),
    /// A piece of the body.
    Data(&'a [u8]),
    /// The end of the response; the next response follows.
    End,
    /// What follows is another protocol: the response was 101, or 2xx to a CONNECT.
    Switched,
}

impl ResponseDecoder {
    /// Creates a decoder for a new connection.
    pub const fn new() -> Self {
        Self { state: IDLE }
    }

    /// Decodes the next part of the input, which belongs to the response to a request of kind
    /// `asked`, and returns how many bytes were used. Keep the others, and pass them to the next
    /// call; after [`ResponseEvent::Incomplete`], append new ones to them first. No byte of a head
    /// is used until the head is complete, so the buffer must have room for
    /// [`Limits::head_bytes_max`]. The work is linear in the number of bytes, however they are
    /// split.
    ///
    /// # Errors
    /// If the response is malformed or exceeds a limit. After an error the connection can only be
    /// closed: all later calls fail.
    pub fn decode<'a>(
        &mut self,
        input: &'a [u8],
        asked: Asked,
        limits: &Limits,
    ) -> Result<(usize, ResponseEvent<'a>), DecodeError> {
        let decoded = self.next_event(input, asked, limits);
        if decoded.is_err() {
            self.state = State::Poisoned;
        }
        decoded
    }

    /// Processes the end of the connection. Returns whether a response ended with it. Call
    /// [`decode`](Self::decode) until it returns [`ResponseEvent::Incomplete`] first; afterwards
    /// the decoder cannot be used any more.
    ///
    /// # Errors
    /// If the connection ended within a response, or if the decoder has returned an error before.
    pub fn end(&mut self) -> Result<bool, DecodeError> {
        match std::mem::replace(&mut self.state, State::Poisoned) {
            State::ToTheEnd(_) => Ok(true),
            State::Head { searched: 0, .. } | State::Switched => Ok(false),
            State::Poisoned => Err(DecodeError::Poisoned),
            _ => Err(DecodeError::Truncated),
        }
    }

    /// Returns whether nothing of the next response has been seen.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head { searched: 0, .. })
    }

    /// Returns whether the body is complete, and only its end has not been reported.
    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self.state, State::Length(0))
    }

    fn next_event<'a>(
        &mut self,
        input: &'a [u8],
        asked: Asked,
        limits: &Limits,
    ) -> Result<(usize, ResponseEvent<'a>), DecodeError> {
        match &mut self.state {
            State::Head { searched, line_end } => {
                let end = find_head_end(input, searched, line_end, limits).map_err(of_response)?;
                let Some(end) = end else { return Ok((0, ResponseEvent::Incomplete)) };
                let head = ResponseHead::parse(&input[..end], asked, limits)?;
                self.begin(&head, limits)?;
                let is_interim = head.status() < 200 && head.framing() == ResponseFraming::None;
                let event = if is_interim { ResponseEvent::Interim(head) } else { ResponseEvent::Head(head) };
                Ok((end, event))
            }
            State::Length(0) => {
                self.state = IDLE;
                Ok((0, ResponseEvent::End))
            }
            State::Switched => Ok((0, ResponseEvent::Switched)),
            State::Length(_) | State::ToTheEnd(_) if input.is_empty() => Ok((0, ResponseEvent::Incomplete)),
            State::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= length as u64;
                Ok((length, ResponseEvent::Data(&input[..length])))
            }
            State::ToTheEnd(total) => {
                // As many bytes are reported before the error, however they are split.
                let room = usize::try_from(limits.body_bytes_max.saturating_sub(*total)).unwrap_or(usize::MAX);
                if room == 0 {
                    return Err(DecodeError::BodyTooLarge);
                }
                let length = room.min(input.len());
                *total += length as u64;
                Ok((length, ResponseEvent::Data(&input[..length])))
            }
            State::Chunked(chunked) => {
                let (used, chunk) = chunked.decode(input, limits)?;
                Ok(match chunk {
                    Chunk::Incomplete => (used, ResponseEvent::Incomplete),
                    Chunk::Data(data) => (used, ResponseEvent::Data(data)),
                    Chunk::End => {
                        self.state = IDLE;
                        (used, ResponseEvent::End)
                    }
                })
            }
            State::Poisoned => Err(DecodeError::Poisoned),
        }
    }

    /// Enters the state that follows a head.
    fn begin(&mut self, head: &ResponseHead<'_>, limits: &Limits) -> Result<(), DecodeError> {
        self.state = match head.framing() {
            // An interim response has no body and no end event: the next head follows.
            ResponseFraming::None if head.status() < 200 => IDLE,
            ResponseFraming::None => State::Length(0),
            ResponseFraming::Length(length) if length > limits.body_bytes_max => return Err(DecodeError::BodyTooLarge),
            ResponseFraming::Length(length) => State::Length(length),
            ResponseFraming::Chunked => State::Chunked(ChunkedDecoder::new()),
            ResponseFraming::ToTheEnd => State::ToTheEnd(0),
            ResponseFraming::Switched => State::Switched,
        };
        Ok(())
    }
}

impl Default for ResponseDecoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Translates an error in the first line into the error for a response.
fn of_response(error: DecodeError) -> DecodeError {
    match error {
        DecodeError::RequestLine => DecodeError::StatusLine,
        DecodeError::RequestLineTooLong => DecodeError::HeadTooLarge,
        other => other,
    }
}
