//! WebSocket (RFC 6455): the opening handshake, and a codec for the frames that follow. Requires
//! the feature `websocket`.
//!
//! [`accept`] checks a request and makes the response with which
//! [`Http::upgrade`](crate::Http::upgrade) switches the connection. From then on
//! [`Handler::raw`](crate::Handler::raw) receives the input. The connection's [`Codec`] decodes
//! messages from it, answers pings, and follows the rules of the closing handshake. A server's
//! frames depend only on their payload: [`text_frame`] makes a frame once, and
//! [`Http::write_framed`](crate::Http::write_framed) sends the same bytes to any number of
//! connections.
//!
//! **Check the origin** of each request ([`Accepted::origin`]): any page on the web can open a
//! WebSocket to any server that its visitor can reach. CORS does not apply to WebSocket.
//!
//! [`Limits`] bound the cost of a message. The codec does not watch the time: the application has
//! to notice a message or a closing handshake that never completes, with [`Codec::is_receiving`]
//! and [`Codec::is_open`].
//!
//! To detect peers that are gone, send pings and set a deadline with
//! [`Http::set_deadline`](crate::Http::set_deadline).
//!
//! # Example
//! ```no_run
//! use sealed::{Config, ConnectionId, EventLoop, Input};
//! use sealed_http::websocket::{self, Codec, Event, Kind, Limits};
//! use sealed_http::{Handler, Http, Request, Response, Server, Settings};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Connection = Codec;
//!     type Message = ();
//!     type Timer = ();
//!
//!     fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
//!         match websocket::accept(&request.head, &[]) {
//!             Ok(accepted) if accepted.origin.is_some_and(|origin| origin != "http://localhost:8080") => {
//!                 http.respond(id, &Response::new(403));
//!             }
//!             Ok(accepted) => {
//!                 http.upgrade(id, &accepted.response);
//!             }
//!             Err(refusal) => http.respond(id, &refusal.into()),
//!         }
//!     }
//!
//!     fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {
//!         let Some(socket) = http.state_mut(id) else { return };
//!         let mut out = Vec::new();
//!         let is_over = loop {
//!             match socket.read(input, &Limits::default(), &mut out) {
//!                 Ok(Some(Event::Text(text))) => {
//!                     socket.encode(Kind::Text, text.as_bytes(), &mut out);
//!                 }
//!                 Ok(Some(Event::Close { .. })) | Err(_) => break true,
//!                 Ok(Some(_)) => {}
//!                 Ok(None) => break false,
//!             }
//!         };
//!         // Stop reading from a client that does not take its answers, until they are taken.
//!         if !http.write(id, &out) {
//!             http.pause(id);
//!         }
//!         if is_over {
//!             http.close(id);
//!         }
//!     }
//!
//!     fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
//!         http.resume(id);
//!     }
//! }
//!
//! fn main() -> sealed::Result<()> {
//!     let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Echo))?;
//!     event_loop.listen("127.0.0.1:8080")?;
//!     event_loop.run()
//! }
//! ```
//!
//! # The codec alone
//! ```
//! use sealed_http::websocket::{Codec, Event, Kind, Limits};
//!
//! let (mut server, mut client) = (Codec::server(), Codec::client(|| [1, 2, 3, 4])); // masks should be random
//! let (mut sent, mut answers) = (Vec::new(), Vec::new());
//! client.encode(Kind::Text, "grüß Gott".as_bytes(), &mut sent);
//! let (used, event) = server.decode(&sent, &Limits::default(), &mut answers)?;
//! assert_eq!((used, event), (sent.len(), Event::Text("grüß Gott".to_owned())));
//! # Ok::<(), sealed_http::websocket::Violation>(())
//! ```

mod codec;
mod frame;
mod handshake;
mod violation;

pub use codec::{Codec, Event, Limits};
pub use frame::{CONTROL_BYTES_MAX, CloseCode, Kind, binary_frame, close_frame, encode_header, ping_frame, text_frame};
pub use handshake::{Accepted, BadAnswer, Challenge, Refusal, accept, is_asked};
pub use violation::Violation;
