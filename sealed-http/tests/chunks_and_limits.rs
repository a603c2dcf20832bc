//! Chunks that are refused, and limits held to the byte: each case whole, a byte at a time, and split in two at every place.

use sealed_http::DecodeError::{self, BodyTooLarge, Chunk, HeadTooLarge, RequestLineTooLong};
use sealed_http::{Event, Limits, RequestDecoder};

/// The bodies of all requests that come in these pieces, keeping what was not used, as a server does.
fn decode(pieces: &[&[u8]], limits: &Limits) -> (Vec<Vec<u8>>, Option<DecodeError>) {
    let (mut decoder, mut kept, mut done) = (RequestDecoder::new(), Vec::new(), Vec::new());
    let mut current: Option<Vec<u8>> = None;
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            let (used, event) = match decoder.decode(&kept, limits) {
                Ok(found) => found,
                Err(error) => {
                    // Nothing is decoded any more, however well-formed.
                    let again = decoder.decode(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", limits);
                    assert!(again.is_err(), "poisoned");
                    return (done, Some(error));
                }
            };
            let mut incomplete = false;
            match event {
                Event::Incomplete => incomplete = true,
                Event::Head(_) => current = Some(Vec::new()),
                Event::Data(data) => current.as_mut().expect("behind a head").extend_from_slice(data),
                Event::End => done.push(current.take().expect("behind a head")),
            }
            kept.drain(..used);
            if incomplete {
                break;
            }
        }
    }
    (done, None)
}

/// Decodes in every way, and makes sure that they agree.
fn decode_every_way(bytes: &[u8], limits: &Limits) -> (Vec<Vec<u8>>, Option<DecodeError>) {
    let whole = decode(&[bytes], limits);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(decode(&single, limits), whole, "a byte at a time: {:?}", String::from_utf8_lossy(bytes));
    if bytes.len() < 2_000 {
        for at in 0..bytes.len() {
            let (one, other) = bytes.split_at(at);
            assert_eq!(decode(&[one, other], limits), whole, "split at {at}: {:?}", String::from_utf8_lossy(bytes));
        }
    }
    whole
}

#[test]
fn refused_chunks() {
    let cases: &[(&str, &str, DecodeError)] = &[
        ("no size", "\r\n", Chunk),
        ("a prefix", "0x1\r\na\r\n0\r\n\r\n", Chunk),
        ("a sign", "+1\r\na\r\n0\r\n\r\n", Chunk),
        ("a space in front", " 1\r\na\r\n0\r\n\r\n", Chunk),
        ("a space behind", "1 \r\na\r\n0\r\n\r\n", Chunk),
        ("an underscore", "1_0\r\na\r\n0\r\n\r\n", Chunk),
        ("no digit", "g\r\na\r\n0\r\n\r\n", Chunk),
        ("bare LF behind the size", "1\na\r\n0\r\n\r\n", Chunk),
        ("bare LF behind an extension", "1;a\na\r\n0\r\n\r\n", Chunk),
        ("bare LF behind the data", "1\r\na\n0\r\n\r\n", Chunk),
        ("more data than said", "1\r\nab\r\n0\r\n\r\n", Chunk),
        ("no end of the data", "1\r\na0\r\n\r\n", Chunk),
        ("a control byte in an extension", "1;\0\r\na\r\n0\r\n\r\n", Chunk),
        ("an extension without a size", ";a\r\na\r\n0\r\n\r\n", Chunk),
        ("CR alone in an extension", "1;a\rb\r\na\r\n0\r\n\r\n", Chunk),
        ("sixteen digits", "0000000000000001\r\na\r\n0\r\n\r\n", Chunk),
        ("larger than allowed", "100001\r\n", BodyTooLarge),
        ("huge", "fffffffffffffff\r\n", BodyTooLarge),
        ("larger together", "80000\r\n", BodyTooLarge),
        ("a trailer without a name", "0\r\n: b\r\n\r\n", Chunk),
        ("a trailer without a colon", "0\r\na\r\n\r\n", Chunk),
        ("a folded trailer", "0\r\na: b\r\n c\r\n\r\n", Chunk),
        ("NUL in a trailer", "0\r\na: \0\r\n\r\n", Chunk),
        ("bare LF in a trailer", "0\r\na: b\n\r\n", Chunk),
        ("bare LF at the end", "0\r\n\n", Chunk),
    ];
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (name, body, error) in cases {
        let limits = Limits {
            body_bytes_max: if *name == "larger together" { 0x7_ffff } else { 0x10_0000 },
            ..Limits::default()
        };
        let (done, found) = decode_every_way(format!("{head}{body}").as_bytes(), &limits);
        assert_eq!((done, found), (vec![], Some(*error)), "{name}");
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let limits = Limits {
        request_line_bytes_max: 30,
        head_bytes_max: 100,
        headers_max: 3,
        body_bytes_max: 10,
        chunk_line_bytes_max: 8,
        chunk_extension_bytes_max: 100,
        trailer_bytes_max: 20,
    };
    let check = |bytes: String, over: DecodeError, fits: bool| {
        let (done, error) = decode_every_way(bytes.as_bytes(), &limits);
        let expected = if fits { (1, None) } else { (0, Some(over)) };
        assert_eq!((done.len(), error), expected, "{bytes:?}");
    };
    for (extra, fits) in [(0, true), (1, false)] {
        let filler = |length: usize| "x".repeat(length + extra);
        check(format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", filler(16)), RequestLineTooLong, fits);
        check(format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", filler(68)), HeadTooLarge, fits);
        check(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(2 + extra)), HeadTooLarge, fits);
        let head = "POST / HTTP/1.1\r\nHost: h\r\n";
        check(format!("{head}Content-Length: {}\r\n\r\n{}", 10 + extra, filler(10)), BodyTooLarge, fits);
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        check(format!("{chunked}5\r\nhello\r\n{}\r\n{}\r\n0\r\n\r\n", 5 + extra, filler(5)), BodyTooLarge, fits);
        check(format!("{chunked}1;{}\r\na\r\n0\r\n\r\n", filler(6)), Chunk, fits);
        check(format!("{chunked}0\r\nA:{}\r\n\r\n", filler(16)), HeadTooLarge, fits);
    }
    // An endless line is not waited for.
    let endless = "x".repeat(200);
    assert_eq!(decode_every_way(endless.as_bytes(), &limits).1, Some(RequestLineTooLong));
    let endless = format!("GET / HTTP/1.1\r\n{endless}");
    assert_eq!(decode_every_way(endless.as_bytes(), &limits).1, Some(HeadTooLarge));
}
