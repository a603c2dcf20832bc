//! What an application is to a server: one object for each loop, given whole requests.

use std::time::Duration;

use sealed::{Address, CloseReason, ConnectionId, Input, ListenerId, Panic, TimerId};

use crate::error::DecodeError;
use crate::fetch::{FetchId, Fetched};
use crate::head::RequestHead;
use crate::http::Http;
use crate::problem::Problem;
use crate::response::Response;

/// A request, whole, lent for one call.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its line and header fields.
    pub head: RequestHead<'a>,
    /// Its body; empty where it has none.
    pub body: &'a [u8],
}

/// What is to become of a request's body.
#[derive(Debug)]
pub enum Intake {
    /// It is collected, up to [`Limits::body_bytes_max`](crate::Limits::body_bytes_max), and handed over with the request.
    Collect,
    /// It is collected, up to so many bytes, and handed over with the request. A longer one is refused with 413.
    CollectUpTo(u64),
    /// It is told piece by piece to [`Handler::body`], without a limit, and [`Handler::request`] is not called.
    Stream,
    /// It is not read. This is the answer, and the connection is closed behind it.
    Refuse(Response),
    /// This is the answer. A body of a known length that came along with its head, whole, is thrown away, and the connection
    /// goes on; any other is not read, and the connection is closed behind the answer.
    Answer(Response),
}

/// What comes of a body that is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of it, never none.
    Data(&'a [u8]),
    /// All of it has come.
    End,
}

/// What comes of bytes in front of the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preface {
    /// More of them are to come.
    Incomplete,
    /// They have been taken: what follows is a request.
    Over,
    /// They are not what they have to be: the connection is closed, without a word.
    Wrong,
}

/// The application's code on one loop.
///
/// A connection carries one exchange at a time: a request is handed over, and the next one on the same connection
/// only when it has been answered, with [`Http::respond`] or a stream's end, at once or at any later time. Requests that a client pipelines
/// meanwhile wait in order. Every call comes on the loop's thread.
#[allow(unused_variables)]
pub trait Handler: Sized + 'static {
    /// State kept with each connection. It starts as its default.
    type Connection: Default;
    /// What others may post to this loop.
    type Message: Send + 'static;
    /// What a timer carries.
    type Timer;

    /// A client connected.
    fn accepted(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, listener: ListenerId, peer: &Address) {}

    /// A connection made with [`Http::connect`] is there. One that could not be made is told by [`closed`](Handler::closed)
    /// alone.
    fn connected(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {}

    /// Bytes of a connection for which [`Http::await_preface`] was called, in front of its first request. Take what belongs to
    /// the preface and leave the rest. As long as it is incomplete, this is called again, with what was left and more behind it; the
    /// time for the first request's head runs meanwhile. A connection whose preface is longer than what is kept for it
    /// ([`sealed::Config::input_bytes_max`]), or breaks off, is closed.
    ///
    /// # Example
    /// Behind a proxy that says for whom it connects. Where clients could reach the server themselves, `accepted` would have to look
    /// at the peer's address first.
    ///
    /// ```
    /// use sealed::{Address, Config, ConnectionId, EventLoop, Input, ListenerId};
    /// use sealed_http::{Handler, Http, Preface, ProxyHeader, Request, Response, Server, Settings};
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
    /// let address = event_loop.listen("127.0.0.1:0")?;
    /// # let stopper = event_loop.stopper();
    /// # let running = std::thread::spawn(move || event_loop.run());
    /// # let mut proxy = std::net::TcpStream::connect(address.tcp().ok_or("an address")?)?;
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

    /// A request came. Answer it now, or keep the id and answer later.
    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>);

    /// The head of a request that has a body has come, and none of the body has been looked at. A client that expects it is
    /// told `100 Continue` if the body is to be read, and only then.
    fn intake(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, head: &RequestHead<'_>) -> Intake {
        Intake::Collect
    }

    /// A piece of a body that is streamed. The request can be answered at any time from [`intake`](Self::intake) on; if that
    /// is over before the body is, the rest is not read, and the connection is closed. [`Http::pause`] slows the client
    /// down; the end may be told all the same. A body that breaks off is told by [`closed`](Self::closed) alone.
    fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {}

    /// Bytes of another protocol, to which the connection was switched with [`Http::upgrade`]. Take what can be used and
    /// leave the rest, as in [`sealed::Service::received`].
    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {}

    /// What cannot be decoded is answered with this, and the connection closed. By default with a [`Problem`].
    fn refusal(&mut self, error: DecodeError) -> Response {
        Problem::from(error).into()
    }

    /// The client will send no more while its request is not answered yet, or another protocol is spoken. It may still be
    /// reading, or gone: TCP cannot tell. By default the exchange goes on, and a connection that speaks another protocol is
    /// closed.
    fn ended(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        http.close_raw(id);
    }

    /// All of a stream that was queued is with the kernel: more can be given.
    fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {}

    /// The deadline that was set for the exchange passed. By default the connection is aborted.
    fn timed_out(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        http.abort(id);
    }

    /// The answer to a connection's request is complete: [`Http::respond`] had it, or its stream was ended, by this handler or
    /// by the server. Called once for each answer, before the connection's next request is looked at, when the call in
    /// which the handler completed it has returned. Not called where the connection closes before that.
    fn answered(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {}

    /// The connection is gone, answered or not. Called once for each, and last.
    fn closed(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, state: Self::Connection, reason: CloseReason) {}

    /// Something came of a request that was sent with [`Http::fetch`].
    fn fetched(&mut self, http: &mut Http<'_, Self>, id: FetchId, fetched: Fetched<'_>) {}

    /// A message from the mailbox.
    fn message(&mut self, http: &mut Http<'_, Self>, message: Self::Message) {}

    /// A timer ran out.
    fn expired(&mut self, http: &mut Http<'_, Self>, timer: TimerId, value: Self::Timer) {}

    /// Decides what a panic costs: [`sealed::Service::panicked`]. By default it ends the loop. A handler that keeps the loop
    /// loses only the connection. After a panic in a call for no connection, such as [`message`](Handler::message), the answers
    /// that the call would have given are still due.
    fn panicked(&mut self, http: &mut Http<'_, Self>, id: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        Err(payload)
    }

    /// A signal came that was asked for with [`EventLoop::deliver_signals`](sealed::EventLoop::deliver_signals) or
    /// [`Pool::deliver_signals`](sealed::Pool::deliver_signals).
    fn signalled(&mut self, http: &mut Http<'_, Self>, signal: i32) {}

    /// The end of a tick, before output is flushed.
    fn turned(&mut self, http: &mut Http<'_, Self>) {}

    /// The server goes down: what is not answered within `limit` is cut off. Connections between two
    /// requests are closed shortly.
    fn draining(&mut self, http: &mut Http<'_, Self>, limit: Duration) {}
}
