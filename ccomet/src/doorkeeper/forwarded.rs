//! For whom a proxy asks, by `X-Forwarded-For` or `Forwarded` (RFC 7239).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use sealed_http::RequestHead;
use serde::{Deserialize, Serialize};

use super::rules;

/// The header field in which trusted proxies say for whom they ask. Only this one is looked at: a proxy that writes the one
/// passes the other on as its client sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`, as nginx, `HAProxy` and most others write it.
    #[default]
    #[serde(rename = "X-Forwarded-For")]
    XForwardedFor,
    /// `Forwarded`, of RFC 7239.
    Forwarded,
}

/// Whom a proxy named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    /// The client; the proxy itself where it named none.
    pub(super) client: IpAddr,
    /// Whether it named anyone, or tried to.
    pub(super) is_named: bool,
}

/// What somebody on the way was named by, if that is an address.
type Hop = Option<IpAddr>;

/// The client of a request that came from a trusted proxy: of the addresses named, the last that is not a trusted proxy itself,
/// for what stands before it could be anybody's. What is no address ends the search where it stands.
pub(super) fn client(head: &RequestHead<'_>, proxy: IpAddr, trusted: &[IpNet], by: ForwardedBy) -> Named {
    let name = match by {
        ForwardedBy::XForwardedFor => "x-forwarded-for",
        ForwardedBy::Forwarded => "forwarded",
    };
    let separate = |value| match by {
        ForwardedBy::XForwardedFor => Some(str::split(value, ',').map(address).collect::<Vec<Hop>>()),
        ForwardedBy::Forwarded => forwarded_for(value),
    };
    let mut hops = Vec::new();
    for (_, value) in head.headers().filter(|(held, _)| held.eq_ignore_ascii_case(name)) {
        // A line that cannot be read is one hop without an address.
        let line = std::str::from_utf8(value).ok().and_then(separate);
        hops.extend(line.unwrap_or_else(|| vec![None]));
    }
    let mut client = proxy;
    for hop in hops.iter().rev() {
        let Some(hop) = hop else { break };
        client = *hop;
        if !rules::has(trusted, client) {
            break;
        }
    }
    Named { client, is_named: !hops.is_empty() }
}

/// The addresses in the elements of a `Forwarded`, or nothing where it is malformed.
fn forwarded_for(value: &str) -> Option<Vec<Hop>> {
    let elements = split_unquoted(value, b',')?;
    elements.into_iter().map(element_address).collect()
}

fn element_address(element: &str) -> Option<Hop> {
    let mut named = split_unquoted(element, b';')?.into_iter().filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let (value, None) = (named.next(), named.next()) else { return Some(None) };
    let plain = |value: &str| value.strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
    Some(value.and_then(|value| address(&plain(value).unwrap_or_else(|| value.to_owned()))))
}

/// Splits where the separator is not in quotes; nothing where quotes do not end.
fn split_unquoted(text: &str, separator: u8) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
}

/// An address, with or without a port, one of IPv6 also in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use sealed_http::Limits;

    use super::*;

    fn named(by: ForwardedBy, lines: &str) -> (String, bool) {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let head = RequestHead::parse(head.as_bytes(), &Limits::default()).expect("a head");
        let trusted = ["10.0.0.0/8".parse().expect("a network"), "fd00::/8".parse().expect("a network")];
        let Named { client, is_named } = client(&head, "10.0.0.1".parse().expect("an address"), &trusted, by);
        (client.to_string(), is_named)
    }

    #[test]
    fn the_client_is_the_last_who_is_no_trusted_proxy() {
        for (value, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
            ("6.6.6.6,192.0.2.1 , 10.0.0.2", "192.0.2.1"),
            ("192.0.2.1:5000", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:192.0.2.1, fd00::1", "192.0.2.1"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("192.0.2.1, nonsense, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1, ", "10.0.0.1"),
            ("nonsense", "10.0.0.1"),
        ] {
            let expected = (client.to_owned(), true);
            assert_eq!(
                named(ForwardedBy::XForwardedFor, &format!("X-Forwarded-For: {value}\r\n")),
                expected,
                "{value}"
            );
        }
        let lines = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1, 10.0.0.2\r\n";
        assert_eq!(named(ForwardedBy::XForwardedFor, lines).0, "192.0.2.1");
    }

    #[test]
    fn the_standard_field_is_read_with_its_quotes() {
        for (value, client) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("for=6.6.6.6, For=192.0.2.1;proto=https;by=10.0.0.2", "192.0.2.1"),
            ("for=\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("for=\"192.0.2.1:80\", for=10.0.0.2", "192.0.2.1"),
            ("proto=https;host=\"a,for=6.6.6.6;b\";for=192.0.2.1", "192.0.2.1"),
            ("for=6.6.6.6;for=192.0.2.1", "10.0.0.1"),
            ("for=6.6.6.6, for=_hidden", "10.0.0.1"),
            ("for=6.6.6.6, for=unknown, for=10.0.0.2", "10.0.0.2"),
            ("for=6.6.6.6, proto=https", "10.0.0.1"),
            ("for=192.0.2.1, for=\"10.0.0.2", "10.0.0.1"),
        ] {
            let expected = (client.to_owned(), true);
            assert_eq!(named(ForwardedBy::Forwarded, &format!("Forwarded: {value}\r\n")), expected, "{value}");
        }
    }

    #[test]
    fn the_field_that_the_proxy_does_not_write_says_nothing() {
        let alone = ("10.0.0.1".to_owned(), false);
        assert_eq!(named(ForwardedBy::XForwardedFor, "Forwarded: for=6.6.6.6\r\n"), alone);
        assert_eq!(named(ForwardedBy::Forwarded, "X-Forwarded-For: 6.6.6.6\r\n"), alone);
    }
}
