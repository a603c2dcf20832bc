//! Promises of the decoder: the same values, however the bytes are split, and bounds.

use super::*;

/// Decodes pieces of the bytes of a connection: the values before an error, and the error.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Value>, Option<RespError>) {
    let (mut decoder, mut values) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break,
                Err(error) => return (values, Some(error)),
            }
        }
    }
    (values, None)
}

fn whole(bytes: &[u8]) -> (Vec<Value>, Option<RespError>) {
    let found = decode([bytes]);
    for size in [1, 2, 3, 7] {
        assert_eq!(decode(bytes.chunks(size)), found, "in pieces of {size}");
    }
    found
}

fn bytes(text: &'static str) -> Value {
    Value::Bytes(text.into())
}

#[test]
fn a_command_is_an_array_of_blobs() {
    let mut out = b"before".to_vec();
    encode(&mut out, &[b"SET", b"a\r\nb", b""]);
    assert_eq!(out, b"before*3\r\n$3\r\nSET\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
    let (values, error) = whole(&out[6..]);
    assert_eq!((values, error), (vec![Value::Array(vec![bytes("SET"), bytes("a\r\nb"), bytes("")])], None));
}

#[test]
fn every_kind_of_value_is_decoded() {
    for (text, value) in [
        ("_\r\n", Value::Nil),
        (":-7\r\n", Value::Integer(-7)),
        ("#t\r\n", Value::Integer(1)),
        ("#f\r\n", Value::Integer(0)),
        (",1.5\r\n", bytes("1.5")),
        (
            "%2\r\n+a\r\n+2\r\n+a\r\n+1\r\n",
            Value::Array(vec![Value::Array(vec![bytes("a"), bytes("1")]), Value::Array(vec![bytes("a"), bytes("2")])]),
        ),
        ("(123456789012345678901234567890\r\n", bytes("123456789012345678901234567890")),
        ("+\r\n", bytes("")),
        ("+OK\r\n", bytes("OK")),
        ("$5\r\na\r\nbc\r\n", bytes("a\r\nbc")),
        ("=7\r\ntxt:abc\r\n", bytes("abc")),
        ("-ERR wrong\r\n", Value::Error("ERR wrong".into())),
        ("!9\r\nERR wrong\r\n", Value::Error("ERR wrong".into())),
        ("*0\r\n", Value::Array(vec![])),
        ("*2\r\n:1\r\n*1\r\n_\r\n", Value::Array(vec![Value::Integer(1), Value::Array(vec![Value::Nil])])),
        ("~2\r\n:2\r\n:1\r\n", Value::Array(vec![Value::Integer(1), Value::Integer(2)])),
        (">2\r\n+message\r\n$1\r\nx\r\n", Value::Push(vec![bytes("message"), bytes("x")])),
        (
            "%2\r\n+b\r\n:2\r\n+a\r\n*0\r\n",
            Value::Array(vec![
                Value::Array(vec![bytes("a"), Value::Array(vec![])]),
                Value::Array(vec![bytes("b"), Value::Integer(2)]),
            ]),
        ),
    ] {
        let twice = format!("{text}{text}");
        assert_eq!(whole(twice.as_bytes()), (vec![value.clone(), value], None), "{text:?}");
        let cut = &text.as_bytes()[..text.len() - 1];
        assert_eq!(whole(cut), (vec![], None), "{text:?} without its end");
    }
}

#[test]
fn bytes_of_other_protocols_are_refused() {
    for text in [
        "HTTP/1.1 400 Bad Request\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "\x15\x03\x03\0\x02\x02\x16",
        "$-1\r\n",
        "*-1\r\n",
        "$?\r\n",
        "*?\r\n",
        "|1\r\n+a\r\n:1\r\n+b\r\n",
        ".\r\n",
        ";1\r\na\r\n",
        "$+1\r\na\r\n",
        "$1\r\nabc",
        "$x\r\n",
        "$\r\n",
        ":x\r\n",
        ":1.5\r\n",
        "#x\r\n",
        "_x\r\n+\n",
        "+a\nb\r\n",
        "=2\r\nab\r\n",
        "%1\r\n*0\r\n:1\r\n",
        ":00000000000000000000000000000000000000000000000001\r\n",
    ] {
        let (values, error) = whole(text.as_bytes());
        assert_eq!(
            (values.len(), error),
            (usize::from(text.starts_with("_x")), Some(RespError::Malformed)),
            "{text:?}"
        );
    }
}

#[test]
fn frames_beyond_the_bounds_are_refused_before_they_have_arrived() {
    let nested = |depth: usize| format!("{}:1\r\n", "*1\r\n".repeat(depth));
    assert_eq!(whole(nested(DEPTH_MAX).as_bytes()).0.len(), 1);
    assert_eq!(whole(nested(DEPTH_MAX + 1).as_bytes()).1, Some(RespError::TooDeep));
    for (text, error) in [
        ("*1048577\r\n".to_owned(), RespError::TooMany),
        ("%524289\r\n".to_owned(), RespError::TooMany),
        ("*2\r\n*600000\r\n*600000\r\n".to_owned(), RespError::TooMany),
        ("*99999999999999999999999\r\n".to_owned(), RespError::TooLarge),
        (format!("${FRAME_BYTES_MAX}\r\n"), RespError::TooLarge),
        ("$18446744073709551615\r\n".to_owned(), RespError::TooLarge),
        (format!("+{}", "a".repeat(LINE_BYTES_MAX + 1)), RespError::Malformed),
    ] {
        // Some arrays are complete, so that the second of the third case is reached.
        let text = text.replace("*600000\r\n*600000", &format!("*600000\r\n{}*600000", "_\r\n".repeat(600_000)));
        assert_eq!(decode([text.as_bytes()]).1, Some(error), "{:?}", &text[..text.len().min(40)]);
    }
    let long = format!("${}\r\n", FRAME_BYTES_MAX - 100);
    assert_eq!(decode([long.as_bytes()]), (vec![], None));
}

#[test]
fn a_large_frame_in_pieces_costs_no_more_than_its_bytes() {
    let entries = 20_000;
    let mut text = format!("*{entries}\r\n").into_bytes();
    for number in 0..entries {
        text.extend(format!("*2\r\n:{number}\r\n$200\r\n{}\r\n", "x".repeat(200)).bytes());
    }
    let (mut decoder, mut scanned, mut found) = (Decoder::default(), 0, None);
    for piece in text.chunks(1_000) {
        let before = decoder.scanner.at.max(decoder.scanner.searched);
        decoder.feed(piece);
        found = decoder.next().expect("a value");
        let after = if found.is_some() { text.len() } else { decoder.scanner.at.max(decoder.scanner.searched) };
        assert!(after >= before, "it goes back");
        scanned += after - before;
    }
    assert!(scanned <= text.len() + 300, "{scanned} of {}", text.len());
    assert!(matches!(found, Some(Value::Array(values)) if values.len() == entries));
}
