//! The opening handshake, for servers and for clients (RFC 6455, 4).

// Crates compute SHA-1 and Base64. The handshake of tungstenite would bring a second HTTP
// implementation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use crate::codec::framing::has_token;
use crate::codec::head::{Method, RequestHead};
use crate::codec::response::Response;
use crate::codec::response_head::ResponseHead;
use crate::site::problem::Problem;

/// The string that a server appends to the client's key before hashing it.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION: &str = "13";

/// A valid request for a WebSocket, ready to be accepted.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted<'a> {
    /// The 101 response, for [`Http::upgrade`](crate::Http::upgrade). Fields can be added to it.
    pub response: Response,
    /// The chosen subprotocol; `None` if the client asked for none of the server's subprotocols.
    pub protocol: Option<&'static str>,
    /// The origin of the page, which browsers always send. `None` means that the client is not a
    /// browser.
    ///
    /// Check it. Any page on the web can open a WebSocket to any server that its visitor can reach,
    /// with the visitor's cookies, and read what the server sends: CORS does not apply, and
    /// browsers send no preflight request.
    pub origin: Option<&'a str>,
}

/// The reason why a request for a WebSocket is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The method is not GET.
    #[error("a WebSocket has to be opened with GET")]
    Method,
    /// The request lacks `Upgrade: websocket` or `Connection: Upgrade`, or does not use HTTP/1.1.
    #[error("this path is for WebSockets")]
    NotAsked,
    /// The request asks for another version, or for none.
    #[error("the version of WebSocket has to be 13")]
    Version,
    /// The key is missing, repeated, or not 16 bytes in Base64.
    #[error("the Sec-WebSocket-Key header field is missing or malformed")]
    Key,
    /// The subprotocols are not a list of tokens.
    #[error("the Sec-WebSocket-Protocol header field is malformed")]
    Protocol,
    /// The origin is repeated or not ASCII.
    #[error("the Origin header field is malformed")]
    Origin,
    /// The request has a body, which could be confused with frames.
    #[error("a request for a WebSocket has no body")]
    Body,
}

impl Refusal {
    /// Returns the status of the response: 400, 405 or 426.
    pub fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::NotAsked | Self::Version => 426,
            Self::Key | Self::Protocol | Self::Origin | Self::Body => 400,
        }
    }

    /// Returns a stable name of the error, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Method => "method_not_allowed",
            Self::NotAsked => "websocket_required",
            Self::Version => "bad_websocket_version",
            Self::Key => "bad_websocket_key",
            Self::Protocol => "bad_websocket_protocol",
            Self::Origin => "bad_origin",
            Self::Body => "unexpected_body",
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.status()).code(refusal.code()).detail(refusal.to_string())
    }
}

/// Adds the header fields that state what the server would accept.
impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let response = Self::from(Problem::from(refusal));
        match refusal {
            Refusal::Method => response.header("Allow", "GET"),
            Refusal::NotAsked | Refusal::Version => {
                response.header("Upgrade", "websocket").header("Sec-WebSocket-Version", VERSION)
            }
            _ => response,
        }
    }
}

/// Returns whether a request asks for a WebSocket, even if the request is malformed. Use this
/// function if the same path serves something else, too.
pub fn is_asked(head: &RequestHead<'_>) -> bool {
    // Some clients list several protocols, in several fields.
    let is_listed =
        |(name, value): (&str, &[u8])| name.eq_ignore_ascii_case("upgrade") && has_token(value, "websocket");
    head.upgrade().is_some() && head.headers().any(is_listed)
}

/// Checks a request for a WebSocket and makes the response. `protocols` are the subprotocols that
/// the server supports, in order of preference; the first that the client asks for is chosen. If
/// the client asks for none of them, the response names none, and the client decides.
///
/// Extensions, including compression, are never negotiated.
///
/// # Errors
/// If the request cannot be accepted. The [`Refusal`] converts into the response to send.
///
/// # Panics
/// If one of the server's subprotocols is not a token.
///
/// # Example
/// ```
/// use sealed_http::{RequestHead, Response, websocket};
/// use sealed_http::codec::Limits;
///
/// let head = b"GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: https://h\r\n\
///     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// let head = RequestHead::parse(head, &Limits::default()).unwrap();
/// let answer: Response = match websocket::accept(&head, &[]) {
///     Ok(accepted) if accepted.origin.is_some_and(|origin| origin != "https://h") => Response::new(403),
///     Ok(accepted) => accepted.response, // for `Http::upgrade`
///     Err(refusal) => refusal.into(),
/// };
/// assert_eq!(answer.status(), 101);
/// ```
pub fn accept<'a>(head: &RequestHead<'a>, protocols: &[&'static str]) -> Result<Accepted<'a>, Refusal> {
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(crate::codec::head::is_token_byte);
    assert!(protocols.iter().all(|protocol| is_token(protocol)), "not all tokens: {protocols:?}");
    if head.method() != Method::Get {
        return Err(Refusal::Method);
    }
    if !is_asked(head) {
        return Err(Refusal::NotAsked);
    }
    if only(head, "Sec-WebSocket-Version", Refusal::Version)? != Some(VERSION) {
        return Err(Refusal::Version);
    }
    let key = only(head, "Sec-WebSocket-Key", Refusal::Key)?.ok_or(Refusal::Key)?;
    if BASE64.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(Refusal::Key);
    }
    let origin = only(head, "Origin", Refusal::Origin)?;
    if head.has_body() {
        return Err(Refusal::Body);
    }
    let mut asked = Vec::new();
    for (_, value) in head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Protocol")) {
        let list = std::str::from_utf8(value).map_err(|_| Refusal::Protocol)?;
        asked.extend(list.split(',').map(str::trim_ascii));
    }
    if !asked.iter().all(|protocol| is_token(protocol)) {
        return Err(Refusal::Protocol);
    }
    let protocol = protocols.iter().find(|protocol| asked.contains(*protocol)).copied();
    let mut response =
        Response::new(101).header("Upgrade", "websocket").with(&[("Sec-WebSocket-Accept", answer_to(key))]);
    if let Some(protocol) = protocol {
        response = response.header("Sec-WebSocket-Protocol", protocol);
    }
    Ok(Accepted { response, protocol, origin })
}

/// A client's challenge in the opening handshake. The response proves that the server speaks
/// WebSocket.
///
/// A request for a WebSocket is a GET with the fields `Upgrade: websocket`, `Connection: Upgrade`,
/// `Sec-WebSocket-Version: 13`, and `Sec-WebSocket-Key` with this [`key`](Self::key). A handler
/// connects with [`Http::connect`](crate::Http::connect), writes the request, and passes the bytes
/// that it receives to a [`ResponseDecoder`](crate::codec::ResponseDecoder);
/// [`Http::fetch`](crate::Http::fetch) cannot switch protocols.
///
/// ```
/// use sealed_http::codec::{Asked, Limits, ResponseDecoder, ResponseEvent};
/// use sealed_http::websocket::Challenge;
///
/// // In a program: 16 random bytes, such as those of `Http::secret`.
/// let challenge = Challenge::new(*b"the sample nonce");
/// let request = format!(
///     "GET /chat HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
///      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
///     challenge.key(),
/// );
/// # assert!(request.contains("dGhlIHNhbXBsZSBub25jZQ=="));
/// let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
///     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// let mut decoder = ResponseDecoder::new();
/// let (used, event) = decoder.decode(answer, Asked::Other, &Limits::default())?;
/// let ResponseEvent::Head(head) = event else { return Err("not a complete head".into()) };
/// assert_eq!(challenge.check(&head, &[])?, None);
/// // Frames follow from here on.
/// assert_eq!(used, answer.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Challenge {
    key: String,
}

impl Challenge {
    /// Creates a challenge from 16 random bytes. Use new bytes for each connection.
    pub fn new(nonce: [u8; 16]) -> Self {
        Self { key: BASE64.encode(nonce) }
    }

    /// Returns the value of `Sec-WebSocket-Key`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Checks the response of the server; frames follow a valid response. The response must name no
    /// extension, and no subprotocol except one of `protocols`. Returns the subprotocol that the
    /// response names.
    ///
    /// # Errors
    /// If the response does not open the WebSocket, or does not meet the challenge.
    pub fn check<'a>(&self, head: &ResponseHead<'a>, protocols: &[&str]) -> Result<Option<&'a str>, BadAnswer> {
        let has = |name: &str, token: &str| {
            head.headers().any(|(held, value)| held.eq_ignore_ascii_case(name) && has_token(value, token))
        };
        let protocol = head.header_str("Sec-WebSocket-Protocol");
        let is_met = head.status() == 101
            && has("Upgrade", "websocket")
            && has("Connection", "upgrade")
            && head.header_str("Sec-WebSocket-Accept") == Some(&answer_to(&self.key))
            && head.header("Sec-WebSocket-Extensions").is_none()
            && protocol.is_none_or(|protocol| protocols.contains(&protocol));
        is_met.then_some(protocol).ok_or(BadAnswer)
    }
}

/// The server does not open the WebSocket that the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server does not open a WebSocket")]
pub struct BadAnswer;

fn answer_to(key: &str) -> String {
    BASE64.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Returns the value of a header field that may occur at most once. Refuses a field that is
/// repeated or not ASCII.
fn only<'a>(head: &RequestHead<'a>, name: &str, refusal: Refusal) -> Result<Option<&'a str>, Refusal> {
    let mut values = head.headers().filter(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) if value.is_ascii() => std::str::from_utf8(value).map(Some).map_err(|_| refusal),
        _ => Err(refusal),
    }
}
