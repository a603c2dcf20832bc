//! The settings in force, in the form in which loops use them. A reload replaces all of them
//! together.

use std::sync::{Arc, PoisonError, RwLock};

use crate::access::token::{AuthError, Verifier};
use crate::config::Config;
use crate::config::rules::Rules;

/// The settings in force.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    pub(crate) config: Arc<Config>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) rules: Arc<Rules>,
}

impl InForce {
    /// Prepares a configuration. Reads the keys.
    pub(crate) fn new(config: Config) -> Result<Self, AuthError> {
        let verifier = Arc::new(Verifier::new(&config.auth)?);
        Ok(Self { rules: Arc::new(Rules::new(&config)), verifier, config: Arc::new(config) })
    }
}

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
