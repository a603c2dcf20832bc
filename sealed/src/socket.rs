//! Socket settings: options, how to listen and connect, and sockets created elsewhere.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::address::{Address, Named, ToAddresses};
use crate::id::ListenerId;
use crate::resolver::Resolver;
use crate::tls;

/// Time that an attempt to connect has before an attempt with the next address starts beside it, as
/// RFC 8305 recommends.
const STAGGER: Duration = Duration::from_millis(250);
/// Time limit for all attempts together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Options of stream sockets. TCP options have no effect on Unix sockets.
///
/// Take the fields that you do not set from [`Default`]: a minor version may add fields.
///
/// ```
/// use std::time::Duration;
/// use sealed::SocketOptions;
///
/// let options = SocketOptions { silence_max: Some(Duration::from_secs(20)), ..SocketOptions::default() };
/// # let _ = options;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// Disables Nagle's algorithm (`TCP_NODELAY`), so that small writes are sent at once. Since a
    /// loop flushes once per tick, waiting for more output gains nothing. Default true.
    pub no_delay: bool,
    /// Time that a peer may leave sent bytes or keep-alive probes unacknowledged before the kernel
    /// gives up on the connection. The kernel sends probes after a quarter of this time without
    /// traffic. On systems other than Linux it concerns the probes only, and the system decides how
    /// many may be lost. `None` leaves the limit to the system, which may take hours. Default 60 s.
    pub silence_max: Option<Duration>,
    /// Bytes of the kernel's receive buffer; `None` leaves the size to the system. Default `None`.
    pub receive_buffer_bytes: Option<usize>,
    /// Bytes of the kernel's send buffer; `None` leaves the size to the system. Default `None`.
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

/// Where and how to listen. An address converts into a `Listen` with default settings.
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
    pub(crate) tls: Option<tls::Acceptor>,
}

impl Listen {
    /// Listens on `address`. A name is looked up at once, which may block; if it resolves to
    /// several addresses, the first usable one is taken. The file of a Unix socket that a dead
    /// server left behind is replaced; the file of one that accepts connections is not. The file is
    /// removed when the loop begins to shut down.
    pub fn on(address: impl ToAddresses) -> Self {
        Self {
            at: Named::look_up(&address),
            backlog: None,
            connections_max: usize::MAX,
            reuse_port: false,
            socket: None,
            tls: None,
        }
    }

    /// Sets the backlog: the maximum number of connections that the kernel holds until they are
    /// accepted, in place of [`Config::backlog`](crate::Config::backlog).
    #[must_use]
    pub fn backlog(mut self, backlog: i32) -> Self {
        self.backlog = Some(backlog);
        self
    }

    /// Sets the maximum number of connections of the listener at a time, on each loop. At the limit
    /// the loop stops accepting from it, and new connections wait in the backlog.
    #[must_use]
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max;
        self
    }

    /// Sets whether other listeners of the same user may bind the same TCP port (`SO_REUSEPORT`);
    /// the kernel distributes the connections over them. Needs Unix; elsewhere listening fails with
    /// the kind `Unsupported`.
    #[must_use]
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Sets the options of accepted connections, in place of
    /// [`Config::socket`](crate::Config::socket).
    #[must_use]
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.socket = Some(options);
        self
    }
}

/// A listener that has been added, and the address on which it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bound {
    /// The listener, as in [`Service::accepted`](crate::Service::accepted). In a pool it has the
    /// same id on every loop.
    pub listener: ListenerId,
    /// The address, with the port that the system has chosen if port 0 was asked for.
    pub address: Address,
}

impl<A: ToAddresses> From<A> for Listen {
    fn from(address: A) -> Self {
        Self::on(address)
    }
}

/// Where and how to connect. An address converts into a `Connect` with default settings.
///
/// If there are several addresses, the first one that answers is used: each has 250 ms before an
/// attempt with the next address starts beside it, or less if the attempt fails earlier, and
/// address families alternate (RFC 8305, "Happy Eyeballs"). [`by_name`](Self::by_name) resolves a
/// name without blocking the loop. A name that is passed as an address is resolved by the system at
/// once, which may block: do so only before the loop runs.
#[derive(Debug, Clone)]
pub struct Connect {
    pub(crate) to: Named,
    pub(crate) limit: Duration,
    pub(crate) stagger: Duration,
    pub(crate) socket: Option<SocketOptions>,
    pub(crate) tls: Option<(tls::Connector, tls::ServerName<'static>)>,
    /// The name that is resolved while the loop runs.
    pub(crate) lookup: Option<Lookup>,
}

/// A host that is looked up by a resolver, and the port to connect to.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    pub(crate) resolver: Resolver,
    pub(crate) host: String,
    port: u16,
}

impl Lookup {
    /// Returns the addresses to connect to, if they are known without a lookup.
    pub(crate) fn known(&self) -> Option<io::Result<Vec<Address>>> {
        let outcome = self.resolver.known(&self.host)?;
        Some(outcome.map(|found| self.addresses(found)).map_err(|error| io::Error::new(error.kind(), error)))
    }

    /// Returns the addresses to connect to, once those of the host are known.
    pub(crate) fn addresses(&self, found: Vec<IpAddr>) -> Vec<Address> {
        found.into_iter().map(|address| Address::Inet(SocketAddr::new(address, self.port))).collect()
    }
}

impl Connect {
    /// Connects to an address, or, if a name resolves to several addresses, to the first one that
    /// answers.
    pub fn to(address: impl ToAddresses) -> Self {
        Self::to_any([address])
    }

    /// Connects to the first of these addresses that answers. They are tried in this order, except
    /// that address families alternate. A name that cannot be resolved is an error only if there is
    /// no other address.
    pub fn to_any(addresses: impl IntoIterator<Item = impl ToAddresses>) -> Self {
        Self::with(Named::look_up_all(addresses))
    }

    /// Connects to a port of a host, whose name is resolved when the connection is made, without
    /// blocking the loop. The time limit includes the lookup. An IP address in place of the name
    /// needs no lookup.
    ///
    /// A failure that is known at once is an error of
    /// [`Context::connect`](crate::Context::connect): a failed lookup in the cache, an address in
    /// place of the name that is not allowed, a name that cannot be one, or a full queue of the
    /// workers ([`WouldBlock`](io::ErrorKind::WouldBlock)). A failure that the lookup finds ends
    /// the connection with [`CloseReason::NotConnected`](crate::CloseReason::NotConnected) and the
    /// kind of the failure, usually [`NotFound`](io::ErrorKind::NotFound) or
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied).
    ///
    /// A server that connects where its clients tell it to, such as a proxy, must not let them
    /// reach its own network: set [`ResolverConfig::allow`](crate::ResolverConfig::allow).
    ///
    /// ```
    /// use sealed::{Connect, Resolver, ResolverConfig, Workers};
    ///
    /// let workers = Workers::new(4, 1_000);
    /// let resolver = Resolver::new(&workers, ResolverConfig::default());
    /// let connect = Connect::by_name(&resolver, "example.org", 443);
    /// # let _ = connect;
    /// ```
    pub fn by_name(resolver: &Resolver, host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self { lookup: Some(Lookup { resolver: resolver.clone(), host, port }), ..Self::with(Named::later(name)) }
    }

    fn with(to: Named) -> Self {
        Self { to, limit: CONNECT_LIMIT, stagger: STAGGER, socket: None, tls: None, lookup: None }
    }

    /// Sets the time limit for the whole connection attempt, including a TLS handshake. At the
    /// limit the connection ends with
    /// [`CloseReason::NotConnected`](crate::CloseReason::NotConnected) and the kind `TimedOut`.
    /// Default 10 s.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the time that an address has before an attempt with the next address starts beside it.
    /// Default 250 ms.
    #[must_use]
    pub fn stagger(mut self, stagger: Duration) -> Self {
        self.stagger = stagger;
        self
    }

    /// Sets the options of the connection, in place of [`Config::socket`](crate::Config::socket).
    #[must_use]
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.socket = Some(options);
        self
    }
}

impl<A: ToAddresses> From<A> for Connect {
    fn from(address: A) -> Self {
        Self::to(address)
    }
}

/// A connected stream socket that was created elsewhere, for
/// [`Context::adopt`](crate::Context::adopt).
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

/// A socket that is already listening, such as one passed by socket activation, for
/// [`Context::adopt_listener`](crate::Context::adopt_listener).
///
/// ```
/// use std::net::TcpListener;
/// use sealed::{Context, Listen, Service};
///
/// fn take_over<S: Service>(cx: &mut Context<S>, socket: TcpListener) -> sealed::Result<()> {
///     let bound = cx.adopt_listener(socket, Listen::on("0.0.0.0:80"))?;
///     println!("listening on {}", bound.address);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub enum ListeningSocket {
    /// A TCP listener.
    Tcp(TcpListener),
    /// A Unix socket listener.
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
    /// Returns the address on which the socket listens.
    ///
    /// # Errors
    ///
    /// Returns the error of the system if it cannot report the address.
    pub fn local_addr(&self) -> std::io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Inet),
            #[cfg(unix)]
            Self::Unix(listener) => listener.local_addr().map(|address| unix_address(&address)),
        }
    }
}

/// Returns the path of the address of a Unix socket; empty if the address has none.
#[cfg(unix)]
pub(crate) fn unix_address(address: &std::os::unix::net::SocketAddr) -> Address {
    Address::Unix(address.as_pathname().map(Into::into).unwrap_or_default())
}
