//! How many channels and patterns one client may have made. On the simulated network, where a client may have any address.

mod common;

use std::time::Duration;

use ccomet::{Claims, Config};
use common::Reply;
use common::stage::{ANN, BOB, LOOPBACK, Stage, bearer, key};

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
    /// It has as many as it may have, and is told when to come back.
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
fn one_address_makes_so_many_channels_and_others_as_many() {
    let stage = Stage::of(1, |config| config.limits.channels_per_client_max = 3);
    assert_eq!(stage.publish(BOB, "bobs"), Fine);
    assert_eq!(["a", "b", "c", "d"].map(|channel| stage.publish(ANN, channel)), [Fine, Fine, Fine, Over]);
    assert_eq!([stage.poll(ANN, "d"), stage.ask(ANN, "GET", "/channels/d/presence")], [Over, Over]);
    assert_eq!(stage.ask(ANN, "POST", "/channels/a,d"), Over, "in one of them");
    // Those that are there are for her as for anyone.
    assert_eq!([stage.publish(ANN, "a"), stage.publish(ANN, "bobs"), stage.poll(ANN, "bobs")], [Fine, Fine, Fine]);
    assert_eq!([stage.publish(BOB, "d"), stage.publish(ANN, "d")], [Fine, Fine]);
    stage.delete("b");
    assert_eq!(["e", "f"].map(|channel| stage.publish(ANN, channel)), [Fine, Over]);
    // One that was only read is given back when it has gone.
    stage.delete("e");
    assert_eq!([stage.poll(ANN, "g"), stage.poll(ANN, "h")], [Fine, Over]);
    stage.sim.run_for(Duration::from_secs(180));
    assert_eq!([stage.poll(ANN, "h"), stage.poll(ANN, "g")], [Fine, Over]);
    // The server's own machine makes as many as it wants.
    assert!((0..9).all(|n| stage.publish(LOOPBACK, &format!("l{n}")) == Fine));
}

#[test]
fn one_address_takes_so_many_patterns() {
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
fn the_tokens_of_one_subject_make_so_many_channels_wherever_they_come_from() {
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
fn a_client_that_may_make_no_more_takes_nobody_else_with_it() {
    let stage = Stage::of(2, |config| config.limits.channels_per_client_max = 2);
    for n in 0..40 {
        stage.publish(ANN, &format!("a{n}"));
    }
    // On whichever loops they are, and wherever the channel is.
    for n in 0..40 {
        let target = format!("/channels/b{n}?transport=sse");
        let mut peers = [ANN, BOB, ANN].map(|from| stage.begin(from, "GET", &target, ""));
        let outcomes = peers.each_mut().map(|peer| outcome(stage.reply(peer)));
        assert_eq!(outcomes[1], Fine);
        // Where the channel is there when it comes, it is for her too.
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Fine | Over)), "{outcomes:?}");
        stage.delete(&format!("b{n}"));
    }
}

#[test]
fn a_server_that_clients_have_filled_has_room_for_its_back_end() {
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
