//! The verification of tokens.

use std::collections::HashMap;
use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sealed::fault;
use serde::Deserialize;
use serde_json::{Map, Value};

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
    keys: HashMap<String, VerifyingKey>,
    /// The id of the only key, if there is one key: its tokens need not name it.
    only: Option<String>,
    audience: Option<String>,
    leeway_s: u64,
}

struct VerifyingKey {
    key: DecodingKey,
    validation: Validation,
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
        for key in &auth.keys {
            let (decoding, algorithm) = match key.material()? {
                Material::Secret(bytes) => (DecodingKey::from_secret(&bytes), Algorithm::HS256),
                Material::Public(bytes) => (DecodingKey::from_ed_der(&bytes), Algorithm::EdDSA),
            };
            let mut validation = Validation::new(algorithm);
            // Times and audience are checked here: the crate would read the clock.
            (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
            validation.required_spec_claims.clear();
            if keys.insert(key.id.clone(), VerifyingKey { key: decoding, validation }).is_some() {
                return Err(AuthError::Id(key.id.clone()));
            }
        }
        let only = if let [key] = &auth.keys[..] { Some(key.id.clone()) } else { None };
        Ok(Self { keys, only, audience: auth.audience.clone(), leeway_s: auth.leeway_s })
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
        let id = header.kid.as_ref().or(self.only.as_ref()).ok_or(Refused::KeyMissing)?;
        let VerifyingKey { key, validation } = self.keys.get(id).ok_or(Refused::Invalid)?;
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
        !self.keys.is_empty()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.keys().collect();
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
