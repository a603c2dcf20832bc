//! On mio alone: the server answers each read at once, and keeps the output that the kernel does
//! not take.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::{BUFFER_BYTES, Discarded, MESSAGE, MESSAGES, Part, hold_as_many};

const LISTENER: Token = Token(usize::MAX);

/// A connection on a loop that is notified only of changes. Its socket is kept elsewhere.
#[derive(Debug, Default)]
pub(super) struct Connection {
    discarded: Discarded,
    /// Output that the kernel has not taken yet.
    waiting: Vec<u8>,
}

impl Connection {
    /// Reads and writes as much as possible now. Returns false once the connection is over.
    pub(super) fn go_on(&mut self, stream: &mut (impl Read + Write), part: Part, buffer: &mut [u8]) -> bool {
        self.flush(stream).is_ok() && self.read(stream, part, buffer).unwrap_or(false)
    }

    fn read(&mut self, stream: &mut (impl Read + Write), part: Part, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            match stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.answer(stream, part, &buffer[..count])?;
                    // A short read has emptied the socket, and the kernel announces later bytes.
                    if count < buffer.len() {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(&mut self, stream: &mut impl Write, part: Part, bytes: &[u8]) -> io::Result<()> {
        match part {
            Part::Echo => self.write(stream, bytes),
            Part::Discard => (0..self.discarded.add(bytes.len())).try_for_each(|_| self.write(stream, b"!")),
            Part::Tell => (0..bytes.len() * MESSAGES).try_for_each(|_| self.write(stream, MESSAGE)),
        }
    }

    fn write(&mut self, stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        let taken = if self.waiting.is_empty() { take(stream, bytes)? } else { 0 };
        self.waiting.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.drain(..take(stream, &waiting)?);
        self.waiting = waiting;
        Ok(())
    }
}

/// Writes until the kernel takes no more, and returns the number of bytes that it took.
fn take(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

pub(super) fn serve(part: Part) {
    let mut poll = Poll::new().expect("a poll");
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    hold_as_many(&listener);
    println!("{}", listener.local_addr().expect("an address"));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).expect("registered");
    let mut events = Events::with_capacity(1024);
    let mut connections: Slab<(TcpStream, Connection)> = Slab::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        poll.poll(&mut events, None).expect("events");
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut connections);
                continue;
            }
            let index = event.token().0;
            let (stream, connection) = &mut connections[index];
            if !connection.go_on(stream, part, &mut buffer) {
                connections.remove(index);
            }
        }
    }
}

fn accept(poll: &Poll, listener: &TcpListener, connections: &mut Slab<(TcpStream, Connection)>) {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true).expect("no delay");
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(connections.vacant_key()), interest).expect("registered");
        connections.insert((stream, Connection::default()));
    }
}
