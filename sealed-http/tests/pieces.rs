//! Queries, cross-origin answers and responses, each by what it promises.

use sealed_http::{BadEncoding, Cors, Origins, Query, Response, decode_segment, encode_chunk, encode_last_chunk};

#[test]
fn queries_are_decoded_once_and_strictly() {
    let query = Query::new(Some("a=1&b=x+y%20z&c=%2B&a=2&d&=e&f=%e4%b8%ad&%67=h&bad=%zz&cut=%4&raw=%ff&twice=%2541"));
    let value = |name: &str| query.get(name).map(|value| value.map(std::borrow::Cow::into_owned));
    for (name, expected) in [
        ("a", Some("1")),
        ("b", Some("x y z")),
        ("c", Some("+")),
        ("d", Some("")),
        ("f", Some("中")),
        ("g", Some("h")),
        ("twice", Some("%41")),
        ("none", None),
    ] {
        assert_eq!(value(name), Ok(expected.map(str::to_owned)), "{name}");
    }
    for name in ["bad", "cut", "raw"] {
        assert_eq!(value(name), Err(BadEncoding), "{name}");
    }
    assert_eq!(Query::new(None).get("a"), Ok(None));
    assert_eq!(decode_segment("a+b%2Fc").as_deref(), Ok("a+b/c"));
    assert_eq!(decode_segment("%"), Err(BadEncoding));
}

#[test]
fn only_listed_origins_are_told_that_they_may_read() {
    let cors = |origins| Cors { origins, methods: "GET", headers: "X", max_age_s: "60" };
    let allowed = |cors: &Cors, origin| {
        let fields = cors.preflight_fields(origin);
        let find = |name: &str| fields.iter().find(|(held, _)| *held == name).map(|(_, value)| value.clone());
        assert_eq!(find("Access-Control-Allow-Methods").is_some(), find("Access-Control-Allow-Origin").is_some());
        assert_eq!(find("Access-Control-Allow-Credentials"), None);
        find("Access-Control-Allow-Origin")
    };
    let any = cors(Origins::Any);
    assert_eq!(allowed(&any, Some("null")), Some("*".to_owned()));
    let listed = cors(Origins::Listed(vec!["https://a.example".to_owned()]));
    assert_eq!(allowed(&listed, Some("https://a.example")), Some("https://a.example".to_owned()));
    for origin in [None, Some("null"), Some("https://a.example.evil"), Some("http://a.example"), Some("")] {
        assert_eq!(allowed(&listed, origin), None, "{origin:?}");
    }
    assert!(listed.response_fields(None).contains(&("Vary", "Origin".to_owned())));
}

fn encode(response: &Response, version_minor: u8, keep_alive: bool, head_only: bool) -> String {
    let mut out = Vec::new();
    response.encode(&mut out, version_minor, keep_alive, head_only, "now");
    String::from_utf8(out).expect("text")
}

#[test]
fn responses_say_how_long_they_are_and_whether_more_may_come() {
    let hello = Response::new(200).header("A", "b").body("hello");
    assert_eq!(
        encode(&hello, 1, true, false),
        "HTTP/1.1 200 OK\r\nDate: now\r\nA: b\r\nContent-Length: 5\r\n\r\nhello"
    );
    assert!(encode(&hello, 1, true, true).ends_with("Content-Length: 5\r\n\r\n"), "HEAD has the length and no body");
    assert!(encode(&hello, 1, false, false).contains("\r\nConnection: close\r\n"));
    assert!(encode(&hello, 0, true, false).contains("\r\nConnection: keep-alive\r\n"));
    for status in [204, 304] {
        let text = encode(&Response::new(status), 1, true, false);
        assert!(text.ends_with("\r\n\r\n") && !text.contains("Content-Length"), "{text}");
    }
    let mut out = Vec::new();
    Response::new(200).encode_stream_head(&mut out, 1, true, "now");
    out.clear();
    encode_chunk(&mut out, b"");
    assert_eq!(out, b"", "an empty chunk would end the body");
    encode_chunk(&mut out, &[b'x'; 26]);
    encode_last_chunk(&mut out);
    assert_eq!(out, [b"1a\r\n", [b'x'; 26].as_slice(), b"\r\n0\r\n\r\n"].concat());
}

#[test]
fn no_value_can_end_its_line() {
    for bad in ["a\r\nB: c", "a\n", "\0", "\u{7f}"] {
        assert!(Response::new(200).try_header("A", bad).is_err(), "{bad:?}");
    }
    let fine = Response::new(200).try_header("A", "中\t ~").expect("text");
    assert!(encode(&fine, 1, true, false).contains("\r\nA: 中\t ~\r\n"));
}
