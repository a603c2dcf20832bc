//! Replies of Redis: the result does not depend on how the bytes are split, and is bounded. A
//! command that is encoded can be read.
#![no_main]

#[path = "../../ccomet/src/engine/store/redis/resp.rs"]
mod resp;

use libfuzzer_sys::fuzz_target;
use resp::{DEPTH_MAX, Decoder, RespError, VALUES_MAX, Value, encode};

fuzz_target!(|bytes: &[u8]| {
    let size = bytes.first().map_or(1, |first| usize::from(*first) % 31 + 2);
    let whole = decode([bytes]);
    assert_eq!(decode(bytes.chunks(1)), whole, "a byte at a time");
    assert_eq!(decode(bytes.chunks(size)), whole, "in pieces of {size}");
    for value in &whole.0 {
        let (count, depth) = measure(value);
        assert!(count <= 2 * VALUES_MAX + 1 && depth <= 2 * DEPTH_MAX, "{count} values, {depth} deep");
    }
    // The input as data: a command can be read.
    let parts: Vec<&[u8]> = bytes.chunks(size).collect();
    let mut sent = Vec::new();
    encode(&mut sent, &parts);
    let parts = parts.into_iter().map(|part| Value::Bytes(part.to_vec().into())).collect();
    assert_eq!(decode(sent.chunks(size)), (vec![Value::Array(parts)], None));
});

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

/// Returns the number of values, and the depth of arrays. A pair of a map is an array, too.
fn measure(value: &Value) -> (usize, usize) {
    match value {
        Value::Array(values) | Value::Push(values) => {
            let parts = values.iter().map(measure);
            let (count, depth) = parts.fold((1, 0), |(count, depth), (n, d)| (count + n, depth.max(d)));
            (count, depth + 1)
        }
        _ => (1, 0),
    }
}
