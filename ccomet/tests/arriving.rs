//! Decisions that the server makes from a request's head, before its body has come, and limits on
//! how long a message may take to arrive. On the simulated network.

mod common;

use std::time::Duration;

use ccomet::{Claims, Config};
use common::stage::{ANN, LOOPBACK, Stage, bearer, key, networks, patterns};
use sealed::sim::Peer;
use testing::http::{Reply, UPGRADE, frame};

impl Stage {
    /// Starts a server where a client needs a token to publish.
    fn with_keys() -> Self {
        Self::new(|config| config.auth.keys = vec![key("main")])
    }

    /// Returns what the server answers to the head of a request before any of its body.
    fn answer_to_the_head(&self, target: &str, fields: &str) -> String {
        let mut peer = self.connect(ANN);
        peer.send(head(target, 60_000, fields));
        self.received(&mut peer)
    }

    fn socket(&self) -> Peer {
        self.open(self.connect(ANN), "/channels/a", "")
    }
}

fn head(target: &str, length: usize, fields: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{fields}\r\n")
}

const PING: u8 = 0x89;

#[test]
fn a_body_without_permission_is_refused_at_its_head() {
    let bad = "Authorization: Bearer x.y.z\r\n";
    for (target, fields, status) in [
        ("/messages", "", 401),
        ("/messages", bad, 401),
        ("/channels/a", "", 401),
        ("/channels/a", bad, 401),
        ("/channels/a,b.*", "", 401),
        ("/channels/a/history", "", 405),
        ("/channels/a%00b", "", 400),
        ("/nothing", "", 404),
        ("/chat.html", "", 405),
        ("/publish", "", 405),
        ("/sub?cname=a", "", 413),
    ] {
        let answer = Stage::with_keys().answer_to_the_head(target, fields);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {fields}: {answer}");
        assert!(answer.contains("Connection: close\r\n"), "{target}: {answer}");
    }
    let stage = Stage::new(|config| {
        let rules = "[[rules]]\nchannels = \"read.*\"\npublish = \"admin\"\n\
                     [[rules]]\nchannels = \"small.*\"\nmessage_bytes_max = 5\n";
        config.rules = toml::from_str::<Config>(rules).expect("TOML").rules;
    });
    for (target, status) in [("/channels/read.a", 403), ("/channels/b,read.a", 403), ("/channels/b,small.a", 413)] {
        let answer = stage.answer_to_the_head(target, "");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
    }
    assert_eq!(stage.answer_to_the_head("/channels/a", ""), "", "with leave, it is waited for");
    assert_eq!(stage.answer_to_the_head("/messages", ""), "");
    // A denied address is refused at the head, too.
    let stage = Stage::new(|config| config.front.deny = networks(&["192.0.2.0/24"]));
    assert!(stage.answer_to_the_head("/messages", "").starts_with("HTTP/1.1 403 "));
}

#[test]
fn a_refused_body_that_came_with_its_head_does_not_end_the_connection() {
    let stage = Stage::with_keys();
    let mut peer = stage.connect(ANN);
    for target in ["/channels/a", "/messages", "/nothing"] {
        peer.send([head(target, 5, ""), "hello".to_owned()].concat().repeat(2));
        let answer = stage.received(&mut peer);
        assert_eq!(answer.matches("HTTP/1.1 40").count(), 2, "{target}: {answer}");
        assert!(!answer.contains("Connection: close"), "{answer}");
    }
}

#[test]
fn a_request_is_charged_before_its_body_is_read() {
    for (target, body) in [("/messages", "no JSON"), ("/channels/a", "fine")] {
        let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 2);
        let answer: Vec<String> = (0..2)
            .map(|_| {
                let mut peer = stage.connect(ANN);
                peer.send(head(target, body.len(), "") + body);
                stage.received(&mut peer)
            })
            .collect();
        let status = if target == "/messages" { "HTTP/1.1 400 " } else { "HTTP/1.1 200 " };
        assert!(answer.iter().all(|answer| answer.starts_with(status)), "{answer:?}");
        let answer = stage.answer_to_the_head(target, "");
        assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: "), "{target}: {answer}");
    }
    // Each message of a list counts once.
    let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 5);
    let list = r#"{"messages":[{"channel":"a","data":"1"},{"channels":["a","b"],"data":"2"}]}"#;
    let mut peer = stage.connect(ANN);
    let mut post = |target: &str, body: &str| {
        peer.send(head(target, body.len(), "") + body);
        stage.received(&mut peer)[..12].to_owned()
    };
    assert_eq!(post("/messages", list), "HTTP/1.1 200");
    assert_eq!([post("/channels/a,b", "x"), post("/channels/a", "x")], ["HTTP/1.1 200", "HTTP/1.1 429"]);
    assert_eq!(post("/messages", list), "HTTP/1.1 429");
}

#[test]
fn every_message_on_a_websocket_is_charged() {
    let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 2);
    let mut socket = stage.socket();
    for _ in 0..2 {
        socket.send(frame(0x81, b"no JSON"));
        assert!(stage.received(&mut socket).contains("bad_command"));
    }
    socket.send(frame(0x81, br#"{"type":"publish","channel":"a","data":"x","ref":7}"#));
    let answer = stage.received(&mut socket);
    assert!(answer.contains("too_many_requests") && answer.contains("\"ref\":7"), "{answer}");
    for said in [&b"no JSON"[..], br#"{"type":"token","token":"x"}"#] {
        socket.send(frame(0x81, said));
        assert!(stage.received(&mut socket).contains("too_many_requests"));
    }
    socket.send(frame(0x82, b"bytes"));
    assert!(stage.received(&mut socket).contains("too_many_requests"));
}

#[test]
fn a_message_in_pieces_has_a_time_limit() {
    const LIMIT: u64 = 7;
    let stage = Stage::new(|config| {
        config.times.message_s = LIMIT;
        config.times.heartbeat_s = 3_600;
    });
    let whole = frame(0x81, br#"{"type":"publish","channel":"a","data":"x","ref":1}"#);
    let (begin, end) = whole.split_at(20);
    let fragments = [frame(0x01, br#"{"type":"publish","channel":"a","#), frame(0x80, br#""data":"x","ref":1}"#)];
    // In time, in whatever pieces the message comes.
    for (first, last) in [(begin, end), (&fragments[0][..], &fragments[1][..]), (&whole[..1], &whole[1..])] {
        let mut socket = stage.socket();
        for _ in 0..3 {
            socket.send(first);
            stage.sim.run_for(Duration::from_secs(LIMIT - 1));
            socket.send(last);
            let answer = stage.received(&mut socket);
            assert!(answer.contains("\"published\""), "{answer}");
        }
        stage.sim.run_for(Duration::from_secs(100));
        assert!(!socket.is_over(), "silence between messages is not limited by that");
    }
    // Too late, even with further pieces and pings in between.
    for (first, between) in [
        (begin, Vec::new()),
        (begin, b"x".to_vec()),
        (&fragments[0][..], Vec::new()),
        (&fragments[0][..], frame(PING, b"")),
        (&fragments[0][..], frame(0x00, b" ")),
        (&whole[..1], Vec::new()),
    ] {
        let mut socket = stage.socket();
        // The slow message follows a complete one.
        socket.send([&whole, first].concat());
        for second in 0..LIMIT + 2 {
            stage.sim.run_for(Duration::from_secs(1));
            assert!(second >= LIMIT - 1 || !socket.is_over(), "{between:?} after {second} s");
            if !socket.is_over() {
                socket.send(&between);
            }
        }
        let answer = socket.take();
        let shown = answer.escape_ascii();
        assert!(socket.is_over(), "{between:?}: {shown}");
        // Close code 1008, and the reason.
        assert!(answer.windows(9).any(|bytes| bytes == b"\x03\xf0a messa"), "{between:?}: {shown}");
    }
    stage.sim.run_for(Duration::from_secs(30));
    assert_eq!(stage.server.holdings().connections, 0, "nothing is left of them");
}

#[test]
fn a_client_that_takes_no_answers_gets_no_extra_time_for_its_message() {
    const LIMIT: u64 = 7;
    let stage = Stage::new(|config| {
        config.times.message_s = LIMIT;
        config.times.heartbeat_s = 3_600;
    });
    let mut socket = stage.socket();
    socket.send(frame(0x01, b"{"));
    // The answers exceed what the server queues: it does not read from the client until the client
    // has taken some.
    let pings = frame(PING, [b'p'; 125]).repeat(2_000);
    let mut seconds = 0;
    while !socket.is_over() && seconds < 10 * LIMIT {
        socket.stall();
        socket.send(&pings);
        stage.sim.run_for(Duration::from_secs(1));
        socket.unstall();
        stage.sim.run_for(Duration::from_secs(1));
        seconds += 2;
    }
    assert!(socket.is_over() && seconds <= 2 * LIMIT, "after {seconds} s");
}

#[test]
fn bodies_in_transit_are_bounded_for_an_address_and_in_total() {
    const BODY: usize = 60_000;
    let stage = Stage::new(|config| {
        config.limits.body_bytes_per_address_max = 2 * BODY;
        config.limits.body_bytes_max = 5 * BODY;
    });
    let begin = |client: &str, fields: &str, target: &str| {
        let mut peer = stage.connect(client);
        let length = if fields.is_empty() { format!("Content-Length: {BODY}\r\n") } else { fields.to_owned() };
        peer.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\n{length}\r\n"));
        let answer = stage.received(&mut peer);
        (peer, answer)
    };
    let accepted = |client: &str| {
        let (peer, answer) = begin(client, "", "/channels/a");
        assert_eq!(answer, "", "{client}");
        peer
    };
    // Two bodies of one address.
    let (mut first, second) = (accepted(ANN), accepted(ANN));
    let (_, answer) = begin(ANN, "", "/channels/a");
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: "), "{answer}");
    // A body of unknown length counts as the longest that is allowed.
    let (_, answer) = begin(ANN, "Transfer-Encoding: chunked\r\n", "/messages");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    // Other clients have room up to the limit for all.
    let others: Vec<Peer> = ["192.0.2.2", "192.0.2.3", "192.0.2.4"].map(accepted).into();
    let (_, answer) = begin("192.0.2.5", "", "/channels/a");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("body_limit") && answer.contains("retry_ms"),
        "{answer}"
    );
    accepted("127.0.0.1");
    // Long messages do not block short ones.
    for client in [ANN, "192.0.2.5"] {
        let mut peer = stage.connect(client);
        assert_eq!(stage.exchange(&mut peer, "POST", "/channels/a", "", "short").status, 200, "{client}");
    }
    // Complete bodies and those of closed connections count no longer.
    first.send("x".repeat(BODY));
    assert!(stage.received(&mut first).starts_with("HTTP/1.1 200 "));
    drop(second);
    drop(others);
    stage.sim.run_for(Duration::from_secs(1));
    let _all: Vec<Peer> = [ANN, ANN, "192.0.2.5", "192.0.2.6", "192.0.2.7"].map(accepted).into();
    // A body that stalls is given up in time.
    stage.sim.run_for(Duration::from_secs(100));
    let _again: Vec<Peer> = [ANN, ANN, "192.0.2.5"].map(accepted).into();
}

#[test]
fn messages_of_websockets_in_transit_are_bounded_like_bodies() {
    const MESSAGE: u64 = 60_000;
    let stage = Stage::new(|config| {
        config.limits.body_bytes_per_address_max = 2 * MESSAGE as usize;
        config.limits.body_bytes_max = 5 * MESSAGE as usize;
    });
    // A frame of that length, without its last byte.
    let begin = |client: &str| {
        let mut peer = stage.connect(client);
        peer.send(format!("GET /channels/a HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n"));
        stage.received(&mut peer);
        let mut frame = frame(0x82, vec![b'x'; MESSAGE as usize]);
        let last = frame.split_off(frame.len() - 1);
        peer.send(frame);
        let answer = stage.received(&mut peer);
        (peer, last, answer)
    };
    let accepted = |client: &str| {
        let (peer, last, answer) = begin(client);
        assert!(!answer.contains("error"), "{client}: {answer}");
        (peer, last)
    };
    let (mut first, last) = accepted(ANN);
    let second = accepted(ANN);
    let (third, _, answer) = begin(ANN);
    assert!(answer.contains("too_many_requests"), "{answer}");
    stage.sim.run_for(Duration::from_secs(5));
    assert!(third.is_over(), "it is not read any further");
    let others = ["192.0.2.2", "192.0.2.3", "192.0.2.4"].map(accepted);
    assert!(begin("192.0.2.5").2.contains("body_limit"));
    accepted("127.0.0.1");
    // Complete messages and those of closed connections count no longer.
    first.send(last);
    assert!(stage.received(&mut first).contains("published"));
    drop((second, others));
    stage.sim.run_for(Duration::from_secs(1));
    let _all = [ANN, ANN, "192.0.2.5", "192.0.2.6", "192.0.2.7"].map(accepted);
}

#[test]
fn a_websocket_of_a_client_that_may_not_publish_accepts_only_short_commands() {
    let stage = Stage::new(|config| config.auth.keys = vec![key("main")]);
    let token = |publish: &[&str]| {
        let publish = patterns(publish);
        stage.sign(&Claims { publish, subscribe: patterns(&["a"]), ..stage.claims_for("none", 600) })
    };
    for (publish, is_ended) in [(&[][..], true), (&["a"][..], false)] {
        let mut peer = stage.connect(LOOPBACK);
        peer.send(format!("GET /channels/a HTTP/1.1\r\nHost: x\r\n{UPGRADE}{}\r\n", bearer(&token(publish))));
        stage.received(&mut peer);
        peer.send(&frame(0x82, vec![b'x'; 65_000])[..60_000]);
        stage.sim.run_for(Duration::from_secs(5));
        assert_eq!(peer.is_over(), is_ended, "publish: {publish:?}");
    }
}

#[test]
fn a_batch_beyond_its_rate_costs_one_message_and_passes_after_retry_after() {
    let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 60);
    let batch = |count: usize| {
        let messages = vec![r#"{"channel":"a","data":"x"}"#; count].join(",");
        let body = format!(r#"{{"messages":[{messages}]}}"#);
        stage.exchange(&mut stage.connect(ANN), "POST", "/messages", "", &body)
    };
    let wait = |refused: &Reply| -> u64 {
        assert!(refused.is(429, "too_many_requests"), "{refused:?}");
        refused.header("retry-after").expect("a time").parse().expect("seconds")
    };
    assert_eq!(batch(31).status, 200);
    let seconds = wait(&batch(40));
    assert!((11..=12).contains(&seconds), "{seconds}");
    assert_eq!(batch(20).status, 200, "what was refused has cost nothing but its request");
    let seconds = wait(&batch(40));
    stage.sim.run_for(Duration::from_secs(seconds));
    assert_eq!(batch(40).status, 200);
    // A batch of more than a minute's worth passes once a minute's worth is allowed. While nothing
    // is allowed, the head alone is refused.
    let seconds = wait(&batch(90));
    stage.sim.run_for(Duration::from_secs(seconds));
    let seconds = wait(&batch(90));
    stage.sim.run_for(Duration::from_secs(seconds));
    assert_eq!(batch(90).status, 200);
}
