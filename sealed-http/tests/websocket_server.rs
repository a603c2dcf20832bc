//! WebSocket on the simulated network: which clients the server accepts, and what happens on their
//! connections.

mod websocket {
    pub(crate) mod echo;
    pub(crate) mod shared;
}

use std::time::Duration;

use sealed::Config;
use sealed::sim::Peer;
use sealed_http::codec::{Asked, Limits as HttpLimits, ResponseHead};
use sealed_http::websocket::{self as ws, CloseCode, Limits, Refusal};
use sealed_http::{RequestHead, Response, Settings};
use testing::sim::Served;
use websocket::echo::Echo;
use websocket::shared::*;

/// The example of RFC 6455, 1.3.
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ANSWER: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
const ASKS: &str = "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

fn get(fields: &[&str]) -> String {
    format!("GET /chat HTTP/1.1\r\n{}\r\n", fields.concat())
}

fn site(limits: Limits) -> Served<Echo> {
    Served::new(3, Config::default(), Settings::default(), Echo::new(limits))
}

/// Opens a connection that speaks WebSocket.
fn open(site: &Served<Echo>) -> Peer {
    let mut peer = site.connect();
    peer.send(get(&[ASKS, KEY, VERSION]));
    peer.expect("\r\n\r\n");
    peer
}

#[test]
fn a_valid_handshake_is_accepted_and_frames_behind_it_are_read() {
    let site = site(Limits::default());
    let mut peer = site.connect();
    peer.send([get(&[ASKS, KEY, VERSION]).into_bytes(), frame(FIN | TEXT, "early")].concat());
    let head = String::from_utf8(peer.expect("\r\n\r\n")).expect("text");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for field in [ANSWER, "Upgrade: websocket\r\n", "Connection: Upgrade\r\n"] {
        assert!(head.contains(field), "{head}");
    }
    assert!(!head.contains("Sec-WebSocket-Protocol") && !head.contains("Extensions"), "{head}");
    peer.expect(plain(FIN | TEXT, "early"));
    assert!(peer.is_silent_for(Duration::from_secs(1_000)), "no limit of HTTP's holds any more");
    peer.send(frame(FIN | BINARY, b"\xff"));
    peer.expect(plain(FIN | BINARY, b"\xff"));
}

#[test]
fn a_malformed_handshake_is_refused_with_the_reason() {
    let site = site(Limits::default());
    let protocol = "Sec-WebSocket-Protocol: ";
    let cases = [
        ("another method", get(&[ASKS, KEY, VERSION]).replace("GET", "POST"), 405, "Allow: GET\r\n"),
        ("an old version of HTTP", get(&[ASKS, KEY, VERSION]).replace("1.1", "1.0"), 426, "Upgrade: websocket\r\n"),
        ("a plain request", get(&["Host: h\r\n"]), 426, "Connection: Upgrade\r\n"),
        ("only Upgrade", get(&["Host: h\r\nUpgrade: websocket\r\n", KEY, VERSION]), 426, "Upgrade: websocket\r\n"),
        ("only Connection", get(&["Host: h\r\nConnection: upgrade\r\n", KEY, VERSION]), 426, "Upgrade: websocket\r\n"),
        ("another protocol", get(&[ASKS, KEY, VERSION]).replace("websocket", "h2c"), 426, "Upgrade: websocket\r\n"),
        ("no version", get(&[ASKS, KEY]), 426, VERSION),
        ("an older version", get(&[ASKS, KEY, "Sec-WebSocket-Version: 8\r\n"]), 426, VERSION),
        ("two versions", get(&[ASKS, KEY, VERSION, VERSION]), 426, VERSION),
        ("no key", get(&[ASKS, VERSION]), 400, "bad_websocket_key"),
        ("two keys", get(&[ASKS, VERSION, KEY, KEY]), 400, "bad_websocket_key"),
        ("a short key", get(&[ASKS, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n"]), 400, "bad_websocket_key"),
        (
            "a long key",
            get(&[ASKS, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWVl\r\n"]),
            400,
            "bad_websocket_key",
        ),
        (
            "not Base64",
            get(&[ASKS, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ!=\r\n"]),
            400,
            "bad_websocket_key",
        ),
        (
            "no padding",
            get(&[ASKS, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n"]),
            400,
            "bad_websocket_key",
        ),
        ("two origins", get(&[ASKS, KEY, VERSION, "Origin: https://h\r\nOrigin: x\r\n"]), 400, "bad_origin"),
        ("an odd origin", get(&[ASKS, KEY, VERSION, "Origin: http\u{e9}\r\n"]), 400, "bad_origin"),
        ("a page of another site", get(&[ASKS, KEY, VERSION, "Origin: https://elsewhere\r\n"]), 403, ""),
        ("an odd protocol", get(&[ASKS, KEY, VERSION, protocol, "a b\r\n"]), 400, "bad_websocket_protocol"),
        ("a body", get(&[ASKS, KEY, VERSION, "Content-Length: 2\r\n"]) + "hi", 400, "unexpected_body"),
    ];
    for (name, request, status, wanted) in cases {
        let mut peer = site.connect();
        peer.send(request + "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let answers = String::from_utf8_lossy(&peer.expect_end()).into_owned();
        assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answers}");
        assert!(answers.contains(wanted), "{name}: {answers}");
    }
}

#[test]
fn fields_may_be_lists_and_in_any_case() {
    for fields in [
        "Host: h\r\nupgrade: WebSocket\r\nconnection: keep-alive, uPGRADE\r\n",
        "Host: h\r\nUpgrade: h2c, websocket\r\nConnection: Upgrade\r\n",
        "Host: h\r\nUpgrade: h2c\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n",
        "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
    ] {
        let request = get(&[fields, KEY, VERSION]);
        let head = RequestHead::parse(request.as_bytes(), &HttpLimits::default()).expect("it is good");
        let accepted = ws::accept(&head, &[]).expect(fields);
        assert!(ws::is_asked(&head) && accepted.origin.is_none() && accepted.protocol.is_none());
    }
}

#[test]
fn the_first_requested_subprotocol_of_the_server_is_chosen() {
    for (asked, chosen) in [
        ("", None),
        ("Sec-WebSocket-Protocol: b\r\n", Some("b")),
        ("Sec-WebSocket-Protocol: c, b , a\r\n", Some("a")),
        ("Sec-WebSocket-Protocol: c\r\nSec-WebSocket-Protocol: b\r\n", Some("b")),
        ("Sec-WebSocket-Protocol: A, bb\r\n", None),
    ] {
        let request = get(&[ASKS, KEY, VERSION, asked, "Origin: https://h:8\r\n"]);
        let head = RequestHead::parse(request.as_bytes(), &HttpLimits::default()).expect("it is good");
        let accepted = ws::accept(&head, &["a", "b"]).expect("it is good");
        assert_eq!((accepted.protocol, accepted.origin), (chosen, Some("https://h:8")), "{asked}");
    }
    let head = RequestHead::parse(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &HttpLimits::default()).expect("it is good");
    assert!(!ws::is_asked(&head));
    assert_eq!(ws::accept(&head, &[]).err(), Some(Refusal::NotAsked));
    assert!(std::panic::catch_unwind(|| ws::accept(&head, &["a b"]).is_ok()).is_err(), "as documented");
}

#[test]
fn a_client_checks_the_answer_to_its_handshake() {
    let challenge = ws::Challenge::new(*b"the sample nonce");
    assert_eq!(format!("Sec-WebSocket-Key: {}\r\n", challenge.key()), KEY);
    let good = format!(
        "HTTP/1.1 101 Ok\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n{ANSWER}Sec-WebSocket-Protocol: b\r\n\r\n"
    );
    let check = |answer: &str| {
        let head = ResponseHead::parse(answer.as_bytes(), Asked::Other, &HttpLimits::default()).expect("it is good");
        challenge.check(&head, &["a", "b"]).map(|protocol| protocol.map(str::to_owned))
    };
    assert_eq!(check(&good), Ok(Some("b".to_owned())));
    assert_eq!(check(&good.replace("Sec-WebSocket-Protocol: b\r\n", "")), Ok(None));
    for (part, instead) in [
        ("101", "200"),
        ("WebSocket\r\n", "h2c\r\n"),
        ("upgrade", "close"),
        ("xOo=", "xOp="),
        (ANSWER, ""),
        ("Protocol: b", "Protocol: c"),
        ("Protocol: b", "Extensions: x"),
    ] {
        assert_eq!(check(&good.replace(part, instead)), Err(ws::BadAnswer), "{instead} for {part}");
    }
}

#[test]
fn the_server_closes_after_both_closes() {
    let site = site(Limits::default());
    let mut peer = open(&site);
    peer.send([frame(FIN | TEXT, "hi"), close(1001, "gone"), frame(FIN | TEXT, "more")].concat());
    assert_eq!(server_frames(&peer.expect_end()), ["text hi", "close 1001"]);
    let mut peer = open(&site);
    peer.send([frame(FIN | TEXT, "close"), frame(FIN | TEXT, "late"), frame(FIN | PING, "")].concat());
    assert_eq!(server_frames(&peer.expect(ws::close_frame(CloseCode::POLICY, "as asked"))), ["close 1008"]);
    assert!(peer.is_silent_for(Duration::from_secs(60)), "the answer is waited for");
    peer.send(close(1008, ""));
    assert_eq!(peer.expect_end(), b"");
    assert_eq!(site.act(|echo, _| echo.notes.len()), 2);
}

#[test]
fn a_peer_that_breaks_the_protocol_gets_a_close_and_is_cut_off() {
    let site = site(Limits { message_bytes_max: 10, ..Limits::default() });
    for (bytes, code) in [
        (plain(FIN | TEXT, "unmasked"), 1002),
        (frame(FIN | TEXT, b"\xff"), 1007),
        (frame(FIN | TEXT, "eleven char"), 1009),
    ] {
        let mut peer = open(&site);
        peer.send([frame(FIN | TEXT, "fine"), bytes, frame(FIN | TEXT, "more")].concat());
        assert_eq!(server_frames(&peer.expect_end()), ["text fine".to_owned(), format!("close {code}")]);
    }
    assert_eq!(site.act(|echo, _| std::mem::take(&mut echo.notes)), ["Unmasked", "Text", "MessageTooBig"]);
}

#[test]
fn a_peer_that_reads_no_answers_is_not_read() {
    let site = site(Limits::default());
    let mut peer = open(&site);
    peer.stall();
    let pings = frame(FIN | PING, [b'p'; 125]).repeat(100);
    for _ in 0..500 {
        peer.send(&pings);
        site.sim.settle();
    }
    let queued = site.act(|_, http| http.connection_ids().iter().map(|id| http.queued(*id)).sum::<usize>());
    let max = Config::default().output_high_bytes;
    assert!(queued < 2 * max + 100_000, "{queued} of 6,350,000 bytes are queued");
    assert_eq!(site.act(|_, http| http.connection_ids().len()), 1, "it is not cut off either");
}

#[test]
fn one_frame_can_be_sent_to_all() {
    let site = site(Limits::default());
    let mut peers: Vec<_> = (0..5).map(|_| open(&site)).collect();
    let frame = ws::text_frame("news");
    site.act(|_, http| {
        for id in http.connection_ids() {
            http.write_framed(id, std::slice::from_ref(&frame));
        }
    });
    for peer in &mut peers {
        peer.expect(plain(FIN | TEXT, "news"));
    }
}

#[test]
fn refusals_have_distinct_codes() {
    let refusals = [
        Refusal::Method,
        Refusal::NotAsked,
        Refusal::Version,
        Refusal::Key,
        Refusal::Protocol,
        Refusal::Origin,
        Refusal::Body,
    ];
    let mut codes: Vec<_> = refusals.iter().map(|refusal| refusal.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), refusals.len());
    for refusal in refusals {
        assert_eq!(Response::from(refusal).status(), refusal.status());
    }
}
