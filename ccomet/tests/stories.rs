//! Scenarios on the simulated network that depend on the order of clients or on time.

mod common;

use std::time::Duration;

use common::Reply;
use common::stage::{LOOPBACK, Stage};
use sealed::sim::Peer;
use testing::http::request;

const SECOND: Duration = Duration::from_secs(1);

/// Seeds: in each, clients come to other loops, and loops run in another order.
const SEEDS: std::ops::Range<u64> = 0..40;

impl Stage {
    fn of(seed: u64) -> Self {
        Self::with(seed, 3, |_| {})
    }

    /// Sends a request on a new connection, and returns when all effects of the request have
    /// happened.
    fn ask(&self, target: &str) -> Peer {
        let peer = self.begin(LOOPBACK, "GET", target, "");
        self.sim.settle();
        peer
    }

    fn answer(&self, request: &str) -> String {
        body(&mut self.ask(request))
    }

    /// Publishes, and returns the position when all subscribers have the message.
    fn publish(&self, channel: &str, text: &str) -> String {
        let position = self.publish_without_settling(channel, text);
        self.sim.settle();
        position
    }

    /// Publishes, and returns the position as soon as the publisher has its answer.
    fn publish_without_settling(&self, channel: &str, text: &str) -> String {
        let mut peer = self.connect(LOOPBACK);
        peer.send(request("POST", &format!("/channels/{channel}"), "", text));
        Reply::decode("POST", &peer.expect("\"}\n")).position()
    }
}

/// Returns the body of a response.
fn body(peer: &mut Peer) -> String {
    let reply = Reply::decode("GET", &peer.take());
    assert_eq!(reply.status, 200, "{reply}");
    reply.text().to_owned()
}

fn is_waiting(peer: &mut Peer) -> bool {
    peer.take().is_empty() && !peer.is_over()
}

fn subscribe(name: &str, seqid: u64) -> String {
    format!("/subscribe?channel=abc&sname={name}&seqid={seqid}&callback=cb")
}

#[test]
fn a_newer_poll_of_a_name_replaces_the_older_one_on_any_loop() {
    for seed in SEEDS {
        let stage = Stage::of(seed);
        let mut polls = vec![stage.ask(&subscribe("ann", 0))];
        for _ in 0..5 {
            let newer = stage.ask(&subscribe("ann", 0));
            let mut older = polls.pop().expect("one waits");
            assert_eq!(body(&mut older), "");
            assert!(older.is_ended());
            polls.push(newer);
        }
        // The same name in another channel belongs to another client.
        let mut other = stage.ask("/subscribe?channel=other&sname=ann&seqid=0&callback=cb");
        stage.publish("abc", "hi");
        assert!(body(&mut polls[0]).contains("\"hi\""));
        assert!(is_waiting(&mut other));
    }
}

#[test]
fn a_sign_in_reaches_clients_that_wait_and_no_later_ones() {
    for seed in SEEDS {
        let stage = Stage::of(seed);
        stage.publish("abc", "0");
        let (mut bob, mut cid) = (stage.ask(&subscribe("bob", 1)), stage.ask(&subscribe("cid", 1)));
        let mut ann = stage.ask(&subscribe("ann", 1));
        assert_eq!(stage.answer("/sign?channel=abc&sname=ann&callback=cb"), r#"cb('[{"type" : "sign in"}]')"#);
        for other in [&mut bob, &mut cid] {
            assert_eq!(
                body(other),
                r#"cb('[{"type":"SIGN","msg":"SIGN","sname":"ann","seqid":"1","channel":"abc"}]')"#
            );
        }
        assert_eq!(body(&mut ann), "", "a wait of that name ends without an item");
        assert!(ann.is_ended());
        bob.send(request("GET", &subscribe("bob", 1), "", ""));
        stage.sim.settle();
        assert!(is_waiting(&mut bob), "a sign-in is not kept");
        stage.publish("abc", "1");
        assert!(body(&mut bob).contains(r#""msg":"1","sname":"","seqid":"1""#));
    }
}

#[test]
fn a_number_beyond_the_head_waits_for_the_next_message_whatever_its_number() {
    for seed in SEEDS {
        let stage = Stage::of(seed);
        stage.publish("abc", "0");
        let (mut at_head, mut beyond) = (stage.ask(&subscribe("bob", 1)), stage.ask(&subscribe("cid", 77)));
        assert!(is_waiting(&mut at_head) && is_waiting(&mut beyond));
        stage.publish("abc", "1");
        assert_eq!(body(&mut at_head), body(&mut beyond));
    }
}

#[test]
fn a_position_is_valid_on_loops_that_do_not_have_the_message_yet() {
    for seed in SEEDS {
        let stage = Stage::of(seed);
        // Every loop reads the channel, some with delay.
        let readers: Vec<Peer> = (0..6).map(|_| stage.ask("/channels/news?after=latest&wait=60")).collect();
        drop(readers);
        let mut position = stage.publish("news", "0");
        for n in 1..20 {
            let text = n.to_string();
            let after = stage.publish_without_settling("news", &text);
            // A poll from the end of the previous message, before the simulation settles.
            let reply = stage.answer(&format!("/channels/news?wait=0&after={position}"));
            let reply: serde_json::Value = serde_json::from_str(&reply).expect("JSON");
            assert_eq!((&reply["items"][0]["type"], &reply["items"][0]["data"]), (&"message".into(), &text.into()));
            position = after;
            // A poll from the end of this message gets neither a gap nor a message.
            let reply = stage.answer(&format!("/channels/news?wait=0&after={position}"));
            assert!(reply.contains("\"items\":[]"), "{reply}");
        }
    }
}

#[test]
fn deleting_a_channel_ends_its_subscriptions_on_every_loop() {
    for seed in SEEDS {
        let stage = Stage::of(seed);
        let position = stage.publish("news", "0");
        let mut polls: Vec<Peer> = (0..6).map(|_| stage.ask(&format!("/channels/news?after={position}"))).collect();
        let mut scripts: Vec<Peer> =
            (0..3).map(|_| stage.ask(&format!("/channels/news?after={position}&callback=f"))).collect();
        stage.delete("news");
        for poll in &mut polls {
            assert!(body(poll).contains(r#""items":[{"type":"close","channel":"news"}]"#));
        }
        for script in &mut scripts {
            assert!(body(script).contains(r#"{"type":"close","channel":"news"}"#));
        }
        // The old position belongs to an epoch that has ended, though nothing has been published
        // since.
        for _ in 0..3 {
            let reply = stage.answer(&format!("/channels/news?after={position}"));
            assert!(reply.contains(r#"{"type":"gap","channel":"news","missed":null"#), "{reply}");
        }
    }
}

#[test]
fn polls_wait_as_long_as_requested_and_streams_have_heartbeats() {
    let stage = Stage::of(1);
    let start = stage.sim.now();
    let mut poll = stage.ask("/channels/news?wait=20");
    poll.expect("\"items\":[]}");
    let took = stage.sim.now().saturating_sub(start);
    assert!(took >= SECOND * 20 && took < SECOND * 21, "{took:?}");

    let mut stream = stage.begin(LOOPBACK, "GET", "/channels/news", "Accept: text/event-stream\r\n");
    stream.expect("event: hello");
    for _ in 0..3 {
        let start = stage.sim.now();
        stream.expect("event: heartbeat");
        assert!(stage.sim.now().saturating_sub(start) <= SECOND * 30, "within two intervals");
    }
}

#[test]
fn history_expires_and_a_reader_gets_a_gap() {
    let stage = Stage::with(1, 3, |config| config.history.age_max_s = 60);
    let position = stage.publish("news", "0");
    for n in 1..5 {
        stage.publish("news", &n.to_string());
    }
    stage.sim.run_for(SECOND * 61);
    let last = stage.publish("news", "5");
    let reply = stage.answer(&format!("/channels/news?after={position}"));
    assert!(reply.contains(r#"{"type":"gap","channel":"news","missed":4,"#), "{reply}");
    assert!(reply.contains(r#""data":"5"}"#) && reply.contains(&last), "{reply}");
}

#[test]
fn a_sign_in_does_not_end_polls_of_the_native_api() {
    for seed in SEEDS {
        let stage = Stage::of(seed);
        let mut polls = [stage.ask("/channels/abc,other"), stage.ask("/channels/abc")];
        stage.answer("/sign?channel=abc&sname=ann&callback=cb");
        assert!(polls.iter_mut().all(is_waiting));
        stage.publish("abc", "hi");
        for poll in &mut polls {
            assert!(body(poll).contains(r#""data":"hi"}]"#));
        }
    }
}
