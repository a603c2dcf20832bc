//! The verification of tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sealed::fault;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwks::{self, SetKey};
use super::key::{AuthError, Material};
use super::{Grant, crypto};
use crate::config::auth::Auth;
use crate::core::pattern::Pattern;
use crate::core::refused::Refused;

/// The longest token, in bytes. The limit on a request's head is often lower.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Verifies tokens with the keys of a configuration. It reads no clock, and all threads may use it.
///
/// The key determines the algorithm of its tokens; a token that names another algorithm is refused.
pub struct Verifier {
    /// The keys of the configuration, and those of `auth.jwks_url`, by their ids.
    keys: HashMap<String, Arc<VerifyingKey>>,
    fetched: HashMap<String, Arc<VerifyingKey>>,
    /// The id of the only key, if there is one key: its tokens need not name it.
    only: Option<String>,
    /// Whether there are keys, even if those of `auth.jwks_url` have not been fetched yet.
    has_keys: bool,
    /// Whether `auth.jwks_url` has not been fetched yet.
    is_awaiting: bool,
    /// Whether a token has named a key that is not known.
    has_missed: AtomicBool,
    audience: Option<String>,
    leeway_s: u64,
}

/// The keys of `auth.jwks_url`.
#[derive(Clone, Default)]
pub(crate) struct FetchedKeys(HashMap<String, Arc<VerifyingKey>>);

impl FetchedKeys {
    /// Reads a key set. The error is a sentence.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let keys = jwks::parse(text)?;
        let keyed = |SetKey { id, material }| (id.unwrap_or_default(), Arc::new(VerifyingKey::new(&material)));
        Ok(Self(keys.into_iter().map(keyed).collect()))
    }

    /// Returns the number of keys.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for FetchedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

struct VerifyingKey {
    key: DecodingKey,
    validation: Validation,
}

impl VerifyingKey {
    fn new(material: &Material) -> Self {
        let (key, algorithm) = match material {
            Material::Secret(bytes) => (DecodingKey::from_secret(bytes), Algorithm::HS256),
            Material::Ed25519(bytes) => (DecodingKey::from_ed_der(bytes), Algorithm::EdDSA),
            Material::Rsa(bytes) => (DecodingKey::from_rsa_der(bytes), Algorithm::RS256),
            Material::P256(bytes) => (DecodingKey::from_ec_der(bytes), Algorithm::ES256),
        };
        let mut validation = Validation::new(algorithm);
        // Times and audience are checked here: the crate would read the clock.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        validation.required_spec_claims.clear();
        Self { key, validation }
    }
}

/// The claims of a token. The relevant claims are checked one by one, so that an error can name the
/// faulty one.
type Body = Map<String, Value>;

/// Returns the channels and patterns of a claim; none if it is missing.
fn patterns(body: &Body, claim: &str, refused: Refused) -> Result<Vec<Pattern>, Refused> {
    body.get(claim).map_or(Ok(Vec::new()), |list| Vec::deserialize(list).map_err(|_| refused))
}

/// Returns the subject of a token: text, or the number of a user.
fn subject(body: &Body) -> Result<Option<Box<str>>, Refused> {
    match body.get("sub") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str().into())),
        Some(Value::Number(number)) if number.is_u64() || number.is_i64() => Ok(Some(number.to_string().into())),
        Some(_) => Err(Refused::Subject),
    }
}

/// Returns whether the audiences of a token contain this one.
fn is_for(named: &Value, audience: &str) -> bool {
    match named {
        Value::String(one) => one == audience,
        Value::Array(many) => many.iter().any(|one| one == audience),
        _ => false,
    }
}

impl Verifier {
    /// Reads the keys.
    ///
    /// # Errors
    /// If a key cannot be read or is too short, or if two have the same id.
    pub fn new(auth: &Auth) -> Result<Self, AuthError> {
        crypto::install();
        let mut keys = HashMap::with_capacity(auth.keys.len());
        let mut add = |id: String, material: &Material| {
            let is_new = keys.insert(id.clone(), Arc::new(VerifyingKey::new(material))).is_none();
            if is_new { Ok(()) } else { Err(AuthError::Id(id)) }
        };
        for key in &auth.keys {
            add(key.id.clone(), &key.material()?)?;
        }
        if let Some(path) = &auth.jwks_file {
            for SetKey { id, material } in jwks::read_file(path)? {
                // A key without an id can be used only if it is the only key.
                add(id.unwrap_or_default(), &material)?;
            }
        }
        let verifier = Self {
            keys,
            fetched: HashMap::new(),
            only: None,
            has_keys: auth.has_keys(),
            is_awaiting: false,
            has_missed: AtomicBool::new(false),
            audience: auth.audience.clone(),
            leeway_s: auth.leeway_s,
        };
        Ok(Self { is_awaiting: !auth.jwks_url.is_empty(), ..verifier.with_fetched(&FetchedKeys::default()) })
    }

    /// Returns a verifier with the same keys of the configuration, and with these fetched ones. If
    /// both have a key of one id, that of the configuration counts.
    pub(crate) fn with_fetched(&self, FetchedKeys(fetched): &FetchedKeys) -> Self {
        let mut all = self.keys.keys().chain(fetched.keys());
        let only = if let (Some(only), None) = (all.next(), all.next()) { Some(only.clone()) } else { None };
        Self {
            keys: self.keys.clone(),
            fetched: fetched.clone(),
            only,
            has_keys: self.has_keys,
            is_awaiting: false,
            has_missed: AtomicBool::new(false),
            audience: self.audience.clone(),
            leeway_s: self.leeway_s,
        }
    }

    /// Returns whether a token has named an unknown key since the last call.
    pub(crate) fn take_missed(&self) -> bool {
        self.has_missed.swap(false, Ordering::Relaxed)
    }

    /// Returns the grant of a token at a time, in seconds since 1970.
    ///
    /// # Errors
    /// The reason why the token is refused: it is malformed, its key is unknown or its signature
    /// wrong, it has expired or is not valid yet, or it is for another audience.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Grant, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Invalid);
        }
        let header = decode_header(token).map_err(|_| Refused::Invalid)?;
        // The server supports none of the extensions that `crit` declares as mandatory.
        if header.crit.is_some() {
            return Err(Refused::Invalid);
        }
        let id = header.kid.as_ref().or(self.only.as_ref());
        let find = |id: &String| self.keys.get(id).or_else(|| self.fetched.get(id));
        let Some(VerifyingKey { key, validation }) = id.and_then(find).map(Arc::as_ref) else {
            self.has_missed.store(true, Ordering::Relaxed);
            return Err(match id {
                _ if self.is_awaiting => Refused::KeysPending,
                Some(_) => Refused::Invalid,
                None => Refused::KeyMissing,
            });
        };
        let body = decode::<Body>(token, key, validation).map_err(|_| Refused::Invalid)?.claims;
        let is_for_us = match (&self.audience, body.get("aud")) {
            (None, None) => true,
            (Some(audience), Some(named)) => is_for(named, audience),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !is_for_us {
            return Err(Refused::Audience);
        }
        let expires_s = body.get("exp").and_then(seconds).ok_or(Refused::Expiry)?;
        if expires_s <= now_s {
            return Err(Refused::Expired);
        }
        let from_s = body.get("nbf").map_or(Some(0), seconds).ok_or(Refused::NotBefore)?;
        let leeway_s = if fault!("early-token-is-final") { 0 } else { self.leeway_s };
        if from_s > now_s.saturating_add(leeway_s) {
            return Err(Refused::NotYet);
        }
        Ok(Grant {
            subject: subject(&body)?,
            subscribe: patterns(&body, "subscribe", Refused::Subscribe)?,
            publish: patterns(&body, "publish", Refused::Publish)?,
            presence: patterns(&body, "presence", Refused::Presence)?,
            expires_s: Some(expires_s),
        })
    }

    /// Returns whether there are any keys.
    pub(in crate::access) fn has_keys(&self) -> bool {
        self.has_keys
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.keys().chain(self.fetched.keys()).collect();
        f.debug_struct("Verifier").field("keys", &ids).field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// Returns a time of a token in whole seconds; a fraction is cut off.
fn seconds(number: &Value) -> Option<u64> {
    number.as_u64().or_else(|| {
        let fractional = number.as_f64().filter(|seconds| (0.0..9e15).contains(seconds))?;
        #[expect(clippy::cast_sign_loss, reason = "it is in range")]
        Some(fractional as u64)
    })
}

#[cfg(test)]
mod tests;
