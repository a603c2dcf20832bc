//! Connecting: one of several addresses, a time limit, a single report.

mod common;

use std::io::ErrorKind;

use common::{Book, Call, Node, SECOND, address, ms, rough};
use sealed::sim::{Faults, Simulation};
use sealed::{Address, CloseReason, Config, Connect};

/// Creates a loop that connects, and an echo server on each of these addresses.
fn stage(servers: &[&str]) -> (Simulation, Node, Vec<Node>) {
    let sim = Simulation::new(5);
    let servers = servers.iter().map(|at| Node::echo(&sim, &address(at))).collect();
    let caller = Node::start(&sim, Config::default(), Book::default());
    sim.settle();
    (sim, caller, servers)
}

fn addresses(texts: &[&str]) -> Vec<Address> {
    texts.iter().map(|text| address(text)).collect()
}

#[test]
fn the_next_address_is_tried_after_a_quarter_of_a_second_without_an_answer() {
    let (sim, caller, _servers) = stage(&["[2001:db8::1]:80", "10.0.0.1:80"]);
    sim.set_unreachable(address("[2001:db8::1]:80"));
    let start = sim.now();
    let id = caller.act(|cx| {
        let id = cx.connect(Connect::to_any(addresses(&["[2001:db8::1]:80", "10.0.0.1:80"])), ()).expect("started");
        cx.write(id, b"hello");
        id
    });
    sim.run_for(SECOND);
    let calls = caller.calls_at();
    assert_eq!(calls.iter().map(|(_, call)| call).collect::<Vec<_>>(), [&Call::Connected(id), &Call::Drained(id)]);
    let took = calls[0].0.saturating_sub(start);
    assert!(took >= ms(250) && took < ms(260), "{took:?}");
    assert_eq!(caller.received(), b"hello", "what was written before is sent then");
    assert_eq!(caller.act(|cx| cx.peer_addr(id)), Some(address("10.0.0.1:80")));
    // The attempt that was given up holds no socket: two listeners and both ends of the connection
    // are left.
    assert_eq!(sim.descriptors(), 4);
    sim.run_for(SECOND * 100);
    assert_eq!(caller.calls(), [], "one call");
}

#[test]
fn the_next_address_is_tried_at_once_after_a_refusal() {
    let (sim, caller, _servers) = stage(&["10.0.0.3:80"]);
    let start = sim.now();
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.run_for(SECOND);
    let calls = caller.calls_at();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].1, Call::Connected(id));
    assert!(calls[0].0.saturating_sub(start) < ms(10), "{:?}", calls[0].0.saturating_sub(start));
}

#[test]
fn of_two_attempts_that_succeed_the_first_is_kept_and_the_other_closed() {
    let (sim, caller, servers) = stage(&["10.0.0.1:80", "10.0.0.2:80"]);
    sim.set_faults(Faults { slow_connect: 1.0, ..Faults::default() });
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80"]);
    let id = caller.act(|cx| cx.connect(Connect::to_any(all).stagger(ms(1)), ()).expect("started"));
    sim.run_for(ms(500));
    // Both attempts are repeated after a second, a millisecond apart.
    sim.set_faults(Faults::default());
    sim.run_for(SECOND * 3);
    assert_eq!(caller.calls(), [Call::Connected(id)]);
    assert_eq!(caller.act(|cx| cx.connections()), 1);
    let accepted = |server: &Node| server.calls().iter().filter(|call| matches!(call, Call::Accepted(..))).count();
    assert!(servers.iter().map(accepted).sum::<usize>() >= 1);
    let left: usize = servers.iter().map(|server| server.act(|cx| cx.connections())).sum();
    assert_eq!(left, 1, "the server of the other attempt sees its end");
}

#[test]
fn a_connection_that_fails_is_reported_once_with_the_last_failure() {
    let (sim, caller, _servers) = stage(&[]);
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80"]);
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.run_for(SECOND * 20);
    assert_eq!(caller.calls(), [Call::Closed(id, CloseReason::NotConnected(ErrorKind::ConnectionRefused))]);
    assert!(caller.is_empty());
    assert_eq!(sim.descriptors(), 0);
}

#[test]
fn one_time_limit_holds_for_all_attempts_together() {
    let (sim, caller, _servers) = stage(&[]);
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    for at in &all {
        sim.set_unreachable(at.clone());
    }
    let start = sim.now();
    let id = caller.act(|cx| cx.connect(Connect::to_any(all).limit(SECOND * 3), ()).expect("started"));
    sim.run_for(SECOND);
    assert_eq!(sim.descriptors(), 3, "all are tried side by side");
    sim.run_for(SECOND * 10);
    let calls = caller.calls_at();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].1, Call::Closed(id, CloseReason::NotConnected(ErrorKind::TimedOut)));
    assert!(calls[0].0.saturating_sub(start) >= SECOND * 3 && calls[0].0.saturating_sub(start) < ms(3_010));
    assert_eq!(sim.descriptors(), 0);
}

#[test]
fn aborting_a_connection_that_is_being_made_ends_all_its_attempts() {
    let (sim, caller, _servers) = stage(&[]);
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80"]);
    for at in &all {
        sim.set_unreachable(at.clone());
    }
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.run_for(SECOND);
    caller.act(|cx| cx.abort(id));
    sim.run_for(SECOND * 60);
    assert_eq!(caller.calls(), [Call::Closed(id, CloseReason::Aborted)]);
    assert!(caller.is_empty());
    assert_eq!(sim.descriptors(), 0);
}

#[test]
fn connecting_without_an_address_or_without_room_fails_at_once() {
    let sim = Simulation::new(1);
    let config = Config { connections_max: 0, ..Config::default() };
    let full = Node::start(&sim, config, Book::default());
    assert!(full.act(|cx| cx.connect(address("10.0.0.1:80"), ()).is_err()));
    let caller = Node::start(&sim, Config::default(), Book::default());
    assert!(caller.act(|cx| cx.connect(Connect::to_any(Vec::<Address>::new()), ()).is_err()));
    sim.set_descriptors_max(0);
    assert!(caller.act(|cx| cx.connect(address("10.0.0.1:80"), ()).is_err()));
    sim.run_for(SECOND * 20);
    assert!(caller.is_empty());
    assert_eq!(caller.act(|cx| cx.stats().connections), 0, "nor are they counted");
    assert_eq!(caller.calls(), []);
}

#[test]
fn address_families_alternate_so_that_an_unreachable_family_costs_one_wait() {
    let (sim, caller, _servers) = stage(&["10.0.0.1:80"]);
    let all = addresses(&["[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80", "10.0.0.1:80"]);
    for at in &all[..3] {
        sim.set_unreachable(at.clone());
    }
    let start = sim.now();
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.run_for(SECOND);
    let calls = caller.calls_at();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].1, Call::Connected(id));
    let took = calls[0].0.saturating_sub(start);
    assert!(took >= ms(250) && took < ms(260), "{took:?}");
}

#[test]
fn an_established_connection_leaves_no_timer_behind() {
    let (sim, caller, _servers) = stage(&["10.0.0.1:80"]);
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80"]);
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.settle();
    assert_eq!(caller.calls(), [Call::Connected(id)]);
    let turns = sim.turns();
    sim.run_for(SECOND * 60);
    assert_eq!(sim.turns(), turns, "all loops sleep");
}

#[test]
fn a_connection_closed_while_connecting_still_sends_its_output() {
    let (sim, caller, servers) = stage(&["10.0.0.1:80"]);
    let id = caller.act(|cx| {
        let id = cx.connect(address("10.0.0.1:80"), ()).expect("started");
        cx.write(id, b"last words");
        cx.close(id);
        id
    });
    sim.run_for(SECOND);
    assert_eq!(servers[0].received(), b"last words");
    assert_eq!(caller.calls(), [Call::Closed(id, CloseReason::Closed)], "the only call");
    assert!(caller.is_empty());
}

#[test]
fn a_unix_socket_is_found_by_its_path() {
    let (sim, caller, _) = stage(&[]);
    let mut server = sim.event_loop(Config::default(), Book { echoes: true, ..Book::default() }).expect("a loop");
    server.listen("unix:/run/app.sock").expect("it is free");
    sim.start(server);
    let at = Address::unix("/run/app.sock");
    let id = caller.act(|cx| {
        let id = cx.connect(&at, ()).expect("started");
        cx.write(id, b"hello");
        id
    });
    sim.settle();
    assert_eq!(caller.received(), b"hello");
    assert_eq!(caller.act(|cx| cx.peer_addr(id)), Some(at));
}

#[test]
fn a_connection_that_is_given_up_never_ends_in_an_ordinary_way_without_its_output() {
    let mut given_up = 0;
    for seed in 0..300 {
        let sim = Simulation::new(seed);
        sim.set_faults(rough());
        let server = sim.listen(address("10.0.0.1:80")).expect("it is free");
        let node = Node::start(&sim, Config::default(), Book::default());
        let id = node.act(|cx| {
            let id = cx.connect(address("10.0.0.1:80"), ()).expect("started");
            cx.write(id, b"hello");
            id
        });
        sim.run_for(sim.random(1).time(ms(8)));
        node.act(|cx| cx.abort(id));
        sim.settle();
        let Some(mut peer) = server.accept() else { continue };
        let received = peer.take();
        given_up += usize::from(received.is_empty());
        assert!(received == b"hello" || peer.failure().is_some(), "seed {seed}\n{}", sim.trace());
    }
    assert!(given_up > 0, "it happens");
}
