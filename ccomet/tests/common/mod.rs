//! What the tests share: a server to talk to, and a client that says exactly what it wants on the wire.

#![allow(dead_code, unreachable_pub, missing_debug_implementations)] // each test uses a part

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ccomet::{Config, Server};
use sealed::Stopper;
use sealed_http::{Asked, EventStream, Limits, ResponseDecoder, ResponseEvent, StreamEvent};
use serde_json::Value;

/// How long anything may take before a test gives up. Generous: machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration on ports of the system's choice.
pub fn config(loops: usize) -> Config {
    let mut config = Config { loops: loops.try_into().ok(), ..Config::default() };
    config.front.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.listen = config.front.listen;
    config
}

/// A server in this process. It is stopped, and must end well, when it is dropped.
pub struct Local {
    pub front: SocketAddr,
    pub admin: SocketAddr,
    pub stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ccomet::Error>>>,
}

impl Local {
    pub fn start(config: Config) -> Self {
        let server = Server::bind(config).expect("the server starts");
        let (front, admin, stopper) = (server.front(), server.admin(), server.stopper());
        Self { front, admin, stopper, thread: Some(std::thread::spawn(move || server.run())) }
    }

    /// Waits for the server to end by itself.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic").expect("a good end");
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stopper.stop();
        // Twice: what a test left open need not drain.
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("no panic").expect("a good end");
            }
        }
    }
}

/// A server in a process of its own, killed when it is dropped.
pub struct Process {
    pub front: SocketAddr,
    pub admin: SocketAddr,
    pub child: Child,
    settings: String,
    arguments: Vec<String>,
}

impl Process {
    /// Starts the program, with these lines in its configuration besides.
    pub fn start(settings: &str, arguments: &[&str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(any, any, settings, arguments.iter().map(|argument| (*argument).to_owned()).collect())
    }

    /// Kills it, without a warning, and starts it again where it was.
    pub fn restart(&mut self) {
        self.child.kill().expect("it ran");
        self.child.wait().expect("its end");
        let again = Self::start_at(self.front, self.admin, &self.settings, self.arguments.clone());
        *self = again;
    }

    fn start_at(front: SocketAddr, admin: SocketAddr, settings: &str, arguments: Vec<String>) -> Self {
        let path = std::env::temp_dir().join(format!("ccomet-{}-{:?}.toml", std::process::id(), Instant::now()));
        let path = path.with_file_name(
            path.file_name().expect("a name").to_string_lossy().replace([' ', '{', '}', ':', ','], "-"),
        );
        std::fs::write(&path, settings).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_ccomet"))
            .args(["--front", &front.to_string(), "--admin", &admin.to_string(), "--log", "warn", "--config"])
            .arg(&path)
            .args(&arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (front, admin) = announced(&mut child);
        // Read by now: the addresses came after it.
        let _ = std::fs::remove_file(&path);
        Self { front, admin, child, settings: settings.to_owned(), arguments }
    }

    /// Resident memory, in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a figure");
        line.split_whitespace().nth(1).expect("a figure").parse().expect("a number")
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a process").count()
    }
}

/// Reads where a server listens, front and admin, from what it prints at its start.
pub fn announced(server: &mut Child) -> (SocketAddr, SocketAddr) {
    let mut lines = BufReader::new(server.stdout.take().expect("its output")).lines();
    let mut address = |what: &str| -> SocketAddr {
        let line = lines.next().expect("a line").expect("text");
        let rest = line.strip_prefix(what).unwrap_or_else(|| panic!("{what} is announced: {line}"));
        rest.trim().strip_prefix("http://").expect("a URL").parse().expect("an address")
    };
    (address("front"), address("admin"))
}

/// A server in a process that is started as a test says, killed when it is dropped.
pub struct Running {
    pub child: Child,
    pub front: SocketAddr,
    pub admin: SocketAddr,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let (front, admin) = announced(&mut child);
        Self { child, front, admin }
    }

    /// Sends a signal, such as `-HUP`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (held, value) = line.split_once(':')?;
            held.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The data of the messages in a poll's reply.
    pub fn messages(&self) -> Vec<String> {
        let reply = self.json();
        let items = reply["items"].as_array().expect("items").clone();
        items.iter().map(|item| item["data"].as_str().unwrap_or(&item.to_string()).to_owned()).collect()
    }

    pub fn position(&self) -> String {
        self.json()["position"].as_str().expect("a position").to_owned()
    }
}

/// One connection, of TCP or of whatever is in its place.
pub struct Client<S = TcpStream> {
    stream: S,
    /// What has come and was not looked at yet.
    buffer: Vec<u8>,
    decoder: ResponseDecoder,
    asked: Asked,
    /// What has been decoded, and not been asked for yet.
    ahead: Option<Part>,
}

/// What comes of a response.
enum Part {
    Head(u16, String),
    Data(Vec<u8>),
    End,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.set_nodelay(true).expect("no delay");
        Self::over(stream)
    }

    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether nothing has come, for a little while.
    pub fn is_silent(&mut self) -> bool {
        self.socket().set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
        self.look_ahead();
        let waits = self.ahead.is_none()
            && matches!(self.fill(), Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        self.socket().set_read_timeout(Some(PATIENCE)).expect("a limit");
        waits
    }
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), decoder: ResponseDecoder::new(), asked: Asked::Other, ahead: None }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sent");
    }

    /// Sends a request without a body and does not wait for the answer.
    pub fn ask(&mut self, method: &str, target: &str, headers: &str) {
        self.asked = if method == "HEAD" { Asked::Head } else { Asked::Other };
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
    }

    pub fn get(&mut self, target: &str) -> Reply {
        self.ask("GET", target, "");
        self.reply()
    }

    pub fn post(&mut self, target: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat());
        self.reply()
    }

    /// The same, where the server may close the connection instead of answering.
    pub fn try_post(&mut self, target: &str, body: &str) -> Option<Reply> {
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(request.as_bytes()).ok()?;
        let begins = self.fill().is_ok_and(|count| count > 0);
        begins.then(|| self.reply())
    }

    /// Publishes, and returns the position.
    pub fn publish(&mut self, channel: &str, body: impl AsRef<[u8]>) -> String {
        let reply = self.post(&format!("/channels/{channel}"), body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.position()
    }

    /// Reads a response that is whole.
    pub fn reply(&mut self) -> Reply {
        let (status, head) = self.head();
        let mut body = Vec::new();
        loop {
            match self.part() {
                Part::Data(data) => body.extend_from_slice(&data),
                Part::End => return Reply { status, head, body },
                Part::Head(..) => panic!("a head in a body"),
            }
        }
    }

    /// Reads a response's head.
    pub fn head(&mut self) -> (u16, String) {
        match self.part() {
            Part::Head(status, head) => (status, head),
            Part::Data(data) => panic!("no head, but {:?}", String::from_utf8_lossy(&data)),
            Part::End => panic!("no head, but the end of a body"),
        }
    }

    /// Whether the server has closed the connection, and sent nothing before.
    pub fn is_closed(&mut self) -> bool {
        self.look_ahead();
        self.ahead.is_none() && matches!(self.fill(), Ok(0))
    }

    /// Subscribes by Server-Sent Events; returns when the stream has started.
    pub fn events(mut self, target: &str, headers: &str) -> Events<S> {
        self.ask("GET", target, &format!("Accept: text/event-stream\r\n{headers}"));
        let (status, head) = self.head();
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("text/event-stream") && head.contains("chunked"), "{head}");
        let mut events = Events::of(self);
        let hello = events.next();
        assert_eq!(hello.kind, "hello", "{hello:?}");
        events
    }

    /// Reads exactly so many bytes, whatever they are.
    pub fn read_exact(&mut self, bytes: &mut [u8]) {
        while self.buffer.len() < bytes.len() {
            assert!(self.fill().expect("bytes") > 0, "closed too early");
        }
        let rest = self.buffer.split_off(bytes.len());
        bytes.copy_from_slice(&std::mem::replace(&mut self.buffer, rest));
    }

    /// Reads a piece of a body; `None` where the body ends, or the connection does.
    pub fn chunk(&mut self) -> Option<String> {
        let mut text = Vec::new();
        loop {
            match self.try_part()? {
                Part::Data(data) => text.extend_from_slice(&data),
                Part::Head(..) | Part::End => return None,
            }
            // It may have been cut in the middle of a letter.
            if let Ok(text) = std::str::from_utf8(&text) {
                return Some(text.to_owned());
            }
        }
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn part(&mut self) -> Part {
        let text = |client: &Self| String::from_utf8_lossy(&client.buffer).into_owned();
        self.try_part().unwrap_or_else(|| panic!("closed in the middle of a response: {:?}", text(self)))
    }

    /// What comes next of a response; `None` where the connection ends.
    fn try_part(&mut self) -> Option<Part> {
        loop {
            self.look_ahead();
            if let Some(part) = self.ahead.take() {
                return Some(part);
            }
            if self.fill().expect("a response") == 0 {
                return self.decoder.end().is_ok_and(|is_end| is_end).then_some(Part::End);
            }
        }
    }

    /// Decodes what there is of what comes next.
    fn look_ahead(&mut self) {
        if self.ahead.is_some() {
            return;
        }
        // Some are longer than a stranger's would be taken.
        let limits = Limits { body_bytes_max: u64::MAX, ..Limits::default() };
        let (used, event) = self.decoder.decode(&self.buffer, self.asked, &limits).expect("a response");
        self.ahead = match event {
            ResponseEvent::Incomplete | ResponseEvent::Switched => None,
            ResponseEvent::Interim(head) => panic!("nobody asked for that: {head:?}"),
            ResponseEvent::Head(head) => {
                let text = String::from_utf8(self.buffer[..used - 2].to_vec()).expect("text");
                Some(Part::Head(head.status(), text))
            }
            ResponseEvent::Data(data) => Some(Part::Data(data.to_vec())),
            ResponseEvent::End => Some(Part::End),
        };
        self.buffer.drain(..used);
    }
}

/// An event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub id: String,
    pub data: String,
    /// What the stream said last of when to come back, in milliseconds.
    pub retry: Option<u64>,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What was published.
    pub fn message(&self) -> String {
        assert_eq!(self.kind, "message", "{self:?}");
        self.json()["data"].as_str().expect("text").to_owned()
    }
}

/// A stream of events.
pub struct Events<S = TcpStream> {
    pub client: Client<S>,
    stream: EventStream,
    told: VecDeque<StreamEvent>,
}

impl<S: Read + Write> Events<S> {
    /// Of a connection on which the head of the response was read.
    pub fn of(client: Client<S>) -> Self {
        Self { client, stream: EventStream::new(16 << 20), told: VecDeque::new() }
    }

    /// The next event; panics at the stream's end.
    pub fn next(&mut self) -> Event {
        self.try_next().expect("the stream goes on")
    }

    /// The next event that is not a heartbeat, or nothing at the stream's end.
    pub fn try_next(&mut self) -> Option<Event> {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "nothing but heartbeats");
            let Some(StreamEvent { event: kind, data, last_event_id: id }) = self.told.pop_front() else {
                let chunk = self.client.chunk()?;
                self.stream.read(chunk.as_bytes(), |event| self.told.push_back(event)).expect("events are short");
                continue;
            };
            let retry = self.stream.retry().map(|retry| retry.as_millis() as u64);
            if kind != "heartbeat" {
                return Some(Event { kind, id, data, retry });
            }
        }
    }
}

/// Waits until a condition holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Of two that poll under one name, one is answered with nothing and closed. Returns the other.
pub fn the_one_that_stays(one: Client, other: Client) -> Client {
    let (mut ended, mut stays) = (one, other);
    wait_until("one of the two makes way", || {
        std::mem::swap(&mut ended, &mut stays);
        !ended.is_silent()
    });
    let reply = ended.reply();
    assert_eq!((reply.status, reply.text()), (200, ""));
    assert!(ended.is_closed());
    stays
}
