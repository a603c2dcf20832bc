//! Responses, one case per row: what they mean, or the error that refuses them and the reason.
//!
//! Each case is fed whole, a byte at a time, and split in two at every position; then the
//! connection ends. RFC numbers are 9110 and 9112.

use std::fmt::Write as _;

use sealed_http::codec::{Asked, DecodeError as E, Limits, ResponseDecoder, ResponseEvent};

/// The input, the reason for the result, and the responses in it as text: status, whether the
/// connection is kept, body. `end` marks a response that ended with the connection, `switched` one
/// after which another protocol follows.
type Case = (&'static str, &'static str, Result<&'static str, E>);

/// Expands to a response with these header fields and this body.
macro_rules! ok {
    ($($fields:literal),*; $body:literal) => { concat!("HTTP/1.1 200 OK\r\n", $($fields, "\r\n",)* "\r\n", $body) };
}

fn decode(pieces: &[&[u8]], asked: Asked, limits: &Limits) -> Result<String, E> {
    let mut decoder = ResponseDecoder::new();
    let (mut input, mut words) = (Vec::new(), String::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (used, event) = decoder.decode(&input, asked, limits)?;
            let more = match event {
                ResponseEvent::Incomplete | ResponseEvent::Switched => false,
                ResponseEvent::Interim(head) => {
                    let _ = write!(words, "({})", head.status());
                    true
                }
                ResponseEvent::Head(head) => {
                    let kept = if head.keep_alive() { "keep" } else { "close" };
                    let _ = write!(words, "{} {kept} ", head.status());
                    true
                }
                ResponseEvent::Data(data) => {
                    words += std::str::from_utf8(data).expect("text");
                    true
                }
                ResponseEvent::End => {
                    words += ".";
                    !input[used..].is_empty()
                }
            };
            input.drain(..used);
            if !more {
                break;
            }
        }
    }
    let (_, last) = decoder.decode(&input, asked, limits)?;
    if matches!(last, ResponseEvent::Switched) {
        words += "switched";
    }
    words += if decoder.end()? { "end" } else { "" };
    Ok(words)
}

fn check(cases: &[Case], asked: Asked, limits: &Limits) {
    for (bytes, why, expected) in cases {
        let expected = expected.map(str::to_owned);
        let bytes = bytes.as_bytes();
        assert_eq!(decode(&[bytes], asked, limits), expected, "{why}: {:?}", bytes.escape_ascii().to_string());
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(&single, asked, limits), expected, "a byte at a time, {why}");
        for at in 0..bytes.len() {
            let (one, other) = bytes.split_at(at);
            assert_eq!(decode(&[one, other], asked, limits), expected, "split at {at}, {why}");
        }
    }
}

#[test]
fn accepted_responses_are_decoded() {
    let cases: &[Case] = &[
        (ok!("Content-Length: 2"; "hi"), "9112 6.2", Ok("200 keep hi.")),
        (ok!("Content-Length: 0"; ""), "9112 6.2", Ok("200 keep .")),
        (ok!("content-length:2"; "hi"), "9110 5.1: names in any case", Ok("200 keep hi.")),
        (ok!("Connection: close", "Content-Length: 2"; "hi"), "9112 9.6", Ok("200 close hi.")),
        (ok!("Connection: x, CLOSE", "Content-Length: 2"; "hi"), "9110 7.6.1: a list", Ok("200 close hi.")),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "9112 9.3", Ok("200 close hi.")),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", "9112 C.2.2", Ok("200 keep hi.")),
        (ok!(; "all of it"), "9112 6.3: to the end of the connection", Ok("200 close all of itend")),
        (ok!(; ""), "9112 6.3: to the end of the connection", Ok("200 close end")),
        (ok!("Transfer-Encoding: chunked"; "2\r\nhi\r\n0\r\n\r\n"), "9112 7.1", Ok("200 keep hi.")),
        (ok!("Transfer-Encoding: chunked"; "2;a=b\r\nhi\r\n0\r\nT: v\r\n\r\n"), "9112 7.1", Ok("200 keep hi.")),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "9112 4: servers leave the space out", Ok("200 keep .")),
        ("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "9112 4: the reason may be empty", Ok("200 keep .")),
        ("HTTP/1.1 299 very well\r\nContent-Length: 0\r\n\r\n", "9110 15: unknown ones too", Ok("299 keep .")),
        ("HTTP/1.1 204 No Content\r\n\r\n", "9110 15.3.5", Ok("204 keep .")),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "9110 8.6: old servers do", Ok("204 keep .")),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "9110 8.6: that of the 200", Ok("304 keep .")),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!",
            "9110 15.2",
            Ok("(100)(103)200 keep !."),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nb",
            "9112 9.3.2: pipelined",
            Ok("200 keep a.404 keep b."),
        ),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nraw", "9110 7.8", Ok("101 close switched")),
    ];
    check(cases, Asked::Other, &Limits::default());
}

#[test]
fn the_request_decides_where_a_response_ends() {
    let head: &[Case] = &[
        (ok!("Content-Length: 200"; ""), "9110 9.3.2", Ok("200 keep .")),
        (ok!("Transfer-Encoding: chunked"; ""), "9110 9.3.2", Ok("200 keep .")),
        (ok!(; ""), "9110 9.3.2", Ok("200 keep .")),
    ];
    check(head, Asked::Head, &Limits::default());
    let connect: &[Case] = &[
        (ok!("Content-Length: 5"; "raw"), "9110 9.3.6", Ok("200 close switched")),
        ("HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\n!", "9110 9.3.6", Ok("403 keep !.")),
    ];
    check(connect, Asked::Connect, &Limits::default());
}

#[test]
fn malformed_responses_are_refused() {
    let cases: &[Case] = &[
        (ok!("Content-Length: 2", "Content-Length: 2"; "hi"), "9112 6.3: repeated", Err(E::ContentLength)),
        (ok!("Content-Length: 2, 2"; "hi"), "9112 6.3: listed", Err(E::ContentLength)),
        (ok!("Content-Length: +2"; "hi"), "9110 8.6: signed", Err(E::ContentLength)),
        (ok!("Content-Length: 0x2"; "hi"), "9110 8.6: hexadecimal", Err(E::ContentLength)),
        (ok!("Content-Length: 99999999999999999999"; "hi"), "9112 6.3: overflowing", Err(E::ContentLength)),
        (ok!("Content-Length:"; "hi"), "9110 8.6: empty", Err(E::ContentLength)),
        (
            ok!("Content-Length: 2", "Transfer-Encoding: chunked"; "0\r\n\r\n"),
            "9112 6.3: smuggling",
            Err(E::TransferEncoding),
        ),
        (ok!("Transfer-Encoding: gzip, chunked"; ""), "9112 6.1: not understood", Err(E::TransferCoding)),
        (ok!("Transfer-Encoding: gzip"; ""), "9112 6.3: not chunked at last", Err(E::TransferEncoding)),
        ("HTTP/1.1 200 OK\rContent-Length: 0\r\r", "9112 2.2: not waited for", Err(E::LineEnd)),
        ("HTTP/1.1 200 OK\r\nX: a\rb", "9112 2.2: not waited for", Err(E::LineEnd)),
        ("HTTP/1.1 200 OK\r\nX: a\r\n\rb", "9112 2.2: not waited for", Err(E::LineEnd)),
        (ok!("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"; ""), "9112 6.1", Err(E::TransferEncoding)),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "9112 6.1", Err(E::TransferEncoding)),
        (ok!("Transfer-Encoding: chunked"; "+2\r\nhi\r\n"), "9112 7.1: signed", Err(E::Chunk)),
        (ok!("Transfer-Encoding: chunked"; "2\nhi\r\n"), "9112 7.1: a bare line feed", Err(E::Chunk)),
        (ok!("Transfer-Encoding: chunked"; "2\r\nhi!"), "9112 7.1: longer than its size", Err(E::Chunk)),
        (ok!("A: b\r\n c"; ""), "9112 5.2: folded", Err(E::Header)),
        (ok!("A : b"; ""), "9112 5.1: a space before the colon", Err(E::Header)),
        (ok!("A: \u{1}"; ""), "9110 5.5: a control byte", Err(E::Header)),
        ("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "9112 2.2: a bare line feed", Err(E::LineEnd)),
        ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "9112 2.2: a bare carriage return", Err(E::LineEnd)),
        ("HTTP/2.0 200 OK\r\n\r\n", "another version", Err(E::Version)),
        ("HTTP/1.1 20 OK\r\n\r\n", "9112 4: two digits", Err(E::StatusLine)),
        ("HTTP/1.1 099 OK\r\n\r\n", "9110 15: below 100", Err(E::StatusLine)),
        ("HTTP/1.1 2000 OK\r\n\r\n", "9112 4: four digits", Err(E::StatusLine)),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "9112 2.2 forgives that in requests alone", Err(E::StatusLine)),
        (ok!("Content-Length: 3"; "hi"), "cut off", Err(E::Truncated)),
        (ok!("Transfer-Encoding: chunked"; "2\r\nhi\r\n"), "9112 8: cut off", Err(E::Truncated)),
        ("HTTP/1.1 200 OK\r\nA: b\r\n", "9112 8: cut off", Err(E::Truncated)),
    ];
    check(cases, Asked::Other, &Limits::default());
}

#[test]
fn a_204_with_a_body_ends_the_connection() {
    let cases: &[Case] =
        &[("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "9112 6.1", Ok("204 close ."))];
    check(cases, Asked::Other, &Limits::default());
}

#[test]
fn limits_are_kept() {
    let limits = Limits { head_bytes_max: 60, headers_max: 2, body_bytes_max: 4, ..Limits::default() };
    let cases: &[Case] = &[
        (ok!("Content-Length: 4"; "1234"), "just right", Ok("200 keep 1234.")),
        (ok!("Content-Length: 5"; "12345"), "body", Err(E::BodyTooLarge)),
        (ok!("Transfer-Encoding: chunked"; "5\r\n12345\r\n"), "body", Err(E::BodyTooLarge)),
        (ok!(; "12345"), "body", Err(E::BodyTooLarge)),
        (ok!("A: b", "B: c", "C: d"; ""), "header fields", Err(E::HeadTooLarge)),
        (ok!("A: 123456789012345678901234567890123456789"; ""), "head", Err(E::HeadTooLarge)),
    ];
    check(cases, Asked::Other, &limits);
}
