//! A handler made of pages, the short way to write a server, and its parts: routes, queries and
//! forms, problems, static files, and answers to pages of other origins.

pub(crate) mod conditions;
mod connection;
pub(crate) mod cors;
#[cfg(feature = "files")]
pub(crate) mod directory;
pub(crate) mod form;
pub(crate) mod params;
pub(crate) mod problem;
pub(crate) mod query;
mod reply;
pub(crate) mod routes;
#[cfg(feature = "websocket")]
mod socket;
pub(crate) mod static_file;
#[cfg(feature = "files")]
mod transfer;

pub use connection::SiteConnection;
pub use cors::{Cors, Field, Origins};
#[cfg(feature = "files")]
pub use directory::Directory;
pub use params::Params;
pub use problem::{Member, Problem};
pub use query::{BadEncoding, Query, decode_segment};
pub use routes::{Methods, NoRoute, Routes};
#[cfg(feature = "websocket")]
pub use socket::{Message, WebSockets};
pub use static_file::StaticFile;

use std::fmt;

use sealed::{Config, ConnectionId, EventLoop, Listen, Panic, TimerId};

use crate::codec::head::Method;
use crate::codec::response::Response;
use crate::server::handler::{Handler, Request};
use crate::server::http::Http;
use crate::server::{Exchange, Server, Settings};

/// A closure that runs later on a site's loop, with its state: the value that the site's timers
/// carry and that its mailbox takes.
pub type Task<S> = Box<dyn FnOnce(&mut S, &mut Http<'_, Site<S>>) + Send>;

type Log<S> = Box<dyn Fn(&mut S, &mut Http<'_, Site<S>>, ConnectionId, &Exchange) + Send>;

type Call<S> = Box<dyn Fn(&mut S, &mut Http<'_, Site<S>>, ConnectionId, &Request<'_>, &Params<'_>) + Send>;

enum Page<S: 'static> {
    Call(Call<S>),
    /// The index of the page's WebSockets.
    #[cfg(feature = "websocket")]
    WebSocket(usize),
}

/// A [`Handler`] made of pages: functions that are registered by method and pattern, as in
/// [`Routes`], and share one user-defined state. `Routes` also answers requests that have no page.
/// A site collects request bodies, up to 1 MiB by default, and does not pass on the other calls of
/// [`Handler`]. To send requests to other servers, to stream a response as fast as the client reads
/// it, to receive large bodies, or to switch protocols, implement that trait, and use [`Routes`] in
/// the implementation.
///
/// A page receives the state, the request and its parameters, and returns a value that converts
/// into a [`Response`]: a response, a text, a [`Problem`], or a `Result` of those.
/// A page that responds later, or streams, is added with [`Site::hold`].
///
/// A panic in a page ends the loop, and with it [`run`](Site::run), with an error, unless
/// [`survive_panics`](Site::survive_panics) was called.
///
/// A site belongs to one loop. With a [`sealed::Pool`], each loop makes its own site with its own
/// state. Pages are `Send`, so that a site whose state is `Send` can be
/// [added](sealed::Context::add_service) to the loop of another service.
///
/// [`run`](Site::run) has default settings and one loop. For others, make the [`Server`] yourself.
/// Another thread acts on the site's loop by posting a [`Task`] to its mailbox:
///
/// ```
/// use sealed::{Config, Pool};
/// use sealed_http::codec::Limits;
/// use sealed_http::site::Task;
/// use sealed_http::{Server, Settings, Site};
///
/// let mut pool = Pool::<Task<u64>>::new(Config::default(), None)?;
/// pool.listen("127.0.0.1:0")?;
/// // On any thread: every loop has its own count.
/// for mailbox in pool.mailboxes() {
///     mailbox.post(Box::new(|count, _| *count += 1)).map_err(|_| "the loop is overloaded")?;
/// }
/// # pool.stopper().stop();
/// pool.run(|_place| {
///     let limits = Limits { body_bytes_max: 10 << 20, ..Limits::default() };
///     let settings = Settings { limits, ..Settings::default() };
///     Server::new(settings, Site::new(0).get("/count", |count, _, _| count.to_string()))
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Example
/// ```no_run
/// use sealed_http::Site;
///
/// fn main() -> sealed::Result<()> {
///     Site::new(0_u64)
///         .get("/", |visits, _, _| {
///             *visits += 1;
///             format!("visit {visits}\n")
///         })
///         .get("/hello/{name}", |_, _, params| format!("Hello, {}\n", &params["name"]))
///         .run("127.0.0.1:8080")
/// }
/// ```
pub struct Site<S: 'static> {
    state: S,
    routes: Routes<Page<S>>,
    #[cfg(feature = "websocket")]
    websockets: Vec<WebSockets<S>>,
    log: Option<Log<S>>,
    /// A panic ends the connection that it belongs to, and not the loop.
    survives_panics: bool,
}

impl<S: 'static> Site<S> {
    /// Creates a site without pages.
    pub fn new(state: S) -> Self {
        Self {
            state,
            routes: Routes::new(),
            #[cfg(feature = "websocket")]
            websockets: Vec::new(),
            log: None,
            survives_panics: false,
        }
    }

    /// Adds a page for GET, and for HEAD, which returns only the head.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn get<R: Into<Response>>(
        self,
        pattern: &'static str,
        page: impl Fn(&mut S, &Request<'_>, &Params<'_>) -> R + Send + 'static,
    ) -> Self {
        self.on(Method::Get, pattern, page)
    }

    /// Adds a page for POST.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn post<R: Into<Response>>(
        self,
        pattern: &'static str,
        page: impl Fn(&mut S, &Request<'_>, &Params<'_>) -> R + Send + 'static,
    ) -> Self {
        self.on(Method::Post, pattern, page)
    }

    /// Adds a page for PUT.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn put<R: Into<Response>>(
        self,
        pattern: &'static str,
        page: impl Fn(&mut S, &Request<'_>, &Params<'_>) -> R + Send + 'static,
    ) -> Self {
        self.on(Method::Put, pattern, page)
    }

    /// Adds a page for DELETE.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn delete<R: Into<Response>>(
        self,
        pattern: &'static str,
        page: impl Fn(&mut S, &Request<'_>, &Params<'_>) -> R + Send + 'static,
    ) -> Self {
        self.on(Method::Delete, pattern, page)
    }

    /// Adds a page for any method that [`Method`] names, except CONNECT.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn on<R: Into<Response>>(
        self,
        method: Method,
        pattern: &'static str,
        page: impl Fn(&mut S, &Request<'_>, &Params<'_>) -> R + Send + 'static,
    ) -> Self {
        self.hold(method, pattern, move |state, http, id, request, params| {
            let response = page(state, request, params).into();
            http.respond(id, &response);
        })
    }

    /// Adds a page that gets the [`Http`], and responds by itself, at once or at any later time.
    /// This is also the page that sets timers, passes work to other threads, or stops the loop. It
    /// learns of the end of other work by a [`Task`]; the outcome of [`Http::fetch`] is not passed
    /// on to a site.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// use sealed_http::{Method, Site};
    ///
    /// let site = Site::new(()).hold(Method::Get, "/later", |_, http, id, _, _| {
    ///     http.set_timer(Duration::from_secs(1), Box::new(move |_, http| http.respond(id, &"Now.\n".into())));
    /// });
    /// # drop(site);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn hold(
        mut self,
        method: Method,
        pattern: &'static str,
        page: impl Fn(&mut S, &mut Http<'_, Self>, ConnectionId, &Request<'_>, &Params<'_>) + Send + 'static,
    ) -> Self {
        self.routes = self.routes.on(method, pattern, Page::Call(Box::new(page)));
        self
    }

    /// Adds a page that serves a file.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn file(self, path: &'static str, file: StaticFile) -> Self {
        self.get(path, move |_, request, _| file.answer(&request.head))
    }

    /// Adds a page that serves the files of a directory. The pattern ends in a parameter for the
    /// rest, such as `{path...}`, which is the path below the directory. If the queue of the
    /// workers is full, clients get 503. Requires the feature `files`.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`], and if the pattern does not end in `{name...}`.
    #[cfg(feature = "files")]
    #[must_use]
    #[track_caller]
    pub fn directory(self, pattern: &'static str, directory: Directory) -> Self {
        assert!(pattern.ends_with("...}"), "{pattern:?} has no place for the path below a directory");
        let segments_before = pattern.split('/').count() - 1;
        self.hold(Method::Get, pattern, move |_, http, id, request, _| {
            // As it was sent: once decoded, an escaped `/` looks like any other.
            let path = request.head.path().splitn(segments_before + 1, '/').nth(segments_before);
            transfer::begin(http, id, &directory, directory.lookup(&request.head, path.unwrap_or_default()));
        })
    }

    /// Adds a page that clients open WebSockets with. Requires the feature `websocket`.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[cfg(feature = "websocket")]
    #[must_use]
    #[track_caller]
    pub fn websocket(mut self, pattern: &'static str, websockets: WebSockets<S>) -> Self {
        self.routes = self.routes.on(Method::Get, pattern, Page::WebSocket(self.websockets.len()));
        self.websockets.push(websockets);
        self
    }

    /// Calls `log` for each exchange that has ended: see [`Handler::exchanged`]. For a WebSocket
    /// that is the switch to it, with status 101; its messages are not logged.
    ///
    /// ```
    /// use sealed_http::Site;
    ///
    /// let site = Site::new(()).get("/", |_, _, _| "Hello\n").log(|_, _, _, exchange| {
    ///     println!("{} {} {:?}", exchange.method, exchange.path, exchange.status);
    /// });
    /// # drop(site);
    /// ```
    #[must_use]
    pub fn log(mut self, log: impl Fn(&mut S, &mut Http<'_, Self>, ConnectionId, &Exchange) + Send + 'static) -> Self {
        self.log = Some(Box::new(log));
        self
    }

    /// Lets a panic in a page end only the connection of that page, with a reset. The state must be
    /// usable after a page has been cut off anywhere. The panic hook reports the panic, by default
    /// to the standard error.
    #[must_use]
    pub fn survive_panics(mut self) -> Self {
        self.survives_panics = true;
        self
    }

    /// Returns the state, to be inspected between ticks.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Returns the state for modification, between ticks.
    pub fn state_mut(&mut self) -> &mut S {
        &mut self.state
    }

    /// Serves the site at an address until SIGINT or SIGTERM, on one loop and with default
    /// settings. Blocks the calling thread, which runs the loop.
    ///
    /// # Errors
    /// If the loop cannot be created, cannot listen, cannot handle signals, or fails.
    pub fn run(self, listen: impl Into<Listen>) -> sealed::Result<()> {
        let mut event_loop = EventLoop::new(Config::default(), Server::new(Settings::default(), self))?;
        event_loop.listen(listen)?;
        event_loop.stop_on_signals()?;
        event_loop.run()
    }
}

impl<S: 'static> Handler for Site<S> {
    type Connection = SiteConnection;
    type Message = Task<S>;
    type Timer = Task<S>;

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        match self.routes.find_for(&request.head) {
            Ok((Page::Call(call), params)) => call(&mut self.state, http, id, request, &params),
            #[cfg(feature = "websocket")]
            Ok((Page::WebSocket(page), params)) => {
                self.websockets[*page].accept(*page, &mut self.state, http, id, request, &params);
            }
            Err(why) => http.respond(id, &why.into()),
        }
    }

    fn logs_exchanges(&self) -> bool {
        self.log.is_some()
    }

    fn exchanged(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, exchange: &Exchange) {
        if let Some(log) = &self.log {
            log(&mut self.state, http, id, exchange);
        }
    }

    #[cfg(any(feature = "files", feature = "websocket"))]
    fn drained(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        #[cfg(feature = "files")]
        transfer::read(http, id);
        #[cfg(feature = "websocket")]
        if http.state_mut(id).and_then(SiteConnection::socket).is_some_and(socket::Socket::has_room_again) {
            http.resume(id);
        }
    }

    fn timed_out(&mut self, http: &mut Http<'_, Self>, id: ConnectionId) {
        #[cfg(feature = "websocket")]
        if let Some(page) = http.state_mut(id).and_then(SiteConnection::websocket_page) {
            return self.websockets[page].timed_out(http, id);
        }
        #[cfg(feature = "files")]
        if http.state_mut(id).is_some_and(|connection| connection.transfer().is_some()) {
            return transfer::timed_out(http, id);
        }
        http.abort(id);
    }

    #[cfg(feature = "websocket")]
    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut sealed::Input<'_>) {
        // A page can have switched to a protocol of its own, which a site does not read.
        match http.state_mut(id).and_then(SiteConnection::websocket_page) {
            Some(page) => self.websockets[page].receive(&mut self.state, http, id, input),
            None => _ = input.take_all(),
        }
    }

    #[cfg(feature = "websocket")]
    fn closed(
        &mut self,
        http: &mut Http<'_, Self>,
        id: ConnectionId,
        mut connection: SiteConnection,
        _: sealed::CloseReason,
    ) {
        if let Some(page) = connection.websocket_page() {
            self.websockets[page].closed(&mut self.state, http, id);
        }
    }

    #[cfg(feature = "websocket")]
    fn draining(&mut self, http: &mut Http<'_, Self>, limit: std::time::Duration) {
        for id in http.connection_ids() {
            http.close_websocket(id, crate::websocket::CloseCode::GOING_AWAY, "");
            if http.state_mut(id).and_then(SiteConnection::websocket_page).is_some() {
                http.set_deadline(id, limit);
            }
        }
    }

    fn panicked(&mut self, _: &mut Http<'_, Self>, _: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        if self.survives_panics { Ok(()) } else { Err(payload) }
    }

    fn message(&mut self, http: &mut Http<'_, Self>, task: Task<S>) {
        task(&mut self.state, http);
    }

    fn expired(&mut self, http: &mut Http<'_, Self>, _: TimerId, task: Task<S>) {
        task(&mut self.state, http);
    }
}

impl<S: fmt::Debug> fmt::Debug for Site<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("state", &self.state).field("routes", &self.routes).finish_non_exhaustive()
    }
}
