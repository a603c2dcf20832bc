//! Problem details: JSON that is valid whatever text is in it, and responses made of it.

use std::panic::catch_unwind;

use sealed_http::codec::DecodeError;
use sealed_http::site::BadEncoding;
use sealed_http::{Problem, Response};
use serde_json::{Value, json};

fn parse(problem: &Problem) -> Value {
    serde_json::from_slice(&problem.to_json()).expect("JSON")
}

#[test]
fn members_are_written_as_json() {
    let plain = json!({ "type": "about:blank", "title": "Not Found", "status": 404 });
    assert_eq!(parse(&Problem::new(404)), plain);
    let full = Problem::new(429)
        .kind("https://example.org/too-fast")
        .title("Too fast")
        .code("too_fast")
        .detail("Wait a little.")
        .member("retry_ms", 5_000)
        .member("least", i64::MIN)
        .member("most", u32::MAX)
        .member("who", "ann")
        .member("whom", "bob".to_owned())
        .member("banned", false);
    let wanted = json!({
        "type": "https://example.org/too-fast", "title": "Too fast", "status": 429, "code": "too_fast",
        "detail": "Wait a little.", "retry_ms": 5_000, "least": i64::MIN, "most": u32::MAX, "who": "ann", "whom": "bob",
        "banned": false,
    });
    assert_eq!(parse(&full), wanted);
    assert_eq!(full.to_string(), "429 Too fast: Wait a little.");
    assert_eq!(Problem::new(404).title(None).to_json(), br#"{"type":"about:blank","status":404}"#);
}

#[test]
fn any_text_is_preserved_and_none_ends_a_script() {
    let mut texts: Vec<String> = (0..=0xa0_u8).map(|byte| format!("a{}b", char::from(byte))).collect();
    texts.extend(
        ["", "\"\\/", "</script>", "<!--", "<//", "/</", "\u{2028}\u{2029}", "中😀\u{ffff}", "\r\n"].map(Into::into),
    );
    for text in texts {
        let problem = Problem::new(400).detail(text.clone()).member("text", text.clone());
        let json = parse(&problem);
        assert_eq!(json["text"], text.as_str(), "{text:?}");
        assert_eq!(json["detail"].as_str().unwrap_or_default(), text, "{text:?}");
        let raw = String::from_utf8(problem.to_json()).expect("UTF-8");
        assert!(!raw.contains(|letter: char| letter < ' ' || "\u{2028}\u{2029}".contains(letter)), "{raw:?}");
        assert!(!raw.contains('<'), "{raw}");
    }
}

#[test]
fn mistakes_panic_at_once() {
    for status in [0, 200, 304, 399, 600] {
        assert!(catch_unwind(|| drop(Problem::new(status))).is_err(), "{status}");
    }
    for name in ["type", "title", "status", "code", "detail", "instance"] {
        assert!(catch_unwind(|| drop(Problem::new(400).member(name, 1))).is_err(), "{name}");
    }
    assert!(catch_unwind(|| drop(Problem::new(400).member("a", 1).member("a", 2))).is_err());
}

#[test]
fn a_problem_converts_into_a_response() {
    let problem = Problem::new(503).code("full");
    let mut out = Vec::new();
    Response::from(problem.clone()).header("Retry-After", "5").encode(&mut out, 1, true, false, "now");
    let text = String::from_utf8(out).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
    for line in [
        "Content-Type: application/problem+json",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Retry-After: 5",
    ] {
        assert!(head.lines().any(|held| held == line), "{line} in {head}");
    }
    assert_eq!(body.as_bytes(), problem.to_json());
}

#[test]
fn errors_of_this_crate_are_problems() {
    for error in [DecodeError::Host, DecodeError::BodyTooLarge, DecodeError::TimedOut, DecodeError::Version] {
        let json = parse(&error.into());
        assert_eq!((&json["status"], &json["code"]), (&error.status().into(), &error.code().into()));
        let detail = json["detail"].as_str().expect("a sentence");
        assert_eq!(detail.to_lowercase(), format!("{error}.").to_lowercase());
        assert!(detail.starts_with(char::is_uppercase), "{detail}");
    }
    assert_eq!(parse(&BadEncoding.into())["code"], "bad_encoding");
}
