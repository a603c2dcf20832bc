//! A chat by lines: state kept with each connection, input taken line by line, and one message
//! written to many connections.
//!
//! Try it: `cargo run -p examples --example line_chat`, then `nc 127.0.0.1 7777` in two terminals.
//! The first line is your name.

use sealed::{CloseReason, Config, ConnectionId, Context, EventLoop, Input, Service};

struct Chat;

impl Chat {
    fn send_all(cx: &mut Context<Self>, line: &str) {
        for id in cx.connection_ids() {
            if cx.state(id).is_some_and(Option::is_some) {
                cx.write(id, line.as_bytes());
            }
        }
    }
}

impl Service for Chat {
    /// The name, once it is known.
    type Connection = Option<String>;
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while let Some(line) = input.take_until(b'\n') {
            let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            let Some(state) = cx.state_mut(id) else { return };
            let text = if let Some(name) = state {
                format!("{name}: {line}\n")
            } else {
                let joined = format!("{line} joined\n");
                *state = Some(line);
                joined
            };
            Self::send_all(cx, &text);
        }
        // A line without an end would use memory without a limit.
        if input.len() > 1_000 {
            cx.abort(id);
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, state: Option<String>, _: CloseReason) {
        if let Some(name) = state {
            Self::send_all(cx, &format!("{name} left\n"));
        }
    }
}

fn main() -> sealed::Result<()> {
    let mut event_loop = EventLoop::new(Config::default(), Chat)?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
