//! Clients behind a trusted HTTP proxy: limits apply to each by the address that the proxy names,
//! as long as the client is connected. On the simulated network, where a client may have any
//! address.

mod common;

use std::time::Duration;

use ccomet::{Config, ForwardedBy};
use common::stage::{ANN, BOB, PROXY, Stage, networks};
use sealed::sim::Peer;
use testing::http::{frame, request};

impl Stage {
    fn of(change: impl FnOnce(&mut Config)) -> Self {
        Self::new(|config| {
            config.front.trusted_proxies = networks(&["10.0.0.0/8"]);
            change(config);
        })
    }

    /// Opens a connection of the proxy.
    fn proxy(&self) -> Peer {
        self.connect(PROXY)
    }

    /// Sends a client's request on a connection of the proxy, and returns the answer.
    fn ask_on(&self, peer: &mut Peer, client: &str, method: &str, target: &str) -> String {
        peer.send(request(method, target, &format!("X-Forwarded-For: {client}\r\n"), ""));
        self.received(peer)
    }

    /// Sends a client's request on a new connection of the proxy, and returns the answer.
    fn ask(&self, client: &str, method: &str, target: &str) -> String {
        self.ask_on(&mut self.proxy(), client, method, target)
    }

    /// Opens a WebSocket of this client, and reads the hello.
    fn socket(&self, client: &str) -> Peer {
        self.open(self.proxy(), "/channels/a", &format!("X-Forwarded-For: {client}\r\n"))
    }

    /// Publishes on a WebSocket, and returns the answer.
    fn publish(&self, socket: &mut Peer) -> String {
        let text = r#"{"type":"publish","channel":"a","data":"hi","ref":1}"#;
        socket.send(frame(0x81, text));
        self.received(socket)
    }
}

fn is_fine(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
}

fn is_over(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 429 ") && answer.contains("too_many_requests")
}

#[test]
fn a_websocket_publishes_after_long_silence_and_its_own_client_is_charged() {
    for silence in [2, 10, 600] {
        let stage = Stage::of(|config| {
            config.limits.publishes_per_address_minute = 2;
            config.times.heartbeat_s = 3_600;
        });
        let mut socket = stage.socket(ANN);
        stage.sim.run_for(Duration::from_secs(silence));
        for _ in 0..2 {
            let answer = stage.publish(&mut socket);
            assert!(answer.contains("\"published\""), "after {silence} s: {answer}");
        }
        assert!(stage.publish(&mut socket).contains("too_many_requests"));
        assert!(is_over(&stage.ask(ANN, "POST", "/channels/a")), "both ways count together");
    }
}

#[test]
fn a_silent_websocket_does_not_charge_a_later_client() {
    let stage = Stage::of(|config| {
        config.limits.publishes_per_address_minute = 2;
        config.times.heartbeat_s = 3_600;
    });
    let mut socket = stage.socket(ANN);
    stage.sim.run_for(Duration::from_secs(10));
    // Bob takes any entry that is free in the table from now on.
    assert!(is_fine(&stage.ask(BOB, "POST", "/channels/a")));
    for _ in 0..5 {
        stage.publish(&mut socket);
    }
    assert!(stage.publish(&mut socket).contains("too_many_requests"), "the socket's client is charged");
    assert!(is_fine(&stage.ask(BOB, "POST", "/channels/a")), "nobody else is");
}

/// Header lines, in both styles, from which the server cannot read a client's address, though the
/// client itself wrote 192.0.2.1.
const UNREADABLE: [(ForwardedBy, &[u8]); 12] = [
    (ForwardedBy::XForwardedFor, b"X-Forwarded-For: \xff"),
    (ForwardedBy::XForwardedFor, b"X-Forwarded-For: 192.0.2.1, \xff"),
    (ForwardedBy::XForwardedFor, b"X-Forwarded-For: 192.0.2.1, unknown"),
    (ForwardedBy::XForwardedFor, b"X-Forwarded-For: 192.0.2.1, _hidden"),
    (ForwardedBy::XForwardedFor, b"X-Forwarded-For: 192.0.2.1,"),
    (ForwardedBy::XForwardedFor, b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For:"),
    (ForwardedBy::XForwardedFor, b"X-Forwarded-For: 192.0.2.1:"),
    (ForwardedBy::Forwarded, b"Forwarded: for=192.0.2.1, for=unknown"),
    (ForwardedBy::Forwarded, b"Forwarded: for=192.0.2.1, for=\"192.0.2.66"),
    (ForwardedBy::Forwarded, b"Forwarded: for=192.0.2.1,"),
    (ForwardedBy::Forwarded, b"Forwarded: for=192.0.2.1, proto=https;host=\xff"),
    (ForwardedBy::Forwarded, b"Forwarded: for=\"192.0.2.1:\""),
];

impl Stage {
    fn publish_as(&self, lines: &[u8]) -> String {
        let mut peer = self.proxy();
        let begin = b"POST /channels/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n";
        peer.send([begin, lines, b"\r\n\r\n"].concat());
        self.received(&mut peer)
    }
}

#[test]
fn a_client_with_an_unreadable_address_is_denied_if_there_are_rules() {
    for (by, lines) in UNREADABLE {
        let shown = lines.escape_ascii();
        // The proxy itself is allowed, and so is the address farther left.
        let stage = Stage::of(|config| {
            config.front.forwarded_by = by;
            config.front.deny = networks(&["192.0.2.66/32"]);
        });
        let answer = stage.publish_as(lines);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("\"forbidden\""), "{shown}: {answer}");
        let stage = Stage::of(|config| {
            config.front.forwarded_by = by;
            config.front.allow = networks(&["10.0.0.0/8", "192.0.2.1/32"]);
        });
        assert!(stage.publish_as(lines).starts_with("HTTP/1.1 403 "), "{shown}");
        assert!(is_fine(&stage.publish_as(b"X-Other: 1")), "the proxy for itself");
    }
}

#[test]
fn clients_whose_addresses_cannot_be_read_are_limited_together() {
    for (by, lines) in UNREADABLE {
        let shown = lines.escape_ascii();
        let stage = Stage::of(|config| {
            config.front.forwarded_by = by;
            config.limits.publishes_per_address_minute = 2;
        });
        let answers: Vec<String> = (0..3).map(|_| stage.publish_as(lines)).collect();
        assert!(is_fine(&answers[0]) && is_fine(&answers[1]) && is_over(&answers[2]), "{shown}: {answers:?}");
        let (_, other) = UNREADABLE.iter().rfind(|(style, _)| *style == by).expect("one");
        assert!(is_over(&stage.publish_as(other)), "another one of the same proxy");
        // The requests are charged neither to the proxy nor to the address farther left.
        assert!((0..5).all(|_| is_fine(&stage.publish_as(b"X-Other: 1"))), "{shown}");
        let named: &[u8] =
            if by == ForwardedBy::Forwarded { b"Forwarded: for=192.0.2.1" } else { b"X-Forwarded-For: 192.0.2.1" };
        assert!(is_fine(&stage.publish_as(named)), "{shown}");
    }
}

#[test]
fn text_in_front_of_the_client_address_changes_nothing() {
    for (by, before) in [
        (ForwardedBy::XForwardedFor, &b"X-Forwarded-For: \xff, "[..]),
        (ForwardedBy::XForwardedFor, b"X-Forwarded-For: \"\r\nX-Forwarded-For: "),
        (ForwardedBy::XForwardedFor, b"X-Forwarded-For: unknown, ,"),
        (ForwardedBy::Forwarded, b"Forwarded: for=\xff, for="),
        (ForwardedBy::Forwarded, b"Forwarded: for=\"10.0.0.1, for="),
        (ForwardedBy::Forwarded, b"Forwarded: \\\r\nForwarded: for="),
    ] {
        let stage = Stage::of(|config| {
            config.front.forwarded_by = by;
            config.front.deny = networks(&["192.0.2.66/32"]);
            config.limits.publishes_per_address_minute = 1;
        });
        let shown = before.escape_ascii();
        assert!(stage.publish_as(&[before, b"192.0.2.66"].concat()).starts_with("HTTP/1.1 403 "), "{shown}");
        assert!(is_fine(&stage.publish_as(&[before, b"192.0.2.1"].concat())), "{shown}");
        let bare: &[u8] = if by == ForwardedBy::Forwarded { b"Forwarded: for=" } else { b"X-Forwarded-For: " };
        assert!(is_over(&stage.publish_as(&[bare, b"192.0.2.1"].concat())), "{shown}: that was the same client");
        assert!(is_fine(&stage.publish_as(&[before, b"192.0.2.2"].concat())), "{shown}");
    }
}

#[test]
fn requests_in_progress_through_a_proxy_count_as_connections_of_the_client() {
    let stage = Stage::of(|config| config.limits.connections_per_address_max = 4);
    let stream = "GET /channels/a?transport=sse";
    let ask = |client: &str, request: &str| {
        let (mut peer, (method, target)) = (stage.proxy(), request.split_once(' ').expect("a method"));
        let heard = stage.ask_on(&mut peer, client, method, target);
        (peer, heard)
    };
    let (events, heard) = ask(ANN, stream);
    assert!(is_fine(&heard) && heard.contains("hello"), "{heard}");
    let (mut poll, heard) = ask(ANN, "GET /channels/a?wait=30");
    assert_eq!(heard, "", "it waits");
    let socket = stage.socket(ANN);
    // A body that is still in transit.
    let mut body = stage.proxy();
    let fields = format!("X-Forwarded-For: {ANN}\r\n");
    body.send(request("POST", "/channels/b", &fields, "hi").trim_end_matches('i'));
    assert_eq!(stage.received(&mut body), "");
    for request in [stream, "GET /channels/a?wait=0", "GET /channels/a?wait=30", "POST /channels/a"] {
        let (mut peer, heard) = ask(ANN, request);
        assert!(is_over(&heard) && heard.contains("Retry-After: "), "{request}: {heard}");
        // The proxy's connection stays open for requests of other clients.
        assert!(is_fine(&stage.ask_on(&mut peer, BOB, "GET", "/channels/a?wait=0")), "{request}");
    }
    assert!(
        is_fine(&stage.ask("", "GET", "/channels/a?wait=0")),
        "clients with unreadable addresses are another client"
    );
    // Each makes room as it ends, though the proxy keeps the connection.
    body.send("i");
    assert!(is_fine(&stage.received(&mut body)));
    assert!(is_fine(&stage.ask(ANN, "GET", "/channels/a?wait=0")));
    let (held, heard) = ask(ANN, "GET /channels/a?wait=30");
    assert_eq!(heard, "");
    assert!(is_over(&stage.ask(ANN, "GET", "/channels/a?wait=0")));
    drop(socket);
    stage.sim.settle();
    assert!(is_fine(&stage.ask(ANN, "GET", "/channels/a?wait=0")));
    drop((events, held));
    stage.sim.run_for(Duration::from_secs(40));
    assert!(is_fine(&String::from_utf8_lossy(&poll.take())));
    let mut streams: Vec<(Peer, String)> = (0..5).map(|_| ask(ANN, stream)).collect();
    assert!(streams[..4].iter().all(|(_, heard)| is_fine(heard)) && is_over(&streams[4].1), "all is given back");
    streams.clear();
    stage.sim.settle();
    assert!(is_fine(&stage.ask(ANN, "GET", "/channels/a?wait=0")));
}

#[test]
fn idle_connections_of_a_proxy_count_for_no_client() {
    let stage = Stage::of(|config| config.limits.connections_per_address_max = 1);
    let mut kept: Vec<Peer> = (0..5).map(|_| stage.proxy()).collect();
    for _ in 0..3 {
        for peer in &mut kept {
            assert!(is_fine(&stage.ask_on(peer, ANN, "POST", "/channels/a")));
            let not_found = stage.ask_on(peer, ANN, "GET", "/nothing");
            assert!(not_found.starts_with("HTTP/1.1 404 "), "{not_found}");
        }
    }
    // Several requests on one connection, sent together.
    kept[0].send(request("GET", "/channels/a?wait=0", &format!("X-Forwarded-For: {ANN}\r\n"), "").repeat(5));
    assert_eq!(stage.received(&mut kept[0]).matches("HTTP/1.1 200 ").count(), 5);
}
