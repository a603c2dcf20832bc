//! Promises of the store on disk, by its own interface: what was kept is there after a restart, and
//! nothing else is. `crashes.rs` stops it at random moments.

mod crashes;
mod damage;
mod details;
mod retention;
mod space;
mod tools;

use std::collections::BTreeMap;
use std::time::Duration;

use sealed::sim::{DiskFaults, SimDisk, Simulation};

use super::super::Part;
use super::log::segment_name;
use super::*;
use crate::core::message::Draft;
use crate::core::time::UnixMillis;
use crate::engine::store::KeptChannel;

/// A store, by default with two loops, driven by hand, on a simulated disk.
struct Bench {
    sim: Simulation,
    disk: SimDisk,
    settings: StoreSettings,
    loops: usize,
    shared: Option<Arc<SharedStore>>,
    stores: Vec<DiskStore>,
    /// The epoch and the next number of each channel.
    places: BTreeMap<String, (Epoch, u64)>,
    millis: u64,
    reads: u32,
}

const LIMITS: HistoryLimits =
    HistoryLimits { messages_max: 1_000, bytes_max: 10 << 20, kept_for: Duration::from_secs(3_600) };

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).expect("a name")
}

fn payloads(part: &Part) -> Vec<(u64, String)> {
    let text = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
    part.entries.iter().map(|(number, message)| (*number, text(message))).collect()
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self::with_seed(1);
        bench.start().expect("a new store");
        bench
    }

    /// Creates a bench whose store is not open yet.
    fn with_seed(seed: u64) -> Self {
        let sim = Simulation::new(seed);
        let settings = StoreSettings {
            path: "data".into(),
            sync: LogSync::Commit,
            segment_bytes: 4_096,
            checkpoint_bytes: 1 << 40,
            checkpoint_interval: Duration::from_secs(60),
            channels_at_once: 2,
            reads_at_once: 2,
            places_at_once: 1_024,
            waiting_bytes_max: 1 << 20,
            bytes_max: 1 << 40,
            times: StoreTimes {
                kept_for: Duration::from_secs(3_600),
                idle: Duration::from_secs(3_600),
                key_age: Duration::from_secs(300),
            },
            cache_bytes: 1 << 20,
            window_max: 10,
        };
        Self {
            disk: sim.disk(),
            sim,
            settings,
            loops: 2,
            shared: None,
            stores: Vec::new(),
            places: BTreeMap::new(),
            millis: 1_000_000,
            reads: 0,
        }
    }

    fn start(&mut self) -> Result<(), StoreError> {
        let crews = Crews {
            writer: self.sim.workers(1, 10),
            readers: self.sim.workers(2, 1_000),
            keeper: self.sim.workers(1, 10),
            syncer: self.sim.workers(1, 1),
        };
        let shared = SharedStore::open(&self.disk.disk(), self.settings.clone(), crews, 7, self.loops)?;
        self.stores = (0..self.loops).map(|index| DiskStore::new(shared.clone(), index)).collect();
        self.shared = Some(shared);
        Ok(())
    }

    fn stop(&mut self) {
        self.stores.clear();
        self.shared = None;
        self.disk.kill();
    }

    fn restart(&mut self) {
        self.stop();
        self.start().expect("the store of before");
    }

    fn now(&mut self) -> Tick {
        self.millis += 1;
        let loop_time = LoopTime::default().plus(Duration::from_millis(self.millis));
        Tick { time: UnixMillis::from_millis(self.millis), loop_time, random: self.millis }
    }

    fn store(&mut self, channel: &str) -> usize {
        name(channel).shard(self.loops)
    }

    /// Ends a tick of each loop, and lets the threads work. Returns what came of it.
    fn tick(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for _ in 0..4 {
            let now = self.now();
            for store in &mut self.stores {
                store.flush(now);
                outcomes.extend(std::iter::from_fn(|| store.next_outcome(now)));
            }
            self.sim.run_for(Duration::from_millis(5));
        }
        outcomes
    }

    fn place(&mut self, channel: &str) -> (Epoch, u64) {
        let now = self.now();
        *self.places.entry(channel.to_owned()).or_insert_with(|| (Epoch::new(now.time, 0, Epoch(0)), 0))
    }

    fn submit(&mut self, channel: &str, change: StoreChange<'_>) -> Submitted {
        let (epoch, next) = self.place(channel);
        let (now, index) = (self.now(), self.store(channel));
        self.stores[index].submit(now, ChannelPlace { channel: &name(channel), epoch, next }, change)
    }

    /// Publishes messages, and returns whether they are kept.
    fn publish(&mut self, channel: &str, texts: &[&str]) -> bool {
        let time = self.now().time;
        let draft = |text: &&str| Draft { payload: text.to_string().into(), ..Draft::default() };
        let messages: Vec<_> = texts.iter().map(|text| Arc::new(draft(text).taken_at(time))).collect();
        self.publish_all(channel, &messages)
    }

    fn publish_all(&mut self, channel: &str, messages: &[Arc<Message>]) -> bool {
        assert_eq!(self.submit(channel, StoreChange::Append(messages)), Submitted::Later);
        let is_kept = self.is_kept();
        if is_kept && let Some((_, next)) = self.places.get_mut(channel) {
            *next += messages.len() as u64;
        }
        is_kept
    }

    fn is_kept(&mut self) -> bool {
        match self.tick().pop() {
            Some(Outcome::Changed { kept, .. }) => kept.is_ok(),
            other => panic!("a change, not {other:?}"),
        }
    }

    fn checkpoint(&mut self) {
        self.shared.as_ref().expect("a store").begin_checkpoint();
        self.tick();
    }

    /// Opens a channel that is not in memory.
    fn open(&mut self, channel: &str) -> Option<KeptChannel> {
        let (now, index) = (self.now(), self.store(channel));
        match self.stores[index].open(now, &name(channel), true) {
            Opened::Absent => None,
            Opened::Later => match self.tick().pop() {
                Some(Outcome::Opened { kept, .. }) => kept.expect("the index can be read"),
                other => panic!("an opened channel, not {other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn page(&mut self, channel: &str, range: PartRange) -> Part {
        let (epoch, next) = self.place(channel);
        let (now, index) = (self.now(), self.store(channel));
        self.reads += 1;
        let read = self.reads;
        self.stores[index].read(now, read, ChannelPlace { channel: &name(channel), epoch, next }, range);
        match self.tick().pop() {
            Some(Outcome::Page { read: found, part }) if found == read => part.expect("the log can be read"),
            other => panic!("a page, not {other:?}"),
        }
    }

    fn all(&mut self, channel: &str) -> Vec<(u64, String)> {
        payloads(&self.page(channel, range(0, false, 1_000)))
    }

    fn segments(&self) -> usize {
        self.disk.files().iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "log")).count()
    }

    fn contents(&self, file: &str) -> Vec<u8> {
        self.disk.contents(self.settings.path.join(file)).expect("a file")
    }

    fn replace(&self, file: &str, contents: &[u8]) {
        self.disk.replace(self.settings.path.join(file), contents);
    }
}

fn range(begin: u64, is_backward: bool, limit: usize) -> PartRange {
    PartRange { begin, is_backward, limit, bytes_max: usize::MAX }
}

fn numbered(texts: &[&str]) -> Vec<(u64, String)> {
    (0..).zip(texts).map(|(number, text)| (number, (*text).to_owned())).collect()
}

#[test]
fn kept_messages_are_there_after_a_restart() {
    for checkpoints in [false, true] {
        let mut bench = Bench::new();
        assert!(
            bench.publish("a", &["one", "two"]) && bench.publish("b", &["other"]) && bench.publish("a", &["three"])
        );
        let epoch = bench.place("a").0;
        if checkpoints {
            bench.checkpoint();
        }
        for _ in 0..3 {
            bench.restart();
            let kept = bench.open("a").expect("channel a");
            assert_eq!((kept.window.epoch, kept.window.kept_from, kept.window.first), (epoch, 0, 0));
            assert_eq!(kept.window.entries.len(), 3);
            assert_eq!(bench.all("a"), numbered(&["one", "two", "three"]));
            assert!(bench.open("c").is_none());
        }
        assert!(bench.publish("a", &["four"]));
        bench.restart();
        assert!(bench.open("a").is_some() && bench.open("b").is_some());
        assert_eq!(bench.all("a"), numbered(&["one", "two", "three", "four"]));
        assert_eq!(bench.all("b"), numbered(&["other"]));
    }
}

#[test]
fn all_parts_of_a_message_are_kept() {
    let mut bench = Bench::new();
    let draft = Draft {
        payload: bytes::Bytes::from_static(b"\0\xff payload"),
        sender: Some("sender".into()),
        event: Some("event".into()),
        ttl_s: Some(60),
        key: Some("key".into()),
    };
    let time = bench.now().time;
    let mut message = draft.taken_at(time);
    message.extra_mut().is_broadcast = true;
    let plain = Draft::default().taken_at(time);
    let messages = [Arc::new(message), Arc::new(plain)];
    assert!(bench.publish_all("a", &messages));
    bench.restart();
    let kept = bench.open("a").expect("channel a");
    assert_eq!(kept.window.entries, messages);
    assert_eq!(kept.keys, [key_of(&messages[0], 1).expect("a key")]);
    bench.checkpoint();
    bench.restart();
    assert_eq!(bench.open("a").expect("channel a").keys.len(), 1);
}

#[test]
fn pages_go_both_ways_over_index_and_log() {
    let mut bench = Bench::new();
    let texts: Vec<String> = (0..300).map(|number| format!("message {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (index, texts) in texts.chunks(7).enumerate() {
        assert!(bench.publish("a", texts));
        if index % 9 == 0 {
            bench.checkpoint();
        }
    }
    assert_eq!(bench.all("a"), numbered(&texts));
    for (begin, limit) in [(0, 10), (5, 1), (63, 2), (64, 64), (65, 200), (250, 100), (299, 1), (300, 5)] {
        let forward = bench.page("a", range(begin, false, limit));
        let expected: Vec<_> = numbered(&texts).into_iter().skip(begin as usize).take(limit).collect();
        assert_eq!(payloads(&forward), expected, "{begin} {limit}");
        assert_eq!(forward.has_more, begin as usize + limit < 300, "{begin} {limit}");
        let backward = bench.page("a", range(begin, true, limit));
        let expected: Vec<_> = numbered(&texts).into_iter().take(begin as usize).rev().take(limit).collect();
        assert_eq!(payloads(&backward), expected, "{begin} {limit} backward");
        assert_eq!(backward.has_more, limit < begin as usize, "{begin} {limit} backward");
    }
    bench.restart();
    let kept = bench.open("a").expect("channel a");
    assert_eq!((kept.window.first, kept.window.entries.len()), (200, 100));
    assert_eq!(bench.all("a"), numbered(&texts));
}

#[test]
fn cleared_and_removed_channels_stay_so() {
    for checkpoints in [0, 1, 2] {
        let mut bench = Bench::new();
        for channel in ["a", "b", "c"] {
            assert!(bench.publish(channel, &["one", "two"]));
        }
        if checkpoints == 1 {
            bench.checkpoint();
        }
        assert_eq!(bench.submit("a", StoreChange::Clear), Submitted::Later);
        assert!(bench.is_kept());
        assert!(bench.publish("a", &["three"]));
        assert_eq!(bench.submit("b", StoreChange::Remove), Submitted::Later);
        assert!(bench.is_kept());
        assert!(bench.open("b").is_none());
        let index = bench.store("c");
        bench.stores[index].forget(&name("c"));
        bench.tick();
        assert!(bench.open("c").is_none());
        if checkpoints == 2 {
            bench.checkpoint();
        }
        // Channel b again: it is another one.
        bench.places.remove("b");
        assert!(bench.publish("b", &["new"]));
        for _ in 0..2 {
            bench.restart();
            let kept = bench.open("a").expect("channel a");
            assert_eq!((kept.window.kept_from, kept.window.first, kept.window.entries.len()), (2, 2, 1));
            let kept = bench.open("b").expect("channel b");
            assert_eq!((kept.window.epoch, kept.window.entries.len()), (bench.place("b").0, 1));
            assert!(bench.open("c").is_none());
        }
    }
}

#[test]
fn trimmed_messages_go_and_their_segments_too() {
    let mut bench = Bench::new();
    let text = "x".repeat(500);
    for round in 0..20 {
        assert!(bench.publish("a", &[text.as_str(); 5]));
        if round % 3 == 0 {
            bench.checkpoint();
        }
        for _ in 0..2 {
            let (now, index) = (bench.now(), bench.store("a"));
            let limits = HistoryLimits { messages_max: 7, ..LIMITS };
            bench.stores[index].trim(now, &name("a"), &limits);
            bench.tick();
        }
    }
    bench.checkpoint();
    bench.checkpoint();
    assert!(bench.segments() <= 3, "{} segments", bench.segments());
    let numbers: Vec<u64> = bench.all("a").into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [93, 94, 95, 96, 97, 98, 99]);
    bench.restart();
    assert_eq!(bench.open("a").expect("channel a").window.kept_from, 93);
}

/// Returns a store that is stopped, its log with three messages of channel a, and how much of it is
/// used.
fn with_three_messages() -> (Bench, Vec<u8>, usize) {
    let mut bench = Bench::new();
    for text in ["one", "two", "three"] {
        assert!(bench.publish("a", &[text]));
    }
    bench.stop();
    let log = bench.contents(&segment_name(1));
    let used = log.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    (bench, log, used)
}

#[test]
fn a_log_that_ends_anywhere_is_read_up_to_the_last_whole_commit() {
    let (mut bench, log, used) = with_three_messages();
    let index = bench.contents("index.redb");
    let mut counts = Vec::new();
    for length in 0..=used {
        let mut cut = log[..length].to_vec();
        cut.resize(log.len(), 0);
        bench.replace(&segment_name(1), &cut);
        bench.replace("index.redb", &index);
        bench.start().expect("a log that ends");
        let kept = bench.open("a").map_or(0, |kept| kept.window.entries.len());
        if kept > 0 {
            assert_eq!(bench.all("a"), numbered(&["one", "two", "three"][..kept]));
        }
        counts.push(kept);
        bench.stop();
    }
    assert!(counts.is_sorted() && counts.first() == Some(&0) && counts.last() == Some(&3), "{counts:?}");
}

#[test]
fn a_changed_byte_is_found() {
    let (mut bench, log, used) = with_three_messages();
    let index = bench.contents("index.redb");
    let (mut refused, mut ends) = (0, 0);
    for place in 0..used {
        let mut changed = log.clone();
        changed[place] ^= 1 << (place % 8);
        bench.replace(&segment_name(1), &changed);
        bench.replace("index.redb", &index);
        match bench.start() {
            Err(StoreError::Damaged { .. } | StoreError::Newer { .. }) => refused += 1,
            Err(other) => panic!("byte {place}: {other}"),
            // Nothing after the last commit says that it was kept.
            Ok(()) => {
                ends += 1;
                let kept = bench.open("a").map_or(0, |kept| kept.window.entries.len());
                let found = if kept > 0 { bench.all("a") } else { Vec::new() };
                assert_eq!(found, numbered(&["one", "two", "three"][..kept]), "byte {place}");
                assert_eq!(kept, 2, "byte {place}");
            }
        }
        bench.stop();
    }
    assert!(refused > ends, "{refused} refused, {ends} taken for the end");
}

#[test]
fn a_directory_has_one_owner() {
    let mut bench = Bench::new();
    let error = bench.start().expect_err("it is in use");
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
}
