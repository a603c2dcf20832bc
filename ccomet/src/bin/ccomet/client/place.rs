//! URLs of servers and channels.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What is escaped in the path of a channel. Commas separate names, and a `*` makes a pattern.
const IN_CHANNEL: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b',').remove(b'*').remove(b':');
/// What is escaped in the value of a parameter.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const CHANNELS: &str = "/channels/";

/// A server: its host and port, and the path in front of its API, which a proxy may add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
    /// Empty, or a path without a `/` at its end.
    pub(super) path: String,
}

impl Place {
    /// Returns the target of a request, below the path of the server.
    pub(super) fn target(&self, rest: &str) -> String {
        format!("{}{rest}", self.path)
    }

    /// Returns the host and port, as the field `Host` has them.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Returns the addresses of the server.
    pub(super) fn look_up(&self) -> Result<Vec<SocketAddr>, String> {
        match (self.host.as_str(), self.port).to_socket_addrs() {
            Ok(addresses) => Ok(addresses.collect()),
            // Out of descriptors, for example.
            Err(error) if error.raw_os_error().is_some() => Err(format!("cannot look up {}: {error}", self.host)),
            Err(_) => Err(self.unknown_host()),
        }
    }

    /// Returns the error of a lookup that has found nothing.
    pub(super) fn unknown_host(&self) -> String {
        format!("there is no such host, or no name server answers: {}", self.host)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, query) = parse(text)?;
        if query.is_some() {
            return Err(format!("the URL of a server has no query: {text}"));
        }
        Ok(place)
    }
}

/// Reads a URL. Returns its query, too.
fn parse(text: &str) -> Result<(Place, Option<String>), String> {
    let form = "the form is http://HOST[:PORT][/PATH]";
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {form}"))?;
    match uri.scheme_str() {
        Some("http" | "ws") => {}
        Some("https" | "wss") => {
            return Err("TLS is not supported; name the plain address of the server behind the proxy".to_owned());
        }
        _ => return Err(form.to_owned()),
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = uri.host().filter(|host| !host.is_empty() && !authority.contains('@')).ok_or(form)?;
    let port = match authority.strip_prefix(host).unwrap_or_default() {
        "" => 80,
        port => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or(form)?,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let place = Place { host, port, path: uri.path().trim_end_matches('/').to_owned() };
    Ok((place, uri.query().map(str::to_owned)))
}

/// Returns the server and the path of channels that are named by URLs, or by names on a server. All
/// have to be on one server: one subscription, and one position, covers them all.
pub(super) fn channels(names: &[String], server: &Place) -> Result<(Place, String), String> {
    let mut found = None;
    let mut path = Vec::new();
    for name in names {
        let (place, channel) = channel(name, server)?;
        if found.get_or_insert_with(|| place.clone()) != &place {
            return Err(format!("{name} is on another server than {}; follow it with another command", names[0]));
        }
        path.push(channel);
    }
    let place = found.ok_or("name a channel")?;
    Ok((place, path.join(",")))
}

/// Returns the server and the path of a channel.
fn channel(name: &str, server: &Place) -> Result<(Place, String), String> {
    if !name.contains("://") {
        if is_address(name) {
            return Err(format!("{name} is not a channel; the URL is http://{name}"));
        }
        return Ok((server.clone(), utf8_percent_encode(name, IN_CHANNEL).to_string()));
    }
    let (mut place, query) = parse(name)?;
    if query.is_some() {
        return Err(format!("the URL of a channel has no query here; use the options: {name}"));
    }
    let at = place.path.rfind(CHANNELS).ok_or_else(|| format!("the URL has no {CHANNELS}NAME: {name}"))?;
    let channel = place.path.split_off(at)[CHANNELS.len()..].to_owned();
    Ok((place, channel))
}

/// Returns whether a name is more likely a URL without its `http://`: `HOST:PORT/PATH`, or
/// `HOST/channels/NAME`.
fn is_address(name: &str) -> bool {
    let Some((host, path)) = name.split_once('/') else { return false };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    has_port || format!("/{path}").starts_with(CHANNELS)
}

/// Returns the parameters that have a value as a query, with its `?`.
pub(super) fn query(parameters: &[(&str, Option<String>)]) -> String {
    let mut out = String::new();
    for (name, value) in parameters {
        if let Some(value) = value {
            out.push(if out.is_empty() { '?' } else { '&' });
            out.extend([name, "="]);
            out.extend(utf8_percent_encode(value, IN_QUERY));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, port: u16, path: &str) -> Place {
        Place { host: host.to_owned(), port, path: path.to_owned() }
    }

    #[test]
    fn urls_of_servers_are_read() {
        assert_eq!("http://localhost:8100".parse(), Ok(place("localhost", 8100, "")));
        assert_eq!("http://[::1]:81/comet/".parse(), Ok(place("::1", 81, "/comet")));
        assert_eq!("ws://example.org".parse(), Ok(place("example.org", 80, "")));
        for bad in [
            "",
            "localhost",
            "localhost:8100",
            "ftp://a",
            "https://a",
            "http://a:x",
            "http://a:70000",
            "http://u@a",
            "http://a?b",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn channels_are_named_by_urls_or_names_of_one_server() {
        let server = place("localhost", 8100, "");
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            channels(&names, &server)
        };
        assert_eq!(of(&["news", "a/b ü", "x.*"]), Ok((server.clone(), "news,a%2Fb%20%C3%BC,x.*".to_owned())));
        assert_eq!(of(&["http://a/pre/channels/n%20s"]), Ok((place("a", 80, "/pre"), "n%20s".to_owned())));
        assert!(of(&["a:b/c", "a:1", "channels/x"]).is_ok());
        for bad in ["localhost:8100/channels/x", "a:1/x", "example.org/channels/x"] {
            assert_eq!(of(&[bad]), Err(format!("{bad} is not a channel; the URL is http://{bad}")));
        }
        assert!(of(&["http://a/channels/x", "y"]).is_err());
        assert!(of(&["http://a/x"]).is_err());
        assert!(of(&["http://a/channels/x?after=oldest"]).is_err());
    }

    #[test]
    fn a_query_has_what_is_given() {
        assert_eq!(query(&[("a", None), ("b", Some("x&y".to_owned())), ("c", Some("1".to_owned()))]), "?b=x%26y&c=1");
        assert_eq!(query(&[("a", None)]), "");
    }
}
