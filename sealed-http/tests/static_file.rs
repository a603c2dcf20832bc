//! Files of the program: their tags, their types, and clients that have the file already.

use std::collections::HashSet;

use sealed_http::codec::Limits;
use sealed_http::site::StaticFile;
use sealed_http::{RequestHead, Response};

const BYTES: &[u8] = b"hello";

/// Returns the status and the whole text of the answer to a request with these header fields.
fn answer(file: &StaticFile, fields: &str) -> (u16, String) {
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let head = RequestHead::parse(request.as_bytes(), &Limits::default()).expect("a request");
    let response: Response = file.answer(&head);
    let mut out = Vec::new();
    response.encode(&mut out, 1, true, false, "now");
    (response.status(), String::from_utf8(out).expect("text"))
}

#[test]
fn a_file_is_served_completely() {
    let file = StaticFile::new("a.txt", BYTES);
    let (status, text) = answer(&file, "");
    assert_eq!(status, 200);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, "hello");
    let tag = format!("ETag: {}", file.etag());
    for line in [
        "Content-Type: text/plain; charset=utf-8",
        "Content-Length: 5",
        "Cache-Control: no-cache",
        "Accept-Ranges: none",
        "X-Content-Type-Options: nosniff",
        &tag,
    ] {
        assert!(head.lines().any(|held| held == line), "{line} in {head}");
    }
    let kept = file.cache_control("max-age=60").with_type("text/x-mine");
    let (_, text) = answer(&kept, "");
    assert!(text.contains("\r\nCache-Control: max-age=60\r\n") && text.contains("\r\nContent-Type: text/x-mine\r\n"));
}

#[test]
fn conditional_requests_are_answered() {
    let file = StaticFile::new("a.txt", BYTES);
    // `TAG` stands for the tag.
    for (fields, status) in [
        ("If-None-Match: TAG", 304),
        ("if-none-match: TAG", 304),
        ("If-None-Match: W/TAG", 304),
        ("If-None-Match: *", 304),
        ("If-None-Match:   *  ", 304),
        ("If-None-Match: \"a\", TAG", 304),
        ("If-None-Match: \"a\",TAG,\"b\"", 304),
        ("If-None-Match: , ,\t\"a\" , ,W/TAG", 304),
        ("If-None-Match: \"a,b\", TAG", 304),
        ("If-None-Match: \"\", TAG", 304),
        ("If-None-Match: \"\u{e4}\", TAG", 304),
        ("If-None-Match: \"a\"\r\nIf-None-Match: TAG", 304),
        ("If-None-Match: TAG\r\nIf-None-Match: \"a\"", 304),
        ("If-None-Match: \"a\"", 200),
        ("If-None-Match: W/\"a\", \"b\"", 200),
        ("If-None-Match:", 200),
        ("If-None-Match: \"*\"", 200),
        ("If-None-Match: **", 200),
        ("If-None-Match: w/TAG", 200),
        ("If-None-Match: W/ TAG", 200),
        ("If-None-Match: W/W/TAG", 200),
        ("If-None-Match: bare", 200),
        ("If-None-Match: bare, TAG", 200),
        ("If-None-Match: \"open, TAG", 200),
        ("If-None-Match: \"a\" TAG", 200),
        ("If-None-Match: \"a\"TAG", 200),
        // The file has no date of change, so that conditions by date do not apply.
        ("If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT", 200),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ("Range: bytes=0-1", 200),
        ("Range: bytes=0-1\r\nIf-Range: TAG", 200),
        ("If-Match: TAG", 200),
        ("If-Match: *", 200),
        ("If-Match: \"a\", TAG", 200),
        ("If-Match: \"a\"", 412),
        // RFC 9110, 13.1.1: If-Match is compared strongly.
        ("If-Match: W/TAG", 412),
        ("If-Match:", 412),
        ("If-Match: \"a\"\r\nIf-None-Match: TAG", 412),
        ("If-Match: TAG\r\nIf-None-Match: TAG", 304),
    ] {
        let fields = fields.replace("TAG", file.etag());
        let (given, text) = answer(&file, &format!("{fields}\r\n"));
        assert_eq!(given, status, "{fields}");
        if given == 304 {
            // RFC 9110, 15.4.5: only the fields that a cache would update.
            assert!(text.contains(&format!("\r\nETag: {}\r\n", file.etag())), "{text}");
            assert!(text.contains("\r\nCache-Control: no-cache\r\n") && !text.contains("Content-"), "{text}");
            assert!(text.ends_with("\r\n\r\n"), "{text}");
        }
    }
}

#[test]
fn tags_differ_if_bytes_differ() {
    let tag = |bytes: &'static [u8]| StaticFile::new("a", bytes).etag().to_owned();
    // The tags are the same in every build: a page that was loaded before an update is recognized
    // after it.
    assert_eq!(tag(b""), "\"0-cbf29ce484222325\"");
    assert_eq!(tag(b"a"), "\"1-af63dc4c8601ec8c\"");
    assert_eq!(tag(BYTES), StaticFile::new("b.js", BYTES).etag());
    let bytes: &'static [u8] = &[0; 64];
    let mut tags: HashSet<_> = (0..=bytes.len()).map(|length| tag(&bytes[..length])).collect();
    for at in 0..64 {
        for byte in 1..=255 {
            let mut other = vec![0; 64];
            other[at] = byte;
            assert!(tags.insert(tag(other.leak())), "byte {byte} at {at}");
        }
    }
}

#[test]
fn the_type_depends_on_the_name() {
    for (name, kind) in [
        ("/chat.html", "text/html; charset=utf-8"),
        ("INDEX.HTM", "text/html; charset=utf-8"),
        ("a.min.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a.unknown", "application/octet-stream"),
        ("html", "application/octet-stream"),
        ("a.", "application/octet-stream"),
        ("", "application/octet-stream"),
    ] {
        assert_eq!(StaticFile::new(name, BYTES).content_type(), kind, "{name}");
    }
}

#[test]
fn a_value_that_no_header_field_can_have_panics_before_any_request() {
    let file = || StaticFile::new("a.txt", b"a");
    assert!(std::panic::catch_unwind(|| drop(file().with_type("text/plain\r\n"))).is_err());
    assert!(std::panic::catch_unwind(|| drop(file().cache_control("no-cache\n"))).is_err());
}
