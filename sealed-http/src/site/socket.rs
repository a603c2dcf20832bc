//! WebSockets of a site.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
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
/// Pings are answered. A client that is silent for [20 s](Self::silence) gets a ping, and is
/// aborted if it is then silent for the same time again and takes none of its output. Messages are
/// limited to 1 MiB, unless [`limits`](Self::limits) is called. A client that does not read is not
/// read from until it does; what other code writes to it meanwhile is queued, up to
/// [`sealed::Config::output_bytes_max`]. At a shutdown, clients get a close frame with 1001, and no
/// more WebSockets are opened.
///
/// Browsers let any page open a WebSocket to any server, with the cookies of that server. So pages,
/// those of this server included, are refused with 403 unless their origin is
/// [allowed](Self::allow_origin). Programs other than
/// browsers send no origin, and are accepted.
///
/// [`Http::send_message`] sends a message to one client. To many clients, send the same frame, such
/// as a [`text_frame`](websocket::text_frame), with [`Http::send_frame`]. [`Http::close_websocket`]
/// closes.
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
///         http.send_frame(*member, &frame);
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
        if http.is_draining() {
            let problem = Problem::new(503).code("shutting_down").detail("The server is shutting down.");
            return http.respond(id, &problem.into());
        }
        if !http.upgrade(id, &accepted.response) {
            let problem = Problem::new(400).code("no_websocket").detail("A request with a body opens no WebSocket.");
            return http.respond(id, &problem.into());
        }
        if let Some(connection) = http.state_mut(id) {
            connection.begin(State::WebSocket(Socket::new(page, self.silence)));
        }
        http.set_deadline(id, self.silence);
        if let Some(open) = &self.open {
            open(state, http, id, request, params);
        }
    }

    /// Passes on what a client has sent.
    pub(crate) fn receive(&self, state: &mut S, http: &mut Http<'_, Site<S>>, id: ConnectionId, input: &mut Input<'_>) {
        if socket(http, id).is_some_and(|socket| socket.codec.is_open()) {
            http.set_deadline(id, self.silence);
        }
        while http.is_open(id) && !http.is_paused(id) {
            let mut out = Vec::new();
            let Some(socket) = socket(http, id) else { return };
            socket.waits_for_room = false;
            // A WebSocket that this side closes only waits for the answer, and not longer because
            // of anything else that comes.
            let is_live = socket.codec.is_open() || fault!("closed-websocket-heard");
            socket.is_asked &= !is_live;
            let read = socket.codec.read(input, &self.limits, &mut out);
            // The codec answers pings, and closes.
            send(http, id, &out);
            match read {
                Ok(Some(Event::Close { .. })) | Err(_) => return http.close(id),
                Ok(None) => break,
                Ok(Some(Event::Text(text))) if is_live => (self.message)(state, http, id, Message::Text(text)),
                Ok(Some(Event::Binary(bytes))) if is_live => (self.message)(state, http, id, Message::Binary(bytes)),
                Ok(Some(_)) => {}
            }
            if !http.has_room(id) && !fault!("deaf-client-read-from") {
                wait_for_room(http, id);
            }
        }
    }

    pub(crate) fn timed_out(&self, http: &mut Http<'_, Site<S>>, id: ConnectionId) {
        let (queued, is_paused) = (http.queued(id), http.is_paused(id));
        let Some(socket) = socket(http, id) else { return };
        // A client that takes its output is slow, not dead, however much is queued meanwhile. One
        // that the page has paused cannot be heard, which is no excuse once the page has closed it.
        let taken = socket.written.saturating_sub(queued as u64);
        let before = std::mem::replace(&mut socket.checked, (queued, taken));
        let is_slow = before.0 > 0 && taken > before.1 && !fault!("slow-websocket-silent");
        let is_unheard = is_paused && !socket.waits_for_room;
        if is_slow || is_unheard && (socket.codec.is_open() || fault!("closed-websocket-stays")) {
            socket.is_asked &= !is_slow;
            return http.set_deadline(id, self.silence);
        }
        // A client that is silent again, or does not answer a close, is gone.
        if std::mem::replace(&mut socket.is_asked, true) || !socket.codec.is_open() {
            return http.abort(id);
        }
        send(http, id, &websocket::ping_frame(b""));
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
    silence: Duration,
    /// A ping is unanswered.
    is_asked: bool,
    /// The client is not read from because it does not take its output.
    waits_for_room: bool,
    /// Number of bytes that were written to the client.
    written: u64,
    /// Number of these that were still queued, and that were taken, at the last check.
    checked: (usize, u64),
}

impl Socket {
    fn new(page: usize, silence: Duration) -> Self {
        Self {
            codec: Codec::default(),
            page,
            silence,
            is_asked: false,
            waits_for_room: false,
            written: 0,
            checked: (0, 0),
        }
    }

    /// Returns whether the site was waiting for the client to take its output, and does not any
    /// more.
    pub(crate) fn has_room_again(&mut self) -> bool {
        std::mem::take(&mut self.waits_for_room)
    }
}

fn socket<'a, S>(http: &'a mut Http<'_, Site<S>>, id: ConnectionId) -> Option<&'a mut Socket> {
    http.state_mut(id)?.socket()
}

/// Queues bytes for a client, and counts them.
fn send<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId, bytes: &[u8]) -> bool {
    count(http, id, bytes.len());
    http.write(id, bytes)
}

fn count<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId, bytes: usize) {
    if let Some(socket) = socket(http, id) {
        socket.written += bytes as u64;
    }
}

/// Reads no more from a client until it has taken its output.
fn wait_for_room<S>(http: &mut Http<'_, Site<S>>, id: ConnectionId) {
    if http.is_paused(id) {
        return;
    }
    http.pause(id);
    if let Some(socket) = socket(http, id) {
        socket.waits_for_room = true;
    }
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
        is_open && send(self, id, &out)
    }

    /// Sends a frame that was encoded once for many WebSockets: by
    /// [`text_frame`](websocket::text_frame), [`binary_frame`](websocket::binary_frame) or
    /// [`ping_frame`](websocket::ping_frame). To close, use
    /// [`close_websocket`](Self::close_websocket). Otherwise like
    /// [`send_message`](Self::send_message).
    pub fn send_frame(&mut self, id: ConnectionId, frame: &Bytes) -> bool {
        let is_open = socket(self, id).is_some_and(|socket| socket.codec.is_open());
        if is_open {
            count(self, id, frame.len());
        }
        is_open && self.write_bytes(id, frame.clone())
    }

    /// Closes a WebSocket with a code and a reason, of which at most 123 bytes are sent. The page
    /// gets no more messages from it. The connection ends when the client has answered, for which
    /// it has the time of [`WebSockets::silence`]. Has no effect if the WebSocket is closing
    /// already.
    pub fn close_websocket(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        let mut out = Vec::new();
        let Some(socket) = socket(self, id) else { return };
        if socket.codec.close(code, reason, &mut out) {
            let silence = socket.silence;
            send(self, id, &out);
            self.set_deadline(id, silence);
            // The answer is heard even if the page has paused the connection.
            self.resume(id);
        }
    }
}
