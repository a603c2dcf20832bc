//! Percent-encoding, decoded once and strictly, in paths, queries and forms.

use std::borrow::Cow;

/// An escape is cut off or not hexadecimal, or what comes out is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed percent-encoding")]
pub struct BadEncoding;

/// The parameters of a query or, from [`Request::form`](crate::Request::form), of a form's body: `name=value` with `&` between, `+` for a space.
///
/// # Example
/// ```
/// use sealed_http::Query;
///
/// let query = Query::new(Some("name=J%C3%BCrgen+K.&wait"));
/// assert_eq!(query.get("name")?.as_deref(), Some("Jürgen K."));
/// assert_eq!(query.get("wait")?.as_deref(), Some(""));
/// assert_eq!(query.get("after")?, None);
/// # Ok::<(), sealed_http::BadEncoding>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// Reads what stands behind the `?`; no query has no parameters.
    pub fn new(raw: Option<&'a str>) -> Self {
        Self(raw.unwrap_or(""))
    }

    /// The value of a parameter; of one without `=`, empty. Of several with that name, the first counts. Only the values
    /// of that name are decoded: a malformed one elsewhere does not matter.
    pub fn get(&self, name: &str) -> Result<Option<Cow<'a, str>>, BadEncoding> {
        let found = self.raw_pairs().find(|(key, _)| {
            // A name is never compared as it was sent: `a+b` is not the parameter `a+b`, but `a b`.
            decode(key, true).is_ok_and(|key| key == name)
        });
        found.map(|(_, value)| decode(value, true)).transpose()
    }

    /// Names and values in order, each name as often as it was sent.
    pub fn pairs(&self) -> impl Iterator<Item = Result<(Cow<'a, str>, Cow<'a, str>), BadEncoding>> + 'a {
        self.raw_pairs().map(|(name, value)| Ok((decode(name, true)?, decode(value, true)?)))
    }

    fn raw_pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

/// Decodes one segment of a path, in which `+` is itself. An escaped `/` becomes one: split the path first.
pub fn decode_segment(segment: &str) -> Result<Cow<'_, str>, BadEncoding> {
    decode(segment, false)
}

fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, BadEncoding> {
    let plain = !text.contains('%') && (!plus_is_space || !text.contains('+'));
    if plain {
        return Ok(Cow::Borrowed(text));
    }
    // The crate below leaves malformed escapes as they are; here they are errors.
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
