//! Idempotency keys of many publishers: which keys the server drops beyond its limit. On the
//! simulated network, where a client may have any address.

mod common;

use ccomet::{Claims, Config};
use common::Reply;
use common::stage::{ANN, BOB, LOOPBACK, Stage, bearer, key};
use sealed::sim::Peer;
use serde_json::{Value, json};

impl Stage {
    fn of(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(1, loops, |config| {
            config.history.keys_max = loops * 200;
            config.limits.publishes_per_address_minute = 1_000_000;
            change(config);
        })
    }

    fn publish_once(&self, peer: &mut Peer, fields: &str, channel: &str, key: &str) -> Reply {
        let fields = format!("Idempotency-Key: {key}\r\n{fields}");
        let reply = self.exchange(peer, "POST", &format!("/channels/{channel}"), &fields, "pay");
        assert_eq!(reply.status, 200, "{reply}");
        reply
    }

    /// Publishes many messages under keys, in channels of this client's own and in a channel of
    /// another client.
    fn flood(&self, from: &str, fields: &str, rounds: usize) {
        let mut peer = self.connect(from);
        for round in 0..rounds {
            let channel = |n: usize| if n < 50 { "orders".to_owned() } else { format!("{from}-{}", n % 50) };
            let message = |n| json!({"channel": channel(n), "data": "", "key": format!("{from}-{round}-{n}")});
            let body = json!({ "messages": (0..100).map(message).collect::<Vec<Value>>() }).to_string();
            let reply = self.exchange(&mut peer, "POST", "/messages", fields, &body);
            assert_eq!(reply.status, 200, "{reply}");
        }
    }
}

#[test]
fn a_publisher_of_many_keys_drops_only_its_own() {
    for loops in [1, 3] {
        let stage = Stage::of(loops, |_| {});
        let mut publishers = [("bob", stage.connect(BOB)), ("own", stage.connect(LOOPBACK)), ("site", stage.admin())];
        let mut publish = || {
            publishers.each_mut().map(|(name, peer)| {
                (0..5)
                    .map(|n| stage.publish_once(peer, "", "orders", &format!("{name}{n}")).position())
                    .collect::<Vec<_>>()
            })
        };
        let first = publish();
        for _ in 0..3 {
            stage.flood(ANN, "", 12 * loops);
            assert_eq!(publish(), first, "what is retried is kept already");
        }
    }
}

#[test]
fn a_subject_of_many_keys_drops_only_its_own_from_any_address() {
    let stage = Stage::of(1, |config| config.auth.keys = vec![key("main")]);
    let token = |subject: &str| {
        let claims = Claims { sub: Some(subject.into()), ..stage.claims_for("*", 3_600) };
        bearer(&stage.sign(&claims))
    };
    let mut bob = stage.connect(BOB);
    let first = stage.publish_once(&mut bob, &token("bob"), "orders", "k").position();
    for n in 10..40 {
        stage.flood(&format!("192.0.2.{n}"), &token("mallory"), 1);
    }
    assert_eq!(stage.publish_once(&mut bob, &token("bob"), "orders", "k").position(), first);
}

#[test]
fn clients_and_the_back_end_each_have_half_of_the_keys() {
    let stage = Stage::of(1, |_| {});
    let (mut bob, mut admin) = (stage.connect(BOB), stage.admin());
    let mut publish = || {
        [&mut bob, &mut admin].map(|peer| {
            (0..90).map(|n| stage.publish_once(peer, "", "orders", &format!("k{n}")).position()).collect::<Vec<_>>()
        })
    };
    let first = publish();
    stage.flood(LOOPBACK, "", 1);
    let again = publish();
    assert_eq!(again[0], first[0], "loopback counts as the back end");
    for n in 10..60 {
        stage.flood(&format!("192.0.2.{n}"), "", 1);
    }
    let last = publish();
    assert_eq!(last[1], again[1]);
    assert_ne!(last[0], again[0], "many clients take from those that have more than each of them");
}
