//! Stream sockets and those that accept them.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// A TCP connection that never blocks.
#[derive(Debug)]
pub(crate) struct Stream(pub(super) mio::net::TcpStream);

impl Stream {
    /// Starts to connect; the outcome shows when the socket becomes writable.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = mio::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| self.0.read(buffer))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| self.0.write(bytes))
    }

    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry(|| self.0.write_vectored(slices))
    }

    pub(crate) fn shut_down_writing(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    /// The error the socket holds, if any; asking clears it.
    pub(crate) fn take_error(&mut self) -> io::Result<()> {
        match self.0.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A listening TCP socket that never blocks.
#[derive(Debug)]
pub(crate) struct Listener(pub(super) mio::net::TcpListener);

impl Listener {
    /// Binds and listens. With `shared`, other listeners of this process may bind to the same port, and the kernel
    /// spreads the connections over them.
    pub(crate) fn bind(
        address: SocketAddr,
        shared: bool,
        backlog: i32,
        silence_max: Option<Duration>,
    ) -> io::Result<Self> {
        let socket = tcp_socket(address)?;
        share_port(&socket, shared)?;
        // An accepted socket inherits these on Linux, which saves a call for each.
        socket.set_tcp_nodelay(true)?;
        limit_silence(&socket, silence_max)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        socket.set_nonblocking(true)?;
        Ok(Self(mio::net::TcpListener::from_std(socket.into())))
    }

    pub(crate) fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = retry(|| self.0.accept())?;
        if cfg!(not(any(target_os = "linux", target_os = "android"))) {
            stream.set_nodelay(true)?;
        }
        Ok((Stream(stream), peer))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Finds out, before a port is shared, that nobody else has it: a shared port would let a second server start on it
/// without an error. Returns the socket's address, with the port the system chose where 0 was asked for.
pub(crate) fn reserve_port(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = tcp_socket(address)?;
    socket.bind(&address.into())?;
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if cfg!(unix) {
        // Without it a restarted server could not bind while old connections are in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    Ok(socket)
}

#[cfg(unix)]
fn share_port(socket: &Socket, shared: bool) -> io::Result<()> {
    if shared { socket.set_reuse_port(true) } else { Ok(()) }
}

#[cfg(not(unix))]
fn share_port(_: &Socket, shared: bool) -> io::Result<()> {
    if shared { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
}

/// Lets the kernel give up on a peer that acknowledges nothing for so long.
fn limit_silence(socket: &Socket, silence_max: Option<Duration>) -> io::Result<()> {
    let Some(silence_max) = silence_max else { return Ok(()) };
    let socket = SockRef::from(socket);
    let probe = (silence_max / 4).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(probe).with_interval(probe))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(silence_max))?;
    Ok(())
}
