//! Keys, from their description in the configuration.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use super::spki;
use crate::config::auth::{Algorithm, Key};
use crate::config::files;

/// An HMAC is as strong as its key: RFC 7518 requires at least as many bytes as the hash has.
pub(super) const SECRET_BYTES_MIN: usize = 32;
/// Shorter RSA keys are not secure (RFC 7518).
pub(super) const RSA_BITS_MIN: usize = 2_048;
const RSA_BITS_MAX: usize = 8_192;
/// No key file is larger; a larger file was named by mistake.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The limit of a key's id, which is sent with each of its tokens.
const ID_BYTES_MAX: usize = 128;

/// A fault of the keys. No message contains any part of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Two keys have the same id, or a key has no id.
    #[error(
        "auth.keys, auth.jwks_file: the id {0:?} does not have 1 to {ID_BYTES_MAX} bytes, or belongs to several keys"
    )]
    Id(String),
    /// The material of a key is missing, or is given more than once.
    #[error("auth.keys: key {id:?} needs {needs}, and nothing else")]
    Parts {
        /// The key.
        id: String,
        /// The required material.
        needs: &'static str,
    },
    /// A secret that is easily guessed.
    #[error("auth.keys: the secret of key {0:?} is shorter than {SECRET_BYTES_MIN} bytes")]
    Short(String),
    /// A key that is malformed.
    #[error("{what} is not {kind}")]
    NotAKey {
        /// The key, or its file.
        what: String,
        /// The kind of key that it should be.
        kind: &'static str,
    },
    /// A key set cannot be used.
    #[error("auth.jwks_file: {path}: {fault}")]
    KeySet {
        /// The file.
        path: PathBuf,
        /// The fault.
        fault: String,
    },
    /// The file of a key cannot be read.
    #[error("auth.keys: key {id:?}: cannot read {path}")]
    ReadKey {
        /// The key.
        id: String,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The key does not exist, or cannot sign.
    #[error("there is no key {0:?} in auth.keys")]
    Unknown(String),
    /// A private key is required, or must not be given.
    #[error(
        "a token of an EdDSA, RS256 or ES256 key needs its private key (--private-key FILE), and one of an HS256 key takes \
         none"
    )]
    PrivateKey,
    /// The token cannot be created.
    #[error("the token cannot be made: {0}")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// The material that verifies signatures.
pub(super) enum Material {
    Secret(Vec<u8>),
    /// The 32 bytes of the key.
    Ed25519(Vec<u8>),
    /// `RSAPublicKey`, as DER.
    Rsa(Vec<u8>),
    /// An uncompressed point.
    P256(Vec<u8>),
}

impl Material {
    /// Returns whether it has the length that its algorithm requires, and only its owner can sign.
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::Secret(secret) => secret.len() >= SECRET_BYTES_MIN,
            Self::Ed25519(key) => spki::is_strong_ed25519(key),
            Self::Rsa(key) => spki::rsa_bits(key).is_some_and(|bits| (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits)),
            Self::P256(point) => point.len() == spki::P256_BYTES,
        }
    }
}

impl Key {
    /// Reads the material of the key.
    pub(super) fn material(&self) -> Result<Material, AuthError> {
        if self.id.is_empty() || self.id.len() > ID_BYTES_MAX {
            return Err(AuthError::Id(self.id.clone()));
        }
        let read = |file: &Path| {
            read(file).map_err(|error| match error {
                AuthError::Read { path, source } => AuthError::ReadKey { id: self.id.clone(), path, source },
                other => other,
            })
        };
        let parts = |needs| AuthError::Parts { id: self.id.clone(), needs };
        match self.algorithm {
            Algorithm::HS256 => {
                let bytes = match (&self.secret, &self.secret_file, &self.public_key, &self.public_key_file) {
                    (Some(secret), None, None, None) => secret.as_bytes().to_vec(),
                    (None, Some(file), None, None) => without_line_end(read(file)?),
                    _ => return Err(parts("secret or secret_file")),
                };
                if bytes.len() < SECRET_BYTES_MIN {
                    return Err(AuthError::Short(self.id.clone()));
                }
                Ok(Material::Secret(bytes))
            }
            algorithm => {
                let bytes = match (&self.secret, &self.secret_file, &self.public_key, &self.public_key_file) {
                    (None, None, Some(key), None) => key.clone().into_bytes(),
                    (None, None, None, Some(file)) => read(file)?,
                    _ => return Err(parts("public_key or public_key_file")),
                };
                let wrong =
                    || AuthError::NotAKey { what: format!("auth.keys: {:?}", self.id), kind: kind_of(algorithm) };
                public_key(algorithm, &bytes).filter(Material::is_valid).ok_or_else(wrong)
            }
        }
    }
}

/// Returns the kind of public key that an algorithm needs.
fn kind_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "an RSA key of 2,048 to 8,192 bits in PEM (-----BEGIN PUBLIC KEY-----)",
        Algorithm::ES256 => "a key on the curve P-256 in PEM (-----BEGIN PUBLIC KEY-----)",
        Algorithm::EdDSA | Algorithm::HS256 => "an Ed25519 key",
    }
}

/// Reads a private key in PKCS#8 and PEM, as `openssl genpkey` writes it.
pub(super) fn private_key(file: &Path) -> Result<Vec<u8>, AuthError> {
    // A command reads it once: it may come from another program, by a pipe.
    let text =
        files::read_any(file, FILE_BYTES_MAX).map_err(|source| AuthError::Read { path: file.to_owned(), source })?;
    let der = pem(&text, "PRIVATE KEY");
    let kind = "a private key in PKCS#8 and PEM (-----BEGIN PRIVATE KEY-----)";
    der.ok_or_else(|| AuthError::NotAKey { what: file.display().to_string(), kind })
}

/// Returns a public key, from PEM or, for `EdDSA`, also from any usual kind of Base64.
fn public_key(algorithm: Algorithm, text: &[u8]) -> Option<Material> {
    let der = pem(text, "PUBLIC KEY");
    match (algorithm, der) {
        (Algorithm::RS256, Some(der)) => Some(Material::Rsa(spki::rsa(&der)?.to_vec())),
        (Algorithm::ES256, Some(der)) => Some(Material::P256(spki::p256(&der)?.to_vec())),
        (Algorithm::EdDSA, Some(der)) => Some(Material::Ed25519(spki::ed25519(&der)?.to_vec())),
        (Algorithm::EdDSA, None) => {
            let kinds: [&GeneralPurpose; 4] = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
            let text = text.trim_ascii();
            kinds.iter().find_map(|kind| kind.decode(text).ok()).map(Material::Ed25519)
        }
        _ => None,
    }
}

/// Returns the bytes between the first and the last line of a PEM text.
fn pem(text: &[u8], label: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (inside, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(inside.split_ascii_whitespace().collect::<String>()).ok()
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, AuthError> {
    files::read(path, FILE_BYTES_MAX).map_err(|source| AuthError::Read { path: path.to_owned(), source })
}

fn without_line_end(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    bytes
}
