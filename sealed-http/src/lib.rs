//! HTTP/1.1, small and strict: a codec on byte slices, and a server on the [`sealed`] event loop.
//!
//! [`RequestDecoder`] and [`Response`] are plain state machines, usable with no event loop at all. [`Server`] is a
//! [`sealed::Service`] that puts them on connections and hands whole requests to a [`Handler`], which answers at once,
//! holds the request and answers later, or streams.
//!
//! # A server
//!
//! ```no_run
//! use sealed::{Config, ConnectionId, EventLoop};
//! use sealed_http::{Handler, Http, Request, Response, Server, Settings};
//!
//! struct Hello;
//!
//! impl Handler for Hello {
//!     type Connection = ();
//!     type Message = ();
//!     type Timer = ();
//!
//!     fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
//!         let text = format!("You asked for {}\n", request.head.path());
//!         http.respond(id, &Response::new(200).header("Content-Type", "text/plain").body(text));
//!     }
//! }
//!
//! fn main() -> sealed::Result<()> {
//!     let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Hello))?;
//!     event_loop.listen("127.0.0.1:8080")?;
//!     event_loop.run()
//! }
//! ```
//!
//! # What it refuses
//!
//! Everything that two readers might read differently: see [`DecodeError`]. A request that is refused is answered with
//! its status, the connection is closed, and nothing behind it is looked at. Every limit is in [`Limits`].
//!
//! # What it is not for
//!
//! HTTP/2, TLS, compression, files: put a proxy in front. Bodies are collected before the handler sees them.

mod chunked;
mod cors;
mod decoder;
mod error;
mod form;
mod handler;
mod head;
mod http;
mod limits;
mod params;
mod problem;
mod query;
mod response;
mod routes;
mod server;
mod static_file;

pub use cors::{Cors, Field, Origins};
pub use decoder::{Event, RequestDecoder};
pub use error::DecodeError;
pub use handler::{Handler, Request};
pub use head::{Method, RequestHead};
pub use http::Http;
pub use limits::{HEADERS_MAX, Limits};
pub use params::Params;
pub use problem::{Member, Problem};
pub use query::{BadEncoding, Query, decode_segment};
pub use response::{BadHeaderValue, CONTINUE, Response, encode_chunk, encode_last_chunk, reason};
pub use routes::{Methods, NoRoute, Routes};
pub use server::{Connection, Server, Settings};
pub use static_file::StaticFile;
