//! Connecting: to one of several addresses, within a time, told once.

mod common;

use std::io::ErrorKind;

use common::{Book, Node, SECOND, Told, address, ms};
use sealed::sim::{Faults, Simulation};
use sealed::{Address, CloseReason, Config, Connect};

/// A loop that connects, and an echo server on each of these addresses.
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
fn an_address_that_does_not_answer_has_a_quarter_of_a_second_before_the_next_is_tried() {
    let (sim, caller, _servers) = stage(&["[2001:db8::1]:80", "10.0.0.1:80"]);
    sim.set_unreachable(address("[2001:db8::1]:80"));
    let start = sim.now();
    let id = caller.act(|cx| {
        let id = cx.connect(Connect::to_any(addresses(&["[2001:db8::1]:80", "10.0.0.1:80"])), ()).expect("started");
        cx.write(id, b"hello");
        id
    });
    sim.run_for(SECOND);
    let told = caller.told_at();
    assert_eq!(told.iter().map(|(_, told)| told).collect::<Vec<_>>(), [&Told::Connected(id), &Told::Drained(id)]);
    let took = told[0].0.saturating_sub(start);
    assert!(took >= ms(250) && took < ms(260), "{took:?}");
    assert_eq!(caller.received(), b"hello", "what was written before is sent then");
    assert_eq!(caller.act(|cx| cx.peer_addr(id)), Some(address("10.0.0.1:80")));
    // The attempt that was given up holds no socket: two listeners and both ends of the connection are left.
    assert_eq!(sim.descriptors(), 4);
    sim.run_for(SECOND * 100);
    assert_eq!(caller.told(), [], "told once");
}

#[test]
fn an_address_that_refuses_is_followed_by_the_next_at_once() {
    let (sim, caller, _servers) = stage(&["10.0.0.3:80"]);
    let start = sim.now();
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.run_for(SECOND);
    let told = caller.told_at();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, Told::Connected(id));
    assert!(told[0].0.saturating_sub(start) < ms(10), "{:?}", told[0].0.saturating_sub(start));
}

#[test]
fn of_two_that_answer_the_first_is_kept_and_the_other_closed() {
    let (sim, caller, servers) = stage(&["10.0.0.1:80", "10.0.0.2:80"]);
    sim.set_faults(Faults { slow_connect: 1.0, ..Faults::default() });
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80"]);
    let id = caller.act(|cx| cx.connect(Connect::to_any(all).stagger(ms(1)), ()).expect("started"));
    sim.run_for(ms(500));
    // Both are repeated in a second, a millisecond apart.
    sim.set_faults(Faults::default());
    sim.run_for(SECOND * 3);
    assert_eq!(caller.told(), [Told::Connected(id)]);
    assert_eq!(caller.act(|cx| cx.connections()), 1);
    let accepted = |server: &Node| server.told().iter().filter(|told| matches!(told, Told::Accepted(..))).count();
    assert!(servers.iter().map(accepted).sum::<usize>() >= 1);
    let left: usize = servers.iter().map(|server| server.act(|cx| cx.connections())).sum();
    assert_eq!(left, 1, "a server hears of it that it was not taken");
}

#[test]
fn one_that_cannot_be_made_is_told_once_with_the_last_failure() {
    let (sim, caller, _servers) = stage(&[]);
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80"]);
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.run_for(SECOND * 20);
    assert_eq!(caller.told(), [Told::Closed(id, CloseReason::NotConnected(ErrorKind::ConnectionRefused))]);
    assert!(caller.is_empty());
    assert_eq!(sim.descriptors(), 0);
}

#[test]
fn connecting_has_a_limit_for_all_attempts_together() {
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
    let told = caller.told_at();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, Told::Closed(id, CloseReason::NotConnected(ErrorKind::TimedOut)));
    assert!(told[0].0.saturating_sub(start) >= SECOND * 3 && told[0].0.saturating_sub(start) < ms(3_010));
    assert_eq!(sim.descriptors(), 0);
}

#[test]
fn one_that_is_given_up_while_it_is_made_is_closed_with_all_its_attempts() {
    let (sim, caller, _servers) = stage(&[]);
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80"]);
    for at in &all {
        sim.set_unreachable(at.clone());
    }
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.run_for(SECOND);
    caller.act(|cx| cx.abort(id));
    sim.run_for(SECOND * 60);
    assert_eq!(caller.told(), [Told::Closed(id, CloseReason::Aborted)]);
    assert!(caller.is_empty());
    assert_eq!(sim.descriptors(), 0);
}

#[test]
fn none_to_try_and_no_room_are_errors_at_once() {
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
    assert_eq!(caller.told(), []);
}

#[test]
fn families_take_turns_so_that_one_that_is_cut_off_costs_a_single_wait() {
    let (sim, caller, _servers) = stage(&["10.0.0.1:80"]);
    let all = addresses(&["[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80", "10.0.0.1:80"]);
    for at in &all[..3] {
        sim.set_unreachable(at.clone());
    }
    let start = sim.now();
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.run_for(SECOND);
    let told = caller.told_at();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, Told::Connected(id));
    let took = told[0].0.saturating_sub(start);
    assert!(took >= ms(250) && took < ms(260), "{took:?}");
}

#[test]
fn a_connection_that_was_made_leaves_no_timer_behind() {
    let (sim, caller, _servers) = stage(&["10.0.0.1:80"]);
    let all = addresses(&["10.0.0.1:80", "10.0.0.2:80"]);
    let id = caller.act(|cx| cx.connect(Connect::to_any(all), ()).expect("started"));
    sim.settle();
    assert_eq!(caller.told(), [Told::Connected(id)]);
    let turns = sim.turns();
    sim.run_for(SECOND * 60);
    assert_eq!(sim.turns(), turns, "all loops sleep");
}

#[test]
fn one_that_is_closed_while_it_is_made_still_sends_what_it_was_given() {
    let (sim, caller, servers) = stage(&["10.0.0.1:80"]);
    let id = caller.act(|cx| {
        let id = cx.connect(address("10.0.0.1:80"), ()).expect("started");
        cx.write(id, b"last words");
        cx.close(id);
        id
    });
    sim.run_for(SECOND);
    assert_eq!(servers[0].received(), b"last words");
    assert_eq!(caller.told(), [Told::Closed(id, CloseReason::Closed)], "and nothing else is told");
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
