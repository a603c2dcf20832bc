//! The seam below the event loop: every socket, clock, thread wake-up and random number that the crate uses.
//!
//! Nothing outside this module and `sim/` knows what is below. A [`Network`] makes all of it: the operating
//! system's, or, with the feature `sim`, a simulated one. Each type here is one of the two; without the feature there is
//! only one, and nothing is chosen at run time.

pub(crate) mod system;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::address::Address;
#[cfg(feature = "sim")]
use crate::sim;
use crate::socket::{ListeningSocket, Socket, SocketOptions};

/// One source's readiness, as of one wait.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // independent facts, any of which may hold
pub(crate) struct Readiness {
    pub(crate) token: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer will send no more: a read ends with zero bytes or an error.
    pub(crate) ended: bool,
    /// The socket holds an error; the next read or write returns it.
    pub(crate) failed: bool,
}

/// Where sockets come from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Network {
    #[default]
    System,
    #[cfg(feature = "sim")]
    Simulated(sim::Handle),
}

impl Network {
    pub(crate) fn poller(&self) -> io::Result<Poller> {
        match self {
            Self::System => system::Poller::new().map(Poller::System),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => Ok(Poller::Simulated(handle.poller())),
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        match self {
            Self::System => Clock::System(system::Clock::start()),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => Clock::Simulated(handle.clone()),
        }
    }

    /// 64 random bits.
    pub(crate) fn entropy(&self) -> u64 {
        match self {
            Self::System => system::entropy(),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => handle.entropy(),
        }
    }

    /// 128 random bits that nobody can guess, if there are any to be had.
    pub(crate) fn secret(&self) -> Option<[u8; 16]> {
        match self {
            Self::System => system::secret(),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => {
                Some((u128::from(handle.entropy()) << 64 | u128::from(handle.entropy())).to_be_bytes())
            }
        }
    }

    /// Starts to connect; the outcome shows when the socket becomes writable.
    pub(crate) fn connect(&self, address: &Address, options: &SocketOptions) -> io::Result<Stream> {
        match self {
            Self::System => system::Stream::connect(address, options).map(Stream::System),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => handle.connect(address).map(Stream::Simulated),
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
            Self::Simulated(handle) => handle.bind(address, reuse_port, backlog, options).map(Listener::Simulated),
        }
    }

    /// Takes over a connection of the operating system's.
    pub(crate) fn adopt(&self, socket: Socket, options: &SocketOptions) -> io::Result<Stream> {
        match self {
            Self::System => system::Stream::adopt(socket, options).map(Stream::System),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes over a listener of the operating system's.
    pub(crate) fn adopt_listener(&self, socket: ListeningSocket, options: &SocketOptions) -> io::Result<Listener> {
        match self {
            Self::System => system::Listener::adopt(socket, options).map(Listener::System),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Finds out, before a port is shared, that nobody else has it: a shared port would let a second server start on
    /// it without an error. Returns the address, with the port that was chosen where 0 was asked for.
    pub(crate) fn reserve_port(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        match self {
            Self::System => system::reserve_port(address),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => handle.reserve_port(address),
        }
    }
}

/// Time, monotonic and by the calendar.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    System(system::Clock),
    #[cfg(feature = "sim")]
    Simulated(sim::Handle),
}

impl Clock {
    /// Time since the start; never goes back.
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::System(clock) => clock.now(),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => handle.now(),
        }
    }

    /// Between two steps of a tick: a simulated network may let time pass here, as though the step before had taken it.
    #[inline]
    #[allow(clippy::unused_self)] // with the operating system it passes by itself
    pub(crate) fn pass(&self) {
        #[cfg(feature = "sim")]
        if let Self::Simulated(handle) = self {
            handle.pass();
        }
    }

    /// Time since 1970, by the calendar clock, which may be set back.
    pub(crate) fn unix_time(&self) -> Duration {
        match self {
            Self::System(clock) => clock.unix_time(),
            #[cfg(feature = "sim")]
            Self::Simulated(handle) => handle.unix_time(),
        }
    }
}

/// A readiness queue. Everything is registered once, edge-triggered, for reading and writing.
#[derive(Debug)]
pub(crate) enum Poller {
    System(system::Poller),
    #[cfg(feature = "sim")]
    Simulated(sim::Poller),
}

impl Poller {
    /// Waits at most `timeout` (for ever, if `None`) and appends what became ready.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> io::Result<()> {
        match self {
            Self::System(poller) => poller.wait(timeout, ready),
            // Whoever turns simulated loops does so when there is something to do.
            #[cfg(feature = "sim")]
            Self::Simulated(poller) => {
                poller.take(ready);
                Ok(())
            }
        }
    }

    pub(crate) fn waker(&self, token: usize) -> io::Result<Waker> {
        match self {
            Self::System(poller) => poller.waker(token).map(Waker::System),
            #[cfg(feature = "sim")]
            Self::Simulated(poller) => Ok(Waker::Simulated(poller.waker(token))),
        }
    }

    pub(crate) fn add_listener(&self, listener: &mut Listener, token: usize) -> io::Result<()> {
        match (self, listener) {
            (Self::System(poller), Listener::System(listener)) => poller.add_listener(listener, token),
            #[cfg(feature = "sim")]
            (Self::Simulated(poller), Listener::Simulated(listener)) => {
                poller.add_listener(listener, token);
                Ok(())
            }
            #[cfg(feature = "sim")]
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    pub(crate) fn remove_listener(&self, listener: &mut Listener) -> io::Result<()> {
        match (self, listener) {
            (Self::System(poller), Listener::System(listener)) => poller.remove_listener(listener),
            #[cfg(feature = "sim")]
            _ => Ok(()),
        }
    }

    pub(crate) fn add_stream(&self, stream: &mut Stream, token: usize) -> io::Result<()> {
        match (self, stream) {
            (Self::System(poller), Stream::System(stream)) => poller.add_stream(stream, token),
            #[cfg(feature = "sim")]
            (Self::Simulated(poller), Stream::Simulated(stream)) => {
                poller.add_stream(stream, token);
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Lets a stream that is registered be known by another token; what it is ready for is told anew.
    pub(crate) fn move_stream(&self, stream: &mut Stream, token: usize) -> io::Result<()> {
        match (self, stream) {
            (Self::System(poller), Stream::System(stream)) => poller.move_stream(stream, token),
            #[cfg(feature = "sim")]
            (Self::Simulated(poller), Stream::Simulated(stream)) => {
                poller.add_stream(stream, token);
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Where other sources of the operating system's can be registered.
    #[cfg_attr(not(feature = "sim"), allow(clippy::unnecessary_wraps))] // a simulated one has none
    pub(crate) fn registry(&self) -> io::Result<&mio::Registry> {
        match self {
            Self::System(poller) => Ok(poller.registry()),
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

    /// Between two steps that other threads may see apart: a simulated network lets other loops run here.
    #[inline]
    #[allow(clippy::unused_self)] // the operating system does so by itself, anywhere
    pub(crate) fn interleave(&self) {
        #[cfg(feature = "sim")]
        if let Self::Simulated(waker) = self {
            waker.interleave();
        }
    }
}

/// A connection that never blocks.
#[derive(Debug, Default)]
pub(crate) enum Stream {
    /// There is none yet: one that is still being connected.
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

    /// Lets the peer see a reset when the socket is closed, and nothing that is still on its way to it.
    pub(crate) fn reset_on_close(&mut self) {
        match self {
            Self::Unconnected => {}
            Self::System(stream) => stream.reset_on_close(),
            #[cfg(feature = "sim")]
            Self::Simulated(stream) => stream.reset_on_close(),
        }
    }

    /// The error the socket holds, if any; asking clears it.
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

/// A listening socket that never blocks.
#[derive(Debug)]
pub(crate) enum Listener {
    System(system::Listener),
    #[cfg(feature = "sim")]
    Simulated(sim::Listener),
}

impl Listener {
    /// `options` are set where the system does not let an accepted socket inherit them.
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
