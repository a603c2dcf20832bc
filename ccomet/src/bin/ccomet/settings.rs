//! The settings of the server: from the file, the environment and the options.

use std::error::Error;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ccomet::{Config, ConfigError, Layers};
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};

/// The options of the server, which replace settings of the file. Each subcommand has those that it
/// uses.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Settings, as TOML. `ccomet config --reference` describes all of them, and `ccomet
    /// gen-config` prints a file to begin with [environment: `CCOMET_CONFIG`]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the public listener, for publishing, subscribing and the chat demo, such as
    /// localhost:8100 [default: 127.0.0.1:8100]
    #[arg(long, value_name = "ADDR")]
    front: Option<String>,
    /// Address of the private listener, which can also list, inspect, clear and close channels
    /// [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Directory in which messages are kept over restarts; created if it does not exist [default:
    /// none, messages are in memory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Redis that keeps the messages, for all servers that use it, such as `redis://127.0.0.1`.
    /// Other users of the machine can see a password here, but not in the environment:
    /// `CCOMET_STORE_REDIS` [default: none]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Event loops, each with a thread [default: one for each core]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    loops: Option<String>,
    /// How much to log: error, warn, info, debug, trace, or by module, such as `info,sealed=debug`
    /// [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Starts even if the front is open to every client: not on loopback, and without a list of
    /// networks or tokens in the settings
    #[arg(long)]
    open_front: bool,
}

impl Options {
    /// Returns the first of these options that is given.
    pub(crate) fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--config", self.config.is_some()),
            ("--front", self.front.is_some()),
            ("--admin", self.admin.is_some()),
            ("--data", self.data.is_some()),
            ("--redis", self.redis.is_some()),
            ("--loops", self.loops.is_some()),
            ("--log", self.log.is_some()),
            ("--open-front", self.open_front),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }

    /// Returns the options with those of a subcommand, which take precedence.
    pub(crate) fn with(&self, inner: &Self) -> Self {
        let either = |inner: &Option<String>, outer: &Option<String>| inner.clone().or_else(|| outer.clone());
        Self {
            front: either(&inner.front, &self.front),
            admin: either(&inner.admin, &self.admin),
            redis: either(&inner.redis, &self.redis),
            loops: either(&inner.loops, &self.loops),
            log: either(&inner.log, &self.log),
            open_front: inner.open_front || self.open_front,
            ..self.with_files(inner.config.as_ref(), inner.data.as_ref())
        }
    }

    /// Returns the options with the paths of a subcommand, which take precedence.
    pub(crate) fn with_files(&self, config: Option<&PathBuf>, data: Option<&PathBuf>) -> Self {
        let (config, data) = (config.or(self.config.as_ref()).cloned(), data.or(self.data.as_ref()).cloned());
        Self { config, data, ..self.clone() }
    }

    /// Returns the file of settings, if there is one.
    fn file(&self, variables: &[(OsString, OsString)]) -> Option<PathBuf> {
        let variable = variables.iter().find(|(name, value)| name == "CCOMET_CONFIG" && !value.is_empty());
        self.config.clone().or_else(|| variable.map(|(_, value)| value.into()))
    }

    /// Collects the settings of the file, of the environment and of the options, in this order.
    fn layers(&self, variables: Vec<(OsString, OsString)>) -> Result<Layers, ConfigError> {
        let mut layers = Layers::new();
        if let Some(path) = self.file(&variables) {
            layers.read_file(&path)?;
        }
        layers.read_environment(variables)?;
        let data = self.data.as_ref().map(|path| path.to_string_lossy().into_owned());
        for (flag, setting, value) in [
            ("--front", "front.listen", &self.front),
            ("--admin", "admin.listen", &self.admin),
            ("--loops", "loops", &self.loops),
            ("--log", "log.level", &self.log),
            ("--data", "store.path", &data),
            ("--redis", "store.redis", &self.redis),
            ("--open-front", "front.open", &self.open_front.then(|| "true".to_owned())),
        ] {
            if let Some(value) = value {
                layers.set(flag, setting, value)?;
            }
        }
        Ok(layers)
    }
}

/// Returns the settings, which have been checked.
pub(crate) fn settings(options: &Options) -> Result<Config, ConfigError> {
    options.layers(std::env::vars_os().collect())?.checked()
}

/// Returns the settings for a reload, which have been checked. A pipe, from which a start may read
/// its settings, would not have them again, and could hold up this reload and all later ones. An
/// empty file is probably about to be written: its defaults would need no tokens, for example.
pub(crate) fn settings_again(options: &Options) -> Result<Config, ConfigError> {
    if let Some(path) = options.file(&std::env::vars_os().collect::<Vec<_>>()) {
        let refused = |source| ConfigError::Read { path: path.display().to_string(), source };
        let metadata = std::fs::metadata(&path).map_err(refused)?;
        if !metadata.is_file() && !metadata.is_dir() {
            let message = "it is a pipe or a device, and a reload needs a regular file";
            return Err(refused(std::io::Error::new(std::io::ErrorKind::InvalidInput, message)));
        }
        if metadata.is_file() && metadata.len() == 0 {
            let message =
                "it is empty, and may be about to be written; for defaults alone, write a comment (#) into it";
            return Err(refused(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, message)));
        }
    }
    settings(options)
}

/// Returns a report on the settings, which have been checked.
pub(crate) fn report(options: &Options) -> Result<String, ConfigError> {
    let layers = options.layers(std::env::vars_os().collect())?;
    layers.checked()?;
    layers.report()
}

/// Returns the text of a file of settings with fresh secrets.
pub(crate) fn template() -> Result<String, Box<dyn Error>> {
    let secret = || {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random bits for the secrets")?;
        Ok::<_, &str>(URL_SAFE_NO_PAD.encode(bytes))
    };
    Ok(Config::template(&secret()?, &secret()?))
}

/// Writes a file of settings with fresh secrets, which only its user can read. There must not be
/// such a file.
pub(crate) fn write_template(path: &Path) -> Result<(), Box<dyn Error>> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            format!("{} exists, and is not overwritten: remove it, or name another file", path.display())
        }
        _ => format!("cannot write {}: {error}", path.display()),
    };
    let text = template()?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failed)?;
    Ok(file.write_all(text.as_bytes()).map_err(failed)?)
}
