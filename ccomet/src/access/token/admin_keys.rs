//! The keys of the admin listener.

use ring::hmac;
use sealed::fault;
use sealed_http::RequestHead;

use super::bearer;
use crate::config::auth::Secret;

/// Checks whether a request has one of the keys, in a time that does not depend on how much of it
/// is correct.
#[derive(Debug)]
pub(crate) struct AdminKeys {
    mac: hmac::Key,
    tags: Vec<hmac::Tag>,
}

impl AdminKeys {
    pub(crate) fn new(keys: &[Secret]) -> Self {
        // The comparison uses digests, which all have the same length. The key of the digest need
        // not be secret.
        let mac = hmac::Key::new(hmac::HMAC_SHA256, b"admin.keys");
        let tags = keys.iter().map(|key| hmac::sign(&mac, key.as_bytes())).collect();
        Self { mac, tags }
    }

    /// Returns whether a request is admitted: it has one of the keys, or there are no keys.
    pub(crate) fn admit(&self, head: &RequestHead<'_>) -> bool {
        if self.tags.is_empty() {
            return true;
        }
        let mut fields = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let (Some((_, value)), None) = (fields.next(), fields.next()) else { return false };
        let Some(key) = bearer::bearer(value) else { return false };
        let key = if fault!("beginning-of-key-enough") { &key[..key.len().min(20)] } else { key };
        // The loop visits all keys, whichever matches.
        self.tags.iter().fold(false, |found, tag| found | hmac::verify(&self.mac, key, tag.as_ref()).is_ok())
    }
}
