//! The client's side of HTTP, for a connection of the simulation.

use std::net::SocketAddr;

use sealed::sim::{Peer, Simulation};
use testing::http::{Part, Reply, Responses};

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
    responses: Responses,
    /// A response that is to come whole, as far as it has.
    whole: Option<Reply>,
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
        Self { peer, responses: Responses::default(), whole: None, asked: 0, what: String::new(), over: false }
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
