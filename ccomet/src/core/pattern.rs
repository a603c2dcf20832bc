//! Patterns of channel names, in which `*` stands for any run of characters.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::message::CHANNEL_NAME_BYTES_MAX;

/// A pattern of channel names: each `*` stands for any run of characters, which may be empty and
/// may contain dots. All other characters stand for themselves. A pattern without `*` is a name.
///
/// Matching a name takes at most pattern length times name length steps: each part between two `*`
/// is searched once, from the left, since its first occurrence leaves the most characters for the
/// following parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Box<str>);

/// The error for a text that is not a pattern of channel names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pattern is 1 to {CHANNEL_NAME_BYTES_MAX} bytes: a channel's name, in which '*' may stand for any characters"
)]
pub struct BadPattern;

impl Pattern {
    /// Checks a pattern. Several `*` in a row become one.
    ///
    /// ```
    /// use ccomet::Pattern;
    ///
    /// assert!(Pattern::new("orders.*").is_ok());
    /// assert!(Pattern::new("orders,*").is_err());
    /// ```
    ///
    /// # Errors
    /// If the text is empty, too long, `.` or `..`, or if it has a control character or a comma.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        let allowed = |c: char| !c.is_control() && c != ',';
        let sized = (1..=CHANNEL_NAME_BYTES_MAX).contains(&text.len());
        if !sized || matches!(text, "." | "..") || !text.chars().all(allowed) {
            return Err(BadPattern);
        }
        let mut pattern = String::with_capacity(text.len());
        for letter in text.chars() {
            if letter != '*' || !pattern.ends_with('*') {
                pattern.push(letter);
            }
        }
        Ok(Self(pattern.into()))
    }

    /// Returns the pattern of all names.
    pub fn all() -> Self {
        Self("*".into())
    }

    /// Returns the pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the pattern matches a channel's name.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *name };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(name) = name.strip_prefix(first) else { return false };
        // Prefix and suffix must not overlap: the suffix is searched in the rest behind the prefix.
        let Some(mut name) = name.strip_suffix(last) else { return false };
        for part in middle.split('*') {
            let Some(at) = name.find(part) else { return false };
            name = &name[at + part.len()..];
        }
        true
    }
}

impl Pattern {
    /// Returns whether there is a text that both patterns match. The text need not be a valid name.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (mine, theirs): (Vec<char>, Vec<char>) = (self.0.chars().collect(), other.0.chars().collect());
        // For each position in `other`: whether the rest of this pattern from here on overlaps with
        // the rest of `other` from that position on.
        let mut rest: Vec<bool> = Vec::new();
        for letter in std::iter::once(None).chain(mine.iter().rev().map(Some)) {
            let mut here = vec![false; theirs.len() + 1];
            for place in (0..=theirs.len()).rev() {
                let behind = |row: &[bool], at: usize| row.get(at).copied().unwrap_or(false);
                here[place] = match (letter, theirs.get(place)) {
                    (None, None) => true,
                    // A star stands for nothing, or for one more letter of the other pattern.
                    (Some('*'), other) => behind(&rest, place) || other.is_some() && here[place + 1],
                    (letter, Some('*')) => here[place + 1] || letter.is_some() && behind(&rest, place),
                    (letter, other) => letter == other && behind(&rest, place + 1),
                };
            }
            rest = here;
        }
        rest[0]
    }
}

/// Returns whether one of the patterns matches the name.
pub(crate) fn any_matches(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        Self::new(text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).expect("a pattern").matches(name)
    }

    /// Matches by the definition, letter by letter: slow with many stars, and obviously correct.
    fn matches_slowly(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|skipped| matches_slowly(rest, &name[skipped..])),
            Some((letter, rest)) => {
                name.split_first().is_some_and(|(c, more)| c == letter && matches_slowly(rest, more))
            }
        }
    }

    #[test]
    fn a_star_matches_any_run_and_other_characters_match_themselves() {
        for (pattern, name, is_one) in [
            ("news", "news", true),
            ("news", "news.", false),
            ("news.*", "news.", true),
            ("news.*", "news.uk.london", true),
            ("news.*", "news", false),
            ("*", "anything", true),
            ("*.uk", "news.uk", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("ab*ba", "aba", false),
            ("*a*b*", "xbxaxb", true),
            ("*a*b*", "xbxa", false),
            ("n?ws", "news", false),
            ("[n]ews", "news", false),
            ("ä*ß", "ä中ß", true),
            ("News", "news", false),
        ] {
            assert_eq!(matches(pattern, name), is_one, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_overlap_if_a_name_matches_both() {
        for (one, other, overlap) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a*", "*b", true),
            ("a*", "b*", false),
            ("*", "a", true),
            ("a*c", "ab*", true),
            ("a*c", "b*c", false),
            ("news.*.uk", "*.members", false),
            ("news.*", "*.members", true),
            ("a", "a*", true),
            ("a", "aa*", false),
            ("*x*", "y*z", true),
        ] {
            let [one, other] = [one, other].map(|text| Pattern::new(text).expect("a pattern"));
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (overlap, overlap), "{one} {other}");
        }
    }

    #[test]
    fn every_short_pattern_matches_by_the_definition() {
        let texts = |letters: &[char], length: u32| -> Vec<String> {
            let count = letters.len().pow(length);
            let letter = |n: usize, at: u32| letters[n / letters.len().pow(at) % letters.len()];
            (0..count).map(|n| (0..length).map(|at| letter(n, at)).collect()).collect()
        };
        let names: Vec<String> = (1..=5).flat_map(|length| texts(&['a', 'b'], length)).collect();
        for pattern in (1..=5).flat_map(|length| texts(&['a', 'b', '*'], length)) {
            let letters: Vec<char> = pattern.chars().collect();
            for name in &names {
                let expected = matches_slowly(&letters, &name.chars().collect::<Vec<_>>());
                assert_eq!(matches(&pattern, name), expected, "{pattern} {name}");
            }
        }
    }

    #[test]
    fn a_pattern_has_the_length_limit_and_the_characters_of_a_name() {
        let long = "x".repeat(CHANNEL_NAME_BYTES_MAX);
        assert!(Pattern::new(&long).is_ok());
        for bad in ["", ".", "..", "a,b", "a\nb", &format!("{long}*")] {
            assert_eq!(Pattern::new(bad), Err(BadPattern), "{bad:?}");
        }
        assert_eq!(Pattern::new("a***b**").expect("a pattern").as_str(), "a*b*");
    }

    #[test]
    fn matching_many_stars_takes_no_exponential_time() {
        // With backtracking at each star, this would practically never finish.
        let pattern = "a*".repeat(CHANNEL_NAME_BYTES_MAX / 2 - 1) + "b";
        assert!(!matches(&pattern, &"a".repeat(CHANNEL_NAME_BYTES_MAX)));
    }
}
