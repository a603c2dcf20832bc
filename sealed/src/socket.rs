//! What is asked of sockets: options, how to listen, whom to connect to, and sockets made elsewhere.

use std::net::{TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::address::{Address, Named, ToAddresses};
#[cfg(feature = "tls")]
use crate::tls;

/// How long an attempt to connect has before the next address is tried beside it, as RFC 8305 recommends.
const STAGGER: Duration = Duration::from_millis(250);
/// How long all attempts may take together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Options of stream sockets. Those of TCP mean nothing to Unix sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// Sends at once what is flushed, however little (`TCP_NODELAY`). A loop flushes once a tick, so that there is
    /// nothing to gain by waiting. Default true.
    pub no_delay: bool,
    /// How long a peer may leave sent bytes, or keep-alive probes, unacknowledged before the kernel declares it dead:
    /// probes are sent after a quarter of it in silence. `None` leaves that to the system, which may take hours.
    /// Default 60 s.
    pub silence_max: Option<Duration>,
    /// Bytes of the kernel's receive buffer; `None`: as the system thinks best. Default `None`.
    pub receive_buffer_bytes: Option<usize>,
    /// Bytes of the kernel's send buffer; `None`: as the system thinks best. Default `None`.
    pub send_buffer_bytes: Option<usize>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            no_delay: true,
            silence_max: Some(Duration::from_secs(60)),
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
        }
    }
}

/// Where and how to listen. An address alone will do.
///
/// ```
/// use sealed::Listen;
///
/// let listen = Listen::on("unix:/run/app.sock").backlog(128).connections_max(1_000);
/// # let _ = listen;
/// ```
#[derive(Debug, Clone)]
pub struct Listen {
    pub(crate) at: Named,
    pub(crate) backlog: Option<i32>,
    pub(crate) connections_max: usize,
    pub(crate) reuse_port: bool,
    pub(crate) socket: Option<SocketOptions>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tls::Acceptor>,
}

impl Listen {
    /// Listens there; of several addresses that a name stands for, on the first that can be had. A Unix socket that a dead
    /// server left behind is replaced; one that answers is not. Its file is removed when the loop stops.
    pub fn on(address: impl ToAddresses) -> Self {
        Self {
            at: Named::look_up(&address),
            backlog: None,
            connections_max: usize::MAX,
            reuse_port: false,
            socket: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Connections that the kernel holds until they are accepted, in place of [`Config::backlog`](crate::Config::backlog).
    #[must_use]
    pub fn backlog(mut self, backlog: i32) -> Self {
        self.backlog = Some(backlog);
        self
    }

    /// Connections that the listener may have at a time, on each loop. At the limit accepting from it pauses, and the
    /// backlog holds who comes.
    #[must_use]
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max;
        self
    }

    /// Lets other listeners of the same user have the same TCP port (`SO_REUSEPORT`, on Unix): the kernel spreads the
    /// connections over them.
    #[must_use]
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Options of accepted connections, in place of [`Config::socket`](crate::Config::socket).
    #[must_use]
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.socket = Some(options);
        self
    }

    /// Speaks TLS with who connects.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, acceptor: tls::Acceptor) -> Self {
        self.tls = Some(acceptor);
        self
    }
}

impl<A: ToAddresses> From<A> for Listen {
    fn from(address: A) -> Self {
        Self::on(address)
    }
}

/// Whom to connect to, and how. An address alone will do.
///
/// Of several addresses the first to answer is taken: each has 250 ms before the next is tried beside it, or less where
/// it fails earlier, and families take turns (RFC 8305, "happy eyeballs"). A name is looked up by the system when it is
/// given here, which may block: do so before the loop runs, or on another thread.
#[derive(Debug, Clone)]
pub struct Connect {
    pub(crate) to: Named,
    pub(crate) limit: Duration,
    pub(crate) stagger: Duration,
    pub(crate) socket: Option<SocketOptions>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<(tls::Connector, tls::ServerName<'static>)>,
}

impl Connect {
    /// Connects to an address, or to whichever answers first of those that a name stands for.
    pub fn to(address: impl ToAddresses) -> Self {
        Self::to_any([address])
    }

    /// Connects to whichever of these answers first, tried in this order but that families take turns. A name that is not
    /// found counts where there is no other address.
    pub fn to_any(addresses: impl IntoIterator<Item = impl ToAddresses>) -> Self {
        Self {
            to: Named::look_up_all(addresses),
            limit: CONNECT_LIMIT,
            stagger: STAGGER,
            socket: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// How long it may take in all, a TLS handshake included. Default 10 s.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How long an address has before the next is tried beside it. Default 250 ms.
    #[must_use]
    pub fn stagger(mut self, stagger: Duration) -> Self {
        self.stagger = stagger;
        self
    }

    /// Options of the connection, in place of [`Config::socket`](crate::Config::socket).
    #[must_use]
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.socket = Some(options);
        self
    }

    /// Speaks TLS, with a server that has to prove that this is its name.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, connector: tls::Connector, name: tls::ServerName<'static>) -> Self {
        self.tls = Some((connector, name));
        self
    }
}

impl<A: ToAddresses> From<A> for Connect {
    fn from(address: A) -> Self {
        Self::to(address)
    }
}

/// A connected stream socket that was made elsewhere, for [`Context::adopt`](crate::Context::adopt).
#[derive(Debug)]
pub enum Socket {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A connection between Unix sockets.
    #[cfg(unix)]
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

#[cfg(unix)]
impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

/// A socket that listens already, as socket activation hands it over, for
/// [`Context::adopt_listener`](crate::Context::adopt_listener).
#[derive(Debug)]
pub enum ListeningSocket {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of Unix sockets.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl From<TcpListener> for ListeningSocket {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

#[cfg(unix)]
impl From<UnixListener> for ListeningSocket {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl ListeningSocket {
    /// Where it listens.
    pub fn local_addr(&self) -> std::io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            #[cfg(unix)]
            Self::Unix(listener) => listener.local_addr().map(|address| unix_address(&address)),
        }
    }
}

/// The path of a Unix socket's address, empty where it has none.
#[cfg(unix)]
pub(crate) fn unix_address(address: &std::os::unix::net::SocketAddr) -> Address {
    Address::Unix(address.as_pathname().map(Into::into).unwrap_or_default())
}
