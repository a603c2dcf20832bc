//! The client's side of HTTP, for a connection of the simulation.

use std::collections::VecDeque;
use std::net::SocketAddr;

use sealed::sim::{Peer, Simulation};
use sealed_http::{Asked, EventStream, Limits, ResponseDecoder, ResponseEvent, StreamEvent};

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
    decoder: ResponseDecoder,
    /// A response that is to come whole, as far as it has.
    whole: Option<(u16, Vec<u8>)>,
    /// Requests that were sent and not answered yet.
    asked: usize,
    /// What the connection was asked for last, for messages.
    what: String,
    over: bool,
}

impl Http {
    pub fn connect(sim: &Simulation, address: SocketAddr) -> Self {
        Self::over(sim.connect(address))
    }

    pub fn over(peer: Peer) -> Self {
        let decoder = ResponseDecoder::new();
        Self { peer, buffer: Vec::new(), decoder, whole: None, asked: 0, what: String::new(), over: false }
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
        self.asked > 0
    }

    /// What has come next, if anything has.
    pub fn next(&mut self) -> Option<Answer> {
        if self.over {
            return None;
        }
        let over = self.peer.is_over();
        self.buffer.append(&mut self.peer.take());
        let answer = self.decode();
        if answer.is_none() && over {
            self.over = true;
            return Some(Answer::Over);
        }
        answer
    }

    fn decode(&mut self) -> Option<Answer> {
        loop {
            let text = || String::from_utf8_lossy(&self.buffer).chars().take(300).collect::<String>();
            let stray = self.asked == 0 && !self.buffer.is_empty();
            assert!(!stray, "an answer to nothing, after {:?}: {:?}", self.what, text());
            // A stream has no end, and so no bound.
            let limits = Limits { body_bytes_max: u64::MAX, ..Limits::default() };
            let (used, event) = self
                .decoder
                .decode(&self.buffer, Asked::Other, &limits)
                .unwrap_or_else(|error| panic!("{error}, after {:?}: {:?}", self.what, text()));
            let answer = match (event, &mut self.whole) {
                (ResponseEvent::Incomplete, _) => {
                    self.buffer.drain(..used);
                    return None;
                }
                (ResponseEvent::Head(head), whole) => {
                    let is_whole = head.status() == 204 || head.header("content-length").is_some();
                    *whole = is_whole.then(|| (head.status(), Vec::new()));
                    (!is_whole).then_some(Answer::Stream)
                }
                (ResponseEvent::Data(data), Some((_, body))) => {
                    body.extend_from_slice(data);
                    None
                }
                (ResponseEvent::Data(data), None) => Some(Answer::Data(data.to_vec())),
                (ResponseEvent::End, whole) => {
                    self.asked -= 1;
                    Some(whole.take().map_or(Answer::StreamEnd, |(status, body)| Answer::Whole { status, body }))
                }
                // It is another protocol from here on.
                (ResponseEvent::Switched, _) if self.buffer.is_empty() => return None,
                (ResponseEvent::Switched, _) => return Some(Answer::Data(std::mem::take(&mut self.buffer))),
                (event, _) => panic!("nobody asked for that: {event:?}"),
            };
            self.buffer.drain(..used);
            if answer.is_some() {
                return answer;
            }
        }
    }
}

/// Events of a stream, as they come out of its bytes.
pub struct Events {
    stream: EventStream,
    told: VecDeque<StreamEvent>,
}

impl Default for Events {
    fn default() -> Self {
        Self { stream: EventStream::new(1 << 20), told: VecDeque::new() }
    }
}

impl Events {
    pub fn push(&mut self, bytes: &[u8]) {
        self.stream.read(bytes, |event| self.told.push_back(event)).expect("events are short");
    }

    pub fn next(&mut self) -> Option<StreamEvent> {
        self.told.pop_front()
    }
}
