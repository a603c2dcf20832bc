//! The replies of the functions, and the messages of pub/sub.

use std::collections::VecDeque;

use bytes::Bytes;

use super::keys::read_epoch;
use super::resp::Value;
use crate::core::position::Epoch;

/// A reply of a function that names a state instead of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    /// The generation has changed.
    Stale,
    /// There is no such channel.
    Absent,
    /// A different message was published under one of the keys.
    KeyReused,
}

/// An entry of a channel's stream.
#[derive(Debug)]
pub(super) struct StreamEntry {
    pub(super) number: u64,
    /// The time by the clock of Redis, in milliseconds.
    pub(super) time: u64,
    pub(super) token: Bytes,
    pub(super) message: Bytes,
}

/// A part of a channel, or its newest entries.
#[derive(Debug)]
pub(super) struct ChannelReply {
    pub(super) epoch: Epoch,
    pub(super) next: u64,
    pub(super) first: u64,
    pub(super) entries: Vec<StreamEntry>,
    pub(super) has_more: bool,
}

/// The result of a publication.
#[derive(Debug)]
pub(super) struct PublishReply {
    pub(super) epoch: Epoch,
    pub(super) first: u64,
    pub(super) time: u64,
    /// The number of each message, and whether it is new.
    pub(super) numbers: Vec<(u64, bool)>,
}

/// A channel in a list.
#[derive(Debug)]
pub(super) struct NameReply {
    pub(super) name: Bytes,
    pub(super) epoch: Epoch,
    pub(super) next: u64,
    pub(super) first: u64,
    pub(super) bytes: u64,
}

/// A message of pub/sub.
#[derive(Debug)]
pub(super) enum Notice {
    Appended { epoch: Epoch, first: u64, time: u64, token: Bytes, messages: Vec<Bytes> },
    Cleared { epoch: Epoch, next: u64, token: Bytes },
    Removed { token: Bytes },
}

/// The greatest number, of a message or a time, that a reply may have. Sums of such numbers do not
/// overflow.
const NUMBER_MAX: u64 = (1 << 50) - 1;

/// Reads the elements of an array in order.
#[derive(Debug)]
pub(super) struct Elements(VecDeque<Value>);

impl ChannelReply {
    /// Drops the entries before the last hole, so that the rest are consecutive up to the last
    /// message. The stream has a hole only if another program has changed it.
    pub(super) fn drop_before_hole(&mut self) {
        let numbers = (0..self.next).rev();
        let whole = self.entries.iter().rev().zip(numbers).take_while(|(entry, number)| entry.number == *number);
        let holed = self.entries.len() - whole.count();
        self.entries.drain(..holed);
    }
}

impl Elements {
    /// Returns the elements of an array; `None` if the value is none.
    pub(super) fn of(value: Value) -> Option<Self> {
        match value {
            Value::Array(elements) => Some(Self(elements.into())),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<Bytes> {
        match self.0.pop_front()? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let number = match self.0.pop_front()? {
            Value::Integer(number) => u64::try_from(number).ok()?,
            Value::Bytes(bytes) => std::str::from_utf8(&bytes).ok()?.parse().ok()?,
            _ => return None,
        };
        Some(number).filter(|number| *number <= NUMBER_MAX)
    }

    fn epoch(&mut self) -> Option<Epoch> {
        read_epoch(&self.bytes()?)
    }

    fn array(&mut self) -> Option<Self> {
        Self::of(self.0.pop_front()?)
    }

    /// Reads the status at the beginning of a reply.
    pub(super) fn status(&mut self) -> Option<Status> {
        match &*self.bytes()? {
            b"OK" => Some(Status::Ok),
            b"STALE" => Some(Status::Stale),
            b"ABSENT" => Some(Status::Absent),
            b"KEY" => Some(Status::KeyReused),
            _ => None,
        }
    }

    /// Reads the generation and the time of Redis, which `hello` returns.
    pub(super) fn greeting(&mut self) -> Option<(u64, u64)> {
        Some((self.number()?, self.number()?))
    }

    /// Reads what `open` or `read` returns.
    pub(super) fn channel(&mut self) -> Option<ChannelReply> {
        let (epoch, next, first, _) = (self.epoch()?, self.number()?, self.number()?, self.number()?);
        let mut entries = Vec::new();
        let mut all = self.array()?;
        while let Some(entry) = all.0.pop_front() {
            let mut entry = Self::of(entry)?;
            let (number, time) = (entry.number()?, entry.number()?);
            entries.push(StreamEntry { number, time, token: entry.bytes()?, message: entry.bytes()? });
        }
        let has_more = self.number().is_some_and(|more| more > 0);
        if first > next {
            return None;
        }
        Some(ChannelReply { epoch, next, first, entries, has_more })
    }

    pub(super) fn publication(&mut self) -> Option<PublishReply> {
        let (epoch, first, time) = (self.epoch()?, self.number()?, self.number()?);
        let (mut numbers, mut news) = (self.array()?, self.array()?);
        let numbers = std::iter::from_fn(|| Some((numbers.number()?, news.number()? > 0))).collect();
        Some(PublishReply { epoch, first, time, numbers })
    }

    pub(super) fn names(&mut self) -> Option<(Vec<NameReply>, bool)> {
        let has_more = self.number()? > 0;
        let (mut all, mut names) = (self.array()?, Vec::new());
        while let Some(row) = all.0.pop_front() {
            let mut row = Self::of(row)?;
            let (name, epoch, next) = (row.bytes()?, row.epoch()?, row.number()?);
            names.push(NameReply { name, epoch, next, first: row.number()?, bytes: row.number()? });
        }
        Some((names, has_more))
    }

    /// Reads the last name that `sweep` has visited.
    pub(super) fn visited(&mut self) -> Option<Bytes> {
        self.bytes()
    }
}

impl Notice {
    /// Reads the payload of a message of pub/sub.
    pub(super) fn read(payload: &Bytes) -> Option<Self> {
        let end = payload.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&payload[..end]).ok()?;
        let mut words = line.split(' ');
        let kind = words.next()?;
        let epoch = read_epoch(words.next()?.as_bytes())?;
        let mut number = || words.next()?.parse::<u64>().ok().filter(|number| *number <= NUMBER_MAX);
        match kind {
            "A" => {
                let (first, count, time) = (number()?, number()?, number()?);
                let token = payload.slice_ref(words.next()?.as_bytes());
                let (mut begin, mut messages) = (end + 1, Vec::new());
                for length in words {
                    let until = begin.checked_add(length.parse().ok()?)?;
                    payload.get(begin..until)?;
                    messages.push(payload.slice(begin..until));
                    begin = until;
                }
                let is_whole = begin == payload.len() && messages.len() as u64 == count;
                is_whole.then_some(Self::Appended { epoch, first, time, token, messages })
            }
            "C" => Some(Self::Cleared { epoch, next: number()?, token: payload.slice_ref(words.next()?.as_bytes()) }),
            "R" => {
                number()?;
                Some(Self::Removed { token: payload.slice_ref(words.next()?.as_bytes()) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> StreamEntry {
        StreamEntry { number, time: 0, token: Bytes::new(), message: Bytes::new() }
    }

    #[test]
    fn entries_before_a_hole_are_dropped() {
        for (numbers, next, kept) in
            [(vec![3, 4, 5], 6, 3), (vec![3, 5, 6], 7, 2), (vec![3, 4], 6, 0), (vec![], 4, 0), (vec![1, 0], 1, 1)]
        {
            let entries = numbers.iter().copied().map(entry).collect();
            let mut reply = ChannelReply { epoch: Epoch(1), next, first: 0, entries, has_more: false };
            reply.drop_before_hole();
            let left: Vec<u64> = reply.entries.iter().map(|entry| entry.number).collect();
            assert_eq!(left, numbers[numbers.len() - kept..], "{numbers:?}, {next}");
        }
    }

    #[test]
    fn numbers_that_could_overflow_are_refused() {
        let number = |value| Elements(VecDeque::from([value])).number();
        assert_eq!(number(Value::Integer(7)), Some(7));
        for value in [Value::Integer(-1), Value::Integer(i64::MAX), Value::Bytes("18446744073709551615".into())] {
            assert_eq!(number(value.clone()), None, "{value:?}");
        }
        assert!(Notice::read(&Bytes::from_static(b"A 1 18446744073709551615 1 1 s 1\nx")).is_none());
    }

    #[test]
    fn a_notice_has_the_messages_that_its_line_announces() {
        let line = b"A 0018bcfe5680abcd 7 2 1700000000000 s-1 3 0\nxyz";
        let Some(Notice::Appended { first, messages, token, .. }) = Notice::read(&Bytes::from_static(line)) else {
            panic!("a notice")
        };
        assert_eq!((first, &*token, messages), (7, &b"s-1"[..], vec![Bytes::from("xyz"), Bytes::new()]));
        for bad in ["A 1 7 2 1 s 3 0\nxyzz", "A 1 7 1 1 s 3 0\nxyz", "A 1 7 1 1 s 9\nxyz", "X 1 1 s\n", "C 1 1 s", ""] {
            assert!(Notice::read(&Bytes::from_static(bad.as_bytes())).is_none(), "{bad}");
        }
    }
}
