//! The client for which a proxy sends a request, by `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address that it saw at the right end. So the field is read from the
//! right, byte by byte, only as far as the first address that is not a trusted proxy's. Everything
//! before that address may be forged, and is ignored.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use sealed::fault;
use sealed_http::RequestHead;

use super::networks;
use crate::config::ForwardedBy;

/// The client that a proxy names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// No client: the field is missing, and the proxy sends the request for itself.
    Itself,
    /// The client with this address.
    Client(IpAddr),
    /// A client whose address cannot be parsed. Its request came to this trusted proxy, or through
    /// it.
    Unreadable(IpAddr),
}

impl Named {
    /// Returns the address that the proxy names.
    pub(crate) fn client(self) -> Option<IpAddr> {
        if let Named::Client(client) = self { Some(client) } else { None }
    }
}

/// Finds the client of a request from a trusted proxy: the last named address that is not a trusted
/// proxy's itself, or the first address if all are trusted proxies'.
pub(super) fn client(head: &RequestHead<'_>, proxy: IpAddr, trusted: &[IpNet], by: ForwardedBy) -> Named {
    let name = match by {
        ForwardedBy::XForwardedFor => "x-forwarded-for",
        ForwardedBy::Forwarded => "forwarded",
    };
    // Several lines are one list (RFC 9110, 5.3), of which the last line is the right end.
    let held = head.headers().filter(|(held, _)| held.eq_ignore_ascii_case(name));
    let lines: Vec<&[u8]> = held.map(|(_, value)| value).collect();
    let mut named = Named::Itself;
    for line in lines.into_iter().rev() {
        let is_odd = fault!("odd-byte-hides-proxies") && !line.is_ascii();
        let mut rest = Some(if is_odd { b"?" } else { line });
        while let Some(list) = rest {
            let (left, hop) = match by {
                ForwardedBy::XForwardedFor => {
                    let (left, hop) = split_last(list);
                    (left, address(hop))
                }
                ForwardedBy::Forwarded => match split_last_unquoted(list, b',') {
                    Some((left, hop)) => (left, forwarded_for(hop)),
                    None => (None, None),
                },
            };
            let last = if let Named::Client(last) = named { last } else { proxy };
            let Some(hop) = hop else { return Named::Unreadable(last) };
            named = Named::Client(hop);
            if !networks::has(trusted, hop) {
                return named;
            }
            rest = left;
        }
    }
    named
}

/// Splits off the part after the last comma. Without a comma, nothing is left before it.
fn split_last(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match list.iter().rposition(|byte| *byte == b',') {
        Some(comma) => (Some(&list[..comma]), &list[comma + 1..]),
        None => (None, list),
    }
}

/// Splits off the part after the last separator that is not in quotes. Returns `None` if the start
/// of a quoted string is missing.
fn split_last_unquoted(list: &[u8], separator: u8) -> Option<(Option<&[u8]>, &[u8])> {
    let mut is_quoted = false;
    for (index, byte) in list.iter().enumerate().rev() {
        if *byte == b'"' {
            // Reading backwards, the end of a quoted string comes first; a quote behind a backslash
            // is part of the string.
            let before = &list[..index];
            let backslashes = before.len() - before.iter().rposition(|byte| *byte != b'\\').map_or(0, |last| last + 1);
            match (is_quoted, backslashes % 2 == 1) {
                (false, true) => return None,
                (true, true) => {}
                (_, false) => is_quoted = !is_quoted,
            }
        } else if *byte == separator && !is_quoted {
            return Some((Some(&list[..index]), &list[index + 1..]));
        }
    }
    (!is_quoted).then_some((None, list))
}

/// Returns the address in an element of a `Forwarded`, which must name it exactly once.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let (mut rest, mut found) = (Some(element), None);
    while let Some(pairs) = rest {
        let (left, pair) = split_last_unquoted(pairs, b';')?;
        let (name, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len()))?;
        if trim(name).eq_ignore_ascii_case(b"for") && found.replace(trim(value.get(1..)?)).is_some() {
            return None;
        }
        rest = left;
    }
    let value = found?;
    match value.strip_prefix(b"\"") {
        Some(quoted) => address(quoted.strip_suffix(b"\"")?),
        None => address(value),
    }
}

/// Parses an address: IPv4 with or without a port; IPv6 bare, or in brackets with or without a
/// port. Neither `unknown` nor `_obfuscated` is an address, nor is an address with an invalid port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(trim(text)).ok()?;
    let bare = || match text.strip_prefix('[') {
        Some(text) => text.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    let with_port = || text.parse().ok().map(|socket: SocketAddr| socket.ip());
    bare().or_else(with_port).map(|address| address.to_canonical())
}

/// Returns the text without the surrounding white space that a header field may have.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
