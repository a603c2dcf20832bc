//! Publishers that wait until their message is kept: this server in memory and with a store on
//! disk, compared with streams of `redis-server` and of `nats-server`, in alternating rounds of one
//! run.
//!
//! `cargo build --release -p ccomet && cargo run --release -p benches --bin kept`; then
//! `-- disk redis-server` names the servers to compare. Servers that are not installed are left
//! out. Each server has processor 0, and the publishers have processor 1. The data is below the
//! current folder, in `target`. `redis-server` syncs each command (`appendfsync always`), as this
//! server does by default; the `nats-server` of Debian 12 syncs its file store every two minutes,
//! which compares with `sync = "interval"`. Takes two minutes.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::limits::raise_open_files;
use benches::server::{pin_client, start_elsewhere};
use benches::table::in_turn;
use mio::{Events, Interest, Poll, Token};
use testing::PATIENCE;
use testing::process::Process;
use testing::programs::is_program;

const ROUNDS: usize = 5;
const PUBLISHERS: [usize; 3] = [1, 32, 1_000];
const CHANNELS: usize = 100;
const MESSAGE_BYTES: usize = 200;
const WARM_UP: Duration = Duration::from_millis(500);
const ROUND: Duration = Duration::from_secs(1);

/// The way to talk to a server.
struct Dialect {
    /// Prepares a connection.
    prepare: fn(&TcpStream, usize),
    /// Returns the request of a publisher.
    request: fn(usize) -> Vec<u8>,
    /// Returns the length of the reply at the beginning of these bytes, if it is complete.
    reply: fn(&[u8]) -> Option<usize>,
}

const HTTP: Dialect = Dialect {
    prepare: |_, _| {},
    request: |publisher| {
        let (channel, body) = (publisher % CHANNELS, "x".repeat(MESSAGE_BYTES));
        format!("POST /channels/c{channel} HTTP/1.1\r\nHost: bench\r\nContent-Length: {MESSAGE_BYTES}\r\n\r\n{body}")
            .into()
    },
    reply: |bytes| {
        let head = find(bytes, b"\r\n\r\n")? + 4;
        assert!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(bytes));
        let begin = find(bytes, b"Content-Length: ")? + 16;
        let end = begin + find(&bytes[begin..], b"\r")?;
        let length: usize = std::str::from_utf8(&bytes[begin..end]).ok()?.parse().ok()?;
        (bytes.len() >= head + length).then_some(head + length)
    },
};

const REDIS: Dialect = Dialect {
    prepare: |_, _| {},
    request: |publisher| {
        let (channel, body) = (format!("c{}", publisher % CHANNELS), "x".repeat(MESSAGE_BYTES));
        let words = ["XADD", &channel, "*", "data", &body];
        let words = words.map(|word| format!("${}\r\n{word}\r\n", word.len())).concat();
        format!("*5\r\n{words}").into()
    },
    reply: |bytes| {
        let line = find(bytes, b"\r\n")?;
        assert_eq!(bytes[0], b'$', "{}", String::from_utf8_lossy(bytes));
        let length: usize = std::str::from_utf8(&bytes[1..line]).ok()?.parse().ok()?;
        (bytes.len() >= line + length + 4).then_some(line + length + 4)
    },
};

const NATS: Dialect = Dialect {
    prepare: |stream, publisher| {
        let mut lines = BufReader::new(stream);
        let mut wait_for = |word: &str| {
            let mut line = String::new();
            while !line.starts_with(word) {
                line.clear();
                assert!(lines.read_line(&mut line).expect("a line") > 0, "the server closes");
            }
        };
        wait_for("INFO");
        write!(&*stream, "CONNECT {{\"verbose\":false}}\r\nSUB in.{publisher} 1\r\nPING\r\n").expect("sent");
        wait_for("PONG");
        if publisher == 0 {
            let config = r#"{"name":"kept","subjects":["kept.*"],"storage":"file","retention":"limits"}"#;
            write!(&*stream, "PUB $JS.API.STREAM.CREATE.kept in.0 {}\r\n{config}\r\n", config.len()).expect("sent");
            wait_for("MSG");
            wait_for("{");
        }
    },
    request: |publisher| {
        let (channel, body) = (publisher % CHANNELS, "x".repeat(MESSAGE_BYTES));
        format!("PUB kept.{channel} in.{publisher} {MESSAGE_BYTES}\r\n{body}\r\n").into()
    },
    reply: |bytes| {
        let line = find(bytes, b"\r\n")?;
        let text = std::str::from_utf8(&bytes[..line]).ok()?;
        if !text.starts_with("MSG") {
            // A ping needs an answer only after minutes.
            return Some(line + 2);
        }
        let length: usize = text.rsplit(' ').next()?.parse().ok()?;
        assert!(find(bytes, b"\"error\"").is_none(), "{}", String::from_utf8_lossy(bytes));
        (bytes.len() >= line + length + 4).then_some(line + length + 4)
    },
};

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

struct Server {
    name: &'static str,
    address: SocketAddr,
    dialect: Dialect,
    process: Process,
}

fn start(name: &'static str, dialect: Dialect, program: &str, arguments: impl Fn(SocketAddr) -> Vec<String>) -> Server {
    let (process, address) = start_elsewhere(program, arguments);
    Server { name, address, dialect, process }
}

fn servers(folder: &Path) -> Vec<Server> {
    let folder_of = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).expect("a folder");
        path.display().to_string()
    };
    let ccomet = std::env::current_exe().expect("this program").with_file_name("ccomet").display().to_string();
    let ours = |name: &'static str, settings: &str, has_store: bool| {
        // One address is the source of all publications.
        let limits = "[limits]\npublishes_per_address_minute = 60000000\nconnections_per_address_max = 10000\n";
        let file = Path::new(&folder_of("settings")).join(format!("{name}.toml"));
        fs::write(&file, format!("{limits}{settings}")).expect("a file");
        start(name, HTTP, &ccomet, |address| {
            let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            let file = file.display().to_string();
            let front = address.to_string();
            let mut all = text(&[
                "--config",
                &file,
                "--front",
                &front,
                "--admin",
                "127.0.0.1:0",
                "--loops",
                "1",
                "--log",
                "error",
            ]);
            if has_store {
                all.extend(["--data".to_owned(), folder_of(name)]);
            }
            all
        })
    };
    let mut all = vec![
        ours("memory", "", false),
        ours("disk", "", true),
        ours("disk, interval", "[store]\nsync = \"interval\"\n", true),
    ];
    if is_program("redis-server") {
        all.push(start("redis-server", REDIS, "redis-server", |address| {
            let port = address.port().to_string();
            let folder = folder_of("redis");
            ["--port", &port, "--dir", &folder, "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
                .map(str::to_owned)
                .into()
        }));
    }
    if is_program("nats-server") {
        all.push(start("nats-server", NATS, "nats-server", |address| {
            let port = address.port().to_string();
            ["-a", "127.0.0.1", "-p", &port, "-l", "/dev/null", "-js", "-sd", &folder_of("nats")]
                .map(str::to_owned)
                .into()
        }));
    }
    all
}

struct Publisher {
    stream: mio::net::TcpStream,
    request: Vec<u8>,
    received: Vec<u8>,
    sent: Instant,
}

/// Publishes for one round. Returns how many publications are answered in a second, and the 99th
/// percentile of their times in milliseconds.
fn publish(server: &Server, count: usize) -> [f64; 2] {
    let Dialect { prepare, request, reply } = server.dialect;
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(1_024);
    let mut publishers: Vec<Publisher> = (0..count)
        .map(|number| {
            let stream = TcpStream::connect(server.address).expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
            prepare(&stream, number);
            stream.set_nodelay(true).expect("set");
            stream.set_nonblocking(true).expect("set");
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE).expect("registered");
            Publisher { stream, request: request(number), received: Vec::new(), sent: Instant::now() }
        })
        .collect();
    let (start, mut times) = (Instant::now(), Vec::new());
    for Publisher { stream, request, sent, .. } in &mut publishers {
        *sent = Instant::now();
        stream.write_all(request).expect("sent");
    }
    let mut buffer = vec![0; 64 * 1024];
    while start.elapsed() < WARM_UP + ROUND {
        poll.poll(&mut events, Some(PATIENCE)).expect("events");
        assert!(!events.is_empty(), "{} does not answer", server.name);
        for event in &events {
            let Publisher { stream, request, received, sent } = &mut publishers[event.token().0];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => panic!("{} closes a connection", server.name),
                    Ok(count) => received.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{}: {error}", server.name),
                }
            }
            while let Some(length) = reply(received) {
                received.drain(..length);
                if start.elapsed() > WARM_UP {
                    times.push(sent.elapsed());
                }
                *sent = Instant::now();
                stream.write_all(request).expect("sent");
            }
        }
    }
    times.sort_unstable();
    let slow = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    #[allow(clippy::cast_precision_loss)] // counts far below 2^52
    [times.len() as f64 / ROUND.as_secs_f64(), slow.as_secs_f64() * 1_000.0]
}

fn main() {
    pin_client();
    raise_open_files();
    let folder = PathBuf::from("target").join(format!("kept-{}", std::process::id()));
    let mut servers = servers(&fs::canonicalize(".").expect("a folder").join(&folder));
    let named: Vec<String> = std::env::args().skip(1).collect();
    servers.retain(|server| named.is_empty() || named.iter().any(|name| name == server.name));
    let found = in_turn(servers.len(), ROUNDS, |peer| {
        Some(PUBLISHERS.iter().flat_map(|count| publish(&servers[peer], *count)).collect())
    });
    println!("| publishers | server | publications a second | 99 % within, ms |\n| ---: | --- | ---: | ---: |");
    for (row, publishers) in PUBLISHERS.iter().enumerate() {
        for (server, figures) in servers.iter().zip(&found) {
            println!("| {publishers} | {} | {:.0} | {:.2} |", server.name, figures[2 * row], figures[2 * row + 1]);
        }
    }
    for server in &servers {
        println!("{}: {} KiB resident", server.name, server.process.rss_kib());
    }
    drop(servers);
    fs::remove_dir_all(folder).expect("removed");
}
