//! Readers that move between the servers, by every transport.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use sealed::sim::Random;
use serde_json::Value;
use testing::http::{EventQueue, Part};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, client};

use crate::line::{Line, is_pause};
use crate::record::{Record, Spot};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Transport {
    Stream,
    Poll,
    Socket,
}

/// A reader of one channel, which continues at either server from its position.
pub(crate) struct Reader<'a> {
    name: String,
    channel: usize,
    transport: Transport,
    record: &'a Record,
    fronts: [SocketAddr; 2],
    random: Random,
    position: Option<String>,
    /// The spot up to which it has all messages.
    spot: Option<Spot>,
    /// The spot, for others to look at.
    shown: &'a Mutex<Option<Spot>>,
    /// The latest events, for the report of a fault.
    latest: VecDeque<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        (index, channel, transport): (usize, usize, Transport),
        record: &'a Record,
        shown: &'a Mutex<Option<Spot>>,
        fronts: [SocketAddr; 2],
        seed: u64,
    ) -> Self {
        Self {
            name: format!("r{index} ({transport:?} of c{channel})"),
            channel,
            transport,
            record,
            fronts,
            random: Random::new(seed.wrapping_add(1_000 + index as u64)),
            position: None,
            spot: None,
            shown,
            latest: VecDeque::new(),
        }
    }

    /// Reads until all is over.
    pub(crate) fn run(mut self) {
        while self.record.goes_on() {
            let server = self.random.below(2);
            let front = self.fronts[server];
            let until = Instant::now() + Duration::from_millis(self.random.within(100..=2_500));
            self.note(format!("at server {server}, after {:?}", self.position));
            let read = match self.transport {
                Transport::Stream => self.stream(front, until),
                Transport::Poll => self.poll(front, until),
                Transport::Socket => self.socket(front, until),
            };
            if let Err(error) = read {
                if error.kind() == io::ErrorKind::TimedOut {
                    self.fault("no answer");
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn note(&mut self, text: String) {
        self.latest.push_back(text);
        if self.latest.len() > 8 {
            self.latest.pop_front();
        }
    }

    fn fault(&self, what: &str) {
        self.record.fault(format!("{}: {what}, at {:?}, after {:?}", self.name, self.spot, self.latest));
    }

    fn target(&self) -> String {
        let after = self.position.as_ref().map_or_else(String::new, |position| format!("after={position}&"));
        format!("/channels/c{}?{after}wait=1", self.channel)
    }

    fn refused(&self, status: u16, text: &str) -> io::Error {
        if status != 503 {
            self.fault(&format!("refused with {status}: {text}"));
        }
        io::ErrorKind::ConnectionRefused.into()
    }

    fn stream(&mut self, front: SocketAddr, until: Instant) -> io::Result<()> {
        let mut line = Line::connect(front)?;
        line.send("GET", &self.target(), "Accept: text/event-stream\r\n", "")?;
        let reply = line.head()?;
        if reply.status != 200 {
            return Err(self.refused(reply.status, &reply.head));
        }
        let mut events = EventQueue::default();
        while self.record.goes_on() {
            match line.part(until)? {
                Some(Part::Data(data)) => events.push(&data),
                None => return Ok(()),
                Some(Part::End | Part::Head(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            while let Some(event) = events.pop() {
                if event.event == "heartbeat" {
                    continue;
                }
                self.item(&serde_json::from_str(&event.data).expect("JSON"));
                // A hello before a gap has no position. The last id is then that of before.
                if event.event != "hello" || !event.last_event_id.is_empty() {
                    self.position(&event.last_event_id);
                }
            }
        }
        Ok(())
    }

    fn poll(&mut self, front: SocketAddr, until: Instant) -> io::Result<()> {
        let mut line = Line::connect(front)?;
        while self.record.goes_on() && Instant::now() < until {
            line.send("GET", &self.target(), "", "")?;
            let reply = line.reply()?;
            if reply.status != 200 {
                return Err(self.refused(reply.status, reply.text()));
            }
            self.items(&reply.json());
        }
        Ok(())
    }

    fn socket(&mut self, front: SocketAddr, until: Instant) -> io::Result<()> {
        let stream = TcpStream::connect(front)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let request = format!("ws://{front}{}", self.target()).into_client_request().expect("a request");
        let mut socket = match client(request, stream) {
            Ok((socket, _)) => socket,
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                return Err(self.refused(response.status().as_u16(), "a WebSocket"));
            }
            Err(tungstenite::HandshakeError::Interrupted(_)) => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        socket.get_ref().set_read_timeout(Some(Duration::from_millis(50)))?;
        while self.record.goes_on() && Instant::now() < until {
            match socket.read() {
                Ok(Message::Text(text)) => {
                    let reply: Value = serde_json::from_str(&text).expect("JSON");
                    if let Some(error) = reply["items"].get(0).filter(|item| item["type"] == "error") {
                        return Err(self.refused(error["status"].as_u64().unwrap_or(0) as u16, &error.to_string()));
                    }
                    self.items(&reply);
                }
                Ok(_) => {}
                Err(Error::Io(error)) if is_pause(&error) => {}
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }

    fn items(&mut self, reply: &Value) {
        for item in reply["items"].as_array().expect("items") {
            self.item(item);
        }
        if let Some(position) = reply["position"].as_str().filter(|position| !position.is_empty()) {
            self.position(position);
        }
    }

    fn item(&mut self, item: &Value) {
        let kind = item["type"].as_str().expect("a type");
        let spot = item["position"].as_str().map(Spot::parse);
        self.note(format!("{kind} {spot:?}"));
        match (kind, spot) {
            ("hello", _) => {}
            ("message", Some(spot)) => {
                self.record.read.fetch_add(1, Ordering::Relaxed);
                self.record.saw(&self.name, self.channel, spot, item["data"].as_str().expect("data"));
                if self.spot.is_some_and(|held| held.after() != spot) {
                    self.fault("a message is missing or repeated, without a gap");
                }
                self.spot = Some(spot);
            }
            ("gap", Some(spot)) => {
                self.record.gaps.fetch_add(1, Ordering::Relaxed);
                // The history has all messages of an epoch.
                if self.spot.is_some_and(|held| held.epoch >= spot.epoch) {
                    self.fault("a gap within an epoch, or back to an older one");
                }
                self.spot = Some(spot);
            }
            _ => self.fault(&format!("an unexpected item: {item}")),
        }
    }

    /// Notes the position after the items that have come.
    fn position(&mut self, position: &str) {
        let spot = Spot::parse(position);
        if *self.spot.get_or_insert(spot) != spot {
            self.fault(&format!("the position is {spot:?} without the messages before it"));
            self.spot = Some(spot);
        }
        self.position = Some(position.to_owned());
        *self.shown.lock().expect("no panic while it is held") = self.spot;
    }
}
