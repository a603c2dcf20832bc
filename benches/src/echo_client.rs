//! The client of [`crate::echo`]: one thread that keeps many connections busy, and costs little for
//! its work.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use testing::PATIENCE;

use crate::echo::BULK;

/// Maximum number of bytes of a request, and of one read or write.
const BUFFER_BYTES: usize = 64 * 1024;
/// Maximum number of connections that are being made at a time.
const BEGINNING: usize = 50;

/// The connections to one server.
#[derive(Debug)]
pub struct Client {
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// The number of exchanges that are not complete.
    left: usize,
    /// Bytes of the request that have not been written.
    unsent: usize,
    /// Bytes of the answer that have not been read.
    unread: usize,
}

impl Client {
    /// Makes this many connections.
    pub fn connect(address: SocketAddr, connections: usize) -> Self {
        let poll = Poll::new().expect("a poll");
        let connect = |index| {
            // Waits for each, because the backlog of the server need not hold them all.
            let stream = testing::http::connect(address);
            stream.set_nonblocking(true).expect("no waiting");
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(index), interest).expect("registered");
            Connection { stream, left: 0, unsent: 0, unread: 0 }
        };
        let connections = (0..connections).map(connect).collect();
        Self { poll, connections, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Runs `times` exchanges on each connection, one after the other, each with a request of
    /// `asked` bytes and an answer of `answered` bytes. Returns the time.
    pub fn exchange(&mut self, asked: usize, answered: usize, times: usize) -> Duration {
        let Self { poll, connections, buffer } = self;
        let mut events = Events::with_capacity(1024);
        let mut busy = connections.len();
        let start = Instant::now();
        for connection in &mut *connections {
            (connection.left, connection.unsent, connection.unread) = (times, asked, answered);
            connection.send(buffer);
        }
        while busy > 0 {
            poll.poll(&mut events, Some(PATIENCE)).expect("events");
            assert!(!events.is_empty(), "stalled, with {busy} connections at work");
            for event in &events {
                let connection = &mut connections[event.token().0];
                if event.is_readable() && connection.receive(buffer) {
                    connection.left -= 1;
                    if connection.left == 0 {
                        busy -= 1;
                        continue;
                    }
                    (connection.unsent, connection.unread) = (asked, answered);
                }
                connection.send(buffer);
            }
        }
        start.elapsed()
    }
}

impl Connection {
    fn send(&mut self, buffer: &[u8]) {
        while self.unsent > 0 {
            match self.stream.write(&buffer[..self.unsent]) {
                Ok(count) => self.unsent -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads the available bytes, and returns whether they complete an answer.
    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        while self.unread > 0 {
            match self.stream.read(buffer) {
                Ok(0) => panic!("closed by the server"),
                Ok(count) => self.unread -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
            if self.unread == 0 {
                return true;
            }
        }
        false
    }
}

/// Streams this many bulks in one direction, and waits until they are acknowledged. Returns the
/// time.
pub fn stream(address: SocketAddr, bulks: usize) -> Duration {
    let mut stream = testing::http::connect(address);
    let chunk = vec![0; BUFFER_BYTES];
    let start = Instant::now();
    for _ in 0..bulks * (BULK / BUFFER_BYTES) {
        stream.write_all(&chunk).expect("sent");
    }
    stream.read_exact(&mut vec![0; bulks]).expect("acknowledged");
    start.elapsed()
}

/// Makes this many connections, several at a time: each is made, sends a byte, gets it back, and is
/// closed. Returns the time.
pub fn come_and_go(address: SocketAddr, connections: usize) -> Duration {
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(1024);
    let beginning = BEGINNING.min(connections);
    let start = Instant::now();
    let mut streams: Vec<_> = (0..beginning).map(|index| begin(&poll, index, address)).collect();
    let (mut begun, mut over) = (beginning, 0);
    while over < connections {
        poll.poll(&mut events, Some(PATIENCE)).expect("events");
        assert!(!events.is_empty(), "stalled at {over} connections");
        for event in &events {
            let index = event.token().0;
            if !go_on(&mut streams[index], event) {
                continue;
            }
            over += 1;
            if begun < connections {
                begun += 1;
                streams[index] = begin(&poll, index, address);
            }
        }
    }
    start.elapsed()
}

fn begin(poll: &Poll, index: usize, address: SocketAddr) -> (TcpStream, bool) {
    let mut stream = TcpStream::connect(address).expect("an attempt");
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(index), interest).expect("registered");
    (stream, false)
}

/// Returns whether the byte has come back. The flag beside the socket is set once the byte is sent.
fn go_on((stream, sent): &mut (TcpStream, bool), event: &Event) -> bool {
    if event.is_writable() && !*sent {
        *sent = stream.write(b"e").is_ok();
    }
    *sent && event.is_readable() && matches!(stream.read(&mut [0; 8]), Ok(1))
}
