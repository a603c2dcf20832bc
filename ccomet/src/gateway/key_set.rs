//! The keys of `auth.jwks_url`: the first loop fetches them, and sends them to all loops.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use sealed_http::Http;
use sealed_http::client::{Fetch, FetchError, FetchId, Fetched, Upstream, UpstreamId};

use super::{Gateway, loop_time};
use crate::access::token::FetchedKeys;
use crate::core::time::LoopTime;
use crate::handle::ReloadMail;
use crate::in_force::{InForce, Keys};
use crate::webhooks::reason_of;

/// The time for an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// The maximum length of a key set, in bytes.
const SET_BYTES_MAX: u64 = 256 * 1024;
/// The time between two attempts because of a key that is not known, and the longest time between
/// two attempts after failures.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(60);
/// The time between the first failure and the next attempt. Each further failure doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The time after which the log mentions again that the attempts fail.
const WARNING_INTERVAL: Duration = Duration::from_secs(3_600);

/// The fetches of the key set; on the first loop only.
#[derive(Debug, Default)]
pub(super) struct KeySetFetches {
    /// The server of the URL, and the URL.
    upstream: Option<(String, UpstreamId)>,
    under_way: Option<FetchId>,
    /// The time of the next fetch, and of the first that an unknown key may cause.
    due: LoopTime,
    may_follow: LoopTime,
    /// The keys that were fetched last.
    keys: Option<FetchedKeys>,
    /// The number of failures since the last success, and the time of the next warning about them.
    failures: u32,
    warns_from: LoopTime,
}

impl Gateway {
    /// Fetches the key set if it is due, or if a token has named a key that is not known.
    pub(super) fn refresh_keys(&mut self, http: &mut Http<'_, Self>) {
        if self.index != 0 || self.config.auth.jwks_url.is_empty() || self.key_set.under_way.is_some() {
            return;
        }
        let now = loop_time(http);
        // An unknown key is remembered until it may cause a fetch.
        let is_wanted = now >= self.key_set.may_follow && self.authorizer.verifier().take_missed();
        if now < self.key_set.due && !is_wanted {
            return;
        }
        let Some((upstream, path)) = self.key_set_upstream(http) else { return };
        let Ok(fetch) = Fetch::get(path) else { return };
        let fetch = fetch.header("Accept", "application/json").body_bytes_max(SET_BYTES_MAX);
        self.key_set.under_way = Some(http.fetch(upstream, &fetch.limit(Some(LIMIT)).silence_max(LIMIT)));
    }

    /// Returns the server of the URL, and the path.
    fn key_set_upstream(&mut self, http: &mut Http<'_, Self>) -> Option<(UpstreamId, String)> {
        let auth = &self.config.auth;
        let place = auth.key_set_place()?;
        if let Some((url, id)) = &self.key_set.upstream
            && *url == auth.jwks_url
        {
            return Some((*id, place.path));
        }
        let upstream = Upstream::by_name(&self.resolver, &place.host, place.port);
        let upstream = upstream.connections_max(1).connect_limit(LIMIT).idle_timeout(Duration::from_secs(5));
        #[cfg(feature = "tls")]
        let upstream = match &self.key_set_tls {
            Some(connector) => {
                let name = sealed::tls::ServerName::try_from(place.host.clone()).ok()?;
                upstream.tls(connector.clone(), name)
            }
            None => upstream,
        };
        let id = http.add_upstream(upstream);
        self.key_set.upstream = Some((auth.jwks_url.clone(), id));
        Some((id, place.path))
    }

    /// Handles the result of a fetch. Returns whether it was one of the key set.
    pub(super) fn key_set_answered(&mut self, http: &Http<'_, Self>, id: FetchId, fetched: &Fetched<'_>) -> bool {
        if self.key_set.under_way != Some(id) {
            return false;
        }
        self.key_set.under_way = None;
        let keys = match fetched {
            Fetched::Whole(head, body) if head.status() == 200 => FetchedKeys::parse(body),
            fetched => Err(failure_of(fetched)),
        };
        self.answering.meter.key_sets[usize::from(keys.is_ok())].add(1);
        let (now, url) = (loop_time(http), self.config.auth.shown_jwks_url());
        if self.is_adopting() {
            // The keys would be combined with those of the earlier settings.
            self.key_set.due = now;
            return true;
        }
        let fetches = &mut self.key_set;
        fetches.may_follow = now.plus(ATTEMPT_INTERVAL);
        let refresh = Duration::from_secs(self.config.auth.jwks_refresh_s);
        match keys {
            Ok(keys) => {
                fetches.due = now.plus(refresh);
                tracing::info!(url, keys = keys.len(), "fetched the keys of auth.jwks_url");
                let verifier = Keys(Arc::new(self.authorizer.verifier().with_fetched(&keys)));
                (fetches.keys, fetches.failures, fetches.warns_from) = (Some(keys), 0, LoopTime::default());
                self.mail_to_all(|| ReloadMail::Keys(verifier.clone()));
            }
            Err(reason) => {
                // Without any keys, all tokens are refused: a key server that starts a little later
                // than this one must not cost a minute.
                let retry = FIRST_RETRY.saturating_mul(1 << fetches.failures.min(16));
                fetches.due = now.plus(retry.min(ATTEMPT_INTERVAL).min(refresh));
                fetches.failures = fetches.failures.saturating_add(1);
                if now >= fetches.warns_from {
                    fetches.warns_from = now.plus(WARNING_INTERVAL);
                    let failures = fetches.failures;
                    tracing::warn!(
                        url,
                        reason,
                        failures,
                        "cannot fetch the keys of auth.jwks_url; known keys stay in use"
                    );
                }
            }
        }
        true
    }

    /// Adds the keys that were fetched to those of new settings, if they have the same URL.
    pub(super) fn add_fetched_keys(&self, in_force: &mut InForce) {
        if let Some(keys) = &self.key_set.keys
            && in_force.config.auth.jwks_url == self.config.auth.jwks_url
        {
            in_force.verifier = Arc::new(in_force.verifier.with_fetched(keys));
        }
    }
}

/// Returns why a fetch of the key set has failed, in words.
fn failure_of(fetched: &Fetched<'_>) -> String {
    match fetched {
        Fetched::Whole(head, _) if (300..400).contains(&head.status()) => {
            format!("status {}: no redirect is followed, and auth.jwks_url has to be the final URL", head.status())
        }
        Fetched::Failed(FetchError::NotConnected(ErrorKind::InvalidData)) => {
            "the TLS handshake failed: the system does not trust the server's certificate (unknown root, expired, or \
             of another name), or the server does not speak TLS"
                .to_owned()
        }
        fetched => reason_of(fetched),
    }
}
