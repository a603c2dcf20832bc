//! What a client asks for: of whom, what, and what may come of it.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use sealed::{Connect, ToAddresses, fault};

use crate::error::DecodeError;
use crate::fields::{BadHeaderValue, Fields, encode_field};
use crate::head::{is_host, is_token_byte};
use crate::limits::Limits;
use crate::response::write_decimal;
use crate::response_head::{Asked, ResponseHead};

/// What is written for a request, or never sent.
const WRITTEN: [&str; 6] = ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "Upgrade"];

/// A server that requests are sent to, and the connections to it that a loop keeps.
///
/// A name is looked up by the system when it is given here, which may block: make upstreams before the loop runs.
///
/// ```
/// use std::time::Duration;
/// use sealed_http::Upstream;
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

/// Names an upstream of one loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub(crate) usize);

impl Upstream {
    /// A server at an address: `example.org:80`, an IP address with a port, or `unix:/run/app.sock`. `Host` says the same,
    /// or `localhost` for a Unix socket.
    pub fn to(address: impl ToAddresses) -> Self {
        let name = address.name();
        let host = if is_host(name.as_bytes()) { name } else { "localhost".to_owned() };
        Self {
            connect: Connect::to(address),
            host,
            connections_max: 16,
            waiting_max: 1_024,
            idle_timeout: Duration::from_secs(30),
        }
    }

    /// What `Host` says.
    ///
    /// # Panics
    /// Where it is not a host with or without a port.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        assert!(is_host(host.as_bytes()), "not a host: {host:?}");
        host.clone_into(&mut self.host);
        self
    }

    /// Speaks TLS, with a server that has to prove that this is its name.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, connector: sealed::tls::Connector, name: sealed::tls::ServerName<'static>) -> Self {
        self.connect = self.connect.tls(connector, name);
        self
    }

    /// How long it may take to connect, a TLS handshake included. Default 10 s.
    #[must_use]
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.connect = self.connect.limit(limit);
        self
    }

    /// Connections at a time. Requests beyond them wait for one. Default 16.
    #[must_use]
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max.max(1);
        self
    }

    /// Requests that may wait for a connection. Those beyond them fail with [`FetchError::Busy`]. Default 1,024.
    #[must_use]
    pub fn waiting_max(mut self, waiting_max: usize) -> Self {
        self.waiting_max = waiting_max;
        self
    }

    /// How long a connection is kept when nothing is asked on it. Default 30 s.
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = idle_timeout;
        self
    }
}

/// A request to be sent.
///
/// ```
/// use sealed_http::Fetch;
///
/// let fetch = Fetch::post("/hooks?of=news")?.header("Content-Type", "application/json").body("{}");
/// # let _ = fetch;
/// # Ok::<(), sealed_http::BadTarget>(())
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

/// Names a request that was sent, until its outcome has been told. It is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FetchId(pub(crate) u64);

/// A method is not a token, or a target is not a path with or without a query, in ASCII, percent-encoded where it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the method or the target of a request is malformed")]
pub struct BadTarget;

impl Fetch {
    /// Any method, of a path with or without a query. `*` is for OPTIONS. Not for CONNECT.
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

    /// GET.
    pub fn get(target: impl Into<String>) -> Result<Self, BadTarget> {
        Self::new("GET", target)
    }

    /// POST.
    pub fn post(target: impl Into<String>) -> Result<Self, BadTarget> {
        Self::new("POST", target)
    }

    /// Adds a header field that is written down in the program. `Host`, the body's length and `Connection` are written
    /// for it.
    ///
    /// # Panics
    /// Where the value has control characters, or the name is not a token or one that is written for it.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.add(name, value, &WRITTEN);
        self
    }

    /// Adds a header field whose value comes from elsewhere.
    ///
    /// # Panics
    /// Where the name is not a token, or one that is written for it.
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

    /// Lets the body follow in chunks: [`Http::write_body`](crate::Http::write_body), until
    /// [`Http::end_body`](crate::Http::end_body). Such a request is never retried.
    #[must_use]
    pub fn streamed_body(mut self) -> Self {
        self.body_is_streamed = true;
        self
    }

    /// Says that the server may get this request twice without harm, though its method (POST, say) does not promise it: it is sent
    /// once more where a kept connection turns out to have been closed before anything was answered. A server that closes idle
    /// connections does so at any time, also while a request is on its way.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    /// Lets the response's body be told piece by piece, as it comes, without a limit. By default it is collected.
    /// [`Http::pause_fetch`](crate::Http::pause_fetch) slows the server down.
    #[must_use]
    pub fn streamed(mut self) -> Self {
        self.answer_is_streamed = true;
        self
    }

    /// Bytes of a body that is collected; a longer one fails. Default 1 MiB.
    #[must_use]
    pub fn body_bytes_max(mut self, body_bytes_max: u64) -> Self {
        self.limits.body_bytes_max = body_bytes_max;
        self
    }

    /// How long all of it may take, waiting for a connection included; `None` for a stream without an end. Default 30 s.
    #[must_use]
    pub fn limit(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// How long the server may neither send anything nor take anything of the request. Default 30 s.
    #[must_use]
    pub fn silence_max(mut self, silence_max: Duration) -> Self {
        self.silence_max = silence_max;
        self
    }

    pub(crate) fn asked(&self) -> Asked {
        if self.method == "HEAD" { Asked::Head } else { Asked::Other }
    }

    /// Whether it does no harm to send it twice: by RFC 9110, 9.2.2, or by the program's word.
    pub(crate) fn may_be_repeated(&self) -> bool {
        let is_harmless = matches!(&*self.method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE");
        is_harmless || self.is_repeatable && !fault!("repeatable-post-not-repeated")
    }

    /// The request as it is sent, its body included where that is there.
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

/// What is told of a request that was sent. The last of these is [`Whole`](Fetched::Whole), [`End`](Fetched::End) or
/// [`Failed`](Fetched::Failed), once.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // looked at where it is told, and not kept
pub enum Fetched<'a> {
    /// The response, with all of its body.
    Whole(ResponseHead<'a>, &'a [u8]),
    /// The head of a response whose body is streamed.
    Head(ResponseHead<'a>),
    /// A piece of its body.
    Data(&'a [u8]),
    /// Its end: all of it has come.
    End,
    /// What was written of the request's body is with the kernel: more can be given.
    Drained,
    /// There will be no response, or no more of it.
    Failed(FetchError),
}

/// Why a request failed. Whether the server has acted on it is known for the first three alone: it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no such upstream on this loop.
    #[error("there is no such upstream")]
    Unknown,
    /// [`Upstream::waiting_max`] requests are waiting for a connection.
    #[error("too many requests are waiting for a connection")]
    Busy,
    /// No connection could be made.
    #[error("cannot connect: {0}")]
    NotConnected(io::ErrorKind),
    /// The connection failed, or ended before the response did.
    #[error("the connection was lost: {0}")]
    Lost(io::ErrorKind),
    /// The response cannot be understood, or passes a limit.
    #[error("bad response: {0}")]
    Malformed(#[source] DecodeError),
    /// One of its time limits passed.
    #[error("the request took too long")]
    TimedOut,
    /// The server wants to speak another protocol.
    #[error("the server switched to another protocol")]
    Switched,
}
