//! The client on the simulated network: every request has one outcome, in time.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::asker::Report;
use common::calling::{SECOND, Stage, answer, get, whole};
use sealed::Address;
use sealed::sim::Link;
use sealed_http::client::{Fetch, FetchError, Upstream};
use sealed_http::codec::DecodeError;

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
