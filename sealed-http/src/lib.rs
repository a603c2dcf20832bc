//! HTTP/1.1, small and strict: a codec on byte slices, and a server on the [`sealed`] event loop.
//!
//! [`RequestDecoder`] and [`Response`] are plain state machines, usable with no event loop at all. [`Server`] is a
//! [`sealed::Service`] that puts them on connections and hands whole requests to a [`Handler`], which answers at once,
//! holds the request and answers later, or streams. A body is collected under a limit, told as it comes, or refused unread, as
//! [`Handler::intake`] decides; a connection can be handed over to another protocol ([`Http::upgrade`]), of which
//! WebSocket is one (`websocket`, with the feature of that name). What a proxy says in front of the first request is for
//! [`Handler::preface`] to read, with [`ProxyHeader`].
//!
//! # A site
//!
//! A [`Site`] is a handler made of pages: functions by method and pattern, over one state of the user's.
//!
//! ```no_run
//! use sealed_http::{Problem, Site};
//!
//! fn main() -> sealed::Result<()> {
//!     Site::new(Vec::<String>::new())
//!         .get("/notes/{number}", |notes, _, params| {
//!             let note = params["number"].parse().ok().and_then(|number: usize| notes.get(number).cloned());
//!             note.ok_or(Problem::new(404).detail("There is no such note."))
//!         })
//!         .post("/notes", |notes, request, _| -> Result<&str, Problem> {
//!             notes.push(request.form()?.get("text")?.unwrap_or_default().into_owned());
//!             Ok("Noted.\n")
//!         })
//!         .run("127.0.0.1:8080")
//! }
//! ```
//!
//! Its parts can be had alone: [`Routes`] from methods and patterns to any value, [`Query`] for queries and forms,
//! [`Problem`] for errors that a client can read (RFC 9457), [`StaticFile`] for files that are part of the program.
//!
//! # A server
//!
//! Who needs more implements [`Handler`]: state for each connection, deadlines, streams that are fed as they drain.
//!
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
//! # A client
//!
//! The same [`Http`] sends requests to other servers: [`Http::add_upstream`] names one and how many connections to it may
//! be kept, [`Http::fetch`] sends, and what comes of it is told to [`Handler::fetched`], once, whatever happens. Answers are
//! collected, or streamed; [`EventStream`] reads those that are Server-Sent Events. A loop that only asks is a server
//! that listens nowhere:
//!
//! ```no_run
//! use sealed::{Config, ConnectionId, EventLoop};
//! use sealed_http::{Fetch, FetchId, Fetched, Handler, Http, Request, Response, Server, Settings, Upstream};
//!
//! struct Asker;
//!
//! impl Handler for Asker {
//!     type Connection = ();
//!     type Message = ();
//!     type Timer = ();
//!
//!     fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, _: &Request<'_>) {
//!         http.respond(id, &Response::new(404));
//!     }
//!
//!     fn fetched(&mut self, http: &mut Http<'_, Self>, _: FetchId, fetched: Fetched<'_>) {
//!         match fetched {
//!             Fetched::Whole(head, body) => println!("{} {}", head.status(), String::from_utf8_lossy(body)),
//!             Fetched::Failed(error) => eprintln!("{error}"),
//!             _ => {} // Only of requests that are streamed.
//!         }
//!         http.stop();
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), Asker))?;
//!     let (server, cx) = event_loop.parts();
//!     let (_, mut http) = server.parts(cx);
//!     let upstream = http.add_upstream(Upstream::to("127.0.0.1:8080"));
//!     http.fetch(upstream, &Fetch::get("/world")?);
//!     Ok(event_loop.run()?)
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
//! HTTP/2, compression, files from a disk: put a proxy in front. TLS is [`sealed`]'s: listen with it, and nothing changes here.

// Nothing that comes from outside ends the process.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::unreachable))]

mod chunked;
mod client;
mod connection;
mod cors;
mod decoder;
mod error;
mod event_stream;
mod fetch;
mod fields;
mod form;
mod handler;
mod head;
mod http;
mod intake;
mod limits;
mod loop_context;
mod params;
mod problem;
mod proxy_header;
mod query;
mod reply;
mod response;
mod response_decoder;
mod response_head;
mod routes;
mod server;
mod site;
mod static_file;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use connection::Connection;
pub use cors::{Cors, Field, Origins};
pub use decoder::{Event, RequestDecoder};
pub use error::DecodeError;
pub use event_stream::{EventStream, EventTooLong, StreamEvent};
pub use fetch::{BadTarget, Fetch, FetchError, FetchId, Fetched, Upstream, UpstreamId};
pub use fields::BadHeaderValue;
pub use handler::{Handler, Intake, Piece, Preface, Request};
pub use head::{Method, RequestHead};
pub use http::Http;
pub use limits::{HEADERS_MAX, Limits};
pub use params::Params;
pub use problem::{Member, Problem};
pub use proxy_header::{BadProxyHeader, ProxyHeader};
pub use query::{BadEncoding, Query, decode_segment};
pub use response::{CONTINUE, Response, encode_chunk, encode_last_chunk, reason};
pub use response_decoder::{ResponseDecoder, ResponseEvent};
pub use response_head::{Asked, ResponseHead};
pub use routes::{Methods, NoRoute, Routes};
pub use server::{Server, ServerTimer, Settings};
pub use site::{Site, Task};
pub use static_file::StaticFile;
