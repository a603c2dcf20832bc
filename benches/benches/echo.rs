//! Small servers on loopback: `sealed` compared with a bare mio loop, polling, calloop and tokio,
//! each in a process of its own.
//!
//! `cargo bench -p benches --bench echo` prints criterion's figures for one case, and then a table
//! of all cases, measured in alternating rounds.

#![allow(clippy::cast_precision_loss)] // counts far below 2^52

use std::time::Duration;

use benches::echo::{BULK, MESSAGE, MESSAGES, Part, SERVERS};
use benches::echo_client::{Client, come_and_go, stream};
use benches::limits;
use benches::server::{Process, become_server_if_asked, pin_client};
use benches::table::{Better, Table, is_short};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Connections, bytes of a message, and round trips on each connection.
const ECHOES: [(usize, usize, usize); 8] = [
    (1, 64, 2_000),
    (1, 1_024, 2_000),
    (1, 65_536, 1_000),
    (100, 64, 200),
    (100, 1_024, 200),
    (100, 65_536, 60),
    // 64 KiB on each of them would measure the kernel's memory.
    (5_000, 64, 4),
    (5_000, 1_024, 4),
];

fn main() {
    become_server_if_asked();
    limits::raise_open_files();
    pin_client();
    let short = is_short();
    let (rounds, shrunk) = if short { (1, 100) } else { (5, 1) };
    let fewer = |count: usize| (count / shrunk).max(1);

    let servers = start(Part::Echo);
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    with_criterion(&mut criterion, &servers, fewer(200));
    criterion.final_summary();

    let mut table = Table::new("echo", "a second", Better::More, &SERVERS);
    for (connections, size, trips) in ECHOES {
        let case = format!("round trips, {connections} x {size} B");
        let (connections, trips) = (fewer(connections), fewer(trips));
        table.compare(&[&case], rounds, |server| {
            let time = exchange(&servers[server], connections, size, size, trips);
            Some(vec![rate(connections * trips, time)])
        });
    }
    let connections = fewer(1_000);
    table.compare(&["connections made and closed"], rounds, |server| {
        Some(vec![rate(connections, come_and_go(servers[server].address, connections))])
    });
    drop(servers);

    let servers = start(Part::Discard);
    let bulks = fewer(32);
    table.compare(&["MiB one way"], rounds * 2 - 1, |server| {
        let time = stream(servers[server].address, bulks);
        Some(vec![rate(bulks * (BULK >> 20), time)])
    });
    drop(servers);

    let servers = start(Part::Tell);
    for (connections, times) in [(1, 300), (100, 5)] {
        let case = format!("messages of {} B in answers of {MESSAGES}, {connections} connections", MESSAGE.len());
        let (connections, times) = (fewer(connections), fewer(times));
        table.compare(&[&case], rounds, |server| {
            let time = exchange(&servers[server], connections, 1, MESSAGES * MESSAGE.len(), times);
            Some(vec![rate(connections * times * MESSAGES, time)])
        });
    }
    table.finish();
}

fn start(part: Part) -> [Process; SERVERS.len()] {
    SERVERS.map(|server| Process::start_echo(server, part))
}

/// Measures exchanges on new connections, after one exchange on each that is not measured.
fn exchange(server: &Process, connections: usize, asked: usize, answered: usize, times: usize) -> Duration {
    let mut client = Client::connect(server.address, connections);
    client.exchange(asked, answered, 1);
    client.exchange(asked, answered, times)
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn with_criterion(criterion: &mut Criterion, servers: &[Process], trips: usize) {
    let mut group = criterion.benchmark_group("round trips, 100 x 64 B");
    group.throughput(Throughput::Elements(100 * trips as u64));
    for (name, server) in SERVERS.iter().zip(servers) {
        let mut client = Client::connect(server.address, 100);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|rounds| client.exchange(64, 64, trips * rounds as usize));
        });
    }
    group.finish();
}
