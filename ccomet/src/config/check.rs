//! The checks of a configuration.

use std::net::SocketAddr;

use sealed::fault;
use tracing::level_filters::LevelFilter;

use super::auth::is_key;
use super::listen::{beyond_loopback, socket_mode};
use super::table::{Settings, check};
use super::tls::TlsParts;
use super::webhooks::without_secrets;
use super::{Api, Config, is_field_name, is_origin};
use crate::access::token::{AuthError, Verifier};
use crate::config::rules::Rules;

/// Each request of a page looks its origin up in the list.
const ORIGINS_MAX: usize = 250;

/// Each loop has a thread and several descriptors. More loops than cores are of no use.
const LOOPS_MAX: usize = 1_024;

/// Each answer to a preflight request contains the names of all header fields.
const HEADERS_MAX: usize = 100;

/// A fault of a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a valid configuration.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: String,
        /// The place and the fault.
        message: String,
    },
    /// An environment variable or a flag does not have a value of its setting.
    #[error("{from}: {message}")]
    Value {
        /// The variable or the flag.
        from: String,
        /// The setting, and what is wrong.
        message: String,
    },
    /// No setting has the name of an environment variable.
    #[error(
        "there is no setting for the environment variable {name}{similar}. Such a variable has the name CCOMET_, the \
         table and the setting, as in CCOMET_FRONT_LISTEN; remove it, or correct its name"
    )]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The names of similar variables, as the end of a sentence.
        similar: String,
    },
    /// The front would be open to every client.
    #[error(
        "front.listen = {0} is reachable from other machines, and anyone there could publish and subscribe. Name the \
         networks that may connect (front.allow), require tokens (auth.keys), or open it deliberately \
         (front.open = true, or --open-front)"
    )]
    OpenFront(SocketAddr),
    /// The URL of the back end is malformed.
    #[error(
        "hooks.url = {0:?} is not 'http://HOST[:PORT]/PATH', without a user and a password, which is required if the back \
         end is to be asked or notified"
    )]
    Hooks(String),
    /// The back end is to be asked or notified, and its URL is not set.
    #[error("{0} = true needs the URL of the back end: set hooks.url = \"http://HOST[:PORT]/PATH\"")]
    NoBackEnd(&'static str),
    /// Pages of any origin could act with the credentials that their visitors' browsers store for
    /// the site.
    #[error(
        "hooks.headers passes on Cookie or Authorization, which browsers send for requests of every page, and \
         front.origins = [\"*\"]: name the origins of the site's pages, or none (front.origins = [])"
    )]
    AnyOrigin,
    /// The keys are inconsistent, or cannot be read.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The admin listener would be open to every client.
    #[error("admin.listen = {0} is reachable from other machines. Name the networks that may connect (admin.allow)")]
    OpenAdmin(SocketAddr),
    /// Both listeners have the same address.
    #[error(
        "front.listen and admin.listen are both {0}: the two listeners need different addresses. Change one of them \
         (--front, --admin)"
    )]
    SameAddress(String),
    /// The permissions of a Unix socket are malformed.
    #[error("{setting} = {mode:?} is not a file mode: write three octal digits, such as 660, or nothing")]
    SocketMode {
        /// The setting.
        setting: &'static str,
        /// The malformed mode.
        mode: String,
    },
    /// Proxies are to name their clients, and no proxy is trusted.
    #[error("{0} is set, and front.trusted_proxies names no proxy that could connect")]
    NoProxy(&'static str),
    /// The admin listener would be open to every client of a proxy.
    #[error("admin.proxy_protocol is set: name the networks whose clients may connect through a proxy (admin.allow)")]
    ProxiedAdmin,
    /// A file that a setting names cannot be read.
    #[error("{setting}: cannot read {path}")]
    ReadFor {
        /// The setting.
        setting: String,
        /// The file.
        path: String,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or a key cannot be used.
    #[error("{setting}: {path}: {fault}")]
    Tls {
        /// The setting.
        setting: String,
        /// The file.
        path: String,
        /// The fault, and what to do.
        fault: String,
    },
    /// A listener is to speak TLS, and to get the names of its clients by the PROXY protocol, which
    /// comes before TLS.
    #[error(
        "{0}.tls and {0}.proxy_protocol are both set: a proxy that uses the PROXY protocol has to end TLS itself, or to \
         pass connections on without the protocol"
    )]
    ProxiedTls(&'static str),
    /// The URL of the key set is malformed.
    #[error(
        "auth.jwks_url = {0:?} is neither 'https://HOST[:PORT]/PATH' nor 'http://HOST[:PORT]/PATH', without a user and a password"
    )]
    KeySetUrl(String),
    /// The system has no root certificates, with which to check the server of a URL.
    #[error(
        "{setting} needs TLS, and there are no root certificates to check its server with ({fault}). Install the package \
         ca-certificates, or name a file in the environment variable SSL_CERT_FILE"
    )]
    NoRoots {
        /// The setting.
        setting: &'static str,
        /// The reason.
        fault: String,
    },
    /// The program was built without TLS.
    #[error(
        "front.tls, admin.tls, https in auth.jwks_url, or rediss in store.redis needs TLS, and this program was built without \
         the feature `tls`"
    )]
    NoTls,
    /// The program was built without the store on disk.
    #[error("store.path is set, and this program was built without the feature `disk`")]
    NoDisk,
    /// The program was built without the store in Redis.
    #[error("store.redis is set, and this program was built without the feature `redis`")]
    NoRedis,
    /// The store cannot be on disk and in Redis.
    #[error(
        "store.path and store.redis are both set, and messages are kept in one store: remove one of them (--data, --redis)"
    )]
    TwoStores,
    /// The URL of Redis is malformed.
    #[error(
        "store.redis = {url:?} {fault}. It has the form redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, \
         or unix:///PATH[?db=DATABASE]; other characters than letters and digits in the user and the password are \
         percent-encoded"
    )]
    RedisUrl {
        /// The URL, without user and password.
        url: String,
        /// The fault.
        fault: &'static str,
    },
    /// The prefix of the keys in Redis is malformed.
    #[error("store.redis_prefix = {0:?} is not 1 to 64 letters, digits and -_.:")]
    RedisPrefix(String),
    /// An origin does not have the form in which browsers send it.
    #[error(
        "{setting} has {origin:?}: an origin has the form https://example.org, without a path; the list [\"*\"] allows any"
    )]
    Origin {
        /// The setting.
        setting: &'static str,
        /// The malformed origin.
        origin: String,
    },
    /// A host is not a plain host name.
    #[error("{setting} has {host:?}: a host is a name without a port, such as comet.example.org")]
    Host {
        /// The setting.
        setting: &'static str,
        /// The malformed host.
        host: String,
    },
    /// A key of the admin listener is easily guessed, or cannot be sent.
    #[error(
        "admin.keys has a key that is shorter than 16 characters, or has characters other than visible ones of ASCII"
    )]
    AdminKey,
    /// The level of the log does not exist.
    #[error(
        "log.level = {0:?} is not a level (error, warn, info, debug, trace, off) or a list of levels by \
         module, such as info,sealed=debug"
    )]
    LogLevel(String),
    /// A name is not valid for a header field.
    #[error("{setting} has {name:?}, which is not the name of a header field")]
    HeaderName {
        /// The setting.
        setting: &'static str,
        /// The invalid name.
        name: String,
    },
    /// The name of the cookie for tokens is not valid for a cookie.
    #[error("auth.cookie = {0:?} is not the name of a cookie")]
    CookieName(String),
    /// The admin listener is configured to serve the classic API.
    #[error("admin.apis has \"classic\": the classic API is served at the front alone (front.apis)")]
    ClassicAdmin,
    /// A value is out of its range.
    #[error("{name} = {value} is out of range: allowed is {range}")]
    Range {
        /// The setting.
        name: &'static str,
        /// The allowed range, with units.
        range: String,
        /// The value.
        value: u64,
    },
    /// A list has too many entries.
    #[error("{name} has {count} entries: allowed are at most {max}")]
    TooMany {
        /// The setting.
        name: &'static str,
        /// The greatest number of entries.
        max: usize,
        /// The number of entries.
        count: usize,
    },
    /// A rule has an error.
    #[error("rule {number}, channels = {channels:?}: {fault}")]
    InRule {
        /// The number of the rule, from 1.
        number: usize,
        /// The channels of the rule.
        channels: String,
        /// The error.
        fault: Box<ConfigError>,
    },
}

/// Returns whether a text is a log level, or a list of levels, some of them for a module.
fn is_log_level(text: &str) -> bool {
    let is_level = |level: &str| !level.is_empty() && level.parse::<LevelFilter>().is_ok();
    text.split(',').map(str::trim).all(|part| match part.rsplit_once('=') {
        Some((module, level)) => !module.is_empty() && is_level(level),
        None => is_level(part),
    })
}

/// Returns the error for a list with too many entries.
fn too_long(name: &'static str, max: usize, count: usize) -> ConfigError {
    ConfigError::TooMany { name, max, count }
}

impl Config {
    /// Checks that each setting is valid, and that the settings are consistent. Reads the files of
    /// keys and certificates.
    ///
    /// # Errors
    /// The first setting that is wrong, with its name.
    pub fn check(&self) -> Result<(), ConfigError> {
        let front = &self.front;
        let is_guarded = !front.allow.is_empty() || self.auth.is_closed();
        if let Some(address) = beyond_loopback(&front.listen).filter(|_| !is_guarded && !front.open) {
            return Err(ConfigError::OpenFront(address));
        }
        if let Some(address) = beyond_loopback(&self.admin.listen).filter(|_| self.admin.allow.is_empty()) {
            return Err(ConfigError::OpenAdmin(address));
        }
        let is_chosen = front.listen.inet().is_none_or(|address| address.port() != 0);
        if front.listen == self.admin.listen && is_chosen && !fault!("listeners-at-one-address") {
            return Err(ConfigError::SameAddress(front.listen.to_string()));
        }
        for (setting, mode) in
            [("front.socket_mode", &front.socket_mode), ("admin.socket_mode", &self.admin.socket_mode)]
        {
            if !mode.is_empty() && socket_mode(mode).is_none() {
                return Err(ConfigError::SocketMode { setting, mode: mode.clone() });
            }
        }
        for (name, is_set) in
            [("front.proxy_protocol", front.proxy_protocol), ("admin.proxy_protocol", self.admin.proxy_protocol)]
        {
            if is_set && front.trusted_proxies.is_empty() {
                return Err(ConfigError::NoProxy(name));
            }
        }
        if self.admin.proxy_protocol && self.admin.allow.is_empty() {
            return Err(ConfigError::ProxiedAdmin);
        }
        if !is_log_level(&self.log.level) && !fault!("unknown-level-is-silence") {
            return Err(ConfigError::LogLevel(self.log.level.clone()));
        }
        if self.admin.apis.contains(&Api::Classic) {
            return Err(ConfigError::ClassicAdmin);
        }
        for (name, has_tls, is_proxied) in [
            ("front", front.tls.is_some(), front.proxy_protocol),
            ("admin", self.admin.tls.is_some(), self.admin.proxy_protocol),
        ] {
            if has_tls && is_proxied {
                return Err(ConfigError::ProxiedTls(name));
            }
        }
        if !self.auth.jwks_url.is_empty() && self.auth.key_set_place().is_none() {
            return Err(ConfigError::KeySetUrl(without_secrets(&self.auth.jwks_url)));
        }
        Verifier::new(&self.auth)?;
        TlsParts::read(self)?;
        self.check_names()?;
        self.store.check_redis()?;
        self.check_all_ranges()?;
        let hooks = &self.hooks;
        let wanted = [
            ("hooks.subscribe", hooks.subscribe),
            ("hooks.publish", hooks.publish),
            ("hooks.presence", hooks.presence),
        ];
        let wanted = wanted.iter().find(|(_, is_wanted)| *is_wanted);
        if let Some((setting, _)) = wanted.filter(|_| hooks.url.is_empty()) {
            return Err(ConfigError::NoBackEnd(setting));
        }
        if !hooks.url.is_empty() && hooks.place().is_none() {
            return Err(ConfigError::Hooks(without_secrets(&hooks.url)));
        }
        if hooks.pass_on_credentials() && front.allows_any_origin() && !fault!("cookies-with-any-origin") {
            return Err(ConfigError::AnyOrigin);
        }
        Ok(())
    }

    /// Checks that each number is in its range.
    fn check_all_ranges(&self) -> Result<(), ConfigError> {
        self.front.check_ranges()?;
        self.admin.check_ranges()?;
        self.log.check_ranges()?;
        self.limits.check_ranges()?;
        self.history.check_ranges()?;
        self.store.check_ranges()?;
        self.times.check_ranges()?;
        self.icomet.check_ranges()?;
        self.auth.check_ranges()?;
        self.hooks.check_ranges()?;
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check_ranges().map_err(|fault| ConfigError::InRule {
                number: index + 1,
                channels: rule.channels.as_str().to_owned(),
                fault: Box::new(fault),
            })?;
        }
        if self.rules.len() > Rules::MAX {
            return Err(too_long("rules", Rules::MAX, self.rules.len()));
        }
        if let Some(loops) = self.loops.filter(|loops| loops.get() > LOOPS_MAX) {
            check("loops", loops.get(), 1..=LOOPS_MAX as u64)?;
        }
        let times = &self.times;
        if times.poll_wait_s > times.poll_wait_max_s {
            let range = format!("at most times.poll_wait_max_s ({} s); raise that too", times.poll_wait_max_s);
            return Err(ConfigError::Range { name: "times.poll_wait_s", range, value: times.poll_wait_s });
        }
        Ok(())
    }

    /// Checks the names of header fields, of the cookie, of origins and of hosts, and the admin
    /// listener's keys.
    fn check_names(&self) -> Result<(), ConfigError> {
        let (headers, cookie) = (&self.front.headers, &self.auth.cookie);
        if headers.len() > HEADERS_MAX {
            return Err(too_long("front.headers", HEADERS_MAX, headers.len()));
        }
        for (setting, names) in [("front.headers", headers), ("hooks.headers", &self.hooks.headers)] {
            if let Some(name) = names.iter().find(|name| !is_field_name(name))
                && !(setting == "hooks.headers" && fault!("hook-headers-unchecked"))
            {
                return Err(ConfigError::HeaderName { setting, name: name.clone() });
            }
        }
        // A cookie's name consists of the same characters as a header field's (RFC 6265).
        if !cookie.is_empty() && !is_field_name(cookie) {
            return Err(ConfigError::CookieName(cookie.clone()));
        }
        let any = ["*".to_owned()];
        for (setting, origins) in [("front.origins", &self.front.origins), ("admin.origins", &self.admin.origins)] {
            if origins.len() > ORIGINS_MAX {
                return Err(too_long(setting, ORIGINS_MAX, origins.len()));
            }
            if let Some(origin) = origins.iter().find(|origin| *origins != any && !is_origin(origin.as_str())) {
                return Err(ConfigError::Origin { setting, origin: origin.clone() });
            }
        }
        for (setting, hosts) in [("front.hosts", &self.front.hosts), ("admin.hosts", &self.admin.hosts)] {
            if let Some(host) = hosts.iter().find(|host| !is_name(host)) {
                return Err(ConfigError::Host { setting, host: host.clone() });
            }
        }
        if self.admin.keys.iter().all(is_key) { Ok(()) } else { Err(ConfigError::AdminKey) }
    }
}

/// Returns whether a text is a plain host name, without a port.
fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(is_letter) && !text.ends_with('.')
}
