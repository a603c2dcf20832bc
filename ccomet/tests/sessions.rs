//! Several subscriptions on one WebSocket, on the simulated network.

mod common;

use std::time::Duration;

use ccomet::{Claims, Decision, Rule};
use common::socket::Socket;
use common::stage::{ANN, BOB, LOOPBACK, Stage, bearer, key, patterns};
use sealed::sim::{Link, Peer};
use serde_json::{Value, json};
use testing::http::{UPGRADE, frame, request};

const SECOND: Duration = Duration::from_secs(1);

fn subscribe(reference: i64, channels: &[&str], more: &Value) -> Value {
    let mut command = json!({"type": "subscribe", "ref": reference, "channels": channels});
    for (name, value) in more.as_object().into_iter().flatten() {
        command[name] = value.clone();
    }
    command
}

fn unsubscribe(reference: i64) -> Value {
    json!({"type": "unsubscribe", "ref": reference})
}

fn publish(stage: &Stage, channel: &str, text: &str) {
    let reply = stage.exchange(&mut stage.connect(ANN), "POST", &format!("/channels/{channel}"), "", text);
    assert_eq!(reply.status, 200, "{reply:?}");
}

/// Returns the texts of messages, each with the `ref` of its subscription.
fn messages(replies: &[Value]) -> Vec<(Option<i64>, String)> {
    let mut all = Vec::new();
    for reply in replies {
        for item in reply["items"].as_array().expect("items") {
            let what = item["data"].as_str().or(item["type"].as_str()).expect("a text");
            all.push((reply["ref"].as_i64(), what.to_owned()));
        }
    }
    all
}

fn message(reference: i64, text: &str) -> (Option<i64>, String) {
    (Some(reference), text.to_owned())
}

/// Asserts that an answer is one error, and returns its code.
fn error(answer: &[Value], reference: i64) -> &str {
    let [item] = answer else { panic!("{answer:?}") };
    assert_eq!((&item["type"], &item["ref"]), (&json!("error"), &json!(reference)));
    item["code"].as_str().expect("a code")
}

#[test]
fn each_subscription_has_channels_and_a_position_of_its_own() {
    let stage = Stage::with(1, 3, |_| {});
    publish(&stage, "a", "a1");
    publish(&stage, "b", "b1");
    let mut socket = stage.try_open("/channels", "").expect("it opens");
    let first = socket.ask(&subscribe(1, &["b", "a"], &json!({"after": "oldest"})));
    let texts: Vec<_> = messages(&first).into_iter().map(|(reference, text)| (reference.expect("one"), text)).collect();
    assert_eq!(texts[0], (1, "subscribed".to_owned()));
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert_eq!(messages(&socket.ask(&subscribe(-2, &["a"], &Value::Null))), [message(-2, "subscribed")]);
    publish(&stage, "a", "a2");
    let both = socket.replies(SECOND);
    let mut texts = messages(&both);
    texts.sort();
    assert_eq!(texts, [message(-2, "a2"), message(1, "a2")]);
    let position = |reference: i64| {
        let reply = both.iter().find(|reply| reply["ref"] == reference).expect("one for it");
        reply["position"].as_str().expect("a position").to_owned()
    };
    assert_eq!((position(1).matches('.').count(), position(-2).matches('.').count()), (1, 0));
    // A position is valid in every subscription to the same channels.
    publish(&stage, "b", "b2");
    socket.replies(SECOND);
    let again = socket.ask(&subscribe(7, &["a", "b"], &json!({"after": position(1)})));
    assert_eq!(messages(&again), [message(7, "subscribed"), message(7, "b2")]);
    let last = socket.ask(&subscribe(8, &["a", "b"], &json!({"last": 1})));
    assert_eq!(last.len(), 3, "{last:?}");
}

#[test]
fn a_subscription_that_keeps_up_misses_nothing_whatever_else_its_connection_is_told() {
    // No message is kept for longer than a tick.
    let stage = Stage::new(|config| config.history.total_bytes_max = 1);
    for url in ["/channels/a", "/channels"] {
        let mut socket = stage.try_open(url, "").expect("it opens");
        if url == "/channels" {
            socket.ask(&subscribe(1, &["a"], &Value::Null));
        }
        let items = socket.exchange(&json!({"type": "publish", "channel": "a", "data": "hello", "ref": 2}));
        let kinds: Vec<_> = items.iter().map(|item| item["type"].as_str().expect("a type")).collect();
        assert_eq!(kinds, ["published", "message"], "{url}: {items:?}");
    }
}

#[test]
fn ending_a_subscription_leaves_the_others() {
    let stage = Stage::with(1, 2, |_| {});
    let mut socket = stage.try_open("/channels/own", "").expect("it opens");
    for (reference, channel) in [(1, "a"), (2, "b"), (3, "b")] {
        assert_eq!(socket.ask(&subscribe(reference, &[channel], &Value::Null)).len(), 1);
    }
    assert_eq!(error(&socket.exchange(&subscribe(1, &["c"], &Value::Null)), 1), "ref_taken");
    assert_eq!(socket.exchange(&unsubscribe(1)), [json!({"type": "unsubscribed", "ref": 1})]);
    assert_eq!(error(&socket.exchange(&unsubscribe(1)), 1), "unknown_ref");
    publish(&stage, "a", "a1");
    publish(&stage, "b", "b1");
    publish(&stage, "own", "own1");
    let mut texts = messages(&socket.replies(SECOND));
    texts.sort();
    assert_eq!(texts, [(None, "own1".to_owned()), message(2, "b1"), message(3, "b1")]);
    // Closing a channel ends the subscriptions to it, and nothing else.
    stage.delete("b");
    let mut texts = messages(&socket.replies(SECOND));
    texts.sort();
    assert_eq!(texts, [message(2, "close"), message(3, "close")]);
    assert_eq!(error(&socket.exchange(&unsubscribe(2)), 2), "unknown_ref");
    assert_eq!(messages(&socket.ask(&subscribe(2, &["b"], &Value::Null))), [message(2, "subscribed")]);
    publish(&stage, "own", "own2");
    assert_eq!(messages(&socket.replies(SECOND)), [(None, "own2".to_owned())]);
    // The connection ends with the channel that it was opened with.
    stage.delete("own");
    assert_eq!(messages(&socket.replies(SECOND)), [(None, "close".to_owned())]);
    assert_eq!(socket.closed, Some(1000));
    assert_eq!(stage.server.holdings().subscribers, 0);
}

#[test]
fn closing_a_connection_ends_its_subscriptions() {
    let stage = Stage::with(1, 2, |_| {});
    let mut socket = stage.try_open("/channels", "").expect("it opens");
    for reference in 0..5 {
        socket.ask(&subscribe(reference, &["a", "b"], &json!({"presence": true})));
    }
    assert_eq!(stage.server.holdings().subscribers, 6);
    drop(socket);
    stage.sim.run_for(SECOND);
    assert_eq!(stage.server.holdings().subscribers, 0);
}

#[test]
fn a_gap_is_sent_to_the_subscription_that_missed_messages() {
    let stage = Stage::new(|config| config.history.messages_max = 2);
    let mut socket = stage.try_open("/channels", "").expect("it opens");
    let begun = socket.ask(&subscribe(1, &["a"], &Value::Null));
    let position = begun[0]["position"].clone();
    for number in 1..=4 {
        publish(&stage, "a", &format!("a{number}"));
    }
    assert_eq!(socket.replies(SECOND).len(), 4);
    let late = socket.ask(&subscribe(2, &["a"], &json!({"after": position})));
    assert_eq!(messages(&late), ["subscribed", "gap", "a3", "a4"].map(|text| message(2, text)));
    assert!(late[0]["position"].as_str().expect("text").is_empty(), "not ahead of a gap: {}", late[0]);
    assert_eq!(late[1]["items"][0]["missed"], 2);
}

#[test]
fn limits_hold_for_each_subscription() {
    let stage = Stage::new(|config| {
        config.limits.subscriptions_per_connection_max = 2;
        config.limits.channels_per_subscription_max = 2;
        config.limits.channels_max = 3;
        config.limits.subscribers_per_channel_max = 1;
    });
    let mut socket = stage.try_open("/channels", "").expect("it opens");
    assert_eq!(error(&socket.exchange(&subscribe(1, &["a", "b", "c"], &Value::Null)), 1), "too_many_channels");
    assert_eq!(messages(&socket.ask(&subscribe(1, &["a"], &Value::Null))), [message(1, "subscribed")]);
    assert_eq!(error(&socket.exchange(&subscribe(2, &["a"], &Value::Null)), 2), "subscriber_limit");
    assert_eq!(messages(&socket.ask(&subscribe(2, &["b"], &Value::Null))), [message(2, "subscribed")]);
    assert_eq!(error(&socket.exchange(&subscribe(3, &["c"], &Value::Null)), 3), "too_many_subscriptions");
    socket.ask(&unsubscribe(2));
    // The owner of the channels refuses after the hub has accepted.
    assert_eq!(error(&socket.exchange(&subscribe(3, &["d", "e"], &Value::Null)), 3), "channel_limit");
    assert_eq!(messages(&socket.ask(&subscribe(3, &["b"], &Value::Null))), [message(3, "subscribed")]);
    assert!(!socket.peer.is_over());
}

#[test]
fn subscribe_commands_and_requests_count_together_by_address() {
    let stage = Stage::new(|config| config.limits.subscribes_per_address_minute = 3);
    let mut peer = stage.connect(ANN);
    peer.send(format!("GET /channels HTTP/1.1\r\nHost: sim\r\n{UPGRADE}\r\n"));
    stage.sim.run_for(SECOND);
    for reference in 0..3 {
        peer.send(frame(0x81, subscribe(reference, &["a"], &Value::Null).to_string().as_bytes()));
    }
    stage.sim.run_for(SECOND);
    let text = String::from_utf8_lossy(&peer.take()).into_owned();
    assert_eq!((text.matches("subscribed").count(), text.matches("too_many_requests").count()), (2, 1), "{text}");
}

/// Opens a WebSocket without channels, from an address that limits apply to.
fn open_from<'a>(stage: &'a Stage, from: &str) -> Socket<'a> {
    stage.open_on(stage.connect(from), "/channels", "").expect("it opens")
}

#[test]
fn subscriptions_of_one_address_are_limited_over_all_its_connections() {
    let stage = Stage::new(|config| {
        config.limits.subscriptions_per_address_max = 3;
        config.limits.channels_max = 3;
    });
    let (mut first, mut other) = (open_from(&stage, ANN), open_from(&stage, ANN));
    for (reference, channel) in [(1, "a"), (2, "b")] {
        assert_eq!(messages(&first.ask(&subscribe(reference, &[channel], &Value::Null))).len(), 1);
    }
    let mut is_full_behind = |socket: &mut Socket<'_>, reference: i64| {
        let added = socket.ask(&subscribe(reference, &["a"], &Value::Null));
        assert_eq!(messages(&added).last(), Some(&message(reference, "subscribed")));
        let refused = other.exchange(&subscribe(99, &["a"], &Value::Null));
        assert_eq!((error(&refused, 99), &refused[0]["retry_ms"]), ("too_many_requests", &json!(5_000)));
    };
    is_full_behind(&mut first, 3);
    assert_eq!(messages(&open_from(&stage, BOB).ask(&subscribe(1, &["a"], &Value::Null))).len(), 1, "another address");
    // A subscription that the client ends makes room at once, also for the message right after it.
    first.send(&unsubscribe(1));
    is_full_behind(&mut first, 4);
    // A subscription whose channel is closed makes room, too.
    stage.delete("b");
    first.replies(SECOND);
    is_full_behind(&mut first, 5);
    // A subscription that the owner of its channels refuses takes no room.
    first.ask(&unsubscribe(5));
    for reference in 6..9 {
        assert_eq!(
            error(&first.exchange(&subscribe(reference, &["c", "d", "e"], &Value::Null)), reference),
            "channel_limit"
        );
    }
    is_full_behind(&mut first, 9);
    // A closed connection ends its subscriptions.
    drop(first);
    stage.sim.run_for(SECOND);
    let mut second = open_from(&stage, ANN);
    for reference in 1..=2 {
        assert_eq!(messages(&second.ask(&subscribe(reference, &["a"], &Value::Null))).len(), 1);
    }
    is_full_behind(&mut second, 3);
}

#[test]
fn a_rule_gives_a_connection_one_place_in_a_channel() {
    let stage = Stage::new(|config| {
        config.rules = vec![Rule { subscribers_max: Some(2), ..Rule::new("room*".parse().expect("a pattern")) }];
    });
    let mut socket = stage.try_open("/channels/room1", "").expect("it opens");
    assert_eq!(messages(&socket.ask(&subscribe(1, &["a", "room2"], &Value::Null))).len(), 1);
    for (reference, channels) in [(2, ["room2"]), (3, ["room1"])] {
        assert_eq!(
            error(&socket.exchange(&subscribe(reference, &channels, &Value::Null)), reference),
            "too_many_subscriptions"
        );
    }
    assert_eq!(messages(&socket.ask(&subscribe(4, &["a"], &Value::Null))).len(), 1, "of others it may have several");
    let mut other = stage.try_open("/channels", "").expect("it opens");
    assert_eq!(messages(&other.ask(&subscribe(1, &["room2"], &Value::Null))).len(), 1);
    let mut third = stage.try_open("/channels", "").expect("it opens");
    assert_eq!(error(&third.exchange(&subscribe(1, &["room2"], &Value::Null)), 1), "subscriber_limit");
    socket.ask(&unsubscribe(1));
    assert_eq!(messages(&socket.ask(&subscribe(2, &["room2"], &Value::Null))).len(), 1);
}

#[test]
fn a_client_over_its_rate_can_end_its_subscriptions() {
    let stage = Stage::new(|config| config.limits.publishes_per_address_minute = 2);
    let mut socket = open_from(&stage, ANN);
    assert_eq!(messages(&socket.ask(&subscribe(7, &["a"], &Value::Null))), [message(7, "subscribed")]);
    publish(&stage, "other", "the last");
    assert_eq!(error(&socket.exchange(&subscribe(8, &["a"], &Value::Null)), 8), "too_many_requests");
    assert_eq!(socket.exchange(&unsubscribe(7)), [json!({"type": "unsubscribed", "ref": 7})]);
    assert_eq!(stage.server.holdings().subscribers, 1);
    // The client is charged for this command afterwards.
    stage.sim.run_for(SECOND * 31);
    assert_eq!(error(&socket.exchange(&subscribe(7, &["a"], &Value::Null)), 7), "too_many_requests");
    stage.sim.run_for(SECOND * 30);
    assert_eq!(messages(&socket.ask(&subscribe(7, &["a"], &Value::Null))), [message(7, "subscribed")]);
}

fn token(stage: &Stage, subject: &str, subscribe: &str) -> String {
    let (sub, subscribe) = (Some(subject.to_owned()), patterns(&[subscribe]));
    stage.sign(&Claims { sub, presence: subscribe.clone(), subscribe, ..stage.claims_for("none", 600) })
}

#[test]
fn a_token_limits_new_subscriptions_and_its_renewal_must_allow_existing_ones() {
    let stage = Stage::new(|config| config.auth.keys = vec![key("main")]);
    assert_eq!(stage.try_open("/channels", "").map(drop).expect_err("no token"), 401);
    let mut socket = stage.try_open("/channels", &bearer(&token(&stage, "ann", "a*"))).expect("it opens");
    assert_eq!(error(&socket.exchange(&subscribe(1, &["a1", "b"], &Value::Null)), 1), "not_allowed");
    assert_eq!(error(&socket.exchange(&subscribe(1, &["*"], &Value::Null)), 1), "not_allowed");
    assert_eq!(messages(&socket.ask(&subscribe(1, &["a1"], &Value::Null))), [message(1, "subscribed")]);
    let renew = |token: String| json!({"type": "token", "token": token, "ref": 9});
    assert_eq!(error(&socket.exchange(&renew(token(&stage, "ann", "a2"))), 9), "not_allowed");
    assert_eq!(socket.exchange(&renew(token(&stage, "ann", "a1")))[0]["type"], "renewed");
    assert_eq!(error(&socket.exchange(&subscribe(2, &["a2"], &Value::Null)), 2), "not_allowed");
    let ended = socket.wait(SECOND * 700);
    assert_eq!(ended.last().expect("an end"), &json!({"type": "close", "reason": "token_expired"}));
    assert_eq!(stage.server.holdings().subscribers, 0);
}

#[test]
fn a_websocket_without_a_token_may_subscribe_to_what_it_could_open() {
    let stage = Stage::new(|config| {
        config.auth.keys = vec![key("main")];
        let anonymous = ccomet::Anonymous { subscribe: patterns(&["*"]), ..ccomet::Anonymous::default() };
        config.auth.anonymous = Some(anonymous);
        config.rules = vec![];
    });
    let mut socket = stage.try_open("/channels", "").expect("it opens");
    assert_eq!(messages(&socket.ask(&subscribe(1, &["a"], &Value::Null))), [message(1, "subscribed")]);
    assert_eq!(error(&socket.exchange(&subscribe(2, &["a*"], &Value::Null)), 2), "pattern_forbidden");
}

#[test]
fn the_embedder_decides_about_added_subscriptions() {
    let stage = Stage::prepared(
        1,
        1,
        |_| {},
        |server| {
            server.on_call(|call| {
                if call.channels().any(|channel| channel == "no") { Decision::Refuse } else { Decision::Allow }
            });
        },
    );
    let mut socket = stage.try_open("/channels", "").expect("it opens");
    assert_eq!(error(&socket.exchange(&subscribe(1, &["no", "yes"], &Value::Null)), 1), "hook_refused");
    assert_eq!(messages(&socket.ask(&subscribe(1, &["yes"], &Value::Null))), [message(1, "subscribed")]);
}

#[test]
fn each_subscription_makes_its_member_present() {
    let stage = Stage::new(|config| config.auth.keys = vec![key("main")]);
    let ann = token(&stage, "ann", "*");
    let mut socket = stage.try_open("/channels", &bearer(&ann)).expect("it opens");
    let subscribed = socket.ask(&subscribe(1, &["room"], &json!({"presence": true})));
    let texts: Vec<_> = messages(&subscribed).into_iter().map(|(_, text)| text).collect();
    assert!(texts.contains(&"join".to_owned()), "{texts:?}");
    let presence = stage.exchange(&mut stage.connect(LOOPBACK), "GET", "/channels/room/presence", &bearer(&ann), "");
    assert!(String::from_utf8_lossy(&presence.body).contains("\"ann\""), "{presence:?}");
    socket.ask(&unsubscribe(1));
    stage.sim.run_for(SECOND * 10);
    let presence = stage.exchange(&mut stage.connect(LOOPBACK), "GET", "/channels/room/presence", &bearer(&ann), "");
    assert!(!String::from_utf8_lossy(&presence.body).contains("\"ann\""), "{presence:?}");
}

#[test]
fn a_slow_reader_gets_its_subscriptions_in_turn() {
    let stage = Stage::new(|config| config.limits.batch_bytes_max = 10_000);
    let mut socket = stage.try_open("/channels", "").expect("it opens");
    for reference in 1..=3 {
        socket.ask(&subscribe(reference, &["a"], &Value::Null));
    }
    socket.peer.stall();
    let text = "x".repeat(40_000);
    for _ in 0..20 {
        publish(&stage, "a", &text);
    }
    assert!(!socket.peer.is_over());
    socket.peer.unstall();
    let replies = socket.replies(SECOND * 20);
    for reference in 1..=3 {
        let own = replies.iter().filter(|reply| reply["ref"] == reference);
        assert_eq!(own.count(), 20, "subscription {reference}");
    }
}

/// Opens a WebSocket on a link of so many bytes per second, subscribed to a channel that gets 360
/// KB each second.
fn on_a_slow_link(stage: &Stage, bandwidth: u64) -> Socket<'_> {
    let link = Link { bandwidth: Some(bandwidth), buffer_bytes: 64 * 1024, ..Link::default() };
    let peer = stage.sim.connect_over(link, stage.server.front());
    let mut socket = stage.open_on(peer, "/channels", "").expect("it opens");
    assert_eq!(messages(&socket.ask(&subscribe(1, &["hot"], &Value::Null))), [message(1, "subscribed")]);
    socket
}

/// Publishes a message that becomes six times as long in JSON, without waiting for the answer.
fn publish_long(publisher: &mut Peer) {
    publisher.send(request("POST", "/channels/hot", "", &"\u{1}".repeat(60_000)));
}

#[test]
fn commands_of_a_slow_reader_that_always_has_more_to_read_are_processed() {
    let stage = Stage::new(|_| {});
    let mut socket = on_a_slow_link(&stage, 100_000);
    let mut publisher = stage.connect(LOOPBACK);
    let is_answered = (0..80).any(|second| {
        publish_long(&mut publisher);
        // A pong, which proves that the client lives, without a ping.
        socket.peer.send(frame(0x8a, ""));
        if second == 20 {
            socket.send(&unsubscribe(1));
        }
        socket.wait(SECOND).iter().any(|item| item["type"] == "unsubscribed")
    });
    assert!(is_answered && !socket.peer.is_over());
}

#[test]
fn a_slow_reader_that_gets_pings_late_is_not_taken_for_dead() {
    let stage = Stage::new(|_| {});
    // A message takes longer than three pings.
    let mut socket = on_a_slow_link(&stage, 5_000);
    let mut publisher = stage.connect(LOOPBACK);
    for _ in 0..200 {
        publish_long(&mut publisher);
        socket.replies(SECOND);
        assert!(!socket.peer.is_over());
    }
}

#[test]
fn a_shutdown_is_announced_once() {
    let stage = Stage::with(1, 2, |_| {});
    let mut socket = stage.try_open("/channels", "").expect("it opens");
    for reference in 0..3 {
        socket.ask(&subscribe(reference, &["a"], &Value::Null));
    }
    stage.server.stop();
    let last = socket.replies(SECOND * 10);
    assert_eq!(messages(&last), [(None, "bye".to_owned())]);
    assert_eq!(socket.closed, Some(1001));
}
