//! The section `[store]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::redis::{RedisPlace, RedisUrl};
use super::table::settings;

/// When the store puts publications on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// Before the publisher is answered. Nothing that was accepted is lost.
    Commit,
    /// At an interval, of about a second if little is published. If the machine loses power or its
    /// system fails, what was accepted within the last interval may be lost; nothing is lost if
    /// only the server ends.
    Interval,
    /// When the operating system chooses to, usually within half a minute. If the machine loses
    /// power or its system fails, what was accepted since then may be lost; nothing is lost if only
    /// the server ends.
    Never,
}

settings! {
    /// The store on disk, or in Redis. With a `path`, messages, their numbers, idempotency keys and
    /// positions survive a restart, and the history may be larger than the memory. With `redis`,
    /// several servers share them.
    pub struct Storage in [store] {
        /// Directory of the store, also set by `--data`. The server creates it if it does not
        /// exist; one server can use it at a time. Without a path, messages are in memory, and are
        /// lost when the server ends.
        path: Option<PathBuf> = none, applied_by = restart;
        /// URL of a Redis (or Valkey) from version 7.0 on, also set by `--redis`. All servers with
        /// the same Redis, database and `redis_prefix` have the same channels. It is
        /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, where the user, the password, the port
        /// (6379) and the number of the database (0) may be missing; `rediss://` for TLS; or
        /// `unix:///PATH?db=DATABASE`. Other characters than letters and digits in the user or the
        /// password are percent-encoded. It excludes `path`.
        #[serde(skip_serializing_if = "Option::is_none")]
        redis: Option<RedisUrl> = none, applied_by = restart;
        /// Beginning of the names of all keys in Redis: 1 to 64 letters, digits and `-_.:`. Servers
        /// with different prefixes have different channels.
        redis_prefix: String = "ccomet" => "ccomet".to_owned(), applied_by = restart;
        /// File with the certificates, in PEM, of the authorities that the certificate of a Redis
        /// with `rediss://` may be from. Without it, they are those of the system.
        #[serde(skip_serializing_if = "Option::is_none")]
        redis_ca: Option<PathBuf> = none, applied_by = restart;
        /// When publications are put on the disk: before the publisher is answered (`commit`), at
        /// an interval (`interval`), or when the operating system chooses to (`never`). With
        /// `interval` and `never`, a power cut may lose what was accepted shortly before; nothing
        /// is lost if only the server ends.
        sync: SyncMode = "commit" => SyncMode::Commit, applied_by = restart;
        /// The interval of `sync = "interval"`. If little is published, it is about a second.
        sync_interval_ms: u64 = 100 ms, [1..=60_000 ms], applied_by = restart;
        /// Bytes of the message log, beyond which the oldest messages are dropped, whichever client
        /// published them. The disk needs room for two more segments and twice `checkpoint_bytes`,
        /// and for the index: about 16 bytes for each message and 200 for each channel.
        bytes_max: u64 = 10 GiB, [16 MiB..], applied_by = restart;
        /// Bytes of publications that wait for the disk. Beyond it, publications are refused until
        /// the disk has written some of them.
        waiting_bytes_max: usize = 32 MiB, [64 KiB..], answers = "unavailable", applied_by = restart;
        /// Newest messages of each channel in use that the server holds in memory, as far as
        /// `history.total_bytes_max` allows. Older ones are read from the disk, or from Redis.
        window_messages_max: usize = 1_000, [1..=1_048_576], applied_by = restart;
        /// Bytes by which the message log grows before the index is updated (a checkpoint). The
        /// index is also updated once a minute if anything was published. A start reads what was
        /// written since the last checkpoint.
        checkpoint_bytes: u64 = 64 MiB, [1 MiB..=4 GiB], applied_by = restart;
        /// Bytes of one segment, a file of the message log.
        segment_bytes: u32 = 64 MiB, [1 MiB..=1 GiB], applied_by = restart;
        /// Bytes of the index that are cached in memory.
        index_cache_bytes: usize = 32 MiB, [1 MiB..], applied_by = restart;
    }
}

/// The maximum length of `redis_prefix`.
const PREFIX_BYTES_MAX: usize = 64;

impl Storage {
    /// Checks the settings of the store in Redis.
    pub(super) fn check_redis(&self) -> Result<(), ConfigError> {
        if let Some(url) = &self.redis {
            if self.path.is_some() {
                return Err(ConfigError::TwoStores);
            }
            url.place().map_err(|fault| ConfigError::RedisUrl { url: url.shown(), fault })?;
        }
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let prefix = &self.redis_prefix;
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(is_letter) {
            return Err(ConfigError::RedisPrefix(prefix.clone()));
        }
        Ok(())
    }

    /// Checks that the program has the store.
    pub(crate) fn check_features(&self) -> Result<(), ConfigError> {
        if self.path.is_some() && cfg!(not(feature = "disk")) {
            return Err(ConfigError::NoDisk);
        }
        if self.redis.is_some() && cfg!(not(feature = "redis")) {
            return Err(ConfigError::NoRedis);
        }
        Ok(())
    }

    /// Returns the parts of the URL of Redis.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn redis_place(&self) -> Option<RedisPlace> {
        self.redis.as_ref()?.place().ok()
    }
}
