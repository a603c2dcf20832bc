//! Subscriptions to patterns of channels, over several loops.

mod common;

use std::collections::HashMap;

use ccomet::Config;
use common::{Client, Local, config};

fn open() -> Config {
    let mut config = config(3);
    config.front.patterns = true;
    config
}

/// Returns names whose homes are spread over all loops.
fn names() -> impl Iterator<Item = String> {
    (0..12).map(|index| format!("news.{index}"))
}

#[test]
fn a_pattern_gets_the_messages_of_its_channels_and_of_later_ones() {
    let server = Local::start(open());
    let mut publisher = Client::connect(server.front);
    for name in names().take(6) {
        publisher.publish(&name, format!("{name} before"));
    }
    let mut events = Client::connect(server.front).events("/channels/news.*", "");
    for name in names() {
        publisher.publish(&name, format!("{name} after"));
        publisher.publish("other", "not this");
    }
    let mut got: Vec<String> = names().map(|_| events.next().message()).collect();
    got.sort();
    let mut wanted: Vec<String> = names().map(|name| format!("{name} after")).collect();
    wanted.sort();
    assert_eq!(got, wanted);
}

#[test]
fn history_is_in_a_pattern_and_positions_resume_in_it() {
    let server = Local::start(open());
    let mut publisher = Client::connect(server.front);
    let mut positions = HashMap::new();
    for round in 0..2 {
        for name in names() {
            positions.insert((name.clone(), round), publisher.publish(&name, format!("{name} {round}")));
        }
    }
    let mut reader = Client::connect(server.front);
    let whole = reader.get("/channels/news.*?after=oldest&wait=0");
    let items = whole.json()["items"].as_array().expect("items").clone();
    assert_eq!(items.len(), 24, "{whole:?}");
    let mut seen: HashMap<String, u64> = HashMap::new();
    for item in &items {
        let name = item["channel"].as_str().expect("a channel").to_owned();
        let round = seen.entry(name.clone()).or_default();
        assert_eq!(item["data"], format!("{name} {round}"), "in each channel in order");
        assert_eq!(item["position"], positions[&(name, *round)], "an item's position is its channel's own");
        *round += 1;
    }
    // Resumes from the middle, on any loop.
    let mut position = whole.position();
    for round in 2..5 {
        for name in names() {
            publisher.publish(&name, format!("{name} {round}"));
        }
        let mut got = Vec::new();
        while got.len() < 12 {
            let next = Client::connect(server.front).get(&format!("/channels/news.*?after={position}"));
            got.extend(next.messages());
            position = next.position();
        }
        got.sort();
        let mut wanted: Vec<String> = names().map(|name| format!("{name} {round}")).collect();
        wanted.sort();
        assert_eq!(got, wanted, "nothing twice, nothing missed");
    }
}

#[test]
fn a_subscription_may_have_patterns_and_names() {
    let server = Local::start(open());
    let mut publisher = Client::connect(server.front);
    let mut events = Client::connect(server.front).events("/channels/news.*,chat,*.9", "");
    publisher.publish("chat", "c");
    assert_eq!(events.next().message(), "c");
    publisher.publish("news.9", "n");
    let both = [events.next(), events.next()];
    assert!(both.iter().all(|event| event.message() == "n"), "once for each: {both:?}");
}

#[test]
fn clearing_a_channel_removes_its_messages_from_patterns() {
    let server = Local::start(open());
    let mut publisher = Client::connect(server.front);
    let mut admin = Client::connect(server.admin);
    for method in ["clear", "close"] {
        publisher.publish("news.a", "secret");
        let has =
            || Client::connect(server.front).get("/channels/news.*?after=oldest&wait=0").text().contains("secret");
        common::wait_until("it is there", has);
        assert_eq!(admin.get(&format!("/{method}?cname=news.a")).status, 200);
        common::wait_until("it is forgotten", || !has());
    }
}

#[test]
fn the_front_has_patterns_only_if_configured() {
    let server = Local::start(config(2));
    let refused = Client::connect(server.front).get("/channels/news.*?wait=0");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("pattern_forbidden")));
    assert_eq!(Client::connect(server.admin).get("/channels/news.*?wait=0").status, 200);
    assert_eq!(Client::connect(server.front).post("/channels/news.*", "x").status, 403);
}

#[test]
fn patterns_are_limited() {
    let mut config = open();
    config.loops = 1.try_into().ok();
    config.limits.patterns_max = 2;
    let server = Local::start(config);
    let mut reader = Client::connect(server.front);
    for (pattern, status) in [("a*", 200), ("b*", 200), ("a*", 200), ("c*", 503)] {
        assert_eq!(reader.get(&format!("/channels/{pattern}?wait=0")).status, status, "{pattern}");
    }
}
