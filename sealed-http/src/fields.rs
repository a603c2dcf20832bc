//! Header fields that a message is sent with, checked as they are added.

use std::borrow::Cow;

use crate::head::{is_token_byte, is_value};

/// A header field's value would end its line, or has other control bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a header field's value must not have control characters")]
pub struct BadHeaderValue;

/// Header fields in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Vec<(&'static str, Cow<'static, str>)>);

impl Fields {
    /// Adds one whose value comes from elsewhere.
    ///
    /// # Panics
    /// Where the name is not a token, or one of those that are written for the message.
    pub(crate) fn try_add(
        &mut self,
        name: &'static str,
        value: Cow<'static, str>,
        written: &[&str],
    ) -> Result<(), BadHeaderValue> {
        assert!(!name.is_empty() && name.bytes().all(is_token_byte), "not the name of a header field: {name:?}");
        assert!(!written.iter().any(|held| name.eq_ignore_ascii_case(held)), "{name} cannot be set here");
        if !is_value(value.as_bytes()) {
            return Err(BadHeaderValue);
        }
        self.0.push((name, value));
        Ok(())
    }

    /// Adds one that is written down in the program.
    ///
    /// # Panics
    /// As [`try_add`](Self::try_add) does, and where the value has control characters.
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>, written: &[&str]) {
        let added = self.try_add(name, value.into(), written);
        assert!(added.is_ok(), "control characters in the header field {name}");
    }

    /// Appends them.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|(name, value)| encode_field(out, name, value));
    }
}

/// Appends a header field.
pub(crate) fn encode_field(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}
