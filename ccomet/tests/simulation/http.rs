//! The client's side of HTTP, for a connection of the simulation.

use std::net::SocketAddr;

use sealed::sim::{Peer, Simulation};

/// What came of a request.
#[derive(Debug)]
pub enum Answer {
    /// A whole response.
    Whole { status: u16, body: Vec<u8> },
    /// A response that goes on for as long as the server has something to say.
    Stream,
    /// More of it.
    Data(Vec<u8>),
    /// Its end. The connection can be used again where it was in chunks.
    StreamEnd,
    /// The connection is over.
    Over,
}

/// A connection of a client.
pub struct Http {
    pub peer: Peer,
    buffer: Vec<u8>,
    /// Requests that were sent and not answered yet.
    asked: usize,
    /// What the connection was asked for last, for messages.
    what: String,
    mode: Mode,
    over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Heads,
    Chunks,
    UntilEnd,
}

impl Http {
    pub fn connect(sim: &Simulation, address: SocketAddr) -> Self {
        let peer = sim.connect(address);
        Self { peer, buffer: Vec::new(), asked: 0, what: String::new(), mode: Mode::Heads, over: false }
    }

    /// Sends a request.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) {
        self.what = String::from_utf8_lossy(request.as_ref()).chars().take(200).collect();
        self.asked += 1;
        self.peer.send(request);
    }

    pub fn get(&mut self, target: &str, headers: &str) {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: sim\r\n{headers}\r\n"));
    }

    pub fn waits(&self) -> bool {
        self.asked > 0 || self.mode != Mode::Heads
    }

    /// What has come next, if anything has.
    pub fn next(&mut self) -> Option<Answer> {
        if self.over {
            return None;
        }
        let over = self.peer.is_over();
        self.buffer.append(&mut self.peer.take());
        let answer = match self.mode {
            Mode::Heads => self.whole_or_head(),
            Mode::Chunks => self.chunk(),
            Mode::UntilEnd if self.buffer.is_empty() => None,
            Mode::UntilEnd => Some(Answer::Data(std::mem::take(&mut self.buffer))),
        };
        if answer.is_none() && over {
            self.over = true;
            return Some(Answer::Over);
        }
        answer
    }

    fn whole_or_head(&mut self) -> Option<Answer> {
        if self.buffer.is_empty() {
            return None;
        }
        assert!(self.asked > 0, "an answer to nothing, after {:?}: {:?}", self.what, self.text());
        let length = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.buffer[..length].to_vec()).expect("a head is text").to_lowercase();
        assert!(head.starts_with("http/1.1 "), "{head:?}");
        let status: u16 = head[9..12].parse().expect("a status");
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
        if let Some(size) = field("content-length:") {
            let size: usize = size.parse().expect("a length");
            let body = self.buffer.get(length..length + size)?.to_vec();
            self.buffer.drain(..length + size);
            self.asked -= 1;
            return Some(Answer::Whole { status, body });
        }
        self.buffer.drain(..length);
        if status == 204 {
            self.asked -= 1;
            return Some(Answer::Whole { status, body: Vec::new() });
        }
        let chunked = field("transfer-encoding:") == Some("chunked");
        self.mode = if chunked { Mode::Chunks } else { Mode::UntilEnd };
        Some(Answer::Stream)
    }

    fn chunk(&mut self) -> Option<Answer> {
        let line = self.buffer.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&self.buffer[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.unwrap_or_else(|| panic!("a chunk's size: {:?}", self.text()));
        let data = self.buffer.get(line + 2..line + 2 + size)?.to_vec();
        let end = self.buffer.get(line + 2 + size..line + 4 + size)?;
        assert_eq!(end, b"\r\n", "a chunk ends where it says");
        self.buffer.drain(..line + 4 + size);
        if size == 0 {
            self.mode = Mode::Heads;
            self.asked -= 1;
            return Some(Answer::StreamEnd);
        }
        Some(Answer::Data(data))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer).chars().take(300).collect()
    }
}

/// Events of a stream, as they come out of its bytes.
#[derive(Default)]
pub struct Events {
    text: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Event {
    pub kind: String,
    pub id: Option<String>,
    pub data: String,
}

impl Events {
    pub fn push(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    pub fn next(&mut self) -> Option<Event> {
        let length = self.text.windows(2).position(|window| window == b"\n\n")? + 2;
        let block = String::from_utf8(self.text.drain(..length).collect()).expect("events are text");
        let mut event = Event { kind: "message".to_owned(), ..Event::default() };
        for line in block.trim_end().lines() {
            let (field, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            match field {
                "event" => value.clone_into(&mut event.kind),
                "id" => event.id = Some(value.to_owned()),
                "data" => value.clone_into(&mut event.data),
                "retry" => {}
                _ => panic!("a field that nobody knows: {line:?} in {block:?}"),
            }
        }
        Some(event)
    }
}
