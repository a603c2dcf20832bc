//! The connections of the client on the simulated network: which are kept, how many there are, and
//! which request is sent on which.

mod common;

use std::io::ErrorKind;

use common::asker::Report;
use common::calling::{SECOND, Stage, answer, get, whole};
use sealed::sim::Peer;
use sealed::{Resolver, ResolverConfig};
use sealed_http::client::{Fetch, FetchError, Upstream};

#[test]
fn the_name_of_an_upstream_is_resolved_for_each_connection() {
    let stage = Stage::new();
    let port = stage.host.address().inet().expect("TCP").port();
    let resolver = Resolver::new(&stage.site.sim.workers(1, 10), ResolverConfig::default());
    let upstream = stage.add(Upstream::by_name(&resolver, "api.example", port));
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
