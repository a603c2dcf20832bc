//! What is wrong with a configuration.

use std::net::SocketAddr;

use sealed::fault;
use tracing::level_filters::LevelFilter;

use super::{Config, HEADERS_MAX, MINUTE_MAX, ORIGINS_MAX, is_field_name, is_origin};
use crate::auth::{AuthError, Verifier, is_key};
use crate::rules::{Rule, Rules};
use crate::wire::host::is_name;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what we understand.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: String,
        /// Where and what.
        message: String,
    },
    /// The front would be open to anyone.
    #[error(
        "front.listen = {0} is reachable from other machines, and anyone there could publish and subscribe. Name the \
         networks that may come in (front.allow), let in only who brings a token (auth.keys), or say that it is meant to be open (front.open = true, or --open-front)"
    )]
    OpenFront(SocketAddr),
    /// The back end's address is none that can be asked.
    #[error(
        "hooks.url = {0:?} is not 'http://HOST[:PORT]/PATH', which is needed where something is to be asked or told"
    )]
    Hooks(String),
    /// Pages of any origin would act with what their visitors' browsers know of the site.
    #[error(
        "hooks.headers passes on Cookie or Authorization, which browsers send whichever page asks, and front.origins = [\"*\"]: name the \
         origins of the site's pages, or none (front.origins = [])"
    )]
    AnyOrigin,
    /// Keys make no sense, or cannot be read.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The admin listener would be open to anyone.
    #[error("admin.listen = {0} is reachable from other machines. Name the networks that may come in (admin.allow)")]
    OpenAdmin(SocketAddr),
    /// Proxies say for whom they connect, and none is trusted.
    #[error("{0} is set, and front.trusted_proxies names no proxy that could connect")]
    NoProxy(&'static str),
    /// The admin listener would be open to whomever a proxy lets through.
    #[error("admin.proxy_protocol is set: name the networks whose clients may come in by a proxy (admin.allow)")]
    ProxiedAdmin,
    /// An origin is not one that a browser sends.
    #[error("{setting} has {origin:?}: an origin is like https://example.org, without a path, or \"*\" alone for any")]
    Origin {
        /// The setting.
        setting: &'static str,
        /// What it has.
        origin: String,
    },
    /// A host is not a name.
    #[error("{setting} has {host:?}: a host is a name alone, like comet.example.org, without a port")]
    Host {
        /// The setting.
        setting: &'static str,
        /// What it has.
        host: String,
    },
    /// A key of the admin listener can be guessed, or cannot be sent.
    #[error(
        "admin.keys has a key that is shorter than 16 characters, or has characters other than visible ones of ASCII"
    )]
    AdminKey,
    /// The level of the log is none.
    #[error(
        "log.level = {0:?} is not a level (error, warn, info, debug, trace, off) or a list of levels by module, such as \
         info,sealed=debug"
    )]
    LogLevel(String),
    /// A name is not one of a header field.
    #[error("front.headers has {0:?}, which is not the name of a header field")]
    HeaderName(String),
    /// A value is outside of what makes sense.
    #[error("{name} must be {range}, and is {value}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it is.
        value: u64,
    },
}

/// Returns whether a text is a level, or a list of levels in which modules are named.
fn is_log_level(text: &str) -> bool {
    let is_level = |level: &str| !level.is_empty() && level.parse::<LevelFilter>().is_ok();
    text.split(',').map(str::trim).all(|part| match part.rsplit_once('=') {
        Some((module, level)) => !module.is_empty() && is_level(level),
        None => is_level(part),
    })
}

impl Config {
    /// Checks that the parts make sense, alone and together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let front = &self.front;
        let is_guarded = !front.allow.is_empty() || self.auth.is_closed();
        if !front.listen.ip().to_canonical().is_loopback() && !is_guarded && !front.open {
            return Err(ConfigError::OpenFront(front.listen));
        }
        if !self.admin.listen.ip().to_canonical().is_loopback() && self.admin.allow.is_empty() {
            return Err(ConfigError::OpenAdmin(self.admin.listen));
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
        if !is_log_level(&self.log.level) {
            return Err(ConfigError::LogLevel(self.log.level.clone()));
        }
        if front.headers.len() > HEADERS_MAX {
            let (name, range, value) = ("front.headers", "a list of at most 100", front.headers.len() as u64);
            return Err(ConfigError::Range { name, range, value });
        }
        if let Some(name) = front.headers.iter().find(|name| !is_field_name(name.as_str())) {
            return Err(ConfigError::HeaderName(name.clone()));
        }
        Verifier::new(&self.auth)?;
        self.check_names()?;
        let (limits, times) = (&self.limits, &self.times);
        for (name, value, max, range) in self.ranges() {
            if value < 1 || value > max {
                return Err(ConfigError::Range { name, range, value });
            }
        }
        let hooks = &self.hooks;
        let is_wanted = hooks.subscribe || hooks.publish || hooks.presence || !hooks.url.is_empty();
        if is_wanted && hooks.place().is_none() {
            return Err(ConfigError::Hooks(hooks.url.clone()));
        }
        if hooks.pass_on_credentials() && front.allows_any_origin() && !fault!("cookies-with-any-origin") {
            return Err(ConfigError::AnyOrigin);
        }
        for (name, value) in self.rules.iter().flat_map(Rule::numbers) {
            if value < 1 {
                return Err(ConfigError::Range { name, range: "at least 1", value });
            }
        }
        if self.rules.len() > Rules::MAX {
            let value = self.rules.len() as u64;
            return Err(ConfigError::Range { name: "rules", range: "at most 1000", value });
        }
        if limits.head_bytes_max < 1_024 || limits.head_bytes_max > 1 << 20 {
            let value = limits.head_bytes_max as u64;
            return Err(ConfigError::Range { name: "limits.head_bytes_max", range: "from 1024 to 1048576", value });
        }
        if times.poll_wait_s > times.poll_wait_max_s {
            let (name, range) = ("times.poll_wait_s", "at most times.poll_wait_max_s");
            return Err(ConfigError::Range { name, range, value: times.poll_wait_s });
        }
        Ok(())
    }

    /// Checks whose pages may come, by which names the listeners are called, and the admin listener's keys.
    fn check_names(&self) -> Result<(), ConfigError> {
        let any = ["*".to_owned()];
        for (setting, origins) in [("front.origins", &self.front.origins), ("admin.origins", &self.admin.origins)] {
            if origins.len() > ORIGINS_MAX {
                let (range, value) = ("a list of at most 250", origins.len() as u64);
                return Err(ConfigError::Range { name: setting, range, value });
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

    /// Every number that has bounds, from 1 on: its name, its value, the greatest, and both in words.
    fn ranges(&self) -> Vec<(&'static str, u64, u64, &'static str)> {
        let day = 86_400;
        let (limits, history, times) = (&self.limits, &self.history, &self.times);
        let from_one = "at least 1";
        let to_a_minute = "from 1 to 60000000";
        let to_a_day = "from 1 to 86400";
        vec![
            ("limits.connections_max", limits.connections_max as u64, u64::MAX, from_one),
            ("limits.connections_per_address_max", limits.connections_per_address_max.into(), u64::MAX, from_one),
            (
                "limits.subscribes_per_address_minute",
                limits.subscribes_per_address_minute.into(),
                MINUTE_MAX,
                to_a_minute,
            ),
            (
                "limits.publishes_per_address_minute",
                limits.publishes_per_address_minute.into(),
                MINUTE_MAX,
                to_a_minute,
            ),
            ("limits.body_bytes_max", limits.body_bytes_max as u64, u64::MAX, from_one),
            ("limits.body_bytes_per_address_max", limits.body_bytes_per_address_max as u64, u64::MAX, from_one),
            ("limits.addresses_max", limits.addresses_max as u64, u64::MAX, from_one),
            ("auth.leeway_s", self.auth.leeway_s.max(1), 3_600, "from 0 to 3600"),
            ("auth.warning_s", self.auth.warning_s, day, to_a_day),
            ("limits.channels_max", limits.channels_max as u64, u64::MAX, from_one),
            ("limits.channels_per_broadcast_max", limits.channels_per_broadcast_max as u64, u64::MAX, from_one),
            ("limits.broadcasts_under_way_max", limits.broadcasts_under_way_max as u64, 10_000, "from 1 to 10000"),
            ("limits.channels_per_client_max", limits.channels_per_client_max as u64, u64::MAX, from_one),
            ("limits.patterns_per_client_max", limits.patterns_per_client_max as u64, 10_000, "from 1 to 10000"),
            ("limits.patterns_max", limits.patterns_max as u64, 10_000, "from 1 to 10000"),
            ("limits.subscribers_max", limits.subscribers_max as u64, u64::MAX, from_one),
            ("limits.members_per_channel_max", limits.members_per_channel_max as u64, 1_000_000, "from 1 to 1000000"),
            ("limits.subscribers_per_channel_max", limits.subscribers_per_channel_max as u64, u64::MAX, from_one),
            ("limits.channels_per_subscription_max", limits.channels_per_subscription_max as u64, 255, "from 1 to 255"),
            ("limits.message_bytes_max", limits.message_bytes_max as u64, 8 << 20, "from 1 to 8388608"),
            (
                "limits.publications_per_request_max",
                limits.publications_per_request_max as u64,
                10_000,
                "from 1 to 10000",
            ),
            ("limits.page_items_max", limits.page_items_max as u64, 100_000, "from 1 to 100000"),
            ("limits.request_bytes_max", limits.request_bytes_max as u64, 64 << 20, "from 1 to 67108864"),
            ("limits.batch_bytes_max", limits.batch_bytes_max as u64, 1 << 20, "from 1 to 1048576"),
            ("limits.encoded_bytes_max", limits.encoded_bytes_max as u64, u64::MAX, from_one),
            ("limits.deliveries_under_way_max", limits.deliveries_under_way_max as u64, 1 << 20, "from 1 to 1048576"),
            ("history.messages_max", history.messages_max as u64, 1 << 20, "from 1 to 1048576"),
            ("history.bytes_max", history.bytes_max as u64, u64::MAX, from_one),
            ("history.age_max_s", history.age_max_s, u64::MAX / 1_000, from_one),
            ("history.keys_max", history.keys_max as u64, u64::MAX, from_one),
            ("history.keys_age_max_s", history.keys_age_max_s, day, to_a_day),
            ("history.total_bytes_max", history.total_bytes_max as u64, u64::MAX, from_one),
            ("times.heartbeat_s", times.heartbeat_s, day, to_a_day),
            ("times.poll_wait_max_s", times.poll_wait_max_s, day, to_a_day),
            ("times.classic_poll_s", times.classic_poll_s, day, to_a_day),
            ("times.request_s", times.request_s, day, to_a_day),
            ("times.message_s", times.message_s, day, to_a_day),
            ("times.keep_alive_s", times.keep_alive_s, day, to_a_day),
            ("times.silence_max_s", times.silence_max_s, day, to_a_day),
            ("times.presence_grace_s", times.presence_grace_s, day, to_a_day),
            ("times.channel_linger_s", times.channel_linger_s, day, to_a_day),
            ("times.channel_idle_s", times.channel_idle_s, u64::MAX / 1_000, from_one),
            ("times.drain_s", times.drain_s, day, to_a_day),
            ("hooks.timeout_ms", self.hooks.timeout_ms, 60_000, "from 1 to 60000"),
            ("hooks.connections_max", self.hooks.connections_max as u64, 1_000, "from 1 to 1000"),
            (
                "hooks.connections_per_address_max",
                self.hooks.connections_per_address_max as u64,
                1_000,
                "from 1 to 1000",
            ),
            ("hooks.questions_max", self.hooks.questions_max as u64, 1_000_000, "from 1 to 1000000"),
            (
                "hooks.questions_per_address_max",
                self.hooks.questions_per_address_max as u64,
                1_000_000,
                "from 1 to 1000000",
            ),
            ("hooks.questions_bytes_max", self.hooks.questions_bytes_max as u64, u64::MAX, from_one),
            ("hooks.question_bytes_max", self.hooks.question_bytes_max as u64, 8 << 20, "from 1 to 8388608"),
            ("hooks.answers_bytes_max", self.hooks.answers_bytes_max as u64, 1 << 30, "from 1 to 1073741824"),
            ("hooks.movements_max", self.hooks.movements_max as u64, 1_000_000, "from 1 to 1000000"),
            ("icomet.polling_timeout_s", self.icomet.polling_timeout_s, day, to_a_day),
            ("icomet.channel_timeout_s", self.icomet.channel_timeout_s, day, to_a_day),
        ]
    }
}
