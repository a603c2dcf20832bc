//! Publishing: to several channels, several messages at once, under keys, with a type and a time to
//! live, to patterns.

mod common;

use common::{Client, Local, Reply, config, wait_until};
use serde_json::{Value, json};
use testing::http::request;

/// The numbers of loops of the tests: one, and several, where a channel's home may be another loop
/// than the client's.
const LOOPS: [usize; 2] = [1, 3];

fn post(client: &mut Client, target: &str, header: &str, body: &str) -> Reply {
    client.send(request("POST", target, header, body));
    client.reply()
}

fn publish(client: &mut Client, messages: &Value) -> Reply {
    post(client, "/messages", "", &json!({ "messages": messages }).to_string())
}

/// Returns the messages of a channel.
fn held(client: &mut Client, channel: &str) -> Vec<String> {
    client.get(&format!("/channels/{channel}?after=oldest&wait=0")).messages()
}

#[test]
fn one_message_goes_to_several_channels() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        let reply = client.post("/channels/b,a,c", "hello");
        assert_eq!(reply.status, 200, "{reply:?}");
        for (result, channel) in reply.json()["results"].as_array().expect("results").iter().zip(["a", "b", "c"]) {
            assert_eq!(result["channel"], channel);
            assert_eq!(held(&mut client, channel), ["hello"]);
            let after = format!("/channels/{channel}?wait=0&after={}", result["position"].as_str().expect("one"));
            assert_eq!(client.get(&after).messages(), Vec::<String>::new(), "the position is behind the message");
        }
    }
}

#[test]
fn any_json_value_is_a_message() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    for data in [json!(null), json!(false), json!(0), json!([null]), json!({})] {
        let reply = publish(&mut client, &json!([{"channel": "a", "data": data}]));
        assert_eq!(reply.status, 200, "{data}: {reply:?}");
        let both = json!([{"channel": "a", "data": data, "data_base64": "eA=="}]);
        assert_eq!(publish(&mut client, &both).json()["code"], "bad_body", "{data}");
    }
    assert_eq!(held(&mut client, "a"), ["null", "false", "0", "[null]", "{}"]);
}

#[test]
fn several_messages_in_one_request_keep_their_order() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        let mut stream = Client::connect(server.front).events("/channels/a", "");
        let reply = publish(
            &mut client,
            &json!([
                {"channel": "a", "data": "1"},
                {"channels": ["b", "a"], "data": {"n": [2, "two"]}},
                {"channel": "a", "data_base64": "/wA="},
            ]),
        );
        assert_eq!(reply.status, 200, "{reply:?}");
        let results = reply.json()["results"].clone();
        let channels: Vec<&str> = results
            .as_array()
            .expect("results")
            .iter()
            .map(|result| result["channel"].as_str().expect("a name"))
            .collect();
        assert_eq!(channels, ["a", "b", "a", "a"]);
        let events: Vec<_> = (0..3).map(|_| stream.next()).collect();
        assert_eq!((events[0].message().as_str(), events[1].message().as_str()), ("1", r#"{"n":[2,"two"]}"#));
        assert_eq!(events[2].json()["data_base64"], "/wA=");
        let positions = [&results[0], &results[2], &results[3]].map(|result| result["position"].as_str());
        assert_eq!(positions, [0, 1, 2].map(|index: usize| Some(events[index].id.as_str())));
        assert_eq!(held(&mut client, "b"), [r#"{"n":[2,"two"]}"#]);
    }
}

#[test]
fn a_retried_publication_is_kept_once() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        let key = "Idempotency-Key: \"order-7\"\r\n";
        let first = post(&mut client, "/channels/news,sport", key, "once").json();
        client.publish("news", "between");
        let again = post(&mut client, "/channels/news,sport", key, "once").json();
        assert_eq!(first, again, "the positions that it got the first time");
        assert_eq!(held(&mut client, "news"), ["once", "between"]);
        // In this channel the key belongs to that message; in another channel it is another key.
        let other = post(&mut client, "/channels/news", key, "something else");
        assert_eq!((other.status, &other.json()["code"]), (422, &"key_reused".into()));
        assert_eq!(post(&mut client, "/channels/other", key, "something else").status, 200);

        let batch = json!([
            {"channel": "orders", "data": "1", "key": "k1"},
            {"channel": "orders", "data": "2"},
            {"channel": "orders", "data": "3", "key": "k3"},
        ]);
        let body = json!({ "messages": batch }).to_string();
        let first = post(&mut client, "/messages", key, &body).json();
        assert_eq!(post(&mut client, "/messages", key, &body).json(), first);
        assert_eq!(held(&mut client, "orders"), ["1", "2", "3"]);
        // All or nothing: one key of another message makes the server refuse the others, too.
        let spoilt = publish(
            &mut client,
            &json!([{"channel": "orders", "data": "4", "key": "k4"}, {"channel": "orders", "data": "x", "key": "k3"}]),
        );
        assert_eq!(spoilt.status, 422, "{spoilt:?}");
        assert_eq!(held(&mut client, "orders"), ["1", "2", "3"]);
        // Deleting the channel drops its messages, and their keys.
        Client::connect(server.admin).ask("DELETE", "/channels/orders", "");
        wait_until("the channel is closed", || held(&mut client, "orders").is_empty());
        assert_eq!(publish(&mut client, &batch).status, 200);
        assert_eq!(held(&mut client, "orders"), ["1", "2", "3"]);
    }
}

#[test]
fn a_message_refused_by_one_channel_reaches_the_others_and_the_error_is_reported() {
    let mut settings = config(1);
    settings.limits.channels_max = 2;
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    let reply = client.post("/channels/a,b,c", "x");
    let body = reply.json();
    assert_eq!((reply.status, &body["code"]), (503, &"channel_limit".into()));
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert!(body["results"][0]["position"].is_string() && body["results"][1]["position"].is_string(), "{body}");
    assert_eq!(body["results"][2]["error"]["code"], "channel_limit");
    assert_eq!(held(&mut client, "b"), ["x"]);
}

#[test]
fn a_message_may_carry_a_type() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    let mut stream = Client::connect(server.front).events("/channels/news", "");
    for target in ["/channels/news?event=gr%C3%BC%C3%9Fe", "/channels/news"] {
        assert_eq!(client.post(target, "hello").status, 200);
    }
    let (typed, plain) = (stream.next(), stream.next());
    assert_eq!((typed.message().as_str(), &typed.json()["event"]), ("hello", &"grüße".into()));
    assert_eq!(plain.json().get("event"), None);
    for bad in ["event=", "event=a%0Ab", "ttl=0", "ttl=x", "ttl=-1"] {
        let refused = client.post(&format!("/channels/news?{bad}"), "x");
        assert_eq!((refused.status, &refused.json()["code"]), (400, &"bad_parameter".into()), "{bad}");
    }
}

#[test]
fn a_message_is_not_delivered_after_its_time_to_live() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut client = Client::connect(server.front);
        let start = client.publish("news", "lasting");
        let mut stream = Client::connect(server.front).events("/channels/news", "");
        assert_eq!(client.post("/channels/news?ttl=1", "fleeting").status, 200);
        assert_eq!(stream.next().message(), "fleeting", "a connected reader gets it");
        client.publish("news", "last");
        wait_until("its time is over", || held(&mut client, "news") == ["lasting", "last"]);
        let mut late = Client::connect(server.front).events(&format!("/channels/news?after={start}"), "");
        assert_eq!(late.next().message(), "last", "and there is no gap");
        let mut several = Client::connect(server.front).events("/channels/news,sport?after=oldest", "");
        let seen = [several.next(), several.next()];
        assert_eq!(seen.each_ref().map(common::Event::message), ["lasting", "last"]);
        let after = &seen[1].id;
        assert_eq!(client.get(&format!("/channels/news,sport?wait=0&after={after}")).messages(), Vec::<String>::new());
    }
}

#[test]
fn a_poll_after_expired_messages_waits() {
    let server = Local::start(config(1));
    let mut client = Client::connect(server.front);
    let start = client.publish("news", "lasting");
    assert_eq!(client.post("/channels/news?ttl=1", "fleeting").status, 200);
    wait_until("its time is over", || held(&mut client, "news") == ["lasting"]);
    for (target, new) in [
        (format!("/channels/news?after={start}"), r#""data":"new""#),
        ("/subscribe?channel=news&sname=ann&seqid=1&callback=f".to_owned(), "new"),
    ] {
        let mut poll = Client::connect(server.front);
        poll.ask("GET", &target, "");
        assert!(poll.is_silent(), "{target}");
        assert_eq!(client.post("/channels/news?ttl=1", "new").status, 200);
        assert!(poll.reply().text().contains(new), "{target}");
        wait_until("its time is over", || held(&mut client, "news") == ["lasting"]);
    }
}

#[test]
fn a_message_goes_to_all_channels_of_a_pattern() {
    for loops in LOOPS {
        let server = Local::start(config(loops));
        let mut admin = Client::connect(server.admin);
        for channel in ["news.uk", "news.fr", "news.de", "sport"] {
            admin.publish(channel, "first");
        }
        let reply = admin.post("/channels/news.*", "all");
        assert_eq!((reply.status, &reply.json()["results"][0]), (200, &json!({"channel": "news.*", "channels": 3})));
        let all = publish(&mut admin, &json!([{"channel": "*", "data": "everyone"}]));
        assert_eq!(all.json()["results"][0]["channels"], 4, "{all:?}");
        assert_eq!(held(&mut admin, "news.fr"), ["first", "all", "everyone"]);
        assert_eq!(held(&mut admin, "sport"), ["first", "everyone"]);
        let none = admin.post("/channels/weather.*", "nobody");
        assert_eq!(none.json()["results"][0]["channels"], 0);
        // The front does not allow this.
        let refused = Client::connect(server.front).post("/channels/news.*", "spam");
        assert_eq!((refused.status, &refused.json()["code"]), (403, &"pattern_forbidden".into()));
    }
}

#[test]
fn a_request_has_its_limits() {
    let mut settings = config(1);
    settings.limits.publications_per_request_max = 3;
    settings.limits.request_bytes_max = 1_000;
    let server = Local::start(settings);
    let mut client = Client::connect(server.front);
    let many =
        publish(&mut client, &json!([{"channels": ["a", "b"], "data": ""}, {"channels": ["a", "b"], "data": ""}]));
    assert_eq!((many.status, &many.json()["code"]), (400, &"too_many_messages".into()));
    let bad = post(&mut client, "/messages", "", "{}");
    assert_eq!((bad.status, &bad.json()["code"]), (400, &"bad_body".into()));
    let get = client.get("/messages");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST, OPTIONS")));
    let long = publish(&mut client, &json!([{"channel": "a", "data": "x".repeat(1_000)}]));
    assert_eq!(long.status, 413);
    assert_eq!(held(&mut Client::connect(server.front), "a"), Vec::<String>::new());
}
