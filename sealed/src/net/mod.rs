//! The seam below the event loop: every socket, clock, thread wake-up and random number that the
//! crate uses.
//!
//! No code outside this module and `sim/` knows the implementation. A [`Network`] creates all of
//! these objects: those of the operating system, or, with the feature `sim`, simulated ones. Each
//! type here is one of the two. Without the feature there is only one, and nothing is dispatched at
//! run time.

mod datagram;
mod registry;
pub(crate) mod system;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use self::datagram::{DatagramSocket, Refusal};
pub(crate) use self::registry::{Queue, Registry};
use crate::address::Address;
#[cfg(feature = "sim")]
use crate::sim;
use crate::socket::{ListeningSocket, Socket, SocketOptions};
use crate::token::Registered;

/// The readiness of one source, as of one wait.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // independent facts, any of which may hold
pub(crate) struct Readiness {
    pub(crate) token: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer sends no more bytes: reading ends with zero bytes or an error.
    pub(crate) ended: bool,
    /// The socket holds an error, which the next read or write returns.
    pub(crate) failed: bool,
}

/// The source of sockets, clocks and pollers.
#[derive(Debug, Clone, Default)]
pub(crate) enum Network {
    #[default]
    System,
    /// A simulated network, and the host on it that connections come from.
    #[cfg(feature = "sim")]
    Simulated(sim::Handle, std::net::IpAddr),
}

impl Network {
    pub(crate) fn poller(&self) -> io::Result<Poller> {
        match self {
            Self::System => system::Poller::new().map(Poller::System),
            #[cfg(feature = "sim")]
            Self::Simulated(handle, _) => Ok(Poller::Simulated(handle.poller())),
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        match self {
            Self::System => Clock::System(system::Clock::start()),
            #[cfg(feature = "sim")]
            Self::Simulated(handle, _) => Clock::Simulated(handle.clone()),
        }
    }

    /// Returns 64 random bits.
    pub(crate) fn entropy(&self) -> u64 {
        match self {
            Self::System => system::entropy(),
            #[cfg(feature = "sim")]
            Self::Simulated(handle, _) => handle.entropy(),
        }
    }

    /// Returns 128 unpredictable random bits, if they are available.
    pub(crate) fn secret(&self) -> Option<[u8; 16]> {
        match self {
            Self::System => system::secret(),
            #[cfg(feature = "sim")]
            Self::Simulated(handle, _) => {
                Some((u128::from(handle.entropy()) << 64 | u128::from(handle.entropy())).to_be_bytes())
            }
        }
    }

    /// Starts to connect; the socket becomes writable when the outcome is known.
    pub(crate) fn connect(&self, address: &Address, options: &SocketOptions) -> io::Result<Stream> {
        match self {
            Self::System => system::Stream::connect(address, options).map(Stream::System),
            #[cfg(feature = "sim")]
            Self::Simulated(handle, host) => handle.connect(*host, address, options.silence_max).map(Stream::Simulated),
        }
    }

    /// Binds and listens.
    pub(crate) fn bind(
        &self,
        address: &Address,
        reuse_port: bool,
        backlog: i32,
        options: &SocketOptions,
    ) -> io::Result<Listener> {
        match self {
            Self::System => system::Listener::bind(address, reuse_port, backlog, options).map(Listener::System),
            #[cfg(feature = "sim")]
            Self::Simulated(handle, _) => handle.bind(address, reuse_port, backlog, options).map(Listener::Simulated),
        }
    }

    /// Takes over a connection of the operating system.
    pub(crate) fn adopt(&self, socket: Socket, options: &SocketOptions) -> io::Result<Stream> {
        match self {
            Self::System => system::Stream::adopt(socket, options).map(Stream::System),
            #[cfg(feature = "sim")]
            Self::Simulated(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes over a listener of the operating system.
    pub(crate) fn adopt_listener(&self, socket: ListeningSocket, options: &SocketOptions) -> io::Result<Listener> {
        match self {
            Self::System => system::Listener::adopt(socket, options).map(Listener::System),
            #[cfg(feature = "sim")]
            Self::Simulated(..) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Checks, before a port is shared, that no other process uses it: with a shared port, a second
    /// server could start on the same port without an error. Returns the address; if its port was
    /// 0, with the port that was chosen.
    pub(crate) fn reserve_port(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        match self {
            Self::System => system::reserve_port(address),
            #[cfg(feature = "sim")]
            Self::Simulated(handle, _) => handle.reserve_port(address),
        }
    }
}

/// A monotonic clock and a calendar clock.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    System(system::Clock),
    #[cfg(feature = "sim")]
    Simulated(sim::Handle),
}

impl Clock {
    /// Returns the time since the start; never goes back.
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::System(clock) => clock.now(),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => handle.now(),
        }
    }

    /// Runs between two steps of a tick: a simulated network may let time pass here, as if the
    /// previous step had taken it.
    #[inline]
    #[allow(clippy::unused_self)] // real time passes by itself
    pub(crate) fn pass(&self) {
        #[cfg(feature = "sim")]
        if let Self::Simulated(handle) = self {
            handle.pass();
        }
    }

    /// Adds a remark to the trace of a simulated network.
    #[inline]
    #[allow(clippy::unused_self)] // the operating system has no trace
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        #[cfg(feature = "sim")]
        if let Self::Simulated(handle) = self {
            handle.note(text());
        }
        #[cfg(not(feature = "sim"))]
        drop(text);
    }

    /// Returns the time since 1970 by the calendar clock, which may be set back.
    pub(crate) fn unix_time(&self) -> Duration {
        match self {
            Self::System(clock) => clock.unix_time(),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => handle.unix_time(),
        }
    }
}

/// The readiness queue of a loop.
#[derive(Debug)]
pub(crate) enum Poller {
    System(system::Poller),
    #[cfg(feature = "sim")]
    Simulated(sim::Poller),
}

impl Poller {
    /// Waits at most `timeout` (without limit if `None`) and appends the sources that became ready.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> io::Result<()> {
        match self {
            Self::System(poller) => poller.wait(timeout, ready),
            // A simulation runs a loop only when it has work, so this never waits.
            #[cfg(feature = "sim")]
            Self::Simulated(poller) => {
                poller.take(ready);
                Ok(())
            }
        }
    }

    pub(crate) fn waker(&self) -> io::Result<Waker> {
        let token = Registered::Waker.token(0);
        match self {
            Self::System(poller) => poller.waker(token).map(Waker::System),
            #[cfg(feature = "sim")]
            Self::Simulated(poller) => Ok(Waker::Simulated(poller.waker(token))),
        }
    }

    /// Returns the registry of the loop's first service.
    pub(crate) fn registry(&self) -> io::Result<Registry> {
        Ok(Registry::of_first(match self {
            Self::System(poller) => Queue::System(poller.registry()?),
            #[cfg(feature = "sim")]
            Self::Simulated(poller) => Queue::Simulated(poller.clone()),
        }))
    }

    /// Returns the registry and the token for pipes that announce signals.
    #[cfg_attr(not(feature = "sim"), allow(clippy::unnecessary_wraps))] // a simulated poller has none
    pub(crate) fn signals(&self) -> io::Result<(&mio::Registry, usize)> {
        match self {
            Self::System(poller) => Ok((poller.sources(), Registered::Signals.token(0))),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Wakes a poller from any thread.
#[derive(Debug, Clone)]
pub(crate) enum Waker {
    System(system::Waker),
    #[cfg(feature = "sim")]
    Simulated(sim::Waker),
}

impl Waker {
    pub(crate) fn wake(&self) {
        match self {
            Self::System(waker) => waker.wake(),
            #[cfg(feature = "sim")]
            Self::Simulated(waker) => waker.wake(),
        }
    }

    /// Runs between two steps that another thread may observe separately: a simulated network lets
    /// other loops run here.
    #[inline]
    #[allow(clippy::unused_self)] // real threads interleave anywhere
    pub(crate) fn interleave(&self) {
        #[cfg(feature = "sim")]
        if let Self::Simulated(waker) = self {
            waker.interleave();
        }
    }
}

/// A non-blocking connection.
#[derive(Debug, Default)]
pub(crate) enum Stream {
    /// No socket yet: the connection is still being made.
    #[default]
    Unconnected,
    System(system::Stream),
    #[cfg(feature = "sim")]
    Simulated(sim::Stream),
}

impl Stream {
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unconnected => Err(io::ErrorKind::NotConnected.into()),
            Self::System(stream) => stream.read(buffer),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => stream.read(buffer),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unconnected => Err(io::ErrorKind::NotConnected.into()),
            Self::System(stream) => stream.write(bytes),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => stream.write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unconnected => Err(io::ErrorKind::NotConnected.into()),
            Self::System(stream) => stream.write_vectored(slices),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => stream.write_vectored(slices),
        }
    }

    pub(crate) fn shut_down_writing(&mut self) -> io::Result<()> {
        match self {
            Self::Unconnected => Err(io::ErrorKind::NotConnected.into()),
            Self::System(stream) => stream.shut_down_writing(),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => {
                stream.shut_down_writing();
                Ok(())
            }
        }
    }

    /// Makes closing the socket reset the connection; bytes still in transit are lost.
    pub(crate) fn reset_on_close(&mut self) {
        match self {
            Self::Unconnected => {}
            Self::System(stream) => stream.reset_on_close(),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => stream.reset_on_close(),
        }
    }

    /// Returns the error that the socket holds, if any, and clears it.
    pub(crate) fn take_error(&mut self) -> io::Result<()> {
        match self {
            Self::Unconnected => Ok(()),
            Self::System(stream) => stream.take_error(),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => stream.take_error(),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<Address> {
        match self {
            Self::Unconnected => Err(io::ErrorKind::NotConnected.into()),
            Self::System(stream) => stream.peer_addr(),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => stream.peer_addr(),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::Unconnected => Err(io::ErrorKind::NotConnected.into()),
            Self::System(stream) => stream.local_addr(),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => stream.local_addr(),
        }
    }
}

/// A non-blocking listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    System(system::Listener),
    #[cfg(feature = "sim")]
    Simulated(sim::Listener),
}

impl Listener {
    /// Accepts a connection. Sets `options` on systems where an accepted socket does not inherit
    /// them.
    pub(crate) fn accept(&self, options: &SocketOptions) -> io::Result<(Stream, Address)> {
        match self {
            Self::System(listener) => listener.accept(options).map(|(stream, peer)| (Stream::System(stream), peer)),
            #[cfg(feature = "sim")]
            Self::Simulated(listener) => listener.accept().map(|(stream, peer)| (Stream::Simulated(stream), peer)),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::System(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            Self::Simulated(listener) => Ok(listener.local_addr()),
        }
    }
}
