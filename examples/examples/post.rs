//! Work on other threads: a worker computes what takes long, and its answer comes back by mailbox.
//!
//! Try it: `cargo run -p examples --example post`, then `nc 127.0.0.1 7777` and a number per line.
//! The answer is the number of primes up to it.

use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use sealed::{Config, ConnectionId, Context, EventLoop, Input, Mailbox, PostError, Service};

/// Maximum number of questions that wait for the worker.
const WAITING_MAX: usize = 1_000;

struct Primes {
    worker: SyncSender<(ConnectionId, u32)>,
}

impl Service for Primes {
    type Connection = ();
    /// An answer, and the connection that it is for. If the connection is gone, its id finds
    /// nothing.
    type Message = (ConnectionId, String);
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while let Some(line) = input.take_until(b'\n') {
            let number = std::str::from_utf8(line.trim_ascii()).ok().and_then(|text| text.parse().ok());
            let Some(number) = number.filter(|number| *number <= 10_000_000) else {
                cx.write(id, b"a number up to 10,000,000\n");
                continue;
            };
            // A loop must not wait: if the worker has too much to do, the client gets that as the
            // answer.
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.worker.try_send((id, number)) {
                cx.write(id, b"busy, ask again\n");
            }
        }
        if input.len() > 1_000 {
            cx.abort(id);
        }
    }

    fn message(&mut self, cx: &mut Context<Self>, (id, answer): Self::Message) {
        cx.write(id, answer.as_bytes());
    }
}

fn count_primes(limit: u32) -> usize {
    let mut composite = vec![false; limit as usize + 1];
    let mut count = 0;
    for number in 2..composite.len() {
        if !composite[number] {
            count += 1;
            (number * number..composite.len()).step_by(number).for_each(|multiple| composite[multiple] = true);
        }
    }
    count
}

/// Posts an answer. Unlike a loop, a worker may wait if the mailbox is full.
fn post(mailbox: &Mailbox<(ConnectionId, String)>, mut answer: (ConnectionId, String)) -> Result<(), ()> {
    loop {
        match mailbox.post(answer) {
            Ok(()) => return Ok(()),
            Err(PostError::Full(refused)) => answer = refused,
            Err(PostError::Gone(_)) => return Err(()),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn main() -> sealed::Result<()> {
    let (worker, questions) = mpsc::sync_channel(WAITING_MAX);
    let mut event_loop = EventLoop::new(Config::default(), Primes { worker })?;
    let mailbox = event_loop.mailbox();
    let worker = thread::spawn(move || {
        for (id, number) in questions {
            let answer = format!("{} primes up to {number}\n", count_primes(number));
            if post(&mailbox, (id, answer)).is_err() {
                return;
            }
        }
    });
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    println!("listening on {}", event_loop.listen(address)?);
    event_loop.stop_on_signals()?;
    let outcome = event_loop.run();
    // The service is dropped with the loop, and with it the sender of the worker's questions. An
    // answer that the worker still computes is refused.
    drop(event_loop);
    let _ = worker.join();
    outcome
}
