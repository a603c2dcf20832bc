//! The protocol under madsim.

#[cfg(not(madsim))]
compile_error!("madsim simulates only with `--cfg madsim`: run .ci/sim-compare");

#[path = "../tasks.rs"]
mod tasks;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madsim::net::NetSim;
use madsim::runtime::{Handle, NodeHandle, Runtime};
use madsim::time::{Instant, sleep, sleep_until};
use madsim::{Config, buggify};
use sim_compare::{Book, Bug, CLIENTS, Hardship, PATIENCE, Random, hardships, report};

mod rt {
    pub(super) use madsim_tokio::net::{TcpListener, TcpStream};
    pub(super) use madsim_tokio::{io, select, spawn, sync, time};
}

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn main() {
    report::main(|bug, bound| report::search(bound, |seed| run(seed, bug)));
}

fn run(seed: u64, bug: Bug) {
    let mut random = Random(seed);
    let mut config = Config::default();
    config.net.packet_loss_rate = [0.0, 0.01, 0.1][usize::try_from(random.below(3)).unwrap_or_default()];
    let mut runtime = Runtime::with_seed_and_config(seed, config);
    runtime.set_time_limit(PATIENCE);
    let book = Arc::new(Mutex::new(Book::new(bug)));
    runtime.block_on(scene(seed, bug, book.clone()));
    book.lock().unwrap().check();
}

async fn scene(seed: u64, bug: Bug, book: Arc<Mutex<Book>>) {
    let handle = Handle::current();
    if seed.is_multiple_of(2) {
        buggify::enable();
    }
    let durable = move || tasks::server(bug, book.clone());
    let server = handle.create_node().name("server").ip(IpAddr::V4(SERVER));
    let server = server.init(move || serve(durable())).build();
    let (mut nodes, mut clients) = (Vec::new(), Vec::new());
    for (name, last) in CLIENTS.into_iter().zip(2..) {
        let node = handle.create_node().name(name).ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))).build();
        clients.push(node.spawn(async move { tasks::client("10.0.0.1", name, bug).await }));
        nodes.push(node);
    }
    let start = Instant::now();
    for (at, hardship) in hardships(seed) {
        sleep_until(start + at).await;
        apply(&handle, &server, &nodes, hardship);
    }
    // The random faults go on for a while.
    sleep(Duration::from_secs(10)).await;
    buggify::disable();
    NetSim::current().update_config(|config| config.packet_loss_rate = 0.0);
    for client in clients {
        client.await.unwrap();
    }
}

async fn serve(server: impl Future<Output = std::io::Result<()>>) {
    // The address is free.
    server.await.unwrap();
}

fn apply(handle: &Handle, server: &NodeHandle, clients: &[NodeHandle], hardship: Hardship) {
    let net = NetSim::current();
    match hardship {
        Hardship::Cut(client) => {
            net.clog_link(clients[client].id(), server.id());
            net.clog_link(server.id(), clients[client].id());
        }
        Hardship::Heal(client) => {
            net.unclog_link(clients[client].id(), server.id());
            net.unclog_link(server.id(), clients[client].id());
        }
        Hardship::Kill => handle.kill(server.id()),
        Hardship::Start if handle.is_exit(server.id()) => handle.restart(server.id()),
        Hardship::Start => {}
    }
}
