//! Clients in one thread, each with a socket of its own.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

/// Time without any datagram after which the clients give up: one has been lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// The clients of one server.
#[derive(Debug)]
pub struct Clients {
    poll: Poll,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    socket: UdpSocket,
    /// The number of exchanges that are not complete.
    left: usize,
}

impl Clients {
    /// Opens this many sockets.
    pub fn new(server: SocketAddr, clients: usize) -> Self {
        let poll = Poll::new().expect("a poll");
        let open = |index| {
            let mut socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
            socket.connect(server).expect("connected");
            poll.registry().register(&mut socket, Token(index), Interest::READABLE).expect("registered");
            Client { socket, left: 0 }
        };
        let clients = (0..clients).map(open).collect();
        Self { poll, clients }
    }

    /// Runs `times` exchanges with each client, one after the other, of datagrams of `size` bytes.
    /// Returns the time.
    ///
    /// # Panics
    ///
    /// Panics if a datagram is lost, which happens if the buffer of the server cannot hold one of
    /// each client, or if it comes back with another length.
    pub fn exchange(&mut self, size: usize, times: usize) -> Duration {
        let Self { poll, clients } = self;
        let datagram = vec![b'd'; size];
        let mut buffer = vec![0; size + 1];
        let mut events = Events::with_capacity(1024);
        let mut busy = clients.len();
        let start = Instant::now();
        for client in &mut *clients {
            client.left = times;
            client.socket.send(&datagram).expect("sent");
        }
        while busy > 0 {
            poll.poll(&mut events, Some(PATIENCE)).expect("events");
            assert!(!events.is_empty(), "a datagram is lost, with {busy} clients at work");
            for event in &events {
                let client = &mut clients[event.token().0];
                while client.receive(&mut buffer, size) {
                    client.left -= 1;
                    if client.left == 0 {
                        busy -= 1;
                    } else {
                        client.socket.send(&datagram).expect("sent");
                    }
                }
            }
        }
        start.elapsed()
    }
}

impl Client {
    /// Receives a datagram, and returns whether there was one.
    fn receive(&self, buffer: &mut [u8], size: usize) -> bool {
        match self.socket.recv(buffer) {
            Ok(count) => {
                assert_eq!(count, size, "a datagram has another length");
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }
}
