//! The certificates of the listeners.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[cfg(feature = "tls")]
use super::files;
#[cfg(feature = "tls")]
use super::redis::{RedisAddress, RedisPlace};
use super::{Config, ConfigError};

/// No certificate file is larger; a larger file was named by mistake.
#[cfg(feature = "tls")]
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The certificate of a listener, and its key, as files in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate, followed by the other certificates of its chain.
    pub cert: PathBuf,
    /// The private key of the certificate, without a passphrase.
    pub key: PathBuf,
}

/// What a listener needs to speak TLS, made of its files.
#[cfg(feature = "tls")]
pub(crate) type TlsConfig = Arc<sealed::tls::rustls::ServerConfig>;
/// What a client needs to speak TLS.
#[cfg(feature = "tls")]
pub(crate) type TlsConnector = sealed::tls::Connector;
/// Without the feature `tls`, there is none.
#[cfg(not(feature = "tls"))]
pub(crate) type TlsConfig = Arc<std::convert::Infallible>;
#[cfg(not(feature = "tls"))]
pub(crate) type TlsConnector = std::convert::Infallible;

/// The TLS of both listeners, and of the clients that fetch key sets and use Redis.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsParts {
    pub(crate) front: Option<TlsConfig>,
    pub(crate) admin: Option<TlsConfig>,
    pub(crate) key_set: Option<TlsConnector>,
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) redis: Option<TlsConnector>,
}

impl TlsParts {
    /// Reads the files of both listeners, and the root certificates of the system if they are
    /// needed.
    pub(crate) fn read(config: &Config) -> Result<Self, ConfigError> {
        let read = |name, tls: &Option<Tls>| tls.as_ref().map(|tls| read(name, tls)).transpose();
        let of_key_set = || connector("auth.jwks_url", None);
        let key_set = config.auth.has_secure_key_set().then(of_key_set).transpose()?;
        let of_redis = || connector("store.redis", config.store.redis_ca.as_deref());
        let is_secure = config.store.redis_place().is_some_and(|place| place.is_secure());
        let redis = is_secure.then(of_redis).transpose()?;
        #[cfg(feature = "tls")]
        check_redis_name(config)?;
        let [front, admin] = [read("front.tls", &config.front.tls)?, read("admin.tls", &config.admin.tls)?];
        Ok(Self { front, admin, key_set, redis })
    }
}

/// Checks that the host of Redis can be the name of a certificate.
#[cfg(feature = "tls")]
fn check_redis_name(config: &Config) -> Result<(), ConfigError> {
    let place = config.store.redis_place().zip(config.store.redis.as_ref());
    if let Some((RedisPlace { address: RedisAddress::Host { host, is_secure: true, .. }, .. }, url)) = place
        && sealed::tls::ServerName::try_from(host).is_err()
    {
        return Err(ConfigError::RedisUrl { url: url.shown(), fault: "has a host that no certificate can name" });
    }
    Ok(())
}

#[cfg(not(feature = "tls"))]
fn connector(_: &'static str, _: Option<&Path>) -> Result<TlsConnector, ConfigError> {
    Err(ConfigError::NoTls)
}

/// Returns a connector that trusts the certificates in a file, or the root certificates of the
/// system, for the server of a setting.
#[cfg(feature = "tls")]
fn connector(setting: &'static str, file: Option<&Path>) -> Result<TlsConnector, ConfigError> {
    use sealed::tls::rustls::{ClientConfig, RootCertStore, crypto};

    if let Some(path) = file {
        let name = format!("{setting}_ca");
        let pem = read_file(&name, path)?;
        let wrong = |fault: String| ConfigError::Tls { setting: name, path: path.display().to_string(), fault };
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(wrong("it has no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned()));
        }
        return TlsConnector::trusting_pem(&pem).map_err(|error| wrong(format!("it cannot be used: {error}")));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    let no_roots = |fault: String| ConfigError::NoRoots { setting, fault };
    if roots.is_empty() {
        return Err(no_roots(found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string)));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| no_roots(error.to_string()))?;
    Ok(TlsConnector::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(not(feature = "tls"))]
fn read(_: &'static str, _: &Tls) -> Result<TlsConfig, ConfigError> {
    Err(ConfigError::NoTls)
}

#[cfg(feature = "tls")]
fn read(name: &'static str, Tls { cert, key }: &Tls) -> Result<TlsConfig, ConfigError> {
    use sealed::tls::rustls::{Error as Rustls, InconsistentKeys};
    use sealed::tls::{self, Error};

    let (cert_pem, key_pem) = (read_file(&format!("{name}.cert"), cert)?, read_file(&format!("{name}.key"), key)?);
    let wrong = |part: &str, path: &Path, fault: String| ConfigError::Tls {
        setting: format!("{name}.{part}"),
        path: path.display().to_string(),
        fault,
    };
    let text_of = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
    let (cert_text, key_text) = (text_of(&cert_pem), text_of(&key_pem));
    if !cert_text.contains("-----BEGIN CERTIFICATE-----") {
        let swapped =
            if cert_text.contains("PRIVATE KEY-----") { ", but a private key, which belongs in `key`" } else { "" };
        return Err(wrong(
            "cert",
            cert,
            format!("it has no certificate in PEM (-----BEGIN CERTIFICATE-----){swapped}"),
        ));
    }
    if key_text.contains("ENCRYPTED") {
        let remedy = "the key has a passphrase, which the server cannot know; `openssl pkey` writes it without one";
        return Err(wrong("key", key, remedy.to_owned()));
    }
    if !key_text.contains("PRIVATE KEY-----") {
        return Err(wrong("key", key, "it has no private key in PEM (-----BEGIN PRIVATE KEY-----)".to_owned()));
    }
    let mut config = tls::server_config(&cert_pem, &key_pem).map_err(|error| match error {
        Error::Rustls(Rustls::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            wrong("key", key, format!("the key does not belong to the first certificate in {}", cert.display()))
        }
        Error::Rustls(Rustls::InvalidCertificate(why)) => {
            wrong("cert", cert, format!("the first certificate cannot be used: {why}"))
        }
        Error::Rustls(why) => wrong("key", key, format!("the key cannot be used: {why}")),
        Error::Pem(why) => wrong("cert", cert, format!("this file or {} is damaged: {why}", key.display())),
        why => wrong("cert", cert, why.to_string()),
    })?;
    // The server has no HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(feature = "tls")]
fn read_file(setting: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed =
        |source| ConfigError::ReadFor { setting: setting.to_owned(), path: path.display().to_string(), source };
    files::read(path, FILE_BYTES_MAX).map_err(failed)
}
