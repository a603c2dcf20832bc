//! A Redis without its network: commands in, replies and pushes out.

use std::collections::{BTreeMap, BTreeSet};

use super::data::{Data, Db};
use super::functions::{self, Call};
use super::glob;
use super::resp::Value;

/// What the process of a Redis has: its data, and its clients.
#[derive(Debug, Clone)]
pub struct Process {
    pub(super) data: Data,
    /// The names of the libraries of functions.
    pub(super) libraries: BTreeSet<String>,
    pub(super) run_id: String,
    pub(super) settings: Settings,
    clients: BTreeMap<u64, Client>,
    /// The time of the command, in ms since 1970.
    now: i64,
    /// What the command sends.
    out: Vec<(u64, Value)>,
    is_calling: Option<u64>,
    /// Pushes for the client whose function publishes.
    held: Vec<Value>,
}

/// How a Redis behaves. Outlives its process.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// User and password, without which it refuses commands.
    pub(super) login: Option<(String, String)>,
    pub(super) is_full: bool,
    /// It sends a client the messages of its own calls after the reply, as Redis 7.2 does.
    pub(super) pushes_after: bool,
    pub(super) node_max: usize,
    /// The error that functions, and the loading of functions, get.
    pub(super) failure: Option<String>,
    /// Fields of `INFO` with values of their own.
    pub(super) info: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { login: None, is_full: false, pushes_after: false, node_max: 100, failure: None, info: BTreeMap::new() }
    }
}

#[derive(Debug, Clone)]
struct Client {
    protocol: u8,
    name: Vec<u8>,
    db: u32,
    is_in: bool,
    topics: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
}

fn error(text: impl Into<String>) -> Value {
    Value::Error(text.into())
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn wrong_count(command: &str) -> Value {
    error(format!("ERR wrong number of arguments for '{}' command", command.to_lowercase()))
}

impl Process {
    /// Starts a process without data, of a run with this id.
    pub fn new(run_id: impl Into<String>) -> Self {
        Self::with(Data::default(), BTreeSet::new(), run_id.into(), Settings::default())
    }

    pub(super) fn with(data: Data, libraries: BTreeSet<String>, run_id: String, settings: Settings) -> Self {
        Self {
            data,
            libraries,
            run_id,
            settings,
            clients: BTreeMap::new(),
            now: 0,
            out: Vec::new(),
            is_calling: None,
            held: Vec::new(),
        }
    }

    /// Sets the number of messages in a node of a stream, with any number of bytes. 100 by default.
    pub fn set_node_max(&mut self, node_max: usize) {
        self.settings.node_max = node_max.max(1);
    }

    /// Makes it refuse what needs memory, or accept it again.
    pub fn set_full(&mut self, is_full: bool) {
        self.settings.is_full = is_full;
    }

    /// Makes it send a client the messages of its own calls after the reply to the call, as Redis
    /// from 7.2 on and Valkey do; or before it.
    pub fn set_pushes_after(&mut self, after: bool) {
        self.settings.pushes_after = after;
    }

    /// Adds a client.
    pub fn connect(&mut self, client: u64) {
        let (topics, patterns) = (BTreeSet::new(), BTreeSet::new());
        let is_in = self.settings.login.is_none();
        self.clients.insert(client, Client { protocol: 2, name: Vec::new(), db: 0, is_in, topics, patterns });
    }

    /// Removes a client.
    pub fn disconnect(&mut self, client: u64) {
        self.clients.remove(&client);
    }

    /// Returns the version of RESP that a client speaks.
    pub fn protocol(&self, client: u64) -> u8 {
        self.clients.get(&client).map_or(2, |client| client.protocol)
    }

    /// Returns the number of topics and patterns that all clients follow.
    pub fn subscriptions(&self) -> usize {
        self.clients.values().map(|client| client.topics.len() + client.patterns.len()).sum()
    }

    /// Executes a command of a client at a time, in ms since 1970. Returns what is sent, in order,
    /// and to which client.
    pub fn execute(&mut self, client: u64, command: &[Vec<u8>], now: i64) -> Vec<(u64, Value)> {
        self.now = now;
        let [name, args @ ..] = command else { return Vec::new() };
        self.is_calling = Some(client);
        if let Some(reply) = self.reply(client, &text_of(name).to_uppercase(), args) {
            self.out.push((client, reply));
        }
        self.is_calling = None;
        self.out.extend(self.held.drain(..).map(|push| (client, push)));
        self.data.end_command();
        std::mem::take(&mut self.out)
    }

    fn client(&mut self, id: u64) -> &mut Client {
        self.clients.get_mut(&id).expect("the client is connected")
    }

    /// Executes a command, and returns its reply, unless it is among the pushes.
    fn reply(&mut self, id: u64, name: &str, args: &[Vec<u8>]) -> Option<Value> {
        if !self.client(id).is_in && !matches!(name, "HELLO" | "AUTH" | "QUIT") {
            return Some(error("NOAUTH Authentication required."));
        }
        if let ("FCALL" | "FUNCTION", Some(failure)) = (name, &self.settings.failure) {
            return Some(error(failure.clone()));
        }
        Some(match (name, args) {
            ("HELLO", _) => self.hello(id, args),
            ("AUTH", [password]) => self.log_in(id, "default", &text_of(password)),
            ("AUTH", [user, password]) => self.log_in(id, &text_of(user), &text_of(password)),
            ("SELECT", [number]) => self.select(id, number),
            ("PING", []) => Value::Simple("PONG".to_owned()),
            ("PING" | "ECHO", [text]) => Value::Bytes(text.clone()),
            ("INFO", sections) => Value::Verbatim(super::info::info(self, sections)),
            ("TIME", []) => {
                let (seconds, micros) = (self.now / 1_000, self.now % 1_000 * 1_000);
                Value::Array(vec![seconds.to_string().as_str().into(), micros.to_string().as_str().into()])
            }
            ("CLIENT", [what, ..]) => self.client_command(id, what, args),
            ("CONFIG", [what, names @ ..]) if what.eq_ignore_ascii_case(b"get") => super::info::config(self, names),
            ("ROLE", []) => Value::Array(vec!["master".into(), 0.into(), Value::Array(Vec::new())]),
            ("FUNCTION", [what, rest @ ..]) => self.function(&text_of(what).to_uppercase(), rest),
            ("FCALL", [function, count, rest @ ..]) => self.call(id, &text_of(function), &text_of(count), rest),
            ("FLUSHALL", _) => self.flush(None),
            ("FLUSHDB", _) => {
                let db = self.client(id).db;
                self.flush(Some(db))
            }
            ("TTL", [key]) => self.ttl(id, key),
            ("PUBLISH", [topic, payload]) => self.publish(topic, payload).into(),
            ("SUBSCRIBE" | "PSUBSCRIBE", [_, ..]) => {
                for topic in args {
                    self.subscribe(id, name == "PSUBSCRIBE", topic);
                }
                return None;
            }
            ("UNSUBSCRIBE" | "PUNSUBSCRIBE", _) => {
                self.unsubscribe(id, name == "PUNSUBSCRIBE", args);
                return None;
            }
            (
                "AUTH" | "SELECT" | "PING" | "ECHO" | "TIME" | "CLIENT" | "CONFIG" | "ROLE" | "FUNCTION" | "FCALL"
                | "TTL" | "PUBLISH" | "SUBSCRIBE" | "PSUBSCRIBE",
                _,
            ) => wrong_count(name),
            _ => {
                let args: Vec<_> = args.iter().map(|arg| format!("'{}' ", text_of(arg))).collect();
                let name = name.to_lowercase();
                error(format!("ERR unknown command '{name}', with args beginning with: {}", args.concat()))
            }
        })
    }

    fn hello(&mut self, id: u64, args: &[Vec<u8>]) -> Value {
        let mut protocol = self.client(id).protocol;
        let mut rest = args;
        if let [version, others @ ..] = args {
            match text_of(version).parse() {
                Ok(version @ (2 | 3)) => protocol = version,
                Ok(_) => return error("NOPROTO unsupported protocol version"),
                Err(_) => return error("ERR Protocol version is not an integer or out of range"),
            }
            rest = others;
        }
        let mut name = None;
        while let [option, others @ ..] = rest {
            rest = match (text_of(option).to_uppercase().as_str(), others) {
                ("AUTH", [user, password, rest @ ..]) => {
                    let reply = self.log_in(id, &text_of(user), &text_of(password));
                    if reply.is_error() {
                        return reply;
                    }
                    rest
                }
                ("SETNAME", [given, rest @ ..]) => {
                    name = Some(given.clone());
                    rest
                }
                _ => return error(format!("ERR Syntax error in HELLO option '{}'", text_of(option))),
            };
        }
        if !self.client(id).is_in {
            return error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                 <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
                 the same time",
            );
        }
        let client = self.client(id);
        client.protocol = protocol;
        client.name = name.unwrap_or_else(|| std::mem::take(&mut client.name));
        super::info::hello(self, id)
    }

    fn log_in(&mut self, id: u64, user: &str, password: &str) -> Value {
        let is_right = match &self.settings.login {
            Some((name, secret)) => name == user && secret == password,
            None => user == "default",
        };
        if !is_right {
            return error("WRONGPASS invalid username-password pair or user is disabled.");
        }
        self.client(id).is_in = true;
        Value::ok()
    }

    fn select(&mut self, id: u64, number: &[u8]) -> Value {
        match text_of(number).parse::<i64>() {
            Ok(number @ 0..=15) => {
                self.client(id).db = u32::try_from(number).unwrap_or(0);
                Value::ok()
            }
            Ok(_) => error("ERR DB index is out of range"),
            Err(_) => error("ERR value is not an integer or out of range"),
        }
    }

    fn client_command(&mut self, id: u64, what: &[u8], args: &[Vec<u8>]) -> Value {
        match (text_of(what).to_uppercase().as_str(), args) {
            ("SETNAME", [_, name]) => self.client(id).name.clone_from(name),
            ("GETNAME", [_]) => return Value::Bytes(self.client(id).name.clone()),
            ("ID", [_]) => return i64::try_from(id).unwrap_or(0).into(),
            ("SETINFO" | "NO-EVICT" | "NO-TOUCH", _) => {}
            _ => return error(format!("ERR unknown subcommand '{}'. Try CLIENT HELP.", text_of(what))),
        }
        Value::ok()
    }

    fn function(&mut self, what: &str, rest: &[Vec<u8>]) -> Value {
        match (what, rest) {
            ("LOAD", [code]) => self.load(code, false),
            ("LOAD", [replace, code]) if replace.eq_ignore_ascii_case(b"replace") => self.load(code, true),
            ("FLUSH", _) => {
                self.libraries.clear();
                Value::ok()
            }
            _ => error(format!("ERR unknown subcommand or wrong number of arguments for '{what}'. Try FUNCTION HELP.")),
        }
    }

    fn load(&mut self, code: &[u8], replaces: bool) -> Value {
        if self.settings.is_full {
            return oom();
        }
        let code = text_of(code);
        let name = code.lines().next().and_then(|line| line.strip_prefix("#!lua name="));
        let Some(name) = name else { return error("ERR Missing library metadata") };
        if !self.libraries.insert(name.to_owned()) && !replaces {
            return error(format!("ERR Library '{name}' already exists"));
        }
        name.into()
    }

    fn call(&mut self, id: u64, function: &str, count: &str, rest: &[Vec<u8>]) -> Value {
        if !self.libraries.contains("ccomet1") || !functions::is_known(function) {
            return error("ERR Function not found");
        }
        let Ok(count) = count.parse::<i64>() else { return error("ERR Bad number of keys provided") };
        let Ok(count) = usize::try_from(count) else { return error("ERR Number of keys can't be negative") };
        if count > rest.len() {
            return error("ERR Number of keys can't be greater than number of args");
        }
        if self.settings.is_full && !functions::runs_when_full(function) {
            return oom();
        }
        let (keys, args) = rest.split_at(count);
        let db = self.db(id);
        let mut call = Call { db, keys, args, published: Vec::new() };
        let result = call.run(function);
        for (topic, payload) in std::mem::take(&mut call.published) {
            self.publish(&topic, &payload);
        }
        result.unwrap_or_else(|_| {
            error(format!("ERR a mistake in the arguments script: {function}, on @user_function:1."))
        })
    }

    fn db(&mut self, id: u64) -> Db<'_> {
        let number = self.client(id).db;
        Db { data: &mut self.data, number, now: self.now, node_max: self.settings.node_max }
    }

    fn ttl(&mut self, id: u64, key: &[u8]) -> Value {
        let now = self.now;
        match self.db(id).entry(key) {
            None => (-2).into(),
            Some(entry) => entry.expires.map_or(-1, |expires| (expires - now + 500) / 1_000).into(),
        }
    }

    fn flush(&mut self, db: Option<u32>) -> Value {
        self.data.clear(db);
        Value::ok()
    }

    fn push(&mut self, id: u64, values: Vec<Value>) {
        if self.settings.pushes_after && self.is_calling == Some(id) {
            self.held.push(Value::Push(values));
        } else {
            self.out.push((id, Value::Push(values)));
        }
    }

    /// Sends a message to all who follow a topic, and returns their number.
    fn publish(&mut self, topic: &[u8], payload: &[u8]) -> i64 {
        let mut receivers = Vec::new();
        for (id, client) in &self.clients {
            if client.topics.contains(topic) {
                receivers.push((*id, vec!["message".into(), topic.into(), payload.into()]));
            }
        }
        for (id, client) in &self.clients {
            for pattern in client.patterns.iter().filter(|pattern| glob::matches(pattern, topic)) {
                let values = vec!["pmessage".into(), pattern.as_slice().into(), topic.into(), payload.into()];
                receivers.push((*id, values));
            }
        }
        let count = i64::try_from(receivers.len()).unwrap_or(i64::MAX);
        for (id, values) in receivers {
            self.push(id, values);
        }
        count
    }

    fn subscribe(&mut self, id: u64, is_pattern: bool, topic: &[u8]) {
        let client = self.client(id);
        let set = if is_pattern { &mut client.patterns } else { &mut client.topics };
        set.insert(topic.to_vec());
        let count = client.topics.len() + client.patterns.len();
        self.confirm(id, if is_pattern { "psubscribe" } else { "subscribe" }, topic.into(), count);
    }

    fn unsubscribe(&mut self, id: u64, is_pattern: bool, topics: &[Vec<u8>]) {
        let kind = if is_pattern { "punsubscribe" } else { "unsubscribe" };
        let client = self.client(id);
        let set = if is_pattern { &mut client.patterns } else { &mut client.topics };
        let topics = if topics.is_empty() { set.iter().cloned().collect() } else { topics.to_vec() };
        if topics.is_empty() {
            let count = client.topics.len() + client.patterns.len();
            self.confirm(id, kind, Value::Nil, count);
        }
        for topic in topics {
            let client = self.client(id);
            let set = if is_pattern { &mut client.patterns } else { &mut client.topics };
            set.remove(&topic);
            let count = client.topics.len() + client.patterns.len();
            self.confirm(id, kind, Value::Bytes(topic), count);
        }
    }

    fn confirm(&mut self, id: u64, kind: &str, topic: Value, count: usize) {
        let count = Value::Integer(i64::try_from(count).unwrap_or(i64::MAX));
        self.out.push((id, Value::Push(vec![kind.into(), topic, count])));
    }
}

fn oom() -> Value {
    error("OOM command not allowed when used memory > 'maxmemory'.")
}
