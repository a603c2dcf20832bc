//! A strict decoder of the chunked transfer coding.

use crate::codec::error::DecodeError;
use crate::codec::limits::Limits;

use crate::codec::head::is_token_byte;

/// Maximum number of hexadecimal digits of a chunk size. No body may be as long as a size with more
/// digits.
const SIZE_DIGITS_MAX: u8 = 15;

/// Decodes chunks, however their bytes are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkedDecoder {
    /// Number of bytes left of the chunk; while the size is being read, the size so far.
    left: u64,
    /// Size in bytes of all chunks so far.
    total: u64,
    /// Size in bytes of the extensions in all chunk lines so far.
    extensions: u32,
    /// Size in bytes of the current chunk line, or of the trailer section. The limits are `u16`, so
    /// that this count exceeds a limit before it can overflow.
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

/// A decoded part of a chunked body.
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

    /// Decodes the next bytes. Returns how many bytes were used, and what they were.
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

    /// Processes one byte of framing. Returns whether the body ends with this byte.
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
        // The size counts before it is complete, because further digits can only make it larger.
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

    /// Counts a byte of an extension. Extensions carry no data: those of all chunks together must
    /// not exceed their limit.
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
