//! The client on the simulated network: every request has one outcome, in time, on connections that
//! are kept within limits.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::asker::{Asker, Report};
use sealed::sim::{Host, Link, Peer};
use sealed::{Address, Config, Resolver, ResolverConfig};
use sealed_http::Settings;
use sealed_http::client::{Fetch, FetchError, FetchId, Upstream, UpstreamId};
use sealed_http::codec::DecodeError;
use testing::sim::Served;

const SECOND: Duration = Duration::from_secs(1);

/// A loop that sends requests, and a host that the test plays.
struct Stage {
    site: Served<Asker>,
    host: Host,
}

impl Stage {
    fn new() -> Self {
        let site = Served::new(5, Config::default(), Settings::default(), Asker::default());
        let host = site.sim.listen("10.0.0.2:80".parse::<Address>().expect("an address")).expect("it is free");
        Self { site, host }
    }

    fn upstream(&self) -> UpstreamId {
        self.add(Upstream::to(self.host.address()))
    }

    fn add(&self, upstream: Upstream) -> UpstreamId {
        self.site.act(|_, http| http.add_upstream(upstream))
    }

    fn fetch(&self, upstream: UpstreamId, fetch: &Fetch) -> FetchId {
        self.site.act(|_, http| http.fetch(upstream, fetch))
    }

    /// Accepts the connection that the loop has made.
    fn accept(&self) -> Peer {
        let mut accepted = None;
        self.site.sim.run_until(SECOND, || {
            accepted = accepted.take().or_else(|| self.host.accept());
            accepted.is_some()
        });
        accepted.expect("the loop connects")
    }

    fn reports(&self) -> Vec<(FetchId, Report)> {
        self.site.sim.settle();
        self.site.act(|asker, _| std::mem::take(&mut asker.reports))
    }

    fn connections(&self) -> usize {
        self.site.act(|_, http| http.connections())
    }
}

fn get(target: &str) -> Fetch {
    Fetch::get(target).expect("a path")
}

fn whole(status: u16, body: &str) -> Report {
    Report::Whole(status, body.to_owned())
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_request_is_encoded_correctly() {
    let stage = Stage::new();
    let upstream = stage.add(Upstream::to(stage.host.address()).host("api.internal:81"));
    let fetch = Fetch::post("/a?b=%20").expect("a path").header("Accept", "text/plain").body("hello");
    let id = stage.fetch(upstream, &fetch);
    let mut peer = stage.accept();
    let sent = peer.expect("hello");
    let wanted =
        "POST /a?b=%20 HTTP/1.1\r\nHost: api.internal:81\r\nAccept: text/plain\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(String::from_utf8_lossy(&sent), wanted);
    peer.send(answer("thanks"));
    assert_eq!(stage.reports(), [(id, whole(200, "thanks"))]);
}

#[test]
fn the_name_of_an_upstream_is_resolved_for_each_connection() {
    let stage = Stage::new();
    let port = stage.host.address().tcp().expect("TCP").port();
    let resolver = Resolver::new(&stage.site.sim.workers(1, 10), ResolverConfig::default());
    let upstream = stage.add(Upstream::by_name(&resolver, &format!("api.example:{port}")));
    let lost = stage.fetch(upstream, &get("/1"));
    stage.site.sim.settle();
    assert_eq!(stage.reports(), [(lost, Report::Failed(FetchError::NotConnected(std::io::ErrorKind::NotFound)))]);

    stage.site.sim.set_name("api.example", stage.host.address().ip());
    stage.site.sim.run_for(SECOND * 2); // a failure is remembered for a second
    let id = stage.fetch(upstream, &get("/2"));
    let mut server = stage.accept();
    server.expect(format!("GET /2 HTTP/1.1\r\nHost: api.example:{port}\r\n\r\n"));
    server.send(answer("found"));
    stage.site.sim.settle();
    assert_eq!(stage.reports(), [(id, whole(200, "found"))]);
}

#[test]
fn malformed_requests_are_refused_before_they_are_sent() {
    for (method, target) in [
        ("GET", "a"),
        ("GET", ""),
        ("GET", "http://h/"),
        ("GET", "/a b"),
        ("GET", "/a\r\nX: y"),
        ("GET", "/ü"),
        ("GET", "/#"),
        ("GET", "*"),
        ("CONNECT", "/"),
        ("G T", "/"),
        ("", "/"),
    ] {
        assert!(Fetch::new(method, target).is_err(), "{method} {target}");
    }
    assert!(get("/").try_header("A", "b\r\nc: d").is_err());
    assert!(Fetch::new("OPTIONS", "*").is_ok());
}

#[test]
fn a_connection_is_kept_for_the_next_request_and_closed_when_idle() {
    let stage = Stage::new();
    let upstream = stage.add(Upstream::to(stage.host.address()).idle_timeout(SECOND * 7));
    // The second request is sent from within the call that reports the first response.
    stage.site.act(|asker, _| asker.next.push((upstream, get("/2"))));
    stage.fetch(upstream, &get("/1"));
    let mut peer = stage.accept();
    peer.expect("GET /1");
    peer.send(answer("one"));
    peer.expect("GET /2");
    peer.send(answer("two"));
    let reports: Vec<_> = stage.reports().into_iter().map(|(_, report)| report).collect();
    assert_eq!(reports, [whole(200, "one"), whole(200, "two")]);
    stage.site.sim.run_for(SECOND * 6);
    assert_eq!(stage.connections(), 1);
    stage.site.sim.run_for(SECOND * 2);
    assert!(peer.is_ended());
    peer.finish();
    stage.site.sim.settle();
    assert_eq!(stage.connections(), 0);
}

#[test]
fn requests_beyond_the_connections_wait_and_those_beyond_the_queue_fail() {
    let stage = Stage::new();
    let upstream = stage.add(Upstream::to(stage.host.address()).connections_max(1).waiting_max(1));
    let ids = ["/1", "/2", "/3"].map(|target| stage.fetch(upstream, &get(target)));
    let mut peer = stage.accept();
    peer.expect("GET /1");
    stage.site.sim.run_for(SECOND);
    assert_eq!(stage.reports(), [(ids[2], Report::Failed(FetchError::Busy))]);
    peer.send(answer("one"));
    peer.expect("GET /2");
    peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\ntwo");
    assert_eq!(stage.reports(), [(ids[0], whole(200, "one")), (ids[1], whole(200, "two"))]);
    assert!(peer.is_ended(), "`Connection: close` was announced");
}

#[test]
fn answers_are_streamed_as_they_come() {
    let stage = Stage::new();
    let fetch = get("/events").streamed().limit(None).silence_max(SECOND * 10);
    let id = stage.fetch(stage.upstream(), &fetch);
    let mut peer = stage.accept();
    peer.expect("\r\n\r\n");
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(stage.reports(), [(id, Report::Head(200)), (id, Report::Data("one".into()))]);
    for _ in 0..9 {
        stage.site.sim.run_for(SECOND * 9);
        peer.send("1\r\n.\r\n");
        assert_eq!(stage.reports(), [(id, Report::Data(".".into()))], "as long as something comes in time");
    }
    peer.send("0\r\n\r\n");
    assert_eq!(stage.reports(), [(id, Report::End)]);
}

#[test]
fn pausing_a_response_slows_the_server_down() {
    let long = "x".repeat(300_000);
    let heads =
        [format!("Content-Length: {}\r\n", long.len()), "Transfer-Encoding: chunked\r\n".to_owned(), String::new()];
    for head in heads {
        let stage = Stage::new();
        let fetch = get("/long").streamed().limit(None).silence_max(SECOND * 10);
        let upstream = stage.upstream();
        let id = stage.fetch(upstream, &fetch);
        let mut peer = stage.accept();
        peer.expect("\r\n\r\n");
        peer.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n"));
        assert_eq!(stage.reports(), [(id, Report::Head(200))]);
        stage.site.act(|_, http| http.pause_fetch(id));
        let is_chunked = head.contains("chunked");
        peer.send(if is_chunked { format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len()) } else { long.clone() });
        if head.is_empty() {
            peer.finish();
        }
        stage.site.sim.run_for(SECOND * 60);
        assert_eq!(stage.reports(), [], "{head}: it is not read, and its silence is nobody's fault");
        stage.site.act(|_, http| http.resume_fetch(id));
        stage.site.sim.run_for(SECOND * 5);
        let reports = stage.reports();
        assert_eq!(reports.last(), Some(&(id, Report::End)), "{head}");
        let data = reports.iter().map(|(_, report)| if let Report::Data(data) = report { data.len() } else { 0 });
        assert_eq!(data.sum::<usize>(), long.len(), "{head}");
        // The connection is as good as any other.
        let next = stage.fetch(upstream, &get("/next"));
        let mut peer = if head.is_empty() { stage.accept() } else { peer };
        peer.expect("GET /next");
        peer.send(answer("next"));
        assert_eq!(stage.reports(), [(next, whole(200, "next"))], "{head}");
        assert!(stage.connections() <= 1);
    }
}

#[test]
fn a_pause_at_the_last_piece_does_not_delay_the_end() {
    let stage = Stage::new();
    let id = stage.fetch(stage.upstream(), &get("/").streamed());
    let mut peer = stage.accept();
    peer.expect("\r\n\r\n");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(stage.reports(), [(id, Report::Head(200))]);
    stage.site.act(|asker, _| asker.pauses = true);
    peer.send("one");
    assert_eq!(stage.reports(), [(id, Report::Data("one".into())), (id, Report::End)]);
}

#[test]
fn a_body_may_end_with_the_connection() {
    let stage = Stage::new();
    let id = stage.fetch(stage.upstream(), &get("/"));
    let mut peer = stage.accept();
    peer.expect("\r\n\r\n");
    peer.send("HTTP/1.0 200 OK\r\n\r\nall of it");
    assert_eq!(stage.reports(), []);
    peer.finish();
    assert_eq!(stage.reports(), [(id, whole(200, "all of it"))]);
    assert_eq!(stage.connections(), 0);
}

#[test]
fn a_body_is_streamed_to_the_server() {
    let stage = Stage::new();
    let upstream = stage.upstream();
    let fetch = Fetch::post("/").expect("a path").streamed_body();
    let id = stage.site.act(|_, http| {
        let id = http.fetch(upstream, &fetch);
        assert!(http.write_body(id, b"before it is connected "));
        id
    });
    let mut peer = stage.accept();
    peer.expect("17\r\nbefore it is connected \r\n");
    stage.reports();
    stage.site.act(|_, http| {
        assert!(http.write_body(id, b"and after"));
        assert!(http.write_body(id, b""), "an empty chunk would be the last");
    });
    peer.expect("9\r\nand after\r\n");
    assert_eq!(stage.reports(), [(id, Report::Drained)]);
    stage.site.act(|_, http| {
        http.end_body(id);
        assert!(!http.write_body(id, b"too late"));
    });
    assert_eq!(peer.expect("0\r\n\r\n"), b"0\r\n\r\n");
    peer.send(answer("thanks"));
    assert_eq!(stage.reports(), [(id, whole(200, "thanks"))]);
}

#[test]
fn a_server_that_takes_a_body_slowly_is_not_silent() {
    // Over a slow link, with the whole body queued at once.
    let stage = Stage::new();
    stage.site.sim.set_link(Link { bandwidth: Some(30_000), buffer_bytes: 8_192, ..Link::default() });
    let upstream = stage.upstream();
    let long = Fetch::post("/").expect("a path").body("x".repeat(600_000)).limit(None).silence_max(SECOND * 5);
    let sent = stage.fetch(upstream, &long);
    let mut server = stage.accept();
    let before = stage.site.sim.now();
    assert!(stage.site.sim.run_until(SECOND * 60, || server.count_received() > 600_000), "all of it comes");
    assert!(
        stage.site.sim.now().saturating_sub(before) > SECOND * 10,
        "and takes its time: {:?}",
        stage.site.sim.now()
    );
    server.send(answer("got it"));
    assert_eq!(stage.reports(), [(sent, whole(200, "got it"))]);

    // By a program that writes one piece at a time.
    let stage = Stage::new();
    let upstream = stage.upstream();
    let pieces = Fetch::post("/").expect("a path").streamed_body().limit(None).silence_max(SECOND * 5);
    let sent = stage.fetch(upstream, &pieces);
    let mut server = stage.accept();
    for _ in 0..4 {
        stage.site.sim.run_for(SECOND * 4);
        stage.site.act(|_, http| http.write_body(sent, b"piece"));
    }
    stage.site.act(|_, http| http.end_body(sent));
    server.expect("0\r\n\r\n");
    server.send(answer("got it"));
    assert_eq!(stage.reports().last(), Some(&(sent, whole(200, "got it"))));

    // A server that takes nothing is given up all the same.
    let stage = Stage::new();
    let upstream = stage.upstream();
    let sent = stage.fetch(upstream, &long);
    let mut server = stage.accept();
    server.stall();
    stage.site.sim.run_for(SECOND * 11);
    assert_eq!(stage.reports(), [(sent, Report::Failed(FetchError::TimedOut))]);
}

#[test]
fn time_limits_are_kept() {
    let stage = Stage::new();
    let upstream = stage.add(Upstream::to(stage.host.address()).connections_max(1));
    let slow = stage.fetch(upstream, &get("/slow").silence_max(SECOND * 5));
    let queued = stage.fetch(upstream, &get("/queued").limit(Some(SECOND * 2)));
    let mut peer = stage.accept();
    peer.expect("GET /slow");
    stage.site.sim.run_for(SECOND * 3);
    assert_eq!(stage.reports(), [(queued, Report::Failed(FetchError::TimedOut))], "while it waits");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    stage.site.sim.run_for(SECOND * 4);
    assert_eq!(stage.reports(), [], "something came");
    stage.site.sim.run_for(SECOND * 2);
    assert_eq!(stage.reports(), [(slow, Report::Failed(FetchError::TimedOut))], "silence");
    let endless = stage.fetch(upstream, &get("/endless").limit(Some(SECOND * 10)));
    let mut peer = stage.accept();
    peer.expect("GET /endless");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    for _ in 0..12 {
        assert_eq!(stage.reports(), []);
        stage.site.sim.run_for(Duration::from_millis(900));
        peer.send(".");
        if stage.site.sim.run_until(Duration::from_millis(1), || peer.is_over()) {
            break;
        }
    }
    assert_eq!(stage.reports(), [(endless, Report::Failed(FetchError::TimedOut))], "all of it together");
}

#[test]
fn idempotent_requests_are_retried_if_a_kept_connection_was_closed() {
    for (method, again) in [("GET", true), ("PUT", true), ("DELETE", true), ("POST", false), ("PATCH", false)] {
        let stage = Stage::new();
        let upstream = stage.upstream();
        let fetch = Fetch::new(method, "/").expect("a path");
        stage.fetch(upstream, &get("/first"));
        let mut peer = stage.accept();
        peer.expect("\r\n\r\n");
        peer.send(answer("first"));
        stage.reports();
        let id = stage.fetch(upstream, &fetch);
        peer.expect(method);
        peer.finish();
        if again {
            let mut fresh = stage.accept();
            fresh.expect(method);
            fresh.send(answer("second"));
            assert_eq!(stage.reports(), [(id, whole(200, "second"))], "{method}");
            let id = stage.fetch(upstream, &fetch);
            fresh.expect(method);
            fresh.send("HTTP/1.1 2");
            stage.site.sim.settle();
            fresh.reset();
            let lost = FetchError::Lost(ErrorKind::ConnectionReset);
            assert_eq!(stage.reports(), [(id, Report::Failed(lost))], "{method}: an answer had begun");
        } else {
            let lost = FetchError::Lost(ErrorKind::UnexpectedEof);
            assert_eq!(stage.reports(), [(id, Report::Failed(lost))], "{method}");
        }
        assert!(stage.host.accept().is_none());
    }
}

#[test]
fn a_repeatable_post_is_retried_on_a_fresh_connection() {
    let close: fn(Peer) = |mut peer| peer.finish();
    for end in [close, Peer::reset] {
        let stage = Stage::new();
        let upstream = stage.upstream();
        let post = || Fetch::post("/").expect("a path").body("question").repeatable();
        stage.fetch(upstream, &post());
        let mut peer = stage.accept();
        peer.expect("question");
        peer.send(answer("first"));
        stage.reports();
        let id = stage.fetch(upstream, &post());
        peer.expect("question");
        end(peer);
        let mut fresh = stage.accept();
        fresh.expect("question");
        fresh.send(answer("second"));
        assert_eq!(stage.reports(), [(id, whole(200, "second"))]);
        // The loss of a fresh connection is not explained by a server that closes idle connections.
        let id = stage.fetch(upstream, &post());
        fresh.expect("question");
        end(fresh);
        let last = stage.accept();
        last.reset();
        assert!(matches!(stage.reports()[..], [(failed, Report::Failed(FetchError::Lost(_)))] if failed == id));
        assert!(stage.host.accept().is_none());
    }
}

#[test]
fn failures_name_their_cause() {
    let stage = Stage::new();
    let upstream = stage.upstream();
    let answers: [(&str, FetchError); 5] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", {
            FetchError::Malformed(DecodeError::ContentLength)
        }),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", FetchError::Malformed(DecodeError::BodyTooLarge)),
        ("SSH-2.0-OpenSSH\r\n\r\n", FetchError::Malformed(DecodeError::StatusLine)),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", FetchError::Switched),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", FetchError::Lost(ErrorKind::UnexpectedEof)),
    ];
    for (bytes, error) in answers {
        let id = stage.fetch(upstream, &get("/"));
        let mut peer = stage.accept();
        peer.expect("\r\n\r\n");
        peer.send(bytes);
        peer.finish();
        assert_eq!(stage.reports(), [(id, Report::Failed(error))], "{bytes}");
        assert_eq!(stage.connections(), 0);
    }
    let nobody: Address = "10.0.0.9:80".parse().expect("an address");
    let id = stage.fetch(stage.add(Upstream::to(nobody)), &get("/"));
    stage.site.sim.run_for(SECOND * 20);
    let refused = FetchError::NotConnected(ErrorKind::ConnectionRefused);
    assert_eq!(stage.reports(), [(id, Report::Failed(refused))]);
}

#[test]
fn an_unsolicited_answer_is_never_taken_for_the_next() {
    let stage = Stage::new();
    let upstream = stage.upstream();
    let first = stage.fetch(upstream, &get("/1"));
    let mut peer = stage.accept();
    peer.expect("GET /1");
    peer.send(answer("one") + &answer("planted"));
    assert_eq!(stage.reports(), [(first, whole(200, "one"))]);
    assert!(peer.is_over());
    let second = stage.fetch(upstream, &get("/2"));
    let mut peer = stage.accept();
    peer.expect("GET /2");
    peer.send(answer("two"));
    assert_eq!(stage.reports(), [(second, whole(200, "two"))]);
    // The same for an answer that comes later.
    peer.send(answer("planted"));
    stage.site.sim.settle();
    assert!(peer.is_over());
    // The same if the next request is sent as soon as the one before is answered.
    stage.site.act(|asker, _| asker.next.push((upstream, get("/4"))));
    let third = stage.fetch(upstream, &get("/3"));
    let mut peer = stage.accept();
    peer.expect("GET /3");
    peer.send(answer("three") + &answer("planted"));
    assert_eq!(stage.reports(), [(third, whole(200, "three"))]);
    let mut peer = stage.accept();
    peer.expect("GET /4");
    peer.send(answer("four"));
    assert_eq!(stage.reports().pop().map(|(_, report)| report), Some(whole(200, "four")));
}

#[test]
fn a_connection_that_is_not_kept_makes_room_for_the_next_request_at_once() {
    let stage = Stage::new();
    let upstream = stage.add(Upstream::to(stage.host.address()).connections_max(1));
    let first = stage.fetch(upstream, &get("/1"));
    let second = stage.fetch(upstream, &get("/2"));
    let mut server = stage.accept();
    server.expect("GET /1 HTTP/1.1\r\nHost: 10.0.0.2:80\r\n\r\n");
    // The server leaves its side of the connection open.
    server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1");
    let start = stage.site.sim.now();
    let mut other = stage.accept();
    other.expect("GET /2 HTTP/1.1\r\nHost: 10.0.0.2:80\r\n\r\n");
    assert!(stage.site.sim.now().saturating_sub(start) < SECOND);
    other.send(answer("2"));
    assert_eq!(stage.reports(), [(first, whole(200, "1")), (second, whole(200, "2"))]);
}

#[test]
fn nothing_is_reported_for_a_cancelled_request() {
    let stage = Stage::new();
    let upstream = stage.add(Upstream::to(stage.host.address()).connections_max(1));
    let ids = ["/1", "/2", "/3"].map(|target| stage.fetch(upstream, &get(target)));
    let mut peer = stage.accept();
    peer.expect("GET /1");
    // The second upstream of another loop is none of this one's.
    let other = Stage::new();
    other.upstream();
    let unknown = stage.fetch(other.upstream(), &get("/"));
    stage.site.act(|_, http| {
        http.cancel_fetch(unknown);
        http.cancel_fetch(ids[1]);
        http.cancel_fetch(ids[0]);
        http.cancel_fetch(ids[0]);
    });
    let mut peer = stage.accept();
    peer.expect("GET /3");
    peer.send(answer("three"));
    assert_eq!(stage.reports(), [(ids[2], whole(200, "three"))]);
}

#[test]
fn a_shutdown_closes_idle_connections_and_lets_the_others_finish() {
    let stage = Stage::new();
    let upstream = stage.upstream();
    let ids = ["/1", "/2", "/3"].map(|target| stage.fetch(upstream, &get(target)));
    let mut peers = [stage.accept(), stage.accept(), stage.accept()];
    for peer in &mut peers {
        peer.expect("\r\n\r\n");
    }
    peers[0].send(answer("one"));
    assert_eq!(stage.reports().len(), 1);
    stage.site.stopper.stop();
    stage.site.sim.settle();
    assert!(peers[0].is_ended() && !peers[1].is_over());
    peers[1].send(answer("two"));
    let reports = stage.reports();
    assert_eq!(reports.len(), 1);
    assert!(ids.contains(&reports[0].0));
    assert!(peers[1].is_ended());
    // The loop ends with its last request, although no server has closed its side.
    peers[2].send(answer("three"));
    stage.site.sim.run_for(SECOND);
    assert!(!stage.site.sim.is_running(stage.site.id));
}
