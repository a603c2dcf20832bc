//! Limits of chunked bodies, and every byte of their framing. Single cases are in
//! `common/cases/chunked.rs`.

mod common;

use common::{decode_every_way, decode_pieces, latin1};
use sealed_http::codec::{DecodeError as E, Limits};

const HEAD: &str = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Decodes a chunked body under these limits, split in every way.
fn decode(body: &str, limits: &Limits) -> Result<String, E> {
    let outcome = decode_every_way(&latin1(&(HEAD.to_owned() + body)), limits, body);
    outcome.error.map_or(Ok(outcome.requests), Err)
}

#[test]
fn a_body_is_refused_beyond_its_limit() {
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
fn a_chunk_line_is_refused_beyond_its_limit() {
    let limits = Limits { chunk_line_bytes_max: 8, ..Limits::default() };
    assert_eq!(decode("2;3456 8\r\nhi\r\n0;3456 8\r\n\r\n", &limits), Ok("POST /p 1.1 keep [hi]".to_owned()));
    assert_eq!(decode("2;3456 89\r\nhi\r\n0\r\n\r\n", &limits), Err(E::Chunk));
    assert_eq!(decode("000000002\r\nhi\r\n0\r\n\r\n", &limits), Err(E::Chunk), "digits count");
}

/// Sends many small chunks with long extensions: otherwise they would be much data that no limit
/// counts.
#[test]
fn extensions_of_all_chunks_are_refused_beyond_their_limit() {
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
fn trailers_are_refused_beyond_their_limit() {
    let limits = Limits { trailer_bytes_max: 12, ..Limits::default() };
    assert_eq!(decode("0\r\nX: y\r\nZ: z\r\n\r\n", &limits), Ok("POST /p 1.1 keep".to_owned()), "12 bytes");
    assert_eq!(decode("0\r\nX: y\r\nZ: zz\r\n\r\n", &limits), Err(E::HeadTooLarge), "13 bytes");
    assert_eq!(decode("0\r\nX: yyyyyyyyyy", &limits), Err(E::HeadTooLarge), "before its end");
    let none = Limits { trailer_bytes_max: 0, ..Limits::default() };
    assert_eq!(decode("0\r\n\r\n", &none), Ok("POST /p 1.1 keep".to_owned()));
    assert_eq!(decode("0\r\nX", &none), Err(E::HeadTooLarge));
}

/// Sets the largest limits: a counter as narrow as the limits would stop counting there.
#[test]
fn the_largest_limits_hold() {
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

/// Tries every byte at every place of the framing: only the expected bytes are accepted.
#[test]
fn every_byte_is_checked_in_every_place() {
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
