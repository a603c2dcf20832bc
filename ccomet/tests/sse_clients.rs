//! Independent clients of Server-Sent Events whose connections are cut repeatedly: they reconnect
//! by themselves with their last position, and nothing is lost or comes twice.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Client, PATIENCE, Process, process, wait_until};
use serde_json::Value;
use testing::programs::{Need, run};
use testing::tests;

fn main() -> ExitCode {
    run(tests![
        needs [Need::PythonModule("requests_sse")]; requests_sse_resumes;
        needs [Need::PythonModule("ld_eventsource")]; launchdarkly_eventsource_resumes
    ])
}

/// A relay to the server whose connections a test can cut.
struct Wire {
    address: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    /// The number of bytes to the client until a connection is cut.
    left: Arc<AtomicUsize>,
}

impl Wire {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let wire = Self {
            address: listener.local_addr().expect("an address"),
            streams: Arc::default(),
            left: Arc::new(AtomicUsize::new(usize::MAX)),
        };
        let (streams, left) = (Arc::clone(&wire.streams), Arc::clone(&wire.left));
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                // While the server is away, the relay closes new connections.
                let Ok(server) = TcpStream::connect(server) else { continue };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
                streams.lock().expect("no panic").extend([clone(&client), clone(&server)]);
                let (up, down, left) = ((clone(&client), clone(&server)), (server, client), Arc::clone(&left));
                thread::spawn(move || pass(up.0, up.1, &AtomicUsize::new(usize::MAX)));
                thread::spawn(move || pass(down.0, down.1, &left));
            }
        });
        wire
    }

    fn cut(&self) {
        for stream in self.streams.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Relays up to a number of bytes, and then shuts both directions down.
fn pass(mut from: TcpStream, mut to: TcpStream, left: &AtomicUsize) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let may = left.load(Ordering::SeqCst);
        if to.write_all(&bytes[..count.min(may)]).is_err() {
            break;
        }
        if count >= may {
            left.store(usize::MAX, Ordering::SeqCst);
            break;
        }
        if may != usize::MAX {
            left.fetch_sub(count, Ordering::SeqCst);
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// A client in a process of its own, which prints its events.
struct Reader {
    _process: process::Process,
    lines: Receiver<(String, String)>,
}

impl Reader {
    fn start(client: &str, url: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sse.py");
        let mut command = Command::new("python3");
        command.args(["-W", "ignore", script, client, url]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = process::Process::start(&mut command);
        let (sender, lines) = channel();
        let output = process.output();
        thread::spawn(move || {
            for line in output.map_while(Result::ok) {
                let (kind, data) = line.split_once(' ').expect("type and data");
                if kind != "heartbeat" && sender.send((kind.to_owned(), data.to_owned())).is_err() {
                    break;
                }
            }
        });
        let reader = Self { _process: process, lines };
        let (kind, _) = reader.lines.recv_timeout(PATIENCE).expect("a first event");
        assert_eq!(kind, "hello", "{client}");
        reader
    }

    fn next(&self) -> (String, Value) {
        let (kind, data) = self.lines.recv_timeout(PATIENCE).expect("an event");
        let data = serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
        (kind, data)
    }

    /// Returns the next message or gap, however often the client reconnected before.
    fn item(&self) -> Value {
        loop {
            let (kind, data) = self.next();
            match kind.as_str() {
                "hello" | "bye" => {}
                "message" | "gap" => return data,
                _ => panic!("{kind}: {data}"),
            }
        }
    }
}

fn check(client: &str) {
    let mut server = Process::start("[times]\nheartbeat_s = 1\n", &[]);
    let wire = Wire::to(server.front);
    let url = format!("http://{}/channels/news", wire.address);
    let reader = Reader::start(client, &url);
    let mut publisher = Client::connect(server.front);
    let mut count_published = 0;
    let mut publish = |publisher: &mut Client, count: usize| {
        for n in count_published..count_published + count {
            publisher.publish("news", n.to_string());
        }
        count_published += count;
    };
    let mut got = 0;
    let mut expect = |count: usize| {
        for n in got..got + count {
            assert_eq!(reader.item()["data"], n.to_string(), "{client}");
        }
        got += count;
    };
    publish(&mut publisher, 3);
    expect(3);
    // Cuts between two messages, and publishes more while the client is away.
    wire.cut();
    publish(&mut publisher, 3);
    expect(3);
    // Cuts in the middle of an event.
    wire.left.store(60, Ordering::SeqCst);
    publish(&mut publisher, 3);
    expect(3);
    assert_eq!(wire.left.load(Ordering::SeqCst), usize::MAX, "it was cut");
    // The server restarts without its history: the client gets a gap before new messages.
    drop(publisher);
    server.restart();
    let mut publisher = Client::connect(server.front);
    let mut admin = Client::connect(server.admin);
    wait_until("it is back", || admin.get("/info?cname=news").text().contains("\"subscribers\": 1"));
    publisher.publish("news", "end");
    let items = [reader.item(), reader.item()];
    assert_eq!((&items[0]["type"], &items[0]["missed"]), (&"gap".into(), &Value::Null), "{items:?}");
    assert_eq!(items[1]["data"], "end", "{items:?}");
    assert_eq!(reader.lines.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected), "nothing follows");
}

fn requests_sse_resumes() {
    check("requests_sse");
}

fn launchdarkly_eventsource_resumes() {
    check("launchdarkly");
}
