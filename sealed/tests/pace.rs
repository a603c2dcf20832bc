//! Token buckets: how fast a connection, or a group of connections, may be read from and written
//! to.

mod common;

use bytes::Bytes;
use common::{Book, Call, Node, SECOND, address, ms};
use sealed::sim::{Faults, Peer, Simulation};
use sealed::{Config, ConnectionId, Rate, Rates};

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
const DROP_BY_DROP: Rate = Rate { bytes_per_second: 1, burst_bytes: 1 };

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
fn the_members_of_a_group_share_its_rate_and_none_takes_it_all() {
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
    // A connection that leaves the group is free.
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
    node.act(|cx| cx.set_rates(id, Rates { read: Some(DROP_BY_DROP), write: None }));
    peer.send(vec![7; 10_000]);
    // In the middle between two bytes.
    sim.run_for(SECOND * 5 + ms(500));
    assert!(node.received().len() <= 6);
    node.act(|cx| cx.set_rates(id, Rates::default()));
    sim.run_for(ms(10));
    assert!(node.received().len() >= 9_990);
    peer.finish();
    sim.run_for(SECOND * 10);
    assert!(node.is_empty());
}

#[test]
fn a_peer_that_sends_little_and_often_gets_its_whole_rate() {
    let (sim, node) = stage(false);
    let mut peer = connected(&sim);
    // The loop looks at the bucket ten times for each byte that the bucket gains.
    let rate = Rate { bytes_per_second: 100, burst_bytes: 10 };
    node.act(|cx| cx.set_rates(cx.connection_ids()[0], Rates { read: Some(rate), write: None }));
    for _ in 0..2_000 {
        peer.send([7]);
        sim.run_for(ms(1));
    }
    let received = node.received().len();
    assert!((200..=210).contains(&received), "{received} bytes in 2 s");
}

#[test]
fn after_a_pause_a_burst_passes_and_no_more() {
    let (sim, node) = stage(false);
    let mut peer = connected(&sim);
    node.act(|cx| cx.set_rates(cx.connection_ids()[0], Rates { read: Some(SLOW), write: None }));
    sim.run_for(SECOND * 10);
    peer.send(vec![7; 50_000]);
    sim.run_for(ms(10));
    let received = node.received().len();
    assert!((1_000..=1_100).contains(&received), "{received} bytes at once");
}

#[test]
fn output_written_through_keeps_to_its_rate() {
    let (sim, node) = stage(false);
    let mut peer = connected(&sim);
    let id = node.only();
    let is_sent = node.act(|cx| {
        cx.set_rates(id, Rates { read: None, write: Some(SLOW) });
        cx.write_through(id, &[vec![7; 15_000].into(), vec![8; 15_000].into()])
    });
    assert!(!is_sent, "most of it is queued");
    sim.run_for(SECOND);
    let got = peer.take().len();
    assert!((10_500..=11_000).contains(&got), "{got} bytes in the first second");
}

#[test]
fn closing_takes_as_long_as_the_rate_makes_it() {
    let (sim, node) = stage(false);
    let mut peer = connected(&sim);
    let longer_than_a_peer_may_be_silent = Config::default().linger.as_secs() * 2;
    let bytes = vec![7; (SLOW.bytes_per_second * longer_than_a_peer_may_be_silent) as usize];
    node.act(|cx| {
        let id = cx.connection_ids()[0];
        cx.set_rates(id, Rates { read: None, write: Some(SLOW) });
        cx.write(id, &bytes);
        cx.close(id);
    });
    assert_eq!(peer.expect_end().len(), bytes.len());
}

#[test]
fn input_that_a_closed_connection_discards_is_not_held_to_its_rate() {
    let (sim, node) = stage(false);
    let mut peer = connected(&sim);
    node.act(|cx| cx.set_rates(cx.connection_ids()[0], Rates { read: Some(DROP_BY_DROP), write: None }));
    peer.send(vec![7; 50_000]);
    sim.run_for(ms(1_500));
    node.act(|cx| cx.close(cx.connection_ids()[0]));
    peer.finish();
    sim.settle();
    assert!(node.is_empty());
}

#[test]
fn a_removed_group_limits_no_connection_and_its_id_finds_nothing() {
    let (sim, node) = stage(false);
    let rates = Rates { read: Some(DROP_BY_DROP), write: None };
    let group = node.act(|cx| cx.add_group(rates));
    let mut peer = connected(&sim);
    let id = node.only();
    node.act(|cx| cx.set_group(id, Some(group)));
    assert_eq!(node.act(|cx| cx.members(group)), 1);
    peer.send(vec![7; 1_000]);
    sim.run_for(SECOND * 3);
    assert!(node.received().len() < 10);
    assert!(node.act(|cx| cx.remove_group(group)));
    sim.run_for(SECOND * 3);
    assert!(node.received().len() > 990);
    // Another group has the slot now, and the stale id does not refer to it.
    let next = node.act(|cx| cx.add_group(rates));
    node.act(|cx| {
        assert!(!cx.remove_group(group));
        cx.set_group_rates(group, Rates::default());
        cx.set_group(id, Some(group));
        assert_eq!((cx.members(group), cx.members(next)), (0, 0));
    });
    peer.send(vec![7; 1_000]);
    sim.run_for(SECOND);
    assert_eq!(node.received().len(), 1_000);
    node.act(|cx| cx.set_group(id, Some(next)));
    assert_eq!(node.act(|cx| cx.members(next)), 1);
    drop(peer);
    sim.settle();
    assert_eq!(node.act(|cx| cx.members(next)), 0);
}

/// Connects a peer that reads nothing.
fn stalled(config: Config) -> (Simulation, Node, Peer, ConnectionId) {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, config, Book::default());
    let at = node.act(|cx| cx.listen(address("10.0.0.1:80")).expect("it is free")).address;
    let mut peer = sim.connect(at);
    peer.stall();
    sim.settle();
    let id = node.only();
    (sim, node, peer, id)
}

#[test]
fn a_queue_is_reported_as_drained_whatever_the_low_watermark_is() {
    for low in [0, 9_999, 10_000, 20_000] {
        let config = Config { output_high_bytes: 10_000, output_low_bytes: low, ..Config::default() };
        let (sim, node, mut peer, id) = stalled(config);
        while node.act(|cx| cx.write(id, &[b'x'; 1_000])) {
            sim.settle();
        }
        node.calls();
        peer.unstall();
        sim.settle();
        assert_eq!(node.calls(), [Call::Drained(id)], "{low}");
    }
}

#[test]
fn a_batch_that_is_written_through_is_awaited_only_above_the_low_watermark() {
    let config = Config { output_high_bytes: 40_000, output_low_bytes: 20_000, ..Config::default() };
    let (sim, node, mut peer, id) = stalled(config);
    let batch = [Bytes::from_static(&[b'x'; 1_000])];
    loop {
        let (is_through, queued) = node.act(|cx| (cx.write_through(id, &batch), cx.queued(id)));
        assert_eq!(is_through, queued <= 20_000, "{queued}");
        if queued > 21_000 {
            break;
        }
    }
    node.calls();
    peer.unstall();
    sim.settle();
    assert_eq!(node.calls(), [Call::Drained(id)]);
}
