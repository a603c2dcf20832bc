//! Bodies on the simulated network: expected, collected, streamed, refused, within time limits; and
//! connections that are handed over to another protocol.

use std::time::Duration;

use sealed::sim::{Link, Peer};
use sealed::{CloseReason, Config, ConnectionId, Input};
use sealed_http::codec::Limits;
use sealed_http::server::{Intake, Piece};
use sealed_http::{Handler, Http, Request, RequestHead, Response, Settings};
use testing::sim::Served;

const SECOND: Duration = Duration::from_secs(1);
const BIG: usize = 500_000;

/// A handler that treats a body as the path demands, and records its calls.
#[derive(Default)]
struct Stage {
    notes: Vec<String>,
    answered: usize,
    pauses: bool,
}

impl Stage {
    fn note(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }
}

impl Handler for Stage {
    type Connection = Vec<u8>;
    type Message = ();
    type Timer = ();

    fn intake(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, head: &RequestHead<'_>) -> Intake {
        self.note(format!("intake {}", head.path()));
        match head.path() {
            "/small" => Intake::CollectUpTo(10),
            "/stream" => Intake::Stream,
            "/early" => {
                http.respond(id, &Response::new(200).body("early"));
                Intake::Stream
            }
            "/begun" => {
                http.start_stream(id, &Response::new(200));
                Intake::Stream
            }
            "/answered-and-collected" => {
                http.respond(id, &Response::new(401));
                Intake::Collect
            }
            "/aborted" => {
                http.abort(id);
                Intake::Collect
            }
            "/begun-and-collected" => {
                http.start_sized_stream(id, &Response::new(200), 10);
                http.write(id, b"01234");
                Intake::Collect
            }
            "/wait" => {
                http.pause(id);
                Intake::Stream
            }
            "/refuse" => Intake::Refuse(Response::new(403).body("no")),
            "/answer" => Intake::Answer(Response::new(403).body("no")),
            _ => Intake::Collect,
        }
    }

    fn body(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, piece: Piece<'_>) {
        match piece {
            Piece::Data(data) => {
                if let Some(held) = http.state_mut(id) {
                    held.extend_from_slice(data);
                }
                if self.pauses {
                    http.pause(id);
                }
            }
            Piece::End => {
                let held = http.state_mut(id).map(std::mem::take).unwrap_or_default();
                self.note(format!("end {}", held.len()));
                if http.is_streaming(id) {
                    http.write(id, &held);
                    return http.end_stream(id);
                }
                http.respond(id, &Response::new(200).body(held));
            }
        }
    }

    fn request(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, request: &Request<'_>) {
        self.note(format!("request {} {}", request.head.path(), request.body.len()));
        if request.head.path() == "/switch" {
            let response = Response::new(101).header("Upgrade", "shout");
            if http.upgrade(id, &response) {
                return;
            }
        }
        if request.head.method_name() == "CONNECT" {
            assert!(http.upgrade(id, &Response::new(200)));
            return;
        }
        let body = if request.head.path() == "/big" { vec![b'x'; BIG] } else { request.body.to_vec() };
        http.respond(id, &Response::new(200).body(body));
    }

    fn answered(&mut self, _: &mut Http<'_, Self>, _: ConnectionId) {
        self.answered += 1;
    }

    fn raw(&mut self, http: &mut Http<'_, Self>, id: ConnectionId, input: &mut Input<'_>) {
        while let Some(line) = input.take_until(b'\n') {
            http.write(id, &line.to_ascii_uppercase());
        }
    }

    fn closed(&mut self, _: &mut Http<'_, Self>, _: ConnectionId, _: Vec<u8>, reason: CloseReason) {
        self.note(format!("closed {reason:?}"));
    }
}

fn site(settings: Settings) -> Served<Stage> {
    Served::new(3, Config::default(), settings, Stage::default())
}

fn notes(site: &Served<Stage>) -> Vec<String> {
    site.act(|stage, _| std::mem::take(&mut stage.notes))
}

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}")
}

/// Asserts that a connection ends with this status. A body that is refused or answered early is not
/// read, so nothing behind it can be a request.
fn ends_with_status(peer: &mut Peer, status: u16) {
    let answer = String::from_utf8(peer.expect_end()).expect("text");
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[test]
fn the_handler_decides_how_long_a_collected_body_may_be() {
    let site = site(Settings { limits: Limits { body_bytes_max: 20, ..Limits::default() }, ..Settings::default() });
    for (path, length, fits) in [("/small", 10, true), ("/small", 11, false), ("/any", 20, true), ("/any", 21, false)] {
        let body = "x".repeat(length);
        let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
        for request in [
            post(path, &format!("Content-Length: {length}\r\n"), &body),
            post(path, "Transfer-Encoding: chunked\r\n", &chunked),
        ] {
            let mut peer = site.connect();
            peer.send(request);
            if fits {
                peer.expect(format!("\r\n\r\n{body}"));
            } else {
                ends_with_status(&mut peer, 413);
            }
        }
    }
}

#[test]
fn a_waiting_client_gets_100_continue_only_if_the_body_is_read() {
    let site = site(Settings::default());
    let fields = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    for path in ["/any", "/stream"] {
        let mut peer = site.connect();
        peer.send(post(path, fields, ""));
        assert_eq!(peer.expect("\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n", "{path}");
        peer.send("hello");
        peer.expect("\r\n\r\nhello");
        // A client that does not wait gets no `100 Continue`.
        peer.send(post(path, fields, "hello"));
        assert!(peer.expect("\r\n\r\nhello").starts_with(b"HTTP/1.1 200"), "{path}");
    }
    for (path, status) in [("/refuse", 403), ("/early", 200)] {
        let mut peer = site.connect();
        peer.send(post(path, fields, ""));
        ends_with_status(&mut peer, status);
    }
    let mut peer = site.connect();
    peer.send(post("/small", "Content-Length: 11\r\nExpect: 100-continue\r\n", ""));
    ends_with_status(&mut peer, 413);
    let mut peer = site.connect();
    peer.send("POST /any HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(peer.is_silent_for(SECOND), "HTTP/1.0 knows no such thing");
}

#[test]
fn a_streamed_body_is_passed_on_as_it_comes_and_its_connection_is_kept() {
    let site = site(Settings::default());
    let mut peer = site.connect();
    // More than would be collected.
    let length = 3_000_000;
    peer.send(post("/stream", &format!("Content-Length: {length}\r\n"), ""));
    for _ in 0..3 {
        peer.send("x".repeat(length / 3));
        site.sim.settle();
    }
    assert_eq!(notes(&site), ["intake /stream".to_owned(), format!("end {length}")]);
    assert!(peer.expect("\r\n\r\n").starts_with(b"HTTP/1.1 200"));
    peer.discard();
    let mut peer = site.connect();
    for _ in 0..3 {
        // Two in one read, the second behind the first's last chunk.
        let chunked = post("/stream", "Transfer-Encoding: chunked\r\n", "3\r\none\r\n3\r\ntwo\r\n0\r\nT: v\r\n\r\n");
        peer.send(chunked + &post("/any", "Content-Length: 2\r\n", "hi"));
        peer.expect("\r\n\r\nonetwo");
        peer.expect("\r\n\r\nhi");
    }
}

#[test]
fn a_request_answered_before_its_body_has_come_is_the_last() {
    for path in ["/refuse", "/early"] {
        let site = site(Settings::default());
        let mut peer = site.connect();
        peer.send(post(path, "Content-Length: 40\r\n", "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"));
        ends_with_status(&mut peer, if path == "/early" { 200 } else { 403 });
        peer.finish();
        site.sim.settle();
        assert_eq!(notes(&site), [format!("intake {path}"), "closed Closed".to_owned()]);
    }
}

#[test]
fn a_request_answered_at_its_head_is_the_last_unless_its_body_is_there() {
    let site = site(Settings::default());
    let mut peer = site.connect();
    // The bytes look like a request, but are a body, and are discarded with it.
    let hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = format!("Content-Length: {}\r\n", hidden.len());
    for _ in 0..2 {
        peer.send(post("/answer", &length, hidden) + &post("/any", "Content-Length: 2\r\n", "hi"));
        let answers = String::from_utf8(peer.expect("\r\n\r\nhi")).expect("text");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{answers}");
        assert!(answers.starts_with("HTTP/1.1 403 ") && !answers.contains("Connection: close"), "{answers}");
        assert_eq!(notes(&site), ["intake /answer", "intake /any", "request /any 2"]);
    }
    for request in [
        post("/answer", &length, &hidden[1..]),
        post("/answer", &length, ""),
        post("/answer", "Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
    ] {
        let mut peer = site.connect();
        peer.send(request);
        ends_with_status(&mut peer, 403);
        assert!(notes(&site).iter().all(|note| !note.contains("hidden")));
    }
}

#[test]
fn answered_is_called_once_for_each_complete_answer() {
    let site = site(Settings::default());
    let answered = |request: String| {
        let mut peer = site.connect();
        peer.send(request);
        site.sim.settle();
        drop(peer);
        site.sim.settle();
        site.act(|stage, _| std::mem::take(&mut stage.answered))
    };
    let length = "Content-Length: 2\r\n";
    for path in ["/any", "/stream", "/early", "/refuse", "/answer"] {
        assert_eq!(answered(post(path, length, "hi")), 1, "{path}");
    }
    assert_eq!(answered(post("/any", length, "hi").repeat(3)), 3);
    assert_eq!(answered(post("/small", "Content-Length: 11\r\n", "")), 1, "an answer of the server itself");
    assert_eq!(answered("nonsense\r\n\r\n".to_owned()), 1);
    assert_eq!(answered(post("/any", length, "h")), 0, "a request without an answer");
    assert_eq!(answered("GET /switch HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n".into()), 0);
}

#[test]
fn a_handler_that_pauses_slows_the_client_down_and_no_time_limit_runs() {
    let site = site(Settings::default());
    site.act(|stage, _| stage.pauses = true);
    let mut peer = site.connect();
    peer.send(post("/stream", "Content-Length: 2000000\r\n", &"x".repeat(2_000_000)));
    site.sim.settle();
    let id = site.act(|_, http| http.connection_ids()[0]);
    let held = || site.act(|_, http| http.state(id).map_or(0, Vec::len));
    let first = held();
    assert!(first > 0 && first < 100_000, "{first}");
    site.sim.run_for(SECOND * 600);
    assert_eq!(held(), first, "paused, and not cut off");
    site.act(|stage, http| {
        stage.pauses = false;
        http.resume(id);
    });
    peer.expect("\r\n\r\n");
    assert!(notes(&site).contains(&"end 2000000".to_owned()));
}

#[test]
fn a_handler_may_pause_before_the_first_piece() {
    let site = site(Settings::default());
    let mut peer = site.connect();
    peer.send(post("/wait", "Content-Length: 5\r\n", "hello"));
    assert!(peer.is_silent_for(SECOND * 600), "no call, and no connection cut off");
    assert_eq!(notes(&site), ["intake /wait"]);
    site.act(|_, http| {
        let id = http.connection_ids()[0];
        http.resume(id);
    });
    peer.expect("\r\n\r\nhello");
}

#[test]
fn bodies_that_break_off_or_are_malformed_never_end() {
    let site = site(Settings::default());
    let mut peer = site.connect();
    peer.send(post("/stream", "Content-Length: 9\r\n", "hel"));
    site.sim.settle();
    peer.finish();
    peer.expect_end();
    site.sim.settle();
    assert_eq!(notes(&site), ["intake /stream", "closed Ended"]);
    let mut peer = site.connect();
    peer.send(post("/stream", "Transfer-Encoding: chunked\r\n", "3\r\none\r\nnonsense\r\n"));
    ends_with_status(&mut peer, 400);
    // An answer that was begun cannot be taken back.
    let mut peer = site.connect();
    peer.send(post("/begun", "Transfer-Encoding: chunked\r\n", "3\r\none\r\nnonsense\r\n"));
    let answer = peer.expect_end();
    assert!(answer.is_empty() || answer.ends_with(b"\r\n\r\n"), "no end of the body: {answer:?}");
}

#[test]
fn a_body_has_to_come_at_the_minimum_rate() {
    let settings = Settings { body_timeout: SECOND * 10, body_rate_min: 100, ..Settings::default() };
    for path in ["/any", "/stream"] {
        let site = site(settings.clone());
        let mut slow = site.connect();
        slow.send(post(path, "Content-Length: 100000\r\n", ""));
        let start = site.sim.now();
        // 50 bytes per second, less than the minimum rate.
        while !site.sim.run_until(SECOND, || slow.is_over()) && site.sim.now() < start + SECOND * 60 {
            slow.send("x".repeat(50));
        }
        ends_with_status(&mut slow, 408);
        let taken = site.sim.now().saturating_sub(start).as_secs();
        assert!((19..=21).contains(&taken), "{path}: 10 s, and one more for each 100 bytes: {taken}");
        let mut steady = site.connect();
        steady.send(post(path, "Content-Length: 12000\r\n", ""));
        for _ in 0..100 {
            site.sim.run_for(SECOND);
            steady.send("x".repeat(120));
        }
        assert!(steady.expect("\r\n\r\n").starts_with(b"HTTP/1.1 200"), "{path}");
    }
}

#[test]
fn a_client_may_read_an_answer_slowly_but_must_read_it() {
    let site = site(Settings { write_timeout: SECOND * 5, ..Settings::default() });
    let link = Link { bandwidth: Some(10_000), buffer_bytes: 10_000, ..Link::default() };
    let body = "x".repeat(BIG);
    let big = "GET /big HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut slow = site.sim.connect_over(link, &site.address);
    slow.send(big);
    let before = site.sim.now();
    slow.expect(&body);
    assert!(site.sim.now() > before + SECOND * 40, "it takes its time");
    let mut idle = site.sim.connect_over(Link { buffer_bytes: 10_000, ..Link::default() }, &site.address);
    idle.stall();
    idle.send(big);
    site.sim.run_for(SECOND * 30);
    assert!(notes(&site).last().is_some_and(|note| note.starts_with("closed")), "it takes nothing");
}

#[test]
fn a_connection_is_handed_over_with_the_bytes_behind_the_request() {
    let site = site(Settings::default());
    let switch = "GET /switch HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: shout\r\n\r\n";
    let mut peer = site.connect();
    peer.send(format!("{switch}hello\nwor"));
    let head = String::from_utf8(peer.expect("\r\n\r\n")).expect("text");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("Connection: Upgrade\r\n") && head.contains("Upgrade: shout\r\n"), "{head}");
    assert!(!head.contains("Content-Length") && !head.contains("Transfer-Encoding"), "{head}");
    peer.expect("HELLO\n");
    peer.send("ld\nGET / HTTP/1.1\n");
    peer.expect("WORLD\nGET / HTTP/1.1\n");
    assert!(peer.is_silent_for(SECOND * 1_000), "no limit of HTTP's holds any more");
    peer.finish();
    assert_eq!(peer.expect_end(), b"");
    site.sim.settle();
    assert_eq!(notes(&site), ["request /switch 0", "closed Ended"]);
}

#[test]
fn a_connection_is_not_switched_unless_the_client_asks() {
    let site = site(Settings::default());
    for request in [
        "GET /switch HTTP/1.1\r\nHost: h\r\nUpgrade: shout\r\n\r\n",
        "GET /switch HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n\r\n",
        "GET /switch HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n",
    ] {
        let mut peer = site.connect();
        peer.send(request);
        assert!(peer.expect("\r\n\r\n").starts_with(b"HTTP/1.1 200"), "{request}");
    }
}

#[test]
fn connect_makes_a_tunnel_if_it_is_allowed() {
    let connect = "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n";
    let mut peer = site(Settings::default()).connect();
    peer.send(connect);
    ends_with_status(&mut peer, 501);
    let limits = Limits { connect_allowed: true, ..Limits::default() };
    let site = site(Settings { limits, ..Settings::default() });
    let mut peer = site.connect();
    peer.send(format!("{connect}hello\n"));
    let head = peer.expect("\r\n\r\n");
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n") && !head.windows(14).any(|part| part == b"Content-Length"));
    peer.expect("HELLO\n");
    for target in ["/", "*", "http://h/", "h", "h:", ":443", "h:x", "u@h:443"] {
        let mut peer = site.connect();
        peer.send(format!("CONNECT {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        ends_with_status(&mut peer, 400);
    }
}

#[test]
fn the_authority_of_the_target_overrides_host() {
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: a:1\r\n\r\n", Some("a:1")),
        ("GET http://b:2/ HTTP/1.1\r\nHost: a:1\r\n\r\n", Some("b:2")),
        ("OPTIONS * HTTP/1.1\r\nHost: a:1\r\n\r\n", Some("a:1")),
        ("GET / HTTP/1.0\r\n\r\n", None),
    ] {
        let head = RequestHead::parse(request.as_bytes(), &Limits::default()).expect("it is good");
        assert_eq!(head.authority(), expected, "{request}");
    }
}

#[test]
fn a_body_is_streamed_if_the_answer_has_begun() {
    let site = site(Settings::default());
    let mut peer = site.connect();
    peer.send(post("/begun-and-collected", "Content-Length: 5\r\n", "56789"));
    peer.expect("Content-Length: 10\r\n\r\n0123456789");
    peer.send(post("/small", "Content-Length: 4\r\n", "next"));
    peer.expect("\r\n\r\nnext");
    assert_eq!(notes(&site), ["intake /begun-and-collected", "end 5", "intake /small", "request /small 4"]);
}

#[test]
fn a_request_that_was_answered_or_ended_at_its_head_is_not_carried_out() {
    for (path, length) in [("/answered-and-collected", 4), ("/answered-and-collected", 1_000_000_000), ("/aborted", 4)]
    {
        let site = site(Settings::default());
        let mut peer = site.connect();
        peer.send(post(path, &format!("Content-Length: {length}\r\n"), "body"));
        site.sim.run_for(SECOND);
        let answer = String::from_utf8(peer.take()).expect("text");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), usize::from(path != "/aborted"), "{path}: {answer}");
        assert!(!notes(&site).iter().any(|note| note.starts_with("request")), "{path}: {:?}", notes(&site));
    }
}
