//! The application's interface to a server: one object per loop, which receives complete requests.

use std::time::Duration;

use sealed::{Address, CloseReason, ConnectionId, Input, ListenerId, Panic, TimerId};

use crate::client::fetch::{FetchId, Fetched};
use crate::codec::error::DecodeError;
use crate::codec::head::RequestHead;
use crate::codec::response::Response;
use crate::server::exchange::Exchange;
use crate::server::http::Http;
use crate::site::problem::Problem;

/// A complete request, borrowed for the duration of one call.
#[derive(Debug)]
pub struct Request<'a> {
    /// The request line and the header fields.
    pub head: RequestHead<'a>,
    /// The body; empty if the request has none.
    pub body: &'a [u8],
}

/// The decision about a request body, as [`Handler::intake`] returns it.
#[derive(Debug)]
pub enum Intake {
    /// Collects the body, up to [`Limits::body_bytes_max`](crate::codec::Limits::body_bytes_max),
    /// and passes it to the handler with the request. If the handler has started a streamed
    /// response already, the body is streamed too.
    Collect,
    /// Collects the body, up to this many bytes, and passes it to the handler with the request. A
    /// longer body is refused with 413. If the handler has started a response already, the body is
    /// streamed instead, without this limit.
    CollectUpTo(u64),
    /// Passes the body piece by piece to [`Handler::body`], without a limit, and does not call
    /// [`Handler::request`].
    Stream,
    /// Does not read the body. The server sends this response and then closes the connection.
    Refuse(Response),
    /// Sends this response. A body that has a known length and arrived completely together with the
    /// head is discarded, and the connection stays open. Any other body is not read, and the
    /// connection is closed after the response.
    Answer(Response),
}

/// A part of a streamed request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the body; never empty. [`Http::share`] keeps them, without a copy if they are many.
    Data(&'a [u8]),
    /// The end: the body is complete.
    End,
}

/// The result of reading the bytes in front of the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preface {
    /// The preface is incomplete: more bytes are needed.
    Incomplete,
    /// The preface has been consumed; a request follows.
    Over,
    /// The bytes are not a valid preface: the connection is closed without a response.
    Wrong,
}

/// The application's code on one loop.
///
/// A connection carries one exchange at a time. The handler receives a request, and the next
/// request on the same connection only after it has completed the response: with [`Http::respond`]
/// or by ending a stream, at once or at any later time. Requests that a client pipelines meanwhile
/// wait in order. All methods are called on the loop's thread.
#[allow(unused_variables)]
pub trait Handler: Sized + 'static {
    /// State that is kept for each connection. It starts as `Default::default()`.
    type Connection: Default;
    /// Messages that other threads, and other services of the loop, can post to this handler: see
    /// [`Http::mailbox`].
    type Message: Send + 'static;
    /// The value that a timer carries.
    type Timer;

    /// Runs once, in the first tick and before all other calls: the place to start timers and
    /// requests, and to [add](Http::add_service) other services to the loop.
    fn started(&mut self, http: &mut Http<'_, Self>) {}

    /// Handles a client that has connected.
    fn accepted(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {}

    /// Handles an established connection that was started with [`Http::connect`]. If the connection
    /// cannot be established, only [`closed`](Handler::closed) is called.
    fn connected(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {}

    /// Receives bytes that a client sends in front of its first request, on connections for which
    /// [`Http::await_preface`] was called. Take the bytes that belong to the preface and leave the
    /// rest.
    ///
    /// While the preface is incomplete, this method is called again with the remaining bytes and
    /// those that followed; the time limit for the head of the first request runs meanwhile. The
    /// connection is closed if the preface does not fit into the input buffer
    /// ([`sealed::Config::input_bytes_max`]) or is cut off.
    ///
    /// # Example
    /// A server behind a proxy that sends the client's address. If clients could reach the server
    /// directly, `accepted` would have to check the peer's address first.
    ///
    /// ```
    /// use sealed::{Address, Config, ConnectionId, EventLoop, Input, ListenerId};
    /// use sealed_http::{Handler, Http, Request, Response, Server, Settings};
    /// use sealed_http::codec::ProxyHeader;
    /// use sealed_http::server::Preface;
    /// # use std::io::{Read, Write};
    ///
    /// struct WhoAmI;
    ///
    /// impl Handler for WhoAmI {
    ///     type Connection = String;
    ///     type Message = ();
    ///     type Timer = ();
    ///
    ///     fn accepted(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, _: ListenerId, peer: &Address) {
    ///         *http.state_mut(id).unwrap() = peer.to_string();
    ///         http.await_preface(id);
    ///     }
    ///
    ///     fn preface(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) -> Preface {
    ///         match ProxyHeader::decode(input.bytes(), 1_024) {
    ///             Ok(Some((length, header))) => {
    ///                 input.take(length);
    ///                 if let ProxyHeader::Proxied { source, .. } = header {
    ///                     *http.state_mut(id).unwrap() = source.to_string();
    ///                 }
    ///                 Preface::Over
    ///             }
    ///             Ok(None) => Preface::Incomplete,
    ///             Err(_) => Preface::Wrong,
    ///         }
    ///     }
    ///
    ///     fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, _: &Request<'_>) {
    ///         let client = http.state(id).unwrap().clone();
    ///         http.respond(id, &Response::new(200).body(client));
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), WhoAmI))?;
    /// let address = event_loop.listen("127.0.0.1:0")?.address;
    /// # let stopper = event_loop.stopper();
    /// # let running = std::thread::spawn(move || event_loop.run());
    /// # let mut proxy = std::net::TcpStream::connect(address.inet().ok_or("an address")?)?;
    /// # proxy.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\r\n")?;
    /// # proxy.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")?;
    /// # let mut answer = String::new();
    /// # proxy.read_to_string(&mut answer)?;
    /// # assert!(answer.ends_with("\r\n192.0.2.1:4711"), "{answer}");
    /// # drop(proxy);
    /// # stopper.stop();
    /// # running.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    fn preface(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) -> Preface {
        Preface::Over
    }

    /// Handles a complete request. Respond at once, or keep the id and respond later. By default,
    /// responds with 404: a handler that only [sends](Http::fetch) requests needs no more.
    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        http.respond(id, &Problem::new(404).into());
    }

    /// Decides what happens to a request body. Called when the head of a request with a body has
    /// arrived and before any of the body is read. If the client expects `100 Continue`, the server
    /// sends it only if the body is to be read.
    ///
    /// # Example
    /// A handler that counts the bytes of uploads, and takes other bodies up to 64 KiB:
    ///
    /// ```
    /// use sealed::ConnectionId;
    /// use sealed_http::server::{Intake, Piece};
    /// use sealed_http::{Handler, Http, RequestHead};
    ///
    /// struct App;
    ///
    /// impl Handler for App {
    ///     /// The bytes of the upload so far.
    ///     type Connection = u64;
    ///     type Message = ();
    ///     type Timer = ();
    ///
    ///     fn intake(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, head: &RequestHead<'_>) -> Intake {
    ///         if head.path() != "/upload" {
    ///             return Intake::CollectUpTo(64 * 1024);
    ///         }
    ///         if let Some(bytes) = http.state_mut(id) {
    ///             *bytes = 0;
    ///         }
    ///         Intake::Stream
    ///     }
    ///
    ///     fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {
    ///         let Some(bytes) = http.state_mut(id) else { return };
    ///         match piece {
    ///             Piece::Data(data) => *bytes += data.len() as u64,
    ///             Piece::End => {
    ///                 let answer = format!("{bytes} bytes\n");
    ///                 http.respond(id, &answer.into());
    ///             }
    ///         }
    ///     }
    /// }
    /// ```
    fn intake(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, head: &RequestHead<'_>) -> Intake {
        Intake::Collect
    }

    /// Receives a part of a streamed request body.
    ///
    /// The handler can respond at any time from [`intake`](Self::intake) on. If the handler
    /// completes the response before the body ends, the rest of the body is not read, and the
    /// connection is closed. [`Http::pause`] applies backpressure to the client; [`Piece::End`] may
    /// be reported even while the connection is paused. If the body is cut off, only
    /// [`closed`](Self::closed) is called.
    fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {}

    /// Receives bytes of another protocol, after [`Http::upgrade`] has switched the connection to
    /// it. Take the bytes that can be used and leave the rest, as in [`sealed::Service::received`].
    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {}

    /// Returns the response to a request that cannot be decoded; the server then closes the
    /// connection. The default is a [`Problem`].
    fn refusal(&mut self, error: DecodeError) -> Response {
        Problem::from(error).into()
    }

    /// Handles a client that has closed its sending side while its request is unanswered, or while
    /// the connection speaks another protocol. The client may still be reading, or be gone: TCP
    /// cannot tell. By default the exchange goes on, and a connection that speaks another protocol
    /// is closed.
    fn ended(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        http.close_raw(id);
    }

    /// Handles a drained stream, or connection of another protocol: its queue has fallen to
    /// [`output_low_bytes`](sealed::Config::output_low_bytes), by default to nothing, and more can
    /// be written.
    fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {}

    /// Handles a deadline that the handler set for the exchange and that has passed. By default,
    /// aborts the connection. A handler that responds instead must drop a response that arrives
    /// later: see [`Http`].
    fn timed_out(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        http.abort(id);
    }

    /// Handles the completion of a response: [`Http::respond`] queued it, or its stream was ended,
    /// by this handler or by the server. The client may not have received it yet.
    ///
    /// Called once for each response, after the call in which the handler completed it has returned
    /// and before the connection's next request is read. Not called if the connection closes first.
    fn answered(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {}

    /// Returns whether [`exchanged`](Self::exchanged) is to be called. Each exchange then takes
    /// some memory while it lasts. Called once, when the server is created. By default, returns
    /// false.
    fn logs_exchanges(&self) -> bool {
        false
    }

    /// Receives a report of an exchange, for a log, if [`logs_exchanges`](Self::logs_exchanges)
    /// returns true: once for each request that was answered, refused, or cut off by the end of its
    /// connection. A switch to another protocol completes an exchange with 101, or with 2xx.
    ///
    /// Called before the connection's next request is read, and before [`closed`](Self::closed). If
    /// the end of the connection has cut the exchange off, [`Http::state`] returns the default
    /// value already.
    ///
    /// ```
    /// use sealed::ConnectionId;
    /// use sealed_http::{Handler, Http, server::Exchange};
    ///
    /// struct App;
    ///
    /// impl Handler for App {
    ///     type Connection = ();
    ///     type Message = ();
    ///     type Timer = ();
    ///
    ///     fn logs_exchanges(&self) -> bool {
    ///         true
    ///     }
    ///
    ///     fn exchanged(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, exchange: &Exchange) {
    ///         let peer = http.peer_addr(id).map_or(String::from("-"), |peer| peer.to_string());
    ///         let Exchange { method, path, status, body_bytes, time, .. } = exchange;
    ///         println!("{peer} {method} {path} {} {body_bytes} {time:?}", status.unwrap_or(0));
    ///     }
    /// }
    /// ```
    fn exchanged(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, exchange: &Exchange) {}

    /// Handles the end of a connection, whether its request was answered or not. Called once for
    /// each connection, as the last call for it.
    fn closed(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, state: Self::Connection, reason: CloseReason) {}

    /// Receives the progress and the outcome of a request that was sent with [`Http::fetch`].
    fn fetched(&mut self, http: &mut Http<'_, Self>, id: FetchId, fetched: Fetched<'_>) {}

    /// Handles a message that was posted to the mailbox.
    fn message(&mut self, http: &mut Http<'_, Self>, message: Self::Message) {}

    /// Handles the expiry of a timer.
    fn expired(&mut self, http: &mut Http<'_, Self>, timer: TimerId, value: Self::Timer) {}

    /// Decides how to go on after a panic: see [`sealed::Service::panicked`].
    ///
    /// By default the panic ends the loop. If the handler returns `Ok`, the loop goes on, and only
    /// the connection is lost. After a panic in a call that belongs to no connection, such as
    /// [`message`](Handler::message), the responses that this call should have sent are still owed.
    ///
    /// # Errors
    /// Return the payload to end the loop.
    fn panicked(&mut self, http: &mut Http<'_, Self>, id: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        Err(payload)
    }

    /// Handles a signal that was requested with
    /// [`EventLoop::deliver_signals`](sealed::EventLoop::deliver_signals) or
    /// [`Pool::deliver_signals`](sealed::Pool::deliver_signals).
    fn signalled(&mut self, http: &mut Http<'_, Self>, signal: i32) {}

    /// Runs at the end of each tick, before output is flushed.
    fn turned(&mut self, http: &mut Http<'_, Self>) {}

    /// Handles the start of a shutdown. Exchanges that are not complete within `limit` are cut off.
    /// Connections between two requests are closed after a short grace period. Requests sent with
    /// [`Http::fetch`] go on, and more can be sent, until `limit` has passed, so a handler that
    /// polls another server stops its timer here.
    fn draining(&mut self, http: &mut Http<'_, Self>, limit: Duration) {}
}
