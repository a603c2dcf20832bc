//! The settings of an operator. The default of every limit is safe on the open internet.
//!
//! - `table.rs`: the macro by which a section is written once, with its documentation, range and
//!   default.
//! - `limits.rs`, `auth.rs`, `rules.rs`, `storage.rs`, `webhooks.rs`: sections; those of the
//!   listeners and the log are here.
//! - `listen.rs`, `networks.rs`, `forwarded_by.rs`, `words.rs`: values that need parsing.
//! - `tls.rs`: the certificates of the listeners.
//! - `form.rs`, `document.rs`: the names, types and units of the settings of a file, by the table.
//! - `files.rs`: reads files within bounds.
//! - `layers.rs`: settings from a file, the environment and flags.
//! - `check.rs`: validation, also of settings that depend on each other.
//! - `warnings.rs`: settings that are valid, and have no effect.
//! - `reload.rs`: what changes if the settings of a running server are read anew.
//! - `printing.rs`, `template.rs`: the settings in force as text, and a file to begin with.
//! - `reference.rs`, `schema.rs`: the reference of all settings, `docs/settings.md`, and the schema
//!   for editors.

pub(crate) mod auth;
mod check;
mod document;
pub(crate) mod files;
mod form;
mod forwarded_by;
mod layers;
mod limits;
mod listen;
mod networks;
mod printing;
pub(crate) mod redis;
mod reference;
mod reload;
pub(crate) mod rules;
mod schema;
mod storage;
pub(crate) mod table;
mod template;
pub(crate) mod tls;
mod warnings;
pub(crate) mod webhooks;
mod words;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;

use ipnet::IpNet;
use sealed::{Address, fault};
use serde::{Deserialize, Serialize};

use self::auth::{Auth, Secret};
use self::table::settings;
use self::webhooks::Hooks;
use crate::config::rules::Rule;

pub use check::ConfigError;
pub use forwarded_by::ForwardedBy;
pub use layers::{Layers, Source};
pub use limits::{History, Icomet, IcometAuth, Limits, Times};
pub use listen::listen_address;
pub(crate) use listen::socket_mode;
pub use redis::RedisUrl;
pub use storage::{Storage, SyncMode};
pub use tls::Tls;
pub use words::{parse_bytes, parse_seconds};

/// The whole configuration, as in the TOML file. A setting that is missing in the file has its
/// default; an unknown setting is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Event loops, each with a thread. Default: one for each core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loops: Option<NonZeroUsize>,
    /// The public listener.
    pub front: Front,
    /// The private listener.
    pub admin: Admin,
    /// Tokens, and the permissions of clients without one.
    pub auth: Auth,
    /// Limits on counts and bytes.
    pub limits: Limits,
    /// The past messages that channels keep.
    pub history: History,
    /// The store on disk, or in Redis.
    pub store: Storage,
    /// Durations.
    pub times: Times,
    /// The behaviour of the API of icomet.
    pub icomet: Icomet,
    /// The log.
    pub log: Log,
    /// Requests to the site's back end.
    pub hooks: Hooks,
    /// Settings for channels by their names, in place of the general ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

settings! {
    /// The public listener: publish and subscribe.
    pub struct Front in [front] {
        /// Address on which the front listens: an IP address or a name with a port, such as
        /// `0.0.0.0:8100`; a port alone, such as `:8100`, which is one of 127.0.0.1; or a Unix
        /// socket, such as `unix:/run/ccomet/front.sock`. Clients of a Unix socket count as
        /// 127.0.0.1.
        #[serde(with = "listen")]
        listen: Address = "127.0.0.1:8100" => loopback(8_100), applied_by = restart;
        /// Permissions of the file of the Unix socket, in octal, such as `660`; empty: those that
        /// the process gives new files. A client needs the permission to write.
        socket_mode: String = "" => String::new(), applied_by = restart;
        /// Files of the certificate and its key, with which the front speaks TLS: `https` and
        /// `wss`. Without them, it speaks plain HTTP.
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<Tls> = none, applied_by = reload_unless_switched;
        /// Networks whose clients may connect; empty: all. A bare address, here and in the other
        /// lists, is a network of one address.
        #[serde(deserialize_with = "networks::read")]
        allow: Vec<IpNet> = [], answers = "forbidden";
        /// Networks whose clients may not connect, even if they are in `allow`.
        #[serde(deserialize_with = "networks::read")]
        deny: Vec<IpNet> = [], answers = "forbidden";
        /// Networks of proxies that name the client of a request. Rules and limits by address apply
        /// to the address that they name.
        #[serde(deserialize_with = "networks::read")]
        trusted_proxies: Vec<IpNet> = [];
        /// Whether trusted proxies name the client by the PROXY protocol, before the first request.
        /// Only they can connect then.
        proxy_protocol: bool = false;
        /// Header field in which trusted proxies name the client.
        forwarded_by: ForwardedBy = "X-Forwarded-For" => ForwardedBy::XForwardedFor;
        /// Whether the server may start with a front that is open to every client: not on loopback,
        /// without `allow`, and without tokens. Otherwise it refuses to start.
        open: bool = false;
        /// Whether clients may subscribe to patterns of channels, such as `news.*`, and so learn
        /// the names of all matching channels.
        patterns: bool = false, answers = "pattern_forbidden";
        /// Origins of pages that may read replies, open WebSockets and use JSONP; `["*"]`: any.
        origins: Vec<String> = ["*"] => vec!["*".to_owned()], answers = "origin_forbidden";
        /// Host names of the front, without ports; empty: any. If there are any, the front refuses
        /// requests with another `Host`, unless it is an address or `localhost`. Set it if the
        /// network limits access to the front: otherwise a page can point its own host name at the
        /// front (DNS rebinding), and read what its visitor can read.
        hosts: Vec<String> = [], answers = "host_unknown";
        /// Names of further header fields that requests from pages of `origins` may have, at most
        /// 100. The fields that the API uses are always allowed, and so are `X-Requested-With`,
        /// `X-CSRF-Token`, and the fields of tracing (`traceparent`, `tracestate`, `baggage`,
        /// `sentry-trace`).
        headers: Vec<String> = [];
        /// APIs that the front serves.
        apis: Vec<Api> = ["native", "classic", "icomet"] => vec![Api::Native, Api::Classic, Api::Icomet];
        /// Whether the front serves the pages of the chat demo, and redirects `/` to them. It
        /// always serves the client library.
        demo: bool = true;
    }
}

settings! {
    /// The private listener: everything that the front does, and listing, inspecting, clearing and
    /// closing channels.
    pub struct Admin in [admin] {
        /// Address on which the listener accepts connections, with the same forms as
        /// `front.listen`.
        #[serde(with = "listen")]
        listen: Address = "127.0.0.1:8000" => loopback(8_000), applied_by = restart;
        /// Permissions of the file of the Unix socket, as for the front. Every client that may
        /// write to it may use the listener.
        socket_mode: String = "" => String::new(), applied_by = restart;
        /// Files of the certificate and its key, with which the listener speaks TLS.
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<Tls> = none, applied_by = reload_unless_switched;
        /// Networks whose clients may connect. The list is required if the listener is not on
        /// loopback.
        #[serde(deserialize_with = "networks::read")]
        allow: Vec<IpNet> = [], answers = "forbidden";
        /// Networks whose clients may not connect, even if they are in `allow`.
        #[serde(deserialize_with = "networks::read")]
        deny: Vec<IpNet> = [], answers = "forbidden";
        /// Whether the front's trusted proxies name the client by the PROXY protocol. Only they can
        /// connect then, and `allow` is required.
        proxy_protocol: bool = false;
        /// Host names of the listener, without ports. It refuses requests with another `Host`,
        /// unless that is an address or `localhost`.
        hosts: Vec<String> = [], answers = "host_unknown";
        /// Origins of pages that may use the listener, as those of icomet do; empty: its own pages
        /// alone. `["*"]` lets every page that a user of these machines opens publish, close
        /// channels and read.
        origins: Vec<String> = [], answers = "origin_forbidden";
        /// Secrets of at least 16 characters; each request has to have one of them as
        /// `Authorization: Bearer KEY`. Empty: no secret is needed.
        keys: Vec<Secret> = [], answers = "admin_key";
        /// Whether a GET may publish, sign, close or be answered as script even if a page could
        /// have made a browser send it. A listener that is addressed by neither `localhost` nor a
        /// loopback address cannot see which page loads an image.
        forgeable_gets: bool = false, answers = "forgeable";
        /// APIs that the listener serves. The classic API is served at the front alone.
        apis: Vec<Api> = ["native", "icomet"] => vec![Api::Native, Api::Icomet];
    }
}

/// An API that a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/channels` and `/messages`.
    Native,
    /// The API of `CComet` 1.0, at the front alone.
    Classic,
    /// The API of icomet.
    Icomet,
}

settings! {
    /// The log, on standard error.
    pub struct Log in [log] {
        /// `error`, `warn`, `info`, `debug`, `trace` or `off`; also by module, as in
        /// `info,sealed=debug`.
        level: String = "info" => "info".to_owned();
    }
}

impl Config {
    /// Reads a TOML file, in which sizes and durations may be in words, such as `"64k"` and
    /// `"15s"`. [`check`](Self::check) and [`Server::bind`](crate::Server::bind) check
    /// the values, which the program may change before.
    ///
    /// # Errors
    /// If the file cannot be read, is longer than 4 MiB, or is not the TOML of a configuration.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::read_document(path).map(|document| document.config)
    }

    fn read_document(path: &Path) -> Result<document::Document, ConfigError> {
        let shown = path.display().to_string();
        let read = files::read_any(path, FILE_BYTES_MAX).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
        });
        let text = read.map_err(|source| ConfigError::Read { path: shown.clone(), source })?;
        document::read(&text).map_err(|fault| ConfigError::Parse { path: shown, message: fault.to_string() })
    }
}

/// No file of settings is longer; a longer file was named by mistake.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Returns a port of this machine alone.
fn loopback(port: u16) -> Address {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()
}

/// Returns whether a text has the form in which browsers send an origin.
pub(crate) fn is_origin(origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let consists_of = |text: &str, others: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    // The origin is copied into header fields, where other characters could have a meaning.
    // Browsers encode all other characters of a host name.
    let others: &[u8] = if fault!("origin-ends-directive") { b"-._:[];" } else { b"-._:[]" };
    consists_of(scheme, b"+-.") && consists_of(host, others)
}

/// Returns whether a text is the name of a header field.
pub(crate) fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte))
}

/// Implements the methods of the setting `origins`, which both listeners have.
macro_rules! with_origins {
    ($listener:ident) => {
        impl $listener {
            /// Returns whether the listener's `origins` allow pages of all origins.
            pub(crate) fn allows_any_origin(&self) -> bool {
                self.origins.iter().any(|listed| listed == "*")
            }

            /// Returns whether the listener's `origins` allow pages of an origin.
            pub(crate) fn allows_origin(&self, origin: &str) -> bool {
                self.allows_any_origin() || self.origins.iter().any(|listed| listed == origin)
            }
        }
    };
}

with_origins!(Front);
with_origins!(Admin);

/// The longest message that quotes the line with the fault.
const QUOTE_BYTES_MAX: usize = 1_024;

/// Returns the fault of a file, and its place. A file that may contain a secret is not quoted, and
/// neither is a long line.
fn parse_message(text: &str, error: &toml::de::Error) -> String {
    let quoted = error.to_string();
    if quoted.len() <= QUOTE_BYTES_MAX && !["secret", "keys", "url", "redis"].iter().any(|name| text.contains(name)) {
        return quoted;
    }
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
    format!("line {}: {}", before.matches('\n').count() + 1, without_quotes(error.message()))
}

/// Returns the message without the value that it quotes: a secret of a wrong type is still a
/// secret.
fn without_quotes(message: &str) -> String {
    let of_number = message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "));
    if let Some((value, expected)) = of_number.filter(|(value, _)| value.contains('`')) {
        let kind = value.split('`').next().unwrap_or_default();
        return format!("invalid type: {kind}`…`, expected {expected}");
    }
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
    fn a_front_beyond_loopback_needs_allowed_networks_or_open() {
        let open = "[front]\nlisten = \"0.0.0.0:8100\"\n";
        let refused = parse(open).expect("TOML").check();
        assert!(matches!(refused, Err(ConfigError::OpenFront(_))), "{refused:?}");
        parse(&format!("{open}open = true")).expect("TOML").check().expect("open is set");
        parse(&format!("{open}allow = [\"10.0.0.0/8\"]")).expect("TOML").check().expect("has rules");
        let admin = parse("[admin]\nlisten = \"[::]:8000\"\n").expect("TOML").check();
        assert!(matches!(admin, Err(ConfigError::OpenAdmin(_))), "{admin:?}");
    }

    #[test]
    fn the_proxy_protocol_needs_trusted_proxies() {
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
    fn origins_have_the_form_of_browsers() {
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
    fn header_names_are_checked() {
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
        assert!(matches!(many.check(), Err(ConfigError::TooMany { .. })));
    }

    #[test]
    fn names_that_cannot_be_sent_are_errors() {
        for (text, error) in [
            (
                "hooks.headers = [\"Cookie\", \"X Site\"]",
                "hooks.headers has \"X Site\", which is not the name of a header field",
            ),
            ("hooks.headers = [\"\"]", "hooks.headers has \"\", which is not the name of a header field"),
            ("auth.cookie = \"a;b\"", "auth.cookie = \"a;b\" is not the name of a cookie"),
            ("auth.cookie = \"a=b\"", "auth.cookie = \"a=b\" is not the name of a cookie"),
        ] {
            let origins = "front.origins = []\n";
            let refused = parse(&format!("{origins}{text}")).expect("TOML").check();
            assert_eq!(refused.expect_err(text).to_string(), error);
        }
        for text in ["hooks.headers = [\"X-Site\", \"x_other\"]", "auth.cookie = \"\"", "auth.cookie = \"__Host-t\""] {
            parse(text).expect("TOML").check().expect(text);
        }
    }

    #[test]
    fn the_admin_listener_does_not_serve_the_classic_api() {
        let refused = parse("admin.apis = [\"native\", \"classic\"]").expect("TOML").check();
        assert!(matches!(refused, Err(ConfigError::ClassicAdmin)), "{refused:?}");
    }

    #[test]
    fn the_placeholder_of_a_secret_is_not_accepted_as_a_secret() {
        for (before, after) in [
            ("hooks.secret = ", ""),
            ("admin.keys = [", "]"),
            ("auth.keys = [{ id = \"k\", algorithm = \"HS256\", secret = ", " }]"),
        ] {
            let text = |secret: &str| format!("{before}{secret:?}{after}");
            let read = parse(&text("a secret that is long enough for any of them")).expect("TOML");
            let shown = read.to_toml();
            assert!(shown.contains("(secret)"), "{shown}");
            for text in [text("(secret)"), shown] {
                let error = parse(&text).expect_err(&text);
                assert!(parse_message(&text, &error).contains("(secret) is no secret"), "{error}");
            }
        }
    }

    #[test]
    fn defaults_are_valid_and_round_trip_as_toml() {
        let config = Config::default();
        config.check().expect("defaults");
        let again = parse(&config.to_toml()).expect("TOML");
        again.check().expect("defaults");
        assert_eq!(again.to_toml(), config.to_toml());
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
