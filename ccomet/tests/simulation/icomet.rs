//! Pages of icomet, by each of its transports.

use std::collections::HashSet;

use sealed::sim::{Peer, Random};
use serde_json::Value;
use testing::http::EventQueue;

use crate::http::{Answer, Http};
use crate::oracle::Spot;
use crate::world::Place;

/// The function that a poll names.
const CALLBACK: &str = "app.cb";

/// How a page gets events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// One event for each answer.
    Poll,
    /// One event for each answer, as a script.
    Call,
    Stream,
    EventStream,
    Iframe,
}

/// A page of icomet: it counts messages, and cannot express a gap.
pub struct Counter {
    label: String,
    channel: String,
    transport: Transport,
    http: Option<Http>,
    /// The incomplete line, or for an event stream, the incomplete event.
    line: Vec<u8>,
    events: EventQueue,
    /// The number of bytes before the first event.
    opening: usize,
    /// A stream has begun.
    is_open: bool,
    /// The server has reported that it has no room.
    is_refused: bool,
    seq: i64,
    noop: i64,
    seen: HashSet<String>,
}

impl Counter {
    pub fn new(number: usize, channel: String, random: &mut Random) -> Self {
        use Transport::{Call, EventStream, Iframe, Poll, Stream};
        let transport = *random.pick(&[Poll, Call, Stream, EventStream, Iframe]).expect("one");
        Self {
            label: format!("counter {number} ({transport:?} of {channel})"),
            channel,
            transport,
            http: None,
            line: Vec::new(),
            events: EventQueue::default(),
            opening: 0,
            is_open: false,
            is_refused: false,
            seq: i64::from(random.chance(0.5)),
            noop: 0,
            seen: HashSet::new(),
        }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random) {
        self.hear();
        let Some(http) = &mut self.http else {
            if random.chance(0.4) {
                self.http = Some(place.visit());
                self.ask(random);
            }
            return;
        };
        if !http.waits() {
            self.ask(random);
        } else if random.chance(0.02) {
            if random.chance(0.5) {
                http.peer.vanish();
            }
            self.lost();
        }
    }

    fn is_stream(&self) -> bool {
        !matches!(self.transport, Transport::Poll | Transport::Call)
    }

    fn ask(&mut self, random: &mut Random) {
        let Some(http) = &mut self.http else { return };
        let path = match self.transport {
            Transport::Poll | Transport::Call => *random.pick(&["sub", "poll"]).expect("one"),
            Transport::Stream => "stream",
            Transport::EventStream => "sse",
            Transport::Iframe => "iframe",
        };
        let call = if self.transport == Transport::Call { format!("&cb={CALLBACK}") } else { String::new() };
        // The answer comes in chunks, or ends with the connection.
        let version = if self.is_open || random.chance(0.8) { "1.1" } else { "1.0" };
        http.ask(format!(
            "GET /{path}?cname={}&seq={}&noop={}{call} HTTP/{version}\r\nHost: sim\r\n\r\n",
            self.channel, self.seq, self.noop
        ));
    }

    fn lost(&mut self) {
        self.http = None;
        self.end();
    }

    /// Resets the state at the end of an answer.
    fn end(&mut self) {
        self.line.clear();
        self.events = EventQueue::default();
        (self.opening, self.is_open, self.is_refused) = (0, false, false);
    }

    pub fn hear(&mut self) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Stream => self.is_open = true,
                Answer::Data(bytes) => self.data(&bytes),
                Answer::StreamEnd => {
                    assert!(self.line.is_empty(), "{}: half an event: {:?}", self.label, self.line);
                    self.end();
                    if self.is_stream() {
                        self.http = None;
                    }
                }
                Answer::Over => self.lost(),
                Answer::Whole { status, body } => {
                    let text = String::from_utf8_lossy(&body);
                    assert!(matches!(status, 503 | 507 | 408), "{}: {status} {text}", self.label);
                }
            }
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        if self.transport == Transport::EventStream {
            self.events.push(bytes);
            while let Some(event) = self.events.pop() {
                assert_eq!(event.event, "message", "{}: icomet's events have no types", self.label);
                self.event(&event.data);
            }
            return;
        }
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let text = std::str::from_utf8(&line).expect("text").trim_end_matches('\n');
            let (before, after) = match self.transport {
                Transport::Call => (format!("{CALLBACK}("), ");"),
                Transport::Iframe => ("<script>parent.icomet_cb(".to_owned(), ");</script>"),
                _ => (String::new(), ""),
            };
            if self.transport == Transport::Iframe && !text.starts_with("<script>") {
                self.opening += line.len();
                continue;
            }
            assert!(self.transport != Transport::Iframe || self.opening >= 1_024, "{}: {text}", self.label);
            let json = text.strip_prefix(&before).and_then(|text| text.strip_suffix(after));
            self.event(json.unwrap_or_else(|| panic!("{}: {text}", self.label)));
        }
    }

    fn event(&mut self, json: &str) {
        let event: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{}: {error}: {json}", self.label));
        assert_eq!(event["cname"], self.channel.as_str(), "{}: {event}", self.label);
        let seq = event["seq"].as_i64().expect("a number");
        match event["type"].as_str() {
            Some("data") => {
                assert!(seq >= self.seq, "{}: in order, from {} on: {event}", self.label, self.seq);
                let content = event["content"].as_str().expect("text");
                let is_fit = content.starts_with(&self.channel) || content.starts_with('*');
                assert!(is_fit, "{}: a message of another channel: {event}", self.label);
                assert!(self.seen.insert(content.to_owned()), "{}: none twice: {event}", self.label);
                self.seq = seq + 1;
            }
            Some("next_seq") => self.seq = seq,
            Some("noop") => {
                assert_eq!(seq, self.noop, "{}: it counts: {event}", self.label);
                self.noop += 1;
            }
            Some("close" | "429") => self.is_refused = true,
            _ => panic!("{}: {event}", self.label),
        }
    }

    /// Returns whether the page reads a stream now.
    fn is_live(&self) -> bool {
        self.is_stream() && self.is_open && !self.is_refused
    }

    /// Asserts that a page that reads a stream has this message, or a later one.
    pub fn check_has(&self, channel: &str, spot: Spot) {
        let has = self.channel != channel || self.seq > i64::try_from(spot.next).expect("a small number");
        assert!(has || !self.is_live(), "{}: {spot:?} is delivered at once", self.label);
    }

    /// Asserts that a page that reads a stream has every message, once nothing happens any more.
    pub fn check_head(&self, heads: &[(String, Spot)]) {
        let head = heads.iter().find(|(held, _)| *held == self.channel);
        if let Some((_, head)) = head.filter(|_| self.is_live()) {
            assert_eq!(
                self.seq,
                i64::try_from(head.next).expect("a small number") + 1,
                "{}: a stream that is there has everything",
                self.label
            );
        }
    }

    pub fn into_peer(self) -> Option<Peer> {
        self.http.map(|http| http.peer)
    }
}
