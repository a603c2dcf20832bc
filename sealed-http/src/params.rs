//! What the parts of a path stand for that a pattern leaves open.

use std::borrow::Cow;
use std::ops::Index;

use crate::query::{BadEncoding, decode_segment};

/// The parameters of a path by the names that the pattern gives them, percent-decoded. See [`Routes`](crate::Routes).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// The value of a parameter; `None` where the pattern has none of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(held, _)| *held == name).map(|(_, value)| value.as_ref())
    }

    /// Names and values in the order of the path.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_ref()))
    }

    /// Notes a part of the path, to be named and decoded when it is known which pattern it belongs to.
    pub(crate) fn push(&mut self, raw: &'a str) {
        self.0.push(("", Cow::Borrowed(raw)));
    }

    /// Forgets the last part: its pattern was not the right one.
    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }

    /// Names the parts, as many as there are names, and decodes them.
    pub(crate) fn decode(&mut self, names: &[&'static str]) -> Result<(), BadEncoding> {
        debug_assert_eq!(self.0.len(), names.len());
        for ((name, value), given) in self.0.iter_mut().zip(names) {
            *name = given;
            if let Cow::Borrowed(raw) = *value {
                *value = decode_segment(raw)?;
            }
        }
        Ok(())
    }
}

/// # Panics
/// Where the pattern has no parameter of that name.
impl Index<&str> for Params<'_> {
    type Output = str;

    fn index(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("the pattern has no parameter {name:?}"))
    }
}
