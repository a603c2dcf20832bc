//! On this project's loop, written as its documentation recommends.

use sealed::{Address, Config, ConnectionId, Context, DatagramId, EventLoop, Input, Service};

struct Server;

impl Service for Server {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn datagram(&mut self, cx: &mut Context<Self>, socket: DatagramId, from: &Address, bytes: &[u8]) {
        // A datagram can be lost anywhere, here as well.
        let _ = cx.send_to(socket, from, bytes);
    }
}

pub(super) fn serve() {
    let mut event_loop = EventLoop::new(Config::default(), Server).expect("a loop");
    let (_, cx) = event_loop.parts();
    let socket = cx.bind_datagram("127.0.0.1:0").expect("a port");
    println!("{}", cx.datagram_addr(socket).expect("it is open"));
    event_loop.run().expect("a good end");
}
