//! The values of the parameters in a path.

use std::borrow::Cow;
use std::ops::Index;

use crate::site::query::{BadEncoding, decode_segment};

/// The parameters of a path, percent-decoded, with the names from the pattern. See
/// [`Routes`](crate::site::Routes). `params["name"]` panics if the pattern has no parameter of that
/// name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Returns the value of a parameter; `None` if the pattern has no parameter of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(held, _)| *held == name).map(|(_, value)| value.as_ref())
    }

    /// Returns names and values in the order of the path.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_ref()))
    }

    /// Adds a part of the path, to be named and decoded once the matching pattern is known.
    pub(crate) fn push(&mut self, raw: &'a str) {
        self.0.push(("", Cow::Borrowed(raw)));
    }

    /// Removes the last part: its pattern did not match.
    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }

    /// Assigns the names to the parts, and decodes the parts. There are as many names as parts.
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
/// If the pattern has no parameter of that name.
impl Index<&str> for Params<'_> {
    type Output = str;

    fn index(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("the pattern has no parameter {name:?}"))
    }
}
