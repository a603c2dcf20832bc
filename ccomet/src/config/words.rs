//! Sizes and durations in words: `64k`, `1 MiB`, `15s`, `7d`.

use sealed::fault;

/// The unit in which a setting has its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A count, which has no words.
    Count,
    Bytes,
    Seconds,
    Milliseconds,
}

/// Units of sizes, in any case of letters, in bytes. Those for output come last of their size.
const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("", 1),
    ("k", 1 << 10),
    ("KiB", 1 << 10),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("T", 1 << 40),
    ("TiB", 1 << 40),
];

/// Units of durations, in milliseconds.
const DURATIONS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Unit {
    /// Returns a number in this unit that a text has, either alone or with a unit of its own.
    pub(crate) fn parse(self, text: &str) -> Result<u64, String> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let unit = unit.trim_start();
        if digits.is_empty() {
            return Err("does not begin with a whole number".to_owned());
        }
        let too_large = || "is too large".to_owned();
        let number: u64 = digits.replace('_', "").parse().map_err(|_| too_large())?;
        if unit.is_empty() {
            return Ok(number);
        }
        if unit.starts_with(['.', ',']) {
            return Err("is not a whole number".to_owned());
        }
        let factor = self.factor(unit)?;
        let amount = number.checked_mul(factor).ok_or_else(too_large)?;
        match self {
            Self::Seconds if amount % 1_000 != 0 => Err("is not a whole number of seconds".to_owned()),
            Self::Seconds => Ok(amount / if fault!("seconds-as-milliseconds") { 1 } else { 1_000 }),
            _ => Ok(amount),
        }
    }

    /// Returns how many bytes or milliseconds a unit has.
    fn factor(self, unit: &str) -> Result<u64, String> {
        let found = match self {
            Self::Count => None,
            Self::Bytes => SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)),
            Self::Seconds | Self::Milliseconds => DURATIONS.iter().find(|(name, _)| *name == unit),
        };
        found.map(|(_, factor)| *factor).ok_or_else(|| match self {
            Self::Bytes if ["kb", "mb", "gb", "tb"].contains(&unit.to_ascii_lowercase().as_str()) => {
                format!("has the unit {unit}, which stands for two sizes")
            }
            Self::Count => "has a unit, and is a count".to_owned(),
            _ => format!("has the unknown unit {unit:?}"),
        })
    }

    /// Returns what a setting of this unit accepts.
    pub(crate) fn allowed(self) -> &'static str {
        match self {
            Self::Count => "a whole number without a unit, such as 1000",
            Self::Bytes => {
                "a number of bytes, or a text with the unit B, k (KiB), M (MiB), G (GiB) or T (TiB), in powers of \
                 1,024, such as 65536 or \"64k\""
            }
            Self::Seconds => "a number of seconds, or a text with the unit s, m (min), h or d, such as 900 or \"15m\"",
            Self::Milliseconds => {
                "a number of milliseconds, or a text with the unit ms, s, m (min), h or d, such as 500 or \"500ms\""
            }
        }
    }

    /// Returns a number in the largest unit of which it is a multiple; `None` for a count.
    pub(crate) fn in_words(self, number: u64) -> Option<String> {
        let (units, scale): (&[(&str, u64)], u64) = match self {
            Self::Count => return None,
            Self::Bytes => (&SIZES, 1),
            Self::Seconds => (&DURATIONS, 1_000),
            Self::Milliseconds => (&DURATIONS, 1),
        };
        let amount = u128::from(number) * u128::from(scale);
        let fits = |factor: u64| amount >= u128::from(factor) && amount % u128::from(factor) == 0;
        let largest = units.iter().rev().find(|(name, factor)| !name.is_empty() && fits(*factor));
        let smallest = if self == Self::Seconds { ("s", 1_000) } else { units[0] };
        let (name, factor) = largest.copied().unwrap_or(smallest);
        Some(format!("{} {name}", amount / u128::from(factor)))
    }
}

/// Returns the seconds of a duration, such as `90`, `15s`, `10m`, `2h` or `7d`; a number without a
/// unit is in seconds.
///
/// # Errors
///
/// Returns a message if the text is not a duration, or not a whole number of seconds.
///
/// ```
/// assert_eq!(ccomet::parse_seconds("2h"), Ok(7_200));
/// assert!(ccomet::parse_seconds("2 hours").is_err());
/// ```
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    Unit::Seconds.parse(text).map_err(|why| format!("it {why}: allowed is {}", Unit::Seconds.allowed()))
}

/// Returns the bytes of a size, such as `65536`, `64k` or `1 MiB`, in powers of 1,024; a number
/// without a unit is in bytes.
///
/// # Errors
///
/// Returns a message if the text is not a size.
///
/// ```
/// assert_eq!(ccomet::parse_bytes("64k"), Ok(65_536));
/// assert!(ccomet::parse_bytes("64 MB").is_err());
/// ```
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    Unit::Bytes.parse(text).map_err(|why| format!("it {why}: allowed is {}", Unit::Bytes.allowed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_powers_of_1024() {
        for (text, bytes) in [
            ("65536", Some(65_536)),
            ("65_536", Some(65_536)),
            ("64k", Some(65_536)),
            ("64K", Some(65_536)),
            (" 64 KiB ", Some(65_536)),
            ("1m", Some(1 << 20)),
            ("3 MiB", Some(3 << 20)),
            ("10G", Some(10 << 30)),
            ("1T", Some(1 << 40)),
            ("0", Some(0)),
            ("512 B", Some(512)),
            ("64kB", None),
            ("64 MB", None),
            ("64q", None),
            ("1.5M", None),
            ("-1", None),
            ("k", None),
            ("", None),
            ("64 k k", None),
            ("18446744073709551616", None),
            ("99999999999G", None),
            ("10m!", None),
        ] {
            assert_eq!(Unit::Bytes.parse(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn durations_are_whole_numbers_in_the_unit_of_the_setting() {
        for (text, seconds, milliseconds) in [
            ("15", Some(15), Some(15)),
            ("15s", Some(15), Some(15_000)),
            ("500ms", None, Some(500)),
            ("2000 ms", Some(2), Some(2_000)),
            ("10m", Some(600), Some(600_000)),
            ("10 min", Some(600), Some(600_000)),
            ("2h", Some(7_200), Some(7_200_000)),
            ("7d", Some(604_800), Some(604_800_000)),
            ("7 days", None, None),
            ("1M", None, None),
            ("1h30m", None, None),
            ("s", None, None),
            ("300000000000000d", None, None),
        ] {
            assert_eq!(Unit::Seconds.parse(text).ok(), seconds, "{text}");
            assert_eq!(Unit::Milliseconds.parse(text).ok(), milliseconds, "{text}");
        }
    }

    #[test]
    fn numbers_in_words_can_be_parsed_again() {
        for (unit, number, words) in [
            (Unit::Bytes, 65_536, "64 KiB"),
            (Unit::Bytes, 1_000, "1000 B"),
            (Unit::Bytes, 0, "0 B"),
            (Unit::Bytes, 10 << 30, "10 GiB"),
            (Unit::Seconds, 86_400, "1 d"),
            (Unit::Seconds, 90, "90 s"),
            (Unit::Seconds, 0, "0 s"),
            (Unit::Milliseconds, 2_000, "2 s"),
            (Unit::Milliseconds, 100, "100 ms"),
        ] {
            assert_eq!(unit.in_words(number).as_deref(), Some(words));
            assert_eq!(unit.parse(words), Ok(number), "{words}");
        }
        assert_eq!(Unit::Count.in_words(5), None);
    }
}
