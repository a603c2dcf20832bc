//! Heads and bodies of known length, one case a row: what is understood, and what is refused and why.
//!
//! Each case is fed whole, a byte at a time, and split in two at every position. RFC numbers are 9110 and 9112.

mod common;

use common::{Case, check};
use sealed_http::DecodeError as E;

/// A GET with these header fields.
macro_rules! get {
    ($($fields:literal),*) => { concat!("GET / HTTP/1.1\r\nHost: h\r\n", $($fields, "\r\n",)* "\r\n") };
}

/// A GET of this target.
macro_rules! target {
    ($target:literal) => {
        concat!("GET ", $target, " HTTP/1.1\r\nHost: h\r\n\r\n")
    };
}

/// A GET with this Host.
macro_rules! host {
    ($host:literal) => {
        concat!("GET / HTTP/1.1\r\nHost: ", $host, "\r\n\r\n")
    };
}

/// A POST with these header fields and this body behind them.
macro_rules! post {
    ($($fields:literal),*; $body:literal) => {
        concat!("POST /p HTTP/1.1\r\nHost: h\r\n", $($fields, "\r\n",)* "\r\n", $body)
    };
}

const OK: Result<&str, E> = Ok("GET / 1.1 keep");

#[test]
fn request_lines() {
    let cases: &[Case] = &[
        ("simplest", "9112 3", get!(), OK),
        ("known method", "9110 9.1", "DELETE /a HTTP/1.1\r\nHost: h\r\n\r\n", Ok("DELETE /a 1.1 keep")),
        (
            "unknown method",
            "the server answers 501 or 405",
            "BREW /a HTTP/1.1\r\nHost: h\r\n\r\n",
            Ok("BREW /a 1.1 keep"),
        ),
        (
            "method of token bytes",
            "9110 5.6.2",
            "!#$%&'*+-.^_`|~0 /a HTTP/1.1\r\nHost: h\r\n\r\n",
            Ok("!#$%&'*+-.^_`|~0 /a 1.1 keep"),
        ),
        (
            "method in small letters",
            "9110 9.1: methods are case-sensitive",
            "get /a HTTP/1.1\r\nHost: h\r\n\r\n",
            Ok("get /a 1.1 keep"),
        ),
        ("connect", "a tunnel is not served", "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::Connect)),
        ("connect of a path", "refused whatever its target", "CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::Connect)),
        ("method with a colon", "not a token", "GE:T / HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("method with a bracket", "not a token", "G(T / HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("method beyond ASCII", "not a token", "G\u{c9}T / HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("no method", "9112 3", " / HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("method alone", "9112 3", "GET\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("no version", "HTTP/0.9 is over", "GET /\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("space but no version", "9112 3", "GET / \r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("no target", "9112 3", "GET  HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        (
            "two spaces before the target",
            "9112 3.2: lenient splitting is a risk",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            Err(E::RequestLine),
        ),
        ("two spaces before the version", "as above", "GET /  HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("tab for a space", "as above", "GET\t/\tHTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("tab within the target", "as above", "GET /\ta HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("space within the target", "9112 3.2", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("space behind the version", "9112 3", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", Err(E::LineEnd)),
        ("space in front of the line", "9112 3", " GET / HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("one empty line in front", "9112 2.2: old clients", concat!("\r\n", get!()), OK),
        ("two empty lines in front", "one is forgiven, no more", concat!("\r\n\r\n", get!()), Err(E::RequestLine)),
        ("bare line feed in front", "not an empty line", concat!("\n", get!()), Err(E::LineEnd)),
        ("bare carriage return in front", "not an empty line", concat!("\r", get!()), Err(E::LineEnd)),
        ("not HTTP", "9112 3", "hello\r\n\r\n", Err(E::RequestLine)),
        ("a TLS hello", "what browsers send to the wrong port", "\u{16}\u{3}\u{1}\u{2}\0\r\n\r\n", Err(E::RequestLine)),
        ("a response", "a client that answers", "HTTP/1.1 200 OK\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
    ];
    check(cases);
}

#[test]
fn versions() {
    let cases: &[Case] = &[
        ("1.0", "9112 C.1: no Host needed, closes", "GET / HTTP/1.0\r\n\r\n", Ok("GET / 1.0 close")),
        ("1.0 with Host", "allowed", "GET / HTTP/1.0\r\nHost: h\r\n\r\n", Ok("GET / 1.0 close")),
        ("1.2", "spoken by nobody", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", Err(E::Version)),
        ("2.0", "does not look like this", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", Err(E::Version)),
        ("the preface of HTTP/2", "9113 3.4", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(E::Version)),
        ("2.0 and more", "not a request line at all", "GET / HTTP/2.0 x\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("0.9", "well-formed, not spoken", "GET / HTTP/0.9\r\nHost: h\r\n\r\n", Err(E::Version)),
        ("9.9", "well-formed, not spoken", "GET / HTTP/9.9\r\nHost: h\r\n\r\n", Err(E::Version)),
        ("2", "9112 2.3: two numbers", "GET / HTTP/2\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("1.", "two digits", "GET / HTTP/1.\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("1.10", "one digit each", "GET / HTTP/1.10\r\nHost: h\r\n\r\n", Err(E::LineEnd)),
        ("11.1", "one digit each", "GET / HTTP/11.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("01.1", "one digit each", "GET / HTTP/01.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("1,1", "a dot", "GET / HTTP/1,1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("1.x", "digits", "GET / HTTP/1.x\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("small letters", "9112 2.3: case-sensitive", "GET / http/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("other protocol", "9112 2.3", "GET / HTTPS/1.1\r\nHost: h\r\n\r\n", Err(E::RequestLine)),
        ("protocol cut off", "9112 2.3", "GET / HT\r\n\r\n", Err(E::RequestLine)),
    ];
    check(cases);
}

#[test]
fn targets() {
    let cases: &[Case] = &[
        ("path", "9112 3.2.1", target!("/a/b"), Ok("GET /a/b 1.1 keep")),
        ("path not decoded", "decoding comes after routing", target!("/a%2Fb/../c"), Ok("GET /a%2Fb/../c 1.1 keep")),
        ("query", "9112 3.2.1", target!("/a?b=c&d"), Ok("GET /a?b=c&d 1.1 keep")),
        ("empty query", "3986 3.4", target!("/a?"), Ok("GET /a? 1.1 keep")),
        ("second question mark", "3986 3.4: it belongs to the query", target!("/a?b?c"), Ok("GET /a?b?c 1.1 keep")),
        ("two slashes", "an empty first segment, no authority", target!("//h/a"), Ok("GET //h/a 1.1 keep")),
        ("printable bytes", "browsers send some unescaped", target!("/a\"<>\\^`{|}"), Ok("GET /a\"<>\\^`{|} 1.1 keep")),
        ("absolute", "9112 3.2.2: must be accepted", target!("http://h/a?b"), Ok("GET /a?b 1.1 keep")),
        ("absolute with port", "9112 3.2.2", target!("http://h:80/a"), Ok("GET /a 1.1 keep")),
        ("absolute https", "a proxy that ends TLS", target!("HTTPS://h/a"), Ok("GET /a 1.1 keep")),
        ("absolute IPv6", "3986 3.2.2", target!("http://[::1]:80/a"), Ok("GET /a 1.1 keep")),
        ("absolute without path", "9110 4.2.3: the root", target!("http://h"), Ok("GET / 1.1 keep")),
        ("absolute with only a query", "9110 4.2.3", target!("http://h?a"), Ok("GET /?a 1.1 keep")),
        (
            "absolute OPTIONS",
            "9110 7.1: the server",
            "OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n",
            Ok("OPTIONS * 1.1 keep"),
        ),
        ("absolute without host", "9110 4.2.1", target!("http:///a"), Err(E::Target)),
        ("absolute with user", "9110 4.2.4: a host in disguise", target!("http://u@h/a"), Err(E::Target)),
        ("absolute with bad port", "3986 3.2.3", target!("http://h:x/a"), Err(E::Target)),
        ("absolute of other scheme", "not served", target!("ftp://h/a"), Err(E::Target)),
        ("absolute without slashes", "not a URI of http", target!("http:h/a"), Err(E::Target)),
        ("relative path", "9112 3.2.1: starts with a slash", target!("a/b"), Err(E::Target)),
        ("query alone", "9112 3.2.1", target!("?a"), Err(E::Target)),
        ("authority form", "9112 3.2.3: for CONNECT only", target!("h:80"), Err(E::Target)),
        ("fragment", "9110 7.1: none in a target", target!("/a#b"), Err(E::Target)),
        ("asterisk", "9112 3.2.4", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", Ok("OPTIONS * 1.1 keep")),
        ("asterisk for GET", "9112 3.2.4: for OPTIONS only", target!("*"), Err(E::Target)),
        ("asterisk and more", "9112 3.2.4", "OPTIONS *a HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::Target)),
        ("UTF-8 in the target", "3986 2: must be escaped", target!("/\u{c3}\u{a9}"), Err(E::Target)),
        ("stray byte in the target", "3986 2", target!("/\u{e9}"), Err(E::RequestLine)),
        ("NUL in the target", "readers end strings there", target!("/a\0b"), Err(E::RequestLine)),
        ("DEL in the target", "a control byte", target!("/a\u{7f}"), Err(E::RequestLine)),
    ];
    check(cases);
}

#[test]
fn hosts() {
    let cases: &[Case] = &[
        ("name", "9110 7.2", host!("example.org"), OK),
        ("name and port", "9110 7.2", host!("example.org:8100"), OK),
        ("empty port", "3986 3.2.3", host!("example.org:"), OK),
        ("highest port", "16 bits", host!("h:65535"), OK),
        ("IPv4", "3986 3.2.2", host!("127.0.0.1:80"), OK),
        ("IPv6", "3986 3.2.2", host!("[2001:db8::1]"), OK),
        ("IPv6 and port", "3986 3.2.2", host!("[::1]:8100"), OK),
        ("underscore", "names in containers have it", host!("my_app"), OK),
        ("missing", "9112 3.2: must be refused", "GET / HTTP/1.1\r\n\r\n", Err(E::Host)),
        ("missing with absolute target", "9112 3.2: even so", "GET http://h/ HTTP/1.1\r\n\r\n", Err(E::Host)),
        ("twice", "9112 3.2: must be refused", get!("Host: h"), Err(E::Host)),
        ("twice, different", "whom does who believe", get!("host: other"), Err(E::Host)),
        ("twice in 1.0", "no better there", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Err(E::Host)),
        ("list", "what becomes of two when they are joined", host!("a,b"), Err(E::Host)),
        ("empty", "no host", host!(""), Err(E::Host)),
        ("port alone", "no host", host!(":80"), Err(E::Host)),
        ("port in words", "3986 3.2.3", host!("h:http"), Err(E::Host)),
        ("port with sign", "3986 3.2.3", host!("h:+80"), Err(E::Host)),
        ("port too high", "16 bits", host!("h:65536"), Err(E::Host)),
        ("port too long", "16 bits", host!("h:000080"), Err(E::Host)),
        ("two ports", "3986 3.2", host!("h:80:81"), Err(E::Host)),
        ("user", "9110 4.2.4", host!("u@h"), Err(E::Host)),
        ("path", "not a host", host!("h/a"), Err(E::Host)),
        ("URI", "not a host", host!("http://h"), Err(E::Host)),
        ("space within", "not a host", host!("a b"), Err(E::Host)),
        ("escape", "no host needs it, and it is decoded by some", host!("h%2Fa"), Err(E::Host)),
        ("beyond ASCII", "3986 3.2.2", host!("h\u{e9}"), Err(E::Host)),
        ("IPv6 without brackets", "3986 3.2.2", host!("::1"), Err(E::Host)),
        ("IPv6 not closed", "3986 3.2.2", host!("[::1"), Err(E::Host)),
        ("IPv6 malformed", "3986 3.2.2", host!("[::1::2]"), Err(E::Host)),
        ("IPv6 with zone", "6874 was withdrawn", host!("[fe80::1%25eth0]"), Err(E::Host)),
        ("IPv6 with more behind", "3986 3.2.2", host!("[::1]x"), Err(E::Host)),
    ];
    check(cases);
}

#[test]
fn header_fields() {
    let cases: &[Case] = &[
        ("empty value", "9110 5.5", get!("X:"), OK),
        ("white space around the value", "9112 5.1", get!("X: \t a \t "), OK),
        ("no white space", "9112 5.1", get!("X:a"), OK),
        ("tab within the value", "9110 5.5", get!("X: a\tb"), OK),
        ("bytes beyond ASCII in the value", "9110 5.5: opaque data", get!("X: \u{e9}\u{ff}"), OK),
        ("name of token bytes", "9110 5.6.2", get!("!#$%&'*+-.^_`|~0: a"), OK),
        ("colon in the value", "the first one counts", get!("X: a:b"), OK),
        ("space before the colon", "9112 5.1: must be refused", get!("X : a"), Err(E::Header)),
        ("tab before the colon", "9112 5.1", get!("X\t: a"), Err(E::Header)),
        ("space before the colon of a length", "the classic of smuggling", get!("Content-Length : 5"), Err(E::Header)),
        ("space before the first name", "9112 2.2", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", Err(E::Header)),
        ("folded", "9112 5.2: must be refused", get!("X: a", " b"), Err(E::Header)),
        ("folded with a tab", "9112 5.2", get!("X: a", "\tb"), Err(E::Header)),
        ("folded coding", "9112 5.2, as an attack", get!("Transfer-Encoding:", " chunked"), Err(E::Header)),
        ("folded, empty", "9112 5.2", get!("X: a", " "), Err(E::Header)),
        ("empty name", "9110 5.1", get!(": a"), Err(E::Header)),
        ("no colon", "9112 5", get!("X"), Err(E::Header)),
        ("space within the name", "9110 5.1", get!("X Y: a"), Err(E::Header)),
        ("NUL in the name", "9110 5.1", get!("X\0: a"), Err(E::Header)),
        ("name beyond ASCII", "9110 5.1", get!("\u{dc}: a"), Err(E::Header)),
        ("bracket in the name", "9110 5.6.2", get!("X[]: a"), Err(E::Header)),
        ("NUL in the value", "9110 5.5: must be refused", get!("X: a\0b"), Err(E::Header)),
        ("DEL in the value", "a control byte", get!("X: a\u{7f}"), Err(E::Header)),
        ("escape in the value", "control bytes on terminals", get!("X: \u{1b}[31m"), Err(E::Header)),
        ("bare line feed", "9112 2.2: not taken for a line's end here", "GET / HTTP/1.1\nHost: h\n\n", Err(E::LineEnd)),
        ("bare line feed in fields", "two readers, two meanings", get!("X: a\nY: b"), Err(E::LineEnd)),
        ("bare line feed at the end", "half an empty line", "GET / HTTP/1.1\r\nHost: h\r\n\n", Err(E::LineEnd)),
        ("bare carriage return", "9112 2.2: must be refused", get!("X: a\rY: b"), Err(E::LineEnd)),
        ("two carriage returns", "9112 2.2", "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", Err(E::LineEnd)),
        ("carriage return in the line", "9112 2.2", "GET /\ra HTTP/1.1\r\nHost: h\r\n\r\n", Err(E::LineEnd)),
        ("carriage return before the length", "a hidden field", get!("X: a\rContent-Length: 5"), Err(E::LineEnd)),
    ];
    check(cases);
}

#[test]
fn lengths() {
    let repeated = Err(E::ContentLength);
    let cases: &[Case] = &[
        ("body", "9112 6.2", post!("Content-Length: 5"; "hello"), Ok("POST /p 1.1 keep [hello]")),
        (
            "any bytes",
            "a body is opaque",
            post!("Content-Length: 4"; "\0\r\n\u{7f}"),
            Ok("POST /p 1.1 keep [\\0\\r\\n\\u{7f}]"),
        ),
        ("none", "9112 6.3: no length, no body", post!(; ""), Ok("POST /p 1.1 keep")),
        ("nought", "an empty body", post!("Content-Length: 0"; ""), Ok("POST /p 1.1 keep")),
        ("not all there", "it is waited for", post!("Content-Length: 5"; "hel"), Ok("POST /p 1.1 keep [hel] ...")),
        ("leading noughts", "9110 8.6: digits", post!("Content-Length: 005"; "hello"), Ok("POST /p 1.1 keep [hello]")),
        ("name in small letters", "9110 5.1", post!("content-length: 5"; "hello"), Ok("POST /p 1.1 keep [hello]")),
        ("white space around", "9112 5.1", post!("Content-Length: \t5 "; "hello"), Ok("POST /p 1.1 keep [hello]")),
        ("body of a GET", "9110 9.3.1: framed like any", get!("Content-Length: 0"), OK),
        ("in 1.0", "9112 6.3", "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", Ok("POST / 1.0 close [hi]")),
        (
            "repeated, different",
            "9112 6.3: unrecoverable",
            post!("Content-Length: 5", "Content-Length: 6"; "hello"),
            repeated,
        ),
        (
            "repeated, the same",
            "nobody honest sends it",
            post!("Content-Length: 5", "Content-Length: 5"; "hello"),
            repeated,
        ),
        (
            "repeated in other letters",
            "the same field",
            post!("Content-Length: 5", "cONTENT-lENGTH: 5"; "hello"),
            repeated,
        ),
        ("list", "what becomes of two when joined", post!("Content-Length: 5, 5"; "hello"), repeated),
        ("list with an end missing", "as above", post!("Content-Length: 5,"; "hello"), repeated),
        ("plus", "9110 8.6: digits", post!("Content-Length: +5"; "hello"), repeated),
        ("minus", "9110 8.6", post!("Content-Length: -5"; "hello"), repeated),
        ("minus nought", "9110 8.6", post!("Content-Length: -0"; ""), repeated),
        ("hexadecimal", "9110 8.6", post!("Content-Length: 0x5"; "hello"), repeated),
        ("fraction", "9110 8.6", post!("Content-Length: 5.0"; "hello"), repeated),
        ("underscore", "9110 8.6", post!("Content-Length: 1_0"; "hello"), repeated),
        ("space within", "9110 8.6", post!("Content-Length: 1 0"; "hello"), repeated),
        ("quoted", "9110 8.6", post!("Content-Length: \"5\""; "hello"), repeated),
        ("empty", "9110 8.6", post!("Content-Length:"; ""), repeated),
        ("blank", "9110 8.6", post!("Content-Length: \t "; ""), repeated),
        ("other digits", "9110 8.6: ASCII", post!("Content-Length: \u{b2}"; "hello"), repeated),
        ("beyond 64 bits", "must not wrap to 5", post!("Content-Length: 18446744073709551621"; "hello"), repeated),
        ("far beyond 64 bits", "9110 8.6", post!("Content-Length: 99999999999999999999999"; ""), repeated),
        (
            "19 digits",
            "too large, but a number",
            post!("Content-Length: 9999999999999999999"; ""),
            Err(E::BodyTooLarge),
        ),
        ("too large", "known from the head", post!("Content-Length: 1048577"; ""), Err(E::BodyTooLarge)),
        (
            "too large, but waits",
            "100 must not be sent",
            post!("Expect: 100-continue", "Content-Length: 1048577"; ""),
            Err(E::BodyTooLarge),
        ),
    ];
    check(cases);
}

#[test]
fn transfer_codings() {
    let refused = Err(E::TransferEncoding);
    let unknown = Err(E::TransferCoding);
    let cases: &[Case] = &[
        (
            "chunked",
            "9112 7.1",
            post!("Transfer-Encoding: chunked"; "2\r\nhi\r\n0\r\n\r\n"),
            Ok("POST /p 1.1 keep [hi]"),
        ),
        (
            "in other letters",
            "9112 7: case-insensitive",
            post!("tRANSFER-eNCODING: cHUNKED"; "0\r\n\r\n"),
            Ok("POST /p 1.1 keep"),
        ),
        (
            "length in front",
            "9112 6.3: an attempt to smuggle",
            post!("Content-Length: 5", "Transfer-Encoding: chunked"; "0\r\n\r\n"),
            refused,
        ),
        ("length behind", "9112 6.3", post!("Transfer-Encoding: chunked", "Content-Length: 5"; "0\r\n\r\n"), refused),
        (
            "length of nought",
            "9112 6.3",
            post!("Transfer-Encoding: chunked", "Content-Length: 0"; "0\r\n\r\n"),
            refused,
        ),
        (
            "in 1.0",
            "9112 6.1: faulty framing",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            refused,
        ),
        (
            "twice",
            "9112 7.1: not more than once",
            post!("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"; "0\r\n\r\n"),
            refused,
        ),
        ("twice in a list", "9112 7.1", post!("Transfer-Encoding: chunked, chunked"; "0\r\n\r\n"), refused),
        ("twice around another", "9112 7.1", post!("Transfer-Encoding: chunked, gzip, chunked"; "0\r\n\r\n"), refused),
        ("not last", "9112 6.3: no end can be found", post!("Transfer-Encoding: chunked, gzip"; "0\r\n\r\n"), refused),
        ("not at all", "9112 6.3: no end can be found", post!("Transfer-Encoding: gzip"; ""), refused),
        ("identity", "gone since 7230", post!("Transfer-Encoding: identity"; ""), refused),
        (
            "hidden behind identity",
            "readers that take one of two",
            post!("Transfer-Encoding: identity", "Transfer-Encoding: chunked"; "0\r\n\r\n"),
            refused,
        ),
        (
            "followed by identity",
            "readers that take one of two",
            post!("Transfer-Encoding: chunked", "Transfer-Encoding: identity"; "0\r\n\r\n"),
            refused,
        ),
        ("empty", "9112 6.1", post!("Transfer-Encoding:"; ""), refused),
        ("ends with a comma", "an empty coding is last", post!("Transfer-Encoding: chunked,"; "0\r\n\r\n"), refused),
        ("with a prefix", "x-chunked is not chunked", post!("Transfer-Encoding: xchunked"; "0\r\n\r\n"), refused),
        (
            "with a suffix",
            "readers that search for the word",
            post!("Transfer-Encoding: chunkedx"; "0\r\n\r\n"),
            refused,
        ),
        ("with a parameter", "9112 7.1: has none", post!("Transfer-Encoding: chunked;q=1"; "0\r\n\r\n"), refused),
        ("quoted", "a token, not a string", post!("Transfer-Encoding: \"chunked\""; "0\r\n\r\n"), refused),
        (
            "with a vertical tab",
            "a classic: white space to some",
            post!("Transfer-Encoding: \u{b}chunked"; "0\r\n\r\n"),
            Err(E::Header),
        ),
        ("with an odd byte", "white space to some", post!("Transfer-Encoding: \u{a0}chunked"; "0\r\n\r\n"), refused),
        ("behind another", "9112 6.1: not understood", post!("Transfer-Encoding: gzip, chunked"; "0\r\n\r\n"), unknown),
        ("behind an empty one", "a list with a hole", post!("Transfer-Encoding: ,chunked"; "0\r\n\r\n"), unknown),
    ];
    check(cases);
}

#[test]
fn connections() {
    let close = Ok("GET / 1.1 close");
    let cases: &[Case] = &[
        ("close", "9112 9.6", get!("Connection: close"), close),
        ("in other letters", "9110 7.6.1: case-insensitive", get!("connection: CLOSE"), close),
        ("close in a list", "9110 7.6.1", get!("Connection: x, close ,y"), close),
        ("close in a second field", "9110 5.3: one list", get!("Connection: x", "Connection: close"), close),
        ("close and keep-alive", "9112 9.3: close wins", get!("Connection: keep-alive, close"), close),
        ("keep-alive", "the default anyway", get!("Connection: keep-alive"), OK),
        ("others", "hop by hop, not for us", get!("Connection: Upgrade, HTTP2-Settings"), OK),
        ("close as a part of a word", "a token of its own", get!("Connection: closed, xclose"), OK),
        ("empty", "9110 5.6.1", get!("Connection:"), OK),
        ("1.0 keep-alive", "9112 9.3", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Ok("GET / 1.0 keep")),
        (
            "1.0 keep-alive and close",
            "close wins",
            "GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n",
            Ok("GET / 1.0 close"),
        ),
    ];
    check(cases);
}

#[test]
fn expectations() {
    let wants = Ok("POST /p 1.1 keep continue [hi]");
    let cases: &[Case] = &[
        ("continue", "9110 10.1.1", post!("Expect: 100-continue", "Content-Length: 2"; "hi"), wants),
        (
            "in other letters",
            "9110 10.1.1: case-insensitive",
            post!("expect: 100-Continue", "Content-Length: 2"; "hi"),
            wants,
        ),
        ("other", "9110 10.1.1: 417", post!("Expect: tea"; ""), Err(E::Expectation)),
        ("empty", "nothing known", post!("Expect:"; ""), Err(E::Expectation)),
        ("continue and other", "all must be met", post!("Expect: 100-continue, tea"; ""), Err(E::Expectation)),
        (
            "1.0",
            "9110 10.1.1: must be ignored",
            "POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
            Ok("POST / 1.0 close"),
        ),
    ];
    check(cases);
}

#[test]
fn pipelines() {
    let two = "GET / 1.1 keep + GET / 1.1 keep";
    let cases: &[Case] = &[
        ("nothing", "nothing", "", Ok("")),
        ("cut off", "waited for", "GET / HTTP/1.1\r\nHost: h\r\n\r", Ok("")),
        ("two", "9112 9.3.2", concat!(get!(), get!()), Ok(two)),
        ("empty line between", "9112 2.2: behind a body of an old client", concat!(get!(), "\r\n", get!()), Ok(two)),
        ("empty lines before each", "one is forgiven for each", concat!("\r\n", get!(), "\r\n", get!()), Ok(two)),
        (
            "length, then chunks, then none",
            "no state is left behind",
            concat!(
                post!("Content-Length: 2"; "hi"),
                post!("Transfer-Encoding: chunked"; "2\r\nho\r\n0\r\n\r\n"),
                get!(),
                post!("Content-Length: 1"; "!")
            ),
            Ok("POST /p 1.1 keep [hi] + POST /p 1.1 keep [ho] + GET / 1.1 keep + POST /p 1.1 keep [!]"),
        ),
        (
            "a request as a body",
            "framing alone decides",
            post!("Content-Length: 27"; "GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
            Ok("POST /p 1.1 keep [GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n]"),
        ),
        (
            "more than the length",
            "the rest begins the next request",
            post!("Content-Length: 2"; "hi!"),
            Ok("POST /p 1.1 keep [hi]"),
        ),
    ];
    check(cases);
}
