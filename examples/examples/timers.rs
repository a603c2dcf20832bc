//! Time: a deadline for each connection, and timers that expire once or periodically, are moved,
//! and are cancelled.
//!
//! Try it: `cargo run -p examples --example timers`, then `nc 127.0.0.1 7777`. `ring 5` rings in
//! five seconds, `later` moves the last timer to five seconds from now, `cancel` cancels it, and
//! `tick` sends a line every second. A client that sends nothing for a minute is disconnected.

use std::time::Duration;

use sealed::{Address, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service, TimerId};

const SECOND: Duration = Duration::from_secs(1);

struct Clock;

/// The purpose of a timer.
#[derive(Clone)]
enum Alarm {
    Ring(ConnectionId, String),
    Tick(ConnectionId),
}

impl Service for Clock {
    /// The last timer that was set.
    type Connection = Option<TimerId>;
    type Message = ();
    type Timer = Alarm;

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.set_deadline(id, SECOND * 60);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while let Some(line) = input.take_until(b'\n') {
            let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            // Setting a deadline again moves it.
            cx.set_deadline(id, SECOND * 60);
            let last = cx.state(id).copied().flatten();
            let next = match line.split_once(' ').unwrap_or((&line, "")) {
                ("ring", seconds) => {
                    let delay = SECOND * seconds.parse().unwrap_or(1);
                    Some(cx.set_timer(delay, Alarm::Ring(id, format!("{seconds} seconds are over\n"))))
                }
                ("tick", _) => Some(cx.set_interval(SECOND, Alarm::Tick(id))),
                ("later", _) => {
                    let moved = last.is_some_and(|timer| cx.move_timer(timer, SECOND * 5));
                    cx.write(id, if moved { b"five seconds from now\n" } else { b"nothing to move\n" });
                    last
                }
                ("cancel", _) => {
                    let cancelled = last.and_then(|timer| cx.cancel_timer(timer)).is_some();
                    cx.write(id, if cancelled { b"cancelled\n" } else { b"nothing to cancel\n" });
                    None
                }
                _ => {
                    cx.write(id, b"ring SECONDS, tick, later or cancel\n");
                    last
                }
            };
            if let Some(state) = cx.state_mut(id) {
                *state = next;
            }
        }
        if input.len() > 1_000 {
            cx.abort(id);
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, timer: TimerId, alarm: Alarm) {
        match alarm {
            Alarm::Ring(id, text) => {
                cx.write(id, text.as_bytes());
            }
            // The connection is gone: the timer is no longer needed.
            Alarm::Tick(id) if !cx.is_open(id) => {
                cx.cancel_timer(timer);
            }
            Alarm::Tick(id) => {
                cx.write(id, b"tick\n");
            }
        }
    }

    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        cx.write(id, b"is anybody there?\n");
        cx.close(id);
    }
}

fn main() -> sealed::Result<()> {
    let mut event_loop = EventLoop::new(Config::default(), Clock)?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
