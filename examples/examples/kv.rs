//! A key-value server that speaks the protocol of Redis: pipelining, expiry by timers, publishing,
//! and limits that are reported as errors.
//!
//! Try it: `cargo run --release -p examples --example kv -- 127.0.0.1:7777`, then
//! `redis-cli -p 7777` or `redis-benchmark -p 7777 -t set,get,incr -P 16`.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use examples::resp::{self, COMMAND_BYTES_MAX, Reply, integer};
use sealed::{CloseReason, Config, ConnectionId, Context, EventLoop, Input, Service, TimerId};

/// Maximum number of bytes of all keys and values, including the cost of storing them.
const MEMORY_MAX: usize = 1024 * 1024 * 1024;
/// The cost of a key in bytes, besides the bytes of the key and its value.
const KEY_COST: usize = 128;
/// Maximum number of channels that one connection may listen to.
const CHANNELS_MAX: usize = 1_024;
/// Answers are passed to the connection once they have this many bytes.
const ANSWERS_BYTES: usize = 64 * 1024;
/// The longest time to live, in milliseconds: the longest delay of a timer, about 24 days.
const EXPIRE_MAX: i64 = 2_000_000_000;

#[derive(Default)]
struct Store {
    values: HashMap<Bytes, Value>,
    memory: usize,
    listeners: HashMap<Bytes, Vec<ConnectionId>>,
    /// The next two are reused for all commands.
    answers: Vec<u8>,
    arguments: Vec<(usize, usize)>,
}

struct Value {
    bytes: Vec<u8>,
    expiry: Option<(TimerId, Duration)>,
}

/// The channels that a connection listens to.
type Channels = Vec<Bytes>;

type Outcome = Result<(), &'static str>;

const SYNTAX: &str = "ERR syntax error";
const NO_INTEGER: &str = "ERR value is not an integer or out of range";
const NO_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";
const BAD_EXPIRY: &str = "ERR invalid expire time";

/// The arguments of one command; the first is its name.
struct Arguments<'a> {
    input: &'a [u8],
    places: &'a [(usize, usize)],
}

impl<'a> Arguments<'a> {
    fn at(&self, index: usize) -> &'a [u8] {
        let (start, end) = self.places[index];
        &self.input[start..end]
    }

    fn after(&self, first: usize) -> impl Iterator<Item = &'a [u8]> {
        (first..self.places.len()).map(|index| self.at(index))
    }
}

impl Store {
    #[allow(clippy::too_many_lines)] // one line for each command, or little more
    fn execute(&mut self, cx: &mut Context<Self>, id: ConnectionId, arguments: &Arguments<'_>) {
        let mut name = [0; 16];
        let given = arguments.at(0);
        let name = &mut name[..given.len().min(16)];
        name.copy_from_slice(&given[..name.len()]);
        name.make_ascii_uppercase();
        let count = arguments.places.len() - 1;
        let listens = cx.state(id).is_some_and(|channels| !channels.is_empty());
        let allowed = matches!(&*name, b"SUBSCRIBE" | b"UNSUBSCRIBE" | b"PING" | b"QUIT");
        let outcome = match (&*name, count) {
            _ if listens && !allowed => Err("ERR only (UN)SUBSCRIBE, PING and QUIT are allowed while subscribed"),
            (b"GET", 1) => {
                match self.values.get(arguments.at(1)) {
                    Some(value) => self.answers.bulk(&value.bytes),
                    None => self.answers.nil(),
                }
                Ok(())
            }
            (b"SET", 2..) => self.set(cx, arguments),
            (b"DEL", 1..) => {
                let count = arguments.after(1).filter(|key| self.remove(cx, key)).count();
                self.answers.count(count);
                Ok(())
            }
            (b"EXISTS", 1..) => {
                let count = arguments.after(1).filter(|key| self.values.contains_key(*key)).count();
                self.answers.count(count);
                Ok(())
            }
            (b"INCR", 1) => self.add(arguments.at(1), Some(1)),
            (b"DECR", 1) => self.add(arguments.at(1), Some(-1)),
            (b"INCRBY", 2) => self.add(arguments.at(1), integer(arguments.at(2))),
            (b"DECRBY", 2) => self.add(arguments.at(1), integer(arguments.at(2)).and_then(i64::checked_neg)),
            (b"EXPIRE", 2) => self.expire(cx, arguments.at(1), arguments.at(2), 1_000),
            (b"PEXPIRE", 2) => self.expire(cx, arguments.at(1), arguments.at(2), 1),
            (b"TTL", 1) => {
                let now = cx.now();
                self.answers.number(match self.values.get(arguments.at(1)) {
                    None => -2,
                    Some(Value { expiry: None, .. }) => -1,
                    Some(Value { expiry: Some((_, at)), .. }) => seconds(at.saturating_sub(now)),
                });
                Ok(())
            }
            (b"PUBLISH", 2) => {
                let count = self.publish(cx, arguments.at(1), arguments.at(2));
                self.answers.count(count);
                Ok(())
            }
            (b"SUBSCRIBE", 1..) => self.subscribe(cx, id, arguments),
            (b"UNSUBSCRIBE", _) => {
                self.unsubscribe(cx, id, arguments);
                Ok(())
            }
            (b"PING", 0) if listens => {
                self.answers.array(2);
                self.answers.bulk(b"pong");
                self.answers.bulk(b"");
                Ok(())
            }
            (b"PING", 0) => self.status("PONG"),
            (b"PING" | b"ECHO", 1) => {
                self.answers.bulk(arguments.at(1));
                Ok(())
            }
            (b"SELECT", 1) if arguments.at(1) == b"0" => self.status("OK"),
            (b"SELECT", 1) => Err("ERR DB index is out of range"),
            (b"FLUSHALL" | b"FLUSHDB", 0) => {
                for (_, value) in self.values.drain() {
                    if let Some((timer, _)) = value.expiry {
                        cx.cancel_timer(timer);
                    }
                }
                self.memory = 0;
                self.status("OK")
            }
            (b"DBSIZE", 0) => {
                self.answers.count(self.values.len());
                Ok(())
            }
            // Clients send these when they connect.
            (b"CONFIG" | b"COMMAND", _) => {
                self.answers.array(0);
                Ok(())
            }
            (b"INFO", _) => {
                let text = format!("used_memory:{}\r\nconnected_clients:{}\r\n", self.memory, cx.connections());
                self.answers.bulk(text.as_bytes());
                Ok(())
            }
            (b"QUIT", 0) => {
                self.hand_on(cx, id);
                cx.write(id, b"+OK\r\n");
                cx.close(id);
                Ok(())
            }
            (
                b"GET" | b"SET" | b"DEL" | b"EXISTS" | b"INCR" | b"DECR" | b"INCRBY" | b"DECRBY" | b"EXPIRE"
                | b"PEXPIRE" | b"TTL" | b"PUBLISH" | b"SUBSCRIBE" | b"PING" | b"ECHO" | b"SELECT" | b"FLUSHALL"
                | b"FLUSHDB" | b"DBSIZE" | b"QUIT",
                _,
            ) => Err("ERR wrong number of arguments"),
            _ => Err("ERR unknown command"),
        };
        if let Err(text) = outcome {
            self.answers.error(text);
        }
    }

    #[allow(clippy::unnecessary_wraps)] // the type that all commands return
    fn status(&mut self, text: &str) -> Outcome {
        self.answers.simple(text);
        Ok(())
    }

    fn set(&mut self, cx: &mut Context<Self>, arguments: &Arguments<'_>) -> Outcome {
        let (key, bytes) = (arguments.at(1), arguments.at(2));
        let (mut only_new, mut only_old, mut delay) = (false, false, None);
        let mut options = arguments.after(3);
        while let Some(option) = options.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" if !only_old => only_new = true,
                b"XX" if !only_new => only_old = true,
                unit @ (b"EX" | b"PX") if delay.is_none() => {
                    let number = integer(options.next().ok_or(SYNTAX)?).ok_or(NO_INTEGER)?;
                    delay = Some(span(number, if unit == b"EX" { 1_000 } else { 1 })?);
                }
                _ => return Err(SYNTAX),
            }
        }
        if (only_new || only_old) && self.values.contains_key(key) == only_new {
            self.answers.nil();
            return Ok(());
        }
        let expires = self.put(key, bytes)?;
        if expires || delay.is_some() {
            self.set_expiry(cx, key, delay);
        }
        self.status("OK")
    }

    /// Stores a value. Keeps the expiry of the key, and returns whether the key has one.
    fn put(&mut self, key: &[u8], bytes: &[u8]) -> Result<bool, &'static str> {
        if let Some(value) = self.values.get_mut(key) {
            let memory = self.memory - value.bytes.len() + bytes.len();
            if memory > MEMORY_MAX && bytes.len() > value.bytes.len() {
                return Err(NO_MEMORY);
            }
            value.bytes.clear();
            value.bytes.extend_from_slice(bytes);
            value.bytes.shrink_to(bytes.len() * 2);
            self.memory = memory;
            return Ok(value.expiry.is_some());
        }
        let memory = self.memory + KEY_COST + key.len() + bytes.len();
        if memory > MEMORY_MAX {
            return Err(NO_MEMORY);
        }
        self.memory = memory;
        self.values.insert(Bytes::copy_from_slice(key), Value { bytes: bytes.to_vec(), expiry: None });
        Ok(false)
    }

    fn remove(&mut self, cx: &mut Context<Self>, key: &[u8]) -> bool {
        let Some((key, value)) = self.values.remove_entry(key) else { return false };
        self.memory -= KEY_COST + key.len() + value.bytes.len();
        if let Some((timer, _)) = value.expiry {
            cx.cancel_timer(timer);
        }
        true
    }

    fn add(&mut self, key: &[u8], more: Option<i64>) -> Outcome {
        let more = more.ok_or(NO_INTEGER)?;
        let held = self.values.get(key).map_or(Some(0), |value| integer(&value.bytes)).ok_or(NO_INTEGER)?;
        let sum = held.checked_add(more).ok_or("ERR increment or decrement would overflow")?;
        self.put(key, sum.to_string().as_bytes())?;
        self.answers.number(sum);
        Ok(())
    }

    fn expire(&mut self, cx: &mut Context<Self>, key: &[u8], number: &[u8], unit_ms: i64) -> Outcome {
        let number = integer(number).ok_or(NO_INTEGER)?;
        let exists = self.values.contains_key(key);
        if exists && number <= 0 {
            self.remove(cx, key);
        } else if exists {
            let delay = span(number, unit_ms)?;
            self.set_expiry(cx, key, Some(delay));
        }
        self.answers.number(i64::from(exists));
        Ok(())
    }

    /// Sets or removes the expiry of a value, in place of an earlier one.
    fn set_expiry(&mut self, cx: &mut Context<Self>, key: &[u8], delay: Option<Duration>) {
        let Some((key, _)) = self.values.get_key_value(key) else { return };
        let key = key.clone();
        let Some(value) = self.values.get_mut(&key) else { return };
        if let Some((timer, _)) = value.expiry.take() {
            cx.cancel_timer(timer);
        }
        value.expiry = delay.map(|delay| (cx.set_timer(delay, key), cx.now() + delay));
    }

    fn publish(&self, cx: &mut Context<Self>, channel: &[u8], message: &[u8]) -> usize {
        let Some(listeners) = self.listeners.get(channel) else { return 0 };
        let mut text = Vec::new();
        text.array(3);
        text.bulk(b"message");
        text.bulk(channel);
        text.bulk(message);
        let text = Bytes::from(text);
        for listener in listeners {
            cx.write_bytes(*listener, text.clone());
        }
        listeners.len()
    }

    fn subscribe(&mut self, cx: &mut Context<Self>, id: ConnectionId, arguments: &Arguments<'_>) -> Outcome {
        for channel in arguments.after(1) {
            let Some(channels) = cx.state_mut(id) else { return Ok(()) };
            if !channels.iter().any(|held| held == channel) {
                if channels.len() == CHANNELS_MAX {
                    return Err("ERR too many channels");
                }
                let channel = Bytes::copy_from_slice(channel);
                channels.push(channel.clone());
                self.listeners.entry(channel).or_default().push(id);
            }
            let count = channels.len();
            self.push_channel("subscribe", Some(channel), count);
        }
        Ok(())
    }

    fn unsubscribe(&mut self, cx: &mut Context<Self>, id: ConnectionId, arguments: &Arguments<'_>) {
        let Some(held) = cx.state(id) else { return };
        let given: Vec<Bytes> = arguments.after(1).map(Bytes::copy_from_slice).collect();
        let channels = if given.is_empty() { held.clone() } else { given };
        if channels.is_empty() {
            self.push_channel("unsubscribe", None, 0);
        }
        for channel in channels {
            self.leave(id, &channel);
            let Some(held) = cx.state_mut(id) else { return };
            held.retain(|other| *other != channel);
            let count = held.len();
            self.push_channel("unsubscribe", Some(&channel), count);
        }
    }

    fn push_channel(&mut self, what: &str, channel: Option<&[u8]>, count: usize) {
        self.answers.array(3);
        self.answers.bulk(what.as_bytes());
        match channel {
            Some(channel) => self.answers.bulk(channel),
            None => self.answers.nil(),
        }
        self.answers.count(count);
    }

    fn leave(&mut self, id: ConnectionId, channel: &Bytes) {
        let Some(listeners) = self.listeners.get_mut(channel) else { return };
        listeners.retain(|held| *held != id);
        if listeners.is_empty() {
            self.listeners.remove(channel);
        }
    }

    /// Passes the answers so far to the connection. Returns whether the connection has room for
    /// more.
    fn hand_on(&mut self, cx: &mut Context<Self>, id: ConnectionId) -> bool {
        let has_room = cx.write(id, &self.answers);
        self.answers.clear();
        self.answers.shrink_to(2 * ANSWERS_BYTES);
        has_room
    }
}

/// Converts a time to whole seconds, rounded as Redis does.
fn seconds(time: Duration) -> i64 {
    i64::try_from((time + Duration::from_millis(500)).as_secs()).unwrap_or(i64::MAX)
}

/// Converts a time to live of this many units.
fn span(number: i64, unit_ms: i64) -> Result<Duration, &'static str> {
    let millis = number.checked_mul(unit_ms).filter(|millis| (1..=EXPIRE_MAX).contains(millis));
    millis.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis).ok_or(BAD_EXPIRY)
}

impl Service for Store {
    type Connection = Channels;
    type Message = ();
    /// The key that expires.
    type Timer = Bytes;

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let mut places = std::mem::take(&mut self.arguments);
        // A client that does not read its answers is not read from either.
        let mut has_room = cx.has_room(id);
        while has_room && cx.is_open(id) {
            match resp::parse(input.bytes(), &mut places) {
                Ok(None) => break,
                Ok(Some(used)) => {
                    let input = input.take(used);
                    if !places.is_empty() {
                        self.execute(cx, id, &Arguments { input, places: &places });
                    }
                }
                Err(error) => {
                    self.answers.error(&format!("ERR Protocol error: {}", error.0));
                    self.hand_on(cx, id);
                    cx.close(id);
                }
            }
            if self.answers.len() >= ANSWERS_BYTES {
                has_room = self.hand_on(cx, id);
            }
        }
        self.hand_on(cx, id);
        self.arguments = places;
    }

    fn drained(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        cx.resume(id);
    }

    fn closed(&mut self, _: &mut Context<Self>, id: ConnectionId, channels: Channels, _: CloseReason) {
        for channel in channels {
            self.leave(id, &channel);
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, timer: TimerId, key: Bytes) {
        if self.values.get(&key).is_some_and(|value| value.expiry.is_some_and(|(held, _)| held == timer)) {
            self.remove(cx, &key);
        }
    }
}

fn main() -> sealed::Result<()> {
    let config = Config { input_bytes_max: COMMAND_BYTES_MAX, ..Config::default() };
    let mut event_loop = EventLoop::new(config, Store::default())?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
