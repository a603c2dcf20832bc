//! The memory of a server with many idle subscribers, up to a million, on the simulated network,
//! and, for comparison, on real sockets.
//!
//! `cargo run --release -p benches --features sim --bin scale` prints the whole table; with
//! `-- 200000`, the row for that number of subscribers.
//!
//! Each figure is that of a process of its own, as the system reports it (`VmSize`, `VmRSS`). A
//! simulated row is a process with server and network, less the memory that as many connections add
//! to a process with the network alone.

use std::net::SocketAddr;
use std::process::Command;

use benches::server::{Kind, Process, become_server_if_asked, settled};
use ccomet::{Config, Simulated};
use sealed::sim::{Peer, Simulation};
use testing::http::subscribe;
use testing::process::memory_kib;

const COUNTS: [usize; 6] = [0, 10_000, 50_000, 100_000, 200_000, 1_000_000];

/// By default a process may have 20,000 descriptors on many machines, and the client needs as many
/// as the server.
const REAL_MAX: usize = 19_000;

/// Connections that are being made at a time.
const BATCH: usize = 1_000;

const REQUEST: &str = "GET /channels/news HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n\r\n";

fn main() {
    become_server_if_asked();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["server", count] => with_server(count.parse().expect("a number")),
        ["network", count] => network_alone(count.parse().expect("a number")),
        [count] => row(count.parse().expect("a number")),
        _ => {
            println!("subscribers  network      VIRT KiB    RES KiB  bytes each");
            COUNTS.into_iter().for_each(row);
            [0, 10_000, REAL_MAX].into_iter().for_each(real_row);
        }
    }
}

fn row(count: usize) {
    let (virt, res) = figures("server", count);
    let (network_virt, network_res) = figures("network", count);
    let (empty_virt, empty_res) = (figures("network", 0), figures("server", 0));
    // The share of the network is the memory that its connections add to a process that has none.
    let (virt, res) = (virt - (network_virt - empty_virt.0), res - (network_res - empty_virt.1));
    print(count, "simulated", virt, res, empty_res.1);
}

fn real_row(count: usize) {
    let server = Process::start(Kind::Ccomet);
    let empty = settled(&server);
    let streams: Vec<_> = (0..count).map(|_| subscribe(server.address, "news")).collect();
    let res = settled(&server);
    print(count, "sockets", memory_kib(server.id(), "VmSize"), res, empty);
    drop(streams);
}

fn print(count: usize, network: &str, virt: u64, res: u64, empty: u64) {
    let each = (res.saturating_sub(empty) * 1_024).checked_div(count as u64);
    let each = each.map_or(String::new(), |each| each.to_string());
    println!("{count:>11}  {network:<9}  {virt:>10}  {res:>9}  {each:>10}");
}

/// Returns `VmSize` and `VmRSS`, in KiB, of a process of this program in one of the roles below.
fn figures(role: &str, count: usize) -> (u64, u64) {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).args([role, &count.to_string()]).output().expect("a process");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
    (numbers.next().expect("VmSize"), numbers.next().expect("VmRSS"))
}

fn with_server(count: usize) {
    let sim = Simulation::new(1);
    let mut config = Config { loops: 1.try_into().ok(), ..Config::default() };
    config.limits.connections_max = 2_000_000;
    config.limits.subscribers_max = 2_000_000;
    config.limits.subscribers_per_channel_max = 2_000_000;
    config.times.heartbeat_s = 3_600;
    let server = Simulated::start(&sim, config).expect("a server");
    let peers = connect(&sim, server.front(), count, |_| {});
    assert_eq!(server.holdings().subscribers, count);
    print_figures();
    drop(peers);
}

fn network_alone(count: usize) {
    let sim = Simulation::new(1);
    let host = sim.listen(SocketAddr::from(([127, 0, 0, 1], 8100))).expect("an address");
    let mut others = 0;
    let peers = connect(&sim, host.address().inet().expect("TCP"), count, |sim| {
        while let Some(mut other) = host.accept() {
            other.discard();
            other.send("HTTP/1.1 200 OK\r\n\r\n");
            others += 1;
            // A server keeps this handle in its slot, where it counts as memory of the server.
            std::mem::forget(other);
        }
        sim.settle();
    });
    assert_eq!(others, count);
    print_figures();
    drop(peers);
}

/// Connects this many peers, each of which subscribes.
fn connect(sim: &Simulation, address: SocketAddr, count: usize, mut between: impl FnMut(&Simulation)) -> Vec<Peer> {
    let mut peers = Vec::with_capacity(count);
    while peers.len() < count {
        for _ in 0..BATCH.min(count - peers.len()) {
            let mut peer = sim.connect(address);
            peer.discard();
            peer.send(REQUEST);
            peers.push(peer);
        }
        sim.settle();
        between(sim);
    }
    peers
}

fn print_figures() {
    let own = std::process::id();
    println!("{} {}", memory_kib(own, "VmSize"), memory_kib(own, "VmRSS"));
}
