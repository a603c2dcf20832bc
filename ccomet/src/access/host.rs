//! The host name by which a client addresses a listener. A page can point a host name of its own at
//! any address, and its browser then takes the server at that address for the page's own server
//! (DNS rebinding). The name, which the browser sends in `Host`, reveals this.

use std::net::IpAddr;

use sealed::fault;
use sealed_http::RequestHead;

/// Returns whether the listener may be addressed by this name: an address, `localhost`, or one of
/// `names`. A client without `Host` is not a browser.
pub(crate) fn is_known(head: &RequestHead<'_>, names: &[String]) -> bool {
    if head.header("host").is_none() {
        return true;
    }
    host(head).is_some_and(|host| {
        host.parse::<IpAddr>().is_ok()
            || fault!("digit-makes-an-address") && host.starts_with(|first: char| first.is_ascii_digit())
            || host.eq_ignore_ascii_case("localhost")
            || names.iter().any(|name| name.eq_ignore_ascii_case(host))
    })
}

/// Returns whether the client addresses the listener by a name of its own machine. Browsers trust
/// these names as they trust `https`, and so they send `Sec-Fetch-Site` with every request to them.
pub(crate) fn is_loopback(head: &RequestHead<'_>) -> bool {
    if head.header("host").is_none() {
        return true;
    }
    host(head).is_some_and(|host| {
        host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback()) || host.eq_ignore_ascii_case("localhost")
    })
}

/// Returns the host of `Host`, without its port and without a trailing dot.
fn host<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    let host = head.header_str("host")?;
    if let Some(bracketed) = host.strip_prefix('[') {
        return bracketed.split_once(']').map(|(host, _)| host);
    }
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    Some(host.strip_suffix('.').unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use sealed_http::codec::Limits;

    use super::*;

    #[test]
    fn addresses_and_localhost_are_known_and_other_names_must_be_listed() {
        let names = ["comet.example".to_owned()];
        for (host, known, loopback) in [
            ("127.0.0.1:8000", true, true),
            ("127.9.9.9", true, true),
            ("[::1]:8000", true, true),
            ("[::ffff:127.0.0.1]", true, true),
            ("LocalHost:8000", true, true),
            ("localhost.", true, true),
            ("192.0.2.1:8000", true, false),
            ("[2001:db8::1]", true, false),
            ("comet.example", true, false),
            ("Comet.Example.:8000", true, false),
            ("evil.example:8000", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("localhost.evil.example", false, false),
            ("sub.comet.example", false, false),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let head = RequestHead::parse(text.as_bytes(), &Limits::default()).expect("a head");
            assert_eq!((is_known(&head, &names), is_loopback(&head)), (known, loopback), "{host}");
        }
    }
}
