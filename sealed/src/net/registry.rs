//! The end of the readiness queue at which a service registers its sources. Each source is
//! registered once, edge-triggered; streams are registered for reading and writing.

use std::io;
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{DatagramSocket, Listener, Stream, system};
#[cfg(feature = "sim")]
use crate::sim;
#[cfg(unix)]
use crate::source::Interest;
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

    /// Returns the queue, for the guard of a source.
    #[cfg(unix)]
    pub(crate) fn queue(&self) -> Queue {
        self.queue.clone()
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

/// Descriptors of objects that the crate does not know. In a simulation they are those that a test
/// has made.
#[cfg(unix)]
impl Queue {
    pub(crate) fn add_descriptor(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        match self {
            Self::System(registry) => registry.add_descriptor(fd, token, interest),
            #[cfg(feature = "sim")]
            Self::Simulated(poller) => poller.add_descriptor(fd, token, interest),
        }
    }

    /// Changes the interest in a descriptor, or adds the descriptor if it is not registered.
    pub(crate) fn change_descriptor(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        match self {
            Self::System(registry) => registry.change_descriptor(fd, token, interest),
            #[cfg(feature = "sim")]
            Self::Simulated(poller) => poller.change_descriptor(fd, token, interest),
        }
    }

    pub(crate) fn remove_descriptor(&self, fd: BorrowedFd<'_>) {
        match self {
            Self::System(registry) => registry.remove_descriptor(fd),
            #[cfg(feature = "sim")]
            Self::Simulated(poller) => poller.remove_descriptor(fd),
        }
    }
}
