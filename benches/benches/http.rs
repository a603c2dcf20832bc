//! HTTP servers on loopback: `sealed-http` compared with a bare mio loop, hyper, actix-http and
//! nginx, each in a process of its own on one processor, and the client on another. With
//! `--features may`, `may_minihttp` is one of the peers.
//!
//! `cargo bench -p benches --bench http` prints criterion's figures for one case, and then two
//! tables of all cases, measured in alternating rounds: requests per second, and the cost of a
//! request in time of the server's processor.

#![allow(clippy::cast_precision_loss)] // counts far below 2^52

use std::fmt::Write as _;
use std::time::Duration;

use benches::http::SERVERS;
use benches::http_client::Client;
use benches::limits;
use benches::server::{Process, become_server_if_asked, pin_client};
use benches::table::{Better, Table, in_turn, is_short};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Connections, bytes of a body, requests sent at a time on each connection, and requests of a
/// round.
const CASES: [(usize, usize, usize, usize); 9] = [
    (1, SMALL, 1, 30_000),
    (100, SMALL, 1, 100_000),
    (10_000, SMALL, 1, 100_000),
    (1, SMALL, 16, 200_000),
    (100, SMALL, 16, 640_000),
    (10_000, SMALL, 16, 640_000),
    (1, LARGE, 1, 10_000),
    (100, LARGE, 1, 15_000),
    (10_000, LARGE, 1, 20_000),
];

const SMALL: usize = 100;
const LARGE: usize = 100_000;

/// The share of its processor below which the server was not the bottleneck.
const FULL: f64 = 0.95;

fn main() {
    become_server_if_asked();
    limits::raise_open_files();
    pin_client();
    let short = is_short();
    let (rounds, shrunk) = if short { (1, 100) } else { (5, 1) };
    let fewer = |count: usize| (count / shrunk).max(1);

    let mut servers = start(SMALL);
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    with_criterion(&mut criterion, &servers, fewer(10_000));
    criterion.final_summary();

    let names: Vec<_> = servers.iter().map(|(name, _)| *name).collect();
    let mut rates = Table::new("http", "requests a second", Better::More, &names);
    let mut costs = Table::new("http-cpu", "µs of the server's processor for a request", Better::Less, &names);
    let mut size = SMALL;
    for (connections, body_bytes, pipelined, requests) in CASES {
        if body_bytes != size {
            size = body_bytes;
            servers = start(size);
        }
        let mut case = format!("{connections} x {body_bytes} B");
        if pipelined > 1 {
            let _ = write!(case, ", pipelined by {pipelined}");
        }
        let (connections, requests) = (fewer(connections), fewer(requests));
        let medians = in_turn(servers.len(), rounds, |server| {
            Some(measure(&servers[server].1, connections, pipelined, body_bytes, requests))
        });
        let column = |figure: usize| medians.iter().map(|medians| medians.get(figure).copied()).collect::<Vec<_>>();
        rates.row(&case, &column(0));
        costs.row(&case, &column(1));
        if !short {
            note_waiting(&mut rates, &case, &names, &column(2));
        }
    }
    rates.finish();
    costs.finish();
}

/// Starts the servers that are available here.
fn start(body_bytes: usize) -> Vec<(&'static str, Process)> {
    let mut servers = Vec::new();
    for name in SERVERS {
        match Process::start_http(name, body_bytes) {
            Some(server) => servers.push((name, server)),
            None => println!("{name} is not here, and is left out."),
        }
    }
    servers
}

/// Measures requests per second, microseconds of the server's processor for each request, and the
/// share of its processor that the server used.
fn measure(server: &Process, connections: usize, pipelined: usize, body_bytes: usize, requests: usize) -> Vec<f64> {
    let mut client = Client::connect(server.address, connections, pipelined, body_bytes);
    // The first batch on each connection is not measured.
    client.exchange(connections * pipelined);
    let before = server.processor_time();
    let (count, time) = client.exchange(requests);
    let used = server.processor_time().saturating_sub(before);
    let share = used.as_secs_f64() / time.as_secs_f64();
    vec![count as f64 / time.as_secs_f64(), used.as_secs_f64() * 1e6 / count as f64, share]
}

/// Notes in the table which cases were limited by something other than the server.
fn note_waiting(table: &mut Table, case: &str, names: &[&str], shares: &[Option<f64>]) {
    let shares = names.iter().zip(shares).filter_map(|(name, share)| Some((name, (*share)?)));
    let waiting: Vec<_> = shares
        .filter(|(_, share)| *share < FULL)
        .map(|(name, share)| format!("{name} {:.0} %", share * 100.0))
        .collect();
    if !waiting.is_empty() {
        table.note(&format!("{case}: the server's processor was not full: {}.", waiting.join(", ")));
    }
}

fn with_criterion(criterion: &mut Criterion, servers: &[(&'static str, Process)], requests: usize) {
    let mut group = criterion.benchmark_group("100 connections, 100 B");
    group.throughput(Throughput::Elements(requests as u64));
    for (name, server) in servers {
        let mut client = Client::connect(server.address, 100, 1, SMALL);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|rounds| client.exchange(requests * rounds as usize).1);
        });
    }
    group.finish();
}
