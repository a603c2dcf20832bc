//! The protocol that all simulations test, and the bugs that can be planted in it.
//!
//! A server counts. A client sends `add NAME SEQ` and gets `ok NAME SEQ` once the request is
//! durable. The client repeats a request whose answer does not come, on a new connection, so the
//! server has to recognize what it has executed before. In the server, one loop or task (the front)
//! has the connections and hands requests over to another (the store), which commits them in
//! batches.

pub mod hand_over;
pub mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The primitives that `hand_over` uses here; loom and shuttle have their own.
mod sync {
    pub(crate) use std::sync::Mutex;
    pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
}

pub const CLIENTS: [&str; 3] = ["ann", "ben", "cid"];
/// Requests of each client.
pub const REQUESTS: u64 = 30;
/// Requests that a client sends at once.
pub const WINDOW: u64 = 3;
pub const PORT: u16 = 7777;
/// Time that the store takes to make a batch durable.
pub const COMMIT: Duration = Duration::from_millis(5);
/// Time after which a client gives up a connection that is silent.
pub const SILENCE: Duration = Duration::from_secs(3);
/// Time that a client waits before it connects again.
pub const RETRY: Duration = Duration::from_millis(20);
/// Time that a request may wait for the store, however slow the server is.
pub const WAIT_MAX: Duration = Duration::from_secs(2);
/// Time in which all clients must have their answers once the network works again.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    None,
    PartialRead,
    PartialReadOfPieces,
    ShortWrite,
    RetryTwice,
    AckEarly,
    LostWake,
    LostWakeNarrow,
    TimerNotRearmed,
    TimerOfSilentServer,
    SlotReused,
    LateDuplicate,
    MemoryOrder,
}

impl Bug {
    pub const ALL: [Self; 13] = [
        Self::None,
        Self::PartialRead,
        Self::PartialReadOfPieces,
        Self::ShortWrite,
        Self::RetryTwice,
        Self::AckEarly,
        Self::LostWake,
        Self::LostWakeNarrow,
        Self::TimerNotRearmed,
        Self::TimerOfSilentServer,
        Self::SlotReused,
        Self::LateDuplicate,
        Self::MemoryOrder,
    ];

    /// Describes the bug in a few words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::None => "no bug",
            Self::PartialRead => "a partial read is treated as whole",
            Self::PartialReadOfPieces => "the same, and the test's client sends in pieces",
            Self::ShortWrite => "a short write is counted wrongly",
            Self::RetryTwice => "a repeated request is executed twice",
            Self::AckEarly => "a request is acknowledged before it is durable",
            Self::LostWake => "a wake-up is lost during a commit",
            Self::LostWakeNarrow => "a wake-up is lost between two instructions",
            Self::TimerNotRearmed => "the timeout is not set again after a reconnect",
            Self::TimerOfSilentServer => "the same, and the test's server leaves its first connections without answers",
            Self::SlotReused => "an answer goes to the next connection of a slot",
            Self::LateDuplicate => "a request that arrives late, after a partition, is executed again",
            Self::MemoryOrder => "a flag is published with too weak an ordering",
        }
    }

    /// Returns whether a client is to set its timeout only on its first connection.
    pub const fn forgets_timer(self) -> bool {
        matches!(self, Self::TimerNotRearmed | Self::TimerOfSilentServer)
    }

    /// Returns whether the server is to ignore this connection, which is not a bug of the server.
    pub fn ignores(self, connection: Key) -> bool {
        self == Self::TimerOfSilentServer && connection.1 <= 2 * CLIENTS.len() as u64
    }
}

/// A request on its way through the server.
#[derive(Debug, Clone)]
pub struct Job {
    pub connection: Key,
    pub name: String,
    pub seq: u64,
    /// The time at which the front handed it over.
    pub at: Duration,
}

impl Job {
    /// Reads a line of the front's input. Returns `None` if it is malformed.
    pub fn parse(line: &str, connection: Key, at: Duration) -> Option<Self> {
        let mut words = line.trim().split(' ');
        let ("add", name, seq, None) = (words.next()?, words.next()?, words.next()?, words.next()) else { return None };
        Some(Self { connection, name: name.to_owned(), seq: seq.parse().ok()?, at })
    }

    pub fn answer(&self) -> String {
        format!("ok {} {}\n", self.name, self.seq)
    }
}

/// The durable state, which survives a crash of the server.
#[derive(Debug)]
pub struct Book {
    /// The highest request of each client that was executed.
    last: BTreeMap<String, u64>,
    /// In place of `last` with the bug `LateDuplicate`.
    recent: BTreeMap<String, VecDeque<u64>>,
    pub total: u64,
    bug: Bug,
}

impl Book {
    pub fn new(bug: Bug) -> Self {
        Self { last: BTreeMap::new(), recent: BTreeMap::new(), total: 0, bug }
    }

    /// Executes a request, unless it has been executed before. The requests of a client come in
    /// order on each connection, without gaps.
    pub fn apply(&mut self, name: &str, seq: u64) {
        let last = self.last.entry(name.to_owned()).or_default();
        let recent = self.recent.entry(name.to_owned()).or_default();
        let is_known = match self.bug {
            Bug::RetryTwice => false,
            Bug::LateDuplicate => recent.contains(&seq),
            _ => seq <= *last,
        };
        if !is_known {
            *last = seq;
            recent.push_back(seq);
            if recent.len() as u64 > WINDOW {
                recent.pop_front();
            }
            self.total += 1;
        }
    }

    /// Checks that each request of each client was executed once.
    pub fn check(&self) {
        assert_eq!(self.total, CLIENTS.len() as u64 * REQUESTS, "requests that were executed");
    }
}

/// A place in [`Slots`], and which of its users it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(usize, u64);

/// The connections of the front, in slots that are used again.
#[derive(Debug)]
pub struct Slots<T> {
    held: Vec<Option<(u64, T)>>,
    users: u64,
    bug: Bug,
}

impl<T> Slots<T> {
    pub fn new(bug: Bug) -> Self {
        Self { held: Vec::new(), users: 0, bug }
    }

    pub fn insert(&mut self, value: T) -> Key {
        self.users += 1;
        let free = self.held.iter().position(Option::is_none).unwrap_or_else(|| {
            self.held.push(None);
            self.held.len() - 1
        });
        self.held[free] = Some((self.users, value));
        Key(free, self.users)
    }

    pub fn find(&self, key: Key) -> Option<&T> {
        let (user, value) = self.held[key.0].as_ref()?;
        (*user == key.1 || self.bug == Bug::SlotReused).then_some(value)
    }

    pub fn remove(&mut self, key: Key) {
        self.held[key.0] = None;
    }
}

/// The requests of a client.
#[derive(Debug)]
pub struct Requests {
    name: String,
    sent: u64,
    unanswered: BTreeSet<u64>,
}

impl Requests {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), sent: 0, unanswered: BTreeSet::new() }
    }

    /// Returns what to send: the unanswered requests again, or the next ones.
    pub fn to_send(&mut self) -> String {
        if self.unanswered.is_empty() {
            self.unanswered = (self.sent + 1..=self.sent + WINDOW).collect();
            self.sent += WINDOW;
        }
        let lines = self.unanswered.iter().map(|seq| format!("add {} {seq}\n", self.name));
        lines.collect::<Vec<_>>().concat()
    }

    /// Records an answer.
    ///
    /// # Panics
    ///
    /// Panics if the answer is none to a request of this client.
    pub fn answered(&mut self, line: &str) {
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let &["ok", name, seq] = &words[..] else { panic!("{} got {line:?}", self.name) };
        let seq: u64 = seq.parse().unwrap_or_else(|_| panic!("{} got {line:?}", self.name));
        assert!(name == self.name && seq <= self.sent, "{} got {line:?}, which it has not requested", self.name);
        self.unanswered.remove(&seq);
    }

    /// Returns whether an answer is missing.
    pub fn are_waiting(&self) -> bool {
        !self.unanswered.is_empty()
    }

    pub fn are_done(&self) -> bool {
        self.sent == REQUESTS && self.unanswered.is_empty()
    }
}

/// What the test does to the network and to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardship {
    /// Cuts a client off from the server.
    Cut(usize),
    Heal(usize),
    /// Kills the server's process; does nothing if it is down.
    Kill,
    /// Starts the server again; does nothing if it runs.
    Start,
}

/// Returns what happens in a run, in the order of time.
pub fn hardships(seed: u64) -> Vec<(Duration, Hardship)> {
    let mut random = Random(seed);
    let mut at = 0;
    let mut all = Vec::new();
    for _ in 0..random.below(16) {
        at += random.below(40);
        let short = random.below(100);
        let length = [short, short * 50][usize::from(random.below(2) == 0)];
        if random.below(4) == 0 {
            all.extend([(at, Hardship::Kill), (at + length / 10, Hardship::Start)]);
        } else {
            let client = usize::try_from(random.below(CLIENTS.len() as u64)).unwrap_or_default();
            all.extend([(at, Hardship::Cut(client)), (at + length, Hardship::Heal(client))]);
        }
    }
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(at, hardship)| (Duration::from_millis(at), hardship)).collect()
}

/// Random numbers (`SplitMix64`), the same in all tools.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }
}
