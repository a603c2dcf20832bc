//! From whose page a request comes, as far as its browser says: what pages of others may ask for is little.

use sealed_http::{Method, Query, RequestHead};

use super::request::Door;
use crate::config::Front;

/// Whose page asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page<'a> {
    /// Nothing says that it is one: a program, a person who typed the address, or a browser that was kept from saying it.
    Nobodys,
    /// The server's own.
    Own,
    /// One of this origin.
    Of(&'a str),
    /// Another one that the browser does not name.
    Unnamed,
}

/// Whether a page of this origin is the server's own, by the host that it was asked by.
pub(crate) fn is_own(head: &RequestHead<'_>, origin: &str) -> bool {
    let host = origin.split_once("://").map(|(_, host)| host);
    host.zip(head.header_str("host")).is_some_and(|(host, own)| !host.is_empty() && host.eq_ignore_ascii_case(own))
}

/// Whether it is sure that a page of the site asks: one of the server's own, or of an origin that is listed by name. A request that
/// does not say is of none.
pub(crate) fn is_of_site(head: &RequestHead<'_>, listed: &[String]) -> bool {
    match page(head) {
        Page::Own => true,
        Page::Of(origin) => listed.iter().any(|held| held == origin),
        Page::Nobodys | Page::Unnamed => false,
    }
}

/// The origin of the page that asks, as far as the browser names it.
pub(crate) fn origin<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    match page(head) {
        Page::Of(origin) => Some(origin),
        Page::Own => head.header_str("origin").or_else(|| head.header_str("referer").and_then(origin_of)),
        Page::Nobodys | Page::Unnamed => None,
    }
}

/// Whether a request may come from where it does. The admin listener does what a plain link can ask for, and reads nothing from
/// pages but from its own; what is answered as script can be read by every page, so that it is for those that may read.
pub(crate) fn may_ask(door: Door, head: &RequestHead<'_>, front: &Front) -> bool {
    // A preflight does nothing, and gets no leave where there is none.
    if head.method() == Method::Options {
        return true;
    }
    match door {
        Door::Admin => matches!(page(head), Page::Nobodys | Page::Own),
        Door::Front if front.allows_any_origin() || !wants_script(head) => true,
        Door::Front => match page(head) {
            Page::Nobodys | Page::Own => true,
            Page::Of(origin) => front.allows_origin(origin),
            Page::Unnamed => false,
        },
    }
}

fn wants_script(head: &RequestHead<'_>) -> bool {
    let query = Query::new(head.query());
    ["callback", "cb"].into_iter().any(|name| !matches!(query.get(name), Ok(None)))
}

/// Browsers say it by `Origin`, but not for scripts, images and links; then by `Sec-Fetch-Site`, to those whom they trust with it;
/// and by `Referer`, unless the page forbids it.
fn page<'a>(head: &RequestHead<'a>) -> Page<'a> {
    let named = |origin: &'a str| if is_own(head, origin) { Page::Own } else { Page::Of(origin) };
    let referrer = head.header_str("referer").and_then(origin_of);
    let mut origins = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("origin"));
    if origins.next().is_some() {
        // Of two, somebody else might count the other one.
        let origin = head.header_str("origin").filter(|_| origins.next().is_none());
        return origin.map_or(Page::Unnamed, named);
    }
    match head.header("sec-fetch-site") {
        Some(b"same-origin") => Page::Own,
        Some(b"none") => Page::Nobodys,
        Some(_) => referrer.filter(|origin| !is_own(head, origin)).map_or(Page::Unnamed, Page::Of),
        None => referrer.map_or(Page::Nobodys, named),
    }
}

/// The origin of a page, by its address.
fn origin_of(url: &str) -> Option<&str> {
    let host_at = url.find("://")? + 3;
    let length = url[host_at..].find(['/', '?', '#']).unwrap_or(url.len() - host_at);
    Some(&url[..host_at + length])
}

#[cfg(test)]
mod tests {
    use sealed_http::Limits;

    use super::*;

    #[test]
    fn a_page_is_whose_its_browser_says_it_is() {
        for (fields, expected) in [
            ("", Page::Nobodys),
            ("Origin: https://a.example", Page::Of("https://a.example")),
            ("Origin: http://h:8000", Page::Own),
            ("Origin: null", Page::Of("null")),
            ("Origin: \u{fc}", Page::Unnamed),
            ("Origin: http://h:8000\r\nOrigin: https://a.example", Page::Unnamed),
            ("Origin: https://a.example\r\nSec-Fetch-Site: same-origin", Page::Of("https://a.example")),
            ("Sec-Fetch-Site: none", Page::Nobodys),
            ("Sec-Fetch-Site: same-origin\r\nReferer: http://h:8000/a", Page::Own),
            ("Sec-Fetch-Site: cross-site", Page::Unnamed),
            ("Sec-Fetch-Site: same-site", Page::Unnamed),
            ("Sec-Fetch-Site: whatever", Page::Unnamed),
            ("Sec-Fetch-Site: cross-site\r\nReferer: https://a.example/x", Page::Of("https://a.example")),
            ("Sec-Fetch-Site: cross-site\r\nReferer: http://h:8000/", Page::Unnamed),
            ("Referer: https://a.example", Page::Of("https://a.example")),
            ("Referer: https://a.example?http://h:8000/", Page::Of("https://a.example")),
            ("Referer: http://h:8000/chat.html", Page::Own),
            ("Referer: about:blank", Page::Nobodys),
        ] {
            let end = if fields.is_empty() { "" } else { "\r\n" };
            let text = format!("GET / HTTP/1.1\r\nHost: h:8000\r\n{fields}{end}\r\n");
            let head = RequestHead::parse(text.as_bytes(), &Limits::default()).expect("a head");
            assert_eq!(page(&head), expected, "{fields}");
        }
    }
}
