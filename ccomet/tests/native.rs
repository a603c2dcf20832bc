//! The native API: publish, long poll, Server-Sent Events, several channels, resuming, errors.

mod common;

use common::{Client, Local, config, wait_until};
use serde_json::json;

/// The numbers of loops of the tests: one, and several, where a channel's home may be another loop
/// than the client's.
const LOOPS: [usize; 2] = [1, 3];

#[test]
fn a_message_reaches_polls_and_streams() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut stream = Client::connect(server.front).events("/channels/news", "");
        let mut poll = Client::connect(server.front);
        poll.ask("GET", "/channels/news?after=oldest", "");
        let text = "'\"\\ </script>\r\n\u{2028} 😀 中文";
        let position = Client::connect(server.front).publish("news", text);

        let event = stream.next();
        assert_eq!((event.message().as_str(), &event.id), (text, &position));
        let item = event.json();
        assert_eq!((&item["type"], &item["channel"]), (&"message".into(), &"news".into()));
        let reply = poll.reply();
        assert_eq!((reply.messages(), reply.position()), (vec![text.to_owned()], position));
        assert_eq!(reply.json()["items"][0], item, "the same item whichever way it goes");
    }
}

#[test]
fn a_poll_without_a_position_waits_for_the_next_message() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut publisher = Client::connect(server.front);
        publisher.publish("news", "before");
        let mut poll = Client::connect(server.front);
        let start = poll.get("/channels/news?wait=0");
        assert_eq!(start.messages(), Vec::<String>::new());
        poll.ask("GET", &format!("/channels/news?after={}", start.position()), "");
        publisher.publish("news", "after");
        assert_eq!(poll.reply().messages(), ["after"]);
    }
}

#[test]
fn a_poll_without_messages_is_answered_with_a_position() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    let reply = client.get("/channels/news?wait=1");
    assert_eq!((reply.status, reply.messages()), (200, vec![]));
    client.publish("news", "now");
    let target = format!("/channels/news?after={}", reply.position());
    assert_eq!(client.get(&target).messages(), ["now"], "on the same connection, and nothing lost between");
}

#[test]
fn positions_resume_without_gap_or_repeat() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        let positions: Vec<String> = (0..10).map(|n| client.publish("news", n.to_string())).collect();
        assert!(positions.is_sorted(), "{positions:?}");
        for (index, position) in positions.iter().enumerate() {
            let rest: Vec<String> = (index + 1..10).map(|n| n.to_string()).collect();
            let reply = client.get(&format!("/channels/news?wait=0&after={position}"));
            assert_eq!((reply.messages(), &reply.position()), (rest.clone(), &positions[9]));
            for (target, headers) in [
                (format!("/channels/news?after={position}"), String::new()),
                // A browser that reconnects sends the old target with its last position.
                ("/channels/news?after=oldest".to_owned(), format!("Last-Event-ID: {position}\r\n")),
            ] {
                let mut stream = Client::connect(server.front).events(&target, &headers);
                let seen: Vec<String> = rest.iter().map(|_| stream.next().message()).collect();
                assert_eq!(seen, rest);
                assert!(stream.client.is_silent());
            }
        }
    }
}

#[test]
fn several_channels_share_one_position() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        let mut stream = Client::connect(server.front).events("/channels/b,a,c", "");
        let mut ids = Vec::new();
        for (channel, text) in [("a", "1"), ("c", "2"), ("a", "3"), ("b", "4")] {
            client.publish(channel, text);
            let event = stream.next();
            assert_eq!((event.message().as_str(), event.json()["channel"].as_str()), (text, Some(channel)));
            ids.push(event.id);
        }
        assert!(ids.is_sorted(), "{ids:?}");
        // The order of the channels in the path does not matter.
        let reply = client.get(&format!("/channels/c,a,b?wait=0&after={}", ids[0]));
        let mut messages = reply.messages();
        messages.sort();
        assert_eq!(messages, ["2", "3", "4"]);
        assert_eq!(reply.position(), ids[3]);
        let mut resumed =
            Client::connect(server.front).events("/channels/a,b,c", &format!("Last-Event-ID: {}\r\n", ids[2]));
        assert_eq!(resumed.next().message(), "4");
        // A poll of several channels waits for any of them.
        let mut poll = Client::connect(server.front);
        poll.ask("GET", &format!("/channels/a,b,c?after={}", ids[3]), "");
        client.publish("b", "5");
        assert_eq!(poll.reply().messages(), ["5"]);
    }
}

#[test]
fn polls_that_wait_at_one_place_get_a_gap_according_to_their_start() {
    for loops in LOOPS {
        let mut settings = config(loops);
        settings.history.messages_max = 1;
        let server = Local::start(settings);
        let mut client = Client::connect(server.front);
        let mut admin = Client::connect(server.admin);
        let start = client.get("/channels/news?wait=0").position();
        // Polls with `oldest` come first and last, so that each kind is answered before the other.
        let starts = ["oldest", &start, "oldest"];
        let mut polls = starts.map(|start| {
            let mut poll = Client::connect(server.front);
            poll.ask("GET", &format!("/channels/news?after={start}"), "");
            (start, poll)
        });
        wait_until("all polls wait", || admin.get("/channels/news/info").json()["subscribers"] == 3);
        let messages = ["1", "2"].map(|data| json!({"channel": "news", "data": data}));
        assert_eq!(admin.post("/messages", json!({ "messages": messages }).to_string()).status, 200);
        for (start, poll) in &mut polls {
            let reply = poll.reply().json();
            let items = reply["items"].as_array().expect("items");
            let kinds: Vec<&str> = items.iter().filter_map(|item| item["type"].as_str()).collect();
            let wanted = if *start == "oldest" { vec!["message"] } else { vec!["gap", "message"] };
            assert_eq!(kinds, wanted, "after {start}: {reply}");
        }
    }
}

#[test]
fn a_client_that_was_away_too_long_gets_a_gap() {
    for loops in LOOPS {
        let mut settings = config(loops);
        settings.history.messages_max = 3;
        let server = Local::start(settings);
        let mut client = Client::connect(server.front);
        let first = client.publish("news", "0");
        let rest: Vec<String> = (1..10).map(|n| client.publish("news", n.to_string())).collect();
        let reply = client.get(&format!("/channels/news?wait=0&after={first}")).json();
        let gap = &reply["items"][0];
        assert_eq!((&gap["type"], &gap["missed"]), (&"gap".into(), &6.into()), "{reply}");
        assert_eq!(gap["position"], rest[5].as_str());
        assert_eq!(reply["items"][1]["data"], "7");
        // A poll from the position of the gap continues there without a gap.
        let reply = client.get(&format!("/channels/news?wait=0&after={}", rest[5]));
        assert_eq!(reply.messages(), ["7", "8", "9"]);

        let mut stream = Client::connect(server.front).events("/channels/news", &format!("Last-Event-ID: {first}\r\n"));
        let event = stream.next();
        assert_eq!((event.kind.as_str(), &event.json()["missed"], &event.id), ("gap", &6.into(), &rest[5]));
        assert_eq!(stream.next().message(), "7");
        // The `hello` of a stream has no id: a stream that is lost before its gap must not resume
        // after the gap.
        let mut lost = Client::connect(server.front);
        lost.ask("GET", &format!("/channels/news?after={first}"), "Accept: text/event-stream\r\n");
        let (_, head) = lost.head();
        assert!(head.contains("event-stream"));
        let hello = common::Events::of(lost).next();
        assert_eq!((hello.kind.as_str(), hello.id.as_str()), ("hello", ""));
    }
}

#[test]
fn a_new_epoch_is_a_gap_of_unknown_size() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        let old = client.publish("news", "gone");
        let mut admin = Client::connect(server.admin);
        admin.ask("DELETE", "/channels/news", "");
        assert_eq!(admin.reply().status, 204);
        let new = client.publish("news", "here");
        assert!(new > old, "{new} {old}");
        let reply = client.get(&format!("/channels/news?wait=0&after={old}")).json();
        assert_eq!(reply["items"][0]["missed"], serde_json::Value::Null);
        assert_eq!(reply["items"][1]["data"], "here");
        // The gap comes even if nothing has been published since.
        admin.ask("DELETE", "/channels/news", "");
        assert_eq!(admin.reply().status, 204);
        let mut item = serde_json::Value::Null;
        wait_until("the old channel is gone on every loop", || {
            item = client.get(&format!("/channels/news?after={new}")).json()["items"][0].clone();
            item["type"] != "close"
        });
        assert_eq!(item["type"], "gap");
    }
}

#[test]
fn deleting_a_channel_ends_its_subscriptions() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut stream = Client::connect(server.front).events("/channels/news", "");
        let mut both = Client::connect(server.front).events("/channels/news,sport", "");
        let mut admin = Client::connect(server.admin);
        admin.ask("DELETE", "/channels/news", "");
        assert_eq!(admin.reply().status, 204);
        for stream in [&mut stream, &mut both] {
            let event = stream.next();
            assert_eq!((event.kind.as_str(), &event.json()["channel"]), ("close", &"news".into()));
            assert_eq!(stream.try_next(), None);
        }
        admin.ask("DELETE", "/channels/news", "");
        let reply = admin.reply();
        assert_eq!((reply.status, &reply.json()["code"]), (404, &"unknown_channel".into()));
    }
}

#[test]
fn jsonp_wraps_replies_and_publishes() {
    let server = Local::start(config(2));
    let mut client = Client::connect(server.front);
    let reply = client.get("/channels/news?callback=ns.cb&publish=it%27s%20%3C/script%3E%E2%80%A8+%2B");
    assert_eq!(reply.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert!(reply.text().starts_with("/**/ns.cb({\"channel\":\"news\",\"position\":\""), "{}", reply.text());
    let reply = client.get("/channels/news?callback=cb&after=oldest");
    let text = reply.text();
    assert!(!text.contains("</") && !text.contains('\u{2028}'), "{text}");
    let json = text.strip_prefix("/**/cb(").and_then(|text| text.strip_suffix(");\n")).expect("a call");
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(json["items"][0]["data"], "it's </script>\u{2028} +");
    let reply = client.get("/channels/news?callback=cb&after=nonsense");
    assert!(reply.status == 200 && reply.text().contains("\"code\":\"bad_position\""), "{reply:?}");
    let reply = client.get("/channels/news?publish=x");
    assert_eq!((reply.status, &reply.json()["code"]), (400, &"bad_parameter".into()), "no change by a bare GET");
}

#[test]
fn any_bytes_can_be_published() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    client.publish("news", b"\xff\x00");
    client.publish("news", "");
    let items = client.get("/channels/news?after=oldest").json()["items"].clone();
    assert_eq!((&items[0]["data_base64"], &items[1]["data"]), (&"/wA=".into(), &"".into()));
}

#[test]
fn history_longer_than_one_reply_comes_in_several_and_in_one_stream() {
    let server = Local::start(config(2));
    let mut client = Client::connect(server.front);
    let body = "x".repeat(10_000);
    for n in 0..50 {
        client.publish("news", format!("{n} {body}"));
    }
    let (mut after, mut seen, mut replies) = ("oldest".to_owned(), 0, 0);
    while seen < 50 {
        let reply = client.get(&format!("/channels/news?after={after}"));
        for message in reply.messages() {
            assert!(message.starts_with(&format!("{seen} ")));
            seen += 1;
        }
        after = reply.position();
        replies += 1;
    }
    assert!((5..20).contains(&replies), "{replies}");
    let mut stream = Client::connect(server.front).events("/channels/news?after=oldest", "");
    for n in 0..50 {
        assert!(stream.next().message().starts_with(&format!("{n} ")));
    }
}

#[test]
fn pages_of_other_origins_may_read_and_preflights_are_answered() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    client.ask("OPTIONS", "/channels/news", "Origin: null\r\nAccess-Control-Request-Method: POST\r\n");
    let reply = client.reply();
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert!(reply.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    let reply = client.get("/channels/news?wait=0");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    // The admin listener permits no page of another origin.
    let mut admin = Client::connect(server.admin);
    admin.ask("OPTIONS", "/channels/news", "Origin: http://evil\r\nAccess-Control-Request-Method: DELETE\r\n");
    assert_eq!(admin.reply().header("access-control-allow-origin"), None);

    let mut settings = config(1);
    settings.front.origins = vec!["https://a.example".to_owned(), "https://b.example".to_owned()];
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    for (origin, allowed) in [("https://b.example", Some("https://b.example")), ("https://evil.example", None)] {
        client.ask("GET", "/channels/news?wait=0", &format!("Origin: {origin}\r\n"));
        let reply = client.reply();
        assert_eq!(reply.header("access-control-allow-origin"), allowed, "{reply:?}");
        assert_eq!(reply.header("vary"), Some("Origin"));
    }
}

#[test]
fn requests_beyond_the_limits_are_refused() {
    let mut settings = config(1);
    settings.limits.channels_max = 2;
    settings.limits.subscribers_max = 3;
    settings.limits.channels_per_subscription_max = 2;
    settings.limits.message_bytes_max = 10;
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    let code = |reply: common::Reply| (reply.status, reply.json()["code"].as_str().unwrap_or("").to_owned());
    client.publish("a", "0123456789");
    client.publish("b", "");
    assert_eq!(code(client.post("/channels/c", "x")), (503, "channel_limit".to_owned()));
    assert_eq!(code(client.get("/channels/c?wait=0")), (503, "channel_limit".to_owned()));
    assert_eq!(code(client.get("/channels/a,b,c")), (400, "too_many_channels".to_owned()));
    let streams: Vec<_> = (0..3).map(|_| Client::connect(server.front).events("/channels/a", "")).collect();
    let reply = client.get("/channels/a");
    assert!(reply.header("retry-after").is_some());
    assert_eq!(code(reply), (503, "subscriber_limit".to_owned()));
    assert!(client.get("/channels/a").text().contains("(subscribers_max)"));
    drop(streams);
    common::wait_until("the places are free again", || client.get("/channels/a?wait=0").status == 200);
    assert_eq!(code(client.post("/channels/a", "0123456789+")), (413, "message_too_large".to_owned()));
    assert!(client.is_closed(), "a client that sends too much is closed");
}

#[test]
fn only_listed_networks_are_allowed() {
    let mut settings = config(1);
    settings.front.allow = vec!["10.0.0.0/8".parse().expect("a network")];
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    let reply = client.get("/channels/news");
    assert_eq!((reply.status, &reply.json()["code"]), (403, &"forbidden".into()));
    assert!(client.is_closed());
    assert_eq!(Client::connect(server.admin).get("/channels/news?wait=0").status, 200);
}

#[test]
fn a_quiet_stream_has_heartbeats() {
    let mut settings = config(1);
    settings.times.heartbeat_s = 1;
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    client.ask("GET", "/channels/news", "Accept: text/event-stream\r\n");
    client.head();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("event: heartbeat\ndata: \n\n") {
        let mut byte = [0];
        client.read_exact(&mut byte);
        seen.push(byte[0]);
    }
}

#[test]
fn http_1_0_streams_until_the_connection_closes() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    client.send("GET /channels/news?after=oldest HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n");
    let (status, head) = client.head();
    assert!(status == 200 && !head.to_lowercase().contains("chunked"), "{head}");
    Client::connect(server.front).publish("news", "hi");
    let mut seen = String::new();
    while !seen.contains("\"hi\"}\n\n") {
        let mut byte = [0];
        client.read_exact(&mut byte);
        seen.push(char::from(byte[0]));
    }
}
