//! What an operator can set. Every limit has a default that is safe on the open internet.

mod check;
mod listen;
mod networks;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;

use crate::auth::{Auth, Secret};
use crate::doorkeeper::ForwardedBy;
use crate::hooks::Hooks;
use crate::rules::Rule;
use ipnet::IpNet;
use sealed::fault;
use serde::{Deserialize, Serialize};

pub use check::ConfigError;
pub use listen::listen_address;

/// A connection keeps the number of its origin, over both listeners, in 16 bits.
const ORIGINS_MAX: usize = 250;

/// Names of header fields are sent with each answer to a preflight.
const HEADERS_MAX: usize = 100;

/// What is counted by the minute is counted in microseconds.
const MINUTE_MAX: u64 = 60_000_000;

/// The whole configuration, as the TOML file has it. What a file leaves out keeps its default; what it has and
/// we do not know is an error.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Event loops, each with a thread. Default: one for each core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loops: Option<NonZeroUsize>,
    /// The public listener.
    pub front: Front,
    /// The private listener.
    pub admin: Admin,
    /// Who may do what on the front.
    pub auth: Auth,
    /// How much of each.
    pub limits: Limits,
    /// What channels keep.
    pub history: History,
    /// How long for each.
    pub times: Times,
    /// What clients of icomet's are served.
    pub icomet: Icomet,
    /// What is logged.
    pub log: Log,
    /// What the site's back end is asked and told.
    pub hooks: Hooks,
    /// What is different for channels of some names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// The public listener: publish and subscribe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // each is a setting of its own
pub struct Front {
    /// Where it listens: an address or a name, with a port. Default `127.0.0.1:8100`.
    #[serde(deserialize_with = "listen::deserialize")]
    pub listen: SocketAddr,
    /// Networks whose clients may come in; empty: all. A bare address, here and in the other lists, is a network of one.
    #[serde(deserialize_with = "networks::read")]
    pub allow: Vec<IpNet>,
    /// Networks whose clients may not come in, though they be allowed.
    #[serde(deserialize_with = "networks::read")]
    pub deny: Vec<IpNet>,
    /// Networks of proxies who may say for whom they ask. Of them the address that they name counts, for rules and limits.
    #[serde(deserialize_with = "networks::read")]
    pub trusted_proxies: Vec<IpNet>,
    /// Whether they say so by the PROXY protocol, in front of the first request. Nobody else can connect then. Default false.
    pub proxy_protocol: bool,
    /// In which header field they say it: `X-Forwarded-For` or `Forwarded`. Default `X-Forwarded-For`.
    pub forwarded_by: ForwardedBy,
    /// Lets anyone publish and subscribe though the front is not on loopback and has no `allow`.
    pub open: bool,
    /// Whether it may be subscribed to patterns of channels, such as `news.*`: who may learns the names of all that match.
    pub patterns: bool,
    /// Origins of pages that may read replies, `["*"]` for any.
    pub origins: Vec<String>,
    /// The names by which it is called, without ports. Where there are any, a request whose `Host` is none of them, no address and not
    /// `localhost` is refused. Set it where not everybody can reach the front: else a page can lead a name of its own to it (DNS
    /// rebinding), and reads what its visitor can read. Default none: any name.
    pub hosts: Vec<String>,
    /// Names of further header fields that requests of pages of these origins may have, at most 100. Default none beside those that are
    /// always allowed: what the API knows, `X-Requested-With`, `X-CSRF-Token`, and what tracing adds (`traceparent`, `tracestate`,
    /// `baggage`, `sentry-trace`).
    pub headers: Vec<String>,
    /// Which APIs are spoken. Default all.
    pub apis: Vec<Api>,
    /// Whether the pages of the chat demo are served, and `/` leads there. The client library is served in any case.
    pub demo: bool,
}

/// The private listener: everything that front does, and closing channels.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where it listens: an address or a name, with a port. Default `127.0.0.1:8000`.
    #[serde(deserialize_with = "listen::deserialize")]
    pub listen: SocketAddr,
    /// Networks whose clients may come in. Needed where it listens beyond loopback.
    #[serde(deserialize_with = "networks::read")]
    pub allow: Vec<IpNet>,
    /// Networks whose clients may not come in, though they be allowed.
    #[serde(deserialize_with = "networks::read")]
    pub deny: Vec<IpNet>,
    /// Whether the front's trusted proxies say by the PROXY protocol for whom they connect. Nobody else can connect then, and `allow`
    /// is needed. Default false.
    pub proxy_protocol: bool,
    /// The names by which it is called, without ports. A request whose `Host` is none of them, no address and not `localhost` is
    /// refused. Default none.
    pub hosts: Vec<String>,
    /// Origins of pages that may use it, as those of icomet do; `["*"]` lets every page that a person of these machines opens publish,
    /// close channels and read. Default none: its own pages alone.
    pub origins: Vec<String>,
    /// Secrets of at least 16 characters, one of which every request has to bring as `Authorization: Bearer KEY`. Default none: none
    /// is needed.
    pub keys: Vec<Secret>,
    /// Whether a GET may publish, sign, close or be answered as script though a page could have made a browser send it: where the
    /// listener is called by neither `localhost` nor a loopback address, an image does not say whose page asks. Default false.
    pub forgeable_gets: bool,
    /// Which APIs are spoken. Default all.
    pub apis: Vec<Api>,
}

/// An API that a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/channels` and `/messages`.
    Native,
    /// That of `CComet` 1.0. The admin listener has none of it.
    Classic,
    /// icomet's.
    Icomet,
}

impl Api {
    fn all() -> Vec<Self> {
        vec![Self::Native, Self::Classic, Self::Icomet]
    }
}

/// What is logged, on standard error.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`; by module too, as in `info,sealed=debug`. Default `info`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

/// How much of each. Limits of the whole server are shared out evenly among its loops.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections to the server. At the limit, who comes waits in the kernel's backlog. Default 1,000,000.
    pub connections_max: usize,
    /// Connections to the front from one address, of IPv6 from one /64, on each loop. Beyond, they are answered 429 and closed; from
    /// twice as many on, only closed. Loopback and trusted proxies have as many as they want: of what they ask for others,
    /// each request, poll, stream and WebSocket counts as a connection of the address that they name, for as long as it
    /// lasts. Default 2,000.
    pub connections_per_address_max: u32,
    /// Subscribes, which each poll is, from one address a minute on each loop: all at once, or spread. Default 12,000.
    pub subscribes_per_address_minute: u32,
    /// Publishes from one address a minute on each loop. Default 6,000.
    pub publishes_per_address_minute: u32,
    /// Bytes of bodies of requests that are on their way to the front, by what their heads say. Beyond, a request is refused before its
    /// body is read. Those of loopback are not counted. Default 64 MiB.
    pub body_bytes_max: usize,
    /// Those of one address, on each loop. Default 8 MiB.
    pub body_bytes_per_address_max: usize,
    /// Addresses of which is known how much they asked for; for more, these limits do not hold. Default 100,000.
    pub addresses_max: usize,
    /// Channels of the server. A sixteenth of them is for the admin listener and loopback alone. Default 100,000.
    pub channels_max: usize,
    /// Channels on each loop that one message from the front to a pattern may go to; for more, it goes to none. It counts as a
    /// publish in each of them. Default 10,000.
    pub channels_per_broadcast_max: usize,
    /// Messages that are on their way to the channels of a pattern at a time. Default 100.
    pub broadcasts_under_way_max: usize,
    /// Channels that are there and were made by one client: from the front by one address, of IPv6 by one /64, and with tokens of
    /// one subject. Loopback's address has as many as it wants. Default 5,000.
    pub channels_per_client_max: usize,
    /// Patterns that are followed and were first subscribed to by one client. Default 20.
    pub patterns_per_client_max: usize,
    /// Patterns that are subscribed to at a time. What is published is held against each of them. Default 100.
    pub patterns_max: usize,
    /// Subscribers of the server. Default 1,000,000.
    pub subscribers_max: usize,
    /// Members of one channel of whom it is known that they are there. Default 1,000.
    pub members_per_channel_max: usize,
    /// Subscribers of one channel on one loop. Default 1,000,000.
    pub subscribers_per_channel_max: usize,
    /// Channels of one subscription. Default 32.
    pub channels_per_subscription_max: usize,
    /// Bytes of one message. Default 64 KiB.
    pub message_bytes_max: usize,
    /// Messages that one request publishes, counted in each of their channels. Default 100.
    pub publications_per_request_max: usize,
    /// Messages or channels that one reply lists. Default 1,000.
    pub page_items_max: usize,
    /// Bytes of a request that publishes several messages. Default 1 MiB.
    pub request_bytes_max: usize,
    /// Bytes of a request's head. Default 16 KiB.
    pub head_bytes_max: usize,
    /// Bytes handed to one subscriber at a time, more only for a single message. Default 64 KiB.
    pub batch_bytes_max: usize,
    /// Bytes of messages as they were encoded last, each for the others that read it in the same form; a loop may have more only
    /// for a single message. They are kept for a second at most. Default 16 MiB.
    pub encoded_bytes_max: usize,
    /// Deliveries on their way from one loop to another; what comes after them waits in the channels' history.
    /// Default 1,024.
    pub deliveries_under_way_max: usize,
}

/// What channels keep of their past.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Messages of one channel. Default 500.
    pub messages_max: usize,
    /// Bytes of one channel. Default 1 MiB.
    pub bytes_max: usize,
    /// Seconds that a message is kept. Default 86,400, a day.
    pub age_max_s: u64,
    /// Bytes of all channels together, for the whole process. A message counts once, with its sender, its idempotency key and 96
    /// bytes, however many loops have subscribers for it, and 16 bytes more for each of those loops. Each loop has an equal share
    /// for the channels that are at home there; beyond, the oldest messages go of the channels that keep more than the mean, on all
    /// loops. What loops have not heard of yet
    /// comes on top: a quarter of the limit may be on its way to them. Default 256 MiB.
    pub total_bytes_max: usize,
    /// Idempotency keys that are known, of all channels together; the oldest go first. Default 65,536.
    pub keys_max: usize,
    /// Seconds that an idempotency key is known. Default 300.
    pub keys_age_max_s: u64,
}

/// What clients of icomet's are served.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Icomet {
    /// Whether they need the token of a channel that was signed for. Default `none`.
    pub auth: IcometAuth,
    /// Silence after which they hear a `noop`, in seconds. Default 60.
    pub polling_timeout_s: u64,
    /// For a channel to count as in use without subscribers, in seconds. Default 60.
    pub channel_timeout_s: u64,
}

/// Who may subscribe with icomet's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IcometAuth {
    /// Anyone.
    None,
    /// Whoever has the token of the channel.
    Token,
}

impl Default for Icomet {
    fn default() -> Self {
        Self { auth: IcometAuth::None, polling_timeout_s: 60, channel_timeout_s: 60 }
    }
}

/// How long for each, in seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Times {
    /// Between heartbeats of a stream on which nothing else is sent. Default 15.
    pub heartbeat_s: u64,
    /// The wait of a long poll that names none. Default 30.
    pub poll_wait_s: u64,
    /// The longest wait that a long poll may name. Default 60.
    pub poll_wait_max_s: u64,
    /// The wait of a classic poll. Default 55: after its clients' own limits, before those of most proxies.
    pub classic_poll_s: u64,
    /// For the head of a request to come in, and for nothing of its body to come, which has to come at 1,000 bytes a second
    /// in the long run. Default 20.
    pub request_s: u64,
    /// For a message on a WebSocket to come in whole, from its first byte. Default 20.
    pub message_s: u64,
    /// For a kept-alive connection between two requests. Default 75.
    pub keep_alive_s: u64,
    /// For a peer to acknowledge what it was sent, before it counts as dead. Default 60.
    pub silence_max_s: u64,
    /// For a member of a channel who has no connection any more to come back, before it is told that he left. Default 5.
    pub presence_grace_s: u64,
    /// For a channel that nobody reads to stay on a loop. Default 60.
    pub channel_linger_s: u64,
    /// For a channel without history and subscribers to keep its place in its numbers. Default 3,600.
    pub channel_idle_s: u64,
    /// For a shutdown. Default 10.
    pub drain_s: u64,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8100)),
            allow: Vec::new(),
            deny: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            forwarded_by: ForwardedBy::default(),
            open: false,
            patterns: false,
            origins: vec!["*".to_owned()],
            hosts: Vec::new(),
            headers: Vec::new(),
            apis: Api::all(),
            demo: true,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            allow: Vec::new(),
            deny: Vec::new(),
            proxy_protocol: false,
            hosts: Vec::new(),
            origins: Vec::new(),
            keys: Vec::new(),
            forgeable_gets: false,
            apis: Api::all(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            connections_per_address_max: 2_000,
            subscribes_per_address_minute: 12_000,
            publishes_per_address_minute: 6_000,
            body_bytes_max: 64 * 1024 * 1024,
            body_bytes_per_address_max: 8 * 1024 * 1024,
            addresses_max: 100_000,
            channels_max: 100_000,
            channels_per_broadcast_max: 10_000,
            broadcasts_under_way_max: 100,
            channels_per_client_max: 5_000,
            patterns_per_client_max: 20,
            patterns_max: 100,
            subscribers_max: 1_000_000,
            members_per_channel_max: 1_000,
            subscribers_per_channel_max: 1_000_000,
            channels_per_subscription_max: 32,
            message_bytes_max: 64 * 1024,
            publications_per_request_max: 100,
            page_items_max: 1_000,
            request_bytes_max: 1024 * 1024,
            head_bytes_max: 16 * 1024,
            batch_bytes_max: 64 * 1024,
            encoded_bytes_max: 16 * 1024 * 1024,
            deliveries_under_way_max: 1_024,
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            messages_max: 500,
            bytes_max: 1024 * 1024,
            age_max_s: 86_400,
            total_bytes_max: 256 * 1024 * 1024,
            keys_max: 65_536,
            keys_age_max_s: 300,
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self {
            heartbeat_s: 15,
            poll_wait_s: 30,
            poll_wait_max_s: 60,
            classic_poll_s: 55,
            request_s: 20,
            message_s: 20,
            keep_alive_s: 75,
            silence_max_s: 60,
            presence_grace_s: 5,
            channel_linger_s: 60,
            channel_idle_s: 3_600,
            drain_s: 10,
        }
    }
}

impl Config {
    /// Reads a TOML file. It is not checked yet: flags may still change it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: shown.clone(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse { path: shown, message: parse_message(&text, &error) })
    }

    /// The configuration as a TOML file would have it, defaults written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

/// Whether it looks like an origin as browsers send it.
pub(crate) fn is_origin(origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let consists_of = |text: &str, others: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    // It goes into header fields, where other characters would say more than an origin. Browsers encode the rest of a host's name.
    let others: &[u8] = if fault!("origin-ends-directive") { b"-._:[];" } else { b"-._:[]" };
    consists_of(scheme, b"+-.") && consists_of(host, others)
}

/// Whether a text is the name of a header field.
pub(crate) fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte))
}

impl Front {
    /// Whether pages of all origins may read replies.
    pub(crate) fn allows_any_origin(&self) -> bool {
        self.origins.iter().any(|listed| listed == "*")
    }

    /// Whether pages of an origin may read replies.
    pub(crate) fn allows_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|listed| listed == "*" || listed == origin)
    }
}

impl Admin {
    /// Whether pages of all origins may use it.
    pub(crate) fn allows_any_origin(&self) -> bool {
        self.origins.iter().any(|listed| listed == "*")
    }

    /// Whether pages of an origin may use it.
    pub(crate) fn allows_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|listed| listed == "*" || listed == origin)
    }
}

/// What is wrong with a file, and where. A file with a secret is not quoted.
fn parse_message(text: &str, error: &toml::de::Error) -> String {
    if !text.contains("secret") && !text.contains("keys") {
        return error.to_string();
    }
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
    format!("line {}: {}", before.matches('\n').count() + 1, without_quotes(error.message()))
}

/// The message without the value that it quotes: a secret of another type than it has to be is one, too.
fn without_quotes(message: &str) -> String {
    match (message.split_once('"'), message.rsplit_once('"')) {
        (Some((before, _)), Some((_, after))) if !fault!("secret-quoted-in-error") => format!("{before}\"…\"{after}"),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_front_beyond_loopback_needs_rules_or_a_plain_word() {
        let open = "[front]\nlisten = \"0.0.0.0:8100\"\n";
        let refused = parse(open).expect("TOML").check();
        assert!(matches!(refused, Err(ConfigError::OpenFront(_))), "{refused:?}");
        parse(&format!("{open}open = true")).expect("TOML").check().expect("said so");
        parse(&format!("{open}allow = [\"10.0.0.0/8\"]")).expect("TOML").check().expect("has rules");
        let admin = parse("[admin]\nlisten = \"[::]:8000\"\n").expect("TOML").check();
        assert!(matches!(admin, Err(ConfigError::OpenAdmin(_))), "{admin:?}");
    }

    #[test]
    fn the_proxy_protocol_needs_somebody_to_speak_it() {
        let trusted = "[front]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
        let admin = "[admin]\nproxy_protocol = true\n";
        for (text, fine) in [
            ("[front]\nproxy_protocol = true".to_owned(), false),
            (format!("{trusted}proxy_protocol = true"), true),
            (format!("{admin}allow = [\"192.0.2.0/24\"]"), false),
            (format!("{trusted}{admin}"), false),
            (format!("{trusted}{admin}allow = [\"192.0.2.0/24\"]"), true),
        ] {
            let checked = parse(&text).expect("TOML").check();
            assert_eq!(checked.is_ok(), fine, "{text}: {checked:?}");
        }
    }

    #[test]
    fn origins_are_what_browsers_send() {
        for (origins, fine) in [
            (r#"["*"]"#, true),
            (r#"["https://a.example", "http://b.example:8080"]"#, true),
            ("[]", true),
            (r#"["*", "https://a.example"]"#, false),
            (r#"["https://a.example/"]"#, false),
            (r#"["a.example"]"#, false),
            ("[\"https://a.example\\r\\nX: y\"]", false),
            (r#"["https://a.example;script-src"]"#, false),
            (r#"["https://a.example,b"]"#, false),
            (r#"["https://[2001:db8::1]:8443", "chrome-extension://abc", "https://xn--bcher-kva.example"]"#, true),
        ] {
            let checked = parse(&format!("[front]\norigins = {origins}")).expect("TOML").check();
            assert_eq!(checked.is_ok(), fine, "{origins}: {checked:?}");
        }
    }

    #[test]
    fn header_names_are_names() {
        for (headers, fine) in [
            (r#"["X-Site", "x-other_1"]"#, true),
            ("[]", true),
            (r#"["X Site"]"#, false),
            (r#"["X-Site, X-Other"]"#, false),
            (r#"[""]"#, false),
            (r#"["*"]"#, false),
            ("[\"X\\r\\nY: z\"]", false),
        ] {
            let checked = parse(&format!("[front]\nheaders = {headers}")).expect("TOML").check();
            assert_eq!(checked.is_ok(), fine, "{headers}: {checked:?}");
        }
        let many =
            Config { front: Front { headers: vec!["X".to_owned(); 101], ..Front::default() }, ..Config::default() };
        assert!(matches!(many.check(), Err(ConfigError::Range { .. })));
    }

    #[test]
    fn defaults_are_fine_and_survive_being_written_out() {
        let config = Config::default();
        config.check().expect("defaults");
        parse(&config.to_toml()).expect("TOML").check().expect("the same");
    }

    #[test]
    fn a_log_level_that_does_not_exist_is_an_error() {
        for (level, fine) in [
            ("info", true),
            ("OFF", true),
            ("info,sealed=debug", true),
            ("warn, ccomet::hub=trace", true),
            ("loud", false),
            ("sealed=loud", false),
            ("info,", false),
            ("=info", false),
            ("", false),
        ] {
            let checked = parse(&format!("[log]\nlevel = {level:?}")).expect("TOML").check();
            assert_eq!(checked.is_ok(), fine, "{level:?}: {checked:?}");
        }
    }

    #[test]
    fn unknown_names_and_values_out_of_range_are_errors() {
        assert!(parse("[limits]\nmessages = 5").is_err());
        for bad in ["[limits]\nchannels_max = 0", "[times]\nheartbeat_s = 0", "[times]\npoll_wait_s = 61"] {
            let checked = parse(bad).expect("TOML").check();
            assert!(matches!(checked, Err(ConfigError::Range { .. })), "{bad}: {checked:?}");
        }
    }
}
