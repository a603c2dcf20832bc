//! What is decided by a request's head, before its body has come, and how long a message may take to come. On the
//! simulated network.

mod common;

use std::time::Duration;

use ccomet::{Claims, Config};
use common::stage::{ANN, LOOPBACK, Stage, bearer, key, networks, patterns};
use sealed::sim::Peer;
use testing::http::{Reply, UPGRADE, frame};

impl Stage {
    /// One that only who has a token may publish to.
    fn with_keys() -> Self {
        Self::new(|config| config.auth.keys = vec![key("main")])
    }

    /// What is said to the head of a request, of whose body nothing has come.
    fn told_at_the_head(&self, target: &str, fields: &str) -> String {
        let mut peer = self.connect(ANN);
        peer.send(head(target, 60_000, fields));
        self.heard(&mut peer)
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
fn a_body_without_leave_is_refused_by_its_head() {
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
        let told = Stage::with_keys().told_at_the_head(target, fields);
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {fields}: {told}");
        assert!(told.contains("Connection: close\r\n"), "{target}: {told}");
    }
    let stage = Stage::new(|config| {
        let rules = "[[rules]]\nchannels = \"read.*\"\npublish = \"admin\"\n\
                     [[rules]]\nchannels = \"small.*\"\nmessage_bytes_max = 5\n";
        config.rules = toml::from_str::<Config>(rules).expect("TOML").rules;
    });
    for (target, status) in [("/channels/read.a", 403), ("/channels/b,read.a", 403), ("/channels/b,small.a", 413)] {
        let told = stage.told_at_the_head(target, "");
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {told}");
    }
    assert_eq!(stage.told_at_the_head("/channels/a", ""), "", "with leave, it is waited for");
    assert_eq!(stage.told_at_the_head("/messages", ""), "");
    // An address that may not come in is told so, too.
    let stage = Stage::new(|config| config.front.deny = networks(&["192.0.2.0/24"]));
    assert!(stage.told_at_the_head("/messages", "").starts_with("HTTP/1.1 403 "));
}

#[test]
fn a_refused_body_that_came_with_its_head_does_not_cost_the_connection() {
    let stage = Stage::with_keys();
    let mut peer = stage.connect(ANN);
    for target in ["/channels/a", "/messages", "/nothing"] {
        peer.send([head(target, 5, ""), "hello".to_owned()].concat().repeat(2));
        let told = stage.heard(&mut peer);
        assert_eq!(told.matches("HTTP/1.1 40").count(), 2, "{target}: {told}");
        assert!(!told.contains("Connection: close"), "{told}");
    }
}

#[test]
fn a_request_is_charged_before_its_body_is_read() {
    for (target, body) in [("/messages", "no JSON"), ("/channels/a", "fine")] {
        let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 2);
        let told: Vec<String> = (0..2)
            .map(|_| {
                let mut peer = stage.connect(ANN);
                peer.send(head(target, body.len(), "") + body);
                stage.heard(&mut peer)
            })
            .collect();
        let status = if target == "/messages" { "HTTP/1.1 400 " } else { "HTTP/1.1 200 " };
        assert!(told.iter().all(|told| told.starts_with(status)), "{told:?}");
        let told = stage.told_at_the_head(target, "");
        assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("Retry-After: "), "{target}: {told}");
    }
    // Each message of a list counts, as before, and none of them twice.
    let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 5);
    let list = r#"{"messages":[{"channel":"a","data":"1"},{"channels":["a","b"],"data":"2"}]}"#;
    let mut peer = stage.connect(ANN);
    let mut post = |target: &str, body: &str| {
        peer.send(head(target, body.len(), "") + body);
        stage.heard(&mut peer)[..12].to_owned()
    };
    assert_eq!(post("/messages", list), "HTTP/1.1 200");
    assert_eq!([post("/channels/a,b", "x"), post("/channels/a", "x")], ["HTTP/1.1 200", "HTTP/1.1 429"]);
    assert_eq!(post("/messages", list), "HTTP/1.1 429");
}

#[test]
fn a_message_of_a_socket_is_charged_whatever_it_says() {
    let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 2);
    let mut socket = stage.socket();
    for _ in 0..2 {
        socket.send(frame(0x81, b"no JSON"));
        assert!(stage.heard(&mut socket).contains("bad_command"));
    }
    socket.send(frame(0x81, br#"{"type":"publish","channel":"a","data":"x","ref":7}"#));
    let told = stage.heard(&mut socket);
    assert!(told.contains("too_many_requests") && told.contains("\"ref\":7"), "{told}");
    for said in [&b"no JSON"[..], br#"{"type":"token","token":"x"}"#] {
        socket.send(frame(0x81, said));
        assert!(stage.heard(&mut socket).contains("too_many_requests"));
    }
    socket.send(frame(0x82, b"bytes"));
    assert!(stage.heard(&mut socket).contains("too_many_requests"));
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
    // In time: whatever its pieces are.
    for (first, last) in [(begin, end), (&fragments[0][..], &fragments[1][..]), (&whole[..1], &whole[1..])] {
        let mut socket = stage.socket();
        for _ in 0..3 {
            socket.send(first);
            stage.sim.run_for(Duration::from_secs(LIMIT - 1));
            socket.send(last);
            let told = stage.heard(&mut socket);
            assert!(told.contains("\"published\""), "{told}");
        }
        stage.sim.run_for(Duration::from_secs(100));
        assert!(!socket.is_over(), "silence between messages is not limited by that");
    }
    // Too late: though pieces and pings come in between.
    for (first, between) in [
        (begin, Vec::new()),
        (begin, b"x".to_vec()),
        (&fragments[0][..], Vec::new()),
        (&fragments[0][..], frame(PING, b"")),
        (&fragments[0][..], frame(0x00, b" ")),
        (&whole[..1], Vec::new()),
    ] {
        let mut socket = stage.socket();
        // Behind one that is whole.
        socket.send([&whole, first].concat());
        for second in 0..LIMIT + 2 {
            stage.sim.run_for(Duration::from_secs(1));
            assert!(second >= LIMIT - 1 || !socket.is_over(), "{between:?} after {second} s");
            if !socket.is_over() {
                socket.send(&between);
            }
        }
        let told = socket.take();
        let shown = told.escape_ascii();
        assert!(socket.is_over(), "{between:?}: {shown}");
        // 1008, and why.
        assert!(told.windows(9).any(|bytes| bytes == b"\x03\xf0a messa"), "{between:?}: {shown}");
    }
    stage.sim.run_for(Duration::from_secs(30));
    assert_eq!(stage.server.holdings().connections, 0, "nothing is left of them");
}

#[test]
fn a_client_that_takes_no_answers_wins_no_time_for_its_message() {
    const LIMIT: u64 = 7;
    let stage = Stage::new(|config| {
        config.times.message_s = LIMIT;
        config.times.heartbeat_s = 3_600;
    });
    let mut socket = stage.socket();
    socket.send(frame(0x01, b"{"));
    // More answers than are queued: the client is not listened to until it has taken some.
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
fn bodies_on_their_way_are_bounded_for_an_address_and_for_all() {
    const BODY: usize = 60_000;
    let stage = Stage::new(|config| {
        config.limits.body_bytes_per_address_max = 2 * BODY;
        config.limits.body_bytes_max = 5 * BODY;
    });
    let begin = |client: &str, fields: &str, target: &str| {
        let mut peer = stage.connect(client);
        let length = if fields.is_empty() { format!("Content-Length: {BODY}\r\n") } else { fields.to_owned() };
        peer.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\n{length}\r\n"));
        let told = stage.heard(&mut peer);
        (peer, told)
    };
    let accepted = |client: &str| {
        let (peer, told) = begin(client, "", "/channels/a");
        assert_eq!(told, "", "{client}");
        peer
    };
    // Two bodies of one address.
    let (mut first, second) = (accepted(ANN), accepted(ANN));
    let (_, told) = begin(ANN, "", "/channels/a");
    assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("Retry-After: "), "{told}");
    // One whose length is not known counts as long as it may be.
    let (_, told) = begin(ANN, "Transfer-Encoding: chunked\r\n", "/messages");
    assert!(told.starts_with("HTTP/1.1 429 "), "{told}");
    // Others have room, as far as there is any.
    let others: Vec<Peer> = ["192.0.2.2", "192.0.2.3", "192.0.2.4"].map(accepted).into();
    let (_, told) = begin("192.0.2.5", "", "/channels/a");
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("body_limit") && told.contains("retry_ms"), "{told}");
    accepted("127.0.0.1");
    // Short messages are not kept out by long ones.
    for client in [ANN, "192.0.2.5"] {
        let mut peer = stage.connect(client);
        assert_eq!(stage.exchange(&mut peer, "POST", "/channels/a", "", "short").status, 200, "{client}");
    }
    // What has come, and what will not come any more, counts no longer.
    first.send("x".repeat(BODY));
    assert!(stage.heard(&mut first).starts_with("HTTP/1.1 200 "));
    drop(second);
    drop(others);
    stage.sim.run_for(Duration::from_secs(1));
    let _all: Vec<Peer> = [ANN, ANN, "192.0.2.5", "192.0.2.6", "192.0.2.7"].map(accepted).into();
    // One that nothing more comes of is given up in time.
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
    // A frame of that length, all but its last byte.
    let begin = |client: &str| {
        let mut peer = stage.connect(client);
        peer.send(format!("GET /channels/a HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n"));
        stage.heard(&mut peer);
        let mut frame = frame(0x82, vec![b'x'; MESSAGE as usize]);
        let last = frame.split_off(frame.len() - 1);
        peer.send(frame);
        let answer = stage.heard(&mut peer);
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
    // What has come, and what will not come any more, counts no longer.
    first.send(last);
    assert!(stage.heard(&mut first).contains("published"));
    drop((second, others));
    stage.sim.run_for(Duration::from_secs(1));
    let _all = [ANN, ANN, "192.0.2.5", "192.0.2.6", "192.0.2.7"].map(accepted);
}

#[test]
fn a_websocket_of_a_client_that_may_not_publish_takes_commands_and_nothing_longer() {
    let stage = Stage::new(|config| config.auth.keys = vec![key("main")]);
    let token = |publish: &[&str]| {
        let publish = patterns(publish);
        stage.sign(&Claims { publish, subscribe: patterns(&["a"]), ..stage.claims_for("none", 600) })
    };
    for (publish, is_ended) in [(&[][..], true), (&["a"][..], false)] {
        let mut peer = stage.connect(LOOPBACK);
        peer.send(format!("GET /channels/a HTTP/1.1\r\nHost: x\r\n{UPGRADE}{}\r\n", bearer(&token(publish))));
        stage.heard(&mut peer);
        peer.send(&frame(0x82, vec![b'x'; 65_000])[..60_000]);
        stage.sim.run_for(Duration::from_secs(5));
        assert_eq!(peer.is_over(), is_ended, "publish: {publish:?}");
    }
}

#[test]
fn a_batch_beyond_the_rate_of_its_address_costs_nothing_and_passes_when_told() {
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
    // More than a minute's worth: once a minute's worth is there. The head alone is refused while nothing is.
    let seconds = wait(&batch(90));
    stage.sim.run_for(Duration::from_secs(seconds));
    let seconds = wait(&batch(90));
    stage.sim.run_for(Duration::from_secs(seconds));
    assert_eq!(batch(90).status, 200);
}
