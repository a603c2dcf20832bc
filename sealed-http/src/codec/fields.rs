//! Header fields of a message to send, checked as they are added.

use std::borrow::Cow;

use crate::codec::head::{is_token_byte, is_value};

/// The value of a header field has a line end or other control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a header field's value must not have control characters")]
pub struct BadHeaderValue;

/// A list of header fields, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Vec<(&'static str, Cow<'static, str>)>);

impl Fields {
    /// Adds a field whose value is not known to be valid.
    ///
    /// # Panics
    /// If the name is not a token, or one of `written`, the fields that the encoder writes itself.
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

    /// Adds a field whose value is fixed in the program.
    ///
    /// # Panics
    /// On the conditions of [`try_add`](Self::try_add), and if the value has control characters.
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>, written: &[&str]) {
        let added = self.try_add(name, value.into(), written);
        assert!(added.is_ok(), "control characters in the header field {name}");
    }

    /// Appends all fields.
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
