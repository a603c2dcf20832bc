//! Keys, from their description in the configuration.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::config::auth::{Algorithm, Key};

/// An HMAC is as strong as its key: RFC 7518 requires at least as many bytes as the hash has.
pub(super) const SECRET_BYTES_MIN: usize = 32;
const PUBLIC_KEY_BYTES: usize = 32;
/// The DER prefix of the 32 bytes of an Ed25519 public key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// No key file is larger; a larger file was named by mistake.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The limit of a key's id, which is sent with each of its tokens.
const ID_BYTES_MAX: usize = 128;

/// A fault of the keys. No message contains any part of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Two keys have the same id, or a key has no id.
    #[error("auth.keys: the id {0:?} does not have 1 to {ID_BYTES_MAX} bytes, or belongs to several keys")]
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
    #[error("{0} is not an Ed25519 key")]
    NotAKey(String),
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
    #[error("a token of an EdDSA key needs its private key (--private-key FILE), and one of an HS256 key takes none")]
    PrivateKey,
    /// The token cannot be created.
    #[error("the token cannot be made: {0}")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// The material that verifies signatures.
pub(super) enum Material {
    Secret(Vec<u8>),
    Public(Vec<u8>),
}

impl Key {
    /// Reads the material of the key.
    pub(super) fn material(&self) -> Result<Material, AuthError> {
        if self.id.is_empty() || self.id.len() > ID_BYTES_MAX {
            return Err(AuthError::Id(self.id.clone()));
        }
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
            Algorithm::EdDSA => {
                let bytes = match (&self.secret, &self.secret_file, &self.public_key, &self.public_key_file) {
                    (None, None, Some(key), None) => key.clone().into_bytes(),
                    (None, None, None, Some(file)) => read(file)?,
                    _ => return Err(parts("public_key or public_key_file")),
                };
                let key = public_key(&bytes).ok_or_else(|| AuthError::NotAKey(format!("auth.keys: {:?}", self.id)))?;
                Ok(Material::Public(key))
            }
        }
    }
}

/// Reads a private key in PKCS#8 and PEM, as `openssl genpkey -algorithm ed25519` writes it.
pub(super) fn private_key(file: &Path) -> Result<Vec<u8>, AuthError> {
    let der = pem(&read(file)?, "PRIVATE KEY");
    der.ok_or_else(|| AuthError::NotAKey(file.display().to_string()))
}

/// Returns the 32 bytes of a public key, from PEM or from any usual kind of Base64.
fn public_key(text: &[u8]) -> Option<Vec<u8>> {
    if let Some(der) = pem(text, "PUBLIC KEY") {
        return der.strip_prefix(&SPKI_PREFIX).filter(|key| key.len() == PUBLIC_KEY_BYTES).map(<[u8]>::to_vec);
    }
    let kinds: [&GeneralPurpose; 4] = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    let text = text.trim_ascii();
    kinds.iter().find_map(|kind| kind.decode(text).ok()).filter(|key| key.len() == PUBLIC_KEY_BYTES)
}

/// Returns the bytes between the first and the last line of a PEM text.
fn pem(text: &[u8], label: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (inside, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(inside.split_ascii_whitespace().collect::<String>()).ok()
}

fn read(path: &Path) -> Result<Vec<u8>, AuthError> {
    let failed = |source| AuthError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    std::fs::read(path).map_err(failed)
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
