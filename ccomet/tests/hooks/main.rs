//! Hooks, by which the server asks and notifies the site's back end. On the simulated network,
//! where the test is the back end.

mod limits;
mod pages;
mod stage;

use ccomet::{Pattern, WhenDown};
use sealed::sim::Peer;
use serde_json::{Value, json};
use stage::{Backend, Stage, frame, get, post, upgrade};

#[test]
fn the_back_end_allows_or_refuses_requests() {
    for loops in [1, 3] {
        let stage = Stage::new(loops, |config| config.hooks.headers = vec!["Cookie".to_owned()]);
        let mut client = stage.client(&post("/channels/news", "hello"));
        let mut backend = stage.backend();
        let (head, question) = backend.next_question();
        assert!(head.starts_with("POST /comet?x=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Authorization: Bearer shared\r\n") && head.contains("Host: 10.0.0.9"), "{head}");
        let messages = json!([{"channels": ["news"], "data": "hello"}]);
        assert_eq!(question, json!({"type": "publish", "id": null, "origin": null, "messages": messages}));
        backend.answer(200, "", r#"{"allow":true}"#);
        client.expect("\"position\"");

        client.send(post("/channels/news", "spam"));
        stage.wait(1);
        // The question comes on the connection that was kept.
        backend.answer_next(403, "");
        let refused = client.expect("hook_refused");
        assert!(String::from_utf8_lossy(&refused).contains("HTTP/1.1 403 "));

        client.send(get("/channels/news,sport?after=oldest&wait=0"));
        let question = backend.answer_next(204, "");
        let expected = json!({"type": "subscribe", "id": null, "origin": "http://x", "channels": ["news", "sport"],
            "headers": {"Cookie": "session=7"}});
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
                // The classic API has no tokens, and does not evade the hook.
                backend.answer_next(200, r#"{"allow":false}"#);
            } else {
                backend.answer_next(403, "");
            }
            client.expect("hook_refused");
        }
        // Publications at the admin listener are not asked about.
        let mut admin = stage.sim.connect(stage.server.admin());
        admin.send(post("/channels/news", "from inside"));
        admin.expect("\"position\"");
        assert!(stage.accept().is_none());
    }
}

type Act = fn(&mut Backend);

/// Returns the answer to a publisher when the back end acts on its question in this way.
fn reply_after(act: Act, when_down: WhenDown) -> String {
    let stage = Stage::new(1, |config| config.hooks.when_down = when_down);
    let mut client = stage.client(&post("/channels/news", "hello"));
    let mut backend = stage.backend();
    backend.next_question();
    act(&mut backend);
    stage.wait(3);
    String::from_utf8(client.take()).expect("text")
}

#[test]
fn a_back_end_that_fails_by_itself_counts_as_down() {
    let silent: Act = |_| {};
    let failing: Act = |backend| backend.answer(500, "", "");
    let overloaded: Act = |backend| backend.answer(503, "", "");
    for act in [silent, failing, overloaded] {
        let refused = reply_after(act, WhenDown::Refuse);
        assert!(refused.contains("hook_unavailable") && refused.contains("Retry-After"), "{refused}");
        let allowed = reply_after(act, WhenDown::Allow);
        assert!(allowed.contains("\"position\""), "{allowed}");
    }
    for (when_down, expected) in [(WhenDown::Refuse, "hook_unavailable"), (WhenDown::Allow, "event: ")] {
        let stage = Stage::new(1, |config| {
            "http://10.0.0.10/".clone_into(&mut config.hooks.url);
            config.hooks.when_down = when_down;
        });
        let mut client = stage.client(&get("/channels/news?transport=sse"));
        stage.wait(3);
        client.expect(expected);
    }
}

#[test]
fn failures_that_a_client_can_cause_are_refused_even_if_the_server_allows_when_down() {
    let unclear: [Act; 6] = [
        |backend| backend.0.send("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        |backend| backend.answer(200, "", &"x".repeat(20_000)),
        |backend| backend.answer(200, "", "{}"),
        |backend| backend.answer(302, "Location: /sign-in\r\n", ""),
        |backend| backend.answer(429, "", ""),
        |backend| backend.0.finish(),
    ];
    let bad: [Act; 4] = [
        |backend| backend.answer(400, "", ""),
        |backend| backend.answer(404, "", ""),
        |backend| backend.answer(413, "", ""),
        |backend| backend.answer(431, "", ""),
    ];
    for when_down in [WhenDown::Refuse, WhenDown::Allow] {
        for act in unclear {
            let answer = reply_after(act, when_down);
            assert!(answer.contains("hook_unavailable") && answer.contains("Retry-After"), "{answer}");
        }
        for act in bad {
            let answer = reply_after(act, when_down);
            assert!(answer.contains("hook_refused"), "{answer}");
        }
    }
}

#[test]
fn a_message_for_many_channels_is_in_its_question_once() {
    let stage = Stage::new(1, |_| {});
    let channels: Vec<String> = (0..50).map(|n| format!("c{n}")).collect();
    let data = "x".repeat(60_000);
    let body = json!({"messages": [{"channels": channels, "data": data}, {"channel": "c0", "data": "more"}]});
    let mut client = stage.client(&post("/messages", &body.to_string()));
    let mut backend = stage.backend();
    let question = backend.answer_next(204, "");
    let expected = json!([{"channels": channels, "data": data}, {"channels": ["c0"], "data": "more"}]);
    assert_eq!(question["messages"], expected);
    client.expect("]}");
}

#[test]
fn too_long_a_question_is_refused_and_not_sent() {
    let stage = Stage::new(1, |config| {
        (config.hooks.question_bytes_max, config.hooks.when_down) = (1_000, WhenDown::Allow);
        config.hooks.subscribe = false;
    });
    let mut client = stage.client(&post("/channels/news", &"x".repeat(1_000)));
    client.expect("hook_too_large");
    // Each of these bytes takes six in JSON.
    client.send(post("/channels/news", &"\u{1}".repeat(200)));
    client.expect("hook_too_large");
    assert!(stage.accept().is_none());
    let stage = Stage::new(1, |config| {
        (config.hooks.question_bytes_max, config.hooks.subscribe) = (100, false);
    });
    let mut socket = stage.client(&upgrade("/channels/news"));
    socket.expect("hello");
    let long = json!({"type": "publish", "channel": "news", "data": "\u{1}".repeat(12), "ref": 7});
    socket.send(frame(&long.to_string()));
    let reply = socket.expect("\"ref\":7");
    assert!(String::from_utf8_lossy(&reply).contains("hook_too_large"));
    assert!(stage.accept().is_none());
    // The WebSocket still works.
    socket.send(frame(r#"{"type":"publish","channel":"news","data":"x"}"#));
    stage.backend().answer_next(204, "");
    socket.expect("published");
}

#[test]
fn an_answer_is_cached_for_its_max_age() {
    let stage = Stage::new(1, |config| config.hooks.headers = vec!["Cookie".to_owned()]);
    let mut first = stage.client(&get("/channels/news?wait=0"));
    let mut backend = stage.backend();
    backend.next_question();
    backend.answer(204, "Cache-Control: max-age=10\r\n", "");
    first.expect("\"items\":[]");
    for _ in 0..3 {
        first.send(get("/channels/news?wait=0"));
        first.expect("\"items\":[]");
    }
    // A question about another client or another channel is a different one.
    first.send(get("/channels/news?wait=0").replace("session=7", "session=8"));
    backend.answer_next(403, "");
    first.expect("hook_refused");
    first.send(get("/channels/sport?wait=0"));
    backend.answer_next(204, "");
    first.expect("\"items\":[]");
    stage.wait(11);
    first.send(get("/channels/news?wait=0"));
    let mut again = stage.accept().map_or(backend, Backend);
    again.answer_next(403, "");
    first.expect("hook_refused");
    // Each publication is asked about.
    for _ in 0..2 {
        first.send(post("/channels/news", "x"));
        again.next_question();
        again.answer(204, "Cache-Control: max-age=10\r\n", "");
        first.expect("\"position\"");
    }
}

#[test]
fn questions_of_closed_clients_are_dropped_without_a_trace() {
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
fn a_subscriber_that_hangs_up_during_a_question_is_forgotten_and_its_publication_is_kept() {
    let stage = Stage::new(1, |_| {});
    let mut reader = stage.client(&get("/channels/news?transport=sse"));
    let mut backend = stage.backend();
    backend.next_question();
    // The browser closes its connection.
    reader.finish();
    stage.wait(1);
    assert_eq!(stage.server.holdings().asking, 0);
    let mut publisher = stage.client(&post("/channels/news", "hello"));
    publisher.finish();
    let mut backend = stage.backend();
    backend.answer_next(204, "");
    publisher.expect("\"position\"");
    assert_eq!(stage.server.holdings().subscribers, 0);
}

#[test]
fn a_websocket_that_waits_for_the_back_end_is_not_taken_for_dead() {
    let stage = Stage::new(1, |config| {
        (config.hooks.subscribe, config.hooks.timeout_ms, config.times.heartbeat_s) = (false, 60_000, 2);
    });
    let mut client = stage.client(&upgrade("/channels/news"));
    client.expect("hello");
    client.send(frame(r#"{"type":"publish","channel":"news","data":"late","ref":1}"#));
    let mut backend = stage.backend();
    backend.next_question();
    stage.wait(20);
    backend.answer(204, "", "");
    client.expect("\"published\"");
}

#[test]
fn messages_on_a_websocket_keep_their_order_while_the_back_end_is_asked() {
    let stage = Stage::new(3, |config| config.hooks.subscribe = false);
    let mut client = stage.client(&upgrade("/channels/news"));
    client.expect("hello");
    for (data, reference) in [("one", 1), ("two", 2), ("three", 3)] {
        let message = json!({"type": "publish", "channel": "news", "data": data, "ref": reference});
        client.send(frame(&message.to_string()));
    }
    let mut backend = stage.backend();
    let question = backend.next_question().1;
    assert_eq!(question["messages"][0]["data"], "one");
    assert!(stage.accept().is_none(), "one after the other");
    backend.answer(204, "", "");
    assert_eq!(backend.answer_next(403, "")["messages"][0]["data"], "two");
    assert_eq!(backend.answer_next(204, "")["messages"][0]["data"], "three");
    stage.wait(1);
    let reply = String::from_utf8_lossy(&client.take()).into_owned();
    let at = |text: &str| reply.find(text).unwrap_or_else(|| panic!("{text}: {reply}"));
    assert!(at("\"data\":\"one\"") < at("\"data\":\"three\""), "{reply}");
    assert!(
        reply.contains("hook_refused") && reply.contains("\"ref\":2") && !reply.contains("\"data\":\"two\""),
        "{reply}"
    );
}

#[test]
fn a_websocket_opens_when_the_back_end_allows_it() {
    let stage = Stage::new(1, |_| {});
    let request = upgrade("/channels/news");
    let mut client = stage.client(&request);
    let mut backend = stage.backend();
    backend.answer_next(204, "");
    let opened = client.expect("hello");
    assert!(String::from_utf8_lossy(&opened).starts_with("HTTP/1.1 101 "));
    let mut refused = stage.client(&request);
    backend.answer_next(403, "");
    refused.expect("HTTP/1.1 403 ");
}

#[test]
fn the_back_end_is_asked_only_about_configured_channels() {
    let stage = Stage::new(1, |config| {
        config.hooks.channels = vec![Pattern::new("private.*").expect("a pattern")];
        config.front.patterns = true;
    });
    let mut client = stage.client(&post("/channels/news", "hello"));
    client.expect("\"position\"");
    for target in ["/channels/news,private.x?wait=0", "/channels/priv*?wait=0"] {
        let mut client = stage.client(&get(target));
        let mut backend = stage.backend();
        let question = backend.answer_next(403, "");
        assert_eq!(question["channels"].as_array().map(Vec::len), Some(1), "{question}");
        client.expect("hook_refused");
    }
}

#[test]
fn the_back_end_is_notified_of_joins_and_leaves() {
    for loops in [1, 3] {
        let stage = Stage::new(loops, |config| {
            (config.hooks.subscribe, config.hooks.publish, config.hooks.presence) = (false, false, true);
            stage::need_tokens(config);
        });
        let token = stage.token("room", 600);
        let request = get(&format!("/channels/room?transport=sse&token={token}"));
        let client = stage.client(&request);
        let mut backend = stage.backend();
        let event = |reply: &Value| (reply["events"][0]["type"].clone(), reply["events"][0]["id"].clone());
        // The back end fails to take the event, and gets it again.
        let first = backend.answer_next(500, "");
        assert_eq!((&first["type"], event(&first)), (&"presence".into(), ("join".into(), "ann".into())));
        assert_eq!(first["events"][0]["channel"], "room");
        stage.wait(2);
        let mut backend = stage.accept().map_or(backend, Backend);
        assert_eq!(backend.answer_next(204, ""), first);
        let second = stage.client(&request);
        stage.wait(1);
        client.reset();
        stage.wait(8);
        assert_eq!(backend.0.take(), b"", "he is still there");
        second.reset();
        stage.wait(8);
        let mut backend = stage.accept().map_or(backend, Backend);
        assert_eq!(event(&backend.answer_next(204, "")), ("leave".into(), "ann".into()));
    }
}

#[test]
fn the_back_end_is_asked_about_added_subscriptions() {
    let stage = Stage::new(1, |_| {});
    let mut socket = stage.client(&upgrade("/channels"));
    socket.expect("hello");
    let subscribe = |reference: u32, channel: &str| {
        frame(&format!(r#"{{"type":"subscribe","ref":{reference},"channels":["{channel}"]}}"#))
    };
    socket.send(subscribe(1, "news"));
    // The server reads no further command before the answer.
    socket.send(subscribe(2, "sport"));
    let mut backend = stage.backend();
    let question = backend.answer_next(200, r#"{"allow":true}"#);
    assert_eq!((&question["type"], &question["channels"]), (&"subscribe".into(), &serde_json::json!(["news"])));
    assert_eq!(question["origin"], "http://x");
    socket.expect(r#""ref":1"#);
    socket.expect("subscribed");
    assert_eq!(backend.answer_next(200, r#"{"allow":false}"#)["channels"], serde_json::json!(["sport"]));
    socket.expect("hook_refused");
    assert_eq!(stage.server.holdings().subscribers, 2);
    // The question of a client that is gone is dropped.
    socket.send(subscribe(3, "late"));
    assert_eq!(backend.next_question().1["channels"], serde_json::json!(["late"]));
    drop(socket);
    stage.wait(1);
    assert_eq!(stage.server.holdings().subscribers, 0);
}

#[test]
fn a_websocket_that_ends_while_the_back_end_is_asked_gets_no_further_subscription() {
    let stage = Stage::new(1, |_| {});
    let mut socket = stage.client(&upgrade("/channels/own"));
    let mut backend = stage.backend();
    backend.answer_next(204, "");
    socket.expect("hello");
    socket.send(frame(r#"{"type":"subscribe","ref":1,"channels":["news"]}"#));
    backend.next_question();
    let mut admin = stage.sim.connect(stage.server.admin());
    admin.send("DELETE /channels/own HTTP/1.1\r\nHost: x\r\n\r\n");
    admin.expect("HTTP/1.1 204");
    backend.answer(204, "", "");
    stage.wait(1);
    assert_eq!(stage.server.holdings().subscribers, 0);
}
