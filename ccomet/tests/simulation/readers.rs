//! Clients that read channels, by every transport.

use std::collections::HashSet;

use sealed::sim::Random;
use serde_json::Value;
use testing::http::EventQueue;

use crate::http::{Answer, Http};
use crate::oracle::{Cursor, Oracle, Spot, spots};
use crate::world::Place;

/// How a reader gets messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Stream,
    PlainStream,
    Lines,
    Iframe,
    Poll,
    Jsonp,
}

/// A reader of one or several channels, which resumes from its position.
pub struct Reader {
    label: String,
    channels: Vec<String>,
    transport: Transport,
    http: Option<Http>,
    events: EventQueue,
    /// The incomplete line of a transport with lines.
    line: Vec<u8>,
    /// A page has begun correctly.
    is_page: bool,
    cursors: Vec<Cursor>,
    /// The position that it resumes with.
    position: Option<String>,
    from_oldest: bool,
    /// The stream has begun, and has sent a position since.
    live: bool,
    last_event: String,
}

impl Reader {
    pub fn new(number: usize, mut channels: Vec<String>, random: &mut Random) -> Self {
        use Transport::{Iframe, Jsonp, Lines, PlainStream, Poll, Stream};
        channels.sort();
        channels.dedup();
        let transport = *random.pick(&[Stream, Stream, PlainStream, Lines, Iframe, Poll, Poll, Jsonp]).expect("one");
        Self {
            label: format!("reader {number} ({transport:?} of {})", channels.join(",")),
            cursors: vec![Cursor::default(); channels.len()],
            channels,
            transport,
            http: None,
            events: EventQueue::default(),
            line: Vec::new(),
            is_page: false,
            position: None,
            from_oldest: random.chance(0.5),
            live: false,
            last_event: String::new(),
        }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random, oracle: &mut Oracle) {
        self.hear(oracle);
        match &mut self.http {
            None => {
                if random.chance(0.5) {
                    self.http = Some(place.visit());
                    self.subscribe(random);
                }
            }
            Some(http) if !http.waits() => {
                if random.chance(0.3) {
                    // The next loop must know as much as the first.
                    self.http = Some(place.visit());
                }
                if random.chance(0.7) {
                    self.subscribe(random);
                }
            }
            Some(http) => match random.below(60) {
                0 => self.leave(random),
                1 => http.peer.stall(),
                2..=6 => http.peer.unstall(),
                _ => {}
            },
        }
    }

    /// Reads without pauses from now on, and sends nothing more.
    pub fn calm_down(&mut self) {
        if let Some(http) = &mut self.http {
            http.calm_down();
        }
    }

    fn leave(&mut self, random: &mut Random) {
        if let Some(mut http) = self.http.take() {
            match random.below(4) {
                0 => http.peer.vanish(),
                1 => http.peer.reset(),
                2 => http.peer.finish(),
                _ => {}
            }
        }
        self.lost();
    }

    /// Forgets everything but the position when the connection is lost.
    fn lost(&mut self) {
        self.http = None;
        self.live = false;
        self.events = EventQueue::default();
        self.line.clear();
        self.is_page = false;
        let known = self.position.as_deref().map(spots);
        for (index, cursor) in self.cursors.iter_mut().enumerate() {
            *cursor = Cursor(known.as_ref().map(|known| known[index]));
        }
    }

    fn subscribe(&mut self, random: &mut Random) {
        let Some(http) = &mut self.http else { return };
        let target = format!("/channels/{}", self.channels.join(","));
        let start = match &self.position {
            Some(position) => format!("after={position}"),
            None if self.from_oldest => "after=oldest".to_owned(),
            None => String::new(),
        };
        let wait = if random.chance(0.3) { "&wait=0" } else { "&wait=20" };
        match self.transport {
            Transport::Stream | Transport::PlainStream => {
                let header = self.position.as_ref().filter(|_| random.chance(0.5));
                let header = header.map_or(String::new(), |position| format!("Last-Event-ID: {position}\r\n"));
                let version = if self.transport == Transport::Stream { "1.1" } else { "1.0" };
                let accept = "Accept: text/event-stream\r\n";
                http.ask(format!("GET {target}?{start} HTTP/{version}\r\nHost: sim\r\n{accept}{header}\r\n"));
            }
            Transport::Lines => http.get(&format!("{target}?{start}&transport=lines"), ""),
            Transport::Iframe => http.get(&format!("{target}?{start}&transport=iframe"), ""),
            Transport::Poll => http.get(&format!("{target}?{start}{wait}"), ""),
            Transport::Jsonp => http.get(&format!("{target}?{start}{wait}&callback=cb"), ""),
        }
    }

    pub fn hear(&mut self, oracle: &mut Oracle) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Stream => {}
                Answer::Data(bytes) if matches!(self.transport, Transport::Lines | Transport::Iframe) => {
                    self.lines(&bytes, oracle);
                }
                Answer::Data(bytes) => {
                    self.events.push(&bytes);
                    while let Some(event) = self.events.pop() {
                        let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                        self.last_event.clone_from(&event.event);
                        match event.event.as_str() {
                            "heartbeat" | "bye" | "close" => {}
                            "hello" => self.live = true,
                            _ => self.item(&data, oracle),
                        }
                        if !event.last_event_id.is_empty() {
                            self.note_position(&event.last_event_id);
                        }
                    }
                }
                Answer::StreamEnd => {
                    let last = self.last_event.as_str();
                    assert!(matches!(last, "bye" | "close"), "{}: a stream says why it ends: {last:?}", self.label);
                    self.lost();
                }
                Answer::Over => self.lost(),
                Answer::Whole { status: 200, body } => self.reply(&body, oracle),
                Answer::Whole { status, body } => {
                    let text = String::from_utf8_lossy(&body);
                    assert!(matches!(status, 503 | 507 | 408), "{}: {status} {text}", self.label);
                }
            }
        }
    }

    /// Takes more of the lines, each with a reply.
    fn lines(&mut self, bytes: &[u8], oracle: &mut Oracle) {
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let text = std::str::from_utf8(&line).expect("text").trim_end();
            let call = text.strip_prefix("<script>m(").and_then(|text| text.strip_suffix(");</script>"));
            // Lines of a page come before its calls, and define the function.
            self.is_page |= text.starts_with("<script>function m(reply)");
            assert!(call.is_none() || self.is_page, "{}: nobody hears that: {text}", self.label);
            let json = if self.transport == Transport::Lines { Some(text) } else { call };
            let Some(json) = json else { continue };
            let reply: Value =
                serde_json::from_str(json).unwrap_or_else(|error| panic!("{}: {error}: {text}", self.label));
            for item in reply["items"].as_array().expect("items") {
                item["type"].as_str().expect("a type").clone_into(&mut self.last_event);
                match self.last_event.as_str() {
                    "bye" | "close" => {}
                    "hello" => self.live = true,
                    _ => self.item(item, oracle),
                }
            }
            match reply["position"].as_str() {
                Some("") | None => {}
                Some(position) => self.note_position(position),
            }
        }
    }

    fn reply(&mut self, body: &[u8], oracle: &mut Oracle) {
        let text = std::str::from_utf8(body).expect("text");
        let json = match self.transport {
            Transport::Jsonp => {
                text.strip_prefix("/**/cb(").and_then(|text| text.strip_suffix(");\n")).expect("a call")
            }
            _ => text,
        };
        let reply: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{}: {error}: {text}", self.label));
        if reply["type"] == "error" {
            assert!([503, 507].contains(&reply["status"].as_u64().unwrap_or(0)), "{text}");
            return;
        }
        let mut closed = false;
        for item in reply["items"].as_array().expect("items") {
            closed |= item["type"] == "close";
            self.item(item, oracle);
        }
        let position = reply["position"].as_str().expect("a position");
        // A reply with a close has a position only if all channels existed.
        if !(closed && position.is_empty()) {
            self.note_position(position);
        }
    }

    fn note_position(&mut self, position: &str) {
        let spots = spots(position);
        assert_eq!(spots.len(), self.channels.len(), "{}: {position}", self.label);
        for (cursor, spot) in self.cursors.iter_mut().zip(spots) {
            cursor.check(&self.label, spot);
        }
        self.position = Some(position.to_owned());
    }

    fn item(&mut self, item: &Value, oracle: &mut Oracle) {
        let channel = item["channel"].as_str().unwrap_or_else(|| panic!("{}: {item}", self.label));
        let index = self.channels.iter().position(|held| held == channel).expect("one of its channels");
        let spot = || spots(item["position"].as_str().expect("a position"))[0];
        match item["type"].as_str() {
            Some("message") => {
                self.cursors[index].message(&self.label, spot());
                oracle.saw(channel, spot(), item["data"].as_str().expect("text"));
            }
            Some("gap") => {
                oracle.check_gap(&self.label, channel, self.cursors[index]);
                self.cursors[index].gap(&self.label, item["missed"].as_u64(), spot());
            }
            Some("close") => {}
            _ => panic!("{}: {item}", self.label),
        }
    }

    /// Asserts that a reader of a stream has this message.
    pub fn check_has(&self, channel: &str, spot: Spot) {
        let index = self.channels.iter().position(|held| held == channel);
        if let Some(index) = index.filter(|_| self.live) {
            let at = self.cursors[index].0;
            assert!(at >= Some(spot), "{}: {channel} is delivered at once: {spot:?} after {at:?}", self.label);
        }
    }

    /// Asserts that a reader of a stream has every message, once nothing happens any more.
    pub fn check_head(&self, heads: &[(String, Spot)]) {
        if !self.live {
            return;
        }
        for (channel, cursor) in self.channels.iter().zip(&self.cursors) {
            // No client could read the head of a channel while the server was at a limit.
            let Some((_, head)) = heads.iter().find(|(held, _)| held == channel) else { continue };
            assert_eq!(cursor.0, Some(*head), "{}: a stream that is there has everything of {channel}", self.label);
        }
    }

    /// Returns whether the reader reads a stream now.
    pub fn is_live(&self) -> bool {
        self.live
    }

    pub fn into_peer(self) -> Option<sealed::sim::Peer> {
        self.http.map(|http| http.peer)
    }
}

/// A page of 2014 that uses the API correctly.
pub struct Page {
    name: String,
    channel: String,
    http: Option<Http>,
    seqid: u64,
    seen: HashSet<String>,
}

impl Page {
    pub fn new(number: usize, channel: String, random: &mut Random) -> Self {
        // Some pages share a name, and displace each other.
        let name = if random.chance(0.3) { "twin".to_owned() } else { format!("page{number}") };
        Self { name, channel, http: None, seqid: 0, seen: HashSet::new() }
    }

    pub fn act(&mut self, place: &Place, random: &mut Random) {
        self.hear();
        match &mut self.http {
            None => {
                if random.chance(0.3) {
                    self.http = Some(place.visit());
                }
            }
            Some(http) if !http.waits() => {
                if random.chance(0.3) {
                    *http = place.visit();
                }
                let (channel, name, seqid) = (&self.channel, &self.name, self.seqid);
                if random.chance(0.1) {
                    http.get(&format!("/sign?channel={channel}&sname={name}&callback=cb"), "");
                } else {
                    http.get(&format!("/subscribe?channel={channel}&sname={name}&seqid={seqid}&callback=cb"), "");
                }
            }
            Some(http) => match random.below(60) {
                0 => self.http = None,
                1 => http.peer.vanish(),
                _ => {}
            },
        }
    }

    pub fn hear(&mut self) {
        while let Some(answer) = self.http.as_mut().and_then(Http::next) {
            match answer {
                Answer::Over => self.http = None,
                Answer::Whole { status: 200, body } => self.reply(&body),
                Answer::Whole { status, .. } => assert!(matches!(status, 503 | 507 | 408), "{status}"),
                other => panic!("{other:?}"),
            }
        }
    }

    fn reply(&mut self, body: &[u8]) {
        let text = std::str::from_utf8(body).expect("text");
        if text.is_empty() {
            return;
        }
        let literal = text.strip_prefix("cb('").and_then(|text| text.strip_suffix("')"));
        let Some(literal) = literal else {
            // A problem, in the native form.
            return assert!((text.contains("\"status\":503") || text.contains("\"status\":507")), "{text}");
        };
        let items: Vec<Value> = serde_json::from_str(literal).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(!items.is_empty(), "an empty array breaks the page's loop");
        let mut expected: Option<u64> = None;
        for item in &items {
            let kind = item["type"].as_str().expect("a type");
            match kind {
                "MSG" => {
                    let seqid: u64 = item["seqid"].as_str().expect("text").parse().expect("a number");
                    assert!(expected.is_none_or(|expected| expected == seqid), "in order, without holes: {text}");
                    expected = Some(seqid + 1);
                    if seqid < self.seqid {
                        // Numbers have restarted. A loop that has not been notified yet may repeat
                        // earlier messages: this API cannot express that.
                        self.seen.clear();
                    }
                    let msg = item["msg"].as_str().expect("text").to_owned();
                    assert!(self.seen.insert(msg), "{} gets none twice: {text}", self.name);
                    self.seqid = seqid + 1;
                }
                "SIGN" | "sign in" => {}
                other => panic!("{other}: {text}"),
            }
        }
    }

    pub fn into_peer(self) -> Option<sealed::sim::Peer> {
        self.http.map(|http| http.peer)
    }
}
