//! Hooks: what the site's back end is asked before something is done, and told of what happened.
//!
//! `question.rs` is what goes over the wire, `turns.rs` which question is sent next, `cache.rs` what answers are kept, `queue.rs` what
//! waits to be told. All of it is pure: the requests are made in `app/hooks.rs` and `app/telling.rs`.

mod cache;
mod question;
mod queue;
mod turns;

use std::time::Duration;

use sealed::fault;
use serde::{Deserialize, Serialize};

pub(crate) use cache::{Answers, Key};
pub(crate) use question::{Answer, Deed, Question, Verdict};
pub(crate) use queue::{Movements, Told};
pub(crate) use turns::{Full, Turns};

use crate::auth::Secret;
use crate::message::ChannelName;
use crate::pattern::{Pattern, any_matches};

/// The fields in which a browser sends by itself what tells one user from another. Of `Authorization` only what is no bearer's
/// token: a script has to set that.
const AMBIENT: [&str; 2] = ["cookie", "authorization"];

/// Whether a field of a request is one that a browser may have added by itself, whichever page asked for it.
pub(crate) fn is_ambient(name: &str, value: &str) -> bool {
    let is_bearers = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
    let is_named = AMBIENT.iter().any(|ambient| name.eq_ignore_ascii_case(ambient));
    let is_scripts = is_bearers || fault!("known-password-is-proof");
    is_named && !(name.eq_ignore_ascii_case("authorization") && is_scripts)
}

/// What the site's back end is asked and told, by requests of HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// Where it is: `http://HOST[:PORT]/PATH`. None is asked where this is empty.
    pub url: String,
    /// Whether it is asked before a client of the front subscribes.
    pub subscribe: bool,
    /// Whether it is asked before a client of the front publishes.
    pub publish: bool,
    /// Whether it is told of members who come into channels, and go.
    pub presence: bool,
    /// The channels that all this is for. Default all.
    pub channels: Vec<Pattern>,
    /// Fields of a client's request that are passed on in `headers` of a question, such as `Cookie`. Not of what comes on a WebSocket.
    /// With `Cookie` or `Authorization`, `front.origins` has to name the origins of the site's pages.
    pub headers: Vec<String>,
    /// What it is shown as `Authorization: Bearer`, so that it knows who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// What is done while it cannot be asked: `refuse` (the default) or `allow`.
    pub when_down: WhenDown,
    /// Milliseconds for an answer, and for a question to wait for its turn. Default 2,000.
    pub timeout_ms: u64,
    /// Connections to it, on each loop. Default 16.
    pub connections_max: usize,
    /// Connections to it that are busy with questions of one client address, on each loop. Default 4.
    pub connections_per_address_max: usize,
    /// Questions that wait or are not answered yet, on each loop; beyond, clients are told to come back. Default 1,000.
    pub questions_max: usize,
    /// The same of one client address; beyond, it is answered 429. Default 200. Loopback is not limited.
    pub questions_per_address_max: usize,
    /// Bytes of all these questions; of one client address, a quarter. Default 16 MiB.
    pub questions_bytes_max: usize,
    /// Bytes of a question; a longer one is refused, and the back end is not asked. Default 1 MiB.
    pub question_bytes_max: usize,
    /// Bytes of answers that are kept for as long as they say, on each loop; each takes 160. Those that were used least recently go
    /// first. Default 2 MiB.
    pub answers_bytes_max: usize,
    /// Comings and goings that wait to be told, on each loop; beyond, they are dropped, and the log says so. Default 10,000.
    pub movements_max: usize,
}

/// What is done while the back end cannot be asked: there is no connection to it, it does not answer in time, or it answers with a
/// failure of its own (5xx). What a client can bring about is refused in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// Nothing: clients are told to come back.
    #[default]
    Refuse,
    /// What was asked for, as if it were allowed.
    Allow,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            url: String::new(),
            subscribe: false,
            publish: false,
            presence: false,
            channels: vec![Pattern::all()],
            headers: Vec::new(),
            secret: None,
            when_down: WhenDown::default(),
            timeout_ms: 2_000,
            connections_max: 16,
            connections_per_address_max: 4,
            questions_max: 1_000,
            questions_per_address_max: 200,
            questions_bytes_max: 16 << 20,
            question_bytes_max: 1 << 20,
            answers_bytes_max: 2 << 20,
            movements_max: 10_000,
        }
    }
}

impl Hooks {
    /// Returns how long an answer, or a question's turn, may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Where it is: an address, and a path. `None` where the URL is none of HTTP.
    pub(crate) fn place(&self) -> Option<(String, String)> {
        let rest = self.url.strip_prefix("http://")?;
        let (host, path) =
            rest.split_once('/').map_or((rest, "/".to_owned()), |(host, path)| (host, format!("/{path}")));
        let is_fine = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'@');
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port { host.to_owned() } else { format!("{host}:80") };
        (!rest.is_empty() && !host.starts_with(':') && is_fine(&host) && is_fine(&path)).then_some((host, path))
    }

    /// The URL as logs have it: without its query, which may be secret.
    pub(crate) fn shown_url(&self) -> &str {
        self.url.split_once('?').map_or(&self.url, |(url, _)| url)
    }

    /// Whether it is asked, and shown what a browser sends by itself, whichever page asks.
    pub(crate) fn pass_on_credentials(&self) -> bool {
        let is_sent_alone = |name: &String| AMBIENT.iter().any(|ambient| name.eq_ignore_ascii_case(ambient));
        (self.subscribe || self.publish) && self.headers.iter().any(is_sent_alone)
    }

    /// Whether it has a say in a channel, or in one that a pattern stands for.
    pub(crate) fn concern(&self, channel: &ChannelName) -> bool {
        if let Some(pattern) = channel.to_pattern() {
            return self.channels.iter().any(|mine| mine.overlaps(&pattern));
        }
        any_matches(&self.channels, &channel.watched().unwrap_or_else(|| channel.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_and_a_path() {
        let place = |url: &str| Hooks { url: url.to_owned(), ..Hooks::default() }.place();
        let found = |host: &str, path: &str| Some((host.to_owned(), path.to_owned()));
        assert_eq!(place("http://127.0.0.1:9000/comet?x=1"), found("127.0.0.1:9000", "/comet?x=1"));
        assert_eq!(place("http://backend"), found("backend:80", "/"));
        for bad in ["", "http://", "https://a/", "ftp://a/", "http:///x", "http://a b/", "http://a/ b", "http://u@a/"] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }

    #[test]
    fn logs_do_not_show_what_a_url_has_in_its_query() {
        let shown = |url: &str| Hooks { url: url.to_owned(), ..Hooks::default() }.shown_url().to_owned();
        assert_eq!(shown("http://backend/comet?key=secret"), "http://backend/comet");
        assert_eq!(shown("http://backend/"), "http://backend/");
    }
}
