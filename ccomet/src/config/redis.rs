//! The URL of Redis.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::auth::Secret;
use super::webhooks::{read, without_secrets};

/// The port of Redis, if the URL has none.
const PORT: u16 = 6_379;

/// The URL of Redis. Its user and its password are not shown, neither in messages nor in a printed
/// configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

/// The parts of a URL of Redis.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RedisPlace {
    pub(crate) address: RedisAddress,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    /// The number of the database.
    pub(crate) db: u32,
}

/// The address in a URL of Redis.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RedisAddress {
    /// A name or an IP address, without brackets. `is_secure` is set for TLS.
    Host { host: String, port: u16, is_secure: bool },
    /// The path of a Unix socket.
    Socket(PathBuf),
}

impl RedisUrl {
    /// Creates a URL from its text. [`Config::check`](crate::Config::check) checks it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the parts of the URL.
    ///
    /// # Errors
    /// What is wrong with the URL, as the predicate of a sentence about it.
    pub(crate) fn place(&self) -> Result<RedisPlace, &'static str> {
        let url = &*self.0;
        if url.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("has a character that has to be percent-encoded");
        }
        let (scheme, rest) = url.split_once("://").ok_or("has no scheme, such as redis://")?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (user, password) = user.map(credentials).transpose()?.unwrap_or_default();
        let (address, db) = match scheme {
            "redis" | "rediss" => host_and_db(host, path, scheme == "rediss")?,
            "unix" if !host.is_empty() => {
                return Err("has a path that is not absolute: write three slashes, unix:///PATH");
            }
            "unix" => socket_and_db(path)?,
            _ => return Err("has another scheme than redis://, rediss:// and unix://"),
        };
        Ok(RedisPlace { address, user, password, db })
    }

    /// Returns the URL for logs and errors.
    pub(crate) fn shown(&self) -> String {
        without_secrets(&self.0)
    }
}

impl RedisPlace {
    /// Returns the address for logs.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn shown(&self) -> String {
        match &self.address {
            RedisAddress::Host { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            RedisAddress::Host { host, port, .. } => format!("{host}:{port}"),
            RedisAddress::Socket(path) => path.display().to_string(),
        }
    }

    /// Returns whether the connection has TLS.
    pub(crate) fn is_secure(&self) -> bool {
        matches!(self.address, RedisAddress::Host { is_secure: true, .. })
    }
}

/// Reads the user and the password.
fn credentials(text: &str) -> Result<(Option<String>, Option<Secret>), &'static str> {
    let (user, password) = text.split_once(':').ok_or("has a user without a password: write USER:PASSWORD@")?;
    let decoded = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map(std::borrow::Cow::into_owned).map_err(|_| "has a user or password that is not UTF-8")
    };
    let (user, password) = (decoded(user)?, decoded(password)?);
    if password.is_empty() {
        return Err("has an empty password");
    }
    Ok(((!user.is_empty()).then_some(user), Some(Secret::new(password))))
}

fn host_and_db(authority: &str, path: &str, is_secure: bool) -> Result<(RedisAddress, u32), &'static str> {
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or("has a malformed port")?),
        None => (authority, PORT),
    };
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match in_brackets {
        Some(host) => host.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']', '?', '#', '%']),
    };
    if !is_host {
        return Err("has a malformed host");
    }
    let db = match path.trim_start_matches('/') {
        "" => 0,
        number => db(number)?,
    };
    let host = in_brackets.unwrap_or(host).to_owned();
    Ok((RedisAddress::Host { host, port, is_secure }, db))
}

fn socket_and_db(path: &str) -> Result<(RedisAddress, u32), &'static str> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let db = match query.split_once('=') {
        None if query.is_empty() => 0,
        Some(("db", number)) => db(number)?,
        _ => return Err("has a query other than ?db=NUMBER"),
    };
    let path = percent_decode_str(path).decode_utf8().map_err(|_| "has a path that is not UTF-8")?;
    if path.len() < 2 || path.contains('\0') {
        return Err("has no path of a Unix socket");
    }
    Ok((RedisAddress::Socket(path.into_owned().into()), db))
}

fn db(number: &str) -> Result<u32, &'static str> {
    number.parse().map_err(|_| "has a malformed number of the database")
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

impl<'de> Deserialize<'de> for RedisUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<RedisPlace, &'static str> {
        RedisUrl::new(url).place()
    }

    fn host(host: &str, port: u16, is_secure: bool) -> RedisAddress {
        RedisAddress::Host { host: host.to_owned(), port, is_secure }
    }

    #[test]
    fn a_url_names_the_address_the_user_and_the_database() {
        for (url, address, db) in [
            ("redis://127.0.0.1", host("127.0.0.1", 6_379, false), 0),
            ("redis://cache/", host("cache", 6_379, false), 0),
            ("redis://cache:7000/3", host("cache", 7_000, false), 3),
            ("rediss://[::1]", host("::1", 6_379, true), 0),
            ("rediss://[::1]:7000/1", host("::1", 7_000, true), 1),
            ("unix:///run/redis/redis.sock", RedisAddress::Socket("/run/redis/redis.sock".into()), 0),
            ("unix:///run/a%20b.sock?db=2", RedisAddress::Socket("/run/a b.sock".into()), 2),
        ] {
            assert_eq!(place(url), Ok(RedisPlace { address, user: None, password: None, db }), "{url}");
        }
        for (url, user, password) in [
            ("redis://ann:sesame@cache", Some("ann"), "sesame"),
            ("redis://:sesame@cache/1", None, "sesame"),
            ("redis://a%3An:ses%2Fa%40m%25e@cache", Some("a:n"), "ses/a@m%e"),
            ("redis://ann:a:b@cache", Some("ann"), "a:b"),
            ("unix://ann:sesame@/run/redis.sock", Some("ann"), "sesame"),
        ] {
            let found = place(url).expect(url);
            assert_eq!((found.user.as_deref(), found.password), (user, Some(Secret::new(password))), "{url}");
        }
    }

    #[test]
    fn a_malformed_url_is_an_error() {
        for url in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://:6379",
            "redis://cache:x",
            "redis://cache:0",
            "redis://cache:70000",
            "redis://::1",
            "redis://[::1",
            "redis://[cache]",
            "redis://cache/x",
            "redis://cache/1/2",
            "redis://cache/-1",
            "redis://cache?db=1",
            "redis://ann@cache",
            "redis://ann:@cache",
            "redis://ann:%ff@cache",
            "redis://a b",
            "unix://run/redis.sock",
            "unix://",
            "unix:///",
            "unix:///run/redis.sock?db=x",
            "unix:///run/redis.sock?a=1",
        ] {
            assert!(place(url).is_err(), "{url}: {:?}", place(url));
        }
    }

    #[test]
    fn user_and_password_are_not_shown() {
        for url in
            ["redis://ann:sesame@cache/1", "ann:sesame@cache", "redis://ann:ses/ame@cache", "redis://ann:ses@ame@cache"]
        {
            let url = RedisUrl::new(url);
            let shown = [url.shown(), format!("{url:?}"), toml::Value::try_from(&url).expect("a text").to_string()];
            assert!(shown.iter().all(|shown| !shown.contains("ses") && !shown.contains("ann")), "{shown:?}");
        }
        assert_eq!(RedisUrl::new("redis://ann:sesame@cache/1").shown(), "redis://(secret)@cache/1");
        assert!(toml::from_str::<toml::Table>("").is_ok());
    }
}
