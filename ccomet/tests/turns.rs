//! Turns of busy and quiet channels if a client cannot take all that there is for it, on the
//! simulated network.

mod common;

use std::time::Duration;

use common::stage::{ANN, LOOPBACK, Stage};
use sealed::sim::Link;
use serde_json::{Value, json};
use testing::http::{UPGRADE, frame, request};

/// The numbers of messages that arrived in channel `busy` and in another channel.
type Counts = (usize, usize);

/// Reads on a WebSocket to `url`, and by a subscription for each of `added`, on a link that carries
/// half of what is published in `busy` within a minute. A message is published in `quiet` once a
/// second.
fn on_a_slow_link(url: &str, added: &[&[&str]], quiet: &str) -> Counts {
    let stage = Stage::new(|_| {});
    let link = Link { bandwidth: Some(100_000), buffer_bytes: 64 << 10, ..Link::default() };
    let mut peer = stage.sim.connect_over(link, stage.server.front());
    peer.send(request("GET", url, UPGRADE, ""));
    stage.sim.settle();
    for (reference, channels) in added.iter().enumerate() {
        let command = json!({"type": "subscribe", "ref": reference, "channels": channels});
        peer.send(frame(0x81, command.to_string()));
    }
    stage.sim.settle();
    peer.take();
    let (mut publisher, text) = (stage.connect(LOOPBACK), "x".repeat(20_000));
    let mut counts = (0, 0);
    for round in 0..600 {
        publisher.send(request("POST", "/channels/busy", "", &text));
        if round % 10 == 0 {
            publisher.send(request("POST", &format!("/channels/{quiet}"), "", "x"));
            // A pong: the client is there.
            peer.send(frame(0x8a, ""));
        }
        stage.sim.run_for(Duration::from_millis(100));
        let heard = String::from_utf8_lossy(&peer.take()).into_owned();
        counts.0 += heard.matches("\"channel\":\"busy\"").count();
        counts.1 += heard.matches(&format!("\"channel\":\"{quiet}\"")).count();
    }
    assert!(!peer.is_over());
    counts
}

fn assert_shared((busy, quiet): Counts) {
    assert!(busy > 200 && quiet > 55, "{busy} and {quiet} messages");
}

#[test]
fn a_busy_subscription_of_a_socket_leaves_the_others_their_turns() {
    assert_shared(on_a_slow_link("/channels", &[&["busy"], &["quiet"]], "quiet"));
    assert_shared(on_a_slow_link("/channels/busy", &[&["quiet"]], "quiet"));
    assert_shared(on_a_slow_link("/channels/quiet", &[&["busy"]], "quiet"));
    assert_shared(on_a_slow_link("/channels/busy,other", &[&["quiet"]], "quiet"));
}

#[test]
fn a_busy_channel_leaves_the_others_of_its_subscription_their_turns() {
    for quiet in ["after", "zafter"] {
        assert_shared(on_a_slow_link(&format!("/channels/busy,{quiet}"), &[], quiet));
        assert_shared(on_a_slow_link("/channels", &[&["busy", quiet]], quiet));
    }
}

#[test]
fn polls_of_a_busy_channel_bring_what_has_waited_longer_in_others() {
    let stage = Stage::new(|_| {});
    let publish = |channel: &str, bytes: usize| {
        let target = format!("/channels/{channel}");
        let reply = stage.exchange(&mut stage.connect(LOOPBACK), "POST", &target, "", &"x".repeat(bytes));
        assert_eq!(reply.status, 200, "{reply}");
        stage.sim.run_for(Duration::from_millis(10));
    };
    // One of them is more than there is room for in a reply.
    let publish_busy = || publish("busy", 65_500);
    let mut peer = stage.connect(ANN);
    let mut position = "oldest".to_owned();
    let mut poll = || {
        let target = format!("/channels/busy,quiet?after={position}");
        let reply = stage.exchange(&mut peer, "GET", &target, "", "").json();
        position = reply["position"].as_str().expect("a position").to_owned();
        let items = reply["items"].as_array().expect("items").clone();
        items.iter().map(|item: &Value| item["channel"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    (0..3).for_each(|_| publish_busy());
    publish("quiet", 1);
    let mut polls = Vec::new();
    for _ in 0..6 {
        publish_busy();
        polls.push(poll());
    }
    let first = polls.iter().position(|channels| channels.contains(&"quiet".to_owned()));
    assert_eq!(first, Some(3), "{polls:?}");
}
