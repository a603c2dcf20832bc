//! The callback of `on_call`, by which a program that embeds a server decides about calls.

mod common;

use std::sync::{Arc, Mutex};

use ccomet::{CallInfo, Claims, Config, Decision};
use common::stage::{ANN, BOB, PROXY, Stage, bearer, key, networks};
use testing::http::{Reply, UPGRADE, frame};

/// Descriptions of the calls, in order.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn note(&self, call: &CallInfo<'_>, field: &str) {
        let channels: Vec<_> = call.channels().collect();
        let data: Vec<_> = call.publications().map(|one| String::from_utf8_lossy(one.data).into_owned()).collect();
        let (member, address) = (call.member().unwrap_or("nobody"), call.address().expect("an address"));
        let (action, field) = (call.action(), call.header(field).unwrap_or("none"));
        let text = format!("{action:?} {} [{}] {member} {address} {field}", channels.join(" "), data.join(" "));
        self.0.lock().expect("no panic").push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}

/// Starts a server with a callback that refuses calls about the channel `no`, and that notes each
/// call with one field of its header.
fn stage(field: &'static str, change: impl FnOnce(&mut Config)) -> (Stage, Asked) {
    let asked = Asked::default();
    let notes = asked.clone();
    let stage = Stage::prepared(1, 2, change, move |server| {
        server.on_call(move |call| {
            notes.note(call, field);
            if call.channels().any(|channel| channel == "no") { Decision::Refuse } else { Decision::Allow }
        });
    });
    (stage, asked)
}

fn is_refused(reply: &Reply) -> bool {
    reply.is(403, "hook_refused")
}

#[test]
fn the_callback_decides_about_calls_of_all_kinds() {
    let (stage, asked) = stage("x-who", |_| {});
    let ask = |method: &str, target: &str, body: &str| {
        stage.exchange(&mut stage.connect(ANN), method, target, "X-Who: me\r\n", body)
    };
    assert_eq!(ask("POST", "/channels/yes", "a").status, 200);
    assert!(is_refused(&ask("POST", "/channels/no", "b")));
    let several = r#"{"messages":[{"channel":"yes","data":"c"},{"channel":"no","data":"d"}]}"#;
    assert!(is_refused(&ask("POST", "/messages", several)));
    assert!(is_refused(&ask("GET", "/channels/no?wait=0", "")));
    assert!(is_refused(&ask("GET", "/channels/no,yes", "")));
    assert_eq!(ask("GET", "/channels/yes?wait=0", "").status, 200);
    assert!(is_refused(&ask("GET", "/channels/no/history", "")));
    let expected = [
        "Publish yes [a]",
        "Publish no [b]",
        "Publish yes no [c d]",
        "Subscribe no []",
        "Subscribe no yes []",
        "Subscribe yes []",
        "Read no []",
    ];
    assert_eq!(asked.take(), expected.map(|call| format!("{call} nobody {ANN} me")));
    // The refused calls had no effect.
    let history = ask("GET", "/channels/yes/history", "");
    assert_eq!(history.messages(), ["a"]);
    asked.take();
    // The callback gets no files, no preflights, and no calls by the admin listener or a handle.
    assert_eq!(ask("OPTIONS", "/channels/no", "").status, 204);
    ask("GET", "/", "");
    assert_eq!(stage.exchange(&mut stage.admin(), "POST", "/channels/no", "", "e").status, 200);
    let mut inside = stage.server.handle().publish("no", "f");
    stage.sim.settle();
    assert!(inside.try_take().expect("an answer").is_ok());
    assert_eq!(asked.take(), [""; 0]);
}

#[test]
fn the_callback_decides_about_publications_on_a_websocket() {
    let (stage, asked) = stage("x-who", |_| {});
    let mut socket = stage.open(stage.connect(ANN), "/channels/yes", "X-Who: me\r\n");
    assert_eq!(asked.take(), [format!("Subscribe yes [] nobody {ANN} me")]);
    for (channel, wanted) in [("no", "hook_refused"), ("yes", r#""type":"published""#)] {
        let text = format!(r#"{{"type":"publish","channel":"{channel}","data":"x","ref":1}}"#);
        socket.send(frame(0x81, text));
        let heard = stage.received(&mut socket);
        assert!(heard.contains(wanted), "{heard}");
        assert_eq!(asked.take(), [format!("Publish {channel} [x] nobody {ANN} me")]);
    }
    let mut unpublished = stage.server.handle().info("no");
    stage.sim.settle();
    assert_eq!(unpublished.try_take(), Some(Ok(None)));
    let mut refused = stage.begin(ANN, "GET", "/channels/no", UPGRADE);
    assert!(is_refused(&stage.reply(&mut refused)));
}

#[test]
fn the_callback_sees_the_header_of_a_websocket_at_its_opening_and_later() {
    let (stage, asked) = stage("x-who", |_| {});
    let mut socket = stage.open(stage.connect(ANN), "/channels", "X-Who: me\r\nX-Others: 2:3\r\n");
    assert_eq!(asked.take(), [format!("Subscribe  [] nobody {ANN} me")]);
    for (channel, wanted) in [("no", "hook_refused"), ("yes", "subscribed")] {
        socket.send(frame(0x81, format!(r#"{{"type":"subscribe","channels":["{channel}"],"ref":1}}"#)));
        let heard = stage.received(&mut socket);
        assert!(heard.contains(wanted), "{heard}");
        assert_eq!(asked.take(), [format!("Subscribe {channel} [] nobody {ANN} me")]);
    }
}

#[test]
fn the_callback_may_refuse_a_client_by_a_header_field() {
    let stage = Stage::prepared(
        1,
        1,
        |_| {},
        |server| {
            server.on_call(|call| if call.header("X-Blocked").is_some() { Decision::Refuse } else { Decision::Allow });
        },
    );
    for target in ["/channels/a", "/channels"] {
        let mut refused = stage.begin(ANN, "GET", target, &format!("{UPGRADE}X-Blocked: 1\r\n"));
        assert!(is_refused(&stage.reply(&mut refused)), "{target}");
        stage.open(stage.connect(ANN), target, "");
    }
}

#[test]
fn tokens_are_checked_first_and_the_callback_gets_their_subject() {
    let (stage, asked) = stage("x-who", |config| config.auth.keys = vec![key("main")]);
    let mut client = stage.connect(BOB);
    let without = stage.exchange(&mut client, "POST", "/channels/yes", "", "x");
    assert!(without.is(401, "token_missing"), "{without}");
    assert_eq!(asked.take(), [""; 0]);
    let claims = Claims { sub: Some("bob".to_owned()), ..stage.claims_for("*", 60) };
    let token = bearer(&stage.sign(&claims));
    let refused = stage.exchange(&mut client, "POST", "/channels/no", &token, "x");
    assert!(is_refused(&refused), "{refused}");
    assert_eq!(asked.take(), [format!("Publish no [x] bob {BOB} none")]);
}

#[test]
fn the_callback_gets_the_address_of_a_client_behind_a_proxy() {
    let (stage, asked) = stage("x-who", |config| config.front.trusted_proxies = networks(&["10.0.0.1/32"]));
    let mut proxy = stage.connect(PROXY);
    stage.exchange(&mut proxy, "POST", "/channels/yes", &format!("X-Forwarded-For: {ANN}\r\n"), "x");
    stage.exchange(&mut proxy, "POST", "/channels/yes", &format!("X-Forwarded-For: {BOB}\r\n"), "y");
    let expected = [("x", ANN), ("y", BOB)].map(|(data, from)| format!("Publish yes [{data}] nobody {from} none"));
    assert_eq!(asked.take(), expected);
}

#[test]
fn the_callback_gets_no_cookie_that_a_page_of_another_site_may_have_sent() {
    let (stage, asked) = stage("cookie", |config| config.front.origins = vec!["https://mine.example".to_owned()]);
    let cookie_as_seen_from = |origin: &str| {
        let fields = format!("Cookie: s=1\r\nOrigin: {origin}\r\n");
        stage.exchange(&mut stage.connect(ANN), "POST", "/channels/yes", &fields, "x");
        asked.take().concat().rsplit(' ').next().map(str::to_owned)
    };
    assert_eq!(cookie_as_seen_from("https://mine.example").as_deref(), Some("s=1"));
    assert_eq!(cookie_as_seen_from("https://other.example").as_deref(), Some("none"));
}

#[test]
fn the_callback_gets_no_cookie_of_a_websocket_that_any_page_may_open() {
    let (stage, asked) = stage("cookie", |config| config.front.origins = vec!["*".to_owned()]);
    for (origin, cookie) in
        [("", "none"), ("Origin: https://other.example\r\n", "none"), ("Origin: http://localhost\r\n", "s=1")]
    {
        let mut socket = stage.open(stage.connect(ANN), "/channels/yes", &format!("Cookie: s=1\r\n{origin}"));
        socket.send(frame(0x81, r#"{"type":"publish","channel":"yes","data":"x"}"#));
        stage.received(&mut socket);
        let both = ["Subscribe yes []", "Publish yes [x]"].map(|call| format!("{call} nobody {ANN} {cookie}"));
        assert_eq!(asked.take(), both, "{origin}");
    }
}
