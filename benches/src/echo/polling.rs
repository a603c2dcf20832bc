//! On the crate `polling`, which calloop uses as well.

use std::net::{SocketAddr, TcpListener, TcpStream};

use polling::Poller;
use slab::Slab;

use super::bare::Connection;
use super::{BUFFER_BYTES, Part, hold_as_many};
use crate::polling::{events, forget, watch};

const LISTENER: usize = usize::MAX - 1;

pub(super) fn serve(part: Part) {
    let mut connections: Slab<(TcpStream, Connection)> = Slab::new();
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    listener.set_nonblocking(true).expect("no waiting");
    hold_as_many(&listener);
    println!("{}", listener.local_addr().expect("an address"));
    let poller = Poller::new().expect("a poller");
    watch(&poller, &listener, LISTENER);
    let mut events = events();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        events.clear();
        poller.wait(&mut events, None).expect("events");
        for event in events.iter() {
            if event.key == LISTENER {
                accept(&poller, &listener, &mut connections);
                continue;
            }
            let (stream, connection) = &mut connections[event.key];
            if !connection.go_on(stream, part, &mut buffer) {
                forget(&poller, &*stream);
                connections.remove(event.key);
            }
        }
    }
}

fn accept(poller: &Poller, listener: &TcpListener, connections: &mut Slab<(TcpStream, Connection)>) {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true).expect("no waiting");
        stream.set_nodelay(true).expect("no delay");
        watch(poller, &stream, connections.vacant_key());
        connections.insert((stream, Connection::default()));
    }
}
