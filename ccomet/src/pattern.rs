//! Patterns of channel names: `*` stands for any run of characters, none included.

use std::fmt;
use std::sync::Arc;

use crate::message::{BadChannelName, CHANNEL_NAME_BYTES_MAX};

/// A pattern of channel names; a name is a pattern of itself. `news.*` has `news.`, `news.a` and `news.a.b`, but not `news`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pattern(Arc<str>);

impl Pattern {
    /// Checks a pattern: the characters of a name, and `*`.
    pub(crate) fn new(text: &str) -> Result<Self, BadChannelName> {
        let allowed = |c: char| !c.is_control() && c != ',';
        let sized = (1..=CHANNEL_NAME_BYTES_MAX).contains(&text.len());
        if !sized || matches!(text, "." | "..") || !text.chars().all(allowed) {
            return Err(BadChannelName);
        }
        Ok(Self(Arc::from(text)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a name is one of these. Costs at most the product of the two lengths, and mostly their sum.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut next) = (0, 0);
        // The last star, and where the name goes on behind what it stands for.
        let mut retry: Option<(usize, usize)> = None;
        while next < name.len() {
            if pattern.get(at) == Some(&b'*') {
                retry = Some((at, next));
                at += 1;
            } else if pattern.get(at) == Some(&name[next]) {
                (at, next) = (at + 1, next + 1);
            } else if let Some((star, from)) = retry {
                // That star stands for one more. Those before it need not be tried again.
                retry = Some((star, from + 1));
                (at, next) = (star + 1, from + 1);
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }

    #[allow(dead_code)] // for what a token may
    /// Whether all that the other one has is in this one too. No name has a `*`, so that one in the other pattern is like
    /// a character that nothing but a `*` stands for.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.matches(other.as_str())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect("a pattern")
    }

    #[test]
    fn stars_stand_for_any_run() {
        for (text, has, has_not) in [
            ("news", &["news"][..], &["new", "newss", ""][..]),
            ("news.*", &["news.", "news.a", "news.a.b"], &["news", "anews.a"]),
            ("*", &["", "a", "a.b/c"], &[]),
            ("*.a", &[".a", "b.a", "a.a.a"], &["a", "a.b"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc", "abcbc"], &["ab", "acb", "abcd"]),
            ("**a", &["a", "ba"], &["ab"]),
            ("é*ü", &["éü", "é😀ü"], &["e😀ü"]),
        ] {
            for name in has {
                assert!(pattern(text).matches(name), "{text} has {name}");
            }
            for name in has_not {
                assert!(!pattern(text).matches(name), "{text} has not {name}");
            }
        }
    }

    #[test]
    fn a_pattern_covers_what_is_in_it_whole() {
        for (one, covered, other) in [
            ("*", true, "news.*"),
            ("news.*", true, "news.*"),
            ("news.*", true, "news.a*"),
            ("news.*", true, "news.a"),
            ("news.*", false, "*"),
            ("news.*", false, "new*"),
            ("*.a", true, "b*.a"),
            ("a*", false, "*a"),
            ("a", false, "*"),
        ] {
            assert_eq!(pattern(one).covers(&pattern(other)), covered, "{one} {other}");
        }
    }

    #[test]
    fn what_would_take_long_does_not() {
        // Without bound on what is tried again, this would not end.
        let pattern = pattern(&"a*".repeat(64));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(63))));
    }

    #[test]
    fn patterns_are_checked() {
        for bad in ["", "a,b", "a\nb", ".", &"*".repeat(129)] {
            assert!(Pattern::new(bad).is_err(), "{bad:?}");
        }
    }
}
