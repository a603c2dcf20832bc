//! Routing: finds what a request is for by its method and path.

// The table is a tree of segments: literals, then a parameter, then a rest (the remaining path).
// The crate `matchit` does not match methods, so `Allow` would need one table for each method, and
// a search in all of them; a rest is never empty there; and it has 2,200 lines with `unsafe`, while
// the tree here has a hundred lines.

use std::fmt;

use crate::codec::head::{Method, RequestHead};
use crate::codec::response::Response;
use crate::site::params::Params;
use crate::site::problem::Problem;

/// A table that maps methods and path patterns to values: functions, or variants of an enum.
///
/// A pattern is a path whose segments are literal, `{name}` or, only as the last one, `{name...}`.
/// `{name}` matches one segment that is not empty; `{name...}` matches the whole rest of the path,
/// even if it is empty. The path is split as it was sent, and the matched parts are decoded once,
/// afterwards: an escaped `/` separates nothing. A literal segment is compared byte by byte,
/// including escapes; `.` and `..` have no special meaning, and a trailing `/` makes a different
/// path.
///
/// In the value of `{name...}`, an escaped `/` cannot be distinguished from the others once
/// decoded, and `%2e%2e` becomes `..`. Do not make the path of a file from the value:
/// `Site::directory` serves files, and refuses such paths.
///
/// If several patterns match, a literal segment takes precedence over `{name}`, and `{name}` over
/// `{name...}`, from the left. Only patterns with the request's method count. HEAD uses the value
/// of GET if HEAD has none of its own.
///
/// A lookup walks along the path once, and visits further nodes only if patterns overlap: never
/// more segments than all patterns have together. A lookup allocates only for paths with
/// parameters.
///
/// # Example
/// ```
/// use sealed_http::Method;
/// use sealed_http::site::{NoRoute, Routes};
///
/// enum Call { Read, Publish, File }
///
/// let routes = Routes::new()
///     .get("/channels/{name}", Call::Read)
///     .post("/channels/{name}", Call::Publish)
///     .get("/files/{path...}", Call::File);
/// let (call, params) = routes.find(Method::Get, "/channels/a%2Fb")?;
/// assert!(matches!(call, Call::Read));
/// assert_eq!(&params["name"], "a/b");
/// assert_eq!(&routes.find(Method::Head, "/files/css/a.css")?.1["path"], "css/a.css");
/// assert!(matches!(routes.find(Method::Get, "/channels"), Err(NoRoute::NotFound)));
/// let Err(NoRoute::MethodNotAllowed(allowed)) = routes.find(Method::Delete, "/channels/a") else { panic!() };
/// assert_eq!(allowed.to_string(), "GET, HEAD, POST, OPTIONS");
/// # Ok::<(), NoRoute>(())
/// ```
///
/// In a custom handler, with a function for each route:
/// ```
/// use sealed::ConnectionId;
/// use sealed_http::{Handler, Http, Request, Response};
/// use sealed_http::site::{Params, Routes};
///
/// type Page = fn(&mut App, &mut Http<'_, App>, ConnectionId, &Request<'_>, &Params<'_>);
///
/// struct App { routes: Routes<Page>, hellos: u64 }
///
/// impl Handler for App {
///     type Connection = ();
///     type Message = ();
///     type Timer = ();
///
///     fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
///         match self.routes.find_for(&request.head) {
///             Ok((&page, params)) => page(self, http, id, request, &params),
///             Err(why) => http.respond(id, &why.into()),
///         }
///     }
/// }
///
/// fn hello(app: &mut App, http: &mut Http<'_, App>, id: ConnectionId, _: &Request<'_>, params: &Params<'_>) {
///     app.hellos += 1;
///     http.respond(id, &Response::from(format!("Hello, {}\n", &params["name"])));
/// }
///
/// let app = App { routes: Routes::<Page>::new().get("/hello/{name}", hello), hellos: 0 };
/// # drop(app);
/// ```
pub struct Routes<T> {
    root: Node<T>,
    methods: Methods,
}

/// A node of the routing tree: the routes that share the segments up to a `/`.
struct Node<T> {
    /// The nodes after a literal segment, sorted by length and text of the segment.
    literals: Vec<(&'static str, Node<T>)>,
    /// The node after a segment that is a parameter.
    parameter: Option<Box<Node<T>>>,
    /// The patterns that end here.
    ends: Vec<Route<T>>,
    /// The patterns whose parameter `{name...}` starts here.
    rests: Vec<Route<T>>,
}

struct Route<T> {
    method: Method,
    pattern: &'static str,
    names: Vec<&'static str>,
    value: T,
}

impl<T> Routes<T> {
    /// Creates a table without routes.
    pub fn new() -> Self {
        Self { root: Node::new(), methods: Methods::default() }
    }

    /// Adds a route for GET, and for HEAD if HEAD has none of its own.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn get(self, pattern: &'static str, value: T) -> Self {
        self.on(Method::Get, pattern, value)
    }

    /// Adds a route for POST.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn post(self, pattern: &'static str, value: T) -> Self {
        self.on(Method::Post, pattern, value)
    }

    /// Adds a route for PUT.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn put(self, pattern: &'static str, value: T) -> Self {
        self.on(Method::Put, pattern, value)
    }

    /// Adds a route for DELETE.
    ///
    /// # Panics
    /// On the conditions of [`Routes::on`].
    #[must_use]
    #[track_caller]
    pub fn delete(self, pattern: &'static str, value: T) -> Self {
        self.on(Method::Delete, pattern, value)
    }

    /// Adds a route for any method that [`Method`] names, except CONNECT.
    ///
    /// # Panics
    /// If the pattern is malformed, has a name twice, or matches exactly the paths of another
    /// pattern with the same method; or if the method is [`Method::Connect`] or [`Method::Other`].
    #[must_use]
    #[track_caller]
    pub fn on(mut self, method: Method, pattern: &'static str, value: T) -> Self {
        assert!(method != Method::Other, "a route for a method without a name: {pattern}");
        assert!(method != Method::Connect, "CONNECT has no path: {pattern}");
        let Some(path) = pattern.strip_prefix('/') else { panic!("a pattern starts with '/': {pattern:?}") };
        let mut node = &mut self.root;
        let (mut names, mut segments, mut is_open) = (Vec::new(), path.split('/').peekable(), false);
        while let Some(segment) = segments.next() {
            let name = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'));
            let Some(name) = name else {
                assert!(is_literal(segment), "not a segment of a path: {segment:?} in {pattern:?}");
                node = node.literal(segment);
                continue;
            };
            is_open = name.ends_with("...");
            let name = name.strip_suffix("...").unwrap_or(name);
            assert!(is_name(name) && !names.contains(&name), "not a name, or a second time: {name:?} in {pattern:?}");
            assert!(!is_open || segments.peek().is_none(), "nothing can follow {segment:?} in {pattern:?}");
            names.push(name);
            if !is_open {
                node = node.parameter.get_or_insert_with(|| Box::new(Node::new()));
            }
        }
        let routes = if is_open { &mut node.rests } else { &mut node.ends };
        let other = routes.iter().find(|route| route.method == method);
        let other = other.map_or("", |route| route.pattern);
        assert!(other.is_empty(), "{pattern:?} matches the same paths as {other:?}");
        routes.push(Route { method, pattern, names, value });
        self.methods.insert(method);
        self
    }

    /// Returns the value for the method and path of a request, and the path's parameters.
    ///
    /// # Errors
    /// If the table has no value for the request: see [`NoRoute`].
    pub fn find_for<'a>(&self, head: &RequestHead<'a>) -> Result<(&T, Params<'a>), NoRoute> {
        self.find(head.method(), head.path())
    }

    /// Returns the value for a method and a path, and the path's parameters. The path is given as
    /// it was sent: not decoded, and without the query.
    ///
    /// # Errors
    /// If the table has no value for them: see [`NoRoute`].
    pub fn find<'a>(&self, method: Method, path: &'a str) -> Result<(&T, Params<'a>), NoRoute> {
        if path == "*" && method == Method::Options {
            return Err(NoRoute::Options(self.methods));
        }
        let mut search = Search { method, seen: Methods::default(), params: Params::default() };
        let left = path.strip_prefix('/').ok_or(NoRoute::NotFound)?;
        match self.root.find(Some(left), &mut search) {
            Some(route) => {
                search.params.decode(&route.names).map_err(|_| NoRoute::BadEncoding)?;
                Ok((&route.value, search.params))
            }
            None if search.seen == Methods::default() => Err(NoRoute::NotFound),
            None => Err(match method {
                Method::Options => NoRoute::Options(search.seen),
                Method::Other => NoRoute::NotImplemented(search.seen),
                _ => NoRoute::MethodNotAllowed(search.seen),
            }),
        }
    }
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Routes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn add<T>(node: &Node<T>, list: &mut fmt::DebugList<'_, '_>) {
            for route in node.ends.iter().chain(&node.rests) {
                list.entry(&format_args!("{:?} {}", route.method, route.pattern));
            }
            let literals = node.literals.iter().map(|(_, node)| node);
            literals.chain(node.parameter.as_deref()).for_each(|node| add(node, list));
        }
        let mut list = f.debug_list();
        add(&self.root, &mut list);
        list.finish()
    }
}

/// The state of a lookup.
struct Search<'a> {
    method: Method,
    /// The methods of all patterns that match the path.
    seen: Methods,
    params: Params<'a>,
}

impl Search<'_> {
    fn pick<'r, T>(&mut self, routes: &'r [Route<T>]) -> Option<&'r Route<T>> {
        let of = |method| routes.iter().find(|route| route.method == method);
        for route in routes {
            self.seen.insert(route.method);
        }
        of(self.method).or_else(|| if self.method == Method::Head { of(Method::Get) } else { None })
    }
}

impl<T> Node<T> {
    fn new() -> Self {
        Self { literals: Vec::new(), parameter: None, ends: Vec::new(), rests: Vec::new() }
    }

    fn literal(&mut self, segment: &'static str) -> &mut Self {
        let index = self.place_of(segment).unwrap_or_else(|index| {
            self.literals.insert(index, (segment, Self::new()));
            index
        });
        &mut self.literals[index].1
    }

    /// Returns the index of a literal segment, or as an error the index at which to insert it.
    /// Lengths are compared first, which is usually enough.
    fn place_of(&self, segment: &str) -> Result<usize, usize> {
        let order = |literal: &str| literal.len().cmp(&segment.len()).then_with(|| literal.cmp(segment));
        self.literals.binary_search_by(|(literal, _)| order(literal))
    }

    /// Searches the rest of a path: `None` after its last segment. Each node is visited at most
    /// once, so that no path takes more steps than there are nodes.
    fn find<'a>(&self, left: Option<&'a str>, search: &mut Search<'a>) -> Option<&Route<T>> {
        let Some(left) = left else { return search.pick(&self.ends) };
        let (segment, behind) = left.split_once('/').map_or((left, None), |(segment, behind)| (segment, Some(behind)));
        if let Ok(index) = self.place_of(segment) {
            let found = self.literals[index].1.find(behind, search);
            if found.is_some() {
                return found;
            }
        }
        if let Some(node) = self.parameter.as_ref().filter(|_| !segment.is_empty()) {
            search.params.push(segment);
            let found = node.find(behind, search);
            if found.is_some() {
                return found;
            }
            search.params.pop();
        }
        let found = search.pick(&self.rests)?;
        search.params.push(left);
        Some(found)
    }
}

/// The reason why a request has no route. A `NoRoute` converts into the [`Response`] to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No pattern matches the path: 404.
    #[error("there is nothing at this path")]
    NotFound,
    /// A pattern matches, but the percent-encoding of a parameter is malformed: 400.
    #[error("the path's percent-encoding is malformed")]
    BadEncoding,
    /// The path exists, but only with other methods: 405.
    #[error("the path does not have this method, but has {0}")]
    MethodNotAllowed(Methods),
    /// The path exists, but only with other methods, and [`Method`] does not name this one: 501.
    #[error("the method is not implemented; the path has {0}")]
    NotImplemented(Methods),
    /// OPTIONS, without a route of its own, for a path or, with `*`, for the whole table: not an
    /// error, but answered with 204.
    #[error("the path has {0}")]
    Options(Methods),
}

impl From<NoRoute> for Response {
    fn from(why: NoRoute) -> Self {
        let problem = |status, code, detail: &'static str| Self::from(Problem::new(status).code(code).detail(detail));
        let allow = |response: Self, methods: Methods| response.with(&[("Allow", methods.to_string())]);
        match why {
            NoRoute::NotFound => problem(404, "not_found", "There is nothing at this path."),
            NoRoute::BadEncoding => problem(400, "bad_encoding", "The path's percent-encoding is malformed."),
            NoRoute::MethodNotAllowed(methods) => {
                let detail = "The path has no such method; see the Allow header.";
                allow(problem(405, "method_not_allowed", detail), methods)
            }
            NoRoute::NotImplemented(methods) => {
                allow(problem(501, "method_not_implemented", "The method is not known here."), methods)
            }
            NoRoute::Options(methods) => allow(Self::new(204), methods),
        }
    }
}

/// A set of methods. `Display` formats it for the field `Allow`, with HEAD if GET is in the set,
/// and always with OPTIONS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Methods(u16);

const NAMES: [(Method, &str); 7] = [
    (Method::Get, "GET"),
    (Method::Head, "HEAD"),
    (Method::Post, "POST"),
    (Method::Put, "PUT"),
    (Method::Patch, "PATCH"),
    (Method::Delete, "DELETE"),
    (Method::Options, "OPTIONS"),
];

impl Methods {
    /// Returns whether a method is in the set. OPTIONS always is, and HEAD is if GET is.
    pub fn contains(self, method: Method) -> bool {
        let has = |method| self.0 & 1 << method as u16 != 0;
        has(method) || method == Method::Options || method == Method::Head && has(Method::Get)
    }

    fn insert(&mut self, method: Method) {
        self.0 |= 1 << method as u16;
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = NAMES.iter().filter(|(method, _)| self.contains(*method)).map(|(_, name)| name);
        names.next().map_or(Ok(()), |first| f.write_str(first))?;
        names.try_for_each(|name| write!(f, ", {name}"))
    }
}

/// Returns whether a segment may occur in a path as it is sent, and does not look like a malformed
/// parameter.
fn is_literal(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#{}".contains(&byte))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
