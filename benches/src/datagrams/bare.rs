//! On mio alone: the server answers each datagram at once, and drops an answer for which the kernel
//! has no room.

use std::io::ErrorKind;
use std::net::SocketAddr;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use super::BUFFER_BYTES;

pub(super) fn serve() {
    let mut poll = Poll::new().expect("a poll");
    let mut socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    println!("{}", socket.local_addr().expect("an address"));
    poll.registry().register(&mut socket, Token(0), Interest::READABLE).expect("registered");
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        poll.poll(&mut events, None).expect("events");
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((count, from)) => _ = socket.send_to(&buffer[..count], from),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
