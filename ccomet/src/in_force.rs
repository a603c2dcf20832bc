//! The settings in force, in the form in which loops use them. A reload replaces all of them
//! together.

use std::sync::{Arc, PoisonError, RwLock};

use crate::access::token::Verifier;
use crate::config::rules::Rules;
use crate::config::tls::TlsParts;
use crate::config::{Config, ConfigError};

/// The settings in force.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    pub(crate) config: Arc<Config>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) rules: Arc<Rules>,
    /// The certificates, for connections that are accepted from now on.
    pub(crate) tls: TlsParts,
}

impl InForce {
    /// Prepares a configuration. Reads the files of keys and certificates.
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let tls = TlsParts::read(&config)?;
        let verifier = Arc::new(Verifier::new(&config.auth)?);
        Ok(Self { rules: Arc::new(Rules::new(&config)), verifier, tls, config: Arc::new(config) })
    }
}

/// Keys that were fetched, together with those of the settings.
#[derive(Debug, Clone)]
pub(crate) struct Keys(pub(crate) Arc<Verifier>);

/// The settings in force, for handles: any thread may read them. Loops have copies of their own.
#[derive(Debug)]
pub(crate) struct SharedInForce(RwLock<InForce>);

impl SharedInForce {
    pub(crate) fn new(in_force: InForce) -> Self {
        Self(RwLock::new(in_force))
    }

    pub(crate) fn get(&self) -> InForce {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, in_force: InForce) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = in_force;
    }
}
