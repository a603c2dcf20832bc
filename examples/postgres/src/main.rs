//! Runs queries, and prints their answers, and a dot each 100 ms meanwhile.
//!
//! Try it in this folder: `cargo run -- "host=/run/postgresql dbname=postgres" "SELECT pg_sleep(2)"
//! "SELECT 1"`.

use std::io::{self, Write};

use postgres::Queries;
use sealed::{Config, EventLoop};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let to = arguments.next().unwrap_or_else(|| "host=/run/postgresql dbname=postgres".to_owned());
    let mut queries = Queries::connect(&to, arguments)?;
    queries.on_beat = || {
        eprint!(".");
        let _ = io::stderr().flush();
    };
    let mut event_loop = EventLoop::new(Config::default(), queries)?;
    event_loop.stop_on_signals()?;
    event_loop.run()?;
    for answer in &event_loop.service().answers {
        match &answer.rows {
            Ok(rows) => rows.iter().for_each(|row| println!("{row:?}")),
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
