//! Two protocols on one loop, distinguished by listener, with the protocol in the state of each
//! connection.
//!
//! Try it: `cargo run -p examples --example two_protocols -- 127.0.0.1:7777 127.0.0.1:7778`, then
//! `nc 127.0.0.1 7777` to send lines and get them back in capitals, and `nc 127.0.0.1 7778` to see
//! the lines of all others.

use sealed::{Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service};

#[derive(Default)]
struct Theatre {
    audience: Vec<ConnectionId>,
}

/// The protocol of a connection.
#[derive(Default)]
enum Role {
    /// Sends lines, and gets them back in capitals.
    #[default]
    Actor,
    /// Gets the lines of the actors, and sends nothing.
    Spectator,
}

impl Service for Theatre {
    type Connection = Role;
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, listener: ListenerId, _: &Address) {
        // Listeners are numbered in the order in which they were added.
        if listener.index() == 1 {
            self.audience.push(id);
            if let Some(role) = cx.state_mut(id) {
                *role = Role::Spectator;
            }
        }
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        match cx.state(id) {
            Some(Role::Actor) => {
                while let Some(line) = input.take_until(b'\n') {
                    let line = line.to_ascii_uppercase();
                    cx.write(id, &line);
                    for spectator in &self.audience {
                        cx.write(*spectator, &line);
                    }
                }
                if input.len() > 1_000 {
                    cx.abort(id);
                }
            }
            Some(Role::Spectator) => cx.close(id),
            None => {}
        }
    }

    fn closed(&mut self, _: &mut Context<Self>, id: ConnectionId, role: Role, _: CloseReason) {
        if matches!(role, Role::Spectator) {
            self.audience.retain(|held| *held != id);
        }
    }
}

fn main() -> sealed::Result<()> {
    let mut event_loop = EventLoop::new(Config::default(), Theatre::default())?;
    let mut arguments = std::env::args().skip(1);
    for default in ["127.0.0.1:7777", "127.0.0.1:0"] {
        let address = arguments.next().unwrap_or_else(|| default.to_owned());
        println!("listening on {}", event_loop.listen(address)?.address);
    }
    event_loop.stop_on_signals()?;
    event_loop.run()
}
