//! The creation of tokens.

use std::path::Path;

use jsonwebtoken::{Algorithm as Jwa, EncodingKey, Header, encode};
use serde::Serialize;

use super::crypto;
use super::key::{AuthError, Material, private_key};
use crate::config::auth::{Algorithm, Auth};
use crate::core::pattern::Pattern;

/// The claims of a token.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Claims {
    /// The subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// The time of issue, in seconds since 1970.
    pub iat: u64,
    /// The expiry, in seconds since 1970.
    pub exp: u64,
    /// The channels that may be read.
    pub subscribe: Vec<Pattern>,
    /// The channels that may be published to.
    pub publish: Vec<Pattern>,
    /// The channels whose members the bearer may see.
    pub presence: Vec<Pattern>,
}

/// Creates a token, signed with the key of that id: with the secret of the configuration or, for
/// `EdDSA`, with the private key in the PEM file `private`. If `auth.audience` is set, the server
/// accepts only tokens whose [`aud`](Claims::aud) has that value.
///
/// # Errors
/// If there is no such key, if the key cannot be read, if `private` is missing for `EdDSA` or given
/// for another algorithm, or if the key cannot sign.
pub fn make_token(auth: &Auth, key: &str, private: Option<&Path>, claims: &Claims) -> Result<String, AuthError> {
    crypto::install();
    let key = auth.keys.iter().find(|held| held.id == key).ok_or_else(|| AuthError::Unknown(key.to_owned()))?;
    let (algorithm, signing) = match (key.algorithm, private) {
        (Algorithm::HS256, None) => match key.material()? {
            Material::Secret(secret) => (Jwa::HS256, EncodingKey::from_secret(&secret)),
            Material::Public(_) => return Err(AuthError::PrivateKey),
        },
        (Algorithm::EdDSA, Some(file)) => (Jwa::EdDSA, EncodingKey::from_ed_der(&private_key(file)?)),
        _ => return Err(AuthError::PrivateKey),
    };
    let header = Header { kid: Some(key.id.clone()), ..Header::new(algorithm) };
    encode(&header, claims, &signing).map_err(AuthError::Sign)
}
