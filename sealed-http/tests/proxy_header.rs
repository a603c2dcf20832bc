//! Headers of the PROXY protocol, good and bad, each whole and a byte at a time; and in front of
//! requests to a server.

use std::time::Duration;

use sealed::sim::Peer;
use sealed::{Address, Config, ConnectionId, Input, ListenerId};
use sealed_http::codec::BadProxyHeader::{self, Line, Short, Signature, TooLong, Unknown};
use sealed_http::codec::ProxyHeader;
use sealed_http::server::Preface;
use sealed_http::{Handler, Http, Request, Response, Settings};
use testing::sim::Served;

const BYTES_MAX: usize = 256;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const ANN: [u8; 4] = [192, 0, 2, 1];
const SITE: [u8; 4] = [198, 51, 100, 7];
const PORTS: [u8; 4] = [0x12, 0x67, 0x01, 0xbb];

/// The result of decoding a header: `source > destination`, or `local`.
type Decoded = Result<Option<String>, BadProxyHeader>;

fn decode(input: &[u8]) -> Result<Option<(usize, String)>, BadProxyHeader> {
    let decoded = ProxyHeader::decode(input, BYTES_MAX)?;
    Ok(decoded.map(|(length, header)| match header {
        ProxyHeader::Local => (length, "local".to_owned()),
        ProxyHeader::Proxied { source, destination } => (length, format!("{source} > {destination}")),
    }))
}

/// Feeds a header whole, with bytes behind it, and a byte at a time. Asserts that the result is the
/// same, and returns it.
fn decode_every_way(name: &str, input: &[u8]) -> Decoded {
    let whole = decode(input);
    let mut pieces = Ok(None);
    for length in 0..=input.len() {
        pieces = decode(&input[..length]);
        if !matches!(pieces, Ok(None)) {
            break;
        }
    }
    assert_eq!(pieces, whole, "{name}: a byte at a time");
    if let Ok(Some((length, _))) = &whole {
        assert_eq!(*length, input.len(), "{name}: all of it is taken");
        assert_eq!(decode(&[input, b"GET / HTTP/1.1\r\n"].concat()), whole, "{name}: and no more");
    }
    whole.map(|decoded| decoded.map(|(_, decoded)| decoded))
}

fn binary(command: u8, family: u8, length: usize, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(length).expect("a length");
    [SIGNATURE, &[command, family], &length.to_be_bytes(), block].concat()
}

#[test]
fn version_1_lines_are_decoded() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!(longest.len(), 107);
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    let four = "192.0.2.1:4711 > 198.51.100.7:443";
    let cases: &[(&str, Result<&str, BadProxyHeader>)] = &[
        ("PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\n", Ok(four)),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n", Ok("255.255.255.255:65535 > 255.255.255.255:0")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", Ok("[2001:db8::1]:1 > [::1]:2")),
        ("PROXY TCP6 ::ffff:192.0.2.1 2001:DB8::F 1 2\r\n", Ok("[::ffff:192.0.2.1]:1 > [2001:db8::f]:2")),
        ("PROXY UNKNOWN\r\n", Ok("local")),
        ("PROXY UNKNOWN and whatever \u{fc} follows\r\n", Ok("local")),
        (&longest, Ok("local")),
        (&too_long, Err(TooLong)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\n", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 4711 443 \r\n", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 4711\r\n", Err(Line)),
        ("PROXY TCP4 192.0.2.1  198.51.100.7 4711 443\r\n", Err(Line)),
        ("PROXY  TCP4 192.0.2.1 198.51.100.7 4711 443\r\n", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\r\n", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 4711\r443\r\n", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\rX", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 4711 443\r\r", Err(Line)),
        ("PROXY UNKNOWN\rX", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 +4711 443\r\n", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 04711 443\r\n", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 4711 65536\r\n", Err(Line)),
        ("PROXY TCP4 192.0.2.1 198.51.100.7 -1 443\r\n", Err(Line)),
        ("PROXY TCP4 192.0.2.01 198.51.100.7 4711 443\r\n", Err(Line)),
        ("PROXY TCP4 192.0.2 198.51.100.7 4711 443\r\n", Err(Line)),
        ("PROXY TCP4 2001:db8::1 ::1 4711 443\r\n", Err(Line)),
        ("PROXY TCP6 192.0.2.1 198.51.100.7 4711 443\r\n", Err(Line)),
        ("PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n", Err(Line)),
        ("PROXY TCP6 [::1] ::1 4711 443\r\n", Err(Line)),
        ("PROXY TCP5 192.0.2.1 198.51.100.7 4711 443\r\n", Err(Line)),
        ("PROXY UDP4 192.0.2.1 198.51.100.7 4711 443\r\n", Err(Line)),
        ("PROXY tcp4 192.0.2.1 198.51.100.7 4711 443\r\n", Err(Line)),
        ("PROXY UNKNOWNX\r\n", Err(Line)),
        ("PROXY \r\n", Err(Line)),
        ("PROXY\r\n", Err(Signature)),
        ("PROXYTCP4 192.0.2.1 198.51.100.7 4711 443\r\n", Err(Signature)),
        ("proxy TCP4 192.0.2.1 198.51.100.7 4711 443\r\n", Err(Signature)),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Err(Signature)),
        ("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", Err(Signature)),
    ];
    for (line, expected) in cases {
        let expected = expected.map(|decoded| Some(decoded.to_owned()));
        assert_eq!(decode_every_way(line, line.as_bytes()), expected, "{line:?}");
    }
    assert_eq!(decode_every_way("no UTF-8", b"PROXY UNKNOWN \xff\r\n"), Ok(Some("local".to_owned())));
}

#[test]
fn version_2_headers_are_decoded() {
    let four = [&ANN[..], &SITE, &PORTS].concat();
    let (ann6, site6) = ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0; 16]);
    let six = [&ann6[..], &site6, &PORTS].concat();
    // As a load balancer names its endpoint: type, length, value.
    let more = [&four[..], &[0xea, 0, 3, 1, b'v', b'p']].concat();
    let unix = [0; 216];
    let told4 = "192.0.2.1:4711 > 198.51.100.7:443";
    let cases: &[(&str, Vec<u8>, Result<&str, BadProxyHeader>)] = &[
        ("IPv4", binary(0x21, 0x11, 12, &four), Ok(told4)),
        ("IPv4, and more", binary(0x21, 0x11, 18, &more), Ok(told4)),
        ("IPv4, and no right TLV", binary(0x21, 0x11, 14, &[&four[..], &[1, 255]].concat()), Ok(told4)),
        ("IPv6", binary(0x21, 0x21, 36, &six), Ok("[2001:db8::1]:4711 > [::]:443")),
        ("local", binary(0x20, 0, 0, &[]), Ok("local")),
        ("local, with addresses", binary(0x20, 0x11, 12, &four), Ok("local")),
        ("local, of no family, cut short", binary(0x20, 0xff, 3, &[1, 2, 3]), Ok("local")),
        ("unspecified", binary(0x21, 0, 0, &[]), Ok("local")),
        ("unspecified, and more", binary(0x21, 0, 6, &more[12..]), Ok("local")),
        ("unspecified transport", binary(0x21, 0x10, 12, &four), Ok("local")),
        ("datagrams", binary(0x21, 0x12, 12, &four), Ok("local")),
        ("a Unix socket", binary(0x21, 0x31, 216, &unix), Ok("local")),
        (
            "as long as it may be",
            binary(0x21, 0x11, BYTES_MAX - 16, &[7; BYTES_MAX - 16]),
            Ok("7.7.7.7:1799 > 7.7.7.7:1799"),
        ),
        ("longer", binary(0x21, 0x11, BYTES_MAX - 15, &[7; BYTES_MAX - 15]), Err(TooLong)),
        ("the longest possible", binary(0x20, 0, 65_535, &[]), Err(TooLong)),
        ("version 1", binary(0x11, 0x11, 12, &four), Err(Unknown)),
        ("version 3", binary(0x31, 0x11, 12, &four), Err(Unknown)),
        ("another command", binary(0x22, 0x11, 12, &four), Err(Unknown)),
        ("another family", binary(0x21, 0x41, 12, &four), Err(Unknown)),
        ("another transport", binary(0x21, 0x13, 12, &four), Err(Unknown)),
        ("IPv4 cut short", binary(0x21, 0x11, 11, &four), Err(Short)),
        ("IPv6 cut short", binary(0x21, 0x21, 35, &six), Err(Short)),
        ("IPv6 as long as IPv4", binary(0x21, 0x21, 12, &four), Err(Short)),
        ("another signature", b"\r\n\r\n\0\r\nQUIT\r!\x11\0\x0c".to_vec(), Err(Signature)),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(decode_every_way(name, bytes), expected.map(|decoded| Some(decoded.to_owned())), "{name}");
    }
    for length in 0..28 {
        assert_eq!(decode(&binary(0x21, 0x11, 12, &four)[..length]), Ok(None), "{length} bytes of it");
    }
}

/// Answers with the address that it takes for the client's.
struct WhoAmI;

impl Handler for WhoAmI {
    type Connection = String;
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        http.await_preface(id);
        // Has no effect: there is no request to answer yet.
        http.respond(id, &Response::new(200));
        http.set_deadline(id, Duration::from_millis(1));
    }

    fn preface(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) -> Preface {
        match ProxyHeader::decode(input.bytes(), usize::MAX) {
            Ok(Some((length, header))) => {
                input.take(length);
                if let (ProxyHeader::Proxied { source, .. }, Some(state)) = (header, http.state_mut(id)) {
                    *state = source.to_string();
                }
                Preface::Over
            }
            Ok(None) => Preface::Incomplete,
            Err(_) => Preface::Wrong,
        }
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        // Has no effect: it is too late.
        http.await_preface(id);
        let text = format!("{} for {}", request.head.path(), http.state(id).map_or("", String::as_str));
        http.respond(id, &Response::new(200).body(text));
    }
}

fn stage() -> Served<WhoAmI> {
    Served::new(1, Config { input_bytes_max: 20_000, ..Config::default() }, Settings::default(), WhoAmI)
}

fn answer(stage: &Served<WhoAmI>, peer: &mut Peer) -> String {
    stage.sim.run_for(Duration::from_millis(500));
    String::from_utf8(peer.take()).expect("text")
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 4711 80\r\n";
const TWO: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn requests_follow_a_header_however_the_bytes_are_split() {
    let stage = stage();
    let four = [&ANN[..], &SITE, &PORTS].concat();
    for header in [LINE.to_vec(), binary(0x21, 0x11, 12, &four)] {
        let all = [&header[..], TWO].concat();
        for at in 0..all.len() {
            let mut peer = stage.connect();
            peer.send(&all[..at]);
            stage.sim.run_for(Duration::from_millis(500));
            peer.send(&all[at..]);
            let answer = answer(&stage, &mut peer);
            let lines: Vec<&str> = answer.matches("for 192.0.2.1:4711").collect();
            assert!(lines.len() == 2 && answer.contains("/a for") && answer.contains("/b for"), "{at}: {answer}");
        }
    }
}

#[test]
fn malformed_long_or_cut_off_headers_close_the_connection_without_an_answer() {
    let stage = stage();
    let endless = binary(0x21, 0x11, 60_000, &vec![0; 30_000]);
    for bytes in [TWO, &endless, b"PROXY TCP4 nobody nowhere 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"] {
        let mut peer = stage.connect();
        peer.send(bytes);
        assert_eq!(answer(&stage, &mut peer), "");
        assert!(peer.is_over());
    }
    let mut peer = stage.connect();
    peer.send(&LINE[..20]);
    stage.sim.run_for(Duration::from_millis(100));
    peer.finish();
    assert_eq!(answer(&stage, &mut peer), "");
    assert!(peer.is_over());
}

#[test]
fn the_time_limit_for_the_first_head_runs_from_the_connection() {
    let stage = stage();
    let (mut silent, mut slow) = (stage.connect(), stage.connect());
    let start = stage.sim.now();
    for byte in LINE {
        slow.send([*byte]);
        stage.sim.run_for(Duration::from_millis(100));
    }
    slow.send(b"GET / HTTP/1.1\r\n");
    stage.sim.run_until(Duration::from_secs(60), || silent.is_over());
    stage.sim.run_for(Duration::from_millis(100));
    let waited = stage.sim.now().saturating_sub(start).as_secs();
    assert_eq!(waited, Settings::default().request_timeout.as_secs());
    assert_eq!(silent.take(), b"");
    assert!(answer(&stage, &mut slow).starts_with("HTTP/1.1 408 "), "its head had begun");
}
