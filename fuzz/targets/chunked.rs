//! Chunked bodies: the result does not depend on how the bytes are split, and is the same for
//! another reader. Data that is written in chunks can be read.
#![no_main]

#[path = "../../sealed-http/tests/differential/chunks.rs"]
mod chunks;

use fuzz::{Outcome, TIGHT, decode, decode_every_way};
use libfuzzer_sys::fuzz_target;
use sealed_http::codec::{Limits, encode_chunk, encode_last_chunk};

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let body = [HEAD, bytes].concat();
    decode_every_way(&body, &TIGHT);
    if let Some(request) = decode_every_way(&body, &limits).whole.first() {
        let (body, _) = chunks::parse(bytes).expect("what is accepted is accepted by others");
        assert_eq!(request.body, body);
    }
    // The input as data: chunks of any size can be read.
    let size = 1 + usize::from(bytes.first().copied().unwrap_or_default());
    let mut written = HEAD.to_vec();
    for data in bytes.chunks(size) {
        encode_chunk(&mut written, data);
    }
    encode_last_chunk(&mut written);
    let Outcome { whole, coming: None, error: None } = decode([&written[..]], &limits) else {
        panic!("what was written is not read");
    };
    assert!(whole.len() == 1 && whole[0].body == bytes);
});
