//! What clients of two servers get while nothing fails.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::common::{Client, Reply, wait_until};
use crate::line::Line;
use crate::pair::{Pair, Server};

/// Sends a request without a body.
fn ask(mut client: Client, method: &str, target: &str) -> Reply {
    client.ask(method, target, "");
    client.reply()
}

/// Publishes with an idempotency key.
fn publish_once(server: &Server, channel: &str, key: &str, data: &str) -> Reply {
    let mut line = Line::connect(server.front()).expect("connected");
    send_once(&mut line, channel, key, data);
    line.reply().expect("a reply")
}

fn send_once(line: &mut Line, channel: &str, key: &str, data: &str) {
    let field = format!("Idempotency-Key: {key}\r\n");
    line.send("POST", &format!("/channels/{channel}"), &field, data).expect("sent");
}

/// Returns the data of the history's pages, in the order of the pages.
fn history(server: &Server, channel: &str, direction: &str, from: &str) -> Vec<String> {
    let (mut client, mut position, mut found) = (server.client(), from.to_owned(), Vec::new());
    loop {
        let reply = client.get(&format!("/channels/{channel}/history?{direction}={position}&limit=70"));
        found.extend(reply.messages());
        if reply.json()["more"] != true {
            return found;
        }
        position = reply.position();
    }
}

/// Waits until a server has the messages before a position, which may come from the other server.
fn wait_for(server: &Server, channel: &str, position: &str) {
    let reply = server.client().get(&format!("/channels/{channel}?after={position}&wait=0"));
    assert_eq!((reply.status, reply.position()), (200, position.to_owned()), "{reply}");
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(crate) fn pages_of_history_are_the_same_at_both_servers() {
    let pair = Pair::start();
    let [one, other] = &pair.servers;
    let mut clients = [one.client(), other.client()];
    let positions = (0..200).map(|number| clients[number % 2].publish("news", number.to_string()));
    let position = positions.last().expect("some");
    let mut reversed = numbers(0..200);
    reversed.reverse();
    for server in [one, other] {
        wait_for(server, "news", &position);
        assert_eq!(history(server, "news", "after", "oldest"), numbers(0..200));
        assert_eq!(history(server, "news", "before", "latest"), reversed);
        for last in [1, 7, 120] {
            let mut client = server.client();
            let (mut found, first) = (Vec::new(), client.get(&format!("/channels/news?last={last}&wait=0")));
            let mut reply = first;
            while !reply.messages().is_empty() {
                found.extend(reply.messages());
                reply = client.get(&format!("/channels/news?after={}&wait=0", reply.position()));
            }
            assert_eq!(found, numbers(200 - last..200), "last={last}");
        }
    }
}

pub(crate) fn a_reader_resumes_at_the_other_server() {
    let pair = Pair::start();
    let mut publisher = pair.servers[0].client();
    let mut position = publisher.publish("news", "0");
    for number in 1..30 {
        let published = publisher.publish("news", number.to_string());
        // By turns: the server that published, and the other one.
        let server = &pair.servers[number % 2];
        let reply = server.client().get(&format!("/channels/news?after={position}"));
        assert_eq!((reply.messages(), reply.position()), (vec![number.to_string()], published.clone()));
        position = published;
    }
}

pub(crate) fn a_key_that_both_servers_race_is_used_once() {
    let pair = Pair::start();
    let [mut one, mut other] = [0, 1].map(|server| Line::connect(pair.servers[server].front()).expect("connected"));
    let mut position = String::new();
    for number in 0..100 {
        let (key, data) = (format!("key-{number}"), number.to_string());
        send_once(&mut one, "news", &key, &data);
        send_once(&mut other, "news", &key, &data);
        let replies = [&mut one, &mut other].map(|line| line.reply().expect("a reply"));
        assert_eq!((replies[0].status, replies[1].status), (200, 200), "{replies:?}");
        position = replies[0].position();
        assert_eq!(position, replies[1].position());
    }
    wait_for(&pair.servers[0], "news", &position);
    assert_eq!(history(&pair.servers[0], "news", "after", "oldest"), numbers(0..100));
    // A key is that of one message, at both servers.
    let statuses = [0, 1].map(|server| publish_once(&pair.servers[server], "news", "key-5", "another").status);
    assert!(statuses[0] == statuses[1] && (400..500).contains(&statuses[0]), "{statuses:?}");
}

pub(crate) fn a_message_with_a_time_to_live_ends_at_both_servers() {
    let pair = Pair::start();
    let mut publisher = pair.servers[0].client();
    let before = publisher.publish("news", "lasting");
    let reply = publisher.post("/channels/news?ttl=2", "brief");
    assert_eq!(reply.status, 200, "{reply}");
    let read = |server: &Server, from: &str| server.client().get(&format!("/channels/news?after={from}&wait=0"));
    for server in &pair.servers {
        wait_for(server, "news", &reply.position());
        assert_eq!(read(server, "oldest").messages(), ["lasting", "brief"]);
    }
    for server in &pair.servers {
        wait_until("it ends", || read(server, "oldest").messages() == ["lasting"]);
        let missed = read(server, &before);
        assert_eq!(missed.json()["items"], Value::Array(Vec::new()), "no gap");
        assert_eq!(missed.position(), reply.position());
    }
}

pub(crate) fn clearing_and_closing_reach_readers_of_the_other_server() {
    let pair = Pair::start();
    let [one, other] = &pair.servers;
    let mut publisher = one.client();
    publisher.publish("news", "0");
    let mut events = one.client().events("/channels/news?after=oldest", "");
    assert_eq!(events.next().message(), "0");
    assert_eq!(ask(other.admin(), "DELETE", "/channels/news/history").status, 204);
    for server in [one, other] {
        wait_until("the history is empty", || history(server, "news", "after", "oldest").is_empty());
    }
    let position = publisher.publish("news", "1");
    assert_eq!(events.next().message(), "1", "the numbering goes on, without a gap");
    for server in [one, other] {
        wait_for(server, "news", &position);
        assert_eq!(history(server, "news", "after", "oldest"), ["1"]);
    }
    assert_eq!(ask(other.admin(), "DELETE", "/channels/news").status, 204);
    assert_eq!(events.next().kind, "close");
    let anew = publisher.publish("news", "2");
    for server in [one, other] {
        wait_for(server, "news", &anew);
        assert_eq!(history(server, "news", "after", "oldest"), ["2"]);
        // The numbering has begun anew: a reader with a position of before gets a gap.
        let resumed = server.client().get(&format!("/channels/news?after={position}&wait=0")).json();
        let types: Vec<&Value> = resumed["items"].as_array().expect("items").iter().map(|item| &item["type"]).collect();
        assert_eq!(types, ["gap", "message"], "{resumed}");
    }
}

pub(crate) fn a_reader_of_a_pattern_gets_what_the_other_server_publishes() {
    let pair = Pair::start();
    let [one, other] = &pair.servers;
    let mut publisher = other.client();
    // Some channels are in memory at both servers, some at one, and some are new.
    for name in ["news.a", "news.b"] {
        publisher.publish(name, "before");
        assert_eq!(one.client().get(&format!("/channels/{name}?last=1&wait=0")).messages(), ["before"]);
    }
    publisher.publish("news.c", "before");
    let mut events = one.client().events("/channels/news.*", "");
    let names = ["news.a", "news.b", "news.c", "news.d", "news.e"];
    for round in 0..3 {
        for name in names {
            publisher.publish(name, format!("{name} {round}"));
            publisher.publish("other", "not this");
        }
        let got: BTreeSet<String> = names.iter().map(|_| events.next().message()).collect();
        assert_eq!(got, names.iter().map(|name| format!("{name} {round}")).collect());
    }
}

pub(crate) fn the_list_has_the_channels_of_both_servers() {
    let pair = Pair::start();
    let [one, other] = &pair.servers;
    for number in 0..6 {
        pair.servers[number % 2].client().publish(&format!("news.{number}"), "x");
    }
    for server in [one, other] {
        let list = server.admin().get("/channels?pattern=news.*").json();
        let listed = list["channels"].as_array().expect("channels").iter().map(|entry| {
            assert_eq!((&entry["messages"], entry["bytes"].as_u64() > Some(0)), (&1.into(), true), "{entry}");
            entry["channel"].as_str().expect("a name").to_owned()
        });
        let wanted: Vec<String> = (0..6).map(|number| format!("news.{number}")).collect();
        assert_eq!(listed.collect::<Vec<_>>(), wanted);
        assert_eq!(server.admin().get("/channels/news.1/info").json()["messages"], 1);
    }
}

pub(crate) fn prefixes_keep_deployments_apart() {
    let pair = Pair::start();
    // A prefix that begins with the other one, which is the default.
    let apart = pair.start_other("ccomet2");
    let server = &pair.servers[0];
    let mut events = apart.client().events("/channels/news.*,news.a", "");
    server.client().publish("news.a", "of one");
    apart.client().publish("news.a", "of the other");
    assert_eq!(events.next().message(), "of the other");
    assert_eq!(history(server, "news.a", "after", "oldest"), ["of one"]);
    assert_eq!(history(&apart, "news.a", "after", "oldest"), ["of the other"]);
    server.client().publish("only", "of one");
    let list = apart.admin().get("/channels?pattern=on*");
    assert_eq!(list.json()["channels"], Value::Array(Vec::new()), "{list}");
    assert_eq!(ask(apart.admin(), "DELETE", "/channels/news.a").status, 204);
    assert_eq!(history(server, "news.a", "after", "oldest"), ["of one"]);
}
