//! The smallest service: it takes its input and sends it back.
//!
//! Try it: `cargo run -p examples --example echo`, then `nc 127.0.0.1 7777`.

use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service};

struct Echo;

impl Service for Echo {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        cx.write(id, input.take_all());
    }
}

fn main() -> sealed::Result<()> {
    let mut event_loop = EventLoop::new(Config::default(), Echo)?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
