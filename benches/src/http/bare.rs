//! The floor: on mio alone, prepared bytes for every end of a request that is found in the input.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::{CONTENT_TYPE, listen};

const LISTENER: Token = Token(usize::MAX);
/// Maximum number of bytes of one read.
const BUFFER_BYTES: usize = 64 * 1024;
/// The end of a request without a body.
const END: &[u8; 4] = b"\r\n\r\n";
/// Maximum number of answers in one write.
const AT_ONCE: usize = 16;

struct Connection {
    stream: TcpStream,
    /// The number of bytes of an end that have been seen.
    seen: usize,
    /// Bytes of answers that the kernel has not taken yet.
    unsent: usize,
}

/// The same answer several times in a row.
struct Answers {
    bytes: Vec<u8>,
    length: usize,
}

impl Connection {
    /// Reads and writes as much as possible now. Returns whether the connection continues.
    fn go_on(&mut self, answers: &Answers, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            self.send(answers)?;
            match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.unsent += self.count_ends(&buffer[..count]) * answers.length;
                    // A short read has emptied the socket, and the kernel announces later bytes.
                    if count < buffer.len() {
                        self.send(answers)?;
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    fn count_ends(&mut self, bytes: &[u8]) -> usize {
        let mut ends = 0;
        for byte in bytes {
            self.seen = if *byte == END[self.seen] { self.seen + 1 } else { usize::from(*byte == END[0]) };
            if self.seen == END.len() {
                (self.seen, ends) = (0, ends + 1);
            }
        }
        ends
    }

    fn send(&mut self, answers: &Answers) -> io::Result<()> {
        while self.unsent > 0 {
            // All answers are the same, so the rest of one determines where to continue.
            let from = (answers.length - self.unsent % answers.length) % answers.length;
            let to = answers.bytes.len().min(from + self.unsent);
            match self.stream.write(&answers.bytes[from..to]) {
                Ok(count) => self.unsent -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

pub(super) fn serve(body: &str) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 09:46:58 GMT\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = head + body;
    let answers = Answers { bytes: answer.repeat(AT_ONCE).into_bytes(), length: answer.len() };
    let mut poll = Poll::new().expect("a poll");
    let mut listener = TcpListener::from_std(listen());
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).expect("registered");
    let mut events = Events::with_capacity(1024);
    let mut connections = Slab::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        poll.poll(&mut events, None).expect("events");
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut connections);
            } else if !connections[event.token().0].go_on(&answers, &mut buffer).unwrap_or(false) {
                connections.remove(event.token().0);
            }
        }
    }
}

fn accept(poll: &Poll, listener: &TcpListener, connections: &mut Slab<Connection>) {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true).expect("no delay");
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(connections.vacant_key()), interest).expect("registered");
        connections.insert(Connection { stream, seen: 0, unsent: 0 });
    }
}
