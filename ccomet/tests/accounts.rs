//! Compares the server's accounts of its memory with the allocator's: the bounds of history hold
//! for the whole process, and the server counts all that it holds.
//!
//! The network is simulated, so that memory is the same in every run. The network's own share is
//! part of the measurements and of the allowances.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ccomet::{Config, Holdings, Simulated};
use peak_alloc::PeakAlloc;
use sealed::sim::{Peer, Simulation};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Allows one test at a time to measure.
static MEASURING: Mutex<()> = Mutex::new(());

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const LOOPS: usize = 4;
const TOTAL: usize = 8 * MIB;
const ENCODED: usize = MIB;
/// The share of the network, the connections and the channels.
const ALLOWANCE: usize = 3 * MIB / 2;
/// The bytes that a message takes in a loop's log, by the server's account.
const COPY: usize = 16;

struct Stage {
    sim: Simulation,
    server: Simulated,
    base: usize,
    _measuring: MutexGuard<'static, ()>,
}

impl Stage {
    fn new(loops: usize) -> Self {
        Self::of(loops, |_| {})
    }

    fn of(loops: usize, change: impl FnOnce(&mut Config)) -> Self {
        let measuring = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
        let sim = Simulation::new(1);
        let mut config = Config { loops: loops.try_into().ok(), ..Config::default() };
        config.history.total_bytes_max = TOTAL;
        config.limits.encoded_bytes_max = ENCODED;
        change(&mut config);
        let server = Simulated::start(&sim, config).expect("it starts");
        sim.settle();
        Self { sim, server, base: HEAP.current_usage(), _measuring: measuring }
    }

    fn held(&self) -> usize {
        HEAP.current_usage().saturating_sub(self.base)
    }

    fn admin(&self) -> Peer {
        self.sim.connect(self.server.admin())
    }

    /// Returns how many messages a channel keeps.
    fn count_kept(&self, client: &mut Peer, channel: &str) -> usize {
        client.send(format!("GET /channels/{channel}/info HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.sim.settle();
        let reply = String::from_utf8_lossy(&client.take()).into_owned();
        let Some((_, rest)) = reply.split_once("\"messages\":") else { return 0 };
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().expect("a number");
        digits.parse().expect("a number")
    }

    fn client(&self) -> Peer {
        self.sim.connect(self.server.front())
    }

    /// Polls each of these channels once from a client on every loop, so that each loop keeps the
    /// messages that are published there.
    fn attach_all(&self, channels: &[String]) -> Vec<Peer> {
        let mut peers = Vec::new();
        while self.server.holdings().attached_channels < LOOPS * channels.len() {
            let mut peer = self.client();
            for some in channels.chunks(32) {
                peer.send(format!("GET /channels/{}?wait=0 HTTP/1.1\r\nHost: sim\r\n\r\n", some.join(",")));
                peer.expect("\"items\":[]}\n");
            }
            peers.push(peer);
            assert!(peers.len() < 100, "connections are spread over the loops");
        }
        peers
    }

    /// Asserts that the accounts are right once nothing is in transit.
    fn check_accounts(&self) -> Holdings {
        let holdings = self.check_shared_accounts();
        assert_eq!(holdings.message_bytes + COPY * holdings.copied_messages, holdings.history_bytes, "{holdings:?}");
        holdings
    }

    /// Asserts that the accounts are right where channels share messages. Apart from its payload, a
    /// shared message that memory holds once is counted more than once.
    fn check_shared_accounts(&self) -> Holdings {
        self.sim.settle();
        let holdings = self.server.holdings();
        assert_eq!(holdings.recounted_bytes, holdings.history_bytes, "{holdings:?}");
        assert!(holdings.message_bytes <= holdings.history_bytes, "{holdings:?}");
        assert_eq!(holdings.delivery_bytes, 0, "{holdings:?}");
        let (held, counted) = (self.held(), holdings.history_bytes + holdings.encoded_bytes);
        assert!(held <= counted + counted / 8 + ALLOWANCE, "{held} bytes are held, and counted are {holdings:?}");
        let counted_once = holdings.message_bytes + holdings.encoded_bytes;
        assert!(counted_once <= held + held / 8, "{held} bytes are held, and counted are {holdings:?}");
        holdings
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("channel{n}")).collect()
}

fn publish(client: &mut Peer, channel: &str, body: &str) {
    let length = body.len();
    client.send(format!("POST /channels/{channel} HTTP/1.1\r\nHost: sim\r\nContent-Length: {length}\r\n\r\n{body}"));
    client.expect("\"position\"");
    client.expect("}\n");
}

#[test]
fn history_keeps_to_its_limit_on_all_loops_together() {
    let stage = Stage::new(LOOPS);
    let channels = names(64);
    let mut readers = stage.attach_all(&channels);
    let mut publisher = stage.client();
    let body = "x".repeat(16 * KIB);
    for n in 0..2_000 {
        publish(&mut publisher, &channels[n * 7 % channels.len()], &body);
        if n % 50 == 0 {
            let held = stage.held();
            let limit = TOTAL + TOTAL / 4 + ENCODED;
            assert!(held <= limit + ALLOWANCE, "{held} bytes are held after {n} messages");
        }
    }
    let holdings = stage.check_accounts();
    assert!(holdings.history_bytes > TOTAL * 3 / 4, "all that may be kept is: {holdings:?}");
    // A reader on any loop gets what the channel's home loop has.
    let held = |reader: &mut Peer| {
        reader.send("GET /channels/channel7?after=oldest&wait=0 HTTP/1.1\r\nHost: sim\r\n\r\n");
        let reply = reader.expect("\"}]}\n");
        String::from_utf8_lossy(&reply).matches("\"type\":\"message\"").count()
    };
    let counts: Vec<usize> = readers.iter_mut().map(held).collect();
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    drop((readers, publisher));
    stage.check_accounts();
}

#[test]
fn expired_messages_are_dropped_on_all_loops() {
    let mut config = Config { loops: LOOPS.try_into().ok(), ..Config::default() };
    config.history.age_max_s = 10;
    config.times.channel_linger_s = 3_600;
    let sim = Simulation::new(1);
    let server = Simulated::start(&sim, config).expect("it starts");
    let measuring = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage { sim, server, base: HEAP.current_usage(), _measuring: measuring };
    let channels = names(16);
    let readers = stage.attach_all(&channels);
    let mut publisher = stage.client();
    for channel in &channels {
        publish(&mut publisher, channel, "hello");
    }
    assert_eq!(stage.check_accounts().copied_messages, LOOPS * channels.len());
    stage.sim.run_for(Duration::from_secs(120));
    let holdings = stage.check_accounts();
    assert_eq!((holdings.history_bytes, holdings.copied_messages), (0, 0), "{holdings:?}");
    assert_eq!(holdings.attached_channels, LOOPS * channels.len(), "{holdings:?}");
    drop(readers);
}

#[test]
fn the_bytes_in_transit_to_a_loop_are_bounded() {
    const MESSAGE: usize = 32 * KIB;
    let stage = Stage::new(LOOPS);
    let channels = names(31);
    let mut readers = stage.attach_all(&channels);
    let mut publisher = stage.client();
    let mut body = "{\"messages\":[".to_owned();
    for channel in &channels {
        let comma = if body.ends_with('[') { "" } else { "," };
        write!(body, "{comma}{{\"channel\":\"{channel}\",\"data\":\"{}\"}}", "x".repeat(MESSAGE)).expect("memory");
    }
    body.push_str("]}");
    // From each home loop to each other loop: a twelfth of the home's share, and a delivery.
    let window = TOTAL / LOOPS / 4 / (LOOPS - 1);
    let most = LOOPS * (LOOPS - 1) * (window + 2 * MESSAGE);
    assert!(most < channels.len() * (LOOPS - 1) * MESSAGE, "all of them at once are more than that");
    let mut peak = 0;
    for _ in 0..4 {
        publisher.send(format!("POST /messages HTTP/1.1\r\nHost: sim\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        stage.sim.run_until(Duration::from_secs(1), || {
            peak = peak.max(stage.server.holdings().delivery_bytes);
            false
        });
    }
    assert!((window..=most).contains(&peak), "{peak} bytes were on their way");
    // No message was lost.
    for reader in &mut readers {
        for channel in &channels {
            reader.send(format!("GET /channels/{channel}?after=oldest&wait=0 HTTP/1.1\r\nHost: sim\r\n\r\n"));
            let reply = reader.expect("\"}]}\n");
            assert_eq!(String::from_utf8_lossy(&reply).matches("\"type\":\"message\"").count(), 1, "{channel}");
        }
    }
    stage.check_accounts();
}

#[test]
fn encoded_forms_of_messages_are_bounded_and_counted() {
    let stage = Stage::new(1);
    let mut publisher = stage.client();
    // Each byte of this body becomes six in JSON.
    let body = "\u{1}".repeat(16 * KIB);
    for _ in 0..32 {
        publish(&mut publisher, "news", &body);
    }
    let stored = stage.check_accounts();
    assert_eq!(stored.encoded_bytes, 0, "nobody has read it: {stored:?}");
    let mut readers = Vec::new();
    for (target, headers) in [
        ("/channels/news?after=oldest", "Accept: text/event-stream\r\n"),
        ("/channels/news?after=oldest&transport=lines", ""),
        ("/channels/news?after=oldest&transport=iframe", ""),
        ("/channels/news,other?after=oldest", "Accept: text/event-stream\r\n"),
        ("/channels/news?after=oldest&wait=0", ""),
        ("/channels/news?after=oldest&wait=0&callback=f", ""),
        ("/stream?cname=news&seq=1", ""),
        ("/iframe?cname=news&seq=1", ""),
        ("/sub?cname=news&seq=1", ""),
    ] {
        let mut reader = stage.client();
        reader.discard();
        reader.send(format!("GET {target} HTTP/1.1\r\nHost: sim\r\n{headers}\r\n"));
        stage.sim.settle();
        assert!(reader.count_received() > 5 * 16 * KIB as u64, "{target}");
        let holdings = stage.check_accounts();
        assert!(holdings.encoded_bytes <= ENCODED, "{target}: {holdings:?}");
        assert!(stage.held() <= stored.history_bytes + ENCODED + ENCODED / 4 + ALLOWANCE, "{target}: {}", stage.held());
        readers.push(reader);
    }
    // At the head of the channel, all subscribers that read in one form share one encoding.
    stage.sim.run_for(Duration::from_secs(2));
    assert_eq!(stage.check_accounts().encoded_bytes, 0);
    for n in 0..20 {
        let channels = ["news", "news,other"][n % 2];
        let mut reader = stage.client();
        reader.discard();
        reader.send(format!("GET /channels/{channels} HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n\r\n"));
        readers.push(reader);
    }
    stage.sim.settle();
    publish(&mut publisher, "news", &"y".repeat(10 * KIB));
    let encoded = stage.check_accounts().encoded_bytes;
    assert!((10 * KIB..7 * 11 * KIB).contains(&encoded), "once for each form: {encoded}");
}

#[test]
fn filling_some_channels_costs_the_others_no_history() {
    for loops in [1, LOOPS] {
        let stage = Stage::new(loops);
        let (quiet, filled) = (names(200), (0..40).map(|n| format!("filled{n}")).collect::<Vec<_>>());
        let mut publisher = stage.client();
        for channel in &quiet {
            (0..5).for_each(|n| publish(&mut publisher, channel, &format!("{n}")));
        }
        let body = "x".repeat(32 * KIB);
        for n in 0..2_000 {
            publish(&mut publisher, &filled[n % filled.len()], &body);
        }
        stage.check_accounts();
        for channel in &quiet {
            publisher.send(format!("GET /channels/{channel}?after=oldest&wait=0 HTTP/1.1\r\nHost: sim\r\n\r\n"));
            let reply = String::from_utf8(publisher.expect("]}\n")).expect("text");
            assert_eq!(reply.matches("\"type\":\"message\"").count(), 5, "{channel}: {reply}");
        }
    }
}

/// Publishes a message to a pattern, or to several channels, and waits for the answer.
fn send_to_all(stage: &Stage, client: &mut Peer, target: &str, body: &str) {
    let length = body.len();
    client
        .send(format!("POST /channels/{target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"));
    client.expect("\"results\"");
    stage.sim.settle();
    client.take();
}

#[test]
fn a_message_to_many_channels_counts_once_and_drops_no_history() {
    let body = "x".repeat(60 * KIB);
    for loops in [1, LOOPS] {
        let stage = Stage::new(loops);
        let (mut client, mut admin) = (stage.client(), stage.admin());
        let channels = names(1_000);
        for channel in &channels {
            publish(&mut client, channel, "x");
        }
        for _ in 0..400 {
            publish(&mut client, "orders", &"o".repeat(2_000));
        }
        send_to_all(&stage, &mut admin, "channel*", &body);
        let holdings = stage.check_shared_accounts();
        assert!(holdings.history_bytes < 2 * MIB, "{holdings:?}");
        assert_eq!(stage.count_kept(&mut admin, "orders"), 400);
        for channel in &channels {
            assert_eq!(stage.count_kept(&mut admin, channel), 2, "{channel}");
        }
        // A message to a single channel counts in full.
        for _ in 0..30 {
            send_to_all(&stage, &mut admin, "channel*", &body);
        }
        assert_eq!(stage.count_kept(&mut admin, "channel7"), MIB / (60 * KIB));
        let holdings = stage.check_shared_accounts();
        assert!(holdings.history_bytes < 5 * MIB + loops * MIB, "{holdings:?}");
    }
}

#[test]
fn a_message_to_several_channels_counts_once() {
    let stage = Stage::new(1);
    let mut client = stage.admin();
    let body = "x".repeat(60 * KIB);
    for n in 0..16 {
        send_to_all(&stage, &mut client, &names(30).join(","), &format!("{n} {body}"));
    }
    let holdings = stage.check_shared_accounts();
    assert!(holdings.history_bytes < 18 * 61 * KIB, "{holdings:?}");
    for channel in names(30) {
        assert_eq!(stage.count_kept(&mut client, &channel), 16, "{channel}");
    }
}

#[test]
fn the_copies_of_a_message_that_patterns_keep_count_once() {
    let stage = Stage::of(1, |config| config.front.patterns = true);
    let mut client = stage.client();
    let mut readers = Vec::new();
    for n in 0..30 {
        let mut reader = stage.client();
        reader.discard();
        let pattern = format!("{}*", &"*channel"[..n % 8]) + &"*".repeat(n / 8);
        reader.send(format!("GET /channels/{pattern}?transport=sse HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        readers.push(reader);
    }
    stage.sim.settle();
    for n in 0..16 {
        publish(&mut client, &format!("channel{n}"), &"x".repeat(60 * KIB));
    }
    let holdings = stage.check_shared_accounts();
    assert!(holdings.history_bytes < 18 * 61 * KIB, "{holdings:?}");
}

#[test]
fn what_a_pattern_begins_with_counts_once() {
    let stage = Stage::of(1, |config| config.front.patterns = true);
    let mut client = stage.client();
    for n in 0..16 {
        publish(&mut client, &format!("channel{n}"), &"x".repeat(60 * KIB));
    }
    // In some of the channels somebody reads.
    let readers = (0..8).map(|n| {
        let mut reader = stage.client();
        reader.send(format!("GET /channels/channel{n}?transport=sse HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        reader
    });
    let _readers: Vec<Peer> = readers.collect();
    for pattern in ["ch*", "channel*"] {
        client.send(format!("GET /channels/{pattern}?after=oldest&wait=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.expect("\"items\":[{");
        client.expect("]}\n");
        let holdings = stage.check_shared_accounts();
        assert!(holdings.history_bytes < 17 * 61 * KIB, "{holdings:?}");
    }
    // It does not matter who drops it first.
    for n in 0..16 {
        client.send(format!("DELETE /channels/channel{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }
    stage.sim.run_for(Duration::from_secs(300));
    stage.check_shared_accounts();
}

#[test]
fn accounts_of_shared_messages_stay_right() {
    for loops in [1, LOOPS] {
        let stage = Stage::of(loops, |config| {
            config.front.patterns = true;
            config.history.messages_max = 5;
            config.history.age_max_s = 100;
            config.rules =
                toml::from_str::<Config>("[[rules]]\nchannels = \"channel1*\"\nage_max_s = 20\n").expect("TOML").rules;
        });
        let (mut client, mut admin) = (stage.client(), stage.admin());
        let channels = names(40);
        let mut reader = stage.client();
        reader.discard();
        reader.send("GET /channels/ch*?transport=sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
        for round in 0..60 {
            let body = "x".repeat((round % 4) * 20 * KIB);
            let some = |from: usize| channels[from % 30..][..10].join(",");
            match round % 6 {
                0 => send_to_all(&stage, &mut admin, "channel*", &body),
                1 => send_to_all(&stage, &mut client, &some(round), &body),
                2 => (0..10).for_each(|n| publish(&mut client, &channels[(round + n) % 40], &body)),
                3 => send_to_all(&stage, &mut admin, "channel2*", &body),
                4 => {
                    for n in 0..10 {
                        let action = ["DELETE /channels/NAME", "DELETE /channels/NAME/history"][n % 2];
                        let action = action.replace("NAME", &channels[(7 * round + n) % 40]);
                        admin.send(format!("{action} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
                    }
                    stage.sim.settle();
                    admin.take();
                }
                _ => stage.sim.run_for(Duration::from_secs(9)),
            }
            stage.check_shared_accounts();
        }
        drop(reader);
        stage.sim.run_for(Duration::from_secs(300));
        let holdings = stage.check_shared_accounts();
        assert_eq!((holdings.history_bytes, holdings.message_bytes), (0, 0), "{holdings:?}");
    }
}
