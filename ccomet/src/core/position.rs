//! The position of a reader in its channels, and its text form for clients.

use std::fmt;

use crate::core::time::UnixMillis;

/// The longest number that a position can hold: ten characters of five bits.
const NUMBER_MAX: u64 = (1 << 50) - 1;
const EPOCH_CHARS: usize = 13;
const NUMBER_CHARS: usize = 10;
const SPOT_CHARS: usize = EPOCH_CHARS + 1 + NUMBER_CHARS;
/// Digits in the order of their character codes, so that positions sort as strings.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The identifier of one run of a channel's message numbers. A channel gets a new, greater epoch
/// whenever its numbers start anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch(pub(crate) u64);

impl Epoch {
    /// Creates an epoch greater than `previous`. The time is in its upper bits, so that later
    /// epochs are greater; random bits are below, so that two servers that start in the same
    /// millisecond differ.
    pub(crate) fn new(time: UnixMillis, random: u64, previous: Self) -> Self {
        let fresh = time.as_millis() << 16 | random & 0xffff;
        Self(fresh.max(previous.0 + 1))
    }
}

/// A position in one channel: all messages before `next` of this epoch were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Spot {
    /// The run of numbers.
    pub(crate) epoch: Epoch,
    /// The number of the first message that was not delivered.
    pub(crate) next: u64,
}

impl Spot {
    /// A position in no run: no epoch is 0, so a reader that starts here is notified of a gap.
    pub(crate) const UNKNOWN: Self = Self { epoch: Epoch(0), next: 0 };

    /// Appends the text of the spot. Its length is fixed, so that later spots are also greater as
    /// strings.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        debug_assert!(self.next <= NUMBER_MAX);
        write_base32(self.epoch.0, EPOCH_CHARS, out);
        out.push(b'-');
        write_base32(self.next, NUMBER_CHARS, out);
    }

    fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != SPOT_CHARS || text[EPOCH_CHARS] != b'-' {
            return None;
        }
        let epoch = read_base32(&text[..EPOCH_CHARS])?;
        let next = read_base32(&text[EPOCH_CHARS + 1..])?;
        Some(Self { epoch: Epoch(epoch), next })
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(SPOT_CHARS);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// The number of messages that a reader missed, if it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missed(pub(crate) Option<u64>);

/// The error for a text that is not a position in the given number of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a position that the server gave out for these channels")]
pub(crate) struct BadPosition;

/// Appends the position of a reader of several channels: the spots in the order of the channels'
/// names.
pub(crate) fn write_position(spots: impl IntoIterator<Item = Spot>, out: &mut Vec<u8>) {
    for (index, spot) in spots.into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        spot.write(out);
    }
}

/// Parses the position of a reader of `channels` channels.
pub(crate) fn parse_position(text: &str, channels: usize) -> Result<Vec<Spot>, BadPosition> {
    let spots: Option<Vec<Spot>> =
        text.as_bytes().split(|byte| *byte == b'.').take(channels + 1).map(Spot::parse).collect();
    spots.filter(|spots| spots.len() == channels).ok_or(BadPosition)
}

fn write_base32(value: u64, chars: usize, out: &mut Vec<u8>) {
    for index in (0..chars).rev() {
        out.push(DIGITS[(value >> (5 * index)) as usize & 31]);
    }
}

fn read_base32(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'v' => byte - b'a' + 10,
            _ => return None,
        };
        // The first of 13 digits has only four bits of room.
        value.checked_mul(32)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(spots: &[Spot]) -> String {
        let mut out = Vec::new();
        write_position(spots.iter().copied(), &mut out);
        String::from_utf8(out).expect("digits")
    }

    fn spot(epoch: u64, next: u64) -> Spot {
        Spot { epoch: Epoch(epoch), next }
    }

    #[test]
    fn positions_round_trip_as_text() {
        for spots in [vec![spot(0, 0)], vec![spot(u64::MAX, NUMBER_MAX)], vec![spot(5, 6), spot(7, 8), spot(1, 0)]] {
            assert_eq!(parse_position(&text(&spots), spots.len()), Ok(spots));
        }
    }

    #[test]
    fn positions_sort_as_strings_in_the_order_of_issue() {
        let mut before = text(&[spot(0, 0), spot(0, 0)]);
        for step in
            [(1, 0, 1, 0), (1, 1, 1, 0), (1, 1, 1, 9), (1, 1, 2, 0), (1, 31, 2, 0), (1, 32, 2, 33), (9, 0, 2, 33)]
        {
            let after = text(&[spot(step.0, step.1), spot(step.2, step.3)]);
            assert!(before < after, "{before} {after}");
            before = after;
        }
        let epoch = |millis, random, previous| Epoch::new(UnixMillis::from_millis(millis), random, previous);
        assert!(epoch(1_000, 0, Epoch(0)) < epoch(1_001, 0, Epoch(0)));
        let late = epoch(2_000, 7, Epoch(0));
        assert!(epoch(1_000, 0, late) > late, "though the calendar was set back");
    }

    #[test]
    fn a_text_that_is_no_position_is_refused() {
        let good = text(&[spot(5, 6)]);
        let short = &good[1..];
        for bad in [
            "",
            "0",
            short,
            &format!("{good}."),
            &format!("{good}x"),
            &good.replace('-', "_"),
            "w000000000000-0000000000",
            "g000000000000-0000000000",
        ] {
            assert_eq!(parse_position(bad, 1), Err(BadPosition), "{bad}");
        }
        assert_eq!(parse_position(&good, 2), Err(BadPosition));
        assert_eq!(parse_position(&format!("{good}.{good}"), 1), Err(BadPosition));
    }
}
