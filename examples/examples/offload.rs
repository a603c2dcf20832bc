//! Work that blocks: workers compute answers that take long, which come back as messages.
//!
//! Try it: `cargo run -p examples --example offload`, then `nc 127.0.0.1 7777` and a number per
//! line. The answer is the number of primes up to it.

use sealed::{Config, ConnectionId, Context, EventLoop, Input, Job, Service, Workers};

struct Primes {
    workers: Workers,
}

/// An answer, and the connection that it is for.
type Answer = (ConnectionId, String);

impl Service for Primes {
    type Connection = ();
    type Message = Answer;
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while let Some(line) = input.take_until(b'\n') {
            let number = std::str::from_utf8(line.trim_ascii()).ok().and_then(|text| text.parse().ok());
            let Some(number) = number.filter(|number| *number <= 10_000_000) else {
                cx.write(id, b"a number up to 10,000,000\n");
                continue;
            };
            // If the client leaves, nobody needs the answer any more, and the work ends early.
            let work = cx.offload_for(id, &self.workers, move |job| (id, answer(job, number)));
            if work.is_err() {
                cx.write(id, b"busy, ask again\n");
            }
        }
        if input.len() > 1_000 {
            cx.abort(id);
        }
    }

    fn message(&mut self, cx: &mut Context<Self>, (id, answer): Answer) {
        cx.write(id, answer.as_bytes());
    }
}

/// Counts the primes up to `limit`. Runs on a thread of the workers.
fn answer(job: &Job<Answer>, limit: u32) -> String {
    let mut composite = vec![false; limit as usize + 1];
    let mut count = 0;
    for number in 2..composite.len() {
        if number % 1_024 == 0 && job.is_cancelled() {
            return String::new();
        }
        if !composite[number] {
            count += 1;
            (number * number..composite.len()).step_by(number).for_each(|multiple| composite[multiple] = true);
        }
    }
    format!("{count} primes up to {limit}\n")
}

fn main() -> sealed::Result<()> {
    // Two computations at a time; a thousand questions wait.
    let workers = Workers::new(2, 1_000);
    let mut event_loop = EventLoop::new(Config::default(), Primes { workers })?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    println!("listening on {}", event_loop.listen(address)?.address);
    event_loop.stop_on_signals()?;
    event_loop.run()
}
