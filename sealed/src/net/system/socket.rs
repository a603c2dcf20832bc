//! Stream sockets and listening sockets.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::address::Address;
#[cfg(unix)]
use crate::socket::unix_address;
use crate::socket::{self, ListeningSocket, SocketOptions};

/// A non-blocking connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
}

/// Evaluates one expression for either kind of socket.
macro_rules! each {
    ($socket:expr, $name:ident => $call:expr) => {
        match $socket {
            Self::Tcp($name) => $call,
            #[cfg(unix)]
            Self::Unix($name) => $call,
        }
    };
}

impl Stream {
    /// Starts to connect; the socket becomes writable when the outcome is known.
    pub(crate) fn connect(address: &Address, options: &SocketOptions) -> io::Result<Self> {
        match address {
            Address::Inet(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                // Some options must be set before the handshake.
                set_options(&socket, options)?;
                connect(&socket, &(*address).into())?;
                Ok(Self::Tcp(mio::net::TcpStream::from_std(socket.into())))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                set_buffers(&socket, options.receive_buffer_bytes, options.send_buffer_bytes)?;
                connect(&socket, &SockAddr::unix(path)?)?;
                Ok(Self::Unix(mio::net::UnixStream::from_std(socket.into())))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes over a connection created elsewhere.
    pub(crate) fn adopt(socket: socket::Socket, options: &SocketOptions) -> io::Result<Self> {
        match socket {
            socket::Socket::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                set_options(&SockRef::from(&stream), options)?;
                Ok(Self::Tcp(mio::net::TcpStream::from_std(stream)))
            }
            #[cfg(unix)]
            socket::Socket::Unix(stream) => {
                stream.set_nonblocking(true)?;
                set_buffers(&SockRef::from(&stream), options.receive_buffer_bytes, options.send_buffer_bytes)?;
                Ok(Self::Unix(mio::net::UnixStream::from_std(stream)))
            }
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        each!(self, stream => retry(|| stream.read(buffer)))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, stream => retry(|| stream.write(bytes)))
    }

    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        each!(self, stream => retry(|| stream.write_vectored(slices)))
    }

    pub(crate) fn shut_down_writing(&mut self) -> io::Result<()> {
        each!(self, stream => stream.shutdown(Shutdown::Write))
    }

    /// Makes closing the socket reset the connection, if the system supports that.
    pub(crate) fn reset_on_close(&mut self) {
        // If this fails, the peer sees an ordinary end.
        let _ = each!(self, stream => SockRef::from(&*stream).set_linger(Some(Duration::ZERO)));
    }

    /// Returns the error that the socket holds, if any, and clears it.
    pub(crate) fn take_error(&mut self) -> io::Result<()> {
        match each!(self, stream => stream.take_error())? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(Address::Inet),
            #[cfg(unix)]
            Self::Unix(stream) => stream.peer_addr().map(|address| unix_address(&address)),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(stream) => stream.local_addr().map(Address::Inet),
            #[cfg(unix)]
            Self::Unix(stream) => stream.local_addr().map(|address| unix_address(&address)),
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn mio::event::Source {
        each!(self, stream => stream)
    }
}

pub(super) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A non-blocking listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(mio::net::TcpListener),
    #[cfg(unix)]
    Unix(mio::net::UnixListener, #[allow(dead_code)] Option<SocketFile>), // its file goes with it
}

impl Listener {
    /// Binds and listens with these settings.
    pub(crate) fn bind(address: &Address, reuse_port: bool, backlog: i32, options: &SocketOptions) -> io::Result<Self> {
        match address {
            Address::Inet(address) => {
                let socket = tcp_socket(*address)?;
                share_port(&socket, reuse_port)?;
                // On Linux an accepted socket inherits these options, which saves system calls per
                // connection.
                set_options(&socket, options)?;
                socket.bind(&(*address).into())?;
                socket.listen(backlog)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(mio::net::TcpListener::from_std(socket.into())))
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                set_buffers(&socket, options.receive_buffer_bytes, options.send_buffer_bytes)?;
                bind_path(&socket, path, Type::STREAM)?;
                let file = SocketFile::at(path);
                socket.listen(backlog)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(mio::net::UnixListener::from_std(socket.into()), file))
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes over a socket that is already listening.
    pub(crate) fn adopt(socket: ListeningSocket, options: &SocketOptions) -> io::Result<Self> {
        match socket {
            ListeningSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                set_options(&SockRef::from(&listener), options)?;
                Ok(Self::Tcp(mio::net::TcpListener::from_std(listener)))
            }
            #[cfg(unix)]
            ListeningSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                set_buffers(&SockRef::from(&listener), options.receive_buffer_bytes, options.send_buffer_bytes)?;
                Ok(Self::Unix(mio::net::UnixListener::from_std(listener), None))
            }
        }
    }

    /// Accepts a connection. Sets `options` on systems where an accepted socket does not inherit
    /// them.
    pub(crate) fn accept(&self, options: &SocketOptions) -> io::Result<(Stream, Address)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = retry(|| listener.accept())?;
                if cfg!(not(any(target_os = "linux", target_os = "android"))) {
                    set_options(&SockRef::from(&stream), options)?;
                }
                Ok((Stream::Tcp(stream), Address::Inet(peer)))
            }
            #[cfg(unix)]
            Self::Unix(listener, _) => {
                let (stream, peer) = retry(|| listener.accept())?;
                Ok((Stream::Unix(stream), unix_address(&peer)))
            }
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Inet),
            #[cfg(unix)]
            Self::Unix(listener, _) => listener.local_addr().map(|address| unix_address(&address)),
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Self::Tcp(listener) => listener,
            #[cfg(unix)]
            Self::Unix(listener, _) => listener,
        }
    }
}

/// The file of a Unix socket that this process created. Dropping it removes the file, unless
/// another file has taken its place.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

#[cfg(unix)]
impl SocketFile {
    pub(super) fn at(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            // If the file cannot be removed, the next server replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Returns the device and the inode number of a file, which are unique while the file exists.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Checks, before a port is shared, that no other process uses it: with a shared port, a second
/// server could start on the same port without an error. Returns the address of the socket; if the
/// port was 0, with the port that the system chose.
pub(crate) fn reserve_port(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = tcp_socket(address)?;
    socket.bind(&address.into())?;
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if cfg!(unix) {
        // Otherwise a restarted server could not bind while old connections are in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    Ok(socket)
}

/// Starts to connect without waiting for the outcome.
fn connect(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Err(error) if !is_under_way(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Returns whether connecting has started and is not done yet.
fn is_under_way(error: &io::Error) -> bool {
    /// `EINPROGRESS`, as the system numbers it.
    const IN_PROGRESS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 115 } else { 36 };
    // If the backlog of a Unix listener is full, the error is `WouldBlock` too, but connecting has
    // not started.
    error.raw_os_error() == Some(IN_PROGRESS) || cfg!(windows) && error.kind() == io::ErrorKind::WouldBlock
}

/// Binds a Unix socket of type `kind` to a path. A file that a dead process left there is replaced;
/// the file of a socket in use is not.
#[cfg(unix)]
pub(super) fn bind_path(socket: &Socket, path: &Path, kind: Type) -> io::Result<()> {
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other,
    }
    let probe = Socket::new(Domain::UNIX, kind, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&address) {
        // Connecting to a plain file is refused too.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
            std::fs::remove_file(path)?;
            socket.bind(&address)
        }
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(unix)]
fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;

    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(unix)]
pub(super) fn share_port(socket: &Socket, shared: bool) -> io::Result<()> {
    if shared { socket.set_reuse_port(true) } else { Ok(()) }
}

#[cfg(not(unix))]
pub(super) fn share_port(_: &Socket, shared: bool) -> io::Result<()> {
    if shared { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
}

fn set_options(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    if options.no_delay {
        socket.set_tcp_nodelay(true)?;
    }
    limit_silence(socket, options.silence_max)?;
    set_buffers(socket, options.receive_buffer_bytes, options.send_buffer_bytes)
}

pub(super) fn set_buffers(socket: &Socket, receive: Option<usize>, send: Option<usize>) -> io::Result<()> {
    if let Some(bytes) = receive {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = send {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

/// Makes the kernel give up on a peer that acknowledges nothing for `silence_max`.
fn limit_silence(socket: &Socket, silence_max: Option<Duration>) -> io::Result<()> {
    let Some(silence_max) = silence_max else { return Ok(()) };
    let probe = (silence_max / 4).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(probe).with_interval(probe))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(silence_max))?;
    Ok(())
}
