//! Token buckets: how fast a connection, or a group of them, may be read from and written to.

mod common;

use common::{Book, Node, SECOND, address, ms};
use sealed::sim::{Faults, Peer, Simulation};
use sealed::{Config, Rate, Rates};

fn stage(echoes: bool) -> (Simulation, Node) {
    let sim = Simulation::new(3);
    let node = Node::start(&sim, Config::default(), Book { echoes, ends: true, ..Book::default() });
    node.act(|cx| cx.listen(address("10.0.0.1:80")).expect("it is free"));
    (sim, node)
}

fn connected(sim: &Simulation) -> Peer {
    let peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    peer
}

const SLOW: Rate = Rate { bytes_per_second: 10_000, burst_bytes: 1_000 };

#[test]
fn reading_keeps_to_its_rate_and_loses_nothing() {
    let (sim, node) = stage(false);
    let mut peer = connected(&sim);
    node.act(|cx| cx.set_rates(cx.connection_ids()[0], Rates { read: Some(SLOW), write: None }));
    peer.send(vec![7; 50_000]);
    let mut total = 0;
    for second in 1..=4 {
        sim.run_for(SECOND);
        total += node.received().len();
        let allowed = 1_000 + second * 10_000;
        assert!(total <= allowed && total + 500 >= allowed, "{total} bytes after {second} s");
    }
    sim.run_for(SECOND * 2);
    assert_eq!(total + node.received().len(), 50_000);
}

#[test]
fn writing_keeps_to_its_rate_and_its_order() {
    let (sim, node) = stage(true);
    sim.set_faults(Faults { short_write: 0.3, would_block: 0.2, ..Faults::default() });
    let mut peer = connected(&sim);
    node.act(|cx| cx.set_rates(cx.connection_ids()[0], Rates { read: None, write: Some(SLOW) }));
    let bytes: Vec<u8> = (0..30_000_u32).map(|n| (n % 251) as u8).collect();
    peer.send(&bytes);
    sim.run_for(SECOND);
    let got = peer.take();
    assert!(got.len() <= 11_500 && got.len() >= 9_500, "{} bytes in the first second", got.len());
    // Closing sends the rest at the same pace, for as long as it takes.
    node.act(|cx| cx.close(cx.connection_ids()[0]));
    let rest = peer.expect_end();
    assert_eq!([got, rest].concat(), bytes);
    peer.finish();
    sim.run_for(SECOND * 10);
    assert!(node.is_empty());
}

#[test]
fn a_group_shares_its_rate_and_none_takes_all() {
    let (sim, node) = stage(false);
    let group = node.act(|cx| cx.add_group(Rates { read: Some(SLOW), write: None }));
    let mut peers: Vec<Peer> = (0..4).map(|_| connected(&sim)).collect();
    node.act(|cx| {
        for id in cx.connection_ids() {
            cx.set_group(id, Some(group));
        }
    });
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.send(vec![number as u8; 100_000]);
    }
    sim.run_for(SECOND * 10);
    let received = node.received();
    assert!(received.len() <= 101_000 && received.len() >= 99_000, "{} bytes in all", received.len());
    for number in 0..4 {
        let share = received.iter().map(|byte| usize::from(*byte == number)).sum::<usize>();
        assert!((20_000..=30_000).contains(&share), "{share} bytes of connection {number}");
    }
    // Who leaves is free.
    node.act(|cx| {
        for id in cx.connection_ids() {
            cx.set_group(id, None);
        }
    });
    sim.run_for(ms(100));
    assert_eq!(received.len() + node.received().len(), 400_000);
}

#[test]
fn a_rate_can_be_changed_and_taken_away_while_a_connection_waits() {
    let (sim, node) = stage(false);
    let mut peer = connected(&sim);
    let id = node.only();
    let drop_by_drop = Rate { bytes_per_second: 1, burst_bytes: 1 };
    node.act(|cx| cx.set_rates(id, Rates { read: Some(drop_by_drop), write: None }));
    peer.send(vec![7; 10_000]);
    sim.run_for(SECOND * 5);
    assert!(node.received().len() <= 6);
    node.act(|cx| cx.set_rates(id, Rates::default()));
    sim.run_for(ms(10));
    assert!(node.received().len() >= 9_990);
    peer.finish();
    sim.run_for(SECOND * 10);
    assert!(node.is_empty());
}
