//! The floor: the least work that a server can do for a message. One thread, no parsing, no
//! channels, no numbers.
//!
//! A connection whose first byte is `G` is a subscriber, and gets a prepared head. Any other
//! connection is a publisher: for every read from it, the same prepared bytes are written to each
//! subscriber, with one `write` each, and then a prepared answer to the publisher.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// The answer to a subscriber, as long as that of the real server.
pub const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 09:46:58 GMT\r\nContent-Type: text/event-stream\r\n\
Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\nAccess-Control-Allow-Origin: *\r\nTransfer-Encoding: chunked\r\n\r\n\
6a\r\nretry: 2000\nid: 038g7pkq8cuu7-0000000000\nevent: hello\ndata: {\"type\":\"hello\",\"heartbeat_ms\":3600000}.....\n\n\r\n";

/// The bytes of one message, as the real server sends them for [`crate::client::BODY`].
pub const MESSAGE: &[u8] = b"ae\r\nid: 038g7pkq8cuu7-0000000001\ndata: {\"type\":\"message\",\"channel\":\"news\",\"position\":\"038g7pkq8cuu7-0000000001\",\"time\":1795427218566,\"data\":\"0123456789abcdef0123456789abcdef\"}\n\n\r\n";

/// The answer to a publisher, as long as that of the real server.
pub const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 09:46:58 GMT\r\nContent-Type: application/json; charset=utf-8\r\n\
Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nAccess-Control-Allow-Origin: *\r\n\
Access-Control-Expose-Headers: Retry-After, WWW-Authenticate\r\nContent-Length: 57\r\n\r\n\
{\"channel\":\"news\",\"position\":\"038g7pkq8cuu7-0000000001\"}\n";

/// Serves until the process is killed. Prints its address first.
pub fn serve() {
    let mut poll = Poll::new().expect("a poll");
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    poll.registry().register(&mut listener, Token(0), Interest::READABLE).expect("registered");
    let mut events = Events::with_capacity(1024);
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut subscribers: Vec<usize> = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        poll.poll(&mut events, None).expect("events");
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true).expect("no delay");
                    let token = Token(streams.len() + 1);
                    poll.registry().register(&mut stream, token, Interest::READABLE).expect("registered");
                    streams.push(Some(stream));
                }
                continue;
            }
            let index = event.token().0 - 1;
            while let Some(stream) = &mut streams[index] {
                match stream.read(&mut buffer) {
                    Ok(1..) if buffer[0] == b'G' => {
                        subscribers.push(index);
                        let _ = stream.write(HEAD);
                    }
                    Ok(1..) => {
                        for subscriber in &subscribers {
                            if let Some(stream) = &mut streams[*subscriber] {
                                let _ = stream.write(MESSAGE);
                            }
                        }
                        if let Some(publisher) = &mut streams[index] {
                            let _ = publisher.write(ANSWER);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Ok(0) | Err(_) => {
                        streams[index] = None;
                        subscribers.retain(|subscriber| *subscriber != index);
                    }
                }
            }
        }
    }
}
