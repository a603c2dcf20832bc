//! The model of Redis does to its clients what the simulation asks of it.

use std::time::Duration;

use sealed::sim::{Peer, Simulation};
use testing::redis::{Restart, SimRedis, Value, encode_command};

const G: &str = "p:{0}:g";
const PUBLISH: [&str; 7] = ["FCALL", "ccomet1_publish", "4", G, "p:{0}:m:a", "p:{0}:s:a", "p:{0}:l"];
const OPEN: [&str; 7] = ["FCALL", "ccomet1_open", "4", G, "p:{0}:m:a", "p:{0}:s:a", "p:{0}:l"];

/// A client of a Redis.
struct Client(Peer);

impl Client {
    fn connect(sim: &Simulation, redis: &SimRedis) -> Self {
        let mut client = Self(sim.connect(redis.address()));
        assert!(matches!(client.ask(&["HELLO", "3"]), Value::Map(_)));
        client
    }

    fn send(&mut self, command: &[&str]) {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, command);
        self.0.send(bytes);
    }

    fn receive(&mut self) -> Value {
        self.0.decode(Value::decode)
    }

    fn ask(&mut self, command: &[&str]) -> Value {
        self.send(command);
        self.receive()
    }

    /// Loads the functions, and returns the generation.
    fn load(&mut self) -> String {
        self.ask(&["FUNCTION", "LOAD", "REPLACE", "#!lua name=ccomet1\n"]);
        let run = self.run_id();
        let Value::Array(reply) = self.ask(&["FCALL", "ccomet1_hello", "1", G, &run]) else { panic!("an array") };
        let Value::Integer(generation) = reply[1] else { panic!("{reply:?}") };
        generation.to_string()
    }

    fn run_id(&mut self) -> String {
        let Value::Verbatim(info) = self.ask(&["INFO", "server"]) else { panic!("a text") };
        info.lines().find_map(|line| line.strip_prefix("run_id:")).expect("a run id").to_owned()
    }

    fn publish(&mut self, generation: &str, text: &str) -> Value {
        self.send_message(generation, text);
        self.receive()
    }

    fn send_message(&mut self, generation: &str, text: &str) {
        let args = [generation, "a", "topic", "abcd", "token", "100", "1000", "300", "1", text, "0", ""];
        self.send(&[&PUBLISH[..], &args].concat());
    }

    /// Returns epoch and texts of the channel's messages; `None` if there is no channel.
    fn messages(&mut self, generation: &str) -> Option<(Value, Vec<String>)> {
        let reply = self.ask(&[&OPEN[..], &[generation, "a", "0", "abcd", "100", "1000", "9999"]].concat());
        let Value::Array(reply) = reply else { panic!("{reply:?}") };
        let [_, epoch, _, _, _, Value::Array(messages)] = reply.as_slice() else { return None };
        let text = |message: &Value| match message {
            Value::Array(parts) => match parts.as_slice() {
                [_, _, _, Value::Bytes(blob)] => String::from_utf8_lossy(blob).into_owned(),
                _ => panic!("{parts:?}"),
            },
            _ => panic!("{message:?}"),
        };
        Some((epoch.clone(), messages.iter().map(text).collect()))
    }
}

fn start(sim: &Simulation) -> SimRedis {
    SimRedis::start(sim, "10.0.0.7:6379")
}

#[test]
fn a_restart_keeps_what_it_is_asked_to_keep() {
    for (restart, expected) in [
        (Restart::Full, Some(vec!["1", "2", "3"])),
        (Restart::WithoutNewest(2), Some(vec!["1"])),
        (Restart::WithoutNewest(3), None),
        (Restart::Empty, None),
    ] {
        let sim = Simulation::new(1);
        let mut redis = start(&sim);
        let mut client = Client::connect(&sim, &redis);
        let (first_run, generation) = (client.run_id(), client.load());
        for text in ["1", "2", "3"] {
            client.publish(&generation, text);
        }
        let (epoch, _) = client.messages(&generation).expect("a channel");
        redis.restart(restart);
        client.0.expect_end();
        let mut client = Client::connect(&sim, &redis);
        assert_ne!(client.run_id(), first_run);
        let generation = client.load();
        let found = client.messages(&generation);
        assert_ne!(found.as_ref().map(|(epoch, _)| epoch), Some(&epoch), "a new generation");
        let texts = expected.map(|texts| texts.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(found.map(|(_, texts)| texts), texts, "{restart:?}");
    }
}

#[test]
fn a_replica_has_what_had_reached_it() {
    let sim = Simulation::new(2);
    let redis = start(&sim);
    let mut client = Client::connect(&sim, &redis);
    let generation = client.load();
    for text in ["1", "2", "3"] {
        client.publish(&generation, text);
    }
    let replica = redis.promote_replica("10.0.0.8:6379", 1);
    let mut other = Client::connect(&sim, &replica);
    let later = other.load();
    assert_ne!(later, generation);
    assert_eq!(other.messages(&later).expect("a channel").1, ["1", "2"]);
    assert_eq!(client.messages(&generation).expect("a channel").1, ["1", "2", "3"]);
}

#[test]
fn a_cut_loses_replies_but_not_what_they_are_about() {
    let sim = Simulation::new(3);
    let redis = start(&sim);
    let mut client = Client::connect(&sim, &redis);
    let generation = client.load();
    redis.cut_after(1);
    client.send_message(&generation, "1");
    assert_eq!(client.0.expect_end(), b"*");
    let mut client = Client::connect(&sim, &redis);
    assert_eq!(client.messages(&generation).expect("a channel").1, ["1"]);
    redis.reset_connections();
    sim.settle();
    assert!(client.0.is_over());
}

#[test]
fn a_pause_delays_replies() {
    let sim = Simulation::new(4);
    let redis = start(&sim);
    let mut client = Client::connect(&sim, &redis);
    redis.pause(Duration::from_secs(3));
    client.send(&["PING"]);
    assert!(client.0.is_silent_for(Duration::from_millis(2_900)));
    client.0.expect("+PONG\r\n");
}

#[test]
fn keys_expire_by_its_own_clock() {
    let sim = Simulation::new(5);
    let redis = start(&sim);
    let mut client = Client::connect(&sim, &redis);
    let generation = client.load();
    client.publish(&generation, "1");
    sim.run_for(Duration::from_secs(999));
    assert!(client.messages(&generation).is_some(), "and it lives for 1,000 s more");
    redis.set_clock_offset(1_001_000);
    assert!(client.messages(&generation).is_none());
}

#[test]
fn functions_fail_if_it_is_full_or_lacks_them() {
    let sim = Simulation::new(6);
    let redis = start(&sim);
    let mut client = Client::connect(&sim, &redis);
    let generation = client.load();
    redis.set_full(true);
    assert!(client.publish(&generation, "1").is_error());
    redis.set_full(false);
    assert!(!client.publish(&generation, "2").is_error());
    redis.set_failure(Some("READONLY no"));
    assert_eq!(client.publish(&generation, "3"), Value::Error("READONLY no".to_owned()));
    redis.set_failure(None);
    redis.flush_functions();
    assert_eq!(client.publish(&generation, "3"), Value::Error("ERR Function not found".to_owned()));
    redis.flush_all();
    client.ask(&["FUNCTION", "LOAD", "#!lua name=ccomet1\n"]);
    assert_eq!(client.publish(&generation, "3"), Value::Array(vec!["STALE".into()]));
}

#[test]
fn pushes_come_before_the_reply_or_after_it() {
    for after in [false, true] {
        let sim = Simulation::new(7);
        let redis = start(&sim);
        redis.set_pushes_after(after);
        let mut client = Client::connect(&sim, &redis);
        let generation = client.load();
        client.ask(&["SUBSCRIBE", "topic"]);
        client.send_message(&generation, "1");
        client.send_message(&generation, "2");
        let kinds = [(); 4].map(|()| matches!(client.receive(), Value::Push(_)));
        assert_eq!(kinds, [!after, after, !after, after]);
    }
}

#[test]
fn a_login_is_needed_if_there_is_one() {
    let sim = Simulation::new(8);
    let redis = start(&sim);
    redis.set_login("ann", "secret");
    let mut client = Client(sim.connect(redis.address()));
    assert!(client.ask(&["PING"]).is_error());
    assert!(client.ask(&["HELLO", "3", "AUTH", "ann", "wrong"]).is_error());
    assert!(!client.ask(&["HELLO", "3", "AUTH", "ann", "secret", "SETNAME", "ccomet"]).is_error());
    assert_eq!(client.ask(&["CLIENT", "GETNAME"]), "ccomet".into());
    assert!(!client.ask(&["SELECT", "3"]).is_error());
}
