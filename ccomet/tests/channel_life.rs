//! How long channels and patterns exist, and which of them the server removes at its limits. On the
//! simulated network, where hours pass in a moment.

mod common;

use std::time::Duration;

use ccomet::Config;
use common::stage::{LOOPBACK, Stage};
use sealed::sim::Peer;
use serde_json::Value;

impl Stage {
    fn of(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(1, loops, |config| {
            config.front.patterns = true;
            change(config);
        })
    }

    /// Sends a request on a new connection, and returns its status and JSON.
    fn ask(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let mut peer = if method == "DELETE" { self.admin() } else { self.connect(LOOPBACK) };
        let reply = self.exchange(&mut peer, method, target, "", body);
        (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
    }

    fn get(&self, target: &str) -> Value {
        let (status, json) = self.ask("GET", target, "");
        assert_eq!(status, 200, "{target}: {json}");
        json
    }

    fn publish(&self, channel: &str) -> u16 {
        self.ask("POST", &format!("/channels/{channel}"), channel).0
    }

    fn stream(&self, channel: &str) -> Peer {
        let peer = self.begin(LOOPBACK, "GET", &format!("/channels/{channel}?transport=sse"), "");
        self.sim.settle();
        peer
    }

    fn channels(&self) -> usize {
        self.server.holdings().channels
    }

    /// Returns whether a channel of that name exists.
    fn has(&self, channel: &str) -> bool {
        self.exchange(&mut self.admin(), "GET", &format!("/channels/{channel}/info"), "", "").status == 200
    }

    fn minutes(&self, minutes: u64) {
        self.sim.run_for(Duration::from_secs(60 * minutes));
    }
}

fn types(reply: &Value) -> Vec<&str> {
    let items = reply["items"].as_array().expect("items");
    items.iter().map(|item| item["type"].as_str().expect("a type")).collect()
}

fn position(reply: &Value) -> &str {
    reply["position"].as_str().expect("a position")
}

#[test]
fn a_channel_that_is_only_read_is_removed_with_its_last_reader() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |_| {});
        for target in [
            "/channels/a?wait=0",
            "/channels/b,c?wait=0",
            "/channels/d/history",
            "/channels/e/presence",
            "/channels/f*?wait=0",
            "/sign?channel=g&sname=ann&callback=f",
            "/subscribe?channel=h&sname=ann&seqid=1&callback=f",
        ] {
            stage.ask_and_leave(target);
        }
        let stream = stage.stream("i");
        stage.minutes(3);
        assert_eq!(stage.channels(), 1, "the one that is still read");
        drop(stream);
        stage.minutes(3);
        let held = stage.server.holdings();
        assert_eq!((held.channels, held.attached_channels), (0, 0));
    }
}

impl Stage {
    /// Sends a request, and hangs up without waiting for a later answer.
    fn ask_and_leave(&self, target: &str) {
        let _peer = self.begin(LOOPBACK, "GET", target, "");
        self.sim.settle();
    }
}

#[test]
fn a_sign_in_creates_no_channel() {
    let stage = Stage::of(1, |_| {});
    stage.ask_and_leave("/sign?channel=a&sname=ann&callback=f");
    assert_eq!(stage.channels(), 0);
}

#[test]
fn a_refused_subscription_creates_no_channel() {
    let stage = Stage::of(1, |config| config.limits.subscribers_per_channel_max = 1);
    let _reader = stage.stream("full");
    let (status, problem) = stage.ask("GET", "/channels/fresh,full?wait=0", "");
    assert_eq!((status, &problem["code"]), (503, &"subscriber_limit".into()));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.starts_with("The channel")), "{problem}");
    let listed = stage.exchange(&mut stage.admin(), "GET", "/channels", "", "");
    assert!(listed.is(200, "full") && !listed.is(200, "fresh"), "{listed}");
}

#[test]
fn a_channel_whose_message_expired_keeps_its_numbers() {
    let stage = Stage::of(1, |config| config.history.age_max_s = 10);
    assert_eq!(stage.publish("news"), 200);
    let before = position(&stage.get("/channels/news?wait=0")).to_owned();
    stage.minutes(30);
    assert!(types(&stage.get(&format!("/channels/news?wait=0&after={before}"))).is_empty());
    stage.minutes(70);
    assert_eq!(stage.channels(), 0);
}

#[test]
fn a_reader_of_a_recreated_channel_gets_a_gap_only_if_one_is_possible() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |_| {});
        let before = position(&stage.get("/channels/news?wait=0")).to_owned();
        stage.minutes(3);
        assert_eq!(stage.channels(), 0);
        let resume = || stage.get(&format!("/channels/news?wait=0&after={before}"));
        assert!(types(&resume()).is_empty());
        stage.minutes(3);
        stage.publish("news");
        assert_eq!(types(&resume()), ["message"]);
        // This removes the channel with the message that was published in it.
        assert_eq!(stage.ask("DELETE", "/channels/news", "").0, 204);
        assert_eq!(types(&resume()), ["gap"]);
        stage.publish("news");
        assert_eq!(types(&resume()), ["gap", "message"]);
    }
}

#[test]
fn unread_patterns_make_room_for_others_and_expire() {
    let stage = Stage::of(1, |config| config.limits.patterns_max = 3);
    let _stream = stage.stream("a*");
    for n in 0..2 {
        stage.get(&format!("/channels/b{n}*?wait=0"));
    }
    assert_eq!(stage.ask("GET", "/channels/c*?wait=0", "").0, 503, "a poll may come back in a moment");
    stage.sim.run_for(Duration::from_secs(10));
    // The pattern that lost its readers first makes room, and a position in the other one stays
    // valid.
    let other = position(&stage.get("/channels/b1*?wait=0")).to_owned();
    stage.sim.run_for(Duration::from_secs(10));
    stage.get("/channels/c*?wait=0");
    assert!(types(&stage.get(&format!("/channels/b1*?wait=0&after={other}"))).is_empty());
    stage.minutes(4);
    assert_eq!(stage.channels(), 1, "the one that is read");
}

#[test]
fn at_the_limit_the_longest_idle_channel_is_removed() {
    let stage = Stage::of(1, |config| {
        config.limits.channels_max = 4;
        config.history.age_max_s = 10;
    });
    let _stream = stage.stream("read");
    for name in ["a", "b", "c"] {
        assert_eq!(stage.publish(name), 200);
        stage.minutes(2);
    }
    // Channel `a` was idle, and is idle again, with its time counted anew.
    assert_eq!(stage.publish("a"), 200);
    stage.minutes(2);
    assert_eq!(stage.publish("d"), 200);
    assert_eq!(["read", "a", "b", "c", "d"].map(|name| stage.has(name)), [true, true, false, true, true]);
    for name in ["e", "f"] {
        assert_eq!(stage.publish(name), 200);
    }
    // The other channels have messages or a reader.
    assert_eq!(stage.publish("g"), 503);
    assert_eq!(["read", "d", "e", "f"].map(|name| stage.has(name)), [true; 4]);
}

#[test]
fn a_calendar_set_back_keeps_no_channel_longer() {
    let stage = Stage::of(1, |config| {
        config.times.channel_idle_s = 20;
        config.history.age_max_s = 5;
    });
    assert_eq!(stage.publish("news"), 200);
    // Messages are dated by the calendar, and are too old before the calendar is set back.
    stage.sim.run_for(Duration::from_secs(10));
    stage.sim.set_unix_time(stage.sim.unix_time().saturating_sub(Duration::from_secs(3_600)));
    stage.sim.run_for(Duration::from_secs(60));
    assert_eq!(stage.channels(), 0);
}
