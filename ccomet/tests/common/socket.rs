//! A client's WebSocket on a simulated network.

use std::time::Duration;

use sealed::sim::{Peer, Simulation};
use sealed_http::websocket::{Codec, Event, Kind, Limits};
use serde_json::Value;
use testing::http::UPGRADE;

use super::stage::{LOOPBACK, Stage};

pub struct Socket<'a> {
    sim: &'a Simulation,
    pub peer: Peer,
    pub codec: Codec,
    pub bytes: Vec<u8>,
    /// The close code that the server has sent.
    pub closed: Option<u16>,
}

impl Stage {
    /// Opens a WebSocket. Returns the status if the server refuses it.
    pub fn try_open(&self, target: &str, headers: &str) -> Result<Socket<'_>, u16> {
        self.open_on(self.connect(LOOPBACK), target, headers)
    }

    /// Opens a WebSocket on a connection. Returns the status if the server refuses it.
    pub fn open_on(&self, mut peer: Peer, target: &str, headers: &str) -> Result<Socket<'_>, u16> {
        let opened = self.exchange(&mut peer, "GET", target, &format!("{UPGRADE}{headers}"), "");
        if opened.status != 101 {
            return Err(opened.status);
        }
        let codec = Codec::client(|| [7, 1, 2, 3]);
        let mut socket = Socket { sim: &self.sim, peer, codec, bytes: opened.body, closed: None };
        assert_eq!(socket.receive()[0]["items"][0]["type"], "hello");
        Ok(socket)
    }
}

impl Socket<'_> {
    /// Sends a message, and returns the items that come within half a second.
    pub fn exchange(&mut self, what: &Value) -> Vec<Value> {
        items(&self.ask(what))
    }

    /// Sends a message, and returns the replies that come within half a second.
    pub fn ask(&mut self, what: &Value) -> Vec<Value> {
        self.send(what);
        self.replies(Duration::from_millis(500))
    }

    pub fn send(&mut self, what: &Value) {
        let mut frame = Vec::new();
        self.codec.encode(Kind::Text, what.to_string().as_bytes(), &mut frame);
        self.peer.send(frame);
    }

    /// Returns the items that come in that time. Answers pings meanwhile.
    pub fn wait(&mut self, time: Duration) -> Vec<Value> {
        items(&self.replies(time))
    }

    /// Returns the replies that come in that time, without heartbeats. Answers pings meanwhile.
    pub fn replies(&mut self, mut time: Duration) -> Vec<Value> {
        let mut replies = Vec::new();
        while !time.is_zero() {
            let step = time.min(Duration::from_secs(5));
            self.sim.run_for(step);
            self.bytes.append(&mut self.peer.take());
            replies.extend(self.receive());
            time -= step;
        }
        replies.retain(|reply| reply["items"] != Value::Array(Vec::new()));
        replies
    }

    /// Returns the replies that have come.
    fn receive(&mut self) -> Vec<Value> {
        let (mut replies, mut answers) = (Vec::new(), Vec::new());
        loop {
            let (used, event) = self.codec.decode(&self.bytes, &Limits::default(), &mut answers).expect("frames");
            self.bytes.drain(..used);
            match event {
                Event::Text(text) => replies.push(serde_json::from_str(&text).expect("JSON")),
                Event::Close { code, .. } => self.closed = code.map(sealed_http::websocket::CloseCode::number),
                Event::Incomplete => break,
                _ => {}
            }
        }
        if !answers.is_empty() {
            self.peer.send(answers);
        }
        replies
    }
}

fn items(replies: &[Value]) -> Vec<Value> {
    replies.iter().flat_map(|reply| reply["items"].as_array().expect("items").clone()).collect()
}
