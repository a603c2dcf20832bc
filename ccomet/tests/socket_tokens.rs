//! Tokens on a WebSocket: what they allow, how they expire, and how a client renews them. On the
//! simulated network.

mod common;

use std::time::Duration;

use ccomet::Claims;
use common::socket::Socket;
use common::stage::{LOOPBACK, Stage, bearer, key, patterns};
use sealed_http::websocket::{Event, Kind, Limits};
use serde_json::{Value, json};

impl Stage {
    fn of() -> Self {
        Self::new(|config| config.auth.keys = vec![key("main")])
    }

    fn token(&self, subscribe: &str, publish: &str, seconds: u64) -> String {
        self.token_of(None, subscribe, publish, seconds)
    }

    fn token_of(&self, subject: Option<&str>, subscribe: &str, publish: &str, seconds: u64) -> String {
        let (subscribe, publish) = (patterns(&[subscribe]), patterns(&[publish]));
        let sub = subject.map(str::to_owned);
        self.sign(&Claims { sub, subscribe, publish, ..self.claims_for("*", seconds) })
    }

    fn open_with(&self, target: &str, token: &str) -> Result<Socket<'_>, u16> {
        self.try_open(target, &bearer(token))
    }
}

fn publish(channel: &str) -> Value {
    json!({"type": "publish", "channel": channel, "data": "x", "ref": 1})
}

#[test]
fn a_token_limits_reading_and_publishing() {
    let stage = Stage::of();
    assert_eq!(stage.try_open("/channels/a", "").map(drop).expect_err("no token"), 401);
    let token = stage.token("a*", "b", 600);
    assert_eq!(stage.open_with("/channels/b", &token).map(drop).expect_err("not that"), 403);
    assert_eq!(stage.open_with("/channels/a1,b", &token).map(drop).expect_err("not both"), 403);
    let mut socket = stage.open_with("/channels/a1", &token).expect("that");
    assert_eq!(socket.exchange(&publish("b"))[0]["type"], "published");
    let refused = &socket.exchange(&publish("a1"))[0];
    assert_eq!(
        (&refused["type"], &refused["code"], &refused["ref"]),
        (&json!("error"), &json!("not_allowed"), &json!(1))
    );
    // A pattern requires a token for all of its channels.
    assert!(stage.open_with("/channels/a*", &token).is_ok());
    assert_eq!(stage.open_with("/channels/*", &token).map(drop).expect_err("not all"), 403);
}

#[test]
fn a_websocket_is_warned_ends_with_its_token_and_can_be_renewed() {
    let stage = Stage::of();
    let mut socket = stage.open_with("/channels/a", &stage.token("a", "a", 100)).expect("it opens");
    assert_eq!(socket.wait(Duration::from_secs(65)), Vec::<Value>::new());
    let warned = socket.wait(Duration::from_secs(10));
    assert_eq!(warned[0]["type"], "token", "{warned:?}");
    for (token, code) in [
        (stage.token("b", "a", 100), "not_allowed"),
        (stage.token("a", "a", 100) + "x", "token_invalid"),
        (String::new(), "token_invalid"),
    ] {
        let refused = socket.exchange(&json!({"type": "token", "token": token}));
        assert_eq!(refused[0]["code"], code);
    }
    let renewed = socket.exchange(&json!({"type": "token", "token": stage.token("a", "c", 100), "ref": 2}));
    assert_eq!(renewed, [json!({"type": "renewed", "ref": 2})]);
    assert_eq!(socket.exchange(&publish("a"))[0]["code"], "not_allowed", "the new one counts for everything");
    assert_eq!(socket.exchange(&publish("c"))[0]["type"], "published");
    let warned = socket.wait(Duration::from_secs(80));
    assert_eq!((warned.len(), &warned[0]["type"]), (1, &json!("token")));
    let ended = socket.wait(Duration::from_secs(30));
    assert_eq!(ended, [json!({"type": "close", "reason": "token_expired"})]);
    assert_eq!(socket.closed, Some(1000));
}

#[test]
fn a_websocket_renewed_during_a_shutdown_gets_the_goodbye() {
    let stage = Stage::with(1, 1, |config| {
        config.auth.keys = vec![key("main")];
        config.times.heartbeat_s = 30;
    });
    let token = || stage.token("a", "a", 600);
    let mut sockets: Vec<_> = (0..5).map(|_| stage.open_with("/channels/a", &token()).expect("it opens")).collect();
    stage.server.stop();
    stage.sim.run_for(Duration::from_millis(5));
    for socket in &mut sockets {
        socket.send(&json!({"type": "token", "token": token()}));
    }
    for socket in &mut sockets {
        let last = socket.wait(Duration::from_secs(10));
        assert_eq!((&last[last.len() - 1]["type"], socket.closed), (&json!("bye"), Some(1001)), "{last:?}");
    }
}

#[test]
fn a_token_of_another_subject_does_not_renew_a_websocket() {
    let stage = Stage::of();
    let token = |subject: Option<&str>| stage.token_of(subject, "a", "a", 600);
    let mut socket = stage.open_with("/channels/a", &token(Some("ann"))).expect("it opens");
    for other in [Some("bob"), None] {
        let refused = socket.exchange(&json!({"type": "token", "token": token(other)}));
        assert_eq!(refused[0]["code"], "subject_changed", "{other:?}");
    }
    assert_eq!(socket.exchange(&json!({"type": "token", "token": token(Some("ann"))}))[0]["type"], "renewed");
}

#[test]
fn a_cookie_opens_a_websocket_only_for_pages_of_listed_origins() {
    let stage = Stage::of();
    let token = stage.token("a", "a", 100);
    let cookie = |origin: &str| format!("Cookie: ccomet_token={token}\r\n{origin}");
    assert_eq!(
        stage.try_open("/channels/a", &cookie("Origin: https://evil.example\r\n")).map(drop).expect_err("not theirs"),
        403
    );
    assert_eq!(stage.try_open("/channels/a", &cookie("")).map(drop).expect_err("nobody knows whose"), 403);
    assert!(stage.try_open("/channels/a", &cookie("Origin: http://localhost\r\n")).is_ok(), "the server's own");
}

#[test]
fn a_client_that_does_not_answer_pings_is_closed() {
    let stage = Stage::of();
    let mut socket = stage.open_with("/channels/a", &stage.token("a", "a", 10_000)).expect("it opens");
    socket.wait(Duration::from_secs(150));
    assert!(!socket.peer.is_over(), "it answers");
    stage.sim.run_for(Duration::from_secs(60));
    assert!(socket.peer.is_over(), "it does not");
}

#[test]
fn a_client_that_takes_no_answers_is_not_read_from() {
    let stage = Stage::of();
    let mut socket = stage.open_with("/channels/a", &stage.token("a", "a", 10_000)).expect("it opens");
    let mut ping = Vec::new();
    socket.codec.encode(Kind::Ping, &[b'p'; 125], &mut ping);
    let pings = ping.repeat(8_000);
    socket.peer.stall();
    // More than twice as much as the server queues for one connection before it cuts the connection
    // off.
    for _ in 0..40 {
        socket.peer.send(&pings);
        stage.sim.settle();
    }
    assert!(!socket.peer.is_over(), "what was not read needs no answer");
    // When the client takes the answers, the server reads on: each ping has its pong.
    socket.peer.unstall();
    let mut answered = 0;
    while answered < 40 * 8_000 {
        stage.sim.run_for(Duration::from_millis(100));
        assert!(!socket.peer.is_over(), "after {answered}");
        socket.bytes.append(&mut socket.peer.take());
        let mut at = 0;
        loop {
            let (used, event) =
                socket.codec.decode(&socket.bytes[at..], &Limits::default(), &mut Vec::new()).expect("frames");
            at += used;
            match event {
                Event::Pong(_) => answered += 1,
                Event::Incomplete => break,
                _ => {}
            }
        }
        socket.bytes.drain(..at);
    }
}

#[test]
fn the_state_of_a_token_ends_with_its_connection() {
    let stage = Stage::of();
    let token = stage.token("news", "news", 600);
    let fields = format!("Accept: text/event-stream\r\n{}", bearer(&token));
    let mut reader = stage.begin(LOOPBACK, "GET", "/channels/news", &fields);
    reader.expect("hello");
    assert_eq!(stage.server.holdings().leases, 1);
    stage.delete("news");
    reader.expect("event: close");
    drop(reader);
    stage.sim.settle();
    assert_eq!(stage.server.holdings().leases, 0);
}
