//! Request targets, queries, segments and routes: malformed input does no harm, and encoded input
//! is decoded.
#![no_main]

use fuzz::decode_every_way;
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use sealed_http::Method;
use sealed_http::codec::Limits;
use sealed_http::site::{NoRoute, Query, Routes, decode_segment};

fuzz_target!(|bytes: &[u8]| {
    for method in ["GET", "OPTIONS"] {
        let request = [method.as_bytes(), b" ", bytes, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        for request in decode_every_way(&request, &Limits::default()).whole {
            take_apart(&request.path, request.query.as_deref());
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        take_apart(text, Some(text));
        round(text);
    }
});

/// Decodes everything that can be decoded, and asserts that it survives encoding and decoding
/// again.
fn take_apart(path: &str, query: Option<&str>) {
    for segment in path.split('/') {
        if let Ok(decoded) = decode_segment(segment) {
            assert_eq!(decoded == segment, !segment.contains('%'));
            round(&decoded);
        }
    }
    route(path);
    let query = Query::new(query);
    for (name, value) in query.pairs().flatten() {
        round(&name);
        round(&value);
        // The first parameter of that name is found, which may be another one.
        assert_ne!(query.get(&name), Ok(None));
    }
}

/// Asserts that a path is matched as it was sent, and that its parameters are its segments,
/// decoded.
fn route(path: &str) {
    let routes = Routes::new().get("/{a}/{b}", 2).get("/{rest...}", 1);
    match routes.find(Method::Get, path) {
        Ok((2, params)) => {
            let sent: Vec<_> =
                path.split('/').skip(1).map(|segment| decode_segment(segment).expect("decoded")).collect();
            assert_eq!([&params["a"], &params["b"]], sent[..]);
        }
        Ok((_, params)) => assert_eq!(decode_segment(&path[1..]).as_deref(), Ok(&params["rest"])),
        Err(NoRoute::BadEncoding) => assert!(path.split('/').any(|segment| decode_segment(segment).is_err())),
        Err(_) => assert!(!path.starts_with('/')),
    }
}

/// Encodes a text as a segment and as a form does, and asserts that decoding returns it.
fn round(text: &str) {
    let escaped = percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
    assert_eq!(decode_segment(&escaped).as_deref(), Ok(text));
    assert_eq!(decode_segment(&escaped.to_lowercase()).as_deref(), Ok(&*text.to_ascii_lowercase()));
    let spaced = escaped.replace("%20", "+");
    let form = format!("a=b&{spaced}={spaced}");
    let (name, pairs) = (text, Query::new(Some(&form)).pairs().collect::<Vec<_>>());
    let Some(Ok(last)) = pairs.last() else { panic!("a pair of {form}") };
    assert_eq!((&*last.0, &*last.1), (name, text));
    if name != "a" {
        assert_eq!(Query::new(Some(&form)).get(name).as_ref().map(|value| value.as_deref()), Ok(Some(text)));
    }
}
