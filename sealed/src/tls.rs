//! TLS by [rustls](https://docs.rs/rustls), enabled by the feature `tls`.
//!
//! A service is the same with and without TLS. TLS is set on a [`Listen`] or a
//! [`Connect`], and bytes are decrypted before the service sees them.
//!
//! An accepted connection is reported at once and has
//! [`Config::handshake_limit`](crate::Config::handshake_limit) for its handshake; output written
//! earlier is sent after the handshake. An outgoing connection is reported when its handshake is
//! done. If a peer closes the connection without a TLS `close_notify` alert, the connection fails
//! with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), since an attacker on the path may have
//! truncated the data. [`Context::tls`](crate::Context::tls) returns the negotiated parameters.
//!
//! # STARTTLS
//!
//! [`Context::start_tls_server`] and [`Context::start_tls_client`] start TLS on a connection that
//! already exists, for protocols that begin as plain text. [`Service::secured`] reports the end of
//! the handshake.
//!
//! # Configurations
//!
//! Certificates, versions and protocols (ALPN) are set in the configurations of [`rustls`].
//! [`Acceptor::replace`] replaces the configuration of a server while it runs, from any thread.
//!
//! ```no_run
//! use sealed::{Config, EventLoop, Listen, Service, tls};
//! # struct Echo;
//! # impl Service for Echo {
//! #     type Connection = ();
//! #     type Message = ();
//! #     type Timer = ();
//! #     fn received(&mut self, _: &mut sealed::Context<Self>, _: sealed::ConnectionId, _: &mut sealed::Input<'_>) {}
//! # }
//!
//! let certificate = std::fs::read("certificate.pem")?;
//! let key = std::fs::read("key.pem")?;
//! let acceptor = tls::Acceptor::from_pem(&certificate, &key)?;
//! let mut event_loop = EventLoop::new(Config::default(), Echo)?;
//! let (_, cx) = event_loop.parts();
//! cx.listen(Listen::on("0.0.0.0:443").tls(acceptor.clone()))?;
//! // Later, on any thread, when the certificate has been renewed:
//! acceptor.replace(tls::server_config(&std::fs::read("certificate.pem")?, &std::fs::read("key.pem")?)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, PoisonError, RwLock};

pub use rustls;
use rustls::crypto::CryptoProvider;
pub use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, Connection, RootCertStore, ServerConfig};

use crate::buffers::{Outbox, Sink};
use crate::context::Context;
use crate::error::CloseReason;
use crate::event_loop::closing::Flushed;
use crate::event_loop::reading::News;
use crate::id::{ConnectionId, TimerId};
use crate::net::Stream;
use crate::service::Service;
use crate::socket::{Connect, Listen};

/// Maximum number of encrypted bytes that one connection may hold before its socket takes them.
const CIPHERED_BYTES_MAX: usize = 64 * 1024;

/// An error of a certificate or a key, or of a connection on which TLS cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection is not open, is not made yet, or has TLS already, or one side has ended its
    /// output.
    #[error("TLS cannot start on this connection")]
    NotPossible,
    /// The text holds no certificate or no key, or one of them cannot be parsed.
    #[error("cannot read the certificate or the key")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// The certificate and the key do not match, or TLS cannot use them.
    #[error("cannot use the certificate or the key")]
    Rustls(#[from] rustls::Error),
}

/// The server side of TLS. Clones share the configuration, including a later replacement.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Acceptor {
    /// Creates an acceptor with this configuration, which sets certificates by name (SNI),
    /// protocols (ALPN) and client certificates.
    pub fn new(config: impl Into<Arc<ServerConfig>>) -> Self {
        Self { config: Arc::new(RwLock::new(config.into())) }
    }

    /// Creates an acceptor with one certificate, given with its chain, and its key, both as PEM
    /// text.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Pem`] if the text cannot be parsed, and [`Error::Rustls`] if the
    /// certificate and the key cannot be used.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, Error> {
        server_config(certificates, key).map(Self::new)
    }

    /// Replaces the configuration for connections accepted from now on; existing connections keep
    /// theirs. Callable from any thread.
    pub fn replace(&self, config: impl Into<Arc<ServerConfig>>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config.into();
    }

    pub(crate) fn session(&self, limit: TimerId) -> Result<Session, rustls::Error> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Session::new(rustls::ServerConnection::new(config)?.into(), Some(limit)))
    }
}

/// Returns the configuration of a server with one certificate, given with its chain, and its key,
/// both as PEM text.
///
/// # Errors
///
/// Returns [`Error::Pem`] if the text cannot be parsed, and [`Error::Rustls`] if the certificate
/// and the key cannot be used.
pub fn server_config(certificates: &[u8], key: &[u8]) -> Result<ServerConfig, Error> {
    let certificates =
        CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>().map_err(Error::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(Error::Pem)?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_single_cert(certificates, key)?)
}

/// Returns the cryptography of the process if one is installed. Without it, `builder` would panic
/// in a program that enables a second one.
fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// The client side of TLS. Clones share the configuration, and with it the sessions that can be
/// resumed.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
}

impl Connector {
    /// Creates a connector with this configuration.
    pub fn new(config: impl Into<Arc<ClientConfig>>) -> Self {
        Self { config: config.into() }
    }

    /// Creates a connector that trusts servers whose certificate chain ends at one of these roots,
    /// given as PEM text. For servers of the public web, make a [`ClientConfig`] with the roots of
    /// the crate `webpki-roots` or `rustls-native-certs`, and use [`new`](Self::new).
    ///
    /// ```
    /// use sealed::Connect;
    /// use sealed::tls::{Connector, ServerName};
    ///
    /// # fn connect(roots: &[u8]) -> Result<Connect, Box<dyn std::error::Error>> {
    /// let connector = Connector::trusting_pem(roots)?;
    /// let name = ServerName::try_from("db.internal")?;
    /// let connect = Connect::to("10.0.0.5:5432").tls(connector, name);
    /// # Ok(connect)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Error::Pem`] if the text cannot be parsed, and [`Error::Rustls`] if a root cannot
    /// be used.
    pub fn trusting_pem(roots: &[u8]) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots) {
            store.add(root.map_err(Error::Pem)?)?;
        }
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        Ok(Self::new(builder.with_root_certificates(store).with_no_client_auth()))
    }

    pub(crate) fn session(&self, name: ServerName<'static>, limit: Option<TimerId>) -> Result<Session, rustls::Error> {
        Ok(Session::new(rustls::ClientConnection::new(self.config.clone(), name)?.into(), limit))
    }
}

/// The negotiated parameters of a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreed {
    /// The protocol (ALPN), if one was negotiated.
    pub protocol: Option<Vec<u8>>,
    /// The name that the client requested (SNI); set on the server side only.
    pub server_name: Option<String>,
    /// The TLS version.
    pub version: rustls::ProtocolVersion,
}

/// The TLS state of one connection.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // independent facts, any of which may hold
pub(crate) struct Session {
    connection: Connection,
    /// The timer of the handshake limit.
    pub(crate) limit: Option<TimerId>,
    /// The handshake is done, and this has been recorded.
    established: bool,
    /// The peer has sent `close_notify`.
    ended: bool,
    /// This side has sent `close_notify`.
    finished: bool,
    /// This side has sent an alert about a failure, and the kernel has taken it.
    alerted: bool,
    /// TLS was started on a connection that already existed.
    pub(crate) is_late: bool,
    /// Output from before the start of TLS, which is sent as it is, ahead of the handshake.
    pub(crate) ahead: Outbox,
    /// Number of encrypted bytes that the kernel has taken.
    pub(crate) sent: u64,
}

/// The result of decryption.
#[derive(Debug, Default)]
pub(crate) struct Deciphered {
    /// Number of bytes in the loop's second buffer.
    pub(crate) count: usize,
    /// What the service is to be called for first.
    pub(crate) news: News,
}

impl Session {
    fn new(mut connection: Connection, limit: Option<TimerId>) -> Self {
        connection.set_buffer_limit(Some(CIPHERED_BYTES_MAX));
        Self {
            connection,
            limit,
            established: false,
            ended: false,
            finished: false,
            alerted: false,
            is_late: false,
            ahead: Outbox::default(),
            sent: 0,
        }
    }

    pub(crate) fn agreed(&self) -> Option<Agreed> {
        if !self.established {
            return None;
        }
        let server_name = match &self.connection {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        };
        let protocol = self.connection.alpn_protocol().map(<[u8]>::to_vec);
        Some(Agreed { protocol, server_name, version: self.connection.protocol_version()? })
    }

    /// Returns the close reason for a failure of this kind.
    pub(crate) fn failure(&self, kind: io::ErrorKind) -> CloseReason {
        match (&self.connection, kind) {
            (Connection::Client(_), kind) if !self.established && !self.is_late => CloseReason::NotConnected(kind),
            (_, io::ErrorKind::TimedOut) => CloseReason::TimedOut,
            (_, kind) => CloseReason::Failed(kind),
        }
    }

    /// Returns whether output would be lost, without the peer noticing, if the connection ended
    /// now. `is_queued` is true if plaintext output is left too.
    pub(crate) fn has_unsent(&self, is_queued: bool) -> bool {
        // A peer that has received an alert does not take the data for complete.
        let is_alerted = self.alerted && !fault!("alerted-peer-reset");
        let is_left = is_queued || !self.ahead.is_empty() || self.established && self.connection.wants_write();
        !is_alerted && is_left
    }

    /// Decrypts received bytes and appends them to `plain`.
    fn feed(&mut self, mut ciphered: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        while !ciphered.is_empty() && !self.ended {
            self.connection.read_tls(&mut ciphered)?;
            let state = self.connection.process_new_packets();
            let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.ended |= state.peer_has_closed();
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.connection.reader().read_exact(&mut plain[start..])?;
        }
        Ok(())
    }

    /// Encrypts and sends at most `limit` bytes of the queued output. If `is_last` is true, also
    /// sends `close_notify` after the last byte.
    pub(crate) fn flush(
        &mut self,
        outbox: &mut Outbox,
        stream: &mut Stream,
        limit: usize,
        is_last: bool,
    ) -> io::Result<Flushed> {
        let ahead = self.ahead.len();
        let mut limit = limit;
        if ahead > 0 {
            let is_taken =
                self.ahead.flush(stream, if fault!("plain-output-unlimited") { usize::MAX } else { limit })?;
            let sent = ahead - self.ahead.len();
            self.sent = self.sent.wrapping_add(sent as u64);
            if !is_taken {
                return Ok(Flushed::Blocked);
            }
            if !self.ahead.is_empty() {
                return Ok(Flushed::Waiting);
            }
            limit = limit.saturating_sub(sent);
        }
        let end = outbox.len().saturating_sub(limit);
        loop {
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut Plain(stream)) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => self.sent = self.sent.wrapping_add(count as u64),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                    Err(error) => return Err(error),
                }
            }
            if self.connection.is_handshaking() {
                return Ok(if outbox.is_empty() && !is_last { Flushed::All } else { Flushed::Waiting });
            }
            if outbox.len() > end {
                let room = CIPHERED_BYTES_MAX / 2;
                outbox.flush(&mut Ciphering(&mut self.connection), room.min(outbox.len() - end))?;
            } else if is_last
                && (outbox.is_empty() || fault!("end-ahead-of-rate"))
                && !std::mem::replace(&mut self.finished, true)
            {
                self.connection.send_close_notify();
            } else {
                return Ok(if outbox.is_empty() { Flushed::All } else { Flushed::Waiting });
            }
        }
    }
}

/// A socket, as rustls writes to it.
struct Plain<'a>(&'a mut Stream);

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sink that empties an outbox into the buffer of a session until the buffer is full.
struct Ciphering<'a>(&'a mut Connection);

impl Sink for Ciphering<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        full_is_would_block(self.0.writer().write(bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        full_is_would_block(self.0.writer().write_vectored(slices))
    }
}

fn full_is_would_block(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
        other => other,
    }
}

impl Listen {
    /// Accepts connections with TLS. Needs the feature `tls`.
    #[must_use]
    pub fn tls(mut self, acceptor: Acceptor) -> Self {
        self.tls = Some(acceptor);
        self
    }
}

impl Connect {
    /// Connects with TLS. The server must present a certificate for `name`. Needs the feature
    /// `tls`.
    #[must_use]
    pub fn tls(mut self, connector: Connector, name: ServerName<'static>) -> Self {
        self.tls = Some((connector, name));
        self
    }
}

/// TLS of a connection.
impl<S: Service> Context<S> {
    /// Returns the negotiated TLS parameters; `None` before the handshake is done, and for a
    /// connection without TLS. Needs the feature `tls`.
    pub fn tls(&self, id: ConnectionId) -> Option<Agreed> {
        let extras = self.connections.find(id)?.buffers.as_ref()?.extras.as_ref()?;
        extras.tls.as_ref()?.agreed()
    }

    /// Starts TLS on a connection.
    pub(crate) fn begin_tls(&mut self, id: ConnectionId, session: Session) {
        if let Some(extras) = self.connections.extras(id) {
            extras.tls = Some(session);
            self.connections.will_flush(id.slot);
        }
    }

    /// Decrypts the first `count` bytes of the loop's buffer into its second buffer.
    pub(crate) fn decipher(&mut self, index: u32, count: usize, ended: bool) -> Deciphered {
        let plain = self.buffers.plain.contents();
        plain.clear();
        let slot = &mut self.connections[index];
        let is_closing = !slot.is_open();
        let Some(buffers) = &mut slot.buffers else { return Deciphered::default() };
        let Some(tls) = buffers.extras.as_mut().and_then(|extras| extras.tls.as_mut()) else {
            return Deciphered::default();
        };
        let mut failure = tls.feed(&self.buffers.fresh[..count], plain).err();
        if failure.is_some() {
            // Send the peer an alert with the error, if its socket takes it. In the middle of plain
            // output the peer would take it for a part of that.
            let is_next = tls.ahead.is_empty() || fault!("alert-amid-plain-output");
            let is_written = is_next
                && tls.connection.wants_write()
                && tls.connection.write_tls(&mut Plain(&mut slot.stream)).is_ok();
            tls.alerted = is_written && !tls.connection.wants_write();
        } else if fault!("unannounced-end-believed") {
            tls.ended |= ended;
        } else if ended && !tls.ended {
            failure = Some(io::ErrorKind::UnexpectedEof.into());
        }
        let mut news = News::Nothing;
        if failure.is_none() && !tls.established && !tls.connection.is_handshaking() {
            tls.established = true;
            news = match tls.connection {
                _ if tls.is_late => News::Secured,
                Connection::Client(_) => News::Made,
                Connection::Server(_) => News::Nothing,
            };
            if !fault!("handshake-limit-outlives")
                && let Some(limit) = tls.limit.take()
            {
                self.timers.cancel(limit);
            }
            // Output that was written before can be sent now.
            if !fault!("written-before-handshake-left") {
                self.connections.will_flush(index);
            }
        } else if tls.connection.wants_write() {
            self.connections.will_flush(index);
        }
        if let Some(error) = failure {
            if !is_closing {
                self.fail_tls(index, error.kind());
            }
            return Deciphered::default();
        }
        Deciphered { count: self.buffers.plain.len(), news }
    }

    fn fail_tls(&mut self, index: u32, kind: io::ErrorKind) {
        let tls = self.connections[index].extras().and_then(|extras| extras.tls.as_ref());
        let reason = tls.map_or(CloseReason::Failed(kind), |tls| tls.failure(kind));
        self.connections.end_now(index, reason);
    }

    /// Returns whether the peer's `close_notify` has to be reported to the service now. It is
    /// reported once, and not while the connection is paused.
    pub(crate) fn tls_ended(&mut self, index: u32) -> bool {
        let slot = &mut self.connections[index];
        if slot.is(crate::slot::Flags::PAUSED) && !fault!("end-reported-while-paused") {
            return false;
        }
        let has_ended = slot.extras().is_some_and(|extras| extras.tls.as_ref().is_some_and(|tls| tls.ended));
        has_ended && slot.raise(crate::slot::Flags::TLS_ENDED)
    }
}
