//! Promises of the link, on the simulated network, to a peer that answers as Redis does.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sealed::sim::{Faults, Peer, PeerListener, Simulation};
use sealed::{Address, Connect, EventLoop, Mailbox};

use super::*;
use crate::engine::store::Wake;
use crate::engine::store::redis::resp::Decoder;

const SECOND: Duration = Duration::from_secs(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The first service of the loop, in place of the server: it posts orders to the link.
struct Host(LinkPort);

impl Service for Host {
    type Connection = ();
    type Message = ToLink;
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn message(&mut self, _: &mut Context<Self>, order: ToLink) {
        self.0.post(order);
    }
}

/// A connection that the peer has accepted.
struct Accepted {
    peer: Peer,
    decoder: Decoder,
    /// The number of bytes of replies that may still be sent; then the connection is reset.
    bytes_left: usize,
}

/// A link, and a peer in place of Redis.
struct Bench {
    sim: Simulation,
    listener: PeerListener,
    accepted: Vec<Accepted>,
    mailbox: Mailbox<ToLink>,
    events: LinkEvents,
    wakes: Arc<Mutex<usize>>,
    log: LinkLog,
    /// The replies of the peer that differ from those of a fitting Redis, by the beginning of the
    /// command.
    replies: BTreeMap<&'static str, String>,
    /// The commands of the handshakes, and of others.
    commands: Vec<Vec<String>>,
    /// The number of bytes of replies on each connection.
    bytes_max: usize,
    is_silent: bool,
    loop_id: sealed::sim::LoopId,
    stopper: sealed::Stopper,
}

impl Bench {
    fn new() -> Self {
        Self::with(1, Faults::default(), |_| {})
    }

    fn with(seed: u64, faults: Faults, change: impl FnOnce(&mut LinkSettings)) -> Self {
        let sim = Simulation::new(seed);
        sim.set_faults(faults);
        let address: Address = "10.0.0.9:6379".parse().expect("an address");
        let listener = sim.listen(address.clone()).expect("it is free");
        let wakes = Arc::new(Mutex::new(0));
        let woken = wakes.clone();
        let wake = Wake(Arc::new(move || *woken.lock().expect("no panic while it is held") += 1));
        let (port, events, log) = (LinkPort::default(), LinkEvents::new(wake), LinkLog::new(1));
        let mut settings = LinkSettings {
            connect: Connect::to(address),
            shown: "10.0.0.9:6379".into(),
            user: None,
            password: None,
            db: 0,
            prefix: "ccomet".into(),
        };
        change(&mut settings);
        let mut event_loop = sim.event_loop(Config::default(), Host(port.clone())).expect("a loop");
        let link = Link::new(settings.into(), 0, log.clone(), (port, events.clone()));
        event_loop.add_service(Link::config(), link).expect("a service");
        let (mailbox, stopper) = (event_loop.mailbox(), event_loop.stopper());
        let loop_id = sim.start(event_loop);
        Self {
            sim,
            listener,
            accepted: Vec::new(),
            mailbox,
            events,
            wakes,
            log,
            replies: BTreeMap::new(),
            commands: Vec::new(),
            bytes_max: usize::MAX,
            is_silent: false,
            loop_id,
            stopper,
        }
    }

    /// Lets time pass, while the peer answers.
    fn run_for(&mut self, time: Duration) {
        let until = self.sim.now() + time;
        while self.sim.now() < until {
            self.sim.run_for(ms(1));
            self.answer();
        }
    }

    fn answer(&mut self) {
        while let Some(peer) = self.listener.accept() {
            self.accepted.push(Accepted { peer, decoder: Decoder::default(), bytes_left: self.bytes_max });
        }
        for mut one in std::mem::take(&mut self.accepted) {
            one.decoder.feed(&one.peer.take());
            let mut replies = String::new();
            while let Some(command) = one.decoder.next().expect("a command") {
                let Value::Array(words) = command else { panic!("{command:?}") };
                let words: Vec<String> = words
                    .into_iter()
                    .map(|word| match word {
                        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                        word => panic!("{word:?}"),
                    })
                    .collect();
                if !self.is_silent {
                    replies += &self.reply(&words);
                }
                self.commands.push(words);
            }
            let sent = replies.len().min(one.bytes_left);
            one.peer.send(&replies[..sent]);
            one.bytes_left -= sent;
            if sent < replies.len() || one.bytes_left == 0 {
                self.sim.run_for(ms(5));
                one.peer.reset();
            } else if !one.peer.is_over() {
                self.accepted.push(one);
            }
        }
    }

    fn reply(&self, words: &[String]) -> String {
        let command = words.join(" ");
        if let Some((_, reply)) = self.replies.iter().find(|(start, _)| command.starts_with(**start)) {
            return reply.clone();
        }
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["HELLO", ..] => "%2\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n".to_owned(),
            ["INFO", "server"] => blob("# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n"),
            ["INFO", "memory"] => blob("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"),
            ["INFO", "replication"] => blob("role:master\r\n"),
            ["INFO", "cluster"] => blob("cluster_enabled:0\r\n"),
            [command @ ("SUBSCRIBE" | "UNSUBSCRIBE" | "PSUBSCRIBE" | "PUNSUBSCRIBE"), topic] => {
                // Something else may come before the confirmation.
                let other = ">2\r\n+invalidate\r\n_\r\n";
                let command = command.to_lowercase();
                format!("{other}>3\r\n+{command}\r\n${}\r\n{topic}\r\n:1\r\n", topic.len())
            }
            ["FUNCTION", ..] => "+ccomet1\r\n".to_owned(),
            ["PING"] => "+PONG\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        }
    }

    fn take_events(&self) -> Vec<LinkEvent> {
        std::iter::from_fn(|| self.events.take()).collect()
    }

    /// Lets time pass until a connection is ready, and returns its number.
    #[track_caller]
    fn up(&mut self) -> u64 {
        for _ in 0..5_000 {
            self.run_for(ms(1));
            match self.events.take() {
                Some(LinkEvent::Up { connection, run_id }) => {
                    assert_eq!(&*run_id, "abc");
                    return connection;
                }
                Some(event) => panic!("{event:?}"),
                None => {}
            }
        }
        panic!("no connection: {:?}", self.log.fault_of(0));
    }

    fn send(&self, connection: u64, commands: &[&[&str]]) {
        let mut bytes = Vec::new();
        for command in commands {
            let parts: Vec<&[u8]> = command.iter().map(|part| part.as_bytes()).collect();
            encode(&mut bytes, &parts);
        }
        self.post(ToLink::Send { connection, commands: commands.len(), bytes });
    }

    fn post(&self, order: ToLink) {
        self.mailbox.post(order).expect("the loop runs");
    }

    fn fault(&self) -> String {
        self.log.fault_of(0).unwrap_or_default().into()
    }
}

fn blob(text: &str) -> String {
    format!("={}\r\ntxt:{text}\r\n", text.len() + 4)
}

fn reply(text: &'static str) -> LinkEvent {
    LinkEvent::Reply(Value::Bytes(text.into()))
}

#[test]
fn a_connection_is_ready_after_the_checks_and_replies_come_in_order() {
    let mut bench = Bench::with(1, Faults::default(), |settings| {
        settings.user = Some("ann".into());
        settings.password = Some("sesame".into());
        settings.db = 3;
    });
    let connection = bench.up();
    let commands: Vec<String> = bench.commands.iter().map(|words| words.join(" ")).collect();
    assert_eq!(commands[0], "HELLO 3 AUTH ann sesame SETNAME ccomet");
    assert_eq!(commands[1..6], ["INFO server", "INFO memory", "INFO replication", "INFO cluster", "SELECT 3"]);
    assert!(commands.last().expect("commands").starts_with("FUNCTION LOAD #!lua name=ccomet1\n"), "{commands:?}");
    bench.replies.insert("FCALL a", "+a\r\n".to_owned());
    bench.replies.insert("FCALL b", ">2\r\n+message\r\n+b\r\n-ERR b\r\n".to_owned());
    bench.send(connection, &[&["FCALL", "a"], &["FCALL", "b"]]);
    bench.send(connection, &[&["FCALL", "a"]]);
    bench.run_for(ms(10));
    let push = LinkEvent::Push(vec![Value::Bytes("message".into()), Value::Bytes("b".into())]);
    let error = LinkEvent::Reply(Value::Error("ERR b".into()));
    assert_eq!(bench.take_events(), [reply("a"), push, error, reply("a")]);
}

#[test]
fn a_password_alone_is_that_of_the_default_user() {
    let mut bench = Bench::with(1, Faults::default(), |settings| settings.password = Some("sesame".into()));
    bench.up();
    assert_eq!(bench.commands[0].join(" "), "HELLO 3 AUTH default sesame SETNAME ccomet");
}

#[test]
fn each_fault_of_redis_has_a_sentence_and_the_link_tries_again() {
    let info = |text: &str| blob(text);
    for (command, wrong, sentence) in [
        ("HELLO", "-NOAUTH HELLO must be called\r\n".to_owned(), "requires a password"),
        ("HELLO", "-WRONGPASS invalid username-password pair\r\n".to_owned(), "refuses the user or the password"),
        ("HELLO", "-DENIED Redis is running in protected mode\r\n".to_owned(), "is in protected mode"),
        ("HELLO", "-ERR unknown command `HELLO`, with args: `3` `sesame`\r\n".to_owned(), "older than version 7.0"),
        ("HELLO", "-ERR max number of clients reached\r\n".to_owned(), "\"ERR max number of clients reached\""),
        ("INFO server", info("redis_version:6.2.7\r\nrun_id:abc\r\n"), "has version 6.2.7, which is too old"),
        ("INFO server", info("redis_version:7.2.4\r\n"), "does not give its run_id"),
        ("INFO server", "-NOPERM no permissions\r\n".to_owned(), "does not allow INFO"),
        ("INFO memory", info("maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n"), "maxmemory-policy noeviction"),
        ("INFO replication", info("role:slave\r\nmaster_host:db\r\nmaster_port:1\r\n"), "is a replica of db:1"),
        ("INFO cluster", info("cluster_enabled:1\r\n"), "is a part of a cluster"),
        ("SUBSCRIBE", "-NOPERM no permissions\r\n".to_owned(), "does not allow SUBSCRIBE"),
        ("PSUBSCRIBE", "-NOPERM no permissions\r\n".to_owned(), "all topics (&*)"),
        ("FUNCTION", "-NOPERM no permissions\r\n".to_owned(), "give the user +function|load"),
        ("FUNCTION", "-ERR Error compiling function\r\n".to_owned(), "\"ERR Error compiling function\""),
        ("FUNCTION", "-LOADING Redis is loading the dataset in memory\r\n".to_owned(), "is loading its data"),
        ("HELLO", "SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "is not RESP3"),
        ("HELLO", "*99999999\r\n".to_owned(), "more than 1,048,576 values"),
        ("HELLO", "$99999999\r\n".to_owned(), "more than 64 MiB"),
    ] {
        let mut bench = Bench::new();
        bench.replies.insert(command, wrong.clone());
        bench.run_for(SECOND);
        let fault = bench.fault();
        assert!(fault.starts_with("Redis at 10.0.0.9:6379 ") && fault.ends_with('.'), "{fault}");
        assert!(fault.contains(sentence) && !fault.contains("sesame"), "{wrong}: {fault}");
        assert_eq!(bench.take_events(), []);
        bench.replies.clear();
        bench.up();
        assert_eq!(bench.fault(), "");
    }
}

#[test]
fn a_library_that_is_loaded_already_and_full_memory_without_eviction_are_fine() {
    let mut bench = Bench::new();
    bench.replies.insert("FUNCTION", "-ERR Library 'ccomet1' already exists\r\n".to_owned());
    bench.replies.insert("INFO memory", blob("maxmemory:100\r\nmaxmemory_policy:noeviction\r\n"));
    bench.up();
}

#[test]
fn a_refused_connection_is_tried_again_at_most_every_two_seconds() {
    let mut bench = Bench::new();
    bench.sim.set_faults(Faults { refuse: 1.0, ..Faults::default() });
    bench.run_for(SECOND * 30);
    assert!(bench.fault().contains("check that it runs, and the address in store.redis"), "{}", bench.fault());
    bench.sim.set_faults(Faults::default());
    let since = bench.sim.now();
    assert!(bench.up() > 15, "it gives up");
    assert!(bench.sim.now().saturating_sub(since) <= SECOND * 2 + ms(50));
}

#[test]
fn a_connection_cut_off_anywhere_ends_with_one_event_and_is_made_anew() {
    for bytes in 0.. {
        let mut bench = Bench::new();
        bench.bytes_max = bytes;
        bench.run_for(ms(30));
        bench.bytes_max = usize::MAX;
        let events = bench.take_events();
        let is_whole = matches!(events[..], [LinkEvent::Up { .. }, ..]);
        assert!(matches!(events[..], [] | [LinkEvent::Up { .. }, LinkEvent::Down]), "after {bytes} bytes: {events:?}");
        bench.up();
        bench.run_for(SECOND * 5);
        assert_eq!(bench.take_events(), [], "after {bytes} bytes");
        if is_whole {
            assert!(bytes > 200, "the handshake has {bytes} bytes");
            return;
        }
    }
}

#[test]
fn silence_is_broken_by_a_ping_and_a_missing_reply_ends_the_connection() {
    let mut bench = Bench::new();
    let connection = bench.up();
    bench.commands.clear();
    bench.run_for(SECOND * 9);
    assert!((3..=4).contains(&bench.commands.len()), "{:?}", bench.commands);
    assert!(bench.commands.iter().all(|words| words == &["PING"]));
    assert_eq!(bench.take_events(), []);
    bench.is_silent = true;
    bench.run_for(SECOND * 8);
    assert_eq!(bench.take_events(), [LinkEvent::Down]);
    assert!(bench.fault().contains("has not replied for 5 seconds"), "{}", bench.fault());
    bench.is_silent = false;
    // Also of a command, although other bytes arrive.
    let again = bench.up();
    assert!(again > connection);
    bench.replies.insert("FCALL", String::new());
    bench.send(again, &[&["FCALL", "lost"]]);
    let since = bench.sim.now();
    while !bench.take_events().contains(&LinkEvent::Down) {
        bench.run_for(ms(100));
        for one in &mut bench.accepted {
            one.peer.send(">2\r\n+message\r\n+x\r\n");
        }
        let waited = bench.sim.now().saturating_sub(since);
        assert!(waited <= SECOND * 6, "{waited:?}");
    }
    let waited = bench.sim.now().saturating_sub(since);
    assert!(waited >= SECOND * 5, "{waited:?}");
}

#[test]
fn a_handshake_that_stops_is_given_up() {
    let mut bench = Bench::new();
    bench.is_silent = true;
    bench.run_for(SECOND * 7);
    assert!(bench.fault().contains("has not replied for 5 seconds"), "{}", bench.fault());
    bench.is_silent = false;
    bench.up();
}

#[test]
fn orders_for_another_connection_are_dropped() {
    let mut bench = Bench::new();
    let first = bench.up();
    bench.post(ToLink::Reset { connection: first + 1, why: "of a wrong number".into() });
    bench.send(first, &[&["FCALL", "a"]]);
    bench.run_for(ms(10));
    assert_eq!(bench.take_events(), [reply("OK")]);
    bench.post(ToLink::Reset { connection: first, why: "the test wants it".into() });
    bench.send(first, &[&["FCALL", "late"]]);
    bench.run_for(ms(2));
    assert_eq!(bench.take_events(), [LinkEvent::Down]);
    assert!(bench.fault().contains("the test wants it"), "{}", bench.fault());
    let second = bench.up();
    bench.send(first, &[&["FCALL", "late"]]);
    bench.send(second, &[&["FCALL", "b"]]);
    bench.run_for(ms(10));
    assert_eq!(bench.take_events(), [reply("OK")]);
    assert!(bench.commands.iter().all(|words| !words.contains(&"late".to_owned())));
}

#[test]
fn a_connection_of_no_use_is_given_up_before_its_error_is_a_reply() {
    for (error, sentence) in [
        ("-READONLY You can't write against a read only replica.\r\n", "has become a replica"),
        ("-LOADING Redis is loading the dataset in memory\r\n", "is loading its data"),
        ("-NOPERM this user has no permissions\r\n", "does not allow what the server does"),
        ("+a\r\n+b\r\n+c\r\n", "sends a reply to no command"),
        ("?\r\n", "is not RESP3"),
    ] {
        let mut bench = Bench::new();
        let connection = bench.up();
        bench.replies.insert("FCALL", error.to_owned());
        bench.send(connection, &[&["FCALL", "a"]]);
        bench.run_for(ms(10));
        let events = bench.take_events();
        assert_eq!(events.last(), Some(&LinkEvent::Down), "{error}: {events:?}");
        assert_eq!(events.iter().filter(|event| **event == LinkEvent::Down).count(), 1);
        assert!(events.iter().all(|event| !matches!(event, LinkEvent::Reply(Value::Error(_)))), "{events:?}");
        assert!(bench.fault().contains(sentence), "{error}: {}", bench.fault());
    }
}

#[test]
fn the_store_is_woken_for_the_end_of_a_connection_alone() {
    let mut bench = Bench::new();
    let connection = bench.up();
    bench.send(connection, &[&["FCALL", "a"], &["FCALL", "b"], &["FCALL", "c"]]);
    bench.run_for(ms(5));
    assert_eq!(bench.take_events().len(), 3);
    assert_eq!(*bench.wakes.lock().expect("no panic while it is held"), 0, "a tick of the gateway has an end anyway");
    bench.accepted.clear();
    bench.run_for(ms(1));
    assert_eq!(bench.take_events(), [LinkEvent::Down]);
    assert_eq!(*bench.wakes.lock().expect("no panic while it is held"), 1);
}

#[test]
fn the_link_works_while_the_loop_drains_and_does_not_keep_it() {
    let mut bench = Bench::new();
    let connection = bench.up();
    let waits = bench.sim.listen("10.0.0.8:80".parse::<Address>().expect("an address")).expect("it is free");
    bench.sim.with(bench.loop_id, |event_loop: &mut EventLoop<Host>| {
        event_loop.parts().1.connect("10.0.0.8:80".parse::<Address>().expect("an address"), ()).expect("a connection");
    });
    bench.run_for(ms(10));
    let mut client = waits.accept().expect("a connection");
    bench.stopper.stop();
    bench.run_for(ms(10));
    bench.send(connection, &[&["FCALL", "a"]]);
    bench.run_for(ms(10));
    assert_eq!(bench.take_events(), [reply("OK")]);
    client.finish();
    bench.run_for(ms(10));
    assert!(!bench.sim.is_running(bench.loop_id), "the loop waits for the link");
}

#[test]
fn replies_arrive_in_order_on_a_rough_network() {
    for seed in 0..30 {
        let faults = Faults {
            short_read: 0.3,
            short_write: 0.3,
            would_block: 0.2,
            late_wake: 0.2,
            reset: 0.01,
            delay_max: ms(3),
            ..Faults::default()
        };
        let mut bench = Bench::with(seed, faults, |_| {});
        let (mut connection, mut sent, mut got, mut ups) = (None, 0, 0, 0);
        for _ in 0..2_000 {
            bench.run_for(ms(1));
            for event in bench.take_events() {
                match event {
                    LinkEvent::Up { connection: number, .. } => {
                        assert!(connection.is_none() && connection < Some(number), "seed {seed}");
                        (connection, got, ups) = (Some(number), sent, ups + 1);
                    }
                    LinkEvent::Reply(Value::Integer(number)) => {
                        assert_eq!(number, got, "seed {seed}");
                        got += 1;
                    }
                    LinkEvent::Down => assert!(connection.take().is_some(), "seed {seed}"),
                    event => panic!("seed {seed}: {event:?}"),
                }
            }
            if let Some(number) = connection {
                bench.replies.insert("FCALL", format!(":{sent}\r\n"));
                bench.send(number, &[&["FCALL"]]);
                sent += 1;
                bench.sim.run_for(ms(8));
            }
        }
        assert!(ups > 0 && got > 0, "seed {seed}: {ups}, {got}");
    }
}
