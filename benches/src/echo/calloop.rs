//! On calloop: a source for each connection, notified only of changes, so that a connection that
//! waits to write need not register again.

use std::net::{SocketAddr, TcpListener, TcpStream};

use calloop::generic::{Generic, NoIoDrop};
use calloop::{EventLoop, Interest, LoopHandle, Mode, PostAction};

use super::bare::Connection;
use super::{BUFFER_BYTES, Part, hold_as_many};

/// The buffer that all connections read into.
type Shared = Vec<u8>;

pub(super) fn serve(part: Part) {
    let mut event_loop: EventLoop<'static, Shared> = EventLoop::try_new().expect("a loop");
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    listener.set_nonblocking(true).expect("no waiting");
    hold_as_many(&listener);
    println!("{}", listener.local_addr().expect("an address"));
    let handle = event_loop.handle();
    let accept = move |_, listener: &mut NoIoDrop<TcpListener>, _: &mut Shared| {
        while let Ok((stream, _)) = listener.accept() {
            add(&handle, stream, part);
        }
        Ok(PostAction::Continue)
    };
    let source = Generic::new(listener, Interest::READ, Mode::Level);
    event_loop.handle().insert_source(source, accept).expect("inserted");
    event_loop.run(None, &mut vec![0; BUFFER_BYTES], |_| {}).expect("a good end");
}

fn add(handle: &LoopHandle<'static, Shared>, stream: TcpStream, part: Part) {
    stream.set_nonblocking(true).expect("no waiting");
    stream.set_nodelay(true).expect("no delay");
    let mut connection = Connection::default();
    let go_on = move |_, stream: &mut NoIoDrop<TcpStream>, buffer: &mut Shared| {
        let mut stream: &TcpStream = stream;
        let goes_on = connection.go_on(&mut stream, part, buffer);
        Ok(if goes_on { PostAction::Continue } else { PostAction::Remove })
    };
    handle.insert_source(Generic::new(stream, Interest::BOTH, Mode::Edge), go_on).expect("inserted");
}
