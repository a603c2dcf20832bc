//! The binary form of messages and numbers in stores.
//!
//! ```text
//! message  time varint | flags u8 | sender, event, key: length varint and text, if the flags say so
//!          | expiry varint, if the flags say so | payload
//! ```
//!
//! Times are in milliseconds since 1970. A varint has seven bits a byte, the lowest first.

use bytes::Bytes;

use crate::core::message::{Draft, Message};
use crate::core::time::UnixMillis;

const HAS_SENDER: u8 = 1;
const HAS_EVENT: u8 = 2;
const HAS_KEY: u8 = 4;
const EXPIRES: u8 = 8;
const IS_BROADCAST: u8 = 16;
const ALL_FLAGS: u8 = HAS_SENDER | HAS_EVENT | HAS_KEY | EXPIRES | IS_BROADCAST;

/// Appends a message.
pub(in crate::engine::store) fn put_message(out: &mut Vec<u8>, message: &Message) {
    let extra = message.extra.as_deref();
    let expires = extra.and_then(|extra| extra.expires);
    let mut flags = if message.is_broadcast() { IS_BROADCAST } else { 0 };
    let texts = [(HAS_SENDER, message.sender.as_deref()), (HAS_EVENT, message.event()), (HAS_KEY, message.key())];
    for (flag, text) in &texts {
        flags |= if text.is_some() { *flag } else { 0 };
    }
    flags |= if expires.is_some() { EXPIRES } else { 0 };
    put_varint(out, message.time().as_millis());
    out.push(flags);
    for text in texts.iter().filter_map(|(_, text)| *text) {
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    if let Some(expires) = expires {
        put_varint(out, expires.as_millis());
    }
    out.extend_from_slice(&message.payload);
}

/// Reads a message that [`put_message`] has written; the payload is what follows.
pub(in crate::engine::store) fn read_message(mut rest: Input<'_>) -> Option<Message> {
    let (time, flags) = (rest.varint()?, rest.u8()?);
    if flags & !ALL_FLAGS != 0 {
        return None;
    }
    let mut text = |flag| {
        if flags & flag == 0 {
            return Some(None);
        }
        let length = usize::try_from(rest.varint()?).ok()?;
        Some(Some(Box::from(std::str::from_utf8(rest.take(length)?).ok()?)))
    };
    let (sender, event, key) = (text(HAS_SENDER)?, text(HAS_EVENT)?, text(HAS_KEY)?);
    let expires = if flags & EXPIRES == 0 { None } else { Some(UnixMillis::from_millis(rest.varint()?)) };
    let draft = Draft { payload: Bytes::copy_from_slice(rest.0), sender, event, ttl_s: None, key };
    let mut message = draft.taken_at(UnixMillis::from_millis(time));
    if expires.is_some() {
        message.extra_mut().expires = expires;
    }
    if flags & IS_BROADCAST != 0 {
        message.extra_mut().is_broadcast = true;
    }
    Some(message)
}

/// The rest of what is read.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::store) struct Input<'a>(pub(in crate::engine::store) &'a [u8]);

impl<'a> Input<'a> {
    pub(in crate::engine::store) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(in crate::engine::store) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(in crate::engine::store) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(in crate::engine::store) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// Reads a number of at most ten bytes, of which each has seven bits, the lowest first.
    pub(in crate::engine::store) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Reads a number that may be negative.
    pub(in crate::engine::store) fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }
}

pub(in crate::engine::store) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(in crate::engine::store) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}
