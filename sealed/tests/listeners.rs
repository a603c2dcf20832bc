//! Limits and socket options that a listener has for itself.

mod common;

use std::io::ErrorKind;

use common::{Book, Call, Node, SECOND, address};
use sealed::sim::Simulation;
use sealed::{CloseReason, Config, Listen, SocketOptions};

fn stage(config: Config, book: Book) -> (Simulation, Node) {
    let sim = Simulation::new(4);
    let node = Node::start(&sim, config, book);
    node.act(|cx| cx.listen(address("10.0.0.1:80")).expect("it is free"));
    (sim, node)
}

#[test]
fn a_listener_has_a_limit_of_its_own_and_the_others_go_on() {
    let (sim, node) = stage(Config::default(), Book { ends: true, echoes: true, ..Book::default() });
    let listen = Listen::on(address("10.0.0.1:81")).connections_max(2);
    let few = node.act(|cx| cx.listen(listen).expect("it is free")).listener;
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

#[test]
fn a_listener_has_socket_options_of_its_own() {
    let (sim, node) = stage(Config::default(), Book::default());
    let impatient = SocketOptions { silence_max: Some(SECOND * 5), ..SocketOptions::default() };
    node.act(|cx| cx.listen(Listen::on(address("10.0.0.1:81")).socket(impatient)).expect("it is free"));
    let mut silent = [80, 81].map(|port| sim.connect(address(&format!("10.0.0.1:{port}"))));
    sim.settle();
    silent.iter_mut().for_each(sealed::sim::Peer::vanish);
    node.calls();
    sim.run_for(SECOND * 10);
    assert!(matches!(node.calls()[..], [Call::Closed(_, CloseReason::Failed(ErrorKind::TimedOut))]));
    node.only();
}
