//! Key sets of other programs (JWKS, RFC 7517).

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::key::{AuthError, Material, RSA_BITS_MIN, read};
use super::spki;

/// A key of a set.
pub(super) struct SetKey {
    pub(super) id: Option<String>,
    pub(super) material: Material,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// A key, with the members that matter here. Others are ignored.
#[derive(Deserialize)]
struct Described {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// Reads the keys of a file.
pub(super) fn read_file(path: &Path) -> Result<Vec<SetKey>, AuthError> {
    let bytes = read(path).map_err(|error| match error {
        AuthError::Read { path, source } => AuthError::KeySet { path, fault: format!("cannot be read: {source}") },
        other => other,
    })?;
    parse(&bytes).map_err(|fault| AuthError::KeySet { path: path.to_owned(), fault })
}

/// Returns the keys of a set that can verify tokens. The error is a sentence.
pub(super) fn parse(text: &[u8]) -> Result<Vec<SetKey>, String> {
    let Set { keys } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let count = keys.len();
    // A set may have keys for other purposes, and of kinds that are not known here.
    let mut usable: Vec<SetKey> = keys.into_iter().filter_map(key).collect();
    if usable.len() > 1 {
        // Tokens have to name one of several keys.
        usable.retain(|key| key.id.is_some());
    }
    if usable.is_empty() {
        return Err(format!(
            "none of its {count} keys can be used: they have to be RSA keys of at least {RSA_BITS_MIN} bits (RS256), P-256 \
             keys (ES256) or Ed25519 keys (EdDSA) for signatures"
        ));
    }
    Ok(usable)
}

/// Returns a key, if tokens can be verified with it.
fn key(value: Value) -> Option<SetKey> {
    let key: Described = serde_json::from_value(value).ok()?;
    if key.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?.trim_end_matches('=')).ok();
    let is_for = |algorithm: &str| key.alg.as_deref().is_none_or(|named| named == algorithm);
    let material = match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) if is_for("RS256") => Material::Rsa(spki::rsa_of_parts(&bytes(&key.n)?, &bytes(&key.e)?)),
        ("EC", Some("P-256")) if is_for("ES256") => Material::P256([vec![4], bytes(&key.x)?, bytes(&key.y)?].concat()),
        ("OKP", Some("Ed25519")) if is_for("EdDSA") || is_for("Ed25519") => Material::Ed25519(bytes(&key.x)?),
        _ => return None,
    };
    material.is_valid().then_some(SetKey { id: key.kid, material })
}
