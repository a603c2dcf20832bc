//! How many channels and patterns one client may have made. On the simulated network, where a client may have any address.

use std::net::IpAddr;
use std::time::Duration;

use ccomet::{Claims, Config, Key, Pattern, Secret, Simulated, make_token};
use sealed::sim::{Peer, Simulation};

const ANN: &str = "192.0.2.1";
const BOB: &str = "192.0.2.2";
const LOOPBACK: &str = "127.0.0.1";

struct Stage {
    sim: Simulation,
    server: Simulated,
    config: Config,
}

impl Stage {
    fn new(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        let sim = Simulation::new(1);
        let mut config = Config { loops: loops.try_into().ok(), ..Config::default() };
        config.front.patterns = true;
        change(&mut config);
        let server = Simulated::start(&sim, config.clone()).expect("it starts");
        Self { sim, server, config }
    }

    fn begin(&self, from: &str, method: &str, target: &str, headers: &str) -> Peer {
        let mut peer = self.sim.connect_from(from.parse::<IpAddr>().expect("an address"), self.server.front());
        peer.send(format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{headers}\r\n"));
        peer
    }

    fn ask(&self, from: &str, method: &str, target: &str) -> Outcome {
        let mut peer = self.begin(from, method, target, "");
        self.sim.settle();
        outcome(&peer.take())
    }

    fn publish(&self, from: &str, channel: &str) -> Outcome {
        self.ask(from, "POST", &format!("/channels/{channel}"))
    }

    fn poll(&self, from: &str, channel: &str) -> Outcome {
        self.ask(from, "GET", &format!("/channels/{channel}?wait=0"))
    }

    fn delete(&self, channel: &str) {
        let mut admin = self.sim.connect(self.server.admin());
        admin.send(format!("DELETE /channels/{channel} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        admin.expect("HTTP/1.1 204 ");
    }

    /// A header with a token for all channels.
    fn bearer(&self, subject: &str) -> String {
        let all = vec![Pattern::all()];
        let iat = self.sim.unix_time().as_secs();
        let subject = Some(subject.into());
        let claims =
            Claims { iat, exp: iat + 60, sub: subject, subscribe: all.clone(), publish: all, ..Claims::default() };
        let token = make_token(&self.config.auth, "main", None, &claims).expect("a token");
        format!("Authorization: Bearer {token}\r\n")
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Fine,
    /// It has as many as it may have, and is told when to come back.
    Over,
    Other(String),
}

use Outcome::{Fine, Over};

fn outcome(answer: &[u8]) -> Outcome {
    let answer = String::from_utf8_lossy(answer).into_owned();
    let is_over = answer.contains("\"client_limit\"") && answer.contains("Retry-After: ");
    match answer.split(' ').nth(1) {
        Some("200") => Fine,
        Some("429") if is_over => Over,
        _ => Outcome::Other(answer),
    }
}

#[test]
fn one_address_makes_so_many_channels_and_others_as_many() {
    let stage = Stage::new(1, |config| config.limits.channels_per_client_max = 3);
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
    let stage = Stage::new(1, |config| {
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
    let stage = Stage::new(1, |config| {
        config.limits.channels_per_client_max = 2;
        config.auth.keys = vec![Key {
            id: "main".to_owned(),
            secret: Some(Secret::new("a secret long enough, for the key main".to_owned())),
            ..Key::default()
        }];
    });
    let publish = |from: &str, subject: &str, channel: &str| {
        let mut peer = stage.begin(from, "POST", &format!("/channels/{channel}"), &stage.bearer(subject));
        stage.sim.settle();
        outcome(&peer.take())
    };
    assert_eq!([publish(ANN, "mallory", "a"), publish(LOOPBACK, "mallory", "b")], [Fine, Fine]);
    assert_eq!([publish(BOB, "mallory", "c"), publish(LOOPBACK, "mallory", "c")], [Over, Over]);
    assert_eq!(publish(BOB, "bob", "c"), Fine);
}

#[test]
fn a_client_that_may_make_no_more_takes_nobody_else_with_it() {
    let stage = Stage::new(3, |config| config.limits.channels_per_client_max = 3);
    for n in 0..40 {
        stage.publish(ANN, &format!("a{n}"));
    }
    // On whichever loops they are, and wherever the channel is.
    for n in 0..40 {
        let target = format!("/channels/b{n}?transport=sse");
        let mut peers = [ANN, BOB, ANN].map(|from| stage.begin(from, "GET", &target, ""));
        stage.sim.settle();
        let outcomes = peers.each_mut().map(|peer| outcome(&peer.take()));
        assert_eq!(outcomes[1], Fine);
        // Where the channel is there when it comes, it is for her too.
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Fine | Over)), "{outcomes:?}");
        stage.delete(&format!("b{n}"));
    }
}

#[test]
fn a_server_that_clients_have_filled_has_room_for_its_back_end() {
    let stage = Stage::new(1, |config| {
        config.limits.channels_max = 32;
        config.limits.channels_per_client_max = 10;
    });
    let clients: Vec<String> = (1..=4).map(|n| format!("192.0.2.{n}")).collect();
    let made = (0..40).filter(|n| stage.publish(&clients[n / 10], &format!("c{n}")) == Outcome::Fine).count();
    assert_eq!(made, 30, "but for a sixteenth");
    let mut admin = stage.sim.connect(stage.server.admin());
    for n in 0..3 {
        admin.send(format!("POST /channels/own{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        admin.expect(if n < 2 { "HTTP/1.1 200 " } else { "HTTP/1.1 503 " });
    }
}
