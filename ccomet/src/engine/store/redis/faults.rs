//! What the log says of the links of a server: each fault once, whichever of its loops notices it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of all links of a server. Clones have the same state.
#[derive(Debug, Clone)]
pub(crate) struct LinkLog(Arc<Mutex<Vec<LinkState>>>);

/// The state of a link, as the log knows it.
#[derive(Debug, Clone, Default)]
struct LinkState {
    is_up: bool,
    /// The fault that prevents a connection.
    fault: Option<Box<str>>,
}

impl LinkLog {
    /// Creates the state of the links of that many loops.
    pub(crate) fn new(loops: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![LinkState::default(); loops])))
    }

    /// Returns whether all links have connections.
    pub(super) fn are_all_up(&self) -> bool {
        self.lock().iter().all(|link| link.is_up)
    }

    /// Notes that a link has a connection. Logs the end of a fault, and the first connection.
    pub(super) fn up(&self, index: usize, shown: &str, version: &str) {
        let mut links = self.lock();
        let is_first = links.iter().all(|link| !link.is_up);
        let was_faulty = links.iter().any(|link| link.fault.is_some());
        if let Some(link) = links.get_mut(index) {
            *link = LinkState { is_up: true, fault: None };
        }
        let is_faulty = links.iter().any(|link| link.fault.is_some());
        if is_first || was_faulty && !is_faulty {
            tracing::info!(version, "connected to Redis at {shown}");
        }
    }

    /// Notes that a link has no connection, and why. Logs the fault, unless it is known.
    pub(super) fn fault(&self, index: usize, fault: &str) {
        let mut links = self.lock();
        let is_known = links.iter().any(|link| link.fault.as_deref() == Some(fault));
        if let Some(link) = links.get_mut(index) {
            *link = LinkState { is_up: false, fault: Some(fault.into()) };
        }
        if !is_known {
            tracing::error!("{fault}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LinkState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl LinkLog {
        /// Returns the fault of a link.
        pub(in super::super) fn fault_of(&self, index: usize) -> Option<Box<str>> {
            self.lock().get(index).and_then(|link| link.fault.clone())
        }
    }
}
