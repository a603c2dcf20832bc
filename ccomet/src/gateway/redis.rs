//! The store in Redis, and its link: a service beside the server of each loop.

use std::sync::Arc;
use std::time::Duration;

use sealed::{Address, Connect, Place, Resolver};
use sealed_http::Http;

use super::Gateway;
use super::setup::{kept_for, wake_of};
use crate::config::redis::{RedisAddress, RedisPlace};
use crate::config::tls::TlsConnector;
use crate::engine::{Link, LinkEvents, LinkLog, LinkPort, LinkSettings, RedisStore, RedisStoreSettings, Store};
use crate::handle::LoopMessage;
use crate::in_force::InForce;

/// The parts of a store in Redis that the loops of a server share.
#[derive(Debug, Clone)]
pub(crate) struct RedisParts {
    link: Arc<LinkSettings>,
    log: LinkLog,
    store: RedisStoreSettings,
}

impl RedisParts {
    /// Returns the parts, if the settings name a Redis.
    pub(crate) fn new(InForce { config, tls, .. }: &InForce, resolver: &Resolver, loops: usize) -> Option<Self> {
        let place = config.store.redis_place()?;
        let connect = connect(&place, resolver, tls.redis.as_ref())?;
        let prefix: Box<str> = config.store.redis_prefix.as_str().into();
        let link = LinkSettings {
            connect,
            shown: place.shown().into(),
            user: place.user.map(Into::into),
            password: place.password.map(|password| password.as_str().into()),
            db: place.db,
            prefix: prefix.clone(),
        };
        let store = RedisStoreSettings {
            prefix,
            window_max: config.store.window_messages_max,
            kept_for: kept_for(config),
            key_age: Duration::from_secs(config.history.keys_age_max_s),
            index: 0,
            loops,
        };
        Some(Self { link: Arc::new(link), log: LinkLog::new(loops), store })
    }

    /// Makes the store of a loop, and its link, which [`Gateway::start_link`] starts.
    pub(super) fn make_store(&self, place: &Place<LoopMessage>) -> (Box<dyn Store>, Link) {
        let (port, events) = (LinkPort::default(), LinkEvents::new(wake_of(place)));
        let settings = RedisStoreSettings { index: place.index, ..self.store.clone() };
        let store = RedisStore::new(settings, (port.clone(), events.clone()), self.log.clone());
        (Box::new(store), Link::new(self.link.clone(), place.index, self.log.clone(), (port, events)))
    }
}

/// Returns the way to a Redis; `None` if its name cannot be that of a certificate, which the
/// settings are checked for.
#[cfg_attr(not(feature = "tls"), allow(unused_variables, clippy::unnecessary_wraps))]
fn connect(place: &RedisPlace, resolver: &Resolver, tls: Option<&TlsConnector>) -> Option<Connect> {
    Some(match &place.address {
        RedisAddress::Socket(path) => Connect::to(Address::unix(path)),
        RedisAddress::Host { host, port, .. } => {
            let connect = Connect::by_name(resolver, host, *port);
            #[cfg(feature = "tls")]
            if let Some(connector) = tls {
                let name = sealed::tls::ServerName::try_from(host.clone()).ok()?;
                return Some(connect.tls(connector.clone(), name));
            }
            connect
        }
    })
}

impl Gateway {
    /// Starts the link, if the store has one.
    pub(super) fn start_link(&mut self, http: &mut Http<'_, Self>) {
        if let Some(link) = self.link.take()
            && let Err(error) = http.add_service(Link::config(), *link)
        {
            tracing::error!("the connection to Redis cannot be started: {error}");
        }
    }
}
