//! A load generator: many outgoing connections, each of which keeps one message in flight to an
//! echo server.
//!
//! Try it: `cargo run --release -p examples --example echo` in one terminal, and in another `cargo
//! run --release -p examples --example load -- 127.0.0.1:7777 100 64 5`: 100 connections, 64 bytes,
//! 5 seconds.

use std::time::{Duration, Instant};

use sealed::{CloseReason, Config, ConnectionId, Context, EventLoop, Input, Service, TimerId};

struct Load {
    count: usize,
    message: Vec<u8>,
    connected: usize,
    failed: usize,
    /// The round-trip times, in microseconds.
    latencies: Vec<u32>,
    stopping: bool,
}

/// The message of one connection.
struct Trip {
    began: Instant,
    /// Number of bytes of the message that have come back.
    returned: usize,
}

impl Default for Trip {
    fn default() -> Self {
        Self { began: Instant::now(), returned: 0 }
    }
}

impl Load {
    fn send(&self, cx: &mut Context<Self>, id: ConnectionId) {
        if let Some(trip) = cx.state_mut(id) {
            *trip = Trip::default();
        }
        cx.write(id, &self.message);
    }
}

impl Service for Load {
    type Connection = Trip;
    type Message = ();
    type Timer = ();

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.connected += 1;
        self.send(cx, id);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        let Some(trip) = cx.state_mut(id) else { return };
        trip.returned += input.take_all().len();
        if trip.returned >= self.message.len() {
            self.latencies.push(u32::try_from(trip.began.elapsed().as_micros()).unwrap_or(u32::MAX));
            if !self.stopping {
                self.send(cx, id);
            }
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, _: Trip, reason: CloseReason) {
        if !self.stopping {
            eprintln!("a connection ended: {reason}");
            self.failed += 1;
            // Once all connections have failed, there is nothing to wait for.
            if self.failed == self.count {
                cx.stop();
            }
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (): ()) {
        self.stopping = true;
        cx.stop();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let address: sealed::Address = argument("127.0.0.1:7777").parse()?;
    let (count, bytes, seconds): (usize, usize, u64) =
        (argument("100").parse()?, argument("64").parse()?, argument("5").parse()?);
    let load = Load {
        count,
        message: vec![b'x'; bytes.max(1)],
        connected: 0,
        failed: 0,
        latencies: Vec::new(),
        stopping: false,
    };
    let config = Config { linger: Duration::from_millis(100), ..Config::default() };
    let mut event_loop = EventLoop::new(config, load)?;
    let (_, cx) = event_loop.parts();
    for _ in 0..count {
        cx.connect(&address, Trip::default())?;
    }
    cx.set_timer(Duration::from_secs(seconds), ());
    event_loop.run()?;

    let (load, _) = event_loop.parts();
    load.latencies.sort_unstable();
    let quantile = |part: usize| load.latencies.get(load.latencies.len() * part / 1000).copied().unwrap_or_default();
    println!(
        "{} connections, {} failed: {} round trips a second; {} µs in the middle, {} µs for 99 %, {} µs for 99.9 %",
        load.connected,
        load.failed,
        load.latencies.len() as u64 / seconds.max(1),
        quantile(500),
        quantile(990),
        quantile(999)
    );
    Ok(())
}
