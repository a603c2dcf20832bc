//! PROXY headers in front of the first request: the result does not depend on how the bytes are
//! split, the length is bounded, and a header that is written again is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealed_http::codec::ProxyHeader;

const BYTES_MAX: usize = 512;

fuzz_target!(|bytes: &[u8]| {
    let whole = ProxyHeader::decode(bytes, BYTES_MAX);
    let pieces = (0..=bytes.len()).map(|length| ProxyHeader::decode(&bytes[..length], BYTES_MAX));
    let first = pieces.into_iter().find(|result| !matches!(result, Ok(None))).unwrap_or(Ok(None));
    assert_eq!(first, whole, "a byte at a time");
    match whole {
        Ok(None) => assert!(bytes.len() < BYTES_MAX),
        Ok(Some((length, header))) => {
            assert!(length <= bytes.len().min(BYTES_MAX));
            let ProxyHeader::Proxied { source, destination } = header else { return };
            let family = if source.is_ipv4() { 4 } else { 6 };
            let (from, to, ports) = (source.ip(), destination.ip(), [source.port(), destination.port()]);
            let line = format!("PROXY TCP{family} {from} {to} {} {}\r\n", ports[0], ports[1]);
            assert_eq!(ProxyHeader::decode(line.as_bytes(), BYTES_MAX), Ok(Some((line.len(), header))));
        }
        Err(_) => {}
    }
});
