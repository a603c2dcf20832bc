//! The construction of a loop of the server from its settings.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sealed::{Place, Resolver, fault};
use sealed_http::Settings;
use sealed_http::codec::Limits as HttpLimits;
use sealed_http::site::{Cors, Origins};
use slab::Slab;

use super::Gateway;
use super::answers::{Answering, allowed_headers, answering};
use super::console::SlowSince;
use super::hooks::Site;
use super::inside::Readers;
use super::key_set::KeySetFetches;
use super::metering::Meter;
#[cfg(feature = "redis")]
use super::redis::RedisParts;
use super::reloading::{ReloadParts, Reloads};
use super::token_expiry::TokenExpirations;
use crate::access::Authorizer;
use crate::access::client::ClientTracker;
use crate::access::token::AdminKeys;
use crate::config::Config;
#[cfg(any(feature = "disk", feature = "redis"))]
use crate::engine::Wake;
#[cfg(feature = "disk")]
use crate::engine::{DiskStore, SharedStore, StoreTimes};
use crate::engine::{Engine, MemoryStore, ShardLimits, Store};
#[cfg(feature = "sim")]
use crate::engine::{StoreFaults, UnreliableStore};
use crate::handle::{LoopMessage, LoopThread};
use crate::hub::{Hub, HubLimits};
use crate::in_force::InForce;
use crate::on_call::Judge;
use crate::ops::health::{Listener, LoopWatchdog};
use crate::ops::metrics::Metrics;
use crate::ops::refusals::RefusalLog;
use crate::ops::static_files::StaticFiles;
use crate::protocols::ENCODERS;

/// The data that the loops of a server share.
#[derive(Debug, Clone)]
pub(crate) struct ServerParts {
    pub(crate) in_force: InForce,
    pub(crate) reload: ReloadParts,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) life: Option<Listener>,
    pub(crate) judge: Option<Judge>,
    /// Resolves the host name of the back end.
    pub(crate) resolver: Resolver,
    /// The store on disk, if there is one.
    #[cfg(feature = "disk")]
    pub(crate) disk_store: Option<Arc<SharedStore>>,
    /// The store in Redis, if there is one.
    #[cfg(feature = "redis")]
    pub(crate) redis: Option<RedisParts>,
    /// The simulated faults of the store, in tests.
    #[cfg(feature = "sim")]
    pub(crate) store: Option<StoreFaults>,
}

impl ServerParts {
    /// Makes the store of a loop.
    #[cfg_attr(not(any(feature = "disk", feature = "sim")), allow(clippy::unused_self, unused_variables))]
    fn make_store(&self, place: &Place<LoopMessage>) -> Box<dyn Store> {
        #[cfg(feature = "disk")]
        if let Some(shared) = &self.disk_store {
            shared.set_wake(place.index, wake_of(place));
            return Box::new(DiskStore::new(shared.clone(), place.index));
        }
        #[cfg(feature = "sim")]
        if let Some(faults) = self.store {
            return Box::new(UnreliableStore::new(faults));
        }
        Box::new(MemoryStore)
    }
}

/// Returns what wakes a loop if its store has results.
#[cfg(any(feature = "disk", feature = "redis"))]
pub(super) fn wake_of(place: &Place<LoopMessage>) -> Wake {
    let mailbox = place.mailboxes[place.index].clone();
    // If the mailbox is full, the loop is awake.
    Wake(Arc::new(move || drop(mailbox.post(LoopMessage::StoreReady))))
}

/// Returns the share of a loop in a limit of the whole server.
fn share(whole: usize, loops: usize) -> usize {
    whole.div_ceil(loops)
}

pub(super) fn hub_limits(in_force: &InForce, loops: usize) -> HubLimits {
    let Config { limits, times, icomet, .. } = &*in_force.config;
    HubLimits {
        rules: in_force.rules.clone(),
        encoders: ENCODERS,
        subscribers_max: share(limits.subscribers_max, loops),
        batch_bytes_max: limits.batch_bytes_max,
        encoded_bytes_max: share(limits.encoded_bytes_max, loops),
        linger: Duration::from_secs(times.channel_linger_s),
        heartbeat: Duration::from_secs(times.heartbeat_s),
        channel_silence_max: Duration::from_secs(icomet.polling_timeout_s),
    }
}

pub(super) fn shard_limits(InForce { config, rules, .. }: &InForce, loops: usize) -> ShardLimits {
    ShardLimits::new(config, rules.clone(), loops, Duration::from_secs(config.icomet.channel_timeout_s))
}

/// Returns the longest time for which messages of any channel are kept.
#[cfg(any(feature = "disk", feature = "redis"))]
pub(super) fn kept_for(config: &Config) -> Duration {
    let rules = config.rules.iter().filter_map(|rule| rule.age_max_s);
    Duration::from_secs(rules.chain([config.history.age_max_s]).max().unwrap_or(config.history.age_max_s))
}

/// Returns the times of the store on disk.
#[cfg(feature = "disk")]
pub(crate) fn store_times(config: &Config) -> StoreTimes {
    StoreTimes {
        kept_for: kept_for(config),
        idle: Duration::from_secs(config.times.channel_idle_s),
        key_age: Duration::from_secs(config.history.keys_age_max_s),
    }
}

/// Returns the settings of the HTTP server.
pub(crate) fn http_settings(config: &Config) -> Settings {
    Settings {
        limits: HttpLimits {
            // A script tag publishes in the request line.
            request_line_bytes_max: config.limits.head_bytes_max,
            head_bytes_max: config.limits.head_bytes_max,
            body_bytes_max: config.limits.message_bytes_max as u64,
            ..HttpLimits::default()
        },
        request_timeout: Duration::from_secs(config.times.request_s),
        body_timeout: Duration::from_secs(config.times.request_s),
        idle_timeout: Duration::from_secs(config.times.keep_alive_s),
        ..Settings::default()
    }
}

fn origins(any: bool, listed: &[String]) -> Origins {
    if any { Origins::Any } else { Origins::Listed(listed.to_vec()) }
}

/// Returns what pages of other origins may do at the front.
pub(super) fn front_cors(config: &Config) -> Cors {
    Cors {
        origins: origins(config.front.allows_any_origin(), &config.front.origins),
        methods: "GET, HEAD, POST, OPTIONS",
        headers: allowed_headers(&config.front.headers).into(),
        exposed: if fault!("retry-after-hidden") { "" } else { "Retry-After, WWW-Authenticate" },
        max_age_s: "86400",
    }
}

/// Returns what pages of other origins may do at the admin listener.
pub(super) fn admin_cors(config: &Config) -> Cors {
    Cors {
        origins: origins(config.admin.allows_any_origin(), &config.admin.origins),
        methods: "GET, HEAD, POST, DELETE, OPTIONS",
        ..front_cors(config)
    }
}

impl Gateway {
    pub(crate) fn new(shared: ServerParts, place: Place<LoopMessage>) -> Self {
        #[cfg(feature = "redis")]
        let (store, link) = match &shared.redis {
            Some(redis) => {
                let (store, link) = redis.make_store(&place);
                (store, Some(Box::new(link)))
            }
            None => (shared.make_store(&place), None),
        };
        #[cfg(not(feature = "redis"))]
        let store = shared.make_store(&place);
        let ServerParts { in_force, reload, metrics, life, judge, resolver, .. } = shared;
        let (counters, refusals) = (metrics.counters.clone(), metrics.refusals.clone());
        let console = metrics.console.clone();
        let (loops, index) = (place.mailboxes.len(), place.index);
        let InForce { config, rules, .. } = in_force.clone();
        let (preflight, admin_preflight) = (front_cors(&config), admin_cors(&config));
        let answering = Answering {
            fields: answering(&preflight, &admin_preflight),
            refusals: RefusalLog::new(refusals, console),
            meter: Meter::new(counters.clone(), index),
        };
        let shard = shard_limits(&in_force, loops);
        let reloads = Reloads::new(reload, place.mailboxes.clone());
        Self {
            engine: Engine::new(index, place.mailboxes, shard, store, Duration::from_secs(config.times.reply_s)),
            index,
            hub: Hub::new(hub_limits(&in_force, loops)),
            reloads,
            key_set: KeySetFetches::default(),
            key_set_tls: in_force.tls.key_set,
            batches: HashMap::new(),
            site: Site::new(&config.hooks, &resolver),
            resolver,
            answering,
            preflight,
            admin_preflight,
            admin_keys: AdminKeys::new(&config.admin.keys),
            token_expirations: TokenExpirations::new(Duration::from_secs(config.auth.warning_s)),
            client_tracker: ClientTracker::new(&config, loops),
            arrivals: HashMap::new(),
            authorizer: Authorizer::new(in_force.verifier, &config, rules.clone()),
            rules,
            files: StaticFiles::new(config.front.demo),
            config,
            #[cfg(feature = "disk")]
            disk_store: shared.disk_store,
            #[cfg(feature = "redis")]
            link,
            counters,
            metrics,
            life: life.filter(|_| index == 0),
            watchdog: LoopWatchdog::new(loops),
            watchers: Vec::new(),
            readers: Readers::default(),
            judge,
            _thread: LoopThread::mark(),
            sockets: Slab::new(),
            unfinished: HashMap::new(),
            slow_since: SlowSince::new(),
            is_sweeping: false,
            wake: None,
            draining: None,
        }
    }

    /// Adds the resources that this loop holds to those of others.
    #[cfg(feature = "sim")]
    pub(crate) fn add_to(&self, all: &mut crate::core::holdings::Holdings, seen: &mut crate::core::holdings::Seen) {
        all.asking += self.batches.len() + self.site.asking();
        all.leases += self.token_expirations.count();
        self.hub.add_to(all, seen);
        self.engine.add_to(all, seen);
    }

    #[cfg(feature = "sim")]
    pub(crate) fn add_store_to(
        &self,
        all: &mut crate::core::holdings::Holdings,
        seen: &mut crate::core::holdings::Seen,
    ) {
        self.engine.add_store_to(all, seen);
    }

    #[cfg(feature = "sim")]
    pub(crate) fn set_store_faults(&mut self, faults: StoreFaults) {
        self.engine.set_store_faults(faults);
    }

    /// Returns the most units of work that this loop's shard has used in one tick.
    #[cfg(feature = "sim")]
    pub(crate) fn most_work(&self) -> usize {
        self.engine.most_work()
    }
}
