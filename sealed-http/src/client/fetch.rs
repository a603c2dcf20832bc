//! Requests of the client, the servers they are sent to, and their outcomes.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use sealed::{CloseReason, Connect, Resolver, ToAddresses, fault};

use crate::codec::error::DecodeError;
use crate::codec::fields::{BadHeaderValue, Fields, encode_field};
use crate::codec::head::{is_host, is_token_byte};
use crate::codec::limits::Limits;
use crate::codec::response::write_decimal;
use crate::codec::response_head::{Asked, ResponseHead};

/// Fields that the encoder writes itself, or that are never sent.
const WRITTEN: [&str; 6] = ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "Upgrade"];

/// A server that requests are sent to, and the settings of a loop's connections to it.
///
/// [`to`](Self::to) resolves a host name when the upstream is made, which may block: use it before
/// the loop runs. [`by_name`](Self::by_name) resolves the name while the loop runs.
///
/// ```
/// use std::time::Duration;
/// use sealed_http::client::Upstream;
///
/// let backend = Upstream::to("127.0.0.1:9000").host("backend.internal").connections_max(8);
/// # let _ = backend;
/// ```
#[derive(Debug, Clone)]
pub struct Upstream {
    pub(crate) connect: Connect,
    pub(crate) host: String,
    pub(crate) connections_max: usize,
    pub(crate) waiting_max: usize,
    pub(crate) idle_timeout: Duration,
}

/// Identifies an upstream of one loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub(crate) usize);

impl Upstream {
    /// Creates an upstream at an address: `example.org:80`, an IP address with a port, or
    /// `unix:/run/app.sock`. The field `Host` carries this address, or `localhost` for a Unix
    /// socket. A name is looked up at once, which may block; if it cannot be resolved, every
    /// request fails with [`FetchError::NotConnected`], and the name is not looked up again.
    pub fn to(address: impl ToAddresses) -> Self {
        let name = address.name();
        Self::with(&name, Connect::to(address))
    }

    /// Creates an upstream at a port of a host, whose name is resolved for each connection, without
    /// blocking the loop. A server that moves to another address is found there as soon as the
    /// resolver's cache allows it. The field `Host` carries the name and the port, or `localhost`
    /// if the name cannot be that of a host.
    pub fn by_name(resolver: &Resolver, host: &str, port: u16) -> Self {
        let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self::with(&name, Connect::by_name(resolver, host, port))
    }

    fn with(name: &str, connect: Connect) -> Self {
        let host = if is_host(name.as_bytes()) { name } else { "localhost" };
        Self {
            connect,
            host: host.to_owned(),
            connections_max: 16,
            waiting_max: 1_024,
            idle_timeout: Duration::from_secs(30),
        }
    }

    /// Sets the value of the field `Host`.
    ///
    /// # Panics
    /// If `host` is not a host with or without a port.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        assert!(is_host(host.as_bytes()), "not a host: {host:?}");
        host.clone_into(&mut self.host);
        self
    }

    /// Uses TLS, and requires the server's certificate to be valid for `name`. Requires the feature
    /// `tls`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, connector: sealed::tls::Connector, name: sealed::tls::ServerName<'static>) -> Self {
        self.connect = self.connect.tls(connector, name);
        self
    }

    /// Sets how long connecting may take, including the TLS handshake. Default 10 s.
    #[must_use]
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect = self.connect.limit(limit);
        self
    }

    /// Sets how many connections may be open at a time, at least 1. Further requests wait for a
    /// connection. Default 16.
    #[must_use]
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max.max(1);
        self
    }

    /// Sets how many requests may wait for a connection. Further requests fail with
    /// [`FetchError::Busy`]. Default 1,024.
    #[must_use]
    pub fn waiting_max(mut self, waiting_max: usize) -> Self {
        self.waiting_max = waiting_max;
        self
    }

    /// Sets how long an idle connection is kept. Default 30 s.
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = idle_timeout;
        self
    }
}

/// A request to be sent.
///
/// ```
/// use sealed_http::client::Fetch;
///
/// let fetch = Fetch::post("/hooks?of=news")?.header("Content-Type", "application/json").body("{}");
/// # let _ = fetch;
/// # Ok::<(), sealed_http::client::BadTarget>(())
/// ```
#[derive(Debug, Clone)]
pub struct Fetch {
    method: Cow<'static, str>,
    target: String,
    fields: Fields,
    pub(crate) body: Bytes,
    pub(crate) body_is_streamed: bool,
    pub(crate) answer_is_streamed: bool,
    is_repeatable: bool,
    pub(crate) limit: Option<Duration>,
    pub(crate) silence_max: Duration,
    pub(crate) limits: Limits,
}

/// Identifies a request that was sent, until its outcome has been reported. An id is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FetchId(pub(crate) u64);

/// The method is not a token, or the target is not a path with or without a query, in ASCII, and
/// percent-encoded where necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the method or the target of a request is malformed")]
pub struct BadTarget;

impl Fetch {
    /// Creates a request with any method but CONNECT. The target is a path with or without a query,
    /// or `*` for OPTIONS.
    ///
    /// # Errors
    /// If the method is CONNECT or not a token, or if the target is malformed.
    pub fn new(method: impl Into<Cow<'static, str>>, target: impl Into<String>) -> Result<Self, BadTarget> {
        let (method, target) = (method.into(), target.into());
        let is_token = !method.is_empty() && method.bytes().all(is_token_byte) && method != "CONNECT";
        let is_path = target.starts_with('/') || method == "OPTIONS" && target == "*";
        let is_clean = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_token || !is_path || !is_clean {
            return Err(BadTarget);
        }
        Ok(Self {
            method,
            target,
            fields: Fields::default(),
            body: Bytes::new(),
            body_is_streamed: false,
            answer_is_streamed: false,
            is_repeatable: false,
            limit: Some(Duration::from_secs(30)),
            silence_max: Duration::from_secs(30),
            limits: Limits::default(),
        })
    }

    /// Creates a GET request.
    ///
    /// # Errors
    /// If the target is malformed.
    pub fn get(target: impl Into<String>) -> Result<Self, BadTarget> {
        Self::new("GET", target)
    }

    /// Creates a POST request.
    ///
    /// # Errors
    /// If the target is malformed.
    pub fn post(target: impl Into<String>) -> Result<Self, BadTarget> {
        Self::new("POST", target)
    }

    /// Adds a header field whose value is fixed in the program. The encoder writes `Host`,
    /// `Content-Length` and `Transfer-Encoding` itself, and never sends `Connection`, `Expect` and
    /// `Upgrade`.
    ///
    /// # Panics
    /// If the value has control characters, the name is not a token, or it is one of these six.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.add(name, value, &WRITTEN);
        self
    }

    /// Adds a header field whose value is not known to be valid, such as user input.
    ///
    /// # Errors
    /// If the value has control characters.
    ///
    /// # Panics
    /// If the name is not a token, or is one of the six that [`header`](Self::header) refuses.
    pub fn try_header(mut self, name: &'static str, value: impl Into<String>) -> Result<Self, BadHeaderValue> {
        self.fields.try_add(name, Cow::Owned(value.into()), &WRITTEN)?;
        Ok(self)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the body later, with chunked coding: in parts passed to
    /// [`Http::write_body`](crate::Http::write_body), until
    /// [`Http::end_body`](crate::Http::end_body). Such a request is never retried.
    #[must_use]
    pub fn streamed_body(mut self) -> Self {
        self.body_is_streamed = true;
        self
    }

    /// Allows this request to be sent twice, although its method (POST, for example) is not
    /// idempotent. It is sent once more if a kept connection turns out to have been closed before
    /// the response began. A server that closes idle connections may do so at any time, even while
    /// a request is on its way.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    /// Reports the response body piece by piece as it arrives, without a limit. By default the body
    /// is collected. [`Http::pause_fetch`](crate::Http::pause_fetch) applies backpressure to the
    /// server.
    #[must_use]
    pub fn streamed(mut self) -> Self {
        self.answer_is_streamed = true;
        self
    }

    /// Sets the maximum size of a collected response body, in bytes. If the body is longer, the
    /// request fails. Default 1 MiB.
    #[must_use]
    pub fn body_bytes_max(mut self, body_bytes_max: u64) -> Self {
        self.limits.body_bytes_max = body_bytes_max;
        self
    }

    /// Sets how long the whole exchange may take, including the wait for a connection; `None` for a
    /// stream without an end. Default 30 s.
    #[must_use]
    pub fn limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// Sets how long the server may neither send anything nor take anything of the request. Default
    /// 30 s.
    #[must_use]
    pub fn silence_max(mut self, silence_max: Duration) -> Self {
        self.silence_max = silence_max;
        self
    }

    pub(crate) fn asked(&self) -> Asked {
        if self.method == "HEAD" { Asked::Head } else { Asked::Other }
    }

    /// Returns whether the request may be sent twice: because its method is idempotent (RFC 9110,
    /// 9.2.2), or because it is marked as repeatable.
    pub(crate) fn may_be_repeated(&self) -> bool {
        let is_harmless = matches!(&*self.method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE");
        is_harmless || self.is_repeatable && !fault!("repeatable-post-not-repeated")
    }

    /// Encodes the request as it is sent, including the body if it is not streamed.
    pub(crate) fn encode(&self, host: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.body.len());
        for part in [&*self.method, " ", &self.target, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        encode_field(&mut out, "Host", host);
        self.fields.encode(&mut out);
        if self.body_is_streamed {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else if !self.body.is_empty() || matches!(&*self.method, "POST" | "PUT" | "PATCH") {
            out.extend_from_slice(b"Content-Length: ");
            write_decimal(&mut out, self.body.len() as u64);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !self.body_is_streamed {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

/// Progress and outcome of a request. The last report is [`Whole`](Fetched::Whole),
/// [`End`](Fetched::End) or [`Failed`](Fetched::Failed); exactly one of them is reported, once,
/// unless the request is [cancelled](crate::Http::cancel_fetch) or still waits for a connection
/// when the loop ends.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // used where it is reported, and not kept
pub enum Fetched<'a> {
    /// The response with its complete body.
    Whole(ResponseHead<'a>, &'a [u8]),
    /// The head of a response whose body is streamed.
    Head(ResponseHead<'a>),
    /// A piece of the body of a streamed response. [`Http::share`](crate::Http::share) keeps it,
    /// without a copy if it is large.
    Data(&'a [u8]),
    /// The end of a streamed response: the body is complete.
    End,
    /// The kernel has taken all that was written of the request body: more can be written.
    Drained,
    /// The request failed: no response follows, or no more of it.
    Failed(FetchError),
}

/// The reason why a request failed. Only for [`Unknown`](Self::Unknown), [`Busy`](Self::Busy) and
/// [`NotConnected`](Self::NotConnected) is it certain that the server has not acted on the request;
/// and for `NotConnected` only if the request may not be [repeated](Fetch::repeatable). A request
/// that may be repeated can have reached the server on a kept connection before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The loop has no such upstream.
    #[error("there is no such upstream")]
    Unknown,
    /// [`Upstream::waiting_max`] requests already wait for a connection.
    #[error("too many requests are waiting for a connection")]
    Busy,
    /// No connection could be established.
    #[error("cannot connect: {0}")]
    NotConnected(io::ErrorKind),
    /// The connection failed, or ended before the response did.
    #[error("the connection was lost: {0}")]
    Lost(io::ErrorKind),
    /// The response is malformed or exceeds a limit.
    #[error("bad response: {0}")]
    Malformed(#[source] DecodeError),
    /// One of the time limits of the request passed.
    #[error("the request took too long")]
    TimedOut,
    /// The loop shut down, and its drain limit passed.
    #[error("the event loop is shutting down")]
    Shutdown,
    /// The server switched to another protocol.
    #[error("the server switched to another protocol")]
    Switched,
}

impl FetchError {
    /// Returns what the end of a connection means for the request on it.
    pub(crate) fn from_close(reason: CloseReason) -> Self {
        match reason {
            CloseReason::NotConnected(kind) => Self::NotConnected(kind),
            CloseReason::Failed(kind) => Self::Lost(kind),
            CloseReason::TimedOut => Self::TimedOut,
            CloseReason::Shutdown => Self::Shutdown,
            _ => Self::Lost(io::ErrorKind::UnexpectedEof),
        }
    }
}
