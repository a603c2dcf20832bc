//! Short answers to questions that come up in most HTTP servers.
//!
//! # JSON
//!
//! The crate has no JSON of its own. With `serde_json`, a page is a function that can fail with a
//! [`Problem`](crate::Problem):
//!
//! ```
//! use sealed_http::{Problem, Request, Response, Site};
//!
//! fn double(request: &Request<'_>) -> Result<Response, Problem> {
//!     let number: i64 = serde_json::from_slice(request.body)
//!         .map_err(|error| Problem::new(422).code("no_number").detail(error.to_string()))?;
//!     let body = serde_json::json!({ "double": number.saturating_mul(2) }).to_string();
//!     Ok(Response::new(200).header("Content-Type", "application/json").body(body))
//! }
//!
//! let site = Site::new(()).post("/double", |_, request, _| double(request));
//! # drop(site);
//! ```
//!
//! # What several pages have in common
//!
//! A middleware is a function that takes a page and returns a page:
//!
//! ```
//! use sealed_http::site::Params;
//! use sealed_http::{Problem, Request, Response, Site};
//!
//! /// Answers 401 to requests without the token.
//! fn guarded<S, R: Into<Response>>(
//!     page: impl Fn(&mut S, &Request<'_>, &Params<'_>) -> R + Send + 'static,
//! ) -> impl Fn(&mut S, &Request<'_>, &Params<'_>) -> Response + Send + 'static {
//!     move |state, request, params| {
//!         // In a server, compare secrets in constant time.
//!         if request.head.header("Authorization") == Some(b"Bearer tea") {
//!             return page(state, request, params).into();
//!         }
//!         let refusal: Response = Problem::new(401).into();
//!         refusal.header("WWW-Authenticate", "Bearer")
//!     }
//! }
//!
//! let site = Site::new(7_u32).get("/secret", guarded(|state: &mut u32, _, _| state.to_string()));
//! # drop(site);
//! ```
//!
//! For a log of all requests, see [`Site::log`](crate::Site::log).
//!
//! # Cookies
//!
//! ```
//! use sealed_http::{Request, Response, Site};
//!
//! fn cookie<'a>(request: &Request<'a>, name: &str) -> Option<&'a str> {
//!     let pairs = request.head.header_str("Cookie")?.split(';');
//!     pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(found, _)| *found == name).map(|(_, value)| value)
//! }
//!
//! let site = Site::new(()).get("/visits", |_, request, _| {
//!     let visits = cookie(request, "visits").and_then(|visits| visits.parse::<u32>().ok()).unwrap_or(0) + 1;
//!     let set = format!("visits={visits}; Path=/; Secure; HttpOnly; SameSite=Lax");
//!     Response::new(200).with(&[("Set-Cookie", set)]).body(format!("{visits}\n"))
//! });
//! # drop(site);
//! ```
//!
//! The crate `cookie` also encodes values, signs them, and formats dates of expiry.
//!
//! # Large bodies
//!
//! [`Intake::Stream`](crate::server::Intake::Stream) passes a body on as it arrives. Send the
//! pieces to another thread by [`Http::share`](crate::Http::share), which does not copy large ones,
//! and write together what has come while the last pieces were written.
//! [Pause](crate::Http::pause) the connection when too many bytes wait, so that the client sends no
//! faster than the disk takes the bytes. The repository's example `upload` does this.
//!
//! A response is streamed with [`Http::start_stream`](crate::Http::start_stream) or, if its length
//! is known, [`start_sized_stream`](crate::Http::start_sized_stream); write until
//! [`write`](crate::Http::write) returns false, and go on in [`drained`](crate::Handler::drained).
//!
//! # Forms with files
//!
//! `multipart/form-data` is parsed by a crate: `multer` has only futures, but needs no runtime. The
//! repository's example `multipart` runs a future for each form on the loop
//! ([`Http::run_future_for`](crate::Http::run_future_for)), passes it the pieces of the body, and
//! responds with its output. `multer` collects the header of a part until the header is complete,
//! so limit the whole form to what may be in memory. Larger files are better sent by PUT, each in a
//! request of its own. Forms without files need no crate: see
//! [`Request::form`](crate::Request::form).
//!
//! # Tests without sockets
//!
//! With the feature `sim` of [`sealed`], a server runs on a simulated network: see `sealed::sim`. A
//! `Peer` there sends the bytes of a request and expects those of the response.
