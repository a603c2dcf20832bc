//! Adds services to a loop that runs.

use std::sync::Arc;

use super::{Base, Context};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event_loop::Hosted;
use crate::mailbox::Inlet;
use crate::service::Service;

/// Services beside this one.
impl<S: Service> Context<S> {
    /// Adds another service to this loop, beside this one, and returns the context of the new
    /// service: to listen, to connect, and to get the mailbox through which others post to it. Its
    /// calls begin with [`started`](Service::started), before the loop waits again.
    ///
    /// The new service has limits of its own, those of `config`, except that services share the
    /// read buffer ([`Config::read_buffer_bytes`]) and the drain limit ([`Config::drain_limit`]) of
    /// the first service of the loop. Signals and [tick counters](crate::Watch) belong to the first
    /// service alone. A service stays as long as its loop.
    ///
    /// The service has to be `Send` because a loop may be moved to another thread before it runs.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Create`] if the loop has 256 services.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)] // the type is that of the service
    pub fn add_service<T>(&mut self, config: Config, service: T) -> Result<&mut Context<T>>
    where
        T: Service<Connection: Send, Timer: Send> + Send,
    {
        let base = Base {
            network: self.network.clone(),
            clock: self.clock.clone(),
            registry: self.registry.for_another().map_err(Error::Create)?,
            stopper: self.stopper.clone(),
        };
        let inlet = Inlet::new(self.inlet.waker().clone(), config.mailbox_messages_max);
        let mut cx = Context::new(config, base, inlet, Arc::default());
        // The drain limit already applies, although the service has yet to begin.
        cx.draining_until = self.draining_until.filter(|_| !fault!("late-service-connects-past-limit"));
        let hosted = Hosted::new(cx, service);
        self.added.push(Box::new(hosted));
        let last = self.added.last_mut().and_then(|added| added.as_any_mut().downcast_mut::<Hosted<T>>());
        Ok(&mut last.expect("the service that was pushed").cx)
    }
}
