//! The model of Redis and a real one get the same random commands, and have to answer the same.
//!
//! The time of a call comes from the real one: the model has to answer like it at one of the
//! milliseconds in which the call may have run. With `REDIS_SEED=n` only this seed runs, and prints
//! its commands; with `REDIS_SEEDS=n`, this many.

#![allow(unreachable_pub, missing_docs, missing_debug_implementations)] // a test program

mod commands;
mod real;

use std::process::ExitCode;

use commands::{CLIENTS, Generator, Step};
use real::Real;
use sealed::sim::Random;
use testing::programs::{Need, Test, run};
use testing::redis::{Command, Process, Value};

const LIBRARY: &str = include_str!("../../../ccomet/src/engine/store/redis/functions.lua");
const SEEDS: u64 = 16;
const STEPS: usize = 300;

fn main() -> ExitCode {
    run([Test::new("the_model_answers_as_redis_does", the_model_answers_as_redis_does)
        .needs(Need::Program("redis-server"))])
}

fn the_model_answers_as_redis_does() {
    let mut real = Real::start();
    let number = |name: &str| std::env::var(name).ok().and_then(|seed| seed.parse::<u64>().ok());
    let (one, count) = (number("REDIS_SEED"), number("REDIS_SEEDS").unwrap_or(SEEDS));
    for seed in one.map_or(0..count, |seed| seed..seed + 1) {
        compare(seed, &mut real, one.is_some());
    }
}

/// Sends both the commands of a seed.
fn compare(seed: u64, real: &mut Real, prints: bool) {
    let mut random = Random::new(seed);
    let node_max = 1 + random.below(8);
    real.reset(node_max);
    let mut model = Process::new("model");
    model.set_node_max(node_max);
    model.set_pushes_after(real.pushes_after());
    let mut pair = Pair { real, model, before: 0, seed };
    for client in 0..CLIENTS {
        pair.real.connect(client);
        pair.model.connect(client);
        if client > 0 {
            pair.greet(client);
        }
    }
    let mut generator = Generator::new(random, LIBRARY);
    for number in 0..STEPS {
        let step = generator.next();
        if prints {
            println!("{number}: {step:?}");
        }
        match step {
            Step::Full(is_full) => {
                pair.real.set_full(is_full);
                pair.model.set_full(is_full);
            }
            Step::Commands(client, commands) => {
                for command in commands {
                    let own = pair.send(client, &command);
                    generator.note(&command, &own);
                }
            }
        }
    }
    pair.real.expect_silence();
}

/// Both, with the same clients.
struct Pair<'a> {
    real: &'a mut Real,
    model: Process,
    /// The time of the real one before the next command, in ms.
    before: i64,
    seed: u64,
}

impl Pair<'_> {
    /// Switches a client to RESP3. The replies differ in ids and versions.
    fn greet(&mut self, client: u64) {
        let command = ["HELLO", "3"].map(|part| part.as_bytes().to_vec());
        let reply = self.model.execute(client, &command, 0);
        let [(_, Value::Map(expected))] = reply.as_slice() else { panic!("a map: {reply:?}") };
        self.real.send(client, &command);
        let Value::Map(found) = self.real.receive(client) else { panic!("a map") };
        let names = |map: &[(Value, Value)]| map.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found), names(expected));
        let proto = |map: &[(Value, Value)]| map.iter().find(|(name, _)| *name == "proto".into()).cloned();
        assert_eq!(proto(&found), proto(expected));
        self.before = self.real.time();
    }

    /// Sends a command to both, compares what they send, and returns what the client got.
    fn send(&mut self, client: u64, command: &Command) -> Vec<Value> {
        self.real.send(client, command);
        // What arrives does not depend on the time, except for the values.
        let expected = self.at(client, command, self.before).1;
        let mut found: Vec<Vec<Value>> = vec![Vec::new(); expected.len()];
        let others = (0..CLIENTS).filter(|other| *other != client);
        for other in std::iter::once(client).chain(others) {
            let index = usize::try_from(other).expect("a small number");
            for _ in 0..expected[index].len() {
                found[index].push(self.real.receive(other));
            }
        }
        let after = self.real.time();
        // The time by which Redis lets keys expire may be a bit older than that of the call.
        for time in self.before - 1..=after + 1 {
            let (model, expected) = self.at(client, command, time);
            if is_same(&found, &expected) {
                self.model = model;
                self.before = after;
                return found.swap_remove(usize::try_from(client).expect("a small number"));
            }
        }
        let (seed, command) = (self.seed, command.iter().map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>());
        panic!("seed {seed}, client {client}: {command:?}\nRedis: {}\nmodel: {}", text(&found), text(&expected));
    }

    /// Returns a model that has executed the command, and what each client gets of it.
    fn at(&self, client: u64, command: &Command, time: i64) -> (Process, Vec<Vec<Value>>) {
        let mut model = self.model.clone();
        let mut outputs: Vec<Vec<u8>> = (0..CLIENTS).map(|_| Vec::new()).collect();
        for (to, value) in model.execute(client, command, time) {
            value.encode(model.protocol(to), &mut outputs[usize::try_from(to).expect("a small number")]);
        }
        let decode = |bytes: Vec<u8>| {
            let (mut values, mut at) = (Vec::new(), 0);
            while let Some((value, length)) = Value::decode(&bytes[at..]) {
                values.push(value);
                at += length;
            }
            assert_eq!(at, bytes.len(), "the model sends whole values");
            values
        };
        (model, outputs.into_iter().map(decode).collect())
    }
}

/// Returns what the clients got, for people.
fn text(values: &[Vec<Value>]) -> String {
    let mut bytes = Vec::new();
    for (client, values) in values.iter().enumerate() {
        bytes.extend_from_slice(format!("\n  client {client}: ").as_bytes());
        for value in values {
            value.encode(3, &mut bytes);
        }
    }
    String::from_utf8_lossy(&bytes).replace("\r\n", " ")
}

/// Compares values. The texts of errors within a function differ.
fn is_same(found: &[Vec<Value>], expected: &[Vec<Value>]) -> bool {
    let is_same_value = |(found, expected): (&Value, &Value)| match (found, expected) {
        (Value::Error(found), Value::Error(expected)) => {
            found == expected || found.contains(" script: ") && expected.contains(" script: ")
        }
        (Value::Verbatim(found), Value::Verbatim(expected)) => has_fields_of(found, expected),
        _ => found == expected,
    };
    found
        .iter()
        .zip(expected)
        .all(|(found, expected)| found.len() == expected.len() && found.iter().zip(expected).all(is_same_value))
}

/// Returns whether a text of `INFO` has all names of another, in this order.
fn has_fields_of(found: &str, expected: &str) -> bool {
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let mut names = found.lines().map(name);
    expected.lines().map(name).filter(|line| !line.is_empty()).all(|wanted| names.any(|name| name == wanted))
}
