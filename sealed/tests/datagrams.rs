//! Datagram sockets on the simulated network: what a service can do with them, and their limits.

mod common;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use common::datagrams::{Log, Node, SERVER};
use common::{SECOND, address};
use sealed::sim::{Faults, Link, Simulation};
use sealed::{
    Address, CloseReason, Config, ConnectionId, Context, Datagram, DatagramError, DatagramId, Input, SendError, Sent,
    Service,
};

#[test]
fn a_datagram_is_answered_to_its_sender() {
    let sim = Simulation::new(1);
    let node = Node::echo(&sim);
    node.bind(SERVER);
    let ann = sim.datagram_peer("10.0.0.8:1000").expect("free");
    let ben = sim.datagram_peer("10.0.0.9:1000").expect("free");
    ann.send_to(address(SERVER), "from ann");
    ben.send_to(address(SERVER), "");
    assert_eq!(ann.expect(), (address(SERVER), b"from ann".to_vec()));
    assert_eq!(ben.expect_from(address(SERVER)), b"", "an empty datagram is one");
    assert!(ann.is_silent_for(SECOND) && ben.is_silent_for(SECOND));
    let stats = node.act(|cx| cx.stats());
    assert_eq!((stats.datagrams_received, stats.datagrams_sent, stats.datagrams_dropped), (2, 2, 0));
}

#[test]
fn a_connected_socket_talks_to_its_peer_only() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Log::default());
    let peer = sim.datagram_peer("10.0.0.9:53").expect("free");
    let other = sim.datagram_peer("10.0.0.10:53").expect("free");
    let socket = node.bind(Datagram::to(peer.address()));
    let own = node.act(|cx| cx.datagram_addr(socket)).expect("open");
    assert_eq!(node.act(|cx| cx.send(socket, b"question")).expect("sent"), Sent::Taken);
    assert_eq!(peer.expect_from(own.clone()), b"question");
    other.send_to(own.clone(), "forged");
    peer.send_to(own, "answer");
    sim.settle();
    assert_eq!(node.received(), [b"answer".to_vec()]);
    let unconnected = node.bind("10.0.0.1:0");
    assert!(matches!(node.act(|cx| cx.send(unconnected, b"x")), Err(SendError::Failed(_))));
}

#[test]
fn a_datagram_over_the_limit_of_the_network_is_an_error() {
    let sim = Simulation::new(1);
    sim.set_link(Link { datagram_bytes_max: 1_000, ..Link::default() });
    let node = Node::start(&sim, Config::default(), Log::default());
    let socket = node.bind(SERVER);
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    let to = peer.address();
    assert!(matches!(node.act(|cx| cx.send_to(socket, &to, &[7; 1_000])), Ok(Sent::Taken)));
    assert!(matches!(node.act(|cx| cx.send_to(socket, &to, &[7; 1_001])), Err(SendError::TooLong)));
    sim.set_faults(Faults { would_block: 1.0, ..Faults::default() });
    assert!(matches!(node.act(|cx| cx.send_to(socket, &to, b"waits")), Ok(Sent::Queued)));
    assert!(matches!(node.act(|cx| cx.send_to(socket, &to, &[7; 1_001])), Err(SendError::TooLong)));
    sim.set_faults(Faults::default());
    assert_eq!(peer.expect().1.len(), 1_000);
    assert_eq!(peer.expect().1, b"waits");
}

#[test]
fn a_received_datagram_over_the_limit_of_the_socket_is_reported() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config { read_buffer_bytes: 10, ..Config::default() }, Log::default());
    node.bind(Datagram::on(SERVER).received_bytes_max(100));
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    for length in [100, 101, 5_000, 99] {
        peer.send_to(address(SERVER), vec![7; length]);
    }
    sim.settle();
    assert_eq!(node.received().iter().map(Vec::len).collect::<Vec<_>>(), [100, 99]);
    let failures = node.failures();
    assert_eq!(failures.len(), 2);
    for failure in failures {
        assert!(matches!(failure, DatagramError::TooLong { from } if from == peer.address()));
    }
    assert_eq!(node.act(|cx| cx.stats()).datagrams_too_long, 2);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let sim = Simulation::new(1);
    sim.set_link(Link { bandwidth: Some(1_000), buffer_bytes: 1_000, ..Link::default() });
    let node = Node::start(&sim, Config::default(), Log::default());
    let socket = node.bind(Datagram::on(SERVER).queue_bytes_max(5 * (100 + 64)));
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    let to = peer.address();
    let sent: Vec<Sent> =
        (0..20).map(|number| node.act(|cx| cx.send_to(socket, &to, &[number; 100])).expect("short enough")).collect();
    let wanted = [vec![Sent::Taken; 10], vec![Sent::Queued; 5], vec![Sent::Dropped; 5]].concat();
    assert_eq!(sent, wanted);
    assert_eq!(node.act(|cx| cx.queued_datagrams(socket)), 5 * (100 + 64));
    for number in 0..15 {
        assert_eq!(peer.expect().1[0], number);
    }
    sim.settle();
    assert!(peer.take().is_none());
    let stats = node.act(|cx| cx.stats());
    assert_eq!((stats.datagrams_sent, stats.datagrams_dropped), (15, 5));
    assert_eq!(node.act(|cx| cx.queued_datagrams(socket)), 0);
    assert_eq!(node.look(|log, _| log.drained), 1);
}

#[test]
fn empty_datagrams_fill_the_queue_too() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Log::default());
    let socket = node.bind(Datagram::on(SERVER).queue_bytes_max(640));
    sim.set_faults(Faults { would_block: 1.0, ..Faults::default() });
    let send = |cx: &mut Context<Log>| cx.send_to(socket, &address("10.0.0.9:1"), b"").expect("short enough");
    let queued = (0..100).filter(|_| node.act(send) == Sent::Queued).count();
    assert_eq!(queued, 10);
}

#[test]
fn a_stale_id_finds_nothing() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Log::default());
    let old = node.bind(SERVER);
    assert!(node.act(|cx| cx.close_datagram(old)));
    let new = node.bind(SERVER);
    assert_ne!(old, new);
    let group = Ipv4Addr::new(224, 0, 0, 251);
    node.act(|cx| {
        assert!(matches!(cx.send_to(old, &address("10.0.0.9:1"), b"x"), Err(SendError::Closed)));
        assert!(matches!(cx.send(DatagramId::default(), b"x"), Err(SendError::Closed)));
        assert!(!cx.close_datagram(old) && cx.datagram_addr(old).is_none() && cx.queued_datagrams(old) == 0);
        assert!(cx.join_multicast(old, group).is_err() && cx.leave_multicast(old, group).is_err());
        assert_eq!(cx.datagram_addr(new), Some(address(SERVER)));
    });
}

#[test]
fn a_socket_closed_in_its_own_call_gets_no_more() {
    let sim = Simulation::new(1);
    let hook = |cx: &mut Context<Log>, socket: DatagramId, bytes: &[u8]| {
        if bytes == b"close" {
            assert!(cx.close_datagram(socket));
            // The new socket takes the slot of the old one.
            cx.bind_datagram("10.0.0.1:54").expect("free");
        }
    };
    let node = Node::start(&sim, Config::default(), Log { hook: Some(Box::new(hook)), ..Log::default() });
    let socket = node.bind(SERVER);
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    for text in ["one", "close", "two"] {
        peer.send_to(address(SERVER), text);
    }
    sim.settle();
    peer.send_to(address("10.0.0.1:54"), "three");
    sim.settle();
    assert_eq!(node.received(), [&b"one"[..], b"close", b"three"]);
    assert_eq!(node.act(|cx| cx.datagram_addr(socket)), None);
    assert_eq!(sim.descriptors(), 1);
}

#[test]
fn many_datagrams_do_not_hold_up_a_connection() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config { datagrams_per_tick: 10, ..Config::default() }, Log::default());
    node.act(|cx| cx.listen("10.0.0.1:7777")).expect("free");
    let socket = node.bind(SERVER);
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    let mut ann = sim.connect(address("10.0.0.1:7777"));
    sim.settle();
    (0..2_000).for_each(|_| peer.send_to(address(SERVER), "x"));
    ann.send("hello");
    ann.expect("hello");
    assert!(node.look(|log, _| log.received.len()) < 1_000, "the connection had its turn meanwhile");
    sim.settle();
    // No datagram has arrived since: the loop goes on without an event.
    assert_eq!(node.look(|log, _| (log.received.len(), log.in_tick_max)), (2_000, 10));
    assert!(node.look(|log, _| log.received.iter().all(|(received_by, ..)| *received_by == socket)));
}

#[test]
fn services_of_a_loop_have_sockets_of_their_own() {
    let sim = Simulation::new(1);
    let mut event_loop = sim.event_loop(Config::default(), Log { echoes: true, ..Log::default() }).expect("a loop");
    event_loop.parts().1.bind_datagram(SERVER).expect("free");
    event_loop.add_service(Config::default(), Upper).expect("a service").bind_datagram("10.0.0.1:54").expect("free");
    sim.start(event_loop);
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    peer.send_to(address("10.0.0.1:54"), "tea");
    assert_eq!(peer.expect_from(address("10.0.0.1:54")), b"TEA");
    peer.send_to(address(SERVER), "tea");
    assert_eq!(peer.expect_from(address(SERVER)), b"tea");
}

struct Upper;

impl Service for Upper {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn datagram(&mut self, cx: &mut Context<Self>, socket: DatagramId, from: &Address, bytes: &[u8]) {
        assert_eq!(cx.send_to(socket, from, &bytes.to_ascii_uppercase()).expect("sent"), Sent::Taken);
    }
}

#[test]
fn a_panic_in_a_call_for_a_datagram_costs_one_datagram() {
    let sim = Simulation::new(1);
    let hook = |_: &mut Context<Log>, _: DatagramId, bytes: &[u8]| assert_ne!(bytes, b"bad");
    let node = Node::start(&sim, Config::default(), Log { hook: Some(Box::new(hook)), ..Log::default() });
    node.bind(SERVER);
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    for text in ["good", "bad", "good"] {
        peer.send_to(address(SERVER), text);
    }
    sim.settle();
    assert_eq!(node.received(), [&b"good"[..], b"bad", b"good"]);
}

#[test]
fn sockets_serve_while_the_loop_drains_and_do_not_keep_it() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Log { echoes: true, stays: true, ..Log::default() });
    node.act(|cx| cx.listen("10.0.0.1:7777")).expect("free");
    node.bind(SERVER);
    let ann = sim.connect(address("10.0.0.1:7777"));
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    sim.settle();
    node.act(Context::stop);
    sim.settle();
    peer.send_to(address(SERVER), "still there?");
    assert_eq!(peer.expect().1, b"still there?");
    drop(ann);
    sim.settle();
    assert!(!sim.is_running(node.id), "the last connection is gone");
    assert_eq!(sim.descriptors(), 0);
}

#[test]
fn sockets_are_closed_at_the_drain_limit() {
    let sim = Simulation::new(1);
    let peer = Rc::new(sim.datagram_peer("10.0.0.9:1").expect("free"));
    let (inner, late) = (sim.clone(), peer.clone());
    let hook = move |_: &mut Context<Log>, _: DatagramId, bytes: &[u8]| {
        if bytes == b"take long" {
            inner.spend(SECOND * 2);
            late.send_to(address(SERVER), "too late");
            inner.spend(SECOND);
        }
    };
    let log = Log { echoes: true, stays: true, hook: Some(Box::new(hook)), ..Log::default() };
    let config = Config { drain_limit: SECOND, datagrams_per_tick: 1, ..Config::default() };
    let node = Node::start(&sim, config, log);
    node.act(|cx| cx.listen("10.0.0.1:7777")).expect("free");
    node.bind(SERVER);
    let _ann = sim.connect(address("10.0.0.1:7777"));
    sim.settle();
    node.act(Context::stop);
    sim.settle();
    peer.send_to(address(SERVER), "take long");
    assert_eq!(peer.expect().1, b"take long");
    assert!(peer.is_silent_for(SECOND * 5), "the other datagram came after the limit");
    assert!(!sim.is_running(node.id));
    assert_eq!(sim.descriptors(), 0);
}

#[test]
fn no_socket_is_opened_past_the_drain_limit() {
    let sim = Simulation::new(1);
    let mut event_loop = sim.event_loop(Config::default(), Opener::default()).expect("a loop");
    event_loop.parts().1.listen("10.0.0.1:7777").expect("free");
    let refused = event_loop.service().refused.clone();
    let stopper = event_loop.stopper();
    let id = sim.start(event_loop);
    let _ann = sim.connect(address("10.0.0.1:7777"));
    sim.settle();
    stopper.stop();
    stopper.stop();
    sim.run_for(SECOND);
    assert!(!sim.is_running(id));
    assert_eq!(*refused.borrow(), [true]);
}

/// Tries to open a socket when a connection ends.
#[derive(Default)]
struct Opener {
    refused: Rc<RefCell<Vec<bool>>>,
}

impl Service for Opener {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn draining(&mut self, _: &mut Context<Self>, _: std::time::Duration) {}

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        assert_eq!(reason, CloseReason::Shutdown);
        self.refused.borrow_mut().push(cx.bind_datagram(SERVER).is_err());
    }
}

#[test]
fn what_is_queued_is_offered_once_more_when_the_loop_ends() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Log::default());
    let socket = node.bind(SERVER);
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    sim.settle();
    sim.set_faults(Faults { would_block: 1.0, delay_max: SECOND, ..Faults::default() });
    assert_eq!(node.act(|cx| cx.send_to(socket, &peer.address(), b"bye")).expect("it waits"), Sent::Queued);
    sim.set_faults(Faults::default());
    node.act(Context::stop);
    assert_eq!(peer.expect().1, b"bye");
}

#[test]
fn a_port_is_shared_only_on_request() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Log::default());
    node.bind(SERVER);
    let error = node.act(|cx| cx.bind_datagram(SERVER)).expect_err("in use");
    assert_eq!(error.to_string(), format!("cannot open a datagram socket for {SERVER}"));
    let shared = || Datagram::on("10.0.0.1:54").reuse_port(true);
    node.bind(shared());
    node.bind(shared());
    let peer = sim.datagram_peer("10.0.0.9:1").expect("free");
    (0..50).for_each(|_| peer.send_to(address("10.0.0.1:54"), "x"));
    sim.settle();
    assert_eq!(node.received().len(), 50);
}

#[test]
fn a_group_reaches_its_members() {
    let sim = Simulation::new(1);
    let node = Node::start(&sim, Config::default(), Log::default());
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let member = node.bind(Datagram::on("0.0.0.0:5353").reuse_port(true).join(group));
    let other = node.bind(Datagram::on("0.0.0.0:5353").reuse_port(true));
    let peer = sim.datagram_peer("10.0.0.9:5353").expect("free");
    peer.send_to(address("224.0.0.251:5353"), "one");
    sim.settle();
    node.act(|cx| {
        cx.leave_multicast(member, group).expect("it is in it");
        assert!(cx.leave_multicast(member, group).is_err(), "only once");
        cx.join_multicast(other, group).expect("joined");
    });
    peer.send_to(address("224.0.0.251:5353"), "two");
    sim.settle();
    let by_socket = node.look(|log, _| std::mem::take(&mut log.received));
    let wanted = [(member, peer.address(), b"one".to_vec()), (other, peer.address(), b"two".to_vec())];
    assert_eq!(by_socket, wanted);
}
