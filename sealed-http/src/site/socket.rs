//! WebSockets of a site.

use std::fmt;
use std::time::Duration;

use sealed::{ConnectionId, Input, fault};

use crate::codec::response::Response;
use crate::server::handler::Request;
use crate::server::http::Http;
use crate::site::connection::State;
use crate::site::{Params, Problem, Site};
use crate::websocket::{self, CloseCode, Codec, Event, Kind, Limits};

/// A client that is silent for this long gets a ping, unless [`WebSockets::silence`] was called.
const SILENCE: Duration = Duration::from_secs(20);

/// A message of a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

type OnOpen<S> = Box<dyn Fn(&mut S, &mut Http<'_, Site<S>>, ConnectionId, &Request<'_>, &Params<'_>) + Send>;
type OnMessage<S> = Box<dyn Fn(&mut S, &mut Http<'_, Site<S>>, ConnectionId, Message) + Send>;
type OnClose<S> = Box<dyn Fn(&mut S, &mut Http<'_, Site<S>>, ConnectionId) + Send>;

/// The WebSockets of a path of a [`Site`]: what happens when one opens, sends a message, and
/// closes. Requires the feature `websocket`.
///
/// Pings are answered, and a client that is silent for [20 s](Self::silence) gets one; it has the
/// same time again before it is aborted. Messages are limited to 1 MiB, unless
/// [`limits`](Self::limits) is called. A client that does not read is not read from until it does;
/// what other code writes to it meanwhile is queued, up to
/// [`sealed::Config::output_bytes_max`]. At a shutdown, clients get a close frame with 1001.
///
/// Browsers let any page open a WebSocket to any server, with the cookies of that server. So pages
/// are refused with 403 unless their origin is [allowed](Self::allow_origin). Programs other than
/// browsers send no origin, and are accepted.
///
/// [`Http::send_message`] sends a message to one client. To many clients, write the same frame,
/// such as a [`text_frame`](websocket::text_frame), with [`Http::write_bytes`].
/// [`Http::close_websocket`] closes.
///
/// # Example
/// ```no_run
/// use sealed::ConnectionId;
/// use sealed_http::Site;
/// use sealed_http::site::{Message, WebSockets};
/// use sealed_http::websocket::text_frame;
///
/// // Sends each text to all clients.
/// let chat = WebSockets::new(|members: &mut Vec<ConnectionId>, http, _, message| {
///     let Message::Text(text) = message else { return };
///     let frame = text_frame(&text);
///     for member in members {
///         http.write_bytes(*member, frame.clone());
///     }
/// })
/// .on_open(|members, _, id, _, _| members.push(id))
/// .on_close(|members, _, id| members.retain(|member| *member != id))
/// .allow_origin("https://chat.example");
/// Site::new(Vec::new()).websocket("/chat", chat).run("127.0.0.1:8080")?;
/// # Ok::<(), sealed::Error>(())
/// ```
pub struct WebSockets<S: 'static> {
    message: OnMessage<S>,
    open: Option<OnOpen<S>>,
    close: Option<OnClose<S>>,
    origins: Vec<String>,
    silence: Duration,
    limits: Limits,
}

impl<S: 'static> WebSockets<S> {
    /// Calls `message` for each message of a client.
    pub fn new(message: impl Fn(&mut S, &mut Http<'_, Site<S>>, ConnectionId, Message) + Send + 'static) -> Self {
        let (message, limits) = (Box::new(message), Limits::default());
        Self { message, open: None, close: None, origins: Vec::new(), silence: SILENCE, limits }
    }

    /// Calls `open` when a WebSocket has been opened, with the request for it. To refuse a client,
    /// [close](Http::close_websocket) the WebSocket.
    #[must_use]
    pub fn on_open(
        mut self,
        open: impl Fn(&mut S, &mut Http<'_, Site<S>>, ConnectionId, &Request<'_>, &Params<'_>) + Send + 'static,
    ) -> Self {
        self.open = Some(Box::new(open));
        self
    }

    /// Calls `close` once for each WebSocket that has been opened, when its connection has ended.
    #[must_use]
    pub fn on_close(mut self, close: impl Fn(&mut S, &mut Http<'_, Site<S>>, ConnectionId) + Send + 'static) -> Self {
        self.close = Some(Box::new(close));
        self
    }

    /// Accepts pages of an origin, such as `https://chat.example`. `*` accepts all, which is safe
    /// only for a service that any page may use in the name of its visitor.
    #[must_use]
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Sets the time after which a silent client gets a ping. Default 20 s.
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Sets the limits of messages.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Opens a WebSocket, or responds with the reason why not.
    pub(crate) fn accept(
        &self,
        page: usize,
        state: &mut S,
        http: &mut Http<'_, Site<S>>,
        id: ConnectionId,
        request: &Request<'_>,
        params: &Params<'_>,
    ) {
        let accepted = match websocket::accept(&request.head, &[]) {
            Ok(accepted) => accepted,
            Err(refusal) => return http.respond(id, &refusal.into()),
        };
        let is_allowed = |origin| {
            fault!("any-page-opens-websocket") || self.origins.iter().any(|allowed| allowed == "*" || allowed == origin)
        };
        if !accepted.origin.is_none_or(is_allowed) {
            let problem =
                Problem::new(403).code("origin_not_allowed").detail("This page may not open a WebSocket here.");
            return http.respond(id, &Response::from(problem));
        }
        if !http.upgrade(id, &accepted.response) {
            let problem = Problem::new(400).code("no_websocket").detail("A request with a body opens no WebSocket.");
            return http.respond(id, &problem.into());
        }
        if let Some(connection) = http.state_mut(id) {
            connection.begin(State::WebSocket(Socket { codec: Codec::default(), page, is_asked: false }));
        }
        http.set_deadline(id, self.silence);
        if let Some(open) = &self.open {
            open(state, http, id, request, params);
        }
    }

    /// Passes on what a client has sent.
    pub(crate) fn receive(&self, state: &mut S, http: &mut Http<'_, Site<S>>, id: ConnectionId, input: &mut Input<'_>) {
        http.set_deadline(id, self.silence);
        while http.is_open(id) && !http.is_paused(id) {
            let mut out = Vec::new();
            let Some(socket) = socket(http, id) else { return };
            socket.is_asked = false;
            let read = socket.codec.read(input, &self.limits, &mut out);
            // The codec answers pings, and closes.
            if !out.is_empty() && !http.write(id, &out) {
                http.pause(id);
            }
            match read {
                Ok(Some(Event::Text(text))) => (self.message)(state, http, id, Message::Text(text)),
                Ok(Some(Event::Binary(bytes))) => (self.message)(state, http, id, Message::Binary(bytes)),
                Ok(Some(Event::Close { .. })) | Err(_) => return http.close(id),
                Ok(Some(_)) => {}
                Ok(None) => break,
            }
            if !http.has_room(id) && !fault!("deaf-client-read-from") {
                http.pause(id);
            }
        }
    }

    pub(crate) fn timed_out(&self, http: &mut Http<'_, Site<S>>, id: ConnectionId) {
        let Some(socket) = socket(http, id) else { return };
        // A client that is silent again, or does not answer a close, is gone.
        if std::mem::replace(&mut socket.is_asked, true) || !socket.codec.is_open() {
            return http.abort(id);
        }
        http.write(id, &websocket::ping_frame(b""));
        http.set_deadline(id, self.silence);
    }

    pub(crate) fn closed(&self, state: &mut S, http: &mut Http<'_, Site<S>>, id: ConnectionId) {
        if let Some(close) = &self.close {
            close(state, http, id);
        }
    }
}

impl<S> fmt::Debug for WebSockets<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSockets")
            .field("origins", &self.origins)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    codec: Codec,
    /// The index of its page in the site.
    pub(crate) page: usize,
    /// A ping is unanswered.
    is_asked: bool,
}

fn socket<'a, S>(http: &'a mut Http<'_, Site<S>>, id: ConnectionId) -> Option<&'a mut Socket> {
    http.state_mut(id)?.socket()
}

/// Messages on the WebSockets of a site.
impl<S> Http<'_, Site<S>> {
    /// Sends a message on a WebSocket. Returns whether there is room for more, as
    /// [`write`](Self::write) does; false if the id is not that of an open WebSocket.
    pub fn send_message(&mut self, id: ConnectionId, message: &Message) -> bool {
        let (kind, payload) = match message {
            Message::Text(text) => (Kind::Text, text.as_bytes()),
            Message::Binary(bytes) => (Kind::Binary, &bytes[..]),
        };
        let mut out = Vec::new();
        let is_open = socket(self, id).is_some_and(|socket| socket.codec.encode(kind, payload, &mut out));
        is_open && self.write(id, &out)
    }

    /// Closes a WebSocket with a code and a reason, of which at most 123 bytes are sent. The
    /// connection ends when the client has answered; a client that is silent has the time of
    /// [`WebSockets::silence`]. Has no effect if the WebSocket is closing already.
    pub fn close_websocket(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        let mut out = Vec::new();
        if socket(self, id).is_some_and(|socket| socket.codec.close(code, reason, &mut out)) {
            self.write(id, &out);
        }
    }
}
