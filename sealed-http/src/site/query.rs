//! Strict percent-decoding, done once, of paths, queries and forms.

// The crate `percent-encoding` decodes. The related crate `form_urlencoded` guesses at malformed
// escapes and at bytes that are not UTF-8, which are errors here; a test compares the two on
// well-formed input.

use std::borrow::Cow;

/// An escape is truncated or not hexadecimal, or the decoded bytes are not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed percent-encoding")]
pub struct BadEncoding;

/// The parameters of a query, or of a form's body (see [`Request::form`](crate::Request::form)):
/// `name=value` pairs, separated by `&`, with `+` for a space.
///
/// # Example
/// ```
/// use sealed_http::site::Query;
///
/// let query = Query::new(Some("name=J%C3%BCrgen+K.&wait"));
/// assert_eq!(query.get("name")?.as_deref(), Some("Jürgen K."));
/// assert_eq!(query.get("wait")?.as_deref(), Some(""));
/// assert_eq!(query.get("after")?, None);
/// # Ok::<(), sealed_http::site::BadEncoding>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// Creates the parameters from the part of the target after the `?`. `None` has no parameters.
    pub fn new(raw: Option<&'a str>) -> Self {
        Self(raw.unwrap_or(""))
    }

    /// Returns the value of a parameter; empty for a parameter without `=`. If several parameters
    /// have that name, the first one counts. Only a value with that name is decoded: a malformed
    /// value elsewhere does not matter.
    ///
    /// # Errors
    /// If the percent-encoding of the value is malformed.
    pub fn get(&self, name: &str) -> Result<Option<Cow<'a, str>>, BadEncoding> {
        let found = self.raw_pairs().find(|(key, _)| {
            // Names are decoded before they are compared: the raw name `a+b` is not the parameter
            // `a+b`, but `a b`.
            decode(key, true).is_ok_and(|key| key == name)
        });
        found.map(|(_, value)| decode(value, true)).transpose()
    }

    /// Returns the names and values in order, each name as often as it was sent. A malformed pair
    /// is an error.
    pub fn pairs(&self) -> impl Iterator<Item = Result<(Cow<'a, str>, Cow<'a, str>), BadEncoding>> + 'a {
        self.raw_pairs().map(|(name, value)| Ok((decode(name, true)?, decode(value, true)?)))
    }

    fn raw_pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

/// Decodes one segment of a path, in which `+` stands for itself. An escaped `/` becomes a `/`:
/// split the path first.
///
/// # Errors
/// If the percent-encoding is malformed.
pub fn decode_segment(segment: &str) -> Result<Cow<'_, str>, BadEncoding> {
    decode(segment, false)
}

fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, BadEncoding> {
    let plain = !text.contains('%') && (!plus_is_space || !text.contains('+'));
    if plain {
        return Ok(Cow::Borrowed(text));
    }
    // The crate `percent_encoding` leaves malformed escapes unchanged; here they are errors.
    for (index, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(index + 1..index + 3).ok_or(BadEncoding)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(BadEncoding);
        }
    }
    let spaced = if plus_is_space { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    let bytes: Cow<'_, [u8]> = percent_encoding::percent_decode_str(&spaced).into();
    String::from_utf8(bytes.into_owned()).map(Cow::Owned).map_err(|_| BadEncoding)
}
