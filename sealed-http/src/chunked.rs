//! The chunked transfer coding, taken apart strictly.

use crate::error::DecodeError;
use crate::limits::Limits;

use crate::head::is_token_byte;

/// Hexadecimal digits of a chunk's size: more could not be a length that is allowed anywhere.
const SIZE_DIGITS_MAX: u8 = 15;

/// Takes chunks apart, however their bytes are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkedDecoder {
    /// Bytes left of the chunk; its size, while that is being read.
    left: u64,
    /// Bytes of all chunks so far.
    total: u64,
    /// Bytes of extensions in all chunk lines so far.
    extensions: u32,
    /// Bytes of the chunk line, or of the trailer, so far. The limits are `u16`, so that it passes them first.
    line: u32,
    digits: u8,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    End,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk<'a> {
    Incomplete,
    Data(&'a [u8]),
    End,
}

impl ChunkedDecoder {
    pub(crate) const fn new() -> Self {
        Self { left: 0, total: 0, extensions: 0, line: 0, digits: 0, at: At::Size }
    }

    /// Goes on with what comes next. Returns how many bytes were used up, and what they were.
    pub(crate) fn decode<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<(usize, Chunk<'a>), DecodeError> {
        let mut used = 0;
        while let Some(byte) = input.get(used).copied() {
            if self.at == At::Data {
                let length = self.left.min((input.len() - used) as u64) as usize;
                self.left -= length as u64;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                return Ok((used + length, Chunk::Data(&input[used..used + length])));
            }
            used += 1;
            if self.step(byte, limits)? {
                return Ok((used, Chunk::End));
            }
        }
        Ok((used, Chunk::Incomplete))
    }

    /// Takes one byte of framing. Returns whether the body has ended with it.
    fn step(&mut self, byte: u8, limits: &Limits) -> Result<bool, DecodeError> {
        self.at = match (self.at, byte) {
            (At::Size, b'\r') if self.digits > 0 => At::SizeEnd,
            (At::Size, b';') if self.digits > 0 => self.count_extension(limits)?,
            (At::Size, _) => self.digit(byte, limits)?,
            (At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, _) if is_text(byte) => self.count_extension(limits)?,
            (At::SizeEnd, b'\n') => {
                (self.line, self.digits) = (0, 0);
                if self.left == 0 { At::Trailer } else { At::Data }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size,
            (At::Trailer, b'\r') => At::End,
            (At::TrailerName, b':') => self.count_trailer(limits, At::TrailerValue)?,
            (At::Trailer | At::TrailerName, _) if is_token_byte(byte) => self.count_trailer(limits, At::TrailerName)?,
            (At::TrailerValue, b'\r') => self.count_trailer(limits, At::TrailerEnd)?,
            (At::TrailerValue, _) if is_text(byte) => self.count_trailer(limits, At::TrailerValue)?,
            (At::TrailerEnd, b'\n') => self.count_trailer(limits, At::Trailer)?,
            (At::End, b'\n') => return Ok(true),
            _ => return Err(DecodeError::Chunk),
        };
        Ok(false)
    }

    fn digit(&mut self, byte: u8, limits: &Limits) -> Result<At, DecodeError> {
        let digit = char::from(byte).to_digit(16).ok_or(DecodeError::Chunk)?;
        self.digits += 1;
        if self.digits > SIZE_DIGITS_MAX {
            return Err(DecodeError::Chunk);
        }
        // The size must be spelt out before it counts; digits so far can only grow.
        let size = self.left * 16 + u64::from(digit);
        self.total += size - self.left;
        self.left = size;
        if self.total > limits.body_bytes_max {
            return Err(DecodeError::BodyTooLarge);
        }
        self.count_line(limits, At::Size)
    }

    fn count_line(&mut self, limits: &Limits, next: At) -> Result<At, DecodeError> {
        self.line += 1;
        if self.line > u32::from(limits.chunk_line_bytes_max) { Err(DecodeError::Chunk) } else { Ok(next) }
    }

    /// Extensions carry nothing: all chunks together must not make them more than their limit.
    fn count_extension(&mut self, limits: &Limits) -> Result<At, DecodeError> {
        self.extensions += 1;
        if self.extensions > u32::from(limits.chunk_extension_bytes_max) {
            return Err(DecodeError::Chunk);
        }
        self.count_line(limits, At::Extension)
    }

    fn count_trailer(&mut self, limits: &Limits, next: At) -> Result<At, DecodeError> {
        self.line += 1;
        if self.line > u32::from(limits.trailer_bytes_max) { Err(DecodeError::HeadTooLarge) } else { Ok(next) }
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
