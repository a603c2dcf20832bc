//! From a token to what it grants.

use std::collections::HashMap;
use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Number;

use super::key::{AuthError, Material};
use super::settings::Auth;
use super::{Grant, Refused, crypto};
use crate::pattern::Pattern;

/// The longest token, in bytes. What a request's head may be is mostly the lower bound.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Verifies tokens with the keys of a configuration. It reads no clock, and may be used by all threads.
///
/// Which algorithm a token has is known from its key; what the token itself says of it must be the same.
pub struct Verifier {
    keys: HashMap<String, VerifyingKey>,
    /// The id of the one key, where there is but one: its tokens need not name it.
    only: Option<String>,
    audience: Option<String>,
}

struct VerifyingKey {
    key: DecodingKey,
    validation: Validation,
}

/// What is looked at in a token.
#[derive(Deserialize)]
struct Body {
    sub: Option<Box<str>>,
    exp: Number,
    nbf: Option<Number>,
    aud: Option<OneOrMany>,
    #[serde(default)]
    subscribe: Vec<Pattern>,
    #[serde(default)]
    publish: Vec<Pattern>,
    #[serde(default)]
    presence: Vec<Pattern>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

impl Verifier {
    /// Reads the keys.
    pub fn new(auth: &Auth) -> Result<Self, AuthError> {
        crypto::install();
        let mut keys = HashMap::with_capacity(auth.keys.len());
        for key in &auth.keys {
            let (decoding, algorithm) = match key.material()? {
                Material::Secret(bytes) => (DecodingKey::from_secret(&bytes), Algorithm::HS256),
                Material::Public(bytes) => (DecodingKey::from_ed_der(&bytes), Algorithm::EdDSA),
            };
            let mut validation = Validation::new(algorithm);
            // Times and audience are looked at here: the crate would read the clock.
            (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
            validation.required_spec_claims.clear();
            if keys.insert(key.id.clone(), VerifyingKey { key: decoding, validation }).is_some() {
                return Err(AuthError::Id(key.id.clone()));
            }
        }
        let only = if let [key] = &auth.keys[..] { Some(key.id.clone()) } else { None };
        Ok(Self { keys, only, audience: auth.audience.clone() })
    }

    /// What a token grants at that time, in seconds since 1970.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Grant, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Invalid);
        }
        let header = decode_header(token).map_err(|_| Refused::Invalid)?;
        // Whatever must be understood is not understood here.
        if header.crit.is_some() {
            return Err(Refused::Invalid);
        }
        let id = header.kid.as_ref().or(self.only.as_ref()).ok_or(Refused::Invalid)?;
        let VerifyingKey { key, validation } = self.keys.get(id).ok_or(Refused::Invalid)?;
        let body = decode::<Body>(token, key, validation).map_err(|_| Refused::Invalid)?.claims;
        let for_us = match (&self.audience, &body.aud) {
            (None, None) => true,
            (Some(audience), Some(named)) => named.has(audience),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !for_us {
            return Err(Refused::Invalid);
        }
        let expires_s = seconds(&body.exp).ok_or(Refused::Invalid)?;
        if expires_s <= now_s {
            return Err(Refused::Expired);
        }
        let from_s = body.nbf.as_ref().map_or(Some(0), seconds).ok_or(Refused::Invalid)?;
        if from_s > now_s {
            return Err(Refused::NotYet);
        }
        let Body { sub: subject, subscribe, publish, presence, .. } = body;
        Ok(Grant { subject, subscribe, publish, presence, expires_s: Some(expires_s) })
    }

    /// Whether there is any key.
    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.keys().collect();
        f.debug_struct("Verifier").field("keys", &ids).field("audience", &self.audience).finish_non_exhaustive()
    }
}

/// A time of a token, which may have a fraction: that is cut off.
fn seconds(number: &Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let fractional = number.as_f64().filter(|seconds| (0.0..9e15).contains(seconds))?;
        #[expect(clippy::cast_sign_loss, reason = "it is in range")]
        Some(fractional as u64)
    })
}

#[cfg(test)]
mod tests;
