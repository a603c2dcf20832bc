//! The beginning of a connection to Redis: authenticates, checks that this Redis can be used, and
//! loads the functions. Each fault is a sentence for the operator.

use std::collections::VecDeque;

use super::resp::{Value, encode};
use super::settings::LinkSettings;

/// The library of functions.
const LIBRARY: &str = include_str!("functions.lua");

/// The lowest major version that has functions.
const MAJOR_VERSION_MIN: u32 = 7;

/// The longest text of Redis that a fault repeats, in characters.
const QUOTED_CHARS_MAX: usize = 200;

/// A reply that the handshake waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Hello,
    /// `INFO` of a section.
    Info(&'static str),
    Select,
    /// The confirmation of a command about topics, which has this name.
    Confirmed(&'static str),
    Loaded,
}

/// The sections of `INFO` that are checked.
const SECTIONS: [&str; 4] = ["server", "memory", "replication", "cluster"];

/// What follows from a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Other replies have to arrive first.
    Wait,
    /// These commands are to be sent.
    Send(Vec<u8>),
    /// The connection is ready.
    Ready { run_id: Box<str>, version: Box<str> },
}

/// The state of a handshake.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    expected: VecDeque<Expected>,
    run_id: Box<str>,
    version: Box<str>,
    has_loaded: bool,
}

impl Handshake {
    /// Begins a handshake. Returns the commands to send.
    pub(super) fn begin(settings: &LinkSettings) -> (Self, Vec<u8>) {
        let mut expected = VecDeque::from([Expected::Hello]);
        let mut out = Vec::new();
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &settings.password {
            let user = settings.user.as_deref().unwrap_or("default");
            hello.extend([&b"AUTH"[..], user.as_bytes(), password.as_bytes()]);
        }
        hello.extend([&b"SETNAME"[..], b"ccomet"]);
        encode(&mut out, &hello);
        for section in SECTIONS {
            encode(&mut out, &[b"INFO", section.as_bytes()]);
            expected.push_back(Expected::Info(section));
        }
        if settings.db != 0 {
            encode(&mut out, &[b"SELECT", settings.db.to_string().as_bytes()]);
            expected.push_back(Expected::Select);
        }
        (Self { expected, ..Self::default() }, out)
    }

    /// Takes a reply or a push.
    ///
    /// # Errors
    /// The fault that prevents the use of this Redis, as the predicate of a sentence about it.
    pub(super) fn take(&mut self, value: &Value, settings: &LinkSettings) -> Result<Step, String> {
        let Some(expected) = self.expected.pop_front() else {
            return Err("sends a reply to no command: check that store.redis names a Redis".to_owned());
        };
        match (expected, value) {
            (_, Value::Error(error)) => take_error(expected, error)?,
            (Expected::Info(section), Value::Bytes(text)) => self.check(section, &String::from_utf8_lossy(text))?,
            (Expected::Confirmed(command), Value::Push(elements)) if is_named(elements, command) => {}
            // It does not concern the handshake.
            (_, Value::Push(_)) => self.expected.push_front(expected),
            _ => {}
        }
        if !self.expected.is_empty() {
            return Ok(Step::Wait);
        }
        if self.has_loaded {
            let (run_id, version) = (std::mem::take(&mut self.run_id), std::mem::take(&mut self.version));
            return Ok(Step::Ready { run_id, version });
        }
        self.has_loaded = true;
        Ok(Step::Send(self.load(settings)))
    }

    /// Returns the commands that follow the checks. They subscribe to a topic, and to topics by a
    /// pattern, on which nothing is published: later, the error for a missing permission would take
    /// the place of a reply, because subscriptions that succeed have none.
    fn load(&mut self, settings: &LinkSettings) -> Vec<u8> {
        let mut out = Vec::new();
        let (topic, topics) = (format!("{}:{{0}}:c:", settings.prefix), format!("{}:{{0}}:c:\n*", settings.prefix));
        for (command, topic) in
            [("SUBSCRIBE", &topic), ("UNSUBSCRIBE", &topic), ("PSUBSCRIBE", &topics), ("PUNSUBSCRIBE", &topics)]
        {
            encode(&mut out, &[command.as_bytes(), topic.as_bytes()]);
            self.expected.push_back(Expected::Confirmed(command));
        }
        encode(&mut out, &[b"FUNCTION", b"LOAD", LIBRARY.as_bytes()]);
        self.expected.push_back(Expected::Loaded);
        out
    }

    /// Checks a section of `INFO`.
    fn check(&mut self, section: &str, info: &str) -> Result<(), String> {
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim_ascii)
        };
        match section {
            "server" => {
                (self.run_id, self.version) = (field("run_id").into(), field("redis_version").into());
                let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
                if major.is_none_or(|major| major < MAJOR_VERSION_MIN) {
                    let version = quoted(&self.version);
                    return Err(format!("has version {version}, which is too old: the server needs at least 7.0"));
                }
                if self.run_id.is_empty() {
                    return Err("does not give its run_id: the server needs Redis or Valkey".to_owned());
                }
            }
            "memory" if !matches!(field("maxmemory"), "" | "0") && field("maxmemory_policy") != "noeviction" => {
                return Err(format!(
                    "drops data when its memory is full, by the policy {}: set maxmemory-policy noeviction",
                    quoted(field("maxmemory_policy"))
                ));
            }
            "replication" if field("role") != "master" => {
                return Err(format!(
                    "is a replica of {}:{}: write the address of the master in store.redis",
                    quoted(field("master_host")),
                    quoted(field("master_port"))
                ));
            }
            "cluster" if field("cluster_enabled") == "1" => {
                return Err(
                    "is a part of a cluster, which this version does not support: use a single Redis".to_owned()
                );
            }
            _ => {}
        }
        Ok(())
    }
}

/// Judges an error: some mean that nothing is to be done.
fn take_error(expected: Expected, error: &str) -> Result<(), String> {
    // Another connection has loaded the library.
    if expected == Expected::Loaded && error.contains("ibrary") && error.contains("already exists") {
        return Ok(());
    }
    let code = error.split(' ').next().unwrap_or_default();
    Err(match (code, expected) {
        ("NOAUTH", _) => "requires a password: write it in store.redis, as in redis://USER:PASSWORD@HOST".to_owned(),
        ("WRONGPASS", _) => "refuses the user or the password of store.redis: correct them".to_owned(),
        ("NOPERM", _) => {
            let (command, permission) = permission(expected);
            format!("does not allow {command} to the user of store.redis: give the user {permission}")
        }
        ("LOADING", _) => "is loading its data: the server waits until Redis has finished".to_owned(),
        ("DENIED", _) => {
            "is in protected mode: set a password in Redis and in store.redis, or bind Redis to a private address"
                .to_owned()
        }
        // The error of an old version contains the password.
        ("NOPROTO", _) | (_, Expected::Hello) if code == "NOPROTO" || error.contains("unknown command") => {
            "does not know RESP3, so it is older than version 7.0: upgrade it".to_owned()
        }
        (_, Expected::Select) => format!(
            "does not have the database of store.redis: use a lower number (the error is \"{}\")",
            quoted(error)
        ),
        (_, Expected::Loaded) => {
            format!("does not load the functions of the server: the error is \"{}\"", quoted(error))
        }
        _ => format!("answers with an error: \"{}\"", quoted(error)),
    })
}

/// Returns whether a push has a name.
fn is_named(elements: &[Value], name: &str) -> bool {
    matches!(elements.first(), Some(Value::Bytes(found)) if found.eq_ignore_ascii_case(name.as_bytes()))
}

/// Returns the command that the handshake needs to be allowed, and the permission for it, as ACLs
/// write it.
fn permission(expected: Expected) -> (&'static str, &'static str) {
    match expected {
        Expected::Hello => ("HELLO", "+hello"),
        Expected::Info(_) => ("INFO", "+info"),
        Expected::Select => ("SELECT", "+select"),
        Expected::Confirmed(command) => {
            (command, "+subscribe +unsubscribe +psubscribe +punsubscribe, and all topics (&*), which patterns need")
        }
        Expected::Loaded => ("FUNCTION LOAD", "+function|load"),
    }
}

/// Returns a text of Redis as a fault can repeat it.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).map(|char| if char.is_control() { ' ' } else { char }).collect()
}
