//! Operations that concern many channels at once: messages to all channels of a pattern, and
//! subscriptions to patterns. On the simulated network, which counts the work of each tick.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use ccomet::{Config, Rule};
use common::Reply;
use common::stage::{ANN, BOB, Stage};
use sealed::sim::Peer;
use serde_json::{Value, json};

/// The units of work that a loop may use in a tick, and what the last step may use beyond.
const WORK_MAX: usize = 8_192 + 200;

impl Stage {
    fn of(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(1, loops, |config| {
            config.front.patterns = true;
            config.limits.publications_per_request_max = 10_000;
            config.limits.page_items_max = 100_000;
            config.limits.batch_bytes_max = 1 << 20;
            config.history.bytes_max = 1 << 28;
            change(config);
        })
    }

    fn ask(&self, peer: &mut Peer, method: &str, target: &str, body: &str) -> Reply {
        self.exchange(peer, method, target, "", body)
    }

    /// Publishes a number of messages in each of a number of channels, `PREFIX0` and so on. Each
    /// message contains the number of its channel and its own.
    fn fill(&self, prefix: &str, channels: usize, messages: usize) {
        let mut admin = self.admin();
        let names: Vec<usize> = (0..channels).collect();
        for number in 0..messages {
            self.sim.run_for(Duration::from_millis(2));
            for some in names.chunks(1_000) {
                let message = |n: &usize| json!({"channel": format!("{prefix}{n}"), "data": format!("{n} {number}")});
                let messages: Vec<Value> = some.iter().map(message).collect();
                let reply = self.ask(&mut admin, "POST", "/messages", &json!({ "messages": messages }).to_string());
                assert_eq!(reply.status, 200, "{reply}");
            }
        }
    }

    /// Returns the messages that a channel or a pattern keeps.
    fn held(&self, channel: &str) -> Vec<String> {
        if channel.contains('*') {
            return self.held_in_pattern(channel);
        }
        let target = format!("/channels/{channel}/history?after=oldest&limit=100000");
        let reply = self.ask(&mut self.admin(), "GET", &target, "");
        if reply.status == 404 { Vec::new() } else { reply.messages() }
    }

    fn held_in_pattern(&self, pattern: &str) -> Vec<String> {
        let (mut reader, mut all, mut position) = (self.admin(), Vec::new(), "oldest".to_owned());
        loop {
            let target = format!("/channels/{pattern}?wait=0&after={position}");
            let reply = self.ask(&mut reader, "GET", &target, "");
            let messages = reply.messages();
            if messages.is_empty() {
                return all;
            }
            all.extend(messages);
            position = reply.position();
        }
    }
}

fn request(method: &str, target: &str, body: &str) -> String {
    testing::http::request(method, target, "", body)
}

fn code(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
}

fn retry_s(reply: &Reply) -> u64 {
    reply.header("retry-after").expect("when to come back").parse().expect("seconds")
}

#[test]
fn a_message_to_many_channels_reaches_each_once_over_several_ticks() {
    const CHANNELS: usize = 6_000;
    for loops in [1, 3] {
        let stage = Stage::of(loops, |config| config.history.messages_max = 10 * CHANNELS);
        stage.fill("c", CHANNELS, 1);
        // Forty patterns have subscribers. Each receives every message.
        let mut readers = Vec::new();
        for n in 0..40 {
            let mut reader = stage.connect(ANN);
            reader.discard();
            let target = format!("/channels/{}c*?transport=sse", "*".repeat(n % 2) + &"c*".repeat(n / 2)[..n / 2]);
            reader.send(request("GET", &target, ""));
            readers.push(reader);
        }
        stage.sim.settle();
        let turns = stage.sim.turns();
        let reply = stage.ask(&mut stage.admin(), "POST", "/channels/c*", "all");
        assert_eq!(reply.json()["results"][0]["channels"], CHANNELS, "{reply}");
        assert!(stage.sim.turns() - turns > 10, "in several ticks");
        assert!(stage.server.most_work() <= WORK_MAX, "{}", stage.server.most_work());
        for n in [0, 1, CHANNELS / 2, CHANNELS - 1] {
            assert_eq!(stage.held(&format!("c{n}")), [format!("{n} 0"), "all".to_owned()]);
        }
        let all = stage.held("c*").into_iter().filter(|message| message == "all").count();
        assert_eq!(all, CHANNELS);
    }
}

#[test]
fn messages_to_patterns_keep_their_order_and_skip_deleted_channels() {
    const CHANNELS: usize = 12_000;
    let stage = Stage::of(1, |_| {});
    stage.fill("c", CHANNELS, 1);
    let mut admins: Vec<Peer> = (0..4).map(|_| stage.admin()).collect();
    for (n, admin) in admins.iter_mut().enumerate() {
        admin.send(request("POST", "/channels/c*", &n.to_string()));
        stage.sim.run_for(Duration::from_micros(100));
    }
    // Another channel takes the place of a deleted one while messages are in transit.
    let mut other = stage.admin();
    for request in [request("DELETE", "/channels/c11999", ""), request("POST", "/channels/other", "first")] {
        other.send(request);
        stage.sim.run_for(Duration::from_micros(100));
    }
    stage.sim.settle();
    let reached: Vec<Value> = admins.iter_mut().map(|admin| stage.reply(admin).json()).collect();
    assert!(reached.iter().all(|reply| reply["results"][0]["channels"].as_u64() >= Some(CHANNELS as u64 - 1)));
    let order = stage.held("c7")[1..].to_vec();
    assert_eq!(order.len(), 4);
    for n in [0, 1_000, 6_500, 11_998] {
        assert_eq!(stage.held(&format!("c{n}"))[1..], order);
    }
    assert_eq!(stage.held("other"), ["first"]);
}

#[test]
fn a_message_to_a_pattern_costs_as_many_publications_as_it_reaches() {
    let stage = Stage::of(1, |config| config.limits.publishes_per_address_minute = 100);
    stage.fill("c", 150, 1);
    stage.fill("else", 9_000, 1);
    let publish = |address: &str| stage.ask(&mut stage.connect(address), "POST", "/channels/c0", "x");
    assert_eq!(stage.ask(&mut stage.connect(ANN), "POST", "/channels/c*", "all").status, 200);
    let refused = publish(ANN);
    assert_eq!(code(&refused), (429, "too_many_requests".to_owned()));
    // The client owes 50, and needs room for one more.
    assert!((29..=31).contains(&retry_s(&refused)), "{}", refused.head);
    assert_eq!(publish(BOB).status, 200, "others pay nothing");
    stage.sim.run_for(Duration::from_secs(32));
    assert_eq!(publish(ANN).status, 200);
    // A client that does not wait for the answer is charged as well.
    let mut hasty = stage.connect("192.0.2.3");
    hasty.send(request("POST", "/channels/c*", "all"));
    let holds = || stage.server.holdings().asking > 0;
    assert!(stage.sim.run_until(Duration::from_secs(1), holds), "it is under way");
    drop(hasty);
    stage.sim.settle();
    assert_eq!(publish("192.0.2.3").status, 429);
    // A message that reaches no channel still counts as one publication.
    let mut asker = stage.connect("192.0.2.4");
    let fine = (0..300).take_while(|_| stage.ask(&mut asker, "POST", "/channels/none*", "").status == 200).count();
    assert!((100..200).contains(&fine), "{fine}");
}

#[test]
fn a_pattern_of_too_many_channels_is_refused_before_any_of_them_gets_the_message() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |config| config.limits.channels_per_broadcast_max = 10);
        stage.fill("few", 10, 1);
        stage.fill("many", 31, 1);
        let few = stage.ask(&mut stage.connect(ANN), "POST", "/channels/few*", "all");
        assert_eq!(few.json()["results"][0]["channels"], 10, "{few}");
        let many = stage.ask(&mut stage.connect(ANN), "POST", "/channels/many*", "all");
        assert_eq!(code(&many), (403, "broadcast_too_wide".to_owned()));
        if loops == 1 {
            assert_eq!(stage.held("many0"), ["0 0"]);
        }
        // The admin listener has no such limit.
        let all = stage.ask(&mut stage.admin(), "POST", "/channels/many*", "all");
        assert_eq!(all.json()["results"][0]["channels"], 31, "{all}");
    }
}

#[test]
fn messages_in_transit_to_patterns_are_limited() {
    let stage = Stage::of(1, |config| config.limits.broadcasts_under_way_max = 2);
    stage.fill("c", 3_000, 1);
    let messages = [0; 5].map(|_| json!({"channel": "c*", "data": "all"}));
    let body = json!({ "messages": messages }).to_string();
    let reply = stage.ask(&mut stage.admin(), "POST", "/messages", &body);
    assert_eq!(code(&reply), (503, "broadcast_limit".to_owned()));
    assert!(retry_s(&reply) > 0);
    let results = reply.json()["results"].clone();
    let reached = results.as_array().expect("results").iter().filter(|result| result["channels"] == 3_000).count();
    assert_eq!(reached, 2, "{results}");
    assert_eq!(stage.held("c0"), ["0 0", "all", "all"]);
}

#[test]
fn messages_published_while_a_pattern_is_filled_leave_no_hole() {
    let stage = Stage::of(1, |config| config.history.bytes_max = 3_000);
    // Scanning all channels takes several ticks.
    stage.fill("c", 40_000, 1);
    for delay in 0..30 {
        let (mut reader, mut publisher) = (stage.connect(ANN), stage.admin());
        // The newest message of all.
        assert_eq!(stage.ask(&mut publisher, "POST", "/channels/c0", "x").status, 200);
        stage.sim.run_for(Duration::from_millis(2));
        reader.send(request("GET", "/channels/c*?wait=0&after=oldest", ""));
        stage.sim.run_for(Duration::from_micros(delay * 20));
        // The pattern's history has no room for both.
        for _ in 0..2 {
            publisher.send(request("POST", "/channels/c0", &"x".repeat(2_000)));
        }
        stage.sim.settle();
        let reply = Reply::decode("GET", &reader.take()).json();
        let items = reply["items"].as_array().expect("items").iter().filter(|item| item["channel"] == "c0");
        let number = |item: &Value| {
            item["position"].as_str().and_then(|text| u64::from_str_radix(text.rsplit('-').next()?, 36).ok())
        };
        let numbers: Vec<u64> = items.map(|item| number(item).expect("a position")).collect();
        assert!(numbers.is_sorted_by(|one, next| one + 1 == *next), "a hole after {delay}: {numbers:?}");
        stage.sim.run_for(Duration::from_secs(2_000));
    }
}

#[test]
fn patterns_without_subscribers_cost_nothing() {
    let stage = Stage::of(1, |config| config.limits.patterns_max = 10);
    stage.fill("c", 100, 1);
    for n in 0..300 {
        assert_eq!(stage.ask(&mut stage.admin(), "GET", &format!("/channels/c{n}*?wait=0"), "").status, 200);
        // The server keeps a pattern for some time after its last reader.
        stage.sim.run_for(Duration::from_secs(20));
    }
    let reply = stage.ask(&mut stage.admin(), "POST", "/channels/c*", "all");
    assert_eq!(reply.json()["results"][0]["channels"], 100, "{reply}");
    // The server matches each message against the patterns that it keeps.
    let most = stage.server.most_work();
    assert!(most <= 100 * 50, "{most}");
}

#[test]
fn one_client_may_have_a_quarter_of_the_messages_in_transit_to_patterns() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |config| config.limits.broadcasts_under_way_max = 8);
        stage.fill("c", 3_000, 1);
        let messages = [0; 20].map(|_| json!({"channel": "c*", "data": "all"}));
        let body = json!({ "messages": messages }).to_string();
        let mut greedy = stage.connect(ANN);
        greedy.send(request("POST", "/messages", &body));
        let holds = || stage.server.holdings().asking > 0;
        assert!(stage.sim.run_until(Duration::from_secs(1), holds), "it is under way");
        let other = stage.ask(&mut stage.connect("192.0.2.9"), "POST", "/channels/c*", "hello");
        assert_eq!(other.json()["results"][0]["channels"], 3_000, "{other}");
        let reply = Reply::decode("POST", &greedy.take());
        assert!(reply.is(429, "client_limit"), "{reply}");
        let results = reply.json()["results"].clone();
        let reached = results.as_array().expect("results").iter().filter(|result| result["channels"] == 3_000).count();
        // Messages after the second begin only if another one is finished before they come to a
        // home loop.
        assert!((2..8).contains(&reached), "{results}");
    }
}

#[test]
fn a_new_pattern_begins_with_the_newest_messages_found_over_several_ticks() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |config| config.history.messages_max = 100);
        stage.fill("c", 500, 80);
        assert_eq!(stage.ask(&mut stage.connect(ANN), "GET", "/channels/c*?wait=0", "").status, 200);
        let messages = stage.held("c*");
        assert_eq!(messages.len(), 100, "as much as one channel keeps");
        assert!(messages.iter().all(|message| message.ends_with(" 79")), "{messages:?}");
        let most = stage.server.most_work();
        assert!(most <= WORK_MAX, "{most}");
    }
}

#[test]
fn messages_published_while_a_pattern_is_filled_are_in_it_once() {
    const CHANNELS: usize = 500;
    for loops in [1, 3] {
        let stage = Stage::of(loops, |config| config.history.messages_max = 1_000_000);
        stage.fill("c", CHANNELS, 80);
        let mut reader = stage.connect(ANN);
        reader.send(request("GET", "/channels/c*?last=1&wait=0", ""));
        let mut publishers: Vec<Peer> = (0..40).map(|_| stage.admin()).collect();
        for (n, publisher) in publishers.iter_mut().enumerate() {
            // From both ends, so that the scan has passed some of the channels and not others.
            let channel = if n % 2 == 0 { n * 7 } else { CHANNELS - n * 7 };
            publisher.send(request("POST", &format!("/channels/c{channel}"), &format!("{channel} {}", 1_000 + n)));
            stage.sim.run_for(Duration::from_micros(50));
        }
        stage.sim.settle();
        assert_eq!(stage.reply(&mut reader).status, 200);
        let mut in_pattern: HashMap<String, Vec<String>> = HashMap::new();
        for message in stage.held("c*") {
            let channel = message.split(' ').next().expect("a channel").to_owned();
            in_pattern.entry(channel).or_default().push(message);
        }
        assert_eq!(in_pattern.values().map(Vec::len).sum::<usize>(), CHANNELS * 80 + 40);
        for n in 0..CHANNELS {
            assert_eq!(in_pattern[&n.to_string()], stage.held(&format!("c{n}")), "in order, each once");
        }
    }
}

/// Parses rules from TOML.
fn rules(toml: &str) -> Vec<Rule> {
    toml::from_str::<Config>(toml).expect("TOML").rules
}

#[test]
fn a_message_to_a_pattern_reaches_only_channels_that_allow_its_length() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |config| {
            config.rules = rules("[[rules]]\nchannels = \"small.*\"\nmessage_bytes_max = 5\n");
        });
        stage.fill("small.", 5, 1);
        stage.fill("large.", 5, 1);
        for (message, reached) in [("123456", 5), ("12345", 10)] {
            let reply = stage.ask(&mut stage.admin(), "POST", "/channels/*", message);
            assert_eq!(reply.json()["results"][0]["channels"], reached, "{reply}");
        }
        assert_eq!(stage.held("small.1"), ["1 0", "12345"]);
        assert_eq!(stage.held("large.1"), ["1 0", "123456", "12345"]);
    }
}

#[test]
fn a_pattern_delivers_no_message_that_has_expired_in_its_channel() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |config| {
            config.rules = rules("[[rules]]\nchannels = \"short.*\"\nage_max_s = 60\n");
        });
        let publish = |text: &str| {
            for channel in ["short.a", "long.a"] {
                assert_eq!(stage.ask(&mut stage.admin(), "POST", &format!("/channels/{channel}"), text).status, 200);
            }
        };
        // One message before the pattern is subscribed to, and one after.
        publish("1");
        let mut reader = stage.connect(ANN);
        reader.discard();
        reader.send(request("GET", "/channels/*?transport=sse", ""));
        stage.sim.settle();
        publish("2");
        let sorted = |mut messages: Vec<String>| {
            messages.sort();
            messages
        };
        assert_eq!(sorted(stage.held("*")), ["1", "1", "2", "2"]);
        stage.sim.run_for(Duration::from_secs(62));
        assert_eq!(sorted(stage.held("*")), ["1", "2"]);
        assert_eq!(stage.held("long.a"), ["1", "2"]);
    }
}

#[test]
fn a_pattern_has_no_more_readers_than_the_strictest_rule_of_its_channels_allows() {
    let stage = Stage::of(1, |config| {
        config.rules = rules("[[rules]]\nchannels = \"few.*\"\nsubscribers_max = 2\n");
    });
    let mut streams = Vec::new();
    let mut subscribe = |pattern: &str| {
        let mut stream = stage.connect(ANN);
        stream.send(request("GET", &format!("/channels/{pattern}?transport=sse"), ""));
        let status = stage.reply(&mut stream).status;
        streams.push(stream);
        status
    };
    for (pattern, statuses) in [("*", [200, 200, 503]), ("few.x*", [200, 200, 503]), ("other.*", [200, 200, 200])] {
        assert_eq!([(); 3].map(|()| subscribe(pattern)), statuses, "{pattern}");
    }
}
