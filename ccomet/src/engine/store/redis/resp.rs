//! RESP3, the protocol of Redis: encodes commands, and decodes replies.
//!
//! Replies are decoded by the crate `redis-protocol`, whose decoder starts again at the beginning
//! of a frame each time it is called. So a [`Scanner`] first finds the end of the frame. It looks
//! at each byte once, however many pieces a frame arrives in, and refuses frames that are too
//! large, too deep or not of this protocol before any memory is allocated for them.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp3::decode::complete::decode_range;
use redis_protocol::resp3::types::RangeFrame;

/// Maximum length of a frame, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// Maximum number of values in a frame.
pub(crate) const VALUES_MAX: usize = 1 << 20;
/// Maximum number of aggregates, such as arrays, within each other.
pub(crate) const DEPTH_MAX: usize = 8;
/// Maximum length of a text that ends with its line, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Maximum length of a line with a number, in bytes.
const NUMBER_BYTES_MAX: usize = 32;
/// Unused capacity above this many bytes is freed, since a large frame has been there.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// A decoded value.
///
/// Boolean values are integers, 0 or 1. Floating-point and big numbers are text, and texts of all
/// kinds are bytes. Maps are arrays of pairs. Maps and sets are in the order of their values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Nil,
    Integer(i64),
    /// Shares its memory with other values that arrived together with it.
    Bytes(Bytes),
    Error(Box<str>),
    Array(Vec<Value>),
    /// What the server sends without having been asked.
    Push(Vec<Value>),
}

/// The reason why bytes cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RespError {
    #[error("what it sends is not RESP3")]
    Malformed,
    #[error("it sends a frame of more than 64 MiB")]
    TooLarge,
    #[error("it sends a frame of more than 1,048,576 values")]
    TooMany,
    #[error("it sends arrays within each other, more than 8 deep")]
    TooDeep,
}

/// Appends a command, of these parts.
pub(crate) fn encode(out: &mut Vec<u8>, parts: &[&[u8]]) {
    encode_count(out, '*', parts.len());
    for part in parts {
        encode_count(out, '$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

fn encode_count(out: &mut Vec<u8>, kind: char, count: usize) {
    // Writing to a vector does not fail.
    let _ = write!(out, "{kind}{count}\r\n");
}

/// Decodes the bytes of a connection, in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    held: BytesMut,
    scanner: Scanner,
}

impl Decoder {
    /// Adds bytes that follow those before.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Returns the next value, or `None` if its last bytes have not arrived.
    ///
    /// # Errors
    /// If the bytes are not a value. Nothing that follows can be decoded.
    pub(crate) fn next(&mut self) -> Result<Option<Value>, RespError> {
        let Some(length) = self.scanner.find_end(&self.held)? else { return Ok(None) };
        self.scanner = Scanner::default();
        let frame = self.held.split_to(length).freeze();
        if self.held.is_empty() && length > SPARE_BYTES_MAX {
            self.held = BytesMut::new();
        }
        match decode_range(&frame) {
            Ok(Some((decoded, used))) if used == length => value(&frame, decoded).map(Some),
            _ => Err(RespError::Malformed),
        }
    }
}

/// Converts a value of a frame, as the other crate describes it by ranges of the bytes. The scanner
/// admits no other kinds of values.
fn value(frame: &Bytes, decoded: RangeFrame) -> Result<Value, RespError> {
    let part = |(begin, end): (usize, usize)| {
        let is_within = begin <= end && end <= frame.len();
        is_within.then(|| frame.slice(begin..end)).ok_or(RespError::Malformed)
    };
    let values = |values: Vec<RangeFrame>| values.into_iter().map(|one| value(frame, one)).collect::<Result<_, _>>();
    Ok(match decoded {
        RangeFrame::Null => Value::Nil,
        RangeFrame::Number { data, .. } => Value::Integer(data),
        RangeFrame::Boolean { data, .. } => Value::Integer(i64::from(data)),
        RangeFrame::Double { data, .. } => Value::Bytes(data.to_string().into()),
        RangeFrame::BlobString { data, .. }
        | RangeFrame::SimpleString { data, .. }
        | RangeFrame::VerbatimString { data, .. }
        | RangeFrame::BigNumber { data, .. } => Value::Bytes(part(data)?),
        RangeFrame::SimpleError { data, .. } | RangeFrame::BlobError { data, .. } => {
            Value::Error(String::from_utf8_lossy(&part(data)?).into())
        }
        RangeFrame::Array { data, .. } => Value::Array(values(data)?),
        RangeFrame::Push { data, .. } => Value::Push(values(data)?),
        RangeFrame::Map { data, .. } => {
            let pairs = data.into_iter().map(|(key, held)| values(vec![key, held]).map(Value::Array));
            sorted(pairs.collect::<Result<_, _>>()?)
        }
        RangeFrame::Set { data, .. } => sorted(values(data.into_iter().collect())?),
        RangeFrame::Hello { .. } | RangeFrame::ChunkedString(_) => return Err(RespError::Malformed),
    })
}

/// Orders values that come from a hash table, whose order is not the same in each run.
fn sorted(mut values: Vec<Value>) -> Value {
    values.sort_unstable();
    Value::Array(values)
}

/// Finds the end of a frame. It remembers the place that it has reached.
#[derive(Debug, Default)]
struct Scanner {
    /// The beginning of the next value, relative to that of the frame.
    at: usize,
    /// The bytes before this place are known to have no end of a line.
    searched: usize,
    /// The end of a blob whose beginning has been seen.
    blob_end: Option<usize>,
    /// The number of values that each open aggregate still needs, the outermost first.
    needed: [usize; DEPTH_MAX],
    depth: usize,
    /// The number of values that aggregates have announced.
    values: usize,
}

impl Scanner {
    /// Returns the length of the frame at the beginning of the bytes, or `None` if it has not
    /// arrived completely. Each call gets the bytes of the one before and any that follow.
    fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, RespError> {
        loop {
            let is_value = if let Some(end) = self.blob_end {
                let Some(blob) = bytes.get(..end) else { return Ok(None) };
                if !blob.ends_with(b"\r\n") {
                    return Err(RespError::Malformed);
                }
                (self.at, self.blob_end) = (end, None);
                true
            } else {
                let Some((kind, line)) = self.next_line(bytes)? else { return Ok(None) };
                self.enter(kind, line)?
            };
            if self.at.max(self.blob_end.unwrap_or(0)) > FRAME_BYTES_MAX {
                return Err(RespError::TooLarge);
            }
            if is_value && self.complete_value() {
                return Ok(Some(self.at));
            }
        }
    }

    /// Returns the kind of the next value, and the rest of its first line; `None` if the line has
    /// not arrived completely.
    fn next_line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(u8, &'a [u8])>, RespError> {
        let Some((kind, rest)) = bytes.get(self.at..).and_then(<[u8]>::split_first) else { return Ok(None) };
        let line_bytes_max = match kind {
            b'+' | b'-' | b'(' => LINE_BYTES_MAX,
            b':' | b'$' | b'*' | b'%' | b'~' | b'>' | b'_' | b'#' | b',' | b'=' | b'!' => NUMBER_BYTES_MAX,
            _ => return Err(RespError::Malformed),
        };
        let begin = self.at + 1;
        let known = self.searched.saturating_sub(begin);
        let found = rest.get(known..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
        let length = found.map_or(rest.len(), |more| known + more);
        if length > line_bytes_max {
            return Err(RespError::Malformed);
        }
        self.searched = begin + length;
        if found.is_none() {
            return Ok(None);
        }
        self.at = begin + length + 1;
        let line = rest.get(..length).and_then(|line| line.strip_suffix(b"\r"));
        line.map(|line| Some((*kind, line))).ok_or(RespError::Malformed)
    }

    /// Notes the first line of a value. Returns whether the value is complete with it.
    fn enter(&mut self, kind: u8, line: &[u8]) -> Result<bool, RespError> {
        match kind {
            b'$' | b'=' | b'!' => {
                let length = number(line)?;
                self.blob_end = Some(self.at.saturating_add(length).saturating_add(2));
                Ok(false)
            }
            b'*' | b'~' | b'>' | b'%' => {
                let count = number(line)?.saturating_mul(if kind == b'%' { 2 } else { 1 });
                self.values = self.values.saturating_add(count);
                if self.values > VALUES_MAX {
                    return Err(RespError::TooMany);
                }
                if count == 0 {
                    return Ok(true);
                }
                *self.needed.get_mut(self.depth).ok_or(RespError::TooDeep)? = count;
                self.depth += 1;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Notes that a value is complete. Returns whether the frame is complete with it.
    fn complete_value(&mut self) -> bool {
        while let Some(needed) = self.depth.checked_sub(1).and_then(|last| self.needed.get_mut(last)) {
            *needed -= 1;
            if *needed > 0 {
                return false;
            }
            self.depth -= 1;
        }
        true
    }
}

/// Reads a number of decimal digits.
fn number(digits: &[u8]) -> Result<usize, RespError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(RespError::Malformed);
    }
    let digits = str::from_utf8(digits).map_err(|_| RespError::Malformed)?;
    digits.parse().map_err(|_| RespError::TooLarge)
}

#[cfg(test)]
#[path = "resp/tests.rs"] // the target for fuzzing includes this file
mod tests;
