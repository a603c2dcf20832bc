//! Readiness: the kernel's reports of sockets that can be read, written or accepted from.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{DatagramSocket, Listener, Stream};
use crate::net::Readiness;

/// Maximum number of events taken from the kernel in one wait. Further events come with the next
/// wait.
const EVENTS_MAX: usize = 128;

/// The kernel's readiness queue.
#[derive(Debug)]
pub(crate) struct Poller {
    poll: mio::Poll,
    events: mio::Events,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { poll: mio::Poll::new()?, events: mio::Events::with_capacity(EVENTS_MAX) })
    }

    /// Waits at most `timeout` (without limit if `None`) and appends the sources that became ready.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        ready.extend(self.events.iter().map(|event| Readiness {
            token: event.token().0,
            readable: event.is_readable(),
            writable: event.is_writable(),
            ended: event.is_read_closed(),
            failed: event.is_error(),
        }));
        Ok(())
    }

    pub(crate) fn waker(&self, token: usize) -> io::Result<Waker> {
        let waker = mio::Waker::new(self.poll.registry(), mio::Token(token))?;
        Ok(Waker(Arc::new(waker)))
    }

    /// Returns the registry of a loop. It is a file descriptor of its own, which its clones share.
    pub(crate) fn registry(&self) -> io::Result<Registry> {
        self.poll.registry().try_clone().map(|registry| Registry(Arc::new(registry)))
    }

    pub(crate) fn sources(&self) -> &mio::Registry {
        self.poll.registry()
    }
}

/// Registers sources in the queue. Clones, which may be on any thread, register in the same queue.
#[derive(Debug, Clone)]
pub(crate) struct Registry(pub(super) Arc<mio::Registry>);

impl Registry {
    pub(crate) fn add_listener(&self, listener: &mut Listener, token: usize) -> io::Result<()> {
        self.0.register(listener.source(), mio::Token(token), mio::Interest::READABLE)
    }

    pub(crate) fn remove_listener(&self, listener: &mut Listener) -> io::Result<()> {
        self.0.deregister(listener.source())
    }

    pub(crate) fn add_stream(&self, stream: &mut Stream, token: usize) -> io::Result<()> {
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        self.0.register(stream.source(), mio::Token(token), interest)
    }

    pub(crate) fn add_datagram(&self, socket: &mut DatagramSocket, token: usize) -> io::Result<()> {
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        self.0.register(socket.source(), mio::Token(token), interest)
    }

    pub(crate) fn move_stream(&self, stream: &mut Stream, token: usize) -> io::Result<()> {
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        self.0.reregister(stream.source(), mio::Token(token), interest)
    }
}

/// Wakes a poller from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Arc<mio::Waker>);

impl Waker {
    pub(crate) fn wake(&self) {
        // This fails only if the loop's file descriptors are closed, and then there is no loop to
        // wake.
        let _ = self.0.wake();
    }
}
