//! Half-closing, watermarks, limits: how a connection is slowed down, and how it ends.

mod common;

use common::{Book, Node, SECOND, Told, address, ms};
use sealed::sim::{Link, Simulation};
use sealed::{CloseReason, Config, Listen};

fn stage(config: Config, book: Book) -> (Simulation, Node) {
    let sim = Simulation::new(4);
    let node = Node::start(&sim, config, book);
    node.act(|cx| cx.listen(address("10.0.0.1:80")).expect("it is free"));
    (sim, node)
}

#[test]
fn a_half_closed_connection_still_reads_and_ends_when_both_have_ended() {
    let (sim, node) = stage(Config::default(), Book::default());
    let mut peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.told();
    node.act(|cx| {
        assert!(cx.write(id, b"all there is"));
        cx.half_close(id);
        assert!(!cx.write(id, b"too late"));
    });
    assert_eq!(peer.expect_end(), b"all there is");
    peer.send("and more");
    sim.run_for(SECOND * 60);
    assert_eq!(node.received(), b"and more");
    assert_eq!(node.told(), [Told::Drained(id)]);
    peer.finish();
    sim.settle();
    assert_eq!(node.told(), [Told::Ended(id), Told::Closed(id, CloseReason::Ended)]);
    assert!(node.is_empty());
}

#[test]
fn half_closing_after_the_peer_has_ended_closes() {
    let (sim, node) = stage(Config::default(), Book::default());
    let mut peer = sim.connect(address("10.0.0.1:80"));
    peer.send("question");
    peer.finish();
    sim.settle();
    let id = node.only();
    assert_eq!(node.told()[1..], [Told::Ended(id)]);
    node.act(|cx| {
        cx.write(id, b"answer");
        cx.half_close(id);
    });
    assert_eq!(peer.expect_end(), b"answer");
    sim.settle();
    assert_eq!(node.told(), [Told::Closed(id, CloseReason::Ended)]);
}

#[test]
fn writing_tells_of_the_high_mark_and_drained_of_the_low_one() {
    let config = Config { output_high_bytes: 10_000, output_low_bytes: 4_000, ..Config::default() };
    let (sim, node) = stage(config, Book::default());
    sim.set_link(Link { buffer_bytes: 1_000, ..Link::default() });
    let mut peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.told();
    peer.stall();
    node.act(|cx| {
        assert!(cx.write(id, &[1; 3_000]));
        assert!(cx.has_room(id));
    });
    sim.settle();
    assert_eq!(node.told(), [], "below the low mark there is nothing to tell");
    node.act(|cx| assert!(!cx.write(id, &[2; 9_000]), "the high mark is passed"));
    sim.settle();
    assert_eq!((node.act(|cx| cx.queued(id)), node.told()), (11_000, vec![]));
    peer.unstall();
    while node.told().is_empty() {
        assert!(node.act(|cx| cx.queued(id)) > 4_000, "told when the low mark is reached");
        sim.run_for(ms(1));
    }
    assert!(node.act(|cx| cx.has_room(id)));
    sim.settle();
    assert_eq!(node.told(), [], "told once");
    assert_eq!(peer.take().len(), 12_000);
}

#[test]
fn what_is_queued_may_reach_its_limit_and_no_more() {
    let config = Config { output_bytes_max: 1_000, ..Config::default() };
    let (sim, node) = stage(config, Book::default());
    let mut peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.act(|cx| assert!(cx.write(id, &[1; 1_000])));
    sim.settle();
    assert_eq!(peer.take().len(), 1_000);
    node.act(|cx| {
        cx.write(id, &[1; 600]);
        assert!(!cx.write(id, &[1; 401]));
    });
    sim.settle();
    assert_eq!(node.told().last(), Some(&Told::Closed(id, CloseReason::OutputFull)));
}

#[test]
fn a_listener_has_a_limit_of_its_own_and_the_others_go_on() {
    let (sim, node) = stage(Config::default(), Book { ends: true, echoes: true, ..Book::default() });
    let few = node.act(|cx| cx.listen(Listen::on(address("10.0.0.1:81")).connections_max(2)).expect("it is free"));
    let mut peers: Vec<_> = (0..3).map(|_| sim.connect(address("10.0.0.1:81"))).collect();
    for peer in &mut peers {
        peer.send("hello");
    }
    sim.run_for(SECOND);
    assert_eq!(node.act(|cx| cx.connections_of(few)), 2);
    peers[0].expect("hello");
    assert_eq!(peers[2].take(), b"", "the backlog holds it");
    let turns = sim.turns();
    sim.run_for(SECOND * 10);
    assert!(sim.turns() - turns < 10, "and the loop sleeps");
    let mut other = sim.connect(address("10.0.0.1:80"));
    other.send("hello");
    other.expect("hello");
    peers[0].finish();
    peers[2].expect("hello");
    assert_eq!(node.act(|cx| cx.connections_of(few)), 2);
}
