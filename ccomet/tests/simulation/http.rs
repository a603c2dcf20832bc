//! The client's side of HTTP, for a connection of the simulation.

use sealed::sim::Peer;
use testing::http::{Part, Reply, Responses};

use crate::cuts::Cuts;

/// An event on the connection after a request.
#[derive(Debug)]
pub enum Answer {
    /// A complete response.
    Whole { status: u16, body: Vec<u8> },
    /// The head of a response that goes on as long as the server has more to send.
    Stream,
    /// A part of its body.
    Data(Vec<u8>),
    /// Its end. If it was in chunks, the connection can be used again.
    StreamEnd,
    /// The connection is over.
    Over,
}

/// A connection of a client.
pub struct Http {
    pub peer: Peer,
    pub cuts: Cuts,
    responses: Responses,
    /// A response of known length, as far as it has arrived.
    whole: Option<Reply>,
    /// The number of requests that are not answered yet.
    asked: usize,
    /// The last request on the connection, for messages.
    what: String,
    over: bool,
}

impl Http {
    pub fn over(peer: Peer, cuts: Cuts) -> Self {
        Self { peer, cuts, responses: Responses::default(), whole: None, asked: 0, what: String::new(), over: false }
    }

    /// Sends a request.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) {
        self.what = String::from_utf8_lossy(request.as_ref()).chars().take(200).collect();
        self.asked += 1;
        self.send(request);
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.cuts.send(&mut self.peer, bytes.as_ref());
    }

    /// Reads and sends without pauses from now on.
    pub fn calm_down(&mut self) {
        self.peer.unstall();
        self.cuts.hurry();
    }

    /// Sends a message on a WebSocket.
    pub fn say(&mut self, text: &str) {
        let message = self.cuts.message(text);
        self.send(message);
    }

    pub fn get(&mut self, target: &str, headers: &str) {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: sim\r\n{headers}\r\n"));
    }

    pub fn waits(&self) -> bool {
        self.asked > 0
    }

    /// Returns the next event, if there is one.
    pub fn next(&mut self) -> Option<Answer> {
        if self.over {
            return None;
        }
        self.cuts.go_on(&mut self.peer);
        let over = self.peer.is_over();
        self.responses.push(&self.peer.take());
        let answer = self.decode();
        if answer.is_none() && over {
            self.over = true;
            return Some(Answer::Over);
        }
        answer
    }

    fn decode(&mut self) -> Option<Answer> {
        loop {
            let is_stray = self.asked == 0 && !self.responses.rest().is_empty();
            assert!(!is_stray, "an answer to nothing, after {:?}: {}", self.what, self.responses);
            let next = self.responses.next();
            let part = next.unwrap_or_else(|error| panic!("{error}, after {:?}: {}", self.what, self.responses))?;
            let answer = match (part, &mut self.whole) {
                (Part::Head(reply), whole) => {
                    let is_whole = reply.status == 204 || reply.header("content-length").is_some();
                    *whole = is_whole.then_some(reply);
                    (!is_whole).then_some(Answer::Stream)
                }
                (Part::Data(data), Some(reply)) => {
                    reply.body.extend(data);
                    None
                }
                (Part::Data(data), None) => Some(Answer::Data(data)),
                (Part::End, whole) => {
                    self.asked -= 1;
                    Some(
                        whole
                            .take()
                            .map_or(Answer::StreamEnd, |Reply { status, body, .. }| Answer::Whole { status, body }),
                    )
                }
            };
            if answer.is_some() {
                return answer;
            }
        }
    }
}
