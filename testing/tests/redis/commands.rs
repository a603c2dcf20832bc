//! Random commands.

use std::collections::HashMap;

use sealed::sim::Random;
use testing::redis::{Command, Value};

/// The number of clients. The first has no RESP3, and only follows topics.
pub const CLIENTS: u64 = 4;

const NAMES: [&str; 7] = ["a", "ab", "abc", "b", "b a", "ba\u{ff}", "z"];
const G: &str = "p:{0}:g";
const L: &str = "p:{0}:l";
const OF_M: &str = "p:{0}:m:";
const OF_S: &str = "p:{0}:s:";
const OF_T: &str = "p:{0}:c:";

/// What both have to do next.
#[derive(Debug)]
pub enum Step {
    Full(bool),
    Commands(u64, Vec<Command>),
}

pub struct Generator {
    random: Random,
    library: &'static str,
    generation: String,
    /// The latest known epochs, by the key of the channel.
    epochs: HashMap<Vec<u8>, String>,
    is_full: bool,
    steps: usize,
}

fn command(parts: &[&str]) -> Command {
    parts.iter().map(|part| part.as_bytes().to_vec()).collect()
}

fn call(function: &str, keys: &[String], args: &[&str]) -> Command {
    let mut parts = command(&["FCALL", &format!("ccomet1_{function}"), &keys.len().to_string()]);
    parts.extend(keys.iter().map(|key| key.clone().into_bytes()));
    parts.extend(command(args));
    parts
}

impl Generator {
    pub fn new(random: Random, library: &'static str) -> Self {
        let generation = "0".to_owned();
        Self { random, library, generation, epochs: HashMap::new(), is_full: false, steps: 0 }
    }

    /// Notes what the client of a command got.
    pub fn note(&mut self, command: &Command, received: &[Value]) {
        let reply = received.iter().find(|value| !matches!(value, Value::Push(_)));
        let Some(Value::Array(reply)) = reply else { return };
        let (Some(function), Some(channel)) = (command.get(1), command.get(4)) else { return };
        match (reply.as_slice(), function.as_slice()) {
            ([_, Value::Integer(generation), _], b"ccomet1_hello") => self.generation = generation.to_string(),
            ([_, Value::Bytes(epoch), ..], _) => {
                self.epochs.insert(channel.clone(), String::from_utf8_lossy(epoch).into_owned());
            }
            _ => {}
        }
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        self.random.pick(from).expect("one")
    }

    /// Returns a text, but at times another.
    fn mostly<'a>(&mut self, usual: &'a str, others: &[&'a str]) -> &'a str {
        if self.random.chance(0.1) { self.pick(others) } else { usual }
    }

    fn generation(&mut self) -> String {
        let generation = self.generation.clone();
        self.mostly(&generation, &["0", "1", "x", ""]).to_owned()
    }

    fn digits(&mut self) -> String {
        format!("{:04x}", self.random.below(0x1_0000))
    }

    /// Returns the keys G, M, S and L for a name, or too few of them.
    fn keys(&mut self, name: &str, count: usize) -> Vec<String> {
        let keys = [G.to_owned(), format!("{OF_M}{name}"), format!("{OF_S}{name}"), L.to_owned()];
        let count = if self.random.chance(0.01) { self.random.below(2) } else { count };
        keys.into_iter().take(count).collect()
    }

    pub fn next(&mut self) -> Step {
        self.steps += 1;
        if self.steps <= 2 {
            let first = [command(&["FUNCTION", "LOAD", self.library]), call("hello", &[G.to_owned()], &["run"])];
            return Step::Commands(1, first[self.steps - 1..self.steps].to_vec());
        }
        if self.random.chance(if self.is_full { 0.2 } else { 0.01 }) {
            self.is_full = !self.is_full;
            return Step::Full(self.is_full);
        }
        let client = self.random.below(4) as u64;
        let commands = match self.random.below(100) {
            _ if client == 0 => vec![self.subscription(client)],
            0..30 => vec![self.publish()],
            30..42 => vec![self.open()],
            42..62 => vec![self.read()],
            62..65 => vec![self.clear()],
            65..68 => vec![self.remove()],
            68..74 => vec![self.names()],
            74..78 => vec![self.sweep()],
            78..82 => vec![self.touch()],
            82..85 => vec![self.hello()],
            85..92 => vec![self.subscription(client)],
            92..98 => vec![self.simple()],
            _ => self.disaster(),
        };
        Step::Commands(client, commands)
    }

    fn publish(&mut self) -> Command {
        let name = self.pick(&NAMES);
        let mut keys = self.keys(name, 4);
        let generation = self.generation();
        let (topic, random) = (format!("{OF_T}{name}"), self.digits());
        let messages_max = self.pick(&["0", "1", "3", "10", "1000"]);
        let ttl_s = self.mostly("1000", &["0", "-1", "5000"]);
        let of_keys = if keys.len() == 4 { self.random.below(4) } else { 0 };
        keys.extend((0..of_keys).map(|key| format!("p:{{0}}:k:{name}\0{}", key + self.steps / 100)));
        let count = self.random.below(4);
        let mut parts = call("publish", &keys, &[&generation, name, &topic, &random, "token-1"]);
        parts.extend(command(&[messages_max, ttl_s, "1000", &count.to_string()]));
        for _ in 0..count {
            let length = self.random.below(1 << self.random.clone().below(9));
            parts.push((0..length).map(|_| self.random.below(256).to_le_bytes()[0]).collect());
            let key = self.random.below(of_keys + 1);
            let digest = if key == 0 { "" } else { self.mostly("18446744073709551615", &["1", ""]) };
            parts.extend(command(&[&key.to_string(), digest]));
        }
        parts
    }

    fn open(&mut self) -> Command {
        let name = self.pick(&NAMES);
        let (mut keys, generation, random) = (self.keys(name, 4), self.generation(), self.digits());
        if keys.len() < 4 {
            keys.clear();
        }
        let (creates, count) = (self.pick(&["0", "1"]), self.pick(&["0", "1", "5", "100", "-1"]));
        let ttl_s = self.mostly("1000", &["0", "-1", "5000"]);
        let bytes_max = self.mostly("100000", &["0", "1", "50", "500"]);
        call("open", &keys, &[&generation, name, creates, &random, count, ttl_s, bytes_max])
    }

    fn read(&mut self) -> Command {
        let name = self.pick(&NAMES);
        let (keys, generation, random) = (self.keys(name, 3), self.generation(), self.digits());
        let known = self.epochs.get(format!("{OF_M}{name}").as_bytes()).cloned().unwrap_or_default();
        let epoch = self.mostly(&known, &["", "x", "1a2328a91deabcd"]);
        let begin = self.random.below(60).to_string();
        let begin = self.mostly(&begin, &["-1", "0", "100000"]);
        let (limit, bytes_max) = (self.pick(&["0", "1", "3", "1000"]), self.pick(&["0", "1", "100", "1000", "100000"]));
        let backward = self.pick(&["0", "1"]);
        call("read", &keys, &[&generation, epoch, &random, begin, limit, bytes_max, backward])
    }

    fn clear(&mut self) -> Command {
        let name = self.pick(&NAMES);
        let (keys, generation, random) = (self.keys(name, 3), self.generation(), self.digits());
        call("clear", &keys, &[&generation, &format!("{OF_T}{name}"), &random, "token-2"])
    }

    fn remove(&mut self) -> Command {
        let name = self.pick(&NAMES);
        let (keys, generation) = (self.keys(name, 4), self.generation());
        call("remove", &keys, &[&generation, name, &format!("{OF_T}{name}"), "token-3"])
    }

    fn names(&mut self) -> Command {
        let generation = self.generation();
        let (prefix, after) = (self.pick(&["", "a", "ab", "b", "x"]), self.pick(&["", "", "a", "abc", "b", "zz"]));
        let limit = self.pick(&["0", "1", "2", "100"]);
        call("names", &[G.to_owned(), L.to_owned()], &[&generation, OF_M, OF_S, prefix, after, limit])
    }

    fn sweep(&mut self) -> Command {
        let (after, count) = (self.pick(&["", "a", "b", "zz"]), self.pick(&["1", "2", "3", "100"]));
        call("sweep", &[L.to_owned()], &[OF_M, after, count])
    }

    /// Touches keys; often so that one or both of a channel are gone.
    fn touch(&mut self) -> Command {
        let name = self.pick(&NAMES);
        let (mut keys, generation) = (self.keys(name, 3), self.generation());
        if keys.len() == 3 && self.random.chance(0.5) {
            keys.remove(1 + self.random.below(2));
        }
        call("touch", &keys, &[&generation, self.random.pick(&["0", "-1", "700"]).expect("one")])
    }

    fn hello(&mut self) -> Command {
        call("hello", &[G.to_owned()], &[self.mostly("run", &["run of another", "run of a third"])])
    }

    fn subscription(&mut self, client: u64) -> Command {
        let topic = format!("{OF_T}{}", self.pick(&NAMES));
        let other = format!("{OF_T}{}", self.pick(&NAMES));
        // One pattern for each client, because the order among several is not defined.
        let index = usize::try_from(client).expect("a small number");
        let pattern = ["p:{0}:c:*", "p:?0?:c:[ac-z]*", "p:{0}:c:[^a]*", "p:{0}:c:\\a*b[b-d]"][index];
        match self.random.below(8) {
            0..3 => command(&["SUBSCRIBE", &topic]),
            3 => command(&["SUBSCRIBE", &topic, &other, &topic]),
            4 => command(&["UNSUBSCRIBE", &topic, &other]),
            5 => command(&["PSUBSCRIBE", pattern]),
            6 => command(&["PUNSUBSCRIBE", pattern]),
            _ => command(&["PUNSUBSCRIBE"]),
        }
    }

    /// Returns a command that concerns no channel, or a wrong one.
    fn simple(&mut self) -> Command {
        let name = self.pick(&NAMES);
        let keys = [format!("{OF_M}{name}"), format!("{OF_S}{name}"), format!("p:{{0}}:k:{name}\0{}", 1), L.to_owned()];
        let key = self.random.pick(&keys).expect("one");
        match self.random.below(14) {
            0..5 => command(&["TTL", key]),
            5 => command(&["PING"]),
            6 => command(&["PING", "text"]),
            7 => command(&["PUBLISH", &format!("{OF_T}{name}"), "payload"]),
            8 => command(
                self.random.pick(&[&["INFO"][..], &["INFO", "server"], &["INFO", "memory", "cluster"]]).expect("one"),
            ),
            9 => command(&["FCALL", "ccomet1_none", "0"]),
            10 => command(&["FCALL", "ccomet1_touch", self.random.pick(&["-1", "x", "7"]).expect("one"), "a"]),
            11 => command(&["nothing", "of", "this"]),
            12 => command(&["SELECT", self.random.pick(&["x", "99", "0"]).expect("one")]),
            _ => command(self.random.pick(&[&["FCALL", "x"][..], &["PUBLISH", "x"], &["SUBSCRIBE"]]).expect("one")),
        }
    }

    /// Returns commands that lose something, and then those that a server sends.
    fn disaster(&mut self) -> Vec<Command> {
        let load = command(&["FUNCTION", "LOAD", "REPLACE", self.library]);
        let hello = call("hello", &[G.to_owned()], &["run"]);
        match self.random.below(8) {
            6 => {
                // G alone is gone, and a channel is used in the same millisecond as before.
                let without_g = call("touch", &[G.to_owned(), G.to_owned()], &[&self.generation, "0"]);
                vec![self.clear(), without_g, hello, self.clear()]
            }
            7 => {
                // All channels but one are gone, and their names are still listed.
                let mut keys = vec![G.to_owned()];
                keys.extend(NAMES[..NAMES.len() - 1].iter().map(|name| format!("{OF_M}{name}")));
                let args = [self.generation.as_str(), OF_M, OF_S, "", "", self.random.pick(&["1", "2"]).expect("one")];
                let names = call("names", &[G.to_owned(), L.to_owned()], &args);
                vec![call("touch", &keys, &[&self.generation, "0"]), names.clone(), names]
            }
            0 => vec![command(&["FLUSHALL"]), self.publish(), hello],
            1 => vec![command(&["FUNCTION", "FLUSH"]), self.publish(), load],
            2 => vec![load],
            3 => vec![command(&["FUNCTION", "LOAD", self.library])],
            4 => vec![command(&["SELECT", "1"]), self.publish(), hello],
            _ => vec![command(&["FUNCTION", "LOAD", "return 1"]), command(&["SELECT", "0"]), hello],
        }
    }
}
