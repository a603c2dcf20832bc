//! The page that sends a request, as far as its browser names it. Pages of other sites may do
//! little.

use sealed::fault;
use sealed_http::site::Query;
use sealed_http::{Method, RequestHead};

use super::host;
use crate::config::{Admin, Config};
use crate::core::problem::Problem;
use crate::protocols::call::Door;
use crate::protocols::route;

/// The page that sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page<'a> {
    /// No known page: a program, a user who typed the address, or a browser that was kept from
    /// naming the page.
    Nobodys,
    /// A page of the server's own.
    Own,
    /// A page of this origin.
    Of(&'a str),
    /// Another page, which the browser does not name.
    Unnamed,
}

/// Returns whether a page of this origin is the server's own, by the host in the request. Behind a
/// proxy, the server does not know its own scheme. Browsers that send `Sec-Fetch-Site`, as all
/// current browsers do over `https`, treat an `http` page of the same host as a page of another
/// site.
pub(crate) fn is_own(head: &RequestHead<'_>, origin: &str) -> bool {
    if head.header("sec-fetch-site").is_some_and(|site| site != b"same-origin") {
        return false;
    }
    let host = origin.split_once("://").map(|(_, host)| host);
    host.zip(head.header_str("host")).is_some_and(|(host, own)| !host.is_empty() && host.eq_ignore_ascii_case(own))
}

/// Returns whether the request certainly comes from a page of the site: the server's own, or one of
/// an origin that is listed by name. It is false for a request that names no page.
pub(crate) fn is_of_site(head: &RequestHead<'_>, listed: &[String]) -> bool {
    match page(head) {
        Page::Own => true,
        Page::Of(origin) => listed.iter().any(|held| held == origin),
        Page::Nobodys | Page::Unnamed => false,
    }
}

/// Returns the origin of the page that sends the request, as far as the browser names it.
pub(crate) fn origin<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    match page(head) {
        Page::Of(origin) => Some(origin),
        Page::Own => head.header_str("origin").or_else(|| head.header_str("referer").and_then(origin_of)),
        Page::Nobodys | Page::Unnamed => None,
    }
}

/// Checks that a request may come from its page. The admin listener executes requests that a plain
/// link can send, so it accepts only pages of its own and of listed origins. A reply in the form of
/// a script can be read by every page, so it is only for pages that may read.
pub(crate) fn look(door: Door, head: &RequestHead<'_>, config: &Config) -> Result<(), Problem> {
    let Config { front, admin, .. } = config;
    match door {
        // If pages of any origin are allowed, a page gains nothing by pretending to be the server's
        // own.
        Door::Admin if !admin.allows_any_origin() && !host::is_known(head, &admin.hosts) && !fault!("rebound-name") => {
            return Err(Problem::HostUnknown);
        }
        Door::Front if !front.hosts.is_empty() && !host::is_known(head, &front.hosts) && !fault!("any-front-name") => {
            return Err(Problem::HostUnknown);
        }
        _ => {}
    }
    // A preflight request has no effect, and its answer grants nothing to pages that are not
    // allowed.
    if head.method() == Method::Options || door == Door::Front && (front.allows_any_origin() || !wants_script(head)) {
        return Ok(());
    }
    let (any, allowed): (bool, &dyn Fn(&str) -> bool) = match door {
        Door::Front => (false, &|origin| front.allows_origin(origin)),
        Door::Admin if fault!("front-pages-use-admin") => {
            (admin.allows_any_origin(), &|origin| front.allows_origin(origin))
        }
        Door::Admin => (admin.allows_any_origin(), &|origin| admin.allows_origin(origin)),
    };
    match page(head) {
        Page::Nobodys if fault!("hidden-page-publishes") => Ok(()),
        Page::Nobodys if door == Door::Admin && is_forgeable(head, admin) => Err(Problem::Forgeable),
        Page::Nobodys | Page::Own => Ok(()),
        Page::Of(origin) if allowed(origin) => Ok(()),
        Page::Unnamed if any => Ok(()),
        Page::Of(_) | Page::Unnamed => Err(Problem::OriginForbidden),
    }
}

/// Returns whether a page could have made a browser send this without naming the page: by an image
/// or a script with `Referer` turned off. Browsers send `Sec-Fetch-Site` only over `https` or to
/// their own machine. A request that neither changes anything nor is answered as script is of no
/// use to such a page.
fn is_forgeable(head: &RequestHead<'_>, admin: &Admin) -> bool {
    let is_of_use =
        route::get_has_effect(head.path(), &admin.apis) || wants_script(head) && !fault!("history-loads-as-script");
    // No page can make an image or a script send these.
    let is_proven = !admin.keys.is_empty()
        || head.header("x-requested-with").is_some()
        || head.header("sec-fetch-site") == Some(b"none")
        || host::is_loopback(head);
    head.method() == Method::Get && is_of_use && !is_proven && !admin.forgeable_gets
}

fn wants_script(head: &RequestHead<'_>) -> bool {
    let query = Query::new(head.query());
    ["callback", "cb"].into_iter().any(|name| !matches!(query.get(name), Ok(None)))
}

/// Finds the page in the fields in which browsers name it: `Origin`, but not for scripts, images
/// and links; `Sec-Fetch-Site`, only to servers that they trust; and `Referer`, unless the page
/// forbids it.
fn page<'a>(head: &RequestHead<'a>) -> Page<'a> {
    let named = |origin: &'a str| if is_own(head, origin) { Page::Own } else { Page::Of(origin) };
    let referrer = head.header_str("referer").and_then(origin_of);
    // A request that names its page in any field comes from a browser.
    let is_referred = head.header("referer").is_some();
    let mut origins = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("origin"));
    if origins.next().is_some() {
        // With two fields, another reader might use the other one.
        let origin = head.header_str("origin").filter(|_| origins.next().is_none());
        return origin.map_or(Page::Unnamed, named);
    }
    match head.header("sec-fetch-site") {
        Some(b"same-origin") => Page::Own,
        Some(b"none") => Page::Nobodys,
        Some(_) => referrer.filter(|origin| !is_own(head, origin)).map_or(Page::Unnamed, Page::Of),
        None if is_referred => referrer.map_or(Page::Unnamed, named),
        None => Page::Nobodys,
    }
}

/// Returns the origin of a page from its URL.
fn origin_of(url: &str) -> Option<&str> {
    let host_at = url.find("://")? + 3;
    let length = url[host_at..].find(['/', '?', '#']).unwrap_or(url.len() - host_at);
    Some(&url[..host_at + length])
}

#[cfg(test)]
mod tests {
    use sealed_http::codec::Limits;

    use super::*;

    #[test]
    fn a_page_is_identified_by_the_fields_of_its_browser() {
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
            ("Sec-Fetch-Site: cross-site\r\nReferer: http://h:8000/", Page::Of("http://h:8000")),
            ("Origin: http://h:8000\r\nSec-Fetch-Site: cross-site", Page::Of("http://h:8000")),
            ("Origin: https://h:8000\r\nSec-Fetch-Site: same-origin", Page::Own),
            ("Referer: https://a.example", Page::Of("https://a.example")),
            ("Referer: https://a.example?http://h:8000/", Page::Of("https://a.example")),
            ("Referer: http://h:8000/chat.html", Page::Own),
            ("Referer: about:blank", Page::Unnamed),
            ("Referer: https://\u{fc}.example/", Page::Unnamed),
        ] {
            let end = if fields.is_empty() { "" } else { "\r\n" };
            let text = format!("GET / HTTP/1.1\r\nHost: h:8000\r\n{fields}{end}\r\n");
            let head = RequestHead::parse(text.as_bytes(), &Limits::default()).expect("a head");
            assert_eq!(page(&head), expected, "{fields}");
        }
    }
}
