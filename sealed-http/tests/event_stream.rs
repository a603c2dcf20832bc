//! Streams of events, one case per row, each fed whole, a byte at a time, and split in two at every
//! position.

use std::fmt::Write as _;

use sealed_http::client::{EventStream, EventTooLong};

fn read(pieces: &[&[u8]], bytes_max: usize) -> Result<String, EventTooLong> {
    let mut stream = EventStream::new(bytes_max);
    let mut text = String::new();
    for piece in pieces {
        stream.read(piece, |event| {
            let _ = write!(text, "{}={:?}@{} ", event.event, event.data, event.last_event_id);
        })?;
    }
    let retry = stream.retry().map_or(String::new(), |retry| format!(" retry {}", retry.as_millis()));
    Ok(format!("{text}last {}{retry}", stream.last_event_id()))
}

fn check(bytes: &[u8], bytes_max: usize, expected: Result<&str, EventTooLong>) {
    let expected = expected.map(str::to_owned);
    let shown = bytes.escape_ascii();
    assert_eq!(read(&[bytes], bytes_max), expected, "{shown}");
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>(), bytes_max), expected, "a byte at a time: {shown}");
    for at in 0..bytes.len() {
        let (one, other) = bytes.split_at(at);
        assert_eq!(read(&[one, other], bytes_max), expected, "split at {at}: {shown}");
    }
}

#[test]
fn events_are_read_as_browsers_read_them() {
    let cases: &[(&[u8], &str)] = &[
        (b"data: a\n\n", r#"message="a"@ last "#),
        (b"data:a\ndata: b\ndata\ndata\n\n", r#"message="a\nb\n\n"@ last "#),
        (b"data:  two spaces\n\n", r#"message=" two spaces"@ last "#),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\r\n", r#"message="a"@ message="b"@ message="c"@ last "#),
        (b"event: gap\ndata: {}\n\n", r#"gap="{}"@ last "#),
        (b"event: gap\n\ndata: a\n\n", r#"message="a"@ last "#),
        (b"id: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", r#"message="a"@7 message="b"@7 message="c"@ last "#),
        (b"id: 7\n\n", "last 7"),
        (b"id: 7\n", "last "),
        (b"id: a\0b\ndata: a\n\n", r#"message="a"@ last "#),
        (b": keep-alive\n\n:\n\n", "last "),
        (b"retry: 2500\n\n", "last  retry 2500"),
        (b"retry: 2.5\nretry:\nretry: -1\n\n", "last "),
        (b"unknown: a\ndata: a\n\n", r#"message="a"@ last "#),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", r#"message="a"@ last "#),
        (b"data: \xff\n\n", "message=\"\u{fffd}\"@ last "),
        (b"data\n\n", r#"message=""@ last "#),
        (b"data: not complete\n", "last "),
    ];
    for (bytes, expected) in cases {
        check(bytes, 1_000, Ok(expected));
    }
}

#[test]
fn events_beyond_the_limit_are_refused() {
    check(b"data: 123456789\n\n", 15, Ok("message=\"123456789\"@ last "));
    check(b"data: 1234567890\n\n", 15, Err(EventTooLong));
    check(b"data: 123\ndata: 123456\n\n", 15, Ok("message=\"123\\n123456\"@ last "));
    check(b"data: 123\ndata: 1234567\n\n", 15, Err(EventTooLong));
    check(&b"data: 123456789\n\n".repeat(100), 15, Ok(&("message=\"123456789\"@ ".repeat(100) + "last ")));
    check(b": a comment of any length passes the bound", 15, Err(EventTooLong));
}
