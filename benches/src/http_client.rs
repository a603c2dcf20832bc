//! The client of [`crate::http`]: one thread that keeps many connections busy, and checks every
//! answer at little cost. Only the first answer is parsed; each later one must have the same head,
//! except for its `Date`.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::net::{RecvFlags, recv};
use testing::PATIENCE;

use crate::http::TARGET;

/// Maximum number of bytes of one read.
const BUFFER_BYTES: usize = 128 * 1024;
/// Maximum number of bytes of a body that is copied. The kernel discards a longer one, which Linux
/// supports: copying it would cost the client more than the server.
const COPIED_MAX: usize = 4 * 1024;

/// The connections to one server.
#[derive(Debug)]
pub struct Client {
    poll: Poll,
    connections: Vec<Connection>,
    /// The requests that are sent at a time.
    requests: Vec<u8>,
    pipelined: usize,
    answer: Answer,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// Bytes of the answers that have not been read.
    unread: usize,
}

/// The expected answer.
#[derive(Debug)]
struct Answer {
    head: Vec<u8>,
    /// The range of the date in the head.
    date: Range<usize>,
    /// Bytes of the head and the body.
    length: usize,
}

impl Client {
    /// Makes this many connections to a server that answers with `body_bytes` bytes. `pipelined`
    /// requests are sent at a time on each connection, in one write.
    pub fn connect(address: SocketAddr, connections: usize, pipelined: usize, body_bytes: usize) -> Self {
        let request = format!("GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benches\r\nAccept: */*\r\n\r\n");
        let answer = Answer::learn(address, request.as_bytes(), body_bytes);
        let poll = Poll::new().expect("a poll");
        let connect = |index| {
            // Waits for each, because the backlog of the server need not hold them all.
            let stream = testing::http::connect(address);
            stream.set_nonblocking(true).expect("no waiting");
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE).expect("registered");
            Connection { stream, unread: 0 }
        };
        let connections = (0..connections).map(connect).collect();
        let requests = request.repeat(pipelined).into_bytes();
        Self { poll, connections, requests, pipelined, answer, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Sends requests and reads their answers, on any connection that is free. On each connection,
    /// all answers are read before more requests are sent. Returns the number of requests, which
    /// may be slightly higher than `wanted`, and the time.
    pub fn exchange(&mut self, wanted: usize) -> (usize, Duration) {
        let Self { poll, connections, requests, pipelined, answer, buffer } = self;
        let batches = wanted.div_ceil(*pipelined);
        let mut events = Events::with_capacity(1024);
        let (mut asked, mut answered) = (0, 0);
        let start = Instant::now();
        for connection in connections.iter_mut().take(batches) {
            connection.ask(requests, answer.length * *pipelined);
            asked += 1;
        }
        while answered < batches {
            poll.poll(&mut events, Some(PATIENCE)).expect("events");
            assert!(!events.is_empty(), "stalled at {answered} of {batches}");
            for event in &events {
                let connection = &mut connections[event.token().0];
                if !connection.receive(answer, buffer) {
                    continue;
                }
                answered += 1;
                if asked < batches {
                    connection.ask(requests, answer.length * *pipelined);
                    asked += 1;
                }
            }
        }
        (batches * *pipelined, start.elapsed())
    }
}

impl Connection {
    fn ask(&mut self, requests: &[u8], answers_bytes: usize) {
        // All earlier requests were answered, so that the kernel has room for these.
        self.stream.write_all(requests).expect("sent");
        self.unread = answers_bytes;
    }

    /// Reads the available bytes, and returns whether they complete the last answer.
    fn receive(&mut self, answer: &Answer, buffer: &mut [u8]) -> bool {
        while self.unread > 0 {
            let (wanted, is_body) = answer.next(self.unread);
            let wanted = wanted.min(buffer.len());
            let read = if is_body {
                recv(&self.stream, &mut buffer[..wanted], RecvFlags::TRUNC).map(|(_, count)| count).map_err(Into::into)
            } else {
                self.stream.read(&mut buffer[..wanted])
            };
            match read {
                Ok(0) => panic!("closed by the server"),
                Ok(count) => {
                    assert!(count <= self.unread, "more than was asked for");
                    if !is_body {
                        answer.check(&buffer[..count], self.unread);
                    }
                    self.unread -= count;
                    // A short read has emptied the socket, and the kernel announces later bytes.
                    if self.unread == 0 || count < wanted {
                        return self.unread == 0;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
        }
        false
    }
}

impl Answer {
    /// Requests a first answer, and learns its head and its length.
    fn learn(address: SocketAddr, request: &[u8], body_bytes: usize) -> Self {
        let mut stream = testing::http::connect(address);
        stream.write_all(request).expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        stream.read_exact(&mut vec![0; body_bytes]).expect("a body");
        let text = String::from_utf8(head.clone()).expect("a head of ASCII").to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 200 "), "{text}");
        assert!(text.contains(&format!("\r\ncontent-length: {body_bytes}\r\n")), "{text}");
        assert!(!text.contains("connection: close"), "{text}");
        let date = text.find("\r\ndate: ").expect("a date") + 8;
        let date = date..date + text[date..].find('\r').expect("its end");
        Self { length: head.len() + body_bytes, head, date }
    }

    /// Returns the number of bytes to read next if `unread` bytes of answers are left, and whether
    /// they belong to a body that is not checked.
    fn next(&self, unread: usize) -> (usize, bool) {
        if self.length - self.head.len() <= COPIED_MAX {
            // One byte more than expected, to detect any excess.
            return (unread + 1, false);
        }
        let at = self.at(unread);
        if at < self.head.len() { (self.head.len() - at, false) } else { (self.length - at, true) }
    }

    /// Returns the position within an answer if `unread` bytes of answers are left.
    fn at(&self, unread: usize) -> usize {
        (self.length - unread % self.length) % self.length
    }

    /// Checks bytes that were read when `unread` bytes of answers were left. If the heads are at
    /// their places, the bodies between them have the right length.
    fn check(&self, mut bytes: &[u8], mut unread: usize) {
        while !bytes.is_empty() {
            let from = self.at(unread);
            let count = bytes.len().min(self.length - from);
            for part in [0..self.date.start, self.date.end..self.head.len()] {
                let part = part.start.max(from)..part.end.min(from + count);
                if !part.is_empty() {
                    let found = &bytes[part.start - from..part.end - from];
                    assert!(found == &self.head[part], "another answer: {}", String::from_utf8_lossy(bytes));
                }
            }
            bytes = &bytes[count..];
            unread -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        let head = b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 3\r\n\r\n".to_vec();
        Answer { length: head.len() + 3, head, date: 23..27 }
    }

    fn check(answer: &Answer, bytes: &[u8], split: usize) {
        let (one, other) = bytes.split_at(split);
        answer.check(one, bytes.len());
        answer.check(other, other.len());
    }

    #[test]
    fn answers_may_differ_in_their_dates_and_come_in_pieces() {
        let answer = answer();
        let other = b"HTTP/1.1 200 OK\r\nDate: late\r\nContent-Length: 3\r\n\r\nabc";
        let two = other.repeat(2);
        (0..=two.len()).for_each(|split| check(&answer, &two, split));
    }

    #[test]
    #[should_panic(expected = "another answer")]
    fn a_body_that_is_too_short_shows_in_the_next_head() {
        let short = b"HTTP/1.1 200 OK\r\nDate: late\r\nContent-Length: 3\r\n\r\nab";
        check(&answer(), &[&short[..], &short[..], b"  "].concat(), 0);
    }
}
