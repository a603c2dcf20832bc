//! Properties of the decoder beyond single cases: limits, pipelines, errors, every byte, and work
//! that stays linear.

mod common;

use common::{Outcome, decode_every_way, decode_pieces};
use sealed_http::codec::{DecodeError as E, Event, HEADERS_MAX, Limits, RequestDecoder, reason};
use sealed_http::{Method, RequestHead};

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// Decodes bytes under these limits, split in every way. Returns the requests as text, or the
/// error.
fn decode(input: &str, limits: &Limits) -> Result<String, E> {
    let outcome = decode_every_way(input.as_bytes(), limits, input);
    outcome.error.map_or(Ok(outcome.requests), Err)
}

#[test]
fn a_request_line_is_refused_beyond_its_limit() {
    let limits = Limits { request_line_bytes_max: 20, ..Limits::default() };
    let at = "GET /12345 HTTP/1.1";
    assert_eq!(at.len(), 19);
    let ask = |path: &str| decode(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"), &limits);
    assert_eq!(ask("/123456"), Ok("GET /123456 1.1 keep".to_owned()), "20 bytes");
    assert_eq!(ask("/1234567"), Err(E::RequestLineTooLong), "21 bytes");
    // The empty line in front does not count as a part of the line.
    assert_eq!(decode("\r\nGET /123456 HTTP/1.1\r\nHost: h\r\n\r\n", &limits), Ok("GET /123456 1.1 keep".to_owned()));
    // A line without an end is refused as soon as no end could come within the limit.
    assert_eq!(decode(&"x".repeat(21), &limits), Ok(String::new()), "a carriage return may have been the last of them");
    assert_eq!(decode(&"x".repeat(22), &limits), Err(E::RequestLineTooLong));
    assert_eq!(decode(&("x".repeat(20) + "\r"), &limits), Ok(String::new()));
    // Other errors in the line do not matter, however the line is split.
    assert_eq!(decode(&("x".repeat(30) + "\n"), &limits), Err(E::RequestLineTooLong));
}

#[test]
fn a_head_is_refused_beyond_its_limit() {
    let ask = |head_bytes_max| decode(GET, &Limits { head_bytes_max, ..Limits::default() });
    assert_eq!(ask(GET.len()), Ok("GET / 1.1 keep".to_owned()));
    assert_eq!(ask(GET.len() - 1), Err(E::HeadTooLarge));
    assert_eq!(ask(17), Err(E::HeadTooLarge), "the line is 14 bytes and its end 2");
    assert_eq!(ask(16), Err(E::HeadTooLarge));
    assert_eq!(ask(15), Err(E::RequestLineTooLong), "the line alone fills the head");
    assert_eq!(ask(0), Err(E::RequestLineTooLong));
    // A head without an end is refused as soon as no end could come within the limit, whatever
    // other errors follow beyond the limit.
    let limits = Limits { head_bytes_max: 40, ..Limits::default() };
    let endless = "GET / HTTP/1.1\r\nHost: h\r\nX: ".to_owned() + &"x".repeat(100);
    assert_eq!(decode(&endless[..39], &limits), Ok(String::new()));
    assert_eq!(decode(&endless[..40], &limits), Err(E::HeadTooLarge));
    assert_eq!(decode(&(endless + "\n"), &limits), Err(E::HeadTooLarge));
    // Each request has a head of its own.
    let limits = Limits { head_bytes_max: GET.len(), ..Limits::default() };
    assert_eq!(decode(&GET.repeat(3), &limits), Ok("GET / 1.1 keep + GET / 1.1 keep + GET / 1.1 keep".to_owned()));
}

#[test]
fn a_limit_of_any_size_holds() {
    for max in [0, 1, u32::MAX as usize, usize::MAX] {
        let limits = Limits { request_line_bytes_max: max, head_bytes_max: max, headers_max: max, ..Limits::default() };
        let outcome = decode(GET, &limits);
        assert_eq!(outcome.is_ok(), max > 1, "{max}: {outcome:?}");
    }
}

#[test]
fn header_fields_are_refused_beyond_their_limit() {
    for (headers_max, fields, fine) in [
        (64, 64, true),
        (64, 65, false),
        (3, 3, true),
        (3, 4, false),
        (1, 1, true),
        (1_000, 64, true),
        (1_000, 65, false),
    ] {
        let head = "GET / HTTP/1.1\r\nHost: h\r\n".to_owned() + &"X: y\r\n".repeat(fields - 1) + "\r\n";
        let outcome = decode(&head, &Limits { headers_max, ..Limits::default() });
        let expected = if fine { Ok("GET / 1.1 keep".to_owned()) } else { Err(E::HeadTooLarge) };
        assert_eq!(outcome, expected, "{fields} fields of {headers_max}");
    }
    assert_eq!(HEADERS_MAX, 64);
}

#[test]
fn a_body_is_refused_beyond_its_limit() {
    let limits = Limits { body_bytes_max: 3, ..Limits::default() };
    let ask = |length: u64, body: &str| {
        decode(&format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"), &limits)
    };
    assert_eq!(ask(3, "abc"), Ok("POST / 1.1 keep [abc]".to_owned()));
    assert_eq!(ask(4, ""), Err(E::BodyTooLarge), "known from the head");
    let none = Limits { body_bytes_max: 0, ..Limits::default() };
    assert_eq!(
        decode("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", &none),
        Ok("POST / 1.1 keep".to_owned())
    );
    assert_eq!(decode("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n", &none), Err(E::BodyTooLarge));
}

#[test]
fn a_body_of_known_length_is_one_piece_and_is_not_copied() {
    let input = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET";
    let (mut decoder, limits) = (RequestDecoder::new(), Limits::default());
    assert!(decoder.is_idle());
    let (head_bytes, event) = decoder.decode(input, &limits).expect("a head");
    assert!(matches!(event, Event::Head(_)) && !decoder.is_idle());
    let (body_bytes, event) = decoder.decode(&input[head_bytes..], &limits).expect("a body");
    let Event::Data(body) = event else { panic!("not a body: {event:?}") };
    assert_eq!((body, body_bytes), (&b"hello"[..], 5));
    assert!(std::ptr::eq(body.as_ptr(), &raw const input[head_bytes]), "it lies in the input");
    let (used, event) = decoder.decode(&input[head_bytes + 5..], &limits).expect("an end");
    assert!(matches!((used, event), (0, Event::End)) && decoder.is_idle());
    let (used, event) = decoder.decode(b"GET", &limits).expect("a beginning");
    assert!(matches!((used, event), (0, Event::Incomplete)) && !decoder.is_idle());
}

#[test]
fn requests_before_an_error_are_decoded_and_none_behind_it() {
    let input = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhiBAD\r\n\r\n".to_owned() + GET + GET;
    let outcome = decode_every_way(input.as_bytes(), &Limits::default(), "error between");
    assert_eq!(
        outcome,
        Outcome { requests: "POST /p 1.1 keep [hi]".to_owned(), whole: 1, error: Some(E::RequestLine) }
    );
}

/// Decodes pairs of a valid request and any other input: the second means the same as it does
/// alone.
#[test]
fn a_request_means_the_same_behind_any_other() {
    let firsts = [
        GET,
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n\r\n\r\n0\r\nT: v\r\n\r\n",
        "\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ];
    let others = ["GET / HTTP/3.0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\r\n\r\n", "\n", "GET", ""];
    let limits = Limits::default();
    for first in firsts {
        for second in firsts.iter().chain(&others) {
            let alone = [first, second].map(|input| decode_pieces(&[input.as_bytes()], &limits));
            let both = decode_every_way((first.to_owned() + second).as_bytes(), &limits, second);
            let words = alone.each_ref().map(|outcome| outcome.requests.as_str()).join(" + ");
            assert_eq!((both.requests.as_str(), both.error), (words.trim_end_matches(" + "), alone[1].error));
        }
    }
}

#[test]
fn methods_are_distinguished() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("PATCH", Method::Patch),
        ("TRACE", Method::Other),
        ("get", Method::Other),
        ("GETS", Method::Other),
    ] {
        let bytes = format!("{name} / HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = RequestHead::parse(bytes.as_bytes(), &Limits::default()).expect("a valid head");
        assert_eq!((head.method(), head.method_name()), (method, name));
    }
}

#[test]
fn header_fields_are_found_in_any_case_and_order() {
    let bytes = b"GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a:\t2 \r\nHigh: \xff\r\nEmpty:\r\n\r\n";
    let head = RequestHead::parse(bytes, &Limits::default()).expect("a valid head");
    assert_eq!(head.header("x-A"), Some(&b"1"[..]), "the first of two");
    assert_eq!((head.header_str("HOST"), head.header_str("empty")), (Some("h"), Some("")));
    assert_eq!((head.header("high"), head.header_str("high")), (Some(&b"\xff"[..]), None));
    assert_eq!((head.header("x"), head.header("")), (None, None));
    let all: Vec<_> = head.headers().map(|(name, value)| (name, value.escape_ascii().to_string())).collect();
    let expected = [("Host", "h"), ("X-A", "1"), ("x-a", "2"), ("High", "\\xff"), ("Empty", "")];
    assert_eq!(all, expected.map(|(name, value)| (name, value.to_owned())));
}

/// Parses heads by themselves: they have to keep the same rules, and to be complete and nothing
/// else.
#[test]
fn a_head_is_parsed_by_itself_only_if_it_is_complete_and_alone() {
    let parse = |text: &str| RequestHead::parse(text.as_bytes(), &Limits::default()).err();
    assert_eq!(parse(GET), None);
    assert_eq!(parse(&format!("\r\n{GET}")), None, "as the decoder takes it");
    let doubled = GET.repeat(2);
    for text in ["", "\r\n", "\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n", &format!("{GET}x"), &doubled] {
        assert_eq!(parse(text), Some(E::RequestLine), "{text:?}");
    }
    assert_eq!(parse(&format!("\r\n\r\n{GET}")), Some(E::RequestLine));
    for text in ["\n", "\r", "GET / HTTP/1.1\nHost: h\n\n", &format!("\n{GET}"), &format!("{GET}\r")] {
        assert_eq!(parse(text), Some(E::LineEnd), "{text:?}");
    }
}

/// Tries every byte at many offsets in every part of a head, because `httparse` looks at many bytes
/// at once.
#[test]
fn every_byte_is_checked_in_every_place() {
    type Allowed = fn(u8) -> bool;
    fn token(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
    }
    let value = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    let target = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    // The text before the byte, the text after it, and whether the byte may occur there.
    let parts: [(&str, &str, Allowed); 5] = [
        ("", " / HTTP/1.1\r\nHost: h\r\n\r\n", token),
        ("GET /", " HTTP/1.1\r\nHost: h\r\n\r\n", target),
        ("GET /?", " HTTP/1.1\r\nHost: h\r\n\r\n", target),
        ("GET / HTTP/1.1\r\nHost: h\r\nX", "x: v\r\n\r\n", |byte| token(byte) || byte == b':'),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: v", "v\r\n\r\n", value),
    ];
    for (part, (front, behind, allowed)) in parts.iter().enumerate() {
        for (byte, filled) in (0..=255).flat_map(|byte| (0..40).map(move |filled| (byte, filled))) {
            let filler = vec![b'x'; filled];
            let input = [front.as_bytes(), &filler, &[byte], &filler, behind.as_bytes()].concat();
            let outcome = decode_pieces(&[&input], &Limits::default());
            assert_eq!(outcome.error.is_none(), allowed(byte), "byte {byte} in part {part} at {filled}: {outcome:?}");
        }
    }
}

/// Feeds a head byte by byte: a decoder that searched from the start again at every byte would take
/// hours here.
#[test]
fn a_head_that_comes_byte_by_byte_costs_linear_work() {
    const BYTES: usize = 4 << 20;
    let limits = Limits { request_line_bytes_max: BYTES, head_bytes_max: BYTES, ..Limits::default() };
    let line = "GET /".to_owned() + &"x".repeat(BYTES / 2) + " HTTP/1.1\r\n";
    let head = line + "Host: h\r\nX: " + &"y".repeat(BYTES / 4) + "\r\n\r\n";
    let mut decoder = RequestDecoder::new();
    for end in 0..head.len() {
        let outcome = decoder.decode(&head.as_bytes()[..end], &limits);
        assert!(matches!(outcome, Ok((0, Event::Incomplete))));
    }
    let outcome = decoder.decode(head.as_bytes(), &limits);
    assert!(matches!(outcome, Ok((used, Event::Head(_))) if used == head.len()));
}

#[test]
fn errors_have_a_status_a_code_and_a_sentence() {
    for (error, status, code) in [
        (E::RequestLine, 400, "bad_request_line"),
        (E::Tls, 400, "tls_not_served"),
        (E::Target, 400, "bad_target"),
        (E::LineEnd, 400, "bad_line_end"),
        (E::Header, 400, "bad_header"),
        (E::Host, 400, "bad_host"),
        (E::ContentLength, 400, "bad_content_length"),
        (E::TransferEncoding, 400, "bad_transfer_encoding"),
        (E::Chunk, 400, "bad_chunk"),
        (E::Poisoned, 400, "bad_request"),
        (E::TimedOut, 408, "request_timeout"),
        (E::BodyTooLarge, 413, "body_too_large"),
        (E::RequestLineTooLong, 414, "request_line_too_long"),
        (E::Expectation, 417, "bad_expectation"),
        (E::HeadTooLarge, 431, "head_too_large"),
        (E::Connect, 501, "connect_not_served"),
        (E::TransferCoding, 501, "unknown_transfer_coding"),
        (E::Version, 505, "unknown_version"),
    ] {
        assert_eq!((error.status(), error.code()), (status, code));
        assert_ne!(reason(status), "Unknown");
        assert!(error.to_string().len() > 10, "{error}");
    }
}

#[test]
fn a_tls_handshake_is_refused_at_its_first_byte() {
    let outcome = RequestDecoder::new().decode(&[0x16, 3, 1], &Limits::default());
    assert!(matches!(outcome, Err(E::Tls)));
}

#[test]
fn a_bare_carriage_return_is_refused_at_the_byte_behind_it() {
    // The decoder waits neither for the end of the line nor for that of the head.
    for (input, is_refused) in [
        ("GET / HTTP/1.1\r", false),
        ("GET / HTTP/1.1\rH", true),
        ("GET / HTTP/1.1\r\r", true),
        ("GET / HTTP/1.1\rHost: h\r\r", true),
        ("GET / HTTP/1.1\r\nHost: h\r", false),
        ("GET / HTTP/1.1\r\nHost: h\rX", true),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r", false),
        ("GET / HTTP/1.1\r\nHost: h\r\n\rX", true),
        ("\r", false),
        ("\r\r", true),
        ("\r\n\rG", true),
    ] {
        let outcome = decode_every_way(input.as_bytes(), &Limits::default(), input);
        assert_eq!(outcome.error, is_refused.then_some(E::LineEnd), "{input:?}");
    }
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["2\rh", "2;a\rb", "2\r\nhi\r0", "0\r\n\rX", "0\r\nT: v\rX", "0\r\nT\rX"] {
        let outcome = decode_every_way((chunked.to_owned() + body).as_bytes(), &Limits::default(), body);
        assert_eq!(outcome.error, Some(E::Chunk), "{body:?}");
    }
    // If the limit is reached first, the limit is reported.
    let limits = Limits { request_line_bytes_max: 20, ..Limits::default() };
    assert_eq!(decode(&("x".repeat(21) + "\ry"), &limits), Err(E::RequestLineTooLong));
    assert_eq!(decode(&("x".repeat(20) + "\ry"), &limits), Err(E::LineEnd));
}
