//! The section `[hooks]` of the configuration.

use std::net::Ipv6Addr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::auth::{PLACEHOLDER, Secret};
use super::table::settings;
use crate::core::message::{ChannelKind, ChannelName};
use crate::core::pattern::{Pattern, any_matches};

/// The fields in which a browser sends credentials by itself, which identify its user. For
/// `Authorization`, this does not include bearer tokens: only a script can set those.
pub(crate) const AMBIENT: [&str; 2] = ["cookie", "authorization"];

settings! {
    /// HTTP requests to the site's back end: questions before an action, and reports of presence.
    pub struct Hooks in [hooks] {
        /// URL of the back end: `http://HOST[:PORT]/PATH`; empty: none.
        #[serde(serialize_with = "shown", deserialize_with = "read")]
        url: String = "" => String::new();
        /// Whether the back end is asked before a client of the front subscribes.
        subscribe: bool = false;
        /// Whether the back end is asked before a client of the front publishes.
        publish: bool = false;
        /// Whether the server reports the joins and leaves of members to the back end.
        presence: bool = false;
        /// Channels to which the questions and reports apply.
        channels: Vec<Pattern> = ["*"] => vec![Pattern::all()];
        /// Fields of a client's request that a question passes on in `headers`, such as `Cookie`.
        /// For an action on a WebSocket, they come from the request that opened it. With `Cookie`
        /// or `Authorization`, `front.origins` has to name the origins of the site's pages.
        headers: Vec<String> = [];
        /// Secret that requests to the back end have as `Authorization: Bearer`, to prove their
        /// origin.
        #[serde(skip_serializing_if = "Option::is_none")]
        secret: Option<Secret> = none;
        /// Whether an action is refused or allowed while the back end cannot be asked.
        when_down: WhenDown = "refuse" => WhenDown::Refuse, answers = "hook_unavailable";
        /// Time for an answer; a question waits for its turn for at most this time as well.
        timeout_ms: u64 = 2_000 ms, [1..=60_000 ms], answers = "hook_unavailable";
        /// Connections to the back end, on each loop.
        connections_max: usize = 16, [1..=1_000];
        /// Connections to the back end that are busy with questions of one client address, on each
        /// loop.
        connections_per_address_max: usize = 4, [1..=1_000];
        /// Questions that wait or are not answered yet, on each loop.
        questions_max: usize = 1_000, [1..=1_000_000], answers = "hook_unavailable";
        /// Questions of one client address that wait or are not answered yet, on each loop.
        /// Loopback is not limited.
        questions_per_address_max: usize = 200, [1..=1_000_000], answers = "too_many_requests";
        /// Bytes of questions that wait or are not answered yet, on each loop. One client address
        /// may have a quarter of them.
        questions_bytes_max: usize = 16 MiB, [1 B..], answers = "hook_unavailable";
        /// Bytes of a question. A longer one is refused, and the back end is not asked.
        question_bytes_max: usize = 1 MiB, [1 B..=8 MiB], answers = "hook_too_large";
        /// Bytes of kept answers, on each loop. An answer takes 160 bytes, and is kept for the time
        /// of its `max-age`. The least recently used answers are dropped first.
        answers_bytes_max: usize = 2 MiB, [1 B..=1 GiB];
        /// Joins and leaves that wait to be sent, on each loop. Further ones are dropped with a
        /// line in the log.
        movements_max: usize = 10_000, [1..=1_000_000];
    }
}

/// The treatment of actions while the back end cannot be asked: there is no connection to it, it
/// does not answer in time, or it answers with a server error (5xx). Failures that a client can
/// cause are refused in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// Refuses the action: clients should retry later.
    #[default]
    Refuse,
    /// Treats the action as allowed.
    Allow,
}

/// The place of a back end, as its URL names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BackEndPlace {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// Returns a URL for logs, without its query, which may be secret.
pub(crate) fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(url, _)| url)
}

/// Returns a URL with `(secret)` in place of the name and password of a user, and of the values of
/// the query. The URL may be malformed: no part of it that could be one of these is shown.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.find("://").map_or(("", url), |at| url.split_at(at + 3));
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (format!("{PLACEHOLDER}@"), rest),
        None => (String::new(), rest),
    };
    let Some((place, query)) = rest.split_once('?') else { return format!("{scheme}{user}{rest}") };
    let hidden = query.split('&').map(|part| match part.split_once('=') {
        Some((name, _)) => format!("{name}={PLACEHOLDER}"),
        None => PLACEHOLDER.to_owned(),
    });
    format!("{scheme}{user}{place}?{}", hidden.collect::<Vec<_>>().join("&"))
}

/// Writes a URL without its secrets.
pub(super) fn shown<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_secrets(url))
}

/// Reads a URL. One of a printed configuration, without its secrets, is an error.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    if url.contains(PLACEHOLDER) {
        return Err(D::Error::custom(
            "(secret) in the URL is no secret: 'ccomet config' prints it in place of one. Write the secret itself there",
        ));
    }
    Ok(url)
}

impl BackEndPlace {
    /// Returns the place that a URL names; `None` if it is not a valid URL that begins with the
    /// scheme.
    pub(crate) fn of(url: &str, scheme: &str, default_port: u16) -> Option<Self> {
        let rest = url.strip_prefix(scheme)?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let is_fine = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'@');
        let with_port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = with_port.unwrap_or((authority, default_port));
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match in_brackets {
            Some(host) => host.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '[', ']', '?']),
        };
        let host = in_brackets.unwrap_or(host);
        (is_host && is_fine(host) && is_fine(path)).then(|| Self { host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl Hooks {
    /// Returns the time for an answer, and for a question to wait for its turn.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Returns the place of the back end; `None` if the URL is not a valid HTTP URL.
    pub(crate) fn place(&self) -> Option<BackEndPlace> {
        BackEndPlace::of(&self.url, "http://", 80)
    }

    /// Returns the URL for logs, without its query, which may be secret.
    pub(crate) fn shown_url(&self) -> &str {
        without_query(&self.url)
    }

    /// Returns whether the back end is asked, and gets credentials that a browser sends by itself
    /// for every page.
    pub(crate) fn pass_on_credentials(&self) -> bool {
        let is_sent_alone = |name: &String| AMBIENT.iter().any(|ambient| name.eq_ignore_ascii_case(ambient));
        (self.subscribe || self.publish) && self.headers.iter().any(is_sent_alone)
    }

    /// Returns whether the hooks apply to a channel, or to a channel that a pattern matches.
    pub(crate) fn concern(&self, channel: &ChannelName) -> bool {
        match channel.kind() {
            ChannelKind::Named(name) | ChannelKind::Presence(name) => any_matches(&self.channels, name),
            ChannelKind::Pattern(pattern) => self.channels.iter().any(|mine| mine.overlaps(&pattern)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_and_a_path() {
        let place = |url: &str| Hooks { url: url.to_owned(), ..Hooks::default() }.place();
        let found =
            |host: &str, port, path: &str| Some(BackEndPlace { host: host.to_owned(), port, path: path.to_owned() });
        assert_eq!(place("http://127.0.0.1:9000/comet?x=1"), found("127.0.0.1", 9_000, "/comet?x=1"));
        assert_eq!(place("http://backend"), found("backend", 80, "/"));
        assert_eq!(place("http://[::1]:9000/a"), found("::1", 9_000, "/a"));
        assert_eq!(place("http://[::1]/"), found("::1", 80, "/"));
        let bad = ["", "http://", "https://a/", "ftp://a/", "http:///x", "http://a b/", "http://a/ b", "http://u@a/"];
        let worse = ["http://:80/", "http://a:x/", "http://a:70000/", "http://::1/", "http://[a]/", "http://[]/"];
        for bad in bad.iter().chain(&worse) {
            assert_eq!(place(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_secrets_of_a_url_are_not_shown() {
        for (url, shown) in [
            ("http://backend/comet", "http://backend/comet"),
            ("http://ann:sesame@backend/comet", "http://(secret)@backend/comet"),
            ("http://ann:ses/a?m@e@backend/comet", "http://(secret)@backend/comet"),
            ("ann:sesame@backend", "(secret)@backend"),
            ("http://backend/?apikey=sesame&sesame&a=b=c", "http://backend/?apikey=(secret)&(secret)&a=(secret)"),
            ("http://ann:sesame@backend/?k=sesame", "http://(secret)@backend/?k=(secret)"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
        let hooks = Hooks { url: "http://backend/?k=sesame".to_owned(), ..Hooks::default() };
        let printed = toml::to_string(&hooks).expect("TOML");
        assert!(printed.contains("k=(secret)") && !printed.contains("sesame"), "{printed}");
        let refused = toml::from_str::<Hooks>(&printed).expect_err("no secret");
        assert!(refused.message().contains("(secret) in the URL is no secret"), "{refused}");
    }

    #[test]
    fn logs_do_not_show_the_query_of_the_url() {
        let shown = |url: &str| Hooks { url: url.to_owned(), ..Hooks::default() }.shown_url().to_owned();
        assert_eq!(shown("http://backend/comet?key=secret"), "http://backend/comet");
        assert_eq!(shown("http://backend/"), "http://backend/");
    }
}
