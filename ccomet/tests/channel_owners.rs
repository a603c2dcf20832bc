//! How many channels and patterns one client may create, and how much of the history of others its
//! messages may replace. On the simulated network, where a client may have any address.

mod common;

use std::time::Duration;

use ccomet::{Claims, Config};
use common::Reply;
use common::stage::{ANN, BOB, LOOPBACK, Stage, bearer, key};
use testing::http::request;

impl Stage {
    fn of(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(1, loops, |config| {
            config.front.patterns = true;
            change(config);
        })
    }

    fn ask(&self, from: &str, method: &str, target: &str) -> Outcome {
        outcome(self.exchange(&mut self.connect(from), method, target, "", ""))
    }

    fn publish(&self, from: &str, channel: &str) -> Outcome {
        self.ask(from, "POST", &format!("/channels/{channel}"))
    }

    fn poll(&self, from: &str, channel: &str) -> Outcome {
        self.ask(from, "GET", &format!("/channels/{channel}?wait=0"))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Fine,
    /// The client has as many as it may have, and the answer has `Retry-After`.
    Over,
    Other(Reply),
}

use Outcome::{Fine, Over};

fn outcome(reply: Reply) -> Outcome {
    match reply.status {
        200 => Fine,
        429 if reply.contains("\"client_limit\"") && reply.header("retry-after").is_some() => Over,
        _ => Outcome::Other(reply),
    }
}

#[test]
fn the_channels_that_an_address_creates_are_limited_for_each_address() {
    let stage = Stage::of(1, |config| config.limits.channels_per_client_max = 3);
    assert_eq!(stage.publish(BOB, "bobs"), Fine);
    assert_eq!(["a", "b", "c", "d"].map(|channel| stage.publish(ANN, channel)), [Fine, Fine, Fine, Over]);
    assert_eq!([stage.poll(ANN, "d"), stage.ask(ANN, "GET", "/channels/d/presence")], [Over, Over]);
    assert_eq!(stage.ask(ANN, "POST", "/channels/a,d"), Over, "in one of them");
    // Ann may use existing channels like any client.
    assert_eq!([stage.publish(ANN, "a"), stage.publish(ANN, "bobs"), stage.poll(ANN, "bobs")], [Fine, Fine, Fine]);
    assert_eq!([stage.publish(BOB, "d"), stage.publish(ANN, "d")], [Fine, Fine]);
    stage.delete("b");
    assert_eq!(["e", "f"].map(|channel| stage.publish(ANN, channel)), [Fine, Over]);
    // A channel that was only read is given back when it is removed.
    stage.delete("e");
    assert_eq!([stage.poll(ANN, "g"), stage.poll(ANN, "h")], [Fine, Over]);
    stage.sim.run_for(Duration::from_secs(180));
    assert_eq!([stage.poll(ANN, "h"), stage.poll(ANN, "g")], [Fine, Over]);
    // The server's own machine has no such limit.
    assert!((0..9).all(|n| stage.publish(LOOPBACK, &format!("l{n}")) == Fine));
}

#[test]
fn the_patterns_of_an_address_are_limited() {
    let stage = Stage::of(1, |config| {
        config.limits.channels_per_client_max = 1;
        config.limits.patterns_per_client_max = 2;
    });
    assert_eq!(["a*", "b*", "c*", "a*"].map(|pattern| stage.poll(ANN, pattern)), [Fine, Fine, Over, Fine]);
    assert_eq!(["a*", "c*"].map(|pattern| stage.poll(BOB, pattern)), [Fine, Fine]);
    assert_eq!(stage.publish(ANN, "a"), Fine, "channels are another matter");
    stage.sim.run_for(Duration::from_secs(240));
    assert_eq!(["d*", "e*", "f*"].map(|pattern| stage.poll(ANN, pattern)), [Fine, Fine, Over]);
}

#[test]
fn the_channels_that_a_subject_creates_are_limited_across_addresses() {
    let stage = Stage::of(1, |config| {
        config.limits.channels_per_client_max = 2;
        config.auth.keys = vec![key("main")];
    });
    let publish = |from: &str, subject: &str, channel: &str| {
        let token = stage.sign(&Claims { sub: Some(subject.into()), ..stage.claims_for("*", 60) });
        let target = format!("/channels/{channel}");
        outcome(stage.exchange(&mut stage.connect(from), "POST", &target, &bearer(&token), ""))
    };
    assert_eq!([publish(ANN, "mallory", "a"), publish(LOOPBACK, "mallory", "b")], [Fine, Fine]);
    assert_eq!([publish(BOB, "mallory", "c"), publish(LOOPBACK, "mallory", "c")], [Over, Over]);
    assert_eq!(publish(BOB, "bob", "c"), Fine);
}

#[test]
fn the_limit_of_one_client_refuses_no_other_client() {
    let stage = Stage::of(2, |config| config.limits.channels_per_client_max = 2);
    for n in 0..40 {
        stage.publish(ANN, &format!("a{n}"));
    }
    // With readers on either loop, and channels at either home.
    for n in 0..40 {
        let target = format!("/channels/b{n}?transport=sse");
        let mut peers = [ANN, BOB, ANN].map(|from| stage.begin(from, "GET", &target, ""));
        let outcomes = peers.each_mut().map(|peer| outcome(stage.reply(peer)));
        assert_eq!(outcomes[1], Fine);
        // Ann may read the channel if it exists when her request arrives.
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Fine | Over)), "{outcomes:?}");
        stage.delete(&format!("b{n}"));
    }
}

#[test]
fn a_client_that_may_make_no_more_keeps_nobody_waiting_that_resumes() {
    let stage = Stage::of(2, |config| config.limits.channels_per_client_max = 2);
    for n in 0..40 {
        stage.publish(ANN, &format!("a{n}"));
    }
    for n in 0..60 {
        // The position is of an earlier life of the server.
        let target = format!("/channels/b{n}?transport=sse&after=0000000000001-0000000002");
        let _ann: Vec<_> = (0..6).map(|_| stage.begin(ANN, "GET", &target, "")).collect();
        let mut other = stage.begin(&format!("198.51.100.{n}"), "GET", &target, "");
        let heard = stage.received(&mut other);
        assert!(heard.contains("event: gap"), "b{n}: {heard:?}");
        assert_eq!(stage.publish(LOOPBACK, &format!("b{n}")), Fine);
        assert!(stage.received(&mut other).contains("data:"), "b{n}");
    }
}

#[test]
fn a_server_filled_by_clients_has_room_for_its_back_end() {
    let stage = Stage::of(1, |config| {
        config.limits.channels_max = 32;
        config.limits.channels_per_client_max = 10;
    });
    let clients: Vec<String> = (1..=4).map(|n| format!("192.0.2.{n}")).collect();
    let made = (0..40).filter(|n| stage.publish(&clients[n / 10], &format!("c{n}")) == Outcome::Fine).count();
    assert_eq!(made, 30, "but for a sixteenth");
    let mut admin = stage.admin();
    for n in 0..3 {
        let reply = stage.exchange(&mut admin, "POST", &format!("/channels/own{n}"), "", "");
        assert_eq!(reply.status, if n < 2 { 200 } else { 503 });
    }
}

#[test]
fn a_client_that_finds_the_server_full_does_not_keep_the_back_end_out() {
    let stage = Stage::of(2, |config| {
        config.limits.channels_max = 64;
        config.limits.channels_per_client_max = 64;
    });
    for n in 0..200 {
        stage.publish(ANN, &format!("c{n}"));
    }
    for n in 0..60 {
        let target = format!("/channels/own{n}?transport=sse");
        let mut ann = stage.begin(ANN, "GET", &target, "");
        let mut admin = stage.admin();
        admin.send(request("GET", &target, "", ""));
        let heard = stage.received(&mut admin);
        assert!(heard.contains("hello"), "own{n}: {heard}");
        let heard = stage.received(&mut ann);
        assert!(heard.contains("channel_limit") || heard.contains("hello"), "own{n}: {heard}");
        drop((ann, admin));
        // It is given back.
        stage.sim.run_for(Duration::from_secs(120));
    }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Stage {
    /// Starts a server that keeps 4 MiB for each loop.
    fn small(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::of(loops, |config| {
            config.history.total_bytes_max = loops * 4 * MIB;
            change(config);
        })
    }

    /// Publishes a message of a number of bytes in a channel, or in several.
    fn publish_long(&self, from: &str, fields: &str, channels: &str, bytes: usize) {
        let (mut peer, body) = (self.connect(from), "x".repeat(bytes));
        let reply = self.exchange(&mut peer, "POST", &format!("/channels/{channels}"), fields, &body);
        assert_eq!(reply.status, 200, "{reply}");
    }

    /// Returns the number of messages that each of these channels keeps.
    fn kept(&self, channels: impl IntoIterator<Item = String>) -> Vec<u64> {
        let mut admin = self.admin();
        let mut kept = |channel: String| {
            let reply = self.exchange(&mut admin, "GET", &format!("/channels/{channel}/info"), "", "");
            reply.json()["messages"].as_u64().unwrap_or(0)
        };
        channels.into_iter().map(&mut kept).collect()
    }

    /// Publishes messages that no single client may displace: in the site's own channel, and in
    /// Bob's.
    fn prepare(&self, bobs_fields: &str) {
        let (mut admin, order) = (self.admin(), "x".repeat(2 * KIB));
        for n in 0..300 {
            assert_eq!(self.exchange(&mut admin, "POST", "/channels/orders", "", &order).status, 200);
            self.publish_long(BOB, bobs_fields, &format!("bob{}", n % 3), KIB);
        }
    }

    fn check_prepared(&self) {
        assert_eq!(self.kept(["orders", "bob0", "bob1", "bob2"].map(str::to_owned)), [300, 100, 100, 100]);
    }
}

#[test]
fn a_client_that_fills_many_channels_costs_the_others_none_of_their_history() {
    for loops in [1, 3] {
        let stage = Stage::small(loops, |_| {});
        stage.prepare("");
        for n in 0..400 * loops {
            stage.publish_long(ANN, "", &format!("ann{n}"), 60 * KIB);
        }
        stage.check_prepared();
        let kept: u64 = stage.kept((0..400 * loops).map(|n| format!("ann{n}"))).iter().sum();
        assert!(kept > 35 * loops as u64, "she has what is left: {kept} messages");
    }
}

#[test]
fn a_client_that_was_in_a_channel_first_costs_the_back_end_none_of_its_history() {
    let stage = Stage::small(1, |_| {});
    assert_eq!(stage.poll(ANN, "orders"), Fine);
    stage.prepare("");
    for n in 0..400 {
        stage.publish_long(ANN, "", &format!("ann{n}"), 60 * KIB);
    }
    stage.check_prepared();
}

#[test]
fn a_channel_that_keeps_nothing_passes_to_the_back_end_that_publishes_in_it() {
    let stage = Stage::of(1, |config| config.limits.channels_per_client_max = 1);
    assert_eq!([stage.publish(ANN, "a"), stage.publish(ANN, "b")], [Fine, Over]);
    // What is hers, she keeps.
    assert_eq!([stage.publish(LOOPBACK, "a"), stage.publish(ANN, "b")], [Fine, Over]);
    let reply = stage.exchange(&mut stage.admin(), "DELETE", "/channels/a/history", "", "");
    assert_eq!(reply.status, 204, "{reply}");
    assert_eq!([stage.publish(LOOPBACK, "a"), stage.publish(ANN, "b")], [Fine, Fine]);
    // A message to a pattern goes to channels as they are.
    stage.delete("b");
    assert_eq!([stage.poll(ANN, "c"), stage.publish(LOOPBACK, "c*"), stage.publish(ANN, "d")], [Fine, Fine, Over]);
    assert_eq!(stage.kept(["c".to_owned()]), [1]);
}

#[test]
fn a_subject_that_fills_many_channels_from_many_addresses_costs_the_others_none_of_their_history() {
    let stage = Stage::small(1, |config| {
        config.auth.keys = vec![key("main")];
    });
    let token = |subject: &str| {
        let claims = Claims { sub: Some(subject.into()), ..stage.claims_for("*", 3_600) };
        bearer(&stage.sign(&claims))
    };
    stage.prepare(&token("bob"));
    for n in 0..400 {
        stage.publish_long(&format!("192.0.2.{}", 10 + n % 100), &token("mallory"), &format!("m{n}"), 60 * KIB);
    }
    stage.check_prepared();
}

#[test]
fn many_clients_together_leave_the_channels_of_the_back_end_half_of_the_history() {
    let stage = Stage::small(1, |config| {
        config.history.bytes_max = 8 * MIB;
        config.history.messages_max = 10_000;
    });
    for _ in 0..900 {
        stage.publish_long(LOOPBACK, "", "own", 2 * KIB);
    }
    for n in 0..400 {
        stage.publish_long(&format!("192.0.2.{}", 1 + n % 200), "", &format!("c{n}"), 60 * KIB);
    }
    assert_eq!(stage.kept(["own".to_owned()]), [900]);
    // The back end does not get the other half while clients want it.
    for _ in 0..2_000 {
        stage.publish_long(LOOPBACK, "", "own", 2 * KIB);
    }
    let clients: u64 = stage.kept((0..400).map(|n| format!("c{n}"))).iter().sum();
    assert!((30..36).contains(&clients), "{clients} messages");
    let own = stage.kept(["own".to_owned()])[0];
    assert!((950..1_000).contains(&own), "{own} messages");
}

#[test]
fn a_message_that_only_one_clients_channels_still_share_counts_in_full_for_it() {
    let stage = Stage::small(1, |config| {
        let rules = "[[rules]]\nchannels = \"short*\"\nage_max_s = 5\n";
        config.rules = toml::from_str::<Config>(rules).expect("TOML").rules;
    });
    stage.prepare("");
    let short = (0..30).map(|n| format!("short{n}")).collect::<Vec<_>>().join(",");
    for n in 0..48 {
        stage.publish_long(ANN, "", &format!("keep{n},{short}"), 60 * KIB);
    }
    stage.sim.run_for(Duration::from_secs(60));
    // Ann has three quarters of the history, though each of her messages was in many channels.
    for _ in 0..8 {
        stage.publish_long("192.0.2.9", "", "other", 60 * KIB);
    }
    stage.check_prepared();
    let kept: u64 = stage.kept((0..48).map(|n| format!("keep{n}"))).iter().sum();
    assert!((40..48).contains(&kept), "{kept} messages");
    assert_eq!(stage.kept(["other".to_owned()]), [8]);
}
