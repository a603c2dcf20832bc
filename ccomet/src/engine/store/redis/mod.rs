//! A store in Redis, which several servers share. Redis numbers the messages of each channel and
//! keeps them in a stream; the functions in `functions.lua` change a channel in one step. Each loop
//! has one connection (`link.rs`), on which it sends commands and follows the channels that its
//! shard has in memory.
//!
//! A publication takes this way: `submit` makes a call of the function `publish` (`keys.rs`),
//! `flush` hands the calls of a tick to the link, and the reply (`replies.rs`) has the numbers of
//! the messages. What other servers publish comes as notices of pub/sub (`notices.rs`). Redis
//! writes notices and replies to a connection in the order in which it executes commands, so that
//! both together have each message of a channel once, in the order of the numbers.
//!
//! When the connection is lost, the shard is cut off: changes wait, and subscribers stay. A new
//! connection reads what was missed from the streams (`catching_up.rs`). A change whose reply was
//! lost is found there by its token, or was not kept and is sent again. Redis may have lost
//! messages that it had confirmed, if it was restarted or replaced. It is then another process,
//! which the function `hello` recognizes: it begins a new generation, and all channels get new
//! epochs, so that readers are notified of a gap.

mod catching_up;
mod changes;
mod faults;
mod handshake;
mod keys;
mod link;
mod mirror;
mod notices;
mod port;
mod replies;
mod resp;
mod results;
mod settings;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use sealed::fault;

use self::catching_up::Connection;
pub(crate) use self::faults::LinkLog;
use self::keys::{Call, Keys, epoch_text};
pub(crate) use self::link::Link;
use self::mirror::{InProgress, Mirror, OwnedChange};
use self::port::{LinkEvent, ToLink};
pub(crate) use self::port::{LinkEvents, LinkPort};
pub(crate) use self::settings::LinkSettings;
use super::{ChannelPlace, NameRange, NotKept, Opened, Outcome, PartRange, Store, StoreChange, Submitted};
use super::{KeptSummary, Unreadable};
use crate::core::health::HealthProblem;
use crate::core::message::ChannelName;
use crate::core::position::Epoch;
use crate::core::time::{LoopTime, UnixMillis};
use crate::core::window::HistoryLimits;
use crate::engine::Tick;

/// The number of commands without reply, and the bytes of a tick's commands, from which on changes
/// are refused.
const COMMANDS_MAX: usize = 10_000;
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The bytes of the newest messages of a channel that are in memory when it is opened. One message
/// may have more.
const WINDOW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long changes and requests wait for an unreachable Redis before they are refused.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The time between two rounds of periodic commands, the number of rounds in which the time of each
/// channel in Redis is extended once, and the names of the list of channels checked in a round.
const ROUND: Duration = Duration::from_secs(5);
const ROUNDS_PER_TOUCH: usize = 240;
const SWEPT_PER_ROUND: usize = 5_000;

/// The time for which Redis keeps a channel after its messages are too old.
const SPARE_LIFE: Duration = Duration::from_secs(3_600);

/// The settings of a store, and its place among the loops of the server.
#[derive(Debug, Clone)]
pub(crate) struct RedisStoreSettings {
    pub(crate) prefix: Box<str>,
    /// The number of messages of a channel that are in memory.
    pub(crate) window_max: usize,
    /// The longest time for which messages are kept.
    pub(crate) kept_for: Duration,
    /// The time for which idempotency keys are kept.
    pub(crate) key_age: Duration,
    /// The index of the loop, and the number of loops.
    pub(crate) index: usize,
    pub(crate) loops: usize,
}

/// The store of one loop's shard.
#[derive(Debug)]
pub(crate) struct RedisStore {
    settings: RedisStoreSettings,
    keys: Keys,
    port: LinkPort,
    events: LinkEvents,
    /// The state of the links of all loops.
    links: LinkLog,
    connection: Option<Connection>,
    /// The channels that the shard has in memory.
    channels: HashMap<ChannelName, Mirror>,
    /// The channels that are being opened, and whether the shard will create them.
    opening: BTreeMap<ChannelName, bool>,
    /// The patterns whose messages the shard wants.
    patterns: Vec<ChannelName>,
    outcomes: VecDeque<Outcome>,
    /// The commands of this tick, and the number of those that have replies.
    batch: (Vec<u8>, usize),
    /// The commands without reply, in order.
    pending: VecDeque<Pending>,
    outage: Option<Outage>,
    /// What the clock of Redis is ahead of that of this machine, in milliseconds.
    ahead: i64,
    /// Identifies this store among all; 0 until it is known.
    id: u64,
    last_token: u64,
    last_barrier: u64,
    random: u64,
    /// The time of the next periodic commands.
    next_round: LoopTime,
    /// The channels whose time in Redis is to be extended in this round of all channels.
    to_touch: Vec<ChannelName>,
    /// The last name of the list of channels that was checked.
    swept: Box<str>,
    /// The last error with which Redis refused a command.
    refusal: Option<Box<str>>,
}

/// A time without connection.
#[derive(Debug, Clone, Copy)]
struct Outage {
    /// Its beginning; unknown before the first tick.
    since: Option<LoopTime>,
    /// Set once what waited was refused.
    is_given_up: bool,
}

/// A command without reply.
#[derive(Debug)]
enum Pending {
    /// The reply confirms what is expected.
    Ignored,
    Greeting,
    /// A look whether the generation is still the same.
    Check,
    Open {
        channel: ChannelName,
    },
    CatchUp {
        channel: ChannelName,
    },
    /// The newest messages of a channel whose numbers have begun anew.
    Restart {
        channel: ChannelName,
    },
    Change {
        channel: ChannelName,
    },
    Part {
        read: u32,
        range: PartRange,
        epoch: Epoch,
    },
    Names {
        read: u32,
        range: NameRange,
        found: Vec<KeptSummary>,
    },
    /// All notices of what was appended before this was executed precede its reply.
    Barrier {
        channel: ChannelName,
        number: u64,
    },
    Sweep,
}

impl RedisStore {
    pub(crate) fn new(settings: RedisStoreSettings, (port, events): (LinkPort, LinkEvents), links: LinkLog) -> Self {
        Self {
            keys: Keys::new(&settings.prefix),
            settings,
            port,
            events,
            links,
            connection: None,
            channels: HashMap::new(),
            opening: BTreeMap::new(),
            patterns: Vec::new(),
            outcomes: VecDeque::from([Outcome::CutOff]),
            batch: (Vec::new(), 0),
            pending: VecDeque::new(),
            outage: Some(Outage { since: None, is_given_up: false }),
            ahead: 0,
            id: 0,
            last_token: 0,
            last_barrier: 0,
            random: 0,
            next_round: LoopTime::default(),
            to_touch: Vec::new(),
            swept: "".into(),
            refusal: None,
        }
    }

    /// Returns the time by the clock of Redis.
    fn redis_time(&self, now: Tick) -> UnixMillis {
        UnixMillis::from_millis(now.time.as_millis().saturating_add_signed(self.ahead))
    }

    /// Returns four random hexadecimal digits.
    fn random_digits(&mut self) -> String {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:04x}", self.random >> 48)
    }

    fn note_random(&mut self, now: Tick) {
        self.random ^= now.random;
        if self.id == 0 {
            self.id = now.random;
        }
    }

    /// Returns the generation, if the connection has greeted Redis.
    fn generation(&self) -> Option<u64> {
        self.connection.as_ref()?.generation
    }

    fn has_room(&self) -> bool {
        self.pending.len() < COMMANDS_MAX && self.batch.0.len() < BATCH_BYTES_MAX
    }

    /// Adds a call to the commands of this tick.
    fn call(&mut self, pending: Pending, call: &Call) {
        call.encode(&mut self.batch.0);
        self.batch.1 += 1;
        self.pending.push_back(pending);
    }

    /// Starts a call of a function that has the generation as its first key and argument.
    fn begin(&self, function: &'static str) -> Call {
        Call::new(function).key(self.keys.generation()).number(self.generation().unwrap_or_default())
    }

    /// Returns whether a change is of this store. The reply to its call has the result.
    fn is_own(&self, token: &[u8]) -> bool {
        token.strip_prefix(format!("{:016x}", self.id).as_bytes()).is_some_and(|rest| rest.starts_with(b"-"))
    }

    /// Hands the commands of this tick to the link.
    fn send_batch(&mut self) {
        let Some(connection) = &self.connection else { return };
        if self.batch.0.is_empty() {
            return;
        }
        let (bytes, commands) = std::mem::take(&mut self.batch);
        self.port.post(ToLink::Send { connection: connection.number, commands, bytes });
    }

    /// Gives the connection up, because what it brings cannot be relied on.
    fn reset(&mut self, now: Tick, why: impl Into<Cow<'static, str>>) {
        if let Some(connection) = &self.connection {
            self.port.post(ToLink::Reset { connection: connection.number, why: why.into() });
        }
        self.disconnected(now);
    }

    fn ttl(&self) -> u64 {
        (self.settings.kept_for + SPARE_LIFE).as_secs()
    }

    /// Sends the call that opens a channel, after the subscription to its topic.
    fn send_open(&mut self, pending: Pending, channel: &ChannelName, creates: bool) {
        let topic = self.keys.topic(channel.as_str());
        self.subscribe("SUBSCRIBE", &topic);
        self.send_open_only(pending, channel, creates);
    }

    fn send_open_only(&mut self, pending: Pending, channel: &ChannelName, creates: bool) {
        let call = self.begin("ccomet1_open");
        let name = channel.as_str();
        let random = self.random_digits();
        let call = call
            .key(self.keys.state(name))
            .key(self.keys.stream(name))
            .key(self.keys.list())
            .arg(name)
            .number(u8::from(creates))
            .arg(random)
            .number(self.settings.window_max)
            .number(self.ttl())
            .number(WINDOW_BYTES_MAX);
        self.call(pending, &call);
    }

    /// Changes the subscriptions. Redis confirms them by notices, not by replies.
    fn subscribe(&mut self, command: &str, topic: &[u8]) {
        resp::encode(&mut self.batch.0, &[command.as_bytes(), topic]);
    }

    /// Stops to follow a channel.
    fn drop_channel(&mut self, channel: &ChannelName) {
        if self.channels.remove(channel).is_some() && self.connection.is_some() {
            let topic = self.keys.topic(channel.as_str());
            self.subscribe("UNSUBSCRIBE", &topic);
        }
    }

    fn send_names(&mut self, read: u32, range: NameRange, found: Vec<KeptSummary>) {
        let call = self.begin("ccomet1_names");
        let call = call
            .key(self.keys.list())
            .arg(self.keys.state(""))
            .arg(self.keys.stream(""))
            .arg(range.prefix.as_bytes())
            .arg(range.after.as_bytes())
            .number(range.limit);
        self.call(Pending::Names { read, range, found }, &call);
    }

    /// Returns the call that reads a part of a channel.
    fn read_call(&mut self, channel: &ChannelName, epoch: Epoch, range: PartRange) -> Call {
        let call = self.begin("ccomet1_read");
        let (name, random) = (channel.as_str(), self.random_digits());
        call.key(self.keys.state(name))
            .key(self.keys.stream(name))
            .arg(epoch_text(epoch))
            .arg(random)
            .number(range.begin)
            .number(range.limit)
            .number(range.bytes_max)
            .number(u8::from(range.is_backward))
    }
}

impl Store for RedisStore {
    fn window_max(&self) -> Option<usize> {
        Some(self.settings.window_max)
    }

    fn bytes(&self, channel: &ChannelName) -> Option<u64> {
        self.channels.get(channel).map(Mirror::bytes)
    }

    fn problems(&self) -> Vec<HealthProblem> {
        if self.outage.is_some() || !self.links.are_all_up() {
            vec![HealthProblem::StoreUnreachable]
        } else {
            Vec::new()
        }
    }

    fn assigns_numbers(&self) -> bool {
        true
    }

    fn open(&mut self, now: Tick, channel: &ChannelName, creates: bool) -> Opened {
        self.note_random(now);
        if self.outage.is_some_and(|outage| outage.is_given_up) || !self.has_room() {
            return Opened::Refused;
        }
        self.opening.insert(channel.clone(), creates);
        if self.generation().is_some() {
            self.send_open(Pending::Open { channel: channel.clone() }, channel, creates);
        }
        Opened::Later
    }

    fn unload(&mut self, channel: &ChannelName) {
        self.drop_channel(channel);
    }

    fn forget(&mut self, channel: &ChannelName) {
        self.drop_channel(channel);
    }

    fn catch_up(&mut self, channel: &ChannelName) -> bool {
        let Some(mirror) = self.channels.get_mut(channel).filter(|_| !fault!("redis-behind-others")) else {
            return false;
        };
        self.last_barrier += 1;
        let number = self.last_barrier;
        mirror.awaited.push_back(number);
        // Otherwise, it is reported when the channel has read what it has missed.
        if mirror.is_current {
            let call = self.begin("ccomet1_touch").number(self.ttl());
            self.call(Pending::Barrier { channel: channel.clone(), number }, &call);
        }
        true
    }

    fn follow_pattern(&mut self, pattern: &ChannelName) {
        if self.patterns.contains(pattern) {
            return;
        }
        self.patterns.push(pattern.clone());
        if self.generation().is_some() {
            let topic = self.keys.topics_of(pattern);
            self.subscribe("PSUBSCRIBE", &topic);
        }
    }

    fn unfollow_pattern(&mut self, pattern: &ChannelName) {
        self.patterns.retain(|followed| followed != pattern);
        if self.generation().is_some() {
            let topic = self.keys.topics_of(pattern);
            self.subscribe("PUNSUBSCRIBE", &topic);
        }
    }

    fn names(&mut self, now: Tick, read: u32, range: NameRange) {
        self.note_random(now);
        if self.generation().is_none() || !self.has_room() {
            return self.outcomes.push_back(Outcome::Names { read, names: Err(Unreadable), has_more: false });
        }
        self.send_names(read, range, Vec::new());
    }

    fn submit(&mut self, now: Tick, place: ChannelPlace<'_>, change: StoreChange<'_>) -> Submitted {
        self.note_random(now);
        let has_room = self.has_room();
        let Some(mirror) = self.channels.get_mut(place.channel).filter(|_| has_room) else {
            return Submitted::Refused(NotKept::Unavailable);
        };
        let change = match change {
            StoreChange::Append(messages) => OwnedChange::Append(messages.to_vec()),
            StoreChange::Clear => OwnedChange::Clear,
            StoreChange::Remove => OwnedChange::Remove,
        };
        self.last_token += 1;
        let token = format!("{:016x}-{}", self.id, self.last_token).into();
        mirror.in_progress = Some(InProgress { token, change, is_sent: false, found: Vec::new(), may_be_lost: false });
        if mirror.is_current {
            self.send_change(place.channel);
        }
        Submitted::Later
    }

    fn trim(&mut self, now: Tick, channel: &ChannelName, limits: &HistoryLimits) -> Option<u64> {
        let time = self.redis_time(now);
        Some(self.channels.get_mut(channel).map_or(0, |mirror| mirror.trim(limits, time)))
    }

    fn read(&mut self, now: Tick, read: u32, place: ChannelPlace<'_>, range: PartRange) {
        self.note_random(now);
        if self.generation().is_none() || !self.has_room() {
            return self.outcomes.push_back(Outcome::Page { read, part: Err(Unreadable) });
        }
        let call = self.read_call(place.channel, place.epoch, range);
        self.call(Pending::Part { read, range, epoch: place.epoch }, &call);
    }

    fn flush(&mut self, now: Tick) {
        self.note_random(now);
        if self.outage.is_none() && now.loop_time >= self.next_round {
            self.make_round(now);
        }
        self.send_batch();
    }

    fn next_outcome(&mut self, now: Tick) -> Option<Outcome> {
        self.note_outage(now);
        while self.outcomes.is_empty() {
            let Some(event) = self.events.take() else { break };
            self.on_event(now, event);
        }
        let outcome = self.outcomes.pop_front();
        if outcome.is_none() {
            self.outcomes.shrink_to(8);
            self.send_batch();
        }
        outcome
    }

    fn due(&self) -> Option<LoopTime> {
        let has_commands = !self.batch.0.is_empty() && self.connection.is_some();
        if !self.outcomes.is_empty() || has_commands {
            return Some(LoopTime::default());
        }
        match self.outage {
            Some(Outage { since: Some(since), is_given_up: false }) => Some(since.plus(WAIT_MAX)),
            // The loop looks at the store once a second anyway.
            _ => None,
        }
    }
}
