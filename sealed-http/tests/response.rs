//! Responses: their framing, their fields, and that no value can break out of either.

use std::panic::{UnwindSafe, catch_unwind};

use sealed_http::Response;
use sealed_http::codec::{BadHeaderValue, CONTINUE, encode_chunk, encode_last_chunk, reason};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn encode(response: &Response, version_minor: u8, keep_alive: bool, head_only: bool) -> String {
    let mut out = Vec::new();
    response.encode(&mut out, version_minor, keep_alive, head_only, DATE);
    String::from_utf8(out).expect("text")
}

fn encode_stream(version_minor: u8, keep_alive: bool) -> String {
    let mut out = Vec::new();
    let response = Response::new(200).header("A", "b").body("not sent");
    response.encode_stream_head(&mut out, version_minor, keep_alive, DATE);
    String::from_utf8(out).expect("text")
}

fn panics(call: impl FnOnce() + UnwindSafe) -> bool {
    catch_unwind(call).is_err()
}

#[test]
fn a_response_is_encoded_completely() {
    let hello = Response::new(200).header("Content-Type", "text/plain").body("hello");
    let head = format!("HTTP/1.1 200 OK\r\nDate: {DATE}\r\nContent-Type: text/plain\r\n");
    for (version_minor, keep_alive, connection) in [
        (1, true, ""),
        (1, false, "Connection: close\r\n"),
        (0, true, "Connection: keep-alive\r\n"),
        (0, false, "Connection: close\r\n"),
    ] {
        let expected = format!("{head}{connection}Content-Length: 5\r\n\r\n");
        let case = format!("1.{version_minor}, keep alive: {keep_alive}");
        assert_eq!(encode(&hello, version_minor, keep_alive, false), expected.clone() + "hello", "{case}");
        assert_eq!(encode(&hello, version_minor, keep_alive, true), expected, "{case}, HEAD");
    }
}

#[test]
fn a_response_is_appended() {
    let mut out = Vec::new();
    Response::new(200).body("a").encode(&mut out, 1, true, false, DATE);
    let first = out.clone();
    Response::new(404).body("b").encode(&mut out, 1, true, false, DATE);
    assert!(out.starts_with(&first) && out[first.len()..].starts_with(b"HTTP/1.1 404 Not Found\r\n"));
}

#[test]
fn lengths_are_written_in_full() {
    for length in [0, 1, 9, 10, 99, 100, 12_345, 1_000_000] {
        let text = encode(&Response::new(200).body(vec![b'x'; length]), 1, true, true);
        assert!(text.ends_with(&format!("\r\nContent-Length: {length}\r\n\r\n")), "{text}");
    }
}

#[test]
fn statuses_without_a_body_have_neither_body_nor_length() {
    for status in [204, 304] {
        let text = encode(&Response::new(status).body("never sent"), 1, true, false);
        assert_eq!(text, format!("HTTP/1.1 {status} {}\r\nDate: {DATE}\r\n\r\n", reason(status)));
        assert!(panics(move || Response::new(status).encode_stream_head(&mut Vec::new(), 1, true, DATE)), "{status}");
    }
    assert!(encode(&Response::new(205), 1, true, false).ends_with("\r\nContent-Length: 0\r\n\r\n"));
}

#[test]
fn a_stream_is_chunked_or_ends_with_its_connection() {
    let head = format!("HTTP/1.1 200 OK\r\nDate: {DATE}\r\nA: b\r\n");
    assert_eq!(encode_stream(1, true), format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
    assert_eq!(encode_stream(1, false), format!("{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for keep_alive in [false, true] {
        assert_eq!(encode_stream(0, keep_alive), format!("{head}Connection: close\r\n\r\n"), "no other end in 1.0");
    }
}

#[test]
fn chunks_are_encoded() {
    let mut out = Vec::new();
    encode_chunk(&mut out, b"");
    assert!(out.is_empty(), "an empty chunk would end the body");
    for (length, size) in
        [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (256, "100"), (4095, "fff"), (4096, "1000"), (70_000, "11170")]
    {
        let bytes = vec![b'x'; length];
        out.clear();
        encode_chunk(&mut out, &bytes);
        assert_eq!(out, [size.as_bytes(), b"\r\n", &bytes, b"\r\n"].concat(), "{length}");
    }
    out.clear();
    encode_last_chunk(&mut out);
    assert_eq!(out, b"0\r\n\r\n");
}

#[test]
fn no_value_breaks_out_of_its_line() {
    for byte in (0..=0x1f).chain([0x7f]).filter(|byte| *byte != b'\t') {
        let value = format!("a{}b", char::from(byte));
        assert_eq!(Response::new(200).try_header("A", value.clone()).err(), Some(BadHeaderValue), "{value:?}");
        assert!(panics(|| drop(Response::new(200).with(&[("A", value)]))), "byte {byte}");
    }
    assert!(panics(|| drop(Response::new(200).header("A", "b\r\nC: d"))));
    let fine = Response::new(200).try_header("A", "中\t ~").expect("allowed");
    assert!(encode(&fine, 1, true, false).contains("\r\nA: 中\t ~\r\n"));
}

#[test]
fn names_must_be_tokens_and_framing_fields_cannot_be_set() {
    for name in ["", "A B", "A:", "A\r\n", "Ä", "Content-Length", "transfer-encoding", "CONNECTION", "Date"] {
        assert!(panics(|| drop(Response::new(200).header(name, "1"))), "{name:?}");
        assert!(panics(|| drop(Response::new(200).try_header(name, "1"))), "{name:?}");
        assert!(panics(|| drop(Response::new(200).with(&[(name, "1".to_owned())]))), "{name:?}");
    }
}

#[test]
fn fields_keep_their_order() {
    let response = Response::new(200).header("B", "1").try_header("A", "2").expect("allowed");
    let text = encode(&response.with(&[("C", "3".to_owned())]).header("B", "4"), 1, true, false);
    assert!(text.contains("\r\nB: 1\r\nA: 2\r\nC: 3\r\nB: 4\r\n"), "{text}");
}

#[test]
fn only_final_statuses_are_accepted() {
    for status in [0, 99, 100, 199, 600, 1000] {
        assert!(panics(|| drop(Response::new(status))), "{status} is not final");
    }
    for status in [200, 418, 599] {
        assert_eq!(Response::new(status).status(), status);
    }
    assert!(encode(&Response::new(599), 1, true, false).starts_with("HTTP/1.1 599 Unknown\r\n"));
    assert!(!Response::new(200).closes() && Response::new(200).closing().closes());
    assert_eq!((reason(431), reason(505)), ("Request Header Fields Too Large", "HTTP Version Not Supported"));
    assert_eq!(CONTINUE, b"HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn a_205_has_no_content() {
    for (body, head_only) in [("", false), ("x", false), ("x", true)] {
        let text = encode(&Response::new(205).body(body), 1, true, head_only);
        assert!(text.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{text}");
    }
    assert!(panics(|| Response::new(205).encode_stream_head(&mut Vec::new(), 1, true, DATE)));
    assert!(panics(|| Response::new(101).encode(&mut Vec::new(), 1, true, false, DATE)));
    for interim in (100..200).filter(|status| *status != 101) {
        assert!(panics(|| drop(Response::new(interim))), "{interim}: not for handlers");
    }
}
