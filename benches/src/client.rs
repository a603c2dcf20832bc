//! A client that costs little for its work: one thread that drains many sockets and counts bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use testing::PATIENCE;
use testing::http::{connect, request, subscribe};

use crate::bare;

/// The body of each publication.
pub const BODY: &str = "0123456789abcdef0123456789abcdef";

/// The subscribers and publishers of one server.
pub struct Client {
    poll: Poll,
    events: Events,
    subscribers: Vec<mio::net::TcpStream>,
    publishers: Vec<mio::net::TcpStream>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("subscribers", &self.subscribers.len()).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects this many of each, and waits until all have subscribed.
    pub fn connect(address: SocketAddr, subscribers: usize, publishers: usize) -> Self {
        let poll = Poll::new().expect("a poll");
        let register = |stream: TcpStream, token: usize| {
            stream.set_nonblocking(true).expect("no waiting");
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(token), Interest::READABLE).expect("registered");
            stream
        };
        let subscribers: Vec<_> = (0..subscribers).map(|n| register(subscribe(address, "news"), n)).collect();
        let first = subscribers.len();
        let publishers = (0..publishers).map(|n| register(connect(address), first + n)).collect();
        Self { poll, events: Events::with_capacity(4096), subscribers, publishers, buffer: vec![0; 64 * 1024] }
    }

    /// Lets each publisher publish this many messages, each as soon as the previous one is
    /// answered. Returns how long it takes until every subscriber has every message.
    pub fn round(&mut self, messages_each: usize) -> Duration {
        let request = request("POST", "/channels/news", "", BODY);
        let publishers = self.publishers.len();
        let mut to_ask = vec![messages_each; publishers];
        let mut answered = vec![0; publishers];
        let wanted = publishers * messages_each * self.subscribers.len() * bare::MESSAGE.len();
        let mut got = 0;
        let start = Instant::now();
        for (publisher, left) in self.publishers.iter_mut().zip(&mut to_ask) {
            publisher.write_all(request.as_bytes()).expect("sent");
            *left -= 1;
        }
        let mut unanswered = publishers * messages_each;
        while got < wanted || unanswered > 0 {
            self.poll.poll(&mut self.events, Some(PATIENCE)).expect("events");
            assert!(!self.events.is_empty(), "stalled at {got} of {wanted} bytes, {unanswered} unanswered");
            for event in &self.events {
                let token = event.token().0;
                if let Some(subscriber) = self.subscribers.get_mut(token) {
                    got += drain(subscriber, &mut self.buffer);
                    continue;
                }
                let index = token - self.subscribers.len();
                answered[index] += drain(&mut self.publishers[index], &mut self.buffer);
                while answered[index] >= bare::ANSWER.len() {
                    answered[index] -= bare::ANSWER.len();
                    unanswered -= 1;
                    if to_ask[index] > 0 {
                        to_ask[index] -= 1;
                        self.publishers[index].write_all(request.as_bytes()).expect("sent");
                    }
                }
            }
        }
        assert_eq!(got, wanted, "each message once, of the length that the bare loop sends");
        start.elapsed()
    }
}

fn drain(stream: &mut mio::net::TcpStream, buffer: &mut [u8]) -> usize {
    let mut count = 0;
    loop {
        match stream.read(buffer) {
            Ok(0) => panic!("closed by the server"),
            Ok(read) => {
                count += read;
                if read < buffer.len() {
                    return count;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}
