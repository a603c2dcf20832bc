//! The section `[auth]` of the configuration.

use std::fmt;
use std::path::PathBuf;

use sealed::fault;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::table::settings;
use crate::config::webhooks::{self, BackEndPlace, without_query};
use crate::core::pattern::Pattern;

settings! {
    /// Tokens, and what clients of the front may do without one. Without keys, tokens are ignored.
    pub struct Auth in [auth] {
        /// Keys whose tokens are accepted. With several, a token has to name its key (`kid`).
        keys: Vec<Key> = [];
        /// File with further keys as a JSON Web Key Set (JWKS): RSA keys for RS256, P-256 keys for
        /// ES256, and Ed25519 keys for `EdDSA`. Keys of other kinds are ignored.
        #[serde(skip_serializing_if = "Option::is_none")]
        jwks_file: Option<PathBuf> = none;
        /// URL of a key set (JWKS), `https://` or `http://`, such as that of an identity provider:
        /// keys as in `jwks_file`. The server fetches it at the start, every `jwks_refresh_s`, and
        /// at most once a minute if a token names a key that is not known. If that fails, the keys
        /// stay as they were, and the server tries again after a second, then less and less often,
        /// up to once a minute. Empty: none.
        #[serde(serialize_with = "webhooks::shown", deserialize_with = "webhooks::read")]
        jwks_url: String = "" => String::new();
        /// Time after which the key set is fetched again.
        jwks_refresh_s: u64 = 3_600 s, [60..=604_800 s];
        /// Audience that a token has to name (`aud`). Without it, a token must name none.
        #[serde(skip_serializing_if = "Option::is_none")]
        audience: Option<String> = none;
        /// Cookie that may hold a token; empty: none.
        cookie: String = "ccomet_token" => "ccomet_token".to_owned();
        /// Time by which the start of a token's validity (`nbf`) may be ahead of this server's
        /// clock.
        leeway_s: u64 = 60 s, [0..=3_600 s], answers = "token_not_yet";
        /// Time between the warning on a stream and the end of its token.
        warning_s: u64 = 30 s, [1..=86_400 s];
        /// What a client without a token may do. If it is not set, a client without a token may do
        /// everything if there are no keys, and otherwise nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        anonymous: Option<Anonymous> = none;
    }
}

impl Auth {
    /// Returns what clients without a token may do.
    pub(crate) fn of_anonymous(&self) -> Anonymous {
        match &self.anonymous {
            Some(anonymous) => anonymous.clone(),
            None if !self.has_keys() => {
                let all = || vec![Pattern::all()];
                Anonymous { subscribe: all(), publish: all(), presence: all() }
            }
            None => Anonymous::default(),
        }
    }

    /// Returns whether tokens are accepted from any source of keys.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty() || self.jwks_file.is_some() || !self.jwks_url.is_empty()
    }

    /// Returns whether the key set is fetched with TLS.
    pub(crate) fn has_secure_key_set(&self) -> bool {
        self.jwks_url.starts_with("https://")
    }

    /// Returns the server of the key set; `None` if the URL is not valid.
    pub(crate) fn key_set_place(&self) -> Option<BackEndPlace> {
        let (scheme, port) = if self.has_secure_key_set() { ("https://", 443) } else { ("http://", 80) };
        BackEndPlace::of(&self.jwks_url, scheme, port)
    }

    /// Returns the URL of the key set for logs.
    pub(crate) fn shown_jwks_url(&self) -> &str {
        without_query(&self.jwks_url)
    }

    /// Returns whether all clients of the front need a token to publish or subscribe.
    pub(crate) fn is_closed(&self) -> bool {
        let anonymous = self.of_anonymous();
        self.has_keys() && anonymous.subscribe.is_empty() && anonymous.publish.is_empty()
    }
}

/// What clients without a token may do, as names and patterns of channels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Anonymous {
    /// The channels that they may read.
    pub subscribe: Vec<Pattern>,
    /// The channels that they may publish to.
    pub publish: Vec<Pattern>,
    /// The channels whose members they may see.
    pub presence: Vec<Pattern>,
}

/// A key with which tokens are signed. It determines the algorithm; a token that names another one
/// is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The name by which tokens refer to it (`kid`).
    pub id: String,
    /// The algorithm with which its tokens are signed.
    pub algorithm: Algorithm,
    /// HS256: the secret, at least 32 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// HS256: a file that holds the secret; a line break at its end is not part of the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// `EdDSA`, RS256, ES256: the public key, as PEM; for `EdDSA` also its 32 bytes in Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// `EdDSA`, RS256, ES256: a file that holds the public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_file: Option<PathBuf>,
}

/// An algorithm with which tokens are signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256: each holder of the key can both sign and verify.
    #[default]
    HS256,
    /// Ed25519: a private key signs, and its public key verifies.
    EdDSA,
    /// RSA with SHA-256 (PKCS #1 v1.5), with keys of 2,048 to 8,192 bits.
    RS256,
    /// ECDSA on the curve P-256 with SHA-256.
    ES256,
}

/// The minimum length of a key of the admin listener, in bytes.
const KEY_BYTES_MIN: usize = 16;

/// The text that replaces a secret in all output.
pub(super) const PLACEHOLDER: &str = "(secret)";

/// A secret. It is never shown, neither in messages nor in a printed configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Creates a secret from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLACEHOLDER)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(PLACEHOLDER)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The text comes from a printed configuration, and is public knowledge.
        if text == PLACEHOLDER && !fault!("placeholder-is-secret") {
            return Err(D::Error::custom(
                "(secret) is no secret: 'ccomet config' prints it in place of one. Write the secret itself there",
            ));
        }
        Ok(Self(text))
    }
}

/// Returns whether a key is long enough, and can be sent in a header field.
pub(crate) fn is_key(key: &Secret) -> bool {
    key.as_bytes().len() >= KEY_BYTES_MIN && key.as_bytes().iter().all(u8::is_ascii_graphic)
}
