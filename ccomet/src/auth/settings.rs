//! The section `[auth]` of the configuration.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use crate::pattern::Pattern;

/// Who may do what on the front. While there are no keys, tokens are not looked at.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Whose tokens are accepted. With several, a token has to name its key (`kid`).
    pub keys: Vec<Key>,
    /// The audience that a token has to name (`aud`). Where this is not set, a token must name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The cookie in which a token may come. Default `ccomet_token`; empty: none.
    pub cookie: String,
    /// How far a token's beginning (`nbf`) may be ahead of this server's clock, in seconds. Default 60.
    pub leeway_s: u64,
    /// How long before its token ends a stream is told so, in seconds. Default 30.
    pub warning_s: u64,
    /// What who brings no token may do. Default: everything while there are no keys, nothing once there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<Anonymous>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            audience: None,
            cookie: "ccomet_token".to_owned(),
            leeway_s: 60,
            warning_s: 30,
            anonymous: None,
        }
    }
}

impl Auth {
    /// What who brings no token may do.
    pub(crate) fn of_anonymous(&self) -> Anonymous {
        match &self.anonymous {
            Some(anonymous) => anonymous.clone(),
            None if self.keys.is_empty() => {
                let all = || vec![Pattern::all()];
                Anonymous { subscribe: all(), publish: all(), presence: all() }
            }
            None => Anonymous::default(),
        }
    }

    /// Whether nobody can publish or subscribe without a token.
    pub(crate) fn is_closed(&self) -> bool {
        let anonymous = self.of_anonymous();
        !self.keys.is_empty() && anonymous.subscribe.is_empty() && anonymous.publish.is_empty()
    }
}

/// What who brings no token may do: names and patterns of channels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Anonymous {
    /// The channels that may be read.
    pub subscribe: Vec<Pattern>,
    /// The channels that may be published to.
    pub publish: Vec<Pattern>,
    /// The channels of which it may be known who is there.
    pub presence: Vec<Pattern>,
}

/// A key with which tokens are signed. It says by which algorithm; a token that says otherwise is refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What tokens call it (`kid`).
    pub id: String,
    /// How its tokens are signed.
    pub algorithm: Algorithm,
    /// HS256: the secret, at least 32 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// HS256: a file that holds the secret; an end of line behind it is not part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// `EdDSA`: the public key, as PEM, or its 32 bytes in Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// `EdDSA`: a file that holds the public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_file: Option<PathBuf>,
}

/// How tokens are signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256: who can verify can also sign.
    #[default]
    HS256,
    /// Ed25519: a private key signs, the public one verifies.
    EdDSA,
}

/// A secret, which is never shown: neither in messages nor where the configuration is written out.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(secret)")
    }
}
