//! Budgets for the memory of the server, in bytes. On the simulated network memory is the same in
//! every run, so that one byte too many fails.
//!
//! The bytes are those requested from the allocator, with slabs full; the connections' share of the
//! simulated network is measured separately and subtracted. A slot takes 12 bytes more here than on
//! real sockets.

use std::net::SocketAddr;

use ccomet::{Config, Simulated};
use peak_alloc::PeakAlloc;
use sealed::sim::{Peer, Simulation};

/// A server of one loop without connections: most of it is the loop's read buffer of 64 KiB. The
/// counters for the metrics take 1 KiB, and what a reload of the settings needs takes 3 KiB.
const EMPTY_SERVER: usize = 98_000;
/// An idle subscriber by Server-Sent Events, in a channel with many.
const IDLE_SUBSCRIBER: usize = 136;
/// A channel on one loop: at its home, and at the attached hub, without its one subscriber.
const CHANNEL: usize = 512;
/// A message in a channel's history without its payload, while no client reads it.
const KEPT_MESSAGE: usize = 88;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// As many as fill a slab.
const COUNT: usize = 16_384;

fn held() -> usize {
    HEAP.current_usage()
}

struct Stage {
    sim: Simulation,
    server: Simulated,
}

impl Stage {
    fn new() -> Self {
        let sim = Simulation::new(1);
        let mut config = Config { loops: 1.try_into().ok(), ..Config::default() };
        config.admin.hosts = vec!["sim".to_owned()];
        config.times.heartbeat_s = 3_600;
        config.history.messages_max = 1 << 20;
        config.history.bytes_max = 1 << 28;
        config.history.total_bytes_max = 1 << 28;
        let server = Simulated::start(&sim, config).expect("it starts");
        sim.settle();
        Self { sim, server }
    }

    fn subscribe(&self, channel: impl Fn(usize) -> String) -> Vec<Peer> {
        subscribe(&self.sim, self.server.front(), channel)
    }
}

impl Stage {
    fn delete(&self, channel: &str) {
        let mut admin = self.sim.connect(self.server.admin());
        admin.send(format!("DELETE /channels/{channel} HTTP/1.1\r\nHost: sim\r\n\r\n"));
        admin.expect("HTTP/1.1 204");
    }
}

fn subscribe(sim: &Simulation, address: SocketAddr, channel: impl Fn(usize) -> String) -> Vec<Peer> {
    let mut peers = Vec::with_capacity(COUNT);
    for n in 0..COUNT {
        let mut peer = sim.connect(address);
        peer.discard();
        let channel = channel(n);
        peer.send(format!("GET /channels/{channel} HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n\r\n"));
        peers.push(peer);
        if n % 512 == 511 {
            sim.settle();
        }
    }
    peers
}

/// Returns the network's share of `COUNT` connections.
fn network_share() -> usize {
    let sim = Simulation::new(1);
    let host = sim.listen(SocketAddr::from(([127, 0, 0, 1], 8100))).expect("an address");
    let before = held();
    let mut peers = Vec::with_capacity(COUNT);
    for n in 0..COUNT {
        peers.push(sim.connect(host.address()));
        if n % 512 == 511 {
            sim.settle();
            while let Some(mut other) = host.accept() {
                other.discard();
                other.send("x");
                // The server counts this handle as part of its own slot.
                std::mem::forget(other);
            }
            sim.settle();
        }
    }
    for peer in &mut peers {
        peer.take();
    }
    held() - before
}

#[test]
fn memory_keeps_to_its_budgets() {
    let mut over = Vec::new();
    let mut check = |what: &str, bytes: usize, budget: usize| {
        println!("{what:<48} {bytes:>7} of {budget:>7} bytes");
        if bytes > budget {
            over.push(what.to_owned());
        }
    };
    // Allocates what a process allocates once.
    drop(Stage::new().subscribe(|_| "news".to_owned()));
    let network = network_share();

    let bare = Simulation::new(1);
    let before = held();
    let empty = Stage::new();
    let empty_sim = Simulation::new(1);
    let with_both = held();
    drop(empty_sim);
    check("an empty server of one loop", held() - before - (with_both - held()), EMPTY_SERVER);
    drop((empty, bare));

    let stage = Stage::new();
    let before = held();
    let peers = stage.subscribe(|_| "news".to_owned());
    let subscriber = (held() - before - network).div_ceil(COUNT);
    check("an idle subscriber", subscriber, IDLE_SUBSCRIBER);
    drop(peers);

    let stage = Stage::new();
    let before = held();
    let peers = stage.subscribe(|n| format!("channel{n}"));
    check("a channel", (held() - before - network).div_ceil(COUNT).saturating_sub(subscriber), CHANNEL);
    drop(peers);

    let stage = Stage::new();
    let payload = "x".repeat(100);
    let mut publisher = stage.sim.connect(stage.server.front());
    let mut publish = |count: usize| {
        for _ in 0..count {
            publisher
                .send(format!("POST /channels/news HTTP/1.1\r\nHost: sim\r\nContent-Length: 100\r\n\r\n{payload}"));
            publisher.expect("}\n");
        }
    };
    // This also fills the simulation's own record of events.
    publish(COUNT);
    stage.delete("news");
    publish(1);
    let before = held();
    publish(COUNT - 1);
    check("a kept message beyond its payload", ((held() - before) / (COUNT - 1)).saturating_sub(100), KEPT_MESSAGE);

    assert!(over.is_empty(), "over budget: {}", over.join(", "));
}
