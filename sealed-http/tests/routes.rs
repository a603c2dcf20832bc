//! Routes: which pattern matches a path, which parameters it has, and the answer if no pattern
//! matches.

use std::panic::catch_unwind;

use sealed::sim::Random;
use sealed_http::codec::Limits;
use sealed_http::site::{NoRoute, Routes};
use sealed_http::{Method, RequestHead, Response};

/// The number of generated tables that are compared with a simple implementation of the rules.
const SEEDS: u64 = 2_000;

fn table() -> Routes<&'static str> {
    Routes::new()
        .get("/", "home")
        .get("/channels", "list")
        .get("/channels/", "slash")
        .get("/channels/{name}", "read")
        .post("/channels/{name}", "publish")
        .get("/channels/news", "news")
        .delete("/channels/{channel}/users/{user}", "kick")
        .get("/channels/{name}/users", "users")
        .on(Method::Head, "/channels/news/users", "count")
        .get("/files/{path...}", "file")
        .on(Method::Options, "/open", "ask")
        .put("/%7Eann", "escaped")
}

#[test]
fn paths_find_their_routes() {
    let routes = table();
    for (method, path, value, params) in [
        (Method::Get, "/", "home", ""),
        (Method::Head, "/", "home", ""),
        (Method::Get, "/channels", "list", ""),
        (Method::Get, "/channels/", "slash", ""),
        (Method::Get, "/channels/a", "read", "name=a"),
        (Method::Post, "/channels/a", "publish", "name=a"),
        (Method::Get, "/channels/news", "news", ""),
        // Only the more general pattern has the method.
        (Method::Post, "/channels/news", "publish", "name=news"),
        (Method::Get, "/channels/newspaper", "read", "name=newspaper"),
        (Method::Get, "/channels/a%2Fb", "read", "name=a/b"),
        (Method::Get, "/channels/a%252Fb", "read", "name=a%2Fb"),
        (Method::Get, "/channels/a+b", "read", "name=a+b"),
        (Method::Get, "/channels/%E4%B8%AD", "read", "name=中"),
        (Method::Get, "/channels/..", "read", "name=.."),
        // An escaped letter differs from the letter: a path that a proxy considers different is
        // different here too.
        (Method::Get, "/channels/new%73", "read", "name=news"),
        (Method::Put, "/%7Eann", "escaped", ""),
        // The search returns from a literal segment that led nowhere.
        (Method::Get, "/channels/news/users", "users", "name=news"),
        (Method::Head, "/channels/news/users", "count", ""),
        (Method::Delete, "/channels/news/users/%C3%A4", "kick", "channel=news user=ä"),
        (Method::Get, "/files/", "file", "path="),
        (Method::Get, "/files/a", "file", "path=a"),
        (Method::Get, "/files/a/b//c.js", "file", "path=a/b//c.js"),
        (Method::Get, "/files/%2e%2e/b", "file", "path=../b"),
        (Method::Get, "/files/a%2Fb/c", "file", "path=a/b/c"),
        (Method::Options, "/open", "ask", ""),
    ] {
        let (found, given) = routes.find(method, path).unwrap_or_else(|why| panic!("{method:?} {path}: {why}"));
        let given: Vec<_> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!((*found, given.join(" ").as_str()), (value, params), "{method:?} {path}");
    }
}

#[test]
fn requests_without_a_route_are_answered() {
    let routes = table();
    for (method, path, status, allow) in [
        ("GET", "/nothing", 404, None),
        ("OPTIONS", "/nothing", 404, None),
        ("PROPFIND", "/nothing", 404, None),
        ("GET", "//", 404, None),
        ("GET", "/channels/a/", 404, None),
        ("GET", "/channels//users", 404, None),
        ("GET", "/files", 404, None),
        ("GET", "/Channels", 404, None),
        ("GET", "/~ann", 404, None),
        ("GET", "/channels/%zz", 400, None),
        ("GET", "/channels/%ff", 400, None),
        ("GET", "/files/a/%4", 400, None),
        ("POST", "/", 405, Some("GET, HEAD, OPTIONS")),
        ("PATCH", "/channels/%zz", 405, Some("GET, HEAD, POST, OPTIONS")),
        ("PUT", "/channels/news", 405, Some("GET, HEAD, POST, OPTIONS")),
        ("GET", "/channels/a/users/b", 405, Some("DELETE, OPTIONS")),
        ("GET", "/open", 405, Some("OPTIONS")),
        ("HEAD", "/%7Eann", 405, Some("PUT, OPTIONS")),
        ("PROPFIND", "/channels/a", 501, Some("GET, HEAD, POST, OPTIONS")),
        ("get", "/", 501, Some("GET, HEAD, OPTIONS")),
        ("OPTIONS", "/channels/news", 204, Some("GET, HEAD, POST, OPTIONS")),
        ("OPTIONS", "*", 204, Some("GET, HEAD, POST, PUT, DELETE, OPTIONS")),
    ] {
        let text = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = RequestHead::parse(text.as_bytes(), &Limits::default()).expect("a request");
        let Err(why) = routes.find_for(&head) else { panic!("{method} {path} has a route") };
        let response = Response::from(why);
        let mut out = Vec::new();
        response.encode(&mut out, 1, true, false, "now");
        let answer = String::from_utf8(out).expect("text");
        assert_eq!(response.status(), status, "{method} {path}");
        let given = answer.lines().find_map(|line| line.strip_prefix("Allow: "));
        assert_eq!(given, allow, "{method} {path}");
        assert_eq!(answer.contains("application/problem+json"), status >= 400, "{answer}");
    }
}

#[test]
fn a_table_without_routes_finds_nothing() {
    let routes = Routes::<()>::new();
    for (method, path) in [(Method::Get, "/"), (Method::Options, "/"), (Method::Get, ""), (Method::Get, "a")] {
        assert_eq!(routes.find(method, path).err(), Some(NoRoute::NotFound), "{path}");
    }
    let Err(NoRoute::Options(none)) = routes.find(Method::Options, "*") else { panic!("the server's options") };
    assert_eq!(none.to_string(), "OPTIONS");
}

#[test]
fn malformed_patterns_panic_at_once() {
    for pattern in [
        "",
        "a",
        "*",
        "/a b",
        "/ä",
        "/a?b",
        "/a#b",
        "/{}",
        "/{...}",
        "/{a b}",
        "/{a",
        "/a}",
        "/x{a}",
        "/{a}x",
        "/{a}/{a}",
        "/{a}/{a...}",
        "/{a...}/b",
    ] {
        let made = catch_unwind(|| drop(Routes::new().get(pattern, ())));
        assert!(made.is_err(), "{pattern:?}");
    }
    for (one, other) in [("/a", "/a"), ("/{a}", "/{b}"), ("/a/{b...}", "/a/{c...}")] {
        assert!(catch_unwind(|| drop(Routes::new().get(one, ()).get(other, ()))).is_err(), "{one} and {other}");
        drop(Routes::new().get(one, ()).post(other, ()));
    }
    assert!(catch_unwind(|| drop(Routes::new().on(Method::Other, "/", ()))).is_err());
}

#[test]
fn parameters_are_found_by_name() {
    let routes = table();
    let (_, params) = routes.find(Method::Delete, "/channels/a/users/b").expect("a route");
    assert_eq!((params.get("channel"), params.get("user"), params.get("name")), (Some("a"), Some("b"), None));
    assert_eq!(&params["user"], "b");
    assert!(catch_unwind(move || params["name"].len()).is_err());
}

#[test]
fn debugging_shows_the_table() {
    let routes = Routes::new().get("/a/{b}", ()).post("/{c...}", ());
    assert_eq!(format!("{routes:?}"), "[Post /{c...}, Get /a/{b}]");
}

/// Returns all paths of one to three of these segments, with `{r...}` only as the last one.
fn all(segments: &[&str]) -> Vec<String> {
    let (mut all, mut longest) = (Vec::new(), vec![String::new()]);
    for _ in 0..3 {
        let open = longest.iter().filter(|path| !path.ends_with("...}"));
        longest = open.flat_map(|path| segments.iter().map(move |segment| format!("{path}/{segment}"))).collect();
        all.extend_from_slice(&longest);
    }
    all
}

/// Returns how well a pattern fits a path, by the documented rules: for each segment, 0 if it is
/// literal, 1 if it is a parameter, 2 if it is the rest of the path.
fn fit(pattern: &str, path: &str) -> Option<Vec<u8>> {
    let (mut parts, mut fit) = (path[1..].split('/'), Vec::new());
    for segment in pattern[1..].split('/') {
        let part = parts.next()?;
        fit.push(match segment {
            "{r...}" => {
                parts.by_ref().for_each(drop);
                2
            }
            _ if segment.starts_with('{') && !part.is_empty() => 1,
            _ if segment == part => 0,
            _ => return None,
        });
    }
    if parts.next().is_some() { None } else { Some(fit) }
}

#[test]
fn any_table_follows_the_rules() {
    let patterns: Vec<&'static str> =
        all(&["a", "b", "", "{}", "{r...}"]).into_iter().map(named).map(|pattern| &*pattern.leak()).collect();
    let paths = all(&["a", "b", "c", ""]);
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let mut routes = Routes::new();
        let mut held = Vec::new();
        for pattern in &patterns {
            if random.below(12) == 0 {
                let method = if random.below(2) == 0 { Method::Get } else { Method::Post };
                routes = routes.on(method, pattern, *pattern);
                held.push((method, *pattern));
            }
        }
        for path in &paths {
            for method in [Method::Get, Method::Post] {
                let fits = held.iter().filter(|(of, _)| *of == method);
                let best = fits.filter_map(|(_, pattern)| Some((fit(pattern, path)?, *pattern))).min();
                let found = routes.find(method, path);
                let found = found.as_ref().map(|(pattern, _)| **pattern).ok();
                assert_eq!(found, best.map(|(_, pattern)| pattern), "seed {seed}: {method:?} {path} in {held:?}");
            }
        }
    }
}

/// Gives each parameter a name of its own.
fn named(pattern: String) -> String {
    (0..3).fold(pattern, |pattern, n| pattern.replacen("{}", &format!("{{p{n}}}"), 1))
}

#[test]
fn a_set_of_methods_has_those_that_were_added_and_no_others() {
    let Err(NoRoute::Options(methods)) = Routes::new().get("/", ()).find(Method::Options, "/") else { panic!("a set") };
    let known = [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete, Method::Options, Method::Patch];
    let held: Vec<_> =
        known.into_iter().chain([Method::Connect, Method::Other]).filter(|method| methods.contains(*method)).collect();
    assert_eq!(held, [Method::Get, Method::Head, Method::Options]);
}

#[test]
#[should_panic(expected = "no path")]
fn connect_cannot_be_routed() {
    let _ = Routes::new().on(Method::Connect, "/", ());
}
