//! The contract of every store: random requests and orders of two loops, over each of the stores,
//! against a model of a hub.

mod kept;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::store::{MemoryStore, Store, StoreFaults, UnreliableStore};
use super::{ChannelEvent, Edge, Engine, Mail, Order, Output, Page, Range, Refusal, Reply, Request, ShardLimits};
use super::{Tick, Window};
use crate::config::Config;
use crate::config::rules::Rules;
use crate::core::message::{ChannelName, Draft, Message};
use crate::core::one_or_more::OneOrMore;
use crate::core::owner::Owner;
use crate::core::position::{Epoch, Spot};
use crate::core::time::{LoopTime, UnixMillis};

const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];
const MESSAGES_MAX: usize = 12;
const SEEDS: u64 = 300;

const SLOW: StoreFaults = StoreFaults {
    window_max: 1_000,
    delay_max: Duration::from_millis(50),
    refusals: 0,
    cuts: 0,
    cut_max: Duration::ZERO,
    restarts: 0,
    idle_max: Duration::from_millis(100),
};

/// A request, as the test remembers it.
#[derive(Debug, Clone)]
enum Asked {
    Publish {
        channel: ChannelName,
        payloads: Vec<String>,
    },
    Page {
        channel: ChannelName,
    },
    /// A request whose reply a test reads.
    Any,
    Other,
}

/// A channel as a loop knows it from events.
#[derive(Debug)]
struct Replica {
    epoch: Option<Epoch>,
    kept_from: u64,
    next: u64,
    is_interrupted: bool,
}

/// Two loops, and the known state of their channels.
struct Bench {
    engines: Vec<Engine<(u64, Asked), Mail>>,
    mail: VecDeque<(usize, Mail)>,
    millis: u64,
    random: u64,
    replicas: Vec<HashMap<ChannelName, Replica>>,
    /// The payload under each number, as far as it was observed.
    seen: HashMap<(ChannelName, Epoch, u64), String>,
    /// The number of each payload, by its channel and epoch.
    numbers: HashMap<(ChannelName, Epoch, String), u64>,
    /// Set if numbers may begin anew.
    restarts: bool,
    /// Set if the loops may end, and others begin with what their stores keep.
    is_lasting: bool,
    limits: ShardLimits,
    outstanding: BTreeMap<u64, Asked>,
    accepted: Vec<(ChannelName, Spot, String)>,
    pages: Vec<(ChannelName, Page)>,
    /// The pages that loops have ordered: the number of the oldest message kept, and of entries.
    fetched: Vec<(u64, usize)>,
    /// The pages that could not be read.
    unread: usize,
    replies: Vec<Result<Reply, Refusal>>,
    last: u64,
}

impl Bench {
    fn new(seed: u64, store: impl Fn() -> Box<dyn Store>) -> Self {
        Self::with(Config::default(), seed, store)
    }

    fn with(mut config: Config, seed: u64, store: impl Fn() -> Box<dyn Store>) -> Self {
        config.history.messages_max = MESSAGES_MAX;
        let rules = Arc::new(Rules::new(&config));
        let limits = ShardLimits::new(&config, rules, 2, Duration::from_secs(60));
        Self {
            engines: (0..2).map(|index| engine(index, &limits, store())).collect(),
            limits,
            is_lasting: false,
            mail: VecDeque::new(),
            millis: 1_000,
            random: seed,
            replicas: vec![HashMap::new(), HashMap::new()],
            seen: HashMap::new(),
            numbers: HashMap::new(),
            restarts: false,
            outstanding: BTreeMap::new(),
            accepted: Vec::new(),
            pages: Vec::new(),
            fetched: Vec::new(),
            unread: 0,
            replies: Vec::new(),
            last: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn tick(&mut self) -> Tick {
        let random = self.below(u64::MAX >> 33);
        Tick {
            time: UnixMillis::from_millis(1_700_000_000_000 + self.millis),
            loop_time: LoopTime::since_start(Duration::from_millis(self.millis)),
            random,
        }
    }

    fn channel(&mut self) -> ChannelName {
        let name = CHANNELS[self.below(4) as usize];
        ChannelName::new(name).expect("a name")
    }

    fn ask(&mut self, on: usize, request: Request, asked: Asked) {
        self.last += 1;
        self.outstanding.insert(self.last, asked.clone());
        let (now, id) = (self.tick(), self.last);
        self.engines[on].request(now, request, (id, asked));
    }

    fn publish(&mut self, on: usize) {
        let channel = self.channel();
        let count = 1 + self.below(2) * self.below(3);
        let mut payloads = Vec::new();
        let messages: Vec<Message> = (0..count).map(|_| self.message(&channel, &mut payloads)).collect();
        let mut messages = messages.into_iter();
        let Some(first) = messages.next() else { return };
        let request = Request::Publish {
            channel: channel.clone(),
            messages: OneOrMore { first, rest: messages.collect() },
            owner: Owner::default(),
        };
        self.ask(on, request, Asked::Publish { channel, payloads });
    }

    /// Returns a new message, or one that may have been published before under its key.
    fn message(&mut self, channel: &ChannelName, payloads: &mut Vec<String>) -> Message {
        let number = if self.below(3) == 0 { self.below(20) } else { 100 + self.last * 10 + payloads.len() as u64 };
        let payload = format!("{channel}{number}");
        payloads.push(payload.clone());
        let key = Some(payload.clone().into());
        Draft { payload: payload.into(), key, ..Draft::default() }.taken_at(self.tick().time)
    }

    fn act(&mut self) {
        let on = self.below(2) as usize;
        let channel = self.channel();
        match self.below(20) {
            0..=8 => self.publish(on),
            9..=11 => self.open_or_close(on, channel),
            12 if self.below(3) == 0 => self.ask(on, Request::Delete { channel }, Asked::Other),
            13 if self.below(3) == 0 => self.ask(on, Request::Clear { channel }, Asked::Other),
            14..=15 => {
                let edge = if self.below(2) == 0 { Edge::Begin } else { Edge::End };
                self.read(on, channel, edge, 4);
            }
            16 => {
                let now = self.tick();
                let replica =
                    self.replicas[on].get(&channel).and_then(|replica| Some((replica.epoch?, replica.kept_from)));
                if let Some((epoch, from)) = replica {
                    self.engines[on].order(now, Order::Fetch { channel, epoch, from });
                }
            }
            17 => {
                let now = self.tick();
                self.engines[on].sweep(now);
            }
            18 if self.is_lasting && self.below(4) == 0 => self.restart(),
            _ => self.turn(),
        }
    }

    /// Ends both loops, and starts others over the same stores.
    fn restart(&mut self) {
        let now = self.tick();
        let ended = std::mem::take(&mut self.engines).into_iter().map(Engine::into_store);
        for (index, mut store) in ended.enumerate() {
            store.restart(now);
            self.engines.push(engine(index, &self.limits, store));
        }
        self.mail.clear();
        self.outstanding.clear();
        self.replicas.iter_mut().for_each(HashMap::clear);
    }

    fn open_or_close(&mut self, on: usize, channel: ChannelName) {
        let now = self.tick();
        if self.replicas[on].remove(&channel).is_some() {
            return self.engines[on].order(now, Order::Close { channel });
        }
        let replica = Replica { epoch: None, kept_from: 0, next: 0, is_interrupted: false };
        self.replicas[on].insert(channel.clone(), replica);
        self.engines[on].order(now, Order::Open { channel, owner: Owner::default() });
    }

    fn read(&mut self, on: usize, channel: ChannelName, edge: Edge, limit: usize) {
        let range = Range { edge, is_backward: edge == Edge::End, limit, bytes_max: 1_000 };
        self.ask(on, Request::Read { channel: channel.clone(), range }, Asked::Page { channel });
    }

    /// Ends a tick of both loops, and delivers some of the mail.
    fn turn(&mut self) {
        self.millis += self.below(40);
        for on in 0..2 {
            let now = self.tick();
            self.engines[on].end_tick(now);
            self.take_outputs(on);
            let mail = self.engines[on].take_mail(1 - on);
            self.mail.push_back((1 - on, mail));
        }
        for _ in 0..self.below(7) {
            if let Some((to, mail)) = self.mail.pop_front() {
                let now = self.tick();
                self.engines[to].receive(now, mail);
                self.take_outputs(to);
            }
        }
    }

    fn take_outputs(&mut self, on: usize) {
        while let Some(output) = self.engines[on].next_output() {
            match output {
                Output::Reply((id, asked), outcome) => {
                    assert!(self.outstanding.remove(&id).is_some(), "one reply to {asked:?}");
                    self.replied(asked, outcome);
                }
                Output::Channel(channel, event) => self.on_event(on, &channel, event),
                _ => {}
            }
        }
    }

    fn replied(&mut self, asked: Asked, outcome: Result<Reply, Refusal>) {
        match (asked, outcome) {
            (Asked::Publish { channel, payloads }, Ok(Reply::Published(spots))) => {
                for (spot, payload) in spots.iter().zip(payloads) {
                    self.see(&channel, spot.epoch, spot.next - 1, &payload);
                    self.accepted.push((channel.clone(), *spot, payload));
                }
            }
            (Asked::Page { channel }, Ok(Reply::Page(Some(page)))) => {
                for (number, message) in &page.entries {
                    self.see(&channel, page.end.epoch, *number, &text(message));
                }
                self.pages.push((channel, page));
            }
            (Asked::Page { .. }, Err(Refusal::Unavailable)) => self.unread += 1,
            (Asked::Any, outcome) => self.replies.push(outcome),
            (Asked::Page { .. }, Ok(Reply::Page(None)))
            | (Asked::Other, Ok(Reply::Ended(_)))
            | (_, Err(Refusal::Unavailable)) => {}
            (asked, outcome) => panic!("{asked:?}: {outcome:?}"),
        }
    }

    /// Asserts that no other message was observed at this place, and that this message was observed
    /// at no other.
    fn see(&mut self, channel: &ChannelName, epoch: Epoch, number: u64, payload: &str) {
        let place = (channel.clone(), epoch, number);
        let held = self.seen.entry(place).or_insert_with(|| payload.to_owned());
        assert_eq!(held, payload, "{channel} {epoch:?} {number}");
        // After a restart of the numbers, the keys of messages that are not in memory are not
        // known.
        if !self.restarts {
            let name = (channel.clone(), epoch, payload.to_owned());
            assert_eq!(*self.numbers.entry(name).or_insert(number), number, "{channel}: {payload} is there twice");
        }
    }

    fn on_event(&mut self, on: usize, channel: &ChannelName, event: ChannelEvent) {
        let Some(mut replica) = self.replicas[on].remove(channel) else { return };
        let is_open = replica.epoch.is_some();
        match event {
            ChannelEvent::Opened(Window { epoch, kept_from, first, entries }) => {
                replica = Replica { epoch: Some(epoch), kept_from, next: first, is_interrupted: false };
                self.follow(channel, &mut replica, first, &entries);
            }
            ChannelEvent::Restarted(Window { epoch, kept_from, first, entries }) if is_open => {
                assert_ne!(replica.epoch, Some(epoch));
                assert!(self.restarts);
                replica = Replica { epoch: Some(epoch), kept_from, next: first, ..replica };
                self.follow(channel, &mut replica, first, &entries);
            }
            ChannelEvent::Appended { first, entries, kept_from, window_from, .. } if is_open => {
                assert!(kept_from <= window_from, "{replica:?}");
                self.follow(channel, &mut replica, first, &entries);
                replica.kept_from = replica.kept_from.max(kept_from);
            }
            ChannelEvent::Truncated { kept_from, .. } if is_open => {
                replica.kept_from = replica.kept_from.max(kept_from);
            }
            ChannelEvent::Page { epoch, entries, from, end, kept_from, .. } if is_open => {
                assert!(from <= end.max(kept_from), "{from} {end} {kept_from}");
                self.fetched.push((kept_from, entries.len()));
                for (number, message) in entries {
                    self.see(channel, epoch, number, &text(&message));
                }
            }
            ChannelEvent::Interrupted => replica.is_interrupted = true,
            ChannelEvent::Resumed => replica.is_interrupted = false,
            // A channel that waits for `Opened` is a later channel of that name.
            ChannelEvent::Closed if is_open => return,
            ChannelEvent::Refused { why: Refusal::Unavailable, .. } if !is_open => return,
            _ => {}
        }
        self.replicas[on].insert(channel.clone(), replica);
    }

    fn follow(&mut self, channel: &ChannelName, replica: &mut Replica, first: u64, entries: &[Arc<Message>]) {
        let Some(epoch) = replica.epoch else { return };
        assert!(first >= replica.next, "{channel}: {first} comes again, after {}", replica.next);
        for (number, message) in (first..).zip(entries) {
            self.see(channel, epoch, number, &text(message));
        }
        replica.next = first + entries.len() as u64;
    }

    /// Completes all work in progress.
    fn settle(&mut self) {
        for _ in 0..60 {
            self.millis += 100;
            self.turn();
        }
        for _ in 0..100 {
            self.turn();
        }
        assert_eq!(self.outstanding.len(), 0, "{:?}", self.outstanding);
    }

    /// Asserts that pages contain all accepted messages that are to be kept, and that followers are
    /// at the channel's head.
    fn check(&mut self) {
        for name in CHANNELS {
            let channel = ChannelName::new(name).expect("a name");
            let mut found = BTreeMap::new();
            let (mut edge, mut epoch) = (Edge::Begin, None);
            loop {
                self.pages.clear();
                let unread = self.unread;
                self.read(0, channel.clone(), edge, 2);
                self.settle();
                let Some((_, page)) = self.pages.pop() else {
                    if self.unread > unread {
                        continue;
                    }
                    break;
                };
                assert!(page.gap.is_none() || edge != Edge::Begin, "{page:?}");
                found.extend(page.entries.iter().map(|(number, message)| (*number, text(message))));
                (edge, epoch) = (Edge::At(page.end), Some((page.end.epoch, page.end.next)));
                if !page.more {
                    break;
                }
            }
            let Some((epoch, next)) = epoch else { continue };
            assert!(found.len() <= MESSAGES_MAX);
            let first = found.keys().next().copied().unwrap_or(next);
            assert_eq!(found.keys().copied().collect::<Vec<_>>(), (first..next).collect::<Vec<_>>(), "{channel}");
            for (of, spot, payload) in &self.accepted {
                if *of == channel && spot.epoch == epoch && spot.next > first {
                    assert_eq!(found.get(&(spot.next - 1)), Some(payload), "{channel} {spot}");
                }
            }
            for replicas in &self.replicas {
                if let Some(replica) = replicas.get(&channel) {
                    assert_eq!((replica.epoch, replica.next), (Some(epoch), next), "{channel} {replica:?}");
                }
            }
        }
    }
}

fn engine(index: usize, limits: &ShardLimits, store: Box<dyn Store>) -> Engine<(u64, Asked), Mail> {
    let pool = sealed::Pool::new(sealed::Config::default(), 2.try_into().ok()).expect("loops");
    Engine::new(index, pool.mailboxes(), limits.clone(), store, Duration::from_secs(10))
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

fn conforms(store: impl Fn() -> Box<dyn Store>) -> usize {
    conforms_with(false, false, store)
}

/// Returns the number of messages accepted.
fn conforms_with(restarts: bool, is_lasting: bool, store: impl Fn() -> Box<dyn Store>) -> usize {
    let mut accepted = 0;
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, &store);
        bench.restarts = restarts;
        bench.is_lasting = is_lasting;
        for _ in 0..200 {
            bench.act();
        }
        bench.settle();
        bench.check();
        accepted += bench.accepted.len();
    }
    accepted
}

#[test]
fn the_memory_store_conforms() {
    assert!(conforms(|| Box::new(MemoryStore)) > 100 * SEEDS as usize / 2);
}

#[test]
fn a_store_that_keeps_changes_late_conforms() {
    assert!(conforms(|| Box::new(UnreliableStore::new(SLOW))) > 100 * SEEDS as usize / 2);
}

#[test]
fn a_store_with_little_in_memory_conforms() {
    for window_max in [1, 3] {
        conforms(|| Box::new(UnreliableStore::new(StoreFaults { window_max, ..SLOW })));
    }
}

#[test]
fn a_store_that_refuses_changes_conforms() {
    conforms(|| Box::new(UnreliableStore::new(StoreFaults { refusals: 200, ..SLOW })));
}

#[test]
fn a_store_that_becomes_unreachable_and_returns_conforms() {
    let cut_max = Duration::from_secs(2);
    conforms(|| Box::new(UnreliableStore::new(StoreFaults { cuts: 50, cut_max, window_max: 3, ..SLOW })));
}

#[test]
fn a_store_that_returns_with_other_numbers_conforms() {
    let cut_max = Duration::from_secs(2);
    let faults = StoreFaults { cuts: 50, cut_max, window_max: 3, restarts: 50, refusals: 20, ..SLOW };
    conforms_with(true, false, || Box::new(UnreliableStore::new(faults)));
}

#[test]
fn a_store_that_outlives_its_shard_conforms() {
    let cut_max = Duration::from_secs(2);
    for (window_max, cuts, refusals) in [(1_000, 0, 0), (3, 20, 50)] {
        let faults = StoreFaults { window_max, refusals, cuts, cut_max, ..SLOW };
        conforms_with(false, true, || Box::new(UnreliableStore::new(faults)));
    }
}
