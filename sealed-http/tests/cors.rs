//! Cross-origin answers: which origins may read, and that no other origin is named.

use sealed_http::Response;
use sealed_http::site::{Cors, Field, Origins};

const ALLOW: &str = "Access-Control-Allow-Origin";

fn cors(origins: Origins) -> Cors {
    Cors { origins, methods: "GET, POST", headers: "Content-Type".into(), exposed: "", max_age_s: "600" }
}

fn listed(origins: &[&str]) -> Cors {
    cors(Origins::Listed(origins.iter().map(|origin| (*origin).to_owned()).collect()))
}

fn field(name: &'static str, value: &str) -> Field {
    (name, value.to_owned())
}

#[test]
fn all_origins_get_the_same_fields() {
    for origin in [None, Some("https://a.example"), Some("null"), Some("")] {
        // A value that is the same for all origins needs no `Vary`.
        assert_eq!(cors(Origins::Any).response_fields(origin), [field(ALLOW, "*")], "{origin:?}");
    }
}

#[test]
fn a_listed_origin_is_echoed_and_vary_is_set() {
    let cors = listed(&["https://a.example", "http://localhost:3000"]);
    for origin in ["https://a.example", "http://localhost:3000"] {
        assert_eq!(cors.response_fields(Some(origin)), [field("Vary", "Origin"), field(ALLOW, origin)]);
    }
}

#[test]
fn no_other_origin_is_ever_echoed() {
    let others = [
        None,
        Some(""),
        Some("null"),
        Some("*"),
        Some("https://b.example"),
        Some("http://a.example"),
        Some("https://a.example:443"),
        Some("https://a.example:8443"),
        Some("https://a.example/"),
        Some("https://a.example.evil.example"),
        Some("https://evil.example/https://a.example"),
        Some("https://A.example"),
        Some("https://a.exampl"),
        Some("https://a.example, https://b.example"),
        Some(" https://a.example"),
    ];
    // Any page can sandbox itself and then sends `null`, so that listing `null` would allow every
    // page.
    for cors in [listed(&["https://a.example"]), listed(&["https://a.example", "null"]), listed(&[])] {
        for origin in others {
            assert_eq!(cors.response_fields(origin), [field("Vary", "Origin")], "{origin:?}");
            assert_eq!(cors.preflight_fields(origin), [field("Vary", "Origin")], "{origin:?}");
        }
    }
}

#[test]
fn a_preflight_names_the_allowed_methods_and_fields() {
    let allowed = [
        field("Access-Control-Allow-Methods", "GET, POST"),
        field("Access-Control-Allow-Headers", "Content-Type"),
        field("Access-Control-Max-Age", "600"),
    ];
    let any = cors(Origins::Any).preflight_fields(Some("https://a.example"));
    assert_eq!(any[..1], [field(ALLOW, "*")]);
    assert_eq!(any[1..], allowed);
    let one = listed(&["https://a.example"]).preflight_fields(Some("https://a.example"));
    assert_eq!(one[..2], [field("Vary", "Origin"), field(ALLOW, "https://a.example")]);
    assert_eq!(one[2..], allowed);
}

#[test]
fn exposed_fields_are_named_to_allowed_origins_and_never_in_a_preflight() {
    let exposing = |cors: Cors| Cors { exposed: "Retry-After", ..cors };
    let exposed = field("Access-Control-Expose-Headers", "Retry-After");
    let friend = Some("https://a.example");
    for cors in [exposing(cors(Origins::Any)), exposing(listed(&["https://a.example"]))] {
        assert!(cors.response_fields(friend).contains(&exposed));
        assert!(!cors.preflight_fields(friend).contains(&exposed));
    }
    let other = exposing(listed(&["https://a.example"])).response_fields(Some("https://b.example"));
    assert_eq!(other, [field("Vary", "Origin")]);
}

#[test]
fn credentials_are_never_allowed() {
    for cors in [cors(Origins::Any), listed(&["https://a.example"])] {
        let fields = cors.preflight_fields(Some("https://a.example"));
        assert!(fields.iter().all(|(name, _)| !name.eq_ignore_ascii_case("Access-Control-Allow-Credentials")));
    }
}

#[test]
fn the_fields_fit_a_response() {
    let fields = listed(&["https://a.example"]).preflight_fields(Some("https://a.example"));
    let mut out = Vec::new();
    Response::new(204).with(&fields).encode(&mut out, 1, true, false, "now");
    let text = String::from_utf8(out).expect("text");
    for (name, value) in fields {
        assert!(text.contains(&format!("\r\n{name}: {value}\r\n")), "{name} in {text}");
    }
}
