//! A Unix socket: only the address differs from TCP.
//!
//! Try it: `cargo run -p examples --example unix -- unix:/tmp/counter.sock`, then
//! `nc -U /tmp/counter.sock`. Send a name per line; the answer is how often that name was sent.

use std::collections::HashMap;

use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service};

/// Maximum number of names that are counted. Other names get the answer that there is no room.
const NAMES_MAX: usize = 10_000;

#[derive(Default)]
struct Counter {
    counts: HashMap<String, u64>,
}

impl Service for Counter {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while let Some(line) = input.take_until(b'\n') {
            let name = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            if self.counts.len() == NAMES_MAX && !self.counts.contains_key(&name) {
                cx.write(id, b"no room\n");
                continue;
            }
            let count = self.counts.entry(name).or_default();
            *count += 1;
            cx.write(id, format!("{count}\n").as_bytes());
        }
        if input.len() > 1_000 {
            cx.abort(id);
        }
    }
}

fn main() -> sealed::Result<()> {
    let mut event_loop = EventLoop::new(Config::default(), Counter::default())?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "unix:/tmp/counter.sock".to_owned());
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
