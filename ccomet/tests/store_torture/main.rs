//! A server with a store on a real disk is killed at random moments under load, and started again,
//! ten times; with `STORE_ROUNDS=1000 cargo test -p ccomet --test store_torture`, as often as
//! wished. `STORE_PROGRAM` names another build of the program, and `STORE_SEED` other moments.
//!
//! Each publisher notes which messages were accepted, with their positions, and repeats the one
//! whose answer is missing, with its idempotency key. After each start, the history must have all
//! accepted messages, at these positions, and each message once. Readers resume by position: each
//! must read exactly the history, in order, without a gap.

#[path = "../common/mod.rs"]
mod common;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Folder, PATIENCE, Process, SMALL_STORE};
use serde_json::Value;
use wire::Wire;

const PUBLISHERS: u32 = 4;
const CHANNELS: [&str; 3] = ["one", "two", "three"];

/// A message: its publisher, and the publisher's number of it.
type Id = (u32, u32);

/// Returns the data of a message, up to 8 KiB, so that equal ids have equal data.
fn data((publisher, number): Id) -> String {
    let length = number.wrapping_mul(2_654_435_761).wrapping_add(publisher) >> 19;
    format!("{publisher}-{number}-{}", "x".repeat(length as usize))
}

fn channel_of((publisher, number): Id) -> usize {
    (publisher + number) as usize % CHANNELS.len()
}

/// Returns the position and the id of an item. Panics if it is not a whole message.
fn read_item(item: &Value) -> (String, Id) {
    assert_eq!(item["type"], "message", "{item}");
    let text = item["data"].as_str().expect("data");
    let mut parts = text.split('-').map(str::parse::<u32>);
    let (Some(Ok(publisher)), Some(Ok(number))) = (parts.next(), parts.next()) else { panic!("not a message: {text}") };
    assert!(text == data((publisher, number)), "the data was changed: {text}");
    (item["position"].as_str().expect("a position").to_owned(), (publisher, number))
}

#[derive(Default)]
struct Publisher {
    number: u32,
    /// The accepted messages of the round, with their positions.
    accepted: Vec<(Id, String)>,
    unavailable: usize,
}

impl Publisher {
    /// Publishes until the server is gone.
    fn run(&mut self, publisher: u32, front: SocketAddr) {
        let Ok(mut wire) = Wire::connect(front) else { return };
        loop {
            let id = (publisher, self.number);
            let target = format!("/channels/{}", CHANNELS[channel_of(id)]);
            let key = format!("Idempotency-Key: {publisher}-{}\r\n", self.number);
            let Ok(reply) = wire.ask("POST", &target, &key, &data(id)) else { return };
            match reply.status {
                200 => {
                    self.accepted.push((id, reply.position()));
                    self.number += 1;
                }
                503 => {
                    self.unavailable += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => panic!("{reply}"),
            }
        }
    }
}

/// A reader of one channel, which resumes after each end of the server.
struct Reader {
    channel: usize,
    position: String,
    read: Vec<(String, Id)>,
}

impl Reader {
    /// Reads until the server is gone, or until it has read as many messages.
    fn run(&mut self, front: SocketAddr, until: usize) {
        let Ok(wire) = Wire::connect(front) else { return };
        let target = format!("/channels/{}?after={}", CHANNELS[self.channel], self.position);
        let _ = wire.events(&target, |kind, data| {
            match kind {
                "message" => {
                    let (position, id) = read_item(&serde_json::from_str(data).expect("JSON"));
                    self.position.clone_from(&position);
                    self.read.push((position, id));
                }
                "gap" => panic!("a gap: {data}, after {}", self.position),
                _ => {}
            }
            self.read.len() < until
        });
    }
}

/// All that was published, and what the history had of it.
struct Torture {
    folder: Folder,
    publishers: Vec<Publisher>,
    readers: Vec<Reader>,
    accepted: HashMap<Id, String>,
    /// The history of each channel, as it was read so far, and the place of each message in it.
    history: [Vec<(String, Id)>; 3],
    places: HashMap<Id, usize>,
    random: u64,
}

impl Torture {
    fn new(seed: u64) -> Self {
        let folder = Folder::new("torture");
        folder.write("ccomet.toml", SMALL_STORE);
        let reader = |index| Reader { channel: index, position: "oldest".to_owned(), read: Vec::new() };
        Self {
            folder,
            publishers: (0..PUBLISHERS).map(|_| Publisher::default()).collect(),
            readers: (0..CHANNELS.len()).map(reader).collect(),
            accepted: HashMap::new(),
            history: Default::default(),
            places: HashMap::new(),
            random: seed,
        }
    }

    fn program(&self) -> Command {
        let program = std::env::var_os("STORE_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_ccomet").into());
        let mut command = Command::new(program);
        command.arg("--config").arg(self.folder.join("ccomet.toml")).arg("--data").arg(self.folder.join("data"));
        command
    }

    fn start(&self) -> Process {
        Process::run(self.program().args([
            "--front",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--loops",
            "2",
            "--log",
            "warn",
        ]))
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Runs a server under load, kills it, and notes what it has accepted.
    fn round(&mut self) {
        let mut server = self.start();
        let front = server.front;
        self.verify(front);
        // Most ends come early, and some after many segments.
        let longest = if self.random(20) == 0 { 3_000 } else { 150 };
        let life = Duration::from_millis(self.random(longest));
        std::thread::scope(|scope| {
            for (index, publisher) in (0..).zip(&mut self.publishers) {
                scope.spawn(move || publisher.run(index, front));
            }
            for reader in &mut self.readers {
                scope.spawn(move || reader.run(front, usize::MAX));
            }
            std::thread::sleep(life);
            server.kill();
        });
        for publisher in &mut self.publishers {
            self.accepted.extend(publisher.accepted.drain(..));
        }
    }

    /// Reads what the history has in addition, and compares it with what was accepted and read.
    fn verify(&mut self, front: SocketAddr) {
        for channel in 0..CHANNELS.len() {
            let known = self.history[channel].len();
            let newer = history(front, channel, self.history[channel].last().map_or("oldest", |last| &last.0));
            for (place, (_, id)) in (known..).zip(&newer) {
                assert_eq!(channel_of(*id), channel);
                assert_eq!(self.places.insert(*id, place), None, "{id:?} is there twice");
            }
            self.history[channel].extend(newer);
        }
        for (id, position) in &self.accepted {
            let place = self.places.get(id).unwrap_or_else(|| panic!("{id:?}, accepted at {position}, is lost"));
            assert_eq!(self.history[channel_of(*id)][*place].0, *position, "{id:?} has moved");
        }
        self.accepted.clear();
        for Reader { channel, read, .. } in &self.readers {
            let begin = read.len().saturating_sub(2_000);
            assert_eq!(self.history[*channel].get(begin..read.len()), Some(&read[begin..]), "a reader of {channel}");
        }
    }

    /// Checks the store that the kill has left, reads the whole history again, and lets the readers
    /// read to its end.
    fn verify_all(&mut self) {
        let checked = self.program().args(["store", "check"]).output().expect("it runs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        let server = self.start();
        self.verify(server.front);
        for (channel, expected) in self.history.iter().enumerate() {
            assert!(history(server.front, channel, "oldest") == *expected, "the history of {channel} has changed");
        }
        for reader in &mut self.readers {
            let expected = &self.history[reader.channel];
            if reader.read.len() < expected.len() {
                reader.run(server.front, expected.len());
            }
            assert!(reader.read == *expected, "a reader of {} has not read the history", reader.channel);
        }
    }
}

impl Drop for Torture {
    /// Keeps the store of a failure.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = std::env::temp_dir().join(format!("store-torture-{}", std::process::id()));
            let _ = std::fs::rename(self.folder.join("data"), &kept);
            eprintln!("the store is in {}", kept.display());
        }
    }
}

/// Reads the history of a channel after a position.
fn history(front: SocketAddr, channel: usize, after: &str) -> Vec<(String, Id)> {
    let mut wire = Wire::connect(front).expect("a server");
    let (mut after, mut found, begin) = (after.to_owned(), Vec::new(), Instant::now());
    loop {
        assert!(begin.elapsed() < PATIENCE, "the history has no end");
        let target = format!("/channels/{}?after={after}&wait=0", CHANNELS[channel]);
        let reply = wire.ask("GET", &target, "", "").expect("a reply");
        if reply.status == 503 {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        assert_eq!(reply.status, 200, "{reply}");
        let page = reply.json();
        let items = page["items"].as_array().expect("items");
        found.extend(items.iter().map(read_item));
        if items.is_empty() {
            return found;
        }
        page["position"].as_str().expect("a position").clone_into(&mut after);
    }
}

#[test]
fn a_server_that_is_killed_loses_nothing_and_repeats_nothing() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("STORE_ROUNDS").unwrap_or(10);
    let mut torture = Torture::new(number("STORE_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15).max(1));
    let begin = Instant::now();
    for round in 1..=rounds {
        torture.round();
        if round % 50 == 0 || round == rounds {
            torture.verify_all();
            let messages: usize = torture.history.iter().map(Vec::len).sum();
            let unavailable: usize = torture.publishers.iter().map(|publisher| publisher.unavailable).sum();
            eprintln!("{round} kills, {messages} messages, {unavailable} times 503, {:?}", begin.elapsed());
        }
    }
}
