//! One message to many subscribers: this server, in memory and with a store on disk, compared with
//! a bare loop that writes the same prepared bytes to as many sockets.
//!
//! `cargo bench -p benches --bench fan_out` prints criterion's figures for each, and then a table
//! of ratios from alternating rounds. Server and client are processes of their own, each on its own
//! processor if there are two.

#![allow(clippy::cast_precision_loss)] // counts far below 2^52

use benches::client::Client;
use benches::server::{Kind, Process, become_server_if_asked, pin_client};
use criterion::{Criterion, Throughput};

/// A case: the numbers of publishers and subscribers, and the wanted ratio to the floor.
struct Case {
    name: &'static str,
    subscribers: usize,
    publishers: usize,
    wanted: f64,
}

const CASES: [Case; 3] = [
    Case { name: "1,000 subscribers, one message at a time", subscribers: 1_000, publishers: 1, wanted: 0.9 },
    Case { name: "10,000 subscribers, one message at a time", subscribers: 10_000, publishers: 1, wanted: 0.9 },
    Case { name: "10,000 subscribers, eight publishers at once", subscribers: 10_000, publishers: 8, wanted: 3.0 },
];

fn main() {
    become_server_if_asked();
    pin_client();
    let short = std::env::args().any(|argument| argument == "--test");
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut table = Vec::new();
    for case in &CASES {
        let subscribers = if short { 50 } else { case.subscribers };
        let mut group = criterion.benchmark_group(case.name);
        group.throughput(Throughput::Elements((subscribers * case.publishers) as u64));
        let servers = [Kind::Ccomet, Kind::Stored, Kind::Bare].map(|kind| (kind, Process::start(kind)));
        for (kind, server) in &servers {
            let mut client = Client::connect(server.address, subscribers, case.publishers);
            group.bench_function(format!("{kind:?}"), |bencher| {
                bencher.iter_custom(|rounds| client.round(rounds as usize));
            });
        }
        group.finish();
        table.push(in_turn(case, subscribers, &servers, short));
    }
    criterion.final_summary();
    println!("\n| deliveries a second | ccomet | bare loop | ratio | wanted | with a store, to memory |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let mut cpu = Vec::new();
    for (row, cpu_row) in table {
        println!("{row}");
        cpu.push(cpu_row);
    }
    println!("\n| processor time, seconds per million | ccomet | with a store | bare loop |");
    println!("| --- | ---: | ---: | ---: |");
    for row in cpu {
        println!("{row}");
    }
}

/// Measures alternating rounds, so that all servers meet the same conditions. Returns the rows of
/// both tables with the medians.
fn in_turn(case: &Case, subscribers: usize, servers: &[(Kind, Process); 3], short: bool) -> (String, String) {
    let rounds = if short { 1 } else { 5 };
    let messages = if short { 2 } else { (400_000 / (subscribers * case.publishers)).max(12) };
    let deliveries = (messages * subscribers * case.publishers) as f64;
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    let mut cpu = [0.0; 3];
    for _ in 0..rounds {
        for (((_, server), rates), cpu) in servers.iter().zip(&mut rates).zip(&mut cpu) {
            // One after the other: a process may not be able to hold the sockets for both at once.
            let mut client = Client::connect(server.address, subscribers, case.publishers);
            client.round(1);
            let before = server.processor_time();
            rates.push(deliveries / client.round(messages).as_secs_f64());
            *cpu += server.processor_time().saturating_sub(before).as_secs_f64() / (deliveries * f64::from(rounds))
                * 1_000_000.0;
        }
    }
    let [ours, stored, bare] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    let row = format!(
        "| {} | {ours:.0} | {bare:.0} | {:.2} | {:.1} | {:.2} |",
        case.name,
        ours / bare,
        case.wanted,
        stored / ours
    );
    (row, format!("| {} | {:.2} | {:.2} | {:.2} |", case.name, cpu[0], cpu[1], cpu[2]))
}
