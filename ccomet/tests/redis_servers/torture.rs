//! Readers and publishers that use both servers, while everything fails in turn.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, Reply, wait_until};
use crate::line::Line;
use crate::pair::Pair;
use crate::publishers::Publisher;
use crate::readers::{Reader, Transport};
use crate::record::{Record, Spot};

pub(crate) const CHANNELS: usize = 6;
const PUBLISHERS: usize = 8;
const READERS: usize = 20;

/// The time after a trouble in which both servers can publish again, and readers have what is
/// published then.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    ConnectionsKilled,
    SubscribersKilled,
    Paused,
    FunctionsFlushed,
    Stopped,
    ServerKilled,
    RedisKilled,
    Flushed,
    RedisEmptied,
}

const TROUBLES: [Trouble; 11] = [
    Trouble::ConnectionsKilled,
    Trouble::SubscribersKilled,
    Trouble::Paused,
    Trouble::FunctionsFlushed,
    Trouble::ServerKilled,
    Trouble::RedisKilled,
    Trouble::ConnectionsKilled,
    Trouble::Flushed,
    Trouble::Stopped,
    Trouble::RedisEmptied,
    Trouble::ServerKilled,
];

/// Ends all threads even if the test fails.
struct Ending<'a>(&'a Record);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn streams_are_right_in_every_trouble() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (rounds, seed) = (number("REDIS_ROUNDS").unwrap_or(1), number("REDIS_SEED").unwrap_or(1));
    let (mut pair, record) = (Pair::start(), Record::default());
    let fronts = [pair.servers[0].front(), pair.servers[1].front()];
    let shown: Vec<Mutex<Option<Spot>>> = (0..READERS).map(|_| Mutex::new(None)).collect();
    thread::scope(|scope| {
        let _ending = Ending(&record);
        for (index, shown) in shown.iter().enumerate() {
            let transport = [Transport::Stream, Transport::Socket, Transport::Poll][index % 3];
            let reader = Reader::new((index, channel_of(index), transport), &record, shown, fronts, seed);
            scope.spawn(|| reader.run());
        }
        for index in 0..PUBLISHERS {
            let publisher = Publisher::new(index, &record, fronts, seed);
            scope.spawn(|| publisher.run());
        }
        for round in 0..rounds {
            for trouble in TROUBLES {
                let count = record.count();
                wait_until("messages are published", || record.count() > count + 500);
                make(trouble, &mut pair, &record);
                recover(&format!("round {round}, {trouble:?}"), &record, &shown, fronts);
                verify(&record, fronts[0]);
                record.check();
            }
        }
    });
    record.check();
    let [one, other] = fronts.map(|front| verify(&record, front));
    record.check();
    assert!(one == other, "the histories of both servers are equal");
    let [refused, read, gaps] = [&record.refused, &record.read, &record.gaps].map(|count| count.load(Ordering::SeqCst));
    println!("{} accepted, {refused} refused, {read} read, {gaps} gaps", record.count());
}

/// Returns the channel of a reader, so that each channel has readers of several transports.
fn channel_of(reader: usize) -> usize {
    (reader + reader / CHANNELS) % CHANNELS
}

fn make(trouble: Trouble, pair: &mut Pair, record: &Record) {
    let ok = |command: &str| assert!(!pair.redis.command(command).starts_with('-'), "{command}");
    match trouble {
        Trouble::ConnectionsKilled => ok("CLIENT KILL TYPE normal"),
        Trouble::SubscribersKilled => ok("CLIENT KILL TYPE pubsub"),
        Trouble::Paused => ok("CLIENT PAUSE 1500"),
        Trouble::FunctionsFlushed => ok("FUNCTION FLUSH"),
        Trouble::Stopped => {
            pair.redis.signal("STOP");
            // The trouble is how long it lasts: longer than servers wait.
            thread::sleep(Duration::from_secs(3));
            pair.redis.signal("CONT");
        }
        Trouble::ServerKilled => pair.servers[1].restart(),
        Trouble::RedisKilled => {
            let refused = record.refused.load(Ordering::SeqCst);
            pair.redis.kill();
            record.generations.fetch_add(1, Ordering::SeqCst);
            wait_until("publications are refused", || record.refused.load(Ordering::SeqCst) > refused + 20);
            pair.redis.start_again();
        }
        Trouble::Flushed => {
            ok("FLUSHALL");
            record.era.fetch_add(1, Ordering::SeqCst);
        }
        Trouble::RedisEmptied => {
            pair.redis.kill();
            pair.redis.start_empty();
            record.era.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Publishes at both servers in each channel, and waits for all readers to have it.
fn recover(what: &str, record: &Record, shown: &[Mutex<Option<Spot>>], fronts: [SocketAddr; 2]) {
    let start = Instant::now();
    let mut marks = HashMap::new();
    for channel in 0..CHANNELS {
        for front in fronts {
            let reply = publish(front, channel, start);
            let Some(reply) = reply else {
                return record.fault(format!("{what}: c{channel} cannot be published in at {front}"));
            };
            let spot = Spot::parse(&reply.position());
            record.saw("a mark", channel, spot, "mark");
            marks.insert(channel, spot);
        }
    }
    for (reader, shown) in shown.iter().enumerate() {
        let mark = marks[&channel_of(reader)];
        let spot = || *shown.lock().expect("no panic while it is held");
        while spot().is_none_or(|spot| spot < mark) {
            if start.elapsed() > 2 * RECOVERY_MAX {
                record.fault(format!("{what}: reader {reader} is at {:?}, and not at {mark:?}", spot()));
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Publishes as soon as the server accepts it. Returns `None` if that takes too long.
fn publish(front: SocketAddr, channel: usize, start: Instant) -> Option<Reply> {
    while start.elapsed() < RECOVERY_MAX {
        let reply = Line::connect(front).and_then(|mut line| {
            line.send("POST", &format!("/channels/c{channel}"), "", "mark")?;
            line.reply()
        });
        match reply {
            Ok(reply) if reply.status == 200 => return Some(reply),
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
    None
}

/// Compares the history with what was accepted before, and returns it.
fn verify(record: &Record, front: SocketAddr) -> Vec<Vec<(Spot, String)>> {
    let era = record.era.load(Ordering::SeqCst);
    let places_max = 1 + record.generations.load(Ordering::SeqCst) as usize;
    let accepted = record.accepted();
    let histories: Vec<_> = (0..CHANNELS)
        .map(|channel| {
            let here = accepted.iter().filter(|message| message.channel == channel);
            let latest = here.max_by_key(|message| message.spot).expect("each channel has messages");
            history(front, channel, &latest.position)
        })
        .collect();
    for (channel, messages) in histories.iter().enumerate() {
        let mut places: HashMap<&str, Vec<Spot>> = HashMap::new();
        for pair in messages.windows(2) {
            if pair[1].0 != pair[0].0.after() {
                record.fault(format!("the history of c{channel} has {:?} before {:?}", pair[0].0, pair[1].0));
            }
        }
        for (spot, data) in messages {
            record.saw("a history", channel, *spot, data);
            places.entry(data).or_default().push(*spot);
        }
        let epoch = messages.last().map(|(spot, _)| spot.epoch);
        for message in accepted.iter().filter(|message| message.channel == channel && message.era == era) {
            let found = places.get(&*message.data).map_or(&[][..], |found| found);
            let is_right = match found {
                [] => false,
                _ if Some(message.spot.epoch) == epoch => found.contains(&message.spot),
                _ => true,
            };
            let is_repeated = found.len() > if message.has_key { places_max } else { 1 };
            if !is_right || is_repeated {
                let Spot { epoch, next } = message.spot;
                record.fault(format!(
                    "{:.20} was accepted in c{channel} at {epoch}-{next} (key: {}), and is at {found:?}",
                    message.data, message.has_key
                ));
            }
        }
    }
    histories
}

/// Reads the whole history of a channel, as soon as the server has the messages before a position.
fn history(front: SocketAddr, channel: usize, position: &str) -> Vec<(Spot, String)> {
    let (mut client, mut messages) = (Client::connect(front), Vec::new());
    let reply = client.get(&format!("/channels/c{channel}?after={position}&wait=0"));
    assert_eq!(reply.status, 200, "{reply}");
    let mut position = "oldest".to_owned();
    loop {
        let reply = client.get(&format!("/channels/c{channel}/history?after={position}&limit=1000"));
        assert_eq!(reply.status, 200, "{reply}");
        let page = reply.json();
        for item in page["items"].as_array().expect("items") {
            assert_eq!(item["type"], "message", "{item}");
            let spot = Spot::parse(item["position"].as_str().expect("a position"));
            messages.push((spot, item["data"].as_str().expect("data").to_owned()));
        }
        if page["more"] != true {
            return messages;
        }
        position = reply.position();
    }
}
