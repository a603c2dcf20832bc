//! Hooks: the site's back end is asked and told. On the simulated network, where the test is the back end.

use std::time::Duration;

use ccomet::{Anonymous, Claims, Config, Key, Pattern, Secret, Simulated, WhenDown, make_token};
use sealed::Address;
use sealed::sim::{Host, Peer, Simulation};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

struct Stage {
    sim: Simulation,
    server: Simulated,
    config: Config,
    backend: Host,
}

impl Stage {
    fn new(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        let sim = Simulation::new(1);
        let backend = sim.listen("10.0.0.9:80".parse::<Address>().expect("an address")).expect("it is free");
        let mut config = Config { loops: loops.try_into().ok(), ..Config::default() };
        "http://10.0.0.9/comet?x=1".clone_into(&mut config.hooks.url);
        (config.hooks.subscribe, config.hooks.publish) = (true, true);
        config.hooks.secret = Some(Secret::new("shared"));
        change(&mut config);
        let server = Simulated::start(&sim, config.clone()).expect("it starts");
        Self { sim, server, config, backend }
    }

    fn client(&self, request: &str) -> Peer {
        let mut peer = self.sim.connect(self.server.front());
        peer.send(request);
        peer
    }

    /// A connection of the server to the back end, if it makes one.
    fn accept(&self) -> Option<Peer> {
        let mut accepted = None;
        self.sim.run_until(SECOND, || {
            accepted = accepted.take().or_else(|| self.backend.accept());
            accepted.is_some()
        });
        accepted
    }

    fn backend(&self) -> Backend {
        Backend(self.accept().expect("the back end is asked"))
    }

    fn wait(&self, seconds: u32) {
        self.sim.run_for(SECOND * seconds);
    }
}

/// The back end's side of a connection.
struct Backend(Peer);

impl Backend {
    /// The next question, head and body.
    fn asked(&mut self) -> (String, Value) {
        let head = String::from_utf8(self.0.expect("\r\n\r\n")).expect("text");
        let body = self.0.expect("}");
        let mut text = String::from_utf8(body).expect("text");
        while serde_json::from_str::<Value>(&text).is_err() {
            text.push_str(&String::from_utf8(self.0.expect("}")).expect("text"));
        }
        (head, serde_json::from_str(&text).expect("JSON"))
    }

    fn answer(&mut self, status: u16, fields: &str, body: &str) {
        let length = body.len();
        self.0.send(format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n{body}"));
    }

    /// Answers the next question, and returns it.
    fn say(&mut self, status: u16, body: &str) -> Value {
        let (_, question) = self.asked();
        self.answer(status, "", body);
        question
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nCookie: session=7\r\n\r\n")
}

fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A message of text, as a client sends it: masked by nothing but zeros.
fn frame(text: &str) -> Vec<u8> {
    assert!(text.len() < 126);
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[test]
fn what_the_back_end_allows_is_done_and_what_it_refuses_is_not() {
    for loops in [1, 3] {
        let stage = Stage::new(loops, |config| config.hooks.headers = vec!["Cookie".to_owned()]);
        let mut client = stage.client(&post("/channels/news", "hello"));
        let mut backend = stage.backend();
        let (head, question) = backend.asked();
        assert!(head.starts_with("POST /comet?x=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Authorization: Bearer shared\r\n") && head.contains("Host: 10.0.0.9"), "{head}");
        let messages = json!([{"channel": "news", "data": "hello"}]);
        assert_eq!(question, json!({"type": "publish", "id": null, "messages": messages}));
        backend.answer(200, "", r#"{"allow":true}"#);
        client.expect("\"position\"");

        client.send(post("/channels/news", "spam"));
        stage.wait(1);
        // On whichever connection it comes: the one that was kept.
        backend.say(403, "");
        let refused = client.expect("hook_refused");
        assert!(String::from_utf8_lossy(&refused).contains("HTTP/1.1 403 "));

        client.send(get("/channels/news,sport?after=oldest&wait=0"));
        let question = backend.say(204, "");
        let expected =
            json!({"type": "subscribe", "id": null, "channels": ["news", "sport"], "headers": {"Cookie": "session=7"}});
        assert_eq!(question, expected);
        let reply = client.expect("]}");
        let reply = String::from_utf8_lossy(&reply).into_owned();
        assert!(reply.contains("hello") && !reply.contains("spam"), "{reply}");

        for target in [
            "/channels/news/history",
            "/channels/news?transport=sse",
            "/subscribe?channel=news&sname=a&seqid=0&callback=f",
            "/sign?channel=news&sname=a&callback=f",
        ] {
            let mut client = stage.client(&get(target));
            // Each loop has connections of its own.
            backend = stage.accept().map_or(backend, Backend);
            if target.starts_with("/s") {
                // The classic API has no tokens, and no way around this either.
                backend.say(200, r#"{"allow":false}"#);
            } else {
                backend.say(403, "");
            }
            client.expect("hook_refused");
        }
        // Who comes by the admin listener is not asked about.
        let mut admin = stage.sim.connect(stage.server.admin());
        admin.send(post("/channels/news", "from inside"));
        admin.expect("\"position\"");
        assert!(stage.accept().is_none());
    }
}

#[test]
fn a_back_end_that_does_not_answer_well_is_down() {
    type Act = fn(&mut Backend);
    let silent: Act = |_| {};
    let wrong: Act = |backend| backend.answer(500, "", "");
    let malformed: Act = |backend| backend.0.send("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
    let long: Act = |backend| backend.answer(200, "", &"x".repeat(20_000));
    let other: Act = |backend| backend.answer(200, "", "{}");
    for act in [silent, wrong, malformed, long, other] {
        for (when_down, expected) in [(WhenDown::Refuse, "hook_unavailable"), (WhenDown::Allow, "\"position\"")] {
            let stage = Stage::new(1, |config| config.hooks.when_down = when_down);
            let mut client = stage.client(&post("/channels/news", "hello"));
            let mut backend = stage.backend();
            backend.asked();
            act(&mut backend);
            stage.wait(3);
            let answer = String::from_utf8(client.take()).expect("text");
            assert!(answer.contains(expected), "{answer}");
            assert_eq!(answer.contains("Retry-After"), when_down == WhenDown::Refuse, "{answer}");
        }
    }
    // Nobody there at all.
    let stage = Stage::new(1, |config| "http://10.0.0.10/".clone_into(&mut config.hooks.url));
    let mut client = stage.client(&get("/channels/news?transport=sse"));
    stage.wait(3);
    client.expect("hook_unavailable");
}

#[test]
fn an_answer_is_kept_for_as_long_as_it_says() {
    let stage = Stage::new(1, |config| config.hooks.headers = vec!["Cookie".to_owned()]);
    let mut first = stage.client(&get("/channels/news?wait=0"));
    let mut backend = stage.backend();
    backend.asked();
    backend.answer(204, "Cache-Control: max-age=10\r\n", "");
    first.expect("\"items\":[]");
    for _ in 0..3 {
        first.send(get("/channels/news?wait=0"));
        first.expect("\"items\":[]");
    }
    // Another who, or another what, is another question.
    first.send(get("/channels/news?wait=0").replace("session=7", "session=8"));
    backend.say(403, "");
    first.expect("hook_refused");
    first.send(get("/channels/sport?wait=0"));
    backend.say(204, "");
    first.expect("\"items\":[]");
    stage.wait(11);
    first.send(get("/channels/news?wait=0"));
    let mut again = stage.accept().map_or(backend, Backend);
    again.say(403, "");
    first.expect("hook_refused");
    // What is published is asked about each time.
    for _ in 0..2 {
        first.send(post("/channels/news", "x"));
        again.asked();
        again.answer(204, "Cache-Control: max-age=10\r\n", "");
        first.expect("\"position\"");
    }
}

#[test]
fn who_goes_away_is_asked_about_no_more_and_nothing_is_left() {
    let stage = Stage::new(3, |config| config.hooks.timeout_ms = 60_000);
    let clients: Vec<Peer> = (0..20).map(|_| stage.client(&get("/channels/news?transport=sse"))).collect();
    let held: Vec<Peer> = std::iter::from_fn(|| stage.accept()).collect();
    assert!(!held.is_empty());
    assert_eq!(stage.server.holdings().asking, 20);
    for client in clients {
        client.reset();
    }
    stage.wait(1);
    let holdings = stage.server.holdings();
    assert_eq!((holdings.asking, holdings.subscribers), (0, 0), "{holdings:?}");
}

#[test]
fn who_hangs_up_while_the_back_end_is_asked_does_not_come_in_and_what_he_published_is_kept() {
    let stage = Stage::new(1, |_| {});
    let mut reader = stage.client(&get("/channels/news?transport=sse"));
    let mut backend = stage.backend();
    backend.asked();
    // A browser that leaves.
    reader.finish();
    stage.wait(1);
    assert_eq!(stage.server.holdings().asking, 0);
    let mut publisher = stage.client(&post("/channels/news", "hello"));
    publisher.finish();
    let mut backend = stage.backend();
    backend.say(204, "");
    publisher.expect("\"position\"");
    assert_eq!(stage.server.holdings().subscribers, 0);
}

#[test]
fn a_websocket_that_waits_for_the_back_end_is_not_taken_for_dead() {
    let stage = Stage::new(1, |config| {
        (config.hooks.subscribe, config.hooks.timeout_ms, config.times.heartbeat_s) = (false, 60_000, 2);
    });
    let mut client = stage.client(&get("/channels/news").replace("\r\n\r\n", &format!("\r\n{UPGRADE}")));
    client.expect("hello");
    client.send(frame(r#"{"type":"publish","channel":"news","data":"late","ref":1}"#));
    let mut backend = stage.backend();
    backend.asked();
    stage.wait(20);
    backend.answer(204, "", "");
    client.expect("\"published\"");
}

#[test]
fn too_many_questions_are_not_queued_for_ever() {
    let stage = Stage::new(1, |config| {
        (config.hooks.connections_max, config.hooks.waiting_max) = (2, 3);
    });
    let mut clients: Vec<Peer> = (0..8).map(|_| stage.client(&get("/channels/news?wait=0"))).collect();
    stage.wait(1);
    let answers = clients.iter_mut().map(|client| String::from_utf8_lossy(&client.take()).into_owned());
    assert_eq!(answers.filter(|answer| answer.contains("hook_unavailable")).count(), 3);
}

#[test]
fn what_is_said_on_a_websocket_keeps_its_order_while_the_back_end_is_asked() {
    let stage = Stage::new(3, |config| config.hooks.subscribe = false);
    let mut client = stage.client(&get("/channels/news").replace("\r\n\r\n", &format!("\r\n{UPGRADE}")));
    client.expect("hello");
    for (data, reference) in [("one", 1), ("two", 2), ("three", 3)] {
        let said = json!({"type": "publish", "channel": "news", "data": data, "ref": reference});
        client.send(frame(&said.to_string()));
    }
    let mut backend = stage.backend();
    let asked = backend.asked().1;
    assert_eq!(asked["messages"][0]["data"], "one");
    assert!(stage.accept().is_none(), "one after the other");
    backend.answer(204, "", "");
    assert_eq!(backend.say(403, "")["messages"][0]["data"], "two");
    assert_eq!(backend.say(204, "")["messages"][0]["data"], "three");
    stage.wait(1);
    let told = String::from_utf8_lossy(&client.take()).into_owned();
    let at = |text: &str| told.find(text).unwrap_or_else(|| panic!("{text}: {told}"));
    assert!(at("\"data\":\"one\"") < at("\"data\":\"three\""), "{told}");
    assert!(
        told.contains("hook_refused") && told.contains("\"ref\":2") && !told.contains("\"data\":\"two\""),
        "{told}"
    );
}

#[test]
fn a_websocket_opens_when_it_is_allowed() {
    let stage = Stage::new(1, |_| {});
    let request = get("/channels/news").replace("\r\n\r\n", &format!("\r\n{UPGRADE}"));
    let mut client = stage.client(&request);
    let mut backend = stage.backend();
    backend.say(204, "");
    let opened = client.expect("hello");
    assert!(String::from_utf8_lossy(&opened).starts_with("HTTP/1.1 101 "));
    let mut refused = stage.client(&request);
    backend.say(403, "");
    refused.expect("HTTP/1.1 403 ");
}

#[test]
fn other_channels_are_no_business_of_the_back_ends() {
    let stage = Stage::new(1, |config| {
        config.hooks.channels = vec![Pattern::new("private.*").expect("a pattern")];
        config.front.patterns = true;
    });
    let mut client = stage.client(&post("/channels/news", "hello"));
    client.expect("\"position\"");
    for target in ["/channels/news,private.x?wait=0", "/channels/priv*?wait=0"] {
        let mut client = stage.client(&get(target));
        let mut backend = stage.backend();
        let question = backend.say(403, "");
        assert_eq!(question["channels"].as_array().map(Vec::len), Some(1), "{question}");
        client.expect("hook_refused");
    }
}

#[test]
fn the_back_end_is_told_who_comes_and_goes() {
    for loops in [1, 3] {
        let stage = Stage::new(loops, |config| {
            (config.hooks.subscribe, config.hooks.publish, config.hooks.presence) = (false, false, true);
            let secret = Secret::new("a secret that is long enough for it");
            config.auth.keys = vec![Key { id: "main".to_owned(), secret: Some(secret), ..Key::default() }];
            config.auth.anonymous = Some(Anonymous::default());
        });
        let iat = stage.sim.unix_time().as_secs();
        let room = vec![Pattern::new("room").expect("a pattern")];
        let claims = Claims { sub: Some("ann".to_owned()), iat, exp: iat + 600, subscribe: room, ..Claims::default() };
        let token = make_token(&stage.config.auth, "main", None, &claims).expect("a token");
        let request = get(&format!("/channels/room?transport=sse&token={token}"));
        let client = stage.client(&request);
        let mut backend = stage.backend();
        let event = |told: &Value| (told["events"][0]["type"].clone(), told["events"][0]["id"].clone());
        // It did not hear, and is told again.
        let first = backend.say(500, "");
        assert_eq!((&first["type"], event(&first)), (&"presence".into(), ("join".into(), "ann".into())));
        assert_eq!(first["events"][0]["channel"], "room");
        stage.wait(2);
        let mut backend = stage.accept().map_or(backend, Backend);
        assert_eq!(backend.say(204, ""), first);
        let second = stage.client(&request);
        stage.wait(1);
        client.reset();
        stage.wait(8);
        assert_eq!(backend.0.take(), b"", "he is still there");
        second.reset();
        stage.wait(8);
        let mut backend = stage.accept().map_or(backend, Backend);
        assert_eq!(event(&backend.say(204, "")), ("leave".into(), "ann".into()));
    }
}
