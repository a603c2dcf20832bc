//! What pages in browsers may do: pages of other origins that have a stream in a frame or send
//! requests, and pages of the server.

mod common;

use common::Reply;
use common::stage::{ANN, Stage, key};

const EVIL: &str = "https://evil.example";
const FRIEND: &str = "https://friend.example";
/// The origin of the server itself, by the `Host` of all requests.
const OWN: &str = "https://comet.example";

impl Stage {
    fn with_key(origins: &[&str]) -> Self {
        Self::new(|config| {
            config.auth.keys = vec![key("main")];
            config.front.origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        })
    }

    fn token(&self) -> String {
        self.sign(&self.claims_for("a", 60))
    }

    /// Sends a request on a new connection, from an address that limits apply to.
    fn ask(&self, method: &str, target: &str, headers: &str) -> Reply {
        let fields = format!("Host: comet.example\r\n{headers}");
        self.exchange(&mut self.connect(ANN), method, target, &fields, "")
    }
}

/// Returns the names in a list.
fn listed(answer: &Reply, name: &str) -> Vec<String> {
    let value = answer.header(name).unwrap_or_default();
    value.split(',').map(|part| part.trim().to_ascii_lowercase()).filter(|part| !part.is_empty()).collect()
}

fn policy<'a>(answer: &'a Reply, directive: &str) -> Option<&'a str> {
    let mut directives = answer.header("content-security-policy")?.split(';').map(str::trim);
    directives.find_map(|held| held.strip_prefix(directive).filter(|rest| rest.is_empty() || rest.starts_with(' ')))
}

fn frame_for(origin: &str) -> String {
    format!("/channels/a?transport=iframe&after=oldest&origin={origin}")
}

#[test]
fn a_cookie_opens_no_frame_for_pages_of_other_origins() {
    for origins in [["*"].as_slice(), &[FRIEND]] {
        let stage = Stage::with_key(origins);
        let token = stage.token();
        let cookie = format!("Cookie: ccomet_token={token}\r\n");
        for origin in [EVIL, "https://comet.example.evil.example", "https://comet.example:8443", "http://evil.example"]
        {
            // A browser does not name the page around a frame.
            for fields in ["Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: iframe\r\n", ""] {
                let answer = stage.ask("GET", &frame_for(origin), &format!("{cookie}{fields}"));
                assert!(matches!(answer.status, 400 | 403), "{origins:?} {origin}: {answer:?}");
                assert!(!answer.contains("<script>"), "{answer:?}");
            }
        }
        // The token of the cookie in the query as well does not change that.
        let both = format!("{}&token={token}", frame_for(EVIL));
        assert!(matches!(stage.ask("GET", &both, &cookie).status, 400 | 403));
    }
}

#[test]
fn a_cookie_opens_frames_for_pages_of_the_server_and_of_listed_origins() {
    for origins in [["*"].as_slice(), &[FRIEND]] {
        let stage = Stage::with_key(origins);
        let cookie = format!("Cookie: ccomet_token={}\r\n", stage.token());
        for target in [frame_for(OWN), "/channels/a?transport=iframe".to_owned()] {
            let answer = stage.ask("GET", &target, &cookie);
            assert_eq!((answer.status, policy(&answer, "frame-ancestors")), (200, Some(" 'self'")), "{target}");
            assert!(answer.contains("parent.postMessage(reply,location.origin)"), "{answer:?}");
        }
    }
    let stage = Stage::with_key(&[FRIEND]);
    let cookie = format!("Cookie: ccomet_token={}\r\n", stage.token());
    let answer = stage.ask("GET", &frame_for(FRIEND), &cookie);
    assert_eq!((answer.status, policy(&answer, "frame-ancestors")), (200, Some(" https://friend.example")));
    assert!(answer.contains("parent.postMessage(reply,\"https://friend.example\")"), "{answer:?}");
}

#[test]
fn a_frame_may_be_embedded_only_by_the_origin_that_it_posts_to() {
    let stage = Stage::with_key(&["*"]);
    let token = stage.token();
    // A page that has a token itself may read with it.
    let answer = stage.ask("GET", &format!("{}&token={token}", frame_for(EVIL)), "");
    assert_eq!((answer.status, policy(&answer, "frame-ancestors")), (200, Some(" https://evil.example")));
    assert_eq!(policy(&answer, "default-src"), Some(" 'none'"));
    for origin in
        ["https://a.example%3Bscript-src", "https://a.example%20*", "https://a.example,*", "*", "https://*", "null"]
    {
        let answer = stage.ask("GET", &format!("{}&token={token}", frame_for(origin)), "");
        assert!(answer.status == 400 && answer.contains("bad_origin"), "{origin}: {answer:?}");
    }
    let open = Stage::new(|_| {});
    let icomet = open.ask("GET", "/iframe?cname=a&seq=1", "");
    assert_eq!((icomet.status, policy(&icomet, "frame-ancestors")), (200, Some(" 'self'")));
}

#[test]
fn a_preflight_allows_fields_of_the_api_and_of_common_libraries() {
    let always = [
        "authorization",
        "content-type",
        "idempotency-key",
        "last-event-id",
        "traceparent",
        "tracestate",
        "baggage",
        "sentry-trace",
        "x-requested-with",
        "x-csrf-token",
    ];
    for (further, expected) in
        [(vec![], vec![]), (vec!["X-Site".to_owned(), "x-shop".to_owned()], vec!["x-site", "x-shop"])]
    {
        let stage = Stage::new(|config| config.front.headers = further);
        for target in ["/channels/a", "/channels/a/history", "/messages"] {
            let fields = format!("Origin: {EVIL}\r\nAccess-Control-Request-Method: POST\r\n");
            let answer = stage.ask("OPTIONS", target, &fields);
            let allowed = listed(&answer, "access-control-allow-headers");
            for name in always.iter().chain(&expected) {
                assert!(allowed.iter().any(|held| held == name), "{target} {name}: {answer:?}");
            }
            assert!(expected.len() == 2 || !allowed.contains(&"x-site".to_owned()), "{answer:?}");
        }
    }
}

#[test]
fn a_page_of_another_origin_can_read_retry_after() {
    let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 1);
    let origin = format!("Origin: {EVIL}\r\n");
    let answer = (0..10).map(|_| stage.ask("POST", "/channels/a", &origin)).find(|answer| answer.status == 429);
    let answer = answer.expect("the limit is met");
    assert!(answer.header("retry-after").is_some() && answer.contains("\"retry_ms\""), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(listed(&answer, "access-control-expose-headers").contains(&"retry-after".to_owned()), "{answer:?}");
}

#[test]
fn pages_of_any_origin_may_import_the_library_and_read_no_page() {
    let stage = Stage::with_key(&[FRIEND]);
    for path in ["/ccomet.js", "/ccomet.mjs"] {
        let answer = stage.ask("GET", path, &format!("Origin: {EVIL}\r\n"));
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")), "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("cross-origin"), "{path}");
        // A `304` also allows every origin.
        let known = format!("Origin: {EVIL}\r\nIf-None-Match: {}\r\n", answer.header("etag").expect("a tag"));
        let again = stage.ask("GET", path, &known);
        assert_eq!((again.status, again.header("access-control-allow-origin")), (304, Some("*")), "{path}");
    }
    for path in ["/chat.html", "/classic.html"] {
        let answer = stage.ask("GET", path, &format!("Origin: {EVIL}\r\n"));
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None), "{path}");
    }
}

#[test]
fn a_page_of_the_server_runs_its_own_scripts_and_no_others() {
    let stage = Stage::new(|_| {});
    for path in ["/chat.html", "/classic.html"] {
        let answer = stage.ask("GET", path, "");
        for (directive, value) in [
            ("default-src", " 'none'"),
            ("connect-src", " 'self'"),
            ("frame-ancestors", " 'self'"),
            ("base-uri", " 'none'"),
            ("form-action", " 'none'"),
        ] {
            assert_eq!(policy(&answer, directive), Some(value), "{path}");
        }
        for directive in ["script-src", "style-src"] {
            let sources = policy(&answer, directive).expect("a directive");
            assert!(!sources.contains("unsafe") && !sources.contains('*'), "{path} {sources}");
            assert_eq!(sources.matches("'sha256-").count(), 1, "{path} {sources}");
        }
    }
}
