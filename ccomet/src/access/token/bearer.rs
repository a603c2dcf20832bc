//! The places of a token in a request.

use std::borrow::Cow;

use sealed_http::site::Query;
use sealed_http::{Method, RequestHead};

use crate::core::refused::Refused;

/// The place of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::access) enum Source {
    /// The field `Authorization`.
    Header,
    /// A cookie, which the browser sends for requests of every page.
    Cookie,
    /// The query of a GET, for requests without custom header fields: event streams and script
    /// tags.
    Query,
}

/// Finds the token of a request, if it has one. A token may be in several places; two different
/// tokens are an error, since the client would have two identities.
pub(in crate::access) fn find<'a>(
    head: &RequestHead<'a>,
    cookie: &str,
) -> Result<Option<(Cow<'a, str>, Source)>, Refused> {
    let mut found: Option<(Cow<'a, str>, Source)> = None;
    let mut see = |token: Cow<'a, str>, source| match &found {
        Some((first, _)) if *first != token => Err(Refused::Ambiguous),
        Some(_) => Ok(()),
        None => {
            found = Some((token, source));
            Ok(())
        }
    };
    for value in fields(head, "authorization") {
        if let Some(token) = bearer(value) {
            see(text(token)?, Source::Header)?;
        }
    }
    for value in fields(head, "cookie").filter(|_| !cookie.is_empty()) {
        for pair in value.split(|byte| *byte == b';') {
            let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
            if pair[..at].trim_ascii() == cookie.as_bytes() {
                see(text(unquoted(pair[at + 1..].trim_ascii()))?, Source::Cookie)?;
            }
        }
    }
    if head.method() == Method::Get {
        for pair in Query::new(head.query()).pairs() {
            // Malformed pairs elsewhere in the query do not matter here.
            if let Ok((name, token)) = pair
                && name == "token"
            {
                see(token, Source::Query)?;
            }
        }
    }
    Ok(found)
}

fn fields<'a>(head: &RequestHead<'a>, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let named: Vec<&'a [u8]> =
        head.headers().filter(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
    named.into_iter()
}

/// Returns the text after `Bearer`, in any letter case. Other schemes are meant for others, such
/// as a proxy on the way.
pub(in crate::access) fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

fn text(bytes: &[u8]) -> Result<Cow<'_, str>, Refused> {
    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Refused::Invalid)
}
