//! The protocol under turmoil.

#[path = "../tasks.rs"]
mod tasks;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sim_compare::{Book, Bug, CLIENTS, Hardship, PATIENCE, Random, hardships, report};

mod rt {
    pub(super) use tokio::{io, select, spawn, sync, time};
    pub(super) use turmoil::net::{TcpListener, TcpStream};
}

fn main() {
    report::main(|bug, bound| report::search(bound, |seed| run(seed, bug)));
}

fn run(seed: u64, bug: Bug) {
    let mut random = Random(seed);
    let fail_rate = [0.0, 0.001, 0.01][usize::try_from(random.below(3)).unwrap_or_default()];
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .simulation_duration(PATIENCE)
        .fail_rate(fail_rate)
        .repair_rate(0.5)
        .build();
    let book = Arc::new(Mutex::new(Book::new(bug)));
    let durable = book.clone();
    sim.host("server", move || {
        let durable = durable.clone();
        async move { Ok(tasks::server(bug, durable).await?) }
    });
    for name in CLIENTS {
        sim.client(name, async move {
            tasks::client("server", name, bug).await;
            Ok(())
        });
    }
    let mut test = Test { sim, random, late: Vec::new() };
    for (at, hardship) in hardships(seed) {
        while test.sim.elapsed() < at {
            if test.step() {
                return book.lock().unwrap().check();
            }
        }
        test.apply(hardship);
    }
    // The random faults go on for a while.
    let calm = test.sim.elapsed() + Duration::from_secs(10);
    while !test.step() {
        if test.sim.elapsed() > calm {
            test.sim.set_fail_rate(0.0);
            for name in CLIENTS {
                test.sim.repair(name, "server");
            }
        }
    }
    book.lock().unwrap().check();
}

struct Test<'a> {
    sim: turmoil::Sim<'a>,
    random: Random,
    /// When messages that are still held arrive.
    late: Vec<(Duration, &'static str)>,
}

impl Test<'_> {
    /// Returns whether the clients are done.
    fn step(&mut self) -> bool {
        let now = self.sim.elapsed();
        for (_, name) in self.late.extract_if(.., |(at, _)| *at <= now) {
            self.sim.release(name, "server");
        }
        self.sim.step().unwrap()
    }

    fn apply(&mut self, hardship: Hardship) {
        let Self { sim, random, late } = self;
        match hardship {
            // A partition loses what is sent; a hold delays it.
            Hardship::Cut(client) if random.below(2) == 0 => sim.partition(CLIENTS[client], "server"),
            Hardship::Cut(client) => sim.hold(CLIENTS[client], "server"),
            // New messages get through at once, and those that are held later.
            Hardship::Heal(client) => {
                sim.repair(CLIENTS[client], "server");
                late.push((sim.elapsed() + Duration::from_millis(random.below(1_000)), CLIENTS[client]));
            }
            Hardship::Kill if sim.is_host_running("server") => sim.crash("server"),
            Hardship::Start if !sim.is_host_running("server") => sim.bounce("server"),
            Hardship::Kill | Hardship::Start => {}
        }
    }
}
