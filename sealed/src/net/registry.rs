//! The end of the readiness queue at which a service registers its sources. Each source is
//! registered once, edge-triggered; streams are registered for reading and writing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{DatagramSocket, Listener, Stream, system};
#[cfg(feature = "sim")]
use crate::sim;
use crate::token::{Registered, SERVICES_MAX};

/// Registers the sources of one service in the readiness queue of its loop.
#[derive(Debug)]
pub(crate) struct Registry {
    queue: Queue,
    /// The number of the service.
    service: usize,
    /// Number of services that the loop has had.
    services: Arc<AtomicUsize>,
}

#[derive(Debug, Clone)]
pub(crate) enum Queue {
    System(system::Registry),
    #[cfg(feature = "sim")]
    Simulated(sim::Poller),
}

impl Registry {
    /// Returns the registry of the first service of a loop.
    pub(crate) fn of_first(queue: Queue) -> Self {
        Self { queue, service: 0, services: Arc::new(AtomicUsize::new(1)) }
    }

    /// Returns the registry for another service of the same loop.
    pub(crate) fn for_another(&self) -> io::Result<Self> {
        let service = self.services.load(Ordering::Relaxed);
        if service >= SERVICES_MAX {
            return Err(io::Error::other("a loop has at most 256 services"));
        }
        self.services.store(service + 1, Ordering::Relaxed);
        Ok(Self { queue: self.queue.clone(), service, services: self.services.clone() })
    }

    pub(crate) fn service(&self) -> usize {
        self.service
    }

    /// Returns the registry for descriptors of the operating system. A simulated network has none.
    #[cfg_attr(not(unix), allow(dead_code))] // only a `Source` uses it
    #[cfg_attr(not(feature = "sim"), allow(clippy::unnecessary_wraps))]
    pub(crate) fn system(&self) -> io::Result<system::Registry> {
        match &self.queue {
            Queue::System(registry) => Ok(registry.clone()),
            #[cfg(feature = "sim")]
            Queue::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) fn add_listener(&self, listener: &mut Listener, index: usize) -> io::Result<()> {
        let token = Registered::Listener(index).token(self.service);
        match (&self.queue, listener) {
            (Queue::System(registry), Listener::System(listener)) => registry.add_listener(listener, token),
            #[cfg(feature = "sim")]
            (Queue::Simulated(poller), Listener::Simulated(listener)) => {
                poller.add_listener(listener, token);
                Ok(())
            }
            #[cfg(feature = "sim")]
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    pub(crate) fn remove_listener(&self, listener: &mut Listener) -> io::Result<()> {
        match (&self.queue, listener) {
            (Queue::System(registry), Listener::System(listener)) => registry.remove_listener(listener),
            #[cfg(feature = "sim")]
            _ => Ok(()),
        }
    }

    pub(crate) fn add_stream(&self, stream: &mut Stream, source: Registered) -> io::Result<()> {
        let token = source.token(self.service);
        match (&self.queue, stream) {
            (Queue::System(registry), Stream::System(stream)) => registry.add_stream(stream, token),
            #[cfg(feature = "sim")]
            (Queue::Simulated(poller), Stream::Simulated(stream)) => {
                poller.add_stream(stream, token);
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    pub(crate) fn add_datagram(&self, socket: &mut DatagramSocket, slot: usize) -> io::Result<()> {
        let token = Registered::Datagram(slot).token(self.service);
        match (&self.queue, socket) {
            (Queue::System(registry), DatagramSocket::System(socket)) => registry.add_datagram(socket, token),
            #[cfg(feature = "sim")]
            (Queue::Simulated(poller), DatagramSocket::Simulated(socket)) => {
                poller.add_datagram(socket, token);
                Ok(())
            }
            #[cfg(feature = "sim")]
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Changes the source that a registered stream belongs to; its readiness is reported again.
    pub(crate) fn move_stream(&self, stream: &mut Stream, source: Registered) -> io::Result<()> {
        let token = source.token(self.service);
        match (&self.queue, stream) {
            (Queue::System(registry), Stream::System(stream)) => registry.move_stream(stream, token),
            #[cfg(feature = "sim")]
            (Queue::Simulated(poller), Stream::Simulated(stream)) => {
                poller.add_stream(stream, token);
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}
