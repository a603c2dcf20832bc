//! Chunked bodies, one case a row, and their limits.
//!
//! Each case is fed whole, a byte at a time, and split in two at every position. RFC numbers are 9112.

mod common;

use common::{Case, check, decode_every_way, decode_pieces, latin1};
use sealed_http::{DecodeError as E, Limits};

const HEAD: &str = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A POST with this chunked body.
macro_rules! body {
    ($($body:literal),*) => {
        concat!("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", $($body),*)
    };
}

const HI: Result<&str, E> = Ok("POST /p 1.1 keep [hi]");
const EMPTY: Result<&str, E> = Ok("POST /p 1.1 keep");
const BAD: Result<&str, E> = Err(E::Chunk);

#[test]
fn chunks() {
    let cases: &[Case] = &[
        ("one", "7.1", body!("2\r\nhi\r\n0\r\n\r\n"), HI),
        ("two", "7.1", body!("1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"), HI),
        ("none", "7.1", body!("0\r\n\r\n"), EMPTY),
        ("small hexadecimal", "7.1", body!("a\r\n0123456789\r\n0\r\n\r\n"), Ok("POST /p 1.1 keep [0123456789]")),
        ("large hexadecimal", "7.1", body!("A\r\n0123456789\r\n0\r\n\r\n"), Ok("POST /p 1.1 keep [0123456789]")),
        ("leading noughts", "7.1: 1*HEXDIG", body!("002\r\nhi\r\n000\r\n\r\n"), HI),
        ("15 digits", "what is counted", body!("000000000000002\r\nhi\r\n0\r\n\r\n"), HI),
        (
            "framing as data",
            "size alone decides",
            body!("5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
            Ok("POST /p 1.1 keep [0\\r\\n\\r\\n]"),
        ),
        (
            "next request behind",
            "7.1",
            body!("0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"),
            Ok("POST /p 1.1 keep + GET / 1.0 close"),
        ),
        ("cut off in a size", "waited for", body!("2"), Ok("POST /p 1.1 keep ...")),
        ("cut off in data", "waited for", body!("2\r\nh"), Ok("POST /p 1.1 keep [h] ...")),
        ("cut off behind data", "waited for", body!("2\r\nhi\r"), Ok("POST /p 1.1 keep [hi] ...")),
        ("cut off before the last line", "waited for", body!("2\r\nhi\r\n0\r\n"), Ok("POST /p 1.1 keep [hi] ...")),
        ("16 digits", "too many, whatever they say", body!("0000000000000002\r\nhi\r\n0\r\n\r\n"), BAD),
        ("no size", "7.1: 1*HEXDIG", body!("\r\nhi\r\n0\r\n\r\n"), BAD),
        ("extension without size", "7.1", body!(";a\r\nhi\r\n0\r\n\r\n"), BAD),
        ("prefix", "some number parsers take it", body!("0x2\r\nhi\r\n0\r\n\r\n"), BAD),
        ("plus", "some number parsers take it", body!("+2\r\nhi\r\n0\r\n\r\n"), BAD),
        ("minus", "7.1", body!("-2\r\nhi\r\n0\r\n\r\n"), BAD),
        ("underscore", "some number parsers take it", body!("0_2\r\nhi\r\n0\r\n\r\n"), BAD),
        ("suffix", "7.1", body!("2h\r\nhi\r\n0\r\n\r\n"), BAD),
        ("fraction", "7.1", body!("2.0\r\nhi\r\n0\r\n\r\n"), BAD),
        ("other digit", "ASCII only", body!("\u{b2}\r\nhi\r\n0\r\n\r\n"), BAD),
        ("letter beyond f", "7.1", body!("g\r\nhi\r\n0\r\n\r\n"), BAD),
        ("space before the size", "7.1", body!(" 2\r\nhi\r\n0\r\n\r\n"), BAD),
        ("space behind the size", "some readers trim, some stop", body!("2 \r\nhi\r\n0\r\n\r\n"), BAD),
        ("tab behind the size", "as above", body!("2\t\r\nhi\r\n0\r\n\r\n"), BAD),
        ("NUL behind the size", "strings end there for some", body!("2\0\r\nhi\r\n0\r\n\r\n"), BAD),
        ("bare line feed behind the size", "2.2 is not for chunks", body!("2\nhi\r\n0\r\n\r\n"), BAD),
        ("bare carriage return behind the size", "7.1", body!("2\rhi\r\n0\r\n\r\n"), BAD),
        ("two carriage returns behind the size", "7.1", body!("2\r\r\nhi\r\n0\r\n\r\n"), BAD),
        ("no end of data", "7.1", body!("2\r\nhi0\r\n\r\n"), BAD),
        ("data too long", "7.1", body!("2\r\nhi!\r\n0\r\n\r\n"), BAD),
        ("data too short", "7.1", body!("3\r\nhi\r\n0\r\n\r\n"), BAD),
        ("bare line feed behind data", "7.1", body!("2\r\nhi\n0\r\n\r\n"), BAD),
        ("bare carriage return behind data", "7.1", body!("2\r\nhi\r0\r\n\r\n"), BAD),
        ("empty line behind data", "7.1", body!("2\r\nhi\r\n\r\n0\r\n\r\n"), BAD),
        ("bare line feed at the end", "7.1", body!("0\r\n\n"), BAD),
        ("bare line feed behind the last size", "7.1", body!("0\n\r\n"), BAD),
        ("bare carriage return at the end", "7.1", body!("0\r\n\rx"), BAD),
        ("request instead of a chunk", "the length was forgotten", body!("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), BAD),
    ];
    check(cases);
}

#[test]
fn extensions() {
    let cases: &[Case] = &[
        ("name", "7.1.1: ignored", body!("2;a\r\nhi\r\n0\r\n\r\n"), HI),
        ("name and value", "7.1.1", body!("2;a=b\r\nhi\r\n0;c=d\r\n\r\n"), HI),
        ("quoted", "7.1.1", body!("2;a=\"b;c\"\r\nhi\r\n0\r\n\r\n"), HI),
        ("several", "7.1.1", body!("2;a;b=c; d\r\nhi\r\n0\r\n\r\n"), HI),
        ("bytes beyond ASCII", "opaque", body!("2;a=\u{e9}\r\nhi\r\n0\r\n\r\n"), HI),
        ("bare line feed", "readers that stop there see other chunks", body!("2;a\nhi\r\n0\r\n\r\n"), BAD),
        ("bare carriage return", "as above", body!("2;a\rb\r\nhi\r\n0\r\n\r\n"), BAD),
        ("quoted line end", "quotes do not hide it", body!("2;a=\"\r\n\"\r\n0\r\n\r\n"), BAD),
        ("NUL", "a control byte", body!("2;a\0\r\nhi\r\n0\r\n\r\n"), BAD),
        ("DEL", "a control byte", body!("2;a\u{7f}\r\nhi\r\n0\r\n\r\n"), BAD),
        ("space in front", "some readers end the size there", body!("2 ;a\r\nhi\r\n0\r\n\r\n"), BAD),
    ];
    check(cases);
}

#[test]
fn trailers() {
    let cases: &[Case] = &[
        ("one", "7.1.2: discarded", body!("0\r\nX: y\r\n\r\n"), EMPTY),
        ("two", "7.1.2", body!("0\r\nX: y\r\nZ:\r\n\r\n"), EMPTY),
        (
            "framing",
            "6.5.1: not merged, so it does no harm",
            body!("0\r\nContent-Length: 9\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"),
            Ok("POST /p 1.1 keep + GET / 1.0 close"),
        ),
        ("closing", "not merged", body!("0\r\nConnection: close\r\n\r\n"), EMPTY),
        ("cut off", "waited for", body!("0\r\nX: y\r\n"), Ok("POST /p 1.1 keep ...")),
        ("no colon", "5", body!("0\r\nX\r\n\r\n"), BAD),
        ("empty name", "5.1", body!("0\r\n: y\r\n\r\n"), BAD),
        ("space before the colon", "5.1", body!("0\r\nX : y\r\n\r\n"), BAD),
        ("folded", "5.2", body!("0\r\nX: y\r\n z\r\n\r\n"), BAD),
        ("space in front", "2.2", body!("0\r\n X: y\r\n\r\n"), BAD),
        ("NUL in the value", "9110 5.5", body!("0\r\nX: \0\r\n\r\n"), BAD),
        ("name beyond ASCII", "5.1", body!("0\r\n\u{dc}: y\r\n\r\n"), BAD),
        ("bare line feed", "2.2", body!("0\r\nX: y\n\r\n"), BAD),
        ("bare carriage return", "2.2", body!("0\r\nX: y\rZ: z\r\n\r\n"), BAD),
        ("a request", "the empty line was forgotten", body!("0\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"), BAD),
    ];
    check(cases);
}

/// Feeds a chunked body every way under some limits.
fn decode(body: &str, limits: &Limits) -> Result<String, E> {
    let outcome = decode_every_way(&latin1(&(HEAD.to_owned() + body)), limits, body);
    outcome.error.map_or(Ok(outcome.requests), Err)
}

#[test]
fn body_at_its_limit() {
    let limits = Limits { body_bytes_max: 20, ..Limits::default() };
    let x = |count: usize| "x".repeat(count);
    let fine = |body: &str| Ok(format!("POST /p 1.1 keep [{body}]"));
    assert_eq!(decode(&format!("14\r\n{}\r\n0\r\n\r\n", x(20)), &limits), fine(&x(20)));
    assert_eq!(decode("15\r\n", &limits), Err(E::BodyTooLarge), "known from the size");
    assert_eq!(decode(&format!("a\r\n{0}\r\na\r\n{0}\r\n0\r\n\r\n", x(10)), &limits), fine(&x(20)), "all chunks");
    assert_eq!(decode(&format!("a\r\n{}\r\nb", x(10)), &limits), Err(E::BodyTooLarge), "all chunks together");
    assert_eq!(decode("fffffffffffffff", &limits), Err(E::BodyTooLarge));
    let any = Limits { body_bytes_max: u64::MAX, ..Limits::default() };
    assert_eq!(decode("fffffffffffffff\r\nx", &any), Ok("POST /p 1.1 keep [x] ...".to_owned()));
    assert_eq!(decode("ffffffffffffffff\r\n", &any), Err(E::Chunk), "more digits than are counted");
    let none = Limits { body_bytes_max: 0, ..Limits::default() };
    assert_eq!(decode("0\r\n\r\n", &none), Ok("POST /p 1.1 keep".to_owned()));
    assert_eq!(decode("1\r\n", &none), Err(E::BodyTooLarge));
}

#[test]
fn chunk_line_at_its_limit() {
    let limits = Limits { chunk_line_bytes_max: 8, ..Limits::default() };
    assert_eq!(decode("2;3456 8\r\nhi\r\n0;3456 8\r\n\r\n", &limits), Ok("POST /p 1.1 keep [hi]".to_owned()));
    assert_eq!(decode("2;3456 89\r\nhi\r\n0\r\n\r\n", &limits), Err(E::Chunk));
    assert_eq!(decode("000000002\r\nhi\r\n0\r\n\r\n", &limits), Err(E::Chunk), "digits count");
}

/// Many small chunks with long extensions were a way to send much and be counted little.
#[test]
fn extensions_of_all_chunks_at_their_limit() {
    let limits = Limits { chunk_extension_bytes_max: 6, ..Limits::default() };
    assert_eq!(decode("1;a\r\nh\r\n1;b\r\ni\r\n0;c\r\n\r\n", &limits), Ok("POST /p 1.1 keep [hi]".to_owned()));
    assert_eq!(decode("1;a\r\nh\r\n1;b\r\ni\r\n0;c!\r\n\r\n", &limits), Err(E::Chunk));
    let none = Limits { chunk_extension_bytes_max: 0, ..Limits::default() };
    assert_eq!(decode("2\r\nhi\r\n0\r\n\r\n", &none), Ok("POST /p 1.1 keep [hi]".to_owned()));
    assert_eq!(decode("2;\r\n", &none), Err(E::Chunk));
    let each = format!("0;bcdef\r\n\r\n{HEAD}0;bcdef\r\n\r\n");
    assert_eq!(decode(&each, &limits), Ok("POST /p 1.1 keep + POST /p 1.1 keep".to_owned()), "each body for itself");
}

#[test]
fn trailer_at_its_limit() {
    let limits = Limits { trailer_bytes_max: 12, ..Limits::default() };
    assert_eq!(decode("0\r\nX: y\r\nZ: z\r\n\r\n", &limits), Ok("POST /p 1.1 keep".to_owned()), "12 bytes");
    assert_eq!(decode("0\r\nX: y\r\nZ: zz\r\n\r\n", &limits), Err(E::HeadTooLarge), "13 bytes");
    assert_eq!(decode("0\r\nX: yyyyyyyyyy", &limits), Err(E::HeadTooLarge), "before its end");
    let none = Limits { trailer_bytes_max: 0, ..Limits::default() };
    assert_eq!(decode("0\r\n\r\n", &none), Ok("POST /p 1.1 keep".to_owned()));
    assert_eq!(decode("0\r\nX", &none), Err(E::HeadTooLarge));
}

/// Counters as narrow as the limits stopped counting there.
#[test]
fn the_largest_limits_are_limits() {
    let limits = Limits {
        chunk_line_bytes_max: u16::MAX,
        chunk_extension_bytes_max: u16::MAX,
        trailer_bytes_max: u16::MAX,
        ..Limits::default()
    };
    let long = "x".repeat(70_000);
    for (body, error) in [(format!("2;{long}"), E::Chunk), (format!("0\r\nX: {long}"), E::HeadTooLarge)] {
        let input = HEAD.to_owned() + &body;
        assert_eq!(decode_pieces(&[input.as_bytes()], &limits).error, Some(error));
    }
}

/// Every byte at every place of the framing: only what is meant gets through.
#[test]
fn every_byte_in_every_place() {
    let text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let valid = b"2;e\r\nhi\r\n0\r\nX: y\r\n\r\n";
    for (at, byte) in (0..valid.len()).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
        let mut body = valid.to_vec();
        body[at] = byte;
        let is_fine = match at {
            5 | 6 => true,             // data
            2 | 14 | 15 => text(byte), // the extension, the trailer's value
            12 => token(byte),         // the trailer's name
            _ => byte == valid[at],
        };
        let outcome = decode_pieces(&[HEAD.as_bytes(), &body], &Limits::default());
        let is_whole = outcome.error.is_none() && !outcome.requests.ends_with("...");
        assert_eq!(is_whole, is_fine, "byte {byte} at {at}: {outcome:?}");
    }
}
