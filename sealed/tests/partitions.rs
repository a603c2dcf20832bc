//! Hosts that cannot reach each other for a while.

mod common;

use std::io::ErrorKind;
use std::net::IpAddr;

use common::{Book, Call, Node, SECOND, address, ms, rough};
use sealed::sim::{Link, Simulation};
use sealed::{CloseReason, Config, Connect, ConnectionId, SocketOptions};

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3));

/// Starts an echo server, and a loop on the client's host.
fn stage(seed: u64) -> (Simulation, Node, Node) {
    let sim = Simulation::new(seed);
    let server = Node::echo(&sim, &address("10.0.0.1:80"));
    let caller = Node::start(&sim.on_host(CLIENT), Config::default(), Book::default());
    sim.settle();
    (sim, server, caller)
}

#[test]
fn what_is_sent_on_streams_waits_and_arrives_in_order() {
    let (sim, server, caller) = stage(1);
    let id = caller.act(|cx| cx.connect(address("10.0.0.1:80"), ()).expect("started"));
    sim.settle();
    let Call::Accepted(_, peer) = server.calls().remove(0) else { panic!("it is accepted") };
    assert_eq!(peer.inet().map(|address| address.ip()), Some(CLIENT));
    sim.partition(CLIENT, SERVER);
    for word in ["one ", "two ", "three"] {
        caller.act(|cx| cx.write(id, word.as_bytes()));
        sim.run_for(SECOND);
    }
    assert_eq!((server.received(), caller.received()), (vec![], vec![]));
    let mut other = sim.on_host(OTHER).connect(address("10.0.0.1:80"));
    other.send("hello");
    other.expect("hello");
    sim.heal(SERVER, CLIENT);
    sim.settle();
    assert_eq!(caller.received(), b"one two three");
}

#[test]
fn attempts_to_connect_wait_until_they_are_given_up() {
    let (sim, _server, caller) = stage(1);
    sim.partition(SERVER, CLIENT);
    let connect = |limit| {
        let to = Connect::to(address("10.0.0.1:80")).limit(limit);
        caller.act(|cx| cx.connect(to, ()).expect("started"))
    };
    let (short, long) = (connect(SECOND), connect(SECOND * 60));
    sim.run_for(SECOND * 10);
    assert_eq!(caller.calls(), [Call::Closed(short, CloseReason::NotConnected(ErrorKind::TimedOut))]);
    sim.heal(SERVER, CLIENT);
    sim.run_for(SECOND);
    assert_eq!(caller.calls(), [Call::Connected(long)]);
}

#[test]
fn the_kernel_gives_up_on_a_host_that_is_cut_off_for_too_long() {
    for (cut, gives_up) in [(SECOND * 20, false), (SECOND * 40, true)] {
        let (sim, _, caller) = stage(1);
        let options = SocketOptions { silence_max: Some(SECOND * 30), ..SocketOptions::default() };
        let config = Config { socket: options, ..Config::default() };
        let server = Node::start(&sim, config, Book { echoes: true, ..Book::default() });
        server.act(|cx| cx.listen(address("10.0.0.1:81")).expect("it is free"));
        let id = caller.act(|cx| cx.connect(address("10.0.0.1:81"), ()).expect("started"));
        sim.settle();
        server.calls();
        caller.calls();
        sim.partition(SERVER, CLIENT);
        sim.run_for(cut);
        let calls = server.calls();
        let has_failed = matches!(calls[..], [Call::Closed(_, CloseReason::Failed(ErrorKind::TimedOut))]);
        assert_eq!((has_failed, calls.is_empty()), (gives_up, !gives_up), "{cut:?}: {calls:?}");
        assert_eq!(caller.calls(), [], "it has more time");
        sim.heal(SERVER, CLIENT);
        caller.act(|cx| cx.write(id, b"hello"));
        sim.run_for(SECOND * 20);
        let calls = caller.calls();
        assert_eq!(calls.iter().any(|call| matches!(call, Call::Closed(..))), gives_up, "{calls:?}");
        assert_eq!(caller.received(), if gives_up { &b""[..] } else { b"hello" });
    }
}

#[test]
fn datagrams_are_lost() {
    let sim = Simulation::new(1);
    let (one, other) = (sim.datagram_peer("10.0.0.1:1").expect("free"), sim.datagram_peer("10.0.0.2:1").expect("free"));
    sim.partition(SERVER, CLIENT);
    one.send_to(other.address(), "lost");
    sim.settle();
    sim.heal(SERVER, CLIENT);
    one.send_to(other.address(), "found");
    assert_eq!(other.expect().1, b"found");
}

#[test]
fn everything_arrives_once_however_often_hosts_are_cut_off() {
    sealed::sim::check(0..100, |sim| {
        sim.set_faults(rough());
        let server = Node::echo(sim, &address("10.0.0.1:80"));
        let caller = Node::start(&sim.on_host(CLIENT), Config::default(), Book::default());
        let id = caller.act(|cx| cx.connect(address("10.0.0.1:80"), ()).expect("started"));
        let (mut random, mut sent) = (sim.random(1), Vec::new());
        for number in 0..40_u8 {
            match random.below(4) {
                0 => sim.partition(SERVER, CLIENT),
                1 => sim.heal(SERVER, CLIENT),
                _ => {
                    let piece = vec![number; 500];
                    caller.act(|cx| cx.write(id, &piece));
                    sent.extend(piece);
                }
            }
            sim.run_for(random.time(ms(50)));
        }
        sim.heal(SERVER, CLIENT);
        sim.run_for(SECOND * 10);
        assert!(caller.received() == sent);
        caller.act(|cx| cx.close(id));
        sim.run_for(SECOND);
        assert!(server.is_empty() && caller.is_empty());
    });
}

#[test]
fn a_loop_that_has_connected_gives_up_too() {
    let (sim, _server, caller) = stage(1);
    let id = caller.act(|cx| cx.connect(address("10.0.0.1:80"), ()).expect("started"));
    sim.settle();
    caller.calls();
    sim.partition(SERVER, CLIENT);
    let silence_max = SocketOptions::default().silence_max.expect("a limit");
    sim.run_for(silence_max.saturating_sub(SECOND));
    assert_eq!(caller.calls(), []);
    sim.run_for(SECOND * 2);
    assert_eq!(caller.calls(), [Call::Closed(id, CloseReason::Failed(ErrorKind::TimedOut))]);
}

#[test]
fn what_was_held_up_comes_before_what_is_sent_after_it() {
    let sim = Simulation::new(1);
    sim.set_link(Link { latency_min: ms(0), latency_max: ms(0), ..Link::default() });
    let listener = sim.listen(address("10.0.0.1:80")).expect("it is free");
    let mut caller = sim.on_host(CLIENT).connect(listener.address());
    sim.settle();
    let mut called = listener.accept().expect("a connection");
    sim.partition(SERVER, CLIENT);
    caller.send("one ");
    sim.settle();
    caller.send("two");
    sim.heal(SERVER, CLIENT);
    sim.settle();
    assert_eq!(called.take(), b"one two");
}

/// Returns the connections that have ended since the last calls.
fn closed(node: &Node) -> Vec<(ConnectionId, CloseReason)> {
    let end = |call| if let Call::Closed(id, reason) = call { Some((id, reason)) } else { None };
    node.calls().into_iter().filter_map(end).collect()
}

#[test]
fn healing_ends_the_partition_of_one_pair() {
    let (sim, server, caller) = stage(1);
    let other = Node::start(&sim.on_host(OTHER), Config::default(), Book::default());
    let [one, two] = [&caller, &other].map(|node| {
        let id = node.act(|cx| cx.connect(address("10.0.0.1:80"), ()).expect("started"));
        sim.settle();
        (node, id)
    });
    sim.partition(SERVER, CLIENT);
    sim.partition(SERVER, OTHER);
    for (node, id) in [one, two] {
        node.act(|cx| cx.write(id, b"hello"));
    }
    sim.run_for(SECOND);
    sim.heal(SERVER, OTHER);
    sim.settle();
    assert_eq!((caller.received(), other.received()), (vec![], b"hello".to_vec()));
    sim.heal(SERVER, CLIENT);
    sim.settle();
    assert_eq!((caller.received(), other.received()), (b"hello".to_vec(), vec![]));
    assert_eq!(server.received(), b"hellohello");
}

#[test]
fn a_host_without_power_is_noticed_by_silence_only() {
    let (sim, server, caller) = stage(1);
    let id = caller.act(|cx| cx.connect(address("10.0.0.1:80"), ()).expect("started"));
    sim.settle();
    caller.calls();
    // The answer is on its way, or the question.
    caller.act(|cx| cx.write(id, b"hello"));
    sim.power_off(SERVER);
    sim.kill(server.id);
    let limited = Connect::to(address("10.0.0.1:80")).limit(SECOND);
    let late = caller.act(|cx| cx.connect(limited, ()).expect("started"));
    let silence_max = SocketOptions::default().silence_max.expect("a limit");
    sim.run_for(silence_max.saturating_sub(SECOND));
    assert_eq!(closed(&caller), [(late, CloseReason::NotConnected(ErrorKind::TimedOut))]);
    sim.run_for(SECOND * 2);
    assert_eq!(closed(&caller), [(id, CloseReason::Failed(ErrorKind::TimedOut))]);
    assert_eq!(caller.received(), b"");
}

#[test]
fn a_host_that_has_power_again_resets_the_connections_from_before() {
    let (sim, server, caller) = stage(1);
    let id = caller.act(|cx| cx.connect(address("10.0.0.1:80"), ()).expect("started"));
    sim.settle();
    caller.calls();
    sim.power_off(SERVER);
    sim.kill(server.id);
    caller.act(|cx| cx.write(id, b"lost"));
    sim.run_for(SECOND);
    sim.power_on(SERVER);
    let server = Node::echo(&sim, &address("10.0.0.1:80"));
    caller.act(|cx| cx.write(id, b"too late"));
    sim.settle();
    assert_eq!(closed(&caller), [(id, CloseReason::Failed(ErrorKind::ConnectionReset))]);
    let id = caller.act(|cx| cx.connect(address("10.0.0.1:80"), ()).expect("started"));
    caller.act(|cx| cx.write(id, b"hello"));
    sim.settle();
    assert_eq!((server.received(), caller.received()), (b"hello".to_vec(), b"hello".to_vec()));
}

#[test]
fn other_hosts_notice_nothing_of_one_without_power() {
    let (sim, server, caller) = stage(1);
    let id = caller.act(|cx| cx.connect(address("10.0.0.1:80"), ()).expect("started"));
    sim.settle();
    let gone = sim.on_host(OTHER).connect(address("10.0.0.1:80"));
    let mail = sim.datagram_peer("10.0.0.3:1").expect("free");
    let post = sim.datagram_peer("10.0.0.1:1").expect("free");
    sim.settle();
    sim.power_off(OTHER);
    post.send_to(mail.address(), "lost");
    caller.act(|cx| cx.write(id, b"hello"));
    sim.settle();
    assert_eq!((caller.received(), gone.is_over()), (b"hello".to_vec(), true));
    assert_eq!(server.act(|cx| cx.connections()), 2, "the server waits for both");
    sim.power_on(OTHER);
    post.send_to(mail.address(), "found");
    assert_eq!(mail.expect().1, b"found");
}

#[test]
fn what_arrives_is_the_beginning_of_what_was_sent_whenever_the_power_fails() {
    sealed::sim::check(0..200, |sim| {
        sim.set_faults(rough());
        let server = Node::echo(sim, &address("10.0.0.1:80"));
        let caller = Node::start(&sim.on_host(CLIENT), Config::default(), Book::default());
        let id = caller.act(|cx| cx.connect(address("10.0.0.1:80"), ()).expect("started"));
        let sent: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        caller.act(|cx| cx.write(id, &sent));
        sim.run_for(sim.random(1).time(ms(60)));
        sim.power_off(SERVER);
        sim.kill(server.id);
        sim.run_for(SECOND * 300);
        assert!(sent.starts_with(&caller.received()));
        assert!(caller.is_empty(), "the caller has given up: {:?}", caller.calls());
    });
}
