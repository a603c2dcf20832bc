//! Readers that come back to a history on disk: 1,000 of them read a history of 1 GiB from its
//! start, of one channel that all of them read for a while, and of a channel for each that it reads
//! to the end. The servers are this one, with a store on disk, and streams of `redis-server`, in
//! alternating rounds of one run.
//!
//! `cargo build --release -p ccomet && cargo run --release -p benches --bin resume`. A server that
//! is not installed is left out. Each server has processor 0, and the readers have processor 1.
//! `redis-server` has all of it in memory. Before and after the readers of this server read, its
//! metrics are asked for: they count the ticks of its loop by length. The data is below the current
//! folder, in `target`.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use benches::limits::raise_open_files;
use benches::server::{pin_client, start_elsewhere};
use benches::table::in_turn;
use mio::{Events, Interest, Poll, Token};
use testing::PATIENCE;
use testing::http::Client;
use testing::process::{Process, free_address};
use testing::programs::is_program;

const ROUNDS: usize = 3;
const READERS: usize = 1_000;
const MESSAGES: usize = 1 << 20;
const MESSAGE_BYTES: usize = 1_024;
/// The time for which all readers read one channel.
const WHILE: Duration = Duration::from_secs(10);
/// A reader of its own channel is done when nothing has come for this time.
const SILENCE: Duration = Duration::from_secs(1);

/// Which channel a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    OneForAll,
    OneForEach,
}

impl Case {
    fn channels(self) -> usize {
        if self == Self::OneForAll { 1 } else { READERS }
    }
}

/// The way to talk to a server.
struct Dialect {
    /// Makes a publication in a channel.
    publish: fn(channel: &str, out: &mut Vec<u8>),
    /// Returns how many replies these bytes complete. What is left of the bytes is kept.
    replies: fn(&mut Vec<u8>) -> usize,
    /// Starts to read a channel.
    read: fn(&TcpStream, channel: &str),
    /// Takes what was received, and returns what is to be sent to get more.
    more: fn(&mut Vec<u8>, channel: &str) -> Option<Vec<u8>>,
}

const HTTP: Dialect = Dialect {
    publish: |channel, out| {
        let head =
            format!("POST /channels/{channel} HTTP/1.1\r\nHost: bench\r\nContent-Length: {MESSAGE_BYTES}\r\n\r\n");
        out.extend_from_slice(head.as_bytes());
        out.resize(out.len() + MESSAGE_BYTES, b'x');
    },
    replies: |bytes| count(bytes, b"HTTP/1.1 200"),
    read: |mut stream, channel| {
        let fields = "Host: bench\r\nAccept: text/event-stream";
        write!(stream, "GET /channels/{channel}?after=oldest HTTP/1.1\r\n{fields}\r\n\r\n").expect("sent");
    },
    more: |received, _| {
        received.clear();
        None
    },
};

/// The messages of one reply of `redis-server`.
const PAGE: usize = 100;

const REDIS: Dialect = Dialect {
    publish: |channel, out| command(&["XADD", channel, "*", "data", &"x".repeat(MESSAGE_BYTES)], out),
    replies: |bytes| {
        assert!(!bytes.starts_with(b"-ERR"), "{}", String::from_utf8_lossy(bytes));
        count(bytes, b"$")
    },
    read: |mut stream, channel| {
        let mut out = Vec::new();
        command(&["XRANGE", channel, "-", "+", "COUNT", &PAGE.to_string()], &mut out);
        stream.write_all(&out).expect("sent");
    },
    more: |received, channel| {
        // The last entry of a page ends with its data; an empty page is the end.
        let line = find(received, b"\r\n")?;
        let entries: usize = std::str::from_utf8(&received[1..line]).ok()?.parse().ok()?;
        let data = format!("${MESSAGE_BYTES}\r\n");
        if entries == 0 || received.len() < entries * MESSAGE_BYTES || count_of(received, data.as_bytes()) < entries {
            return None;
        }
        let last = received.windows(data.len()).rposition(|window| window == data.as_bytes())?;
        if received.len() < last + data.len() + MESSAGE_BYTES + 2 {
            return None;
        }
        // Before the data are the id of the entry, the number of its fields, and the name of the
        // field.
        let fields = b"\r\n*2\r\n$4\r\ndata\r\n";
        let before = received[..last].strip_suffix(fields)?;
        let begin = before.iter().rposition(|byte| *byte == b'\n')? + 1;
        let id = format!("({}", std::str::from_utf8(&before[begin..]).ok()?);
        let mut out = Vec::new();
        command(&["XRANGE", channel, &id, "+", "COUNT", &PAGE.to_string()], &mut out);
        received.clear();
        Some(out)
    },
};

fn command(words: &[&str], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn count_of(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).filter(|window| *window == wanted).count()
}

/// Counts `wanted`, and drops the bytes but for those that may begin another.
fn count(bytes: &mut Vec<u8>, wanted: &[u8]) -> usize {
    let count = count_of(bytes, wanted);
    bytes.drain(..bytes.len().saturating_sub(wanted.len() - 1));
    count
}

struct Server {
    name: &'static str,
    case: Case,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    dialect: Dialect,
    _process: Process,
}

/// Publishes all messages, over some connections, with several publications in transit on each.
fn fill(server: &Server) {
    const CONNECTIONS: usize = 16;
    const DEPTH: usize = 32;
    let Dialect { publish, replies, .. } = server.dialect;
    let channels = server.case.channels();
    let share = MESSAGES / CONNECTIONS;
    thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(server.address).expect("a connection");
                let (mut received, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
                let mut sent = 0;
                while sent < share {
                    let mut out = Vec::new();
                    let due = DEPTH.min(share - sent);
                    for number in sent..sent + due {
                        // Each connection has channels of its own, in turn.
                        let own = (channels / CONNECTIONS).max(1);
                        let channel = (connection * own + number % own) % channels;
                        publish(&format!("c{channel}"), &mut out);
                    }
                    stream.write_all(&out).expect("sent");
                    let mut answered = 0;
                    while answered < due {
                        let count = stream.read(&mut buffer).expect("a reply");
                        assert!(count > 0, "{} closes a connection", server.name);
                        received.extend_from_slice(&buffer[..count]);
                        answered += replies(&mut received);
                    }
                    sent += due;
                }
            });
        }
    });
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// The bounds of the buckets of ticks that the table shows, in seconds.
const TICK_BOUNDS: [&str; 3] = ["0.004096", "0.016384", "+Inf"];

/// Returns how many ticks of this server were no longer than each bound.
fn ticks(server: &Server) -> [f64; 3] {
    let Some(admin) = server.admin else { return [0.0; 3] };
    let page = Client::connect(admin).get("/metrics");
    TICK_BOUNDS.map(|bound| {
        let name = format!("ccomet_tick_seconds_bucket{{le=\"{bound}\"}} ");
        let line = page.text().lines().find_map(|line| line.strip_prefix(&name)).expect("a bucket");
        line.parse().expect("a number")
    })
}

/// Reads, and returns the MiB that were received in a second, and how many ticks took longer than
/// 4 ms, and longer than 16 ms.
fn resume(server: &Server) -> [f64; 3] {
    let Dialect { read, more, .. } = server.dialect;
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(1_024);
    let channel = |reader: usize| format!("c{}", reader % server.case.channels());
    let streams: Vec<TcpStream> = (0..READERS).map(|_| connect(server)).collect();
    let before = ticks(server);
    let start = Instant::now();
    let mut readers: Vec<(mio::net::TcpStream, Vec<u8>)> = streams
        .into_iter()
        .enumerate()
        .map(|(reader, stream)| {
            read(&stream, &channel(reader));
            stream.set_nonblocking(true).expect("set");
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(reader), Interest::READABLE).expect("registered");
            (stream, Vec::new())
        })
        .collect();
    let mut buffer = vec![0; 256 * 1024];
    let (mut bytes, mut last) = (0, start);
    while server.case == Case::OneForEach || start.elapsed() < WHILE {
        poll.poll(&mut events, Some(SILENCE)).expect("events");
        if events.is_empty() {
            break;
        }
        for event in &events {
            let (stream, received) = &mut readers[event.token().0];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => panic!("{} closes a connection", server.name),
                    Ok(count) => {
                        bytes += count;
                        received.extend_from_slice(&buffer[..count]);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{}: {error}", server.name),
                }
                if let Some(request) = more(received, &channel(event.token().0)) {
                    stream.write_all(&request).expect("sent");
                }
            }
            last = Instant::now();
        }
    }
    if server.case == Case::OneForEach {
        assert!(bytes >= MESSAGES / READERS * READERS * MESSAGE_BYTES, "{} loses messages: {bytes} bytes", server.name);
    }
    let after = ticks(server);
    let longer = |bound: usize| (after[2] - after[bound]) - (before[2] - before[bound]);
    #[allow(clippy::cast_precision_loss)] // counts far below 2^52
    [bytes as f64 / (last - start).as_secs_f64() / f64::from(1 << 20), longer(0), longer(1)]
}

fn ours(case: Case, folder: &Path) -> Server {
    let program = std::env::current_exe().expect("this program").with_file_name("ccomet").display().to_string();
    let file = folder.join("ccomet.toml");
    let text = "[limits]\npublishes_per_address_minute = 60000000\nconnections_per_address_max = 10000\n\
                [history]\nmessages_max = 1048576\nbytes_max = 4294967296\n[store]\nsync = \"interval\"\n";
    fs::write(&file, text).expect("a file");
    let admin = free_address([127, 0, 0, 1]);
    let data = folder.join(format!("ccomet-{case:?}"));
    let (process, address) = start_elsewhere(&program, |address| {
        let mut words = vec!["--config".to_owned(), file.display().to_string(), "--front".to_owned()];
        words.extend([address.to_string(), "--admin".to_owned(), admin.to_string()]);
        words.extend(["--loops", "1", "--log", "error", "--data"].map(str::to_owned));
        words.push(data.display().to_string());
        words
    });
    Server { name: "ccomet", case, address, admin: Some(admin), dialect: HTTP, _process: process }
}

fn peers(case: Case, folder: &Path) -> Vec<Server> {
    let folder_of = |name: &str| {
        let path = folder.join(format!("{name}-{case:?}"));
        fs::create_dir_all(&path).expect("a folder");
        path.display().to_string()
    };
    let mut all = vec![ours(case, folder)];
    if is_program("redis-server") {
        let (process, address) = start_elsewhere("redis-server", |address| {
            let port = address.port().to_string();
            let folder = folder_of("redis");
            ["--port", &port, "--dir", &folder, "--save", "", "--appendonly", "yes"].map(str::to_owned).into()
        });
        all.push(Server { name: "redis-server", case, address, admin: None, dialect: REDIS, _process: process });
    }
    all
}

fn main() {
    pin_client();
    raise_open_files();
    let folder = PathBuf::from("target").join(format!("resume-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let folder = fs::canonicalize(folder).expect("a folder");
    let named: Vec<String> = std::env::args().skip(1).collect();
    println!("| history | server | MiB a second | ticks over 4 ms | over 16 ms |\n| --- | --- | ---: | ---: | ---: |");
    for (case, label) in [(Case::OneForAll, "one channel"), (Case::OneForEach, "a channel for each")] {
        let mut servers = peers(case, &folder);
        servers.retain(|server| named.is_empty() || named.iter().any(|name| name == server.name));
        servers.iter().for_each(fill);
        let found = in_turn(servers.len(), ROUNDS, |peer| Some(resume(&servers[peer]).to_vec()));
        for (server, figures) in servers.iter().zip(&found) {
            let ticks = server.admin.map_or("- | -".to_owned(), |_| format!("{} | {}", figures[1], figures[2]));
            println!("| {label} | {} | {:.0} | {ticks} |", server.name, figures[0]);
        }
    }
    fs::remove_dir_all(folder).expect("removed");
}
