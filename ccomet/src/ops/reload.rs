//! Reloads of the settings, as the program around the server sees them.

use std::fmt;
use std::sync::Arc;

use crate::config::{Config, ConfigError};

/// A step of a reload.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Reload<'a> {
    /// The settings are being read.
    Begun,
    /// All loops use these settings. A setting whose change needs a restart has its earlier value.
    Applied(&'a Config),
    /// The settings have an error, which the log names. Nothing was changed.
    Refused,
}

/// A callback that runs on the thread of the first loop. It must not block.
#[derive(Clone)]
pub(crate) struct ReloadListener(pub(crate) Arc<dyn Fn(Reload<'_>) + Send + Sync>);

impl fmt::Debug for ReloadListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReloadListener(..)")
    }
}

/// A callback that reads the settings. It may block.
#[derive(Clone)]
pub(crate) struct SettingsSource(pub(crate) Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>);

impl fmt::Debug for SettingsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SettingsSource(..)")
    }
}
