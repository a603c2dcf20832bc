//! A small, strict HTTP/1.1 implementation: a codec on byte slices, and a server and client on the
//! [`sealed`] event loop.
//!
//! [`RequestDecoder`](codec::RequestDecoder) is a plain state machine and [`Response`] a plain
//! value; neither needs an event loop. [`Server`] is a [`sealed::Service`] that runs them on
//! connections and passes complete requests to a [`Handler`]. The handler responds at once, holds
//! the request and responds later, or streams the response.
//!
//! [`Handler::intake`] decides what happens to a request body: the server collects it under a
//! limit, passes it on as it arrives, or refuses it unread. A connection can switch to another
//! protocol ([`Http::upgrade`]), for example to WebSocket (`websocket`, with the feature of that
//! name). To read what a proxy sends in front of the first request, implement [`Handler::preface`]
//! and decode it with [`ProxyHeader`](codec::ProxyHeader).
//!
//! | module | what it has |
//! | --- | --- |
//! | [`codec`] | requests and responses as bytes |
//! | [`server`] | the service, its handler, and what a handler can do |
//! | [`client`] | requests to other servers, and Server-Sent Events from them |
//! | [`site`] | pages by pattern, queries and forms, problems, files, WebSockets, CORS |
//! | `websocket` | WebSocket, with the feature of that name |
//! | [`guide`] | short answers: JSON, what pages have in common, cookies, large bodies |
//!
//! No feature is on by default.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `files` | files of a directory: `Site::directory` |
//! | `tls` | TLS for the client (`Upstream::tls`), and `Http::tls`; a server listens with `sealed::Listen::tls` |
//! | `websocket` | WebSocket, also in a [`Site`] |
//!
//! The types that nearly every program uses are also at the root.
//!
//! Other protocols, datagrams, and file descriptors of other libraries belong in services of their
//! own on the same loop: see [`Http::add_service`].
//!
//! # A site
//!
//! A [`Site`] is a handler made of pages: functions that are registered by method and path pattern
//! and share one user-defined state.
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
//! Its parts can be used on their own: [`Routes`](site::Routes) maps methods and patterns to values
//! of any type, [`Query`](site::Query) reads queries and forms, [`Problem`] represents errors in a
//! format that clients can parse (RFC 9457), and [`StaticFile`](site::StaticFile) serves files that
//! are compiled into the program.
//!
//! # A server
//!
//! To keep state for each connection, set deadlines, or feed streams as they drain, implement
//! [`Handler`].
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
//! [`Http`] also sends requests to other servers. [`Http::add_upstream`] names a server and sets
//! how many connections to it may be kept, and [`Http::fetch`] sends a request.
//! [`Handler::fetched`] reports the outcome of each request once, whether it succeeds or
//! [fails](client::FetchError). Responses are collected or streamed;
//! [`EventStream`](client::EventStream) parses responses that are Server-Sent Events. A program
//! that only sends requests listens on no address and implements no more of [`Handler`] than this:
//!
//! ```no_run
//! use sealed::{Config, EventLoop};
//! use sealed_http::{Handler, Http, Server, Settings};
//! use sealed_http::client::{Fetch, Fetched, FetchId, Upstream};
//!
//! struct Asker(Fetch);
//!
//! impl Handler for Asker {
//!     type Connection = ();
//!     type Message = ();
//!     type Timer = ();
//!
//!     fn started(&mut self, http: &mut Http<'_, Self>) {
//!         let upstream = http.add_upstream(Upstream::to("127.0.0.1:8080"));
//!         http.fetch(upstream, &self.0);
//!     }
//!
//!     fn fetched(&mut self, http: &mut Http<'_, Self>, _: FetchId, fetched: Fetched<'_>) {
//!         match fetched {
//!             Fetched::Whole(head, body) => println!("{} {}", head.status(), String::from_utf8_lossy(body)),
//!             Fetched::Failed(error) => eprintln!("{error}"),
//!             _ => {} // Only for streamed requests.
//!         }
//!         http.stop();
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let asker = Asker(Fetch::get("/world")?);
//!     Ok(EventLoop::new(Config::default(), Server::new(Settings::default(), asker))?.run()?)
//! }
//! ```
//!
//! A handler can also speak another protocol on connections that it makes: see [`Http::connect`].
//!
//! # What it refuses
//!
//! The decoder refuses messages that two implementations might interpret differently, as in request
//! smuggling: [`DecodeError`](codec::DecodeError) lists them. The server answers a refused request
//! with the status of the error, closes the connection, and ignores all bytes that follow.
//! [`Limits`](codec::Limits) has the limits on sizes, and [`Settings`] those on time.
//!
//! # What it is not for
//!
//! The crate has neither HTTP/2 nor compression; use a proxy for these.

// No input from outside may end the process.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::unreachable))]

pub mod client;
pub mod codec;
pub mod guide;
pub mod server;
pub mod site;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use codec::{Method, RequestHead, Response};
pub use server::{Handler, Http, Request, Server, Settings};
pub use site::{Problem, Site};
