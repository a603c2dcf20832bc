//! The requests of a connection: the result does not depend on how the bytes are split, and a
//! request that is encoded again has the same meaning.
#![no_main]

use fuzz::{TIGHT, decode, decode_every_way, encode};
use libfuzzer_sys::fuzz_target;
use sealed_http::codec::Limits;

fuzz_target!(|bytes: &[u8]| {
    decode_every_way(bytes, &TIGHT);
    let decoded = decode_every_way(bytes, &Limits::default());
    for request in &decoded.whole {
        // The new head may be longer, by a space after each colon.
        let again = decode([&encode(request)[..]], &Limits { head_bytes_max: 1 << 20, ..Limits::default() });
        assert_eq!(again.whole, std::slice::from_ref(request));
    }
});
