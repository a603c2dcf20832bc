//! The creation of tokens.

use std::path::Path;

use jsonwebtoken::{Algorithm as Jwa, EncodingKey, Header, encode};
use serde::Serialize;

use super::crypto;
use super::key::{AuthError, Material, private_key};
use crate::config::auth::{Algorithm, Auth};
use crate::core::pattern::Pattern;

/// The claims of a token.
///
/// ```
/// use std::time::{Duration, SystemTime, UNIX_EPOCH};
/// use ccomet::{Auth, Claims, Key, Pattern, Secret, Verifier, make_token};
///
/// // The same keys as in the server's configuration.
/// let key = Key { id: "site".to_owned(), secret: Some(Secret::new("a secret of at least 32 bytes.....")), ..Key::default() };
/// let auth = Auth { keys: vec![key], ..Auth::default() };
///
/// let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
/// let claims = Claims {
///     iat: now.as_secs(),
///     exp: (now + Duration::from_secs(3_600)).as_secs(),
///     subscribe: vec![Pattern::new("news.*")?],
///     ..Claims::default()
/// };
/// let token = make_token(&auth, "site", None, &claims)?;
/// assert!(Verifier::new(&auth)?.verify(&token, now.as_secs()).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

/// Creates a token, signed with the key of that id in `auth.keys`: with the secret of the
/// configuration or, for public keys, with the private key in the PEM file `private`. If
/// `auth.audience` is set, the server accepts only tokens whose [`aud`](Claims::aud) has that
/// value.
///
/// # Errors
/// If there is no such key, if the key cannot be read, if `private` is missing for a public key or
/// given for a secret, or if the key cannot sign.
pub fn make_token(auth: &Auth, key: &str, private: Option<&Path>, claims: &Claims) -> Result<String, AuthError> {
    crypto::install();
    let key = auth.keys.iter().find(|held| held.id == key).ok_or_else(|| AuthError::Unknown(key.to_owned()))?;
    let (algorithm, signing) = match (key.algorithm, private) {
        (Algorithm::HS256, None) => match key.material()? {
            Material::Secret(secret) => (Jwa::HS256, EncodingKey::from_secret(&secret)),
            _ => return Err(AuthError::PrivateKey),
        },
        (Algorithm::RS256, Some(file)) => (Jwa::RS256, EncodingKey::from_rsa_der(&private_key(file)?)),
        (Algorithm::ES256, Some(file)) => (Jwa::ES256, EncodingKey::from_ec_der(&private_key(file)?)),
        (Algorithm::EdDSA, Some(file)) => (Jwa::EdDSA, EncodingKey::from_ed_der(&private_key(file)?)),
        _ => return Err(AuthError::PrivateKey),
    };
    let header = Header { kid: Some(key.id.clone()), ..Header::new(algorithm) };
    encode(&header, claims, &signing).map_err(AuthError::Sign)
}
