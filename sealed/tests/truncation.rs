//! Queued output is sent, or else the peer sees a reset and the service the true reason: the peer
//! never sees an ordinary end after lost bytes.

mod common;

use std::io::{ErrorKind, Read};
use std::sync::mpsc;
use std::time::Duration;

use common::{Book, Call, Node, SECOND, address, ms};
use sealed::sim::{Faults, Link, Peer, Simulation};
use sealed::{
    Address, Bytes, CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Rate, Rates, Service,
    SocketOptions,
};

const SENT: usize = 200_000;
static BYTES: [u8; SENT] = [7; SENT];

fn small() -> Link {
    Link { buffer_bytes: 10_000, ..Link::default() }
}

/// Creates a loop, and a peer of it that reads nothing.
fn stalled(config: Config, book: Book) -> (Simulation, Node, Peer, ConnectionId) {
    let sim = Simulation::new(4);
    let node = Node::start(&sim, config, book);
    node.act(|cx| cx.listen(address("10.0.0.1:80")).expect("it is free"));
    let mut peer = sim.connect_over(small(), address("10.0.0.1:80"));
    sim.settle();
    peer.stall();
    let id = node.only();
    node.calls();
    (sim, node, peer, id)
}

/// Returns the reason that the service was given. Asserts that there was one call.
fn reason(node: &Node) -> CloseReason {
    let calls = node.calls();
    let reasons: Vec<_> =
        calls.iter().filter_map(|call| if let Call::Closed(_, reason) = call { Some(*reason) } else { None }).collect();
    assert_eq!(reasons.len(), 1, "one call: {calls:?}");
    reasons[0]
}

fn sees_a_reset(peer: &mut Peer) {
    peer.unstall();
    let got = peer.expect_end();
    assert!(got.len() < SENT);
    assert_eq!(peer.failure(), Some(ErrorKind::ConnectionReset), "after {} bytes", got.len());
}

#[test]
fn a_closed_connection_whose_peer_reads_nothing_is_reset_and_reported_as_timed_out() {
    let (sim, node, mut peer, id) = stalled(Config::default(), Book::default());
    node.act(|cx| {
        cx.write(id, &BYTES);
        cx.close(id);
    });
    sim.run_for(SECOND * 6);
    assert_eq!(reason(&node), CloseReason::TimedOut);
    sees_a_reset(&mut peer);
    assert!(node.is_empty());
}

#[test]
fn a_connection_closed_as_its_peer_ended_is_reset_if_the_peer_reads_nothing() {
    let (sim, node, mut peer, id) = stalled(Config::default(), Book { ends: true, ..Book::default() });
    node.act(|cx| cx.write(id, &BYTES));
    peer.finish();
    sim.run_for(SECOND * 6);
    assert_eq!(reason(&node), CloseReason::TimedOut);
    sees_a_reset(&mut peer);
}

#[test]
fn a_connection_half_closed_from_both_sides_is_reset_if_the_peer_reads_nothing() {
    let (sim, node, mut peer, id) = stalled(Config::default(), Book::default());
    node.act(|cx| {
        cx.write(id, &BYTES);
        cx.half_close(id);
    });
    peer.finish();
    sim.run_for(SECOND * 6);
    assert_eq!(reason(&node), CloseReason::TimedOut);
    sees_a_reset(&mut peer);
}

#[test]
fn a_peer_that_goes_on_reading_within_the_limit_gets_everything() {
    let acts: [fn(&Node, ConnectionId); 2] =
        [|node, id| node.act(|cx| cx.close(id)), |node, id| node.act(|cx| cx.half_close(id))];
    for (act, reason_wanted) in acts.iter().zip([CloseReason::Closed, CloseReason::Ended]) {
        let (sim, node, mut peer, id) = stalled(Config::default(), Book::default());
        node.act(|cx| cx.write(id, &BYTES));
        act(&node, id);
        peer.finish();
        sim.run_for(SECOND * 4);
        peer.unstall();
        assert_eq!((peer.expect_end().len(), peer.failure()), (SENT, None));
        sim.settle();
        assert_eq!(reason(&node), reason_wanted);
    }
}

#[test]
fn output_beyond_its_limit_resets_a_connection_that_had_nothing_queued() {
    let config = Config { output_bytes_max: 100_000, ..Config::default() };
    let too_much: [fn(&Node, ConnectionId); 3] = [
        |node, id| node.act(|cx| assert!(!cx.write(id, &BYTES))),
        |node, id| node.act(|cx| assert!(!cx.write_bytes(id, Bytes::from_static(&BYTES)))),
        |node, id| {
            node.act(|cx| {
                cx.write_through(id, &[Bytes::from_static(&BYTES)]);
            });
        },
    ];
    for write in too_much {
        let (sim, node, mut peer, id) = stalled(config.clone(), Book::default());
        write(&node, id);
        sim.run_for(SECOND);
        assert_eq!(reason(&node), CloseReason::OutputFull);
        sees_a_reset(&mut peer);
    }
}

#[test]
fn a_shutdown_resets_connections_with_unsent_output() {
    // Closed by the service before, or by the shutdown itself; ended by its limit, or by a second
    // stop.
    for (closed_before, stops_twice) in [(false, false), (true, false), (false, true), (true, true)] {
        let config = Config { drain_limit: SECOND * 3, linger: SECOND * 60, ..Config::default() };
        let (sim, node, mut peer, id) = stalled(config, Book::default());
        node.act(|cx| {
            cx.write(id, &BYTES);
            if closed_before {
                cx.close(id);
            }
            cx.stop();
        });
        sim.run_for(SECOND);
        if stops_twice {
            node.act(Context::stop);
        } else {
            sim.run_for(SECOND * 3);
        }
        sim.run_for(ms(10));
        assert!(!sim.is_running(node.id));
        sees_a_reset(&mut peer);
    }
}

#[test]
fn a_shutdown_without_time_still_sends_what_the_system_takes_at_once() {
    let config = Config { drain_limit: Duration::ZERO, ..Config::default() };
    let (sim, node, mut peer, id) = stalled(config, Book::default());
    peer.unstall();
    node.act(|cx| {
        cx.write(id, b"goodbye");
        cx.stop();
    });
    sim.run_for(SECOND);
    assert!(!sim.is_running(node.id));
    assert_eq!((peer.expect_end(), peer.failure()), (b"goodbye".to_vec(), None));
}

#[test]
fn a_deadline_and_an_abort_reset_connections_with_unsent_output_and_end_the_others() {
    let ends: [fn(&Node, ConnectionId); 2] =
        [|node, id| node.act(|cx| cx.set_deadline(id, SECOND)), |node, id| node.act(|cx| cx.abort(id))];
    for (end, reason_wanted) in ends.iter().zip([CloseReason::TimedOut, CloseReason::Aborted]) {
        let (sim, node, mut peer, id) = stalled(Config::default(), Book::default());
        node.act(|cx| cx.write(id, &BYTES));
        end(&node, id);
        sim.run_for(SECOND * 2);
        assert_eq!(reason(&node), reason_wanted);
        sees_a_reset(&mut peer);

        let (sim, node, mut peer, id) = stalled(Config::default(), Book::default());
        end(&node, id);
        sim.run_for(SECOND * 2);
        assert_eq!(reason(&node), reason_wanted);
        assert_eq!((peer.expect_end(), peer.failure()), (vec![], None));
    }
}

#[test]
fn a_connection_that_fails_while_it_is_closing_is_reported_as_failed() {
    let (sim, node, peer, id) = stalled(Config::default(), Book::default());
    node.act(|cx| {
        cx.write(id, &BYTES);
        cx.close(id);
    });
    sim.run_for(SECOND);
    peer.reset();
    sim.settle();
    assert_eq!(reason(&node), CloseReason::Failed(ErrorKind::ConnectionReset));
}

#[test]
fn a_dropped_loop_resets_connections_with_unsent_output() {
    let sim = Simulation::new(4);
    let mut event_loop = sim.event_loop(Config::default(), Book::default()).expect("a loop");
    let at = event_loop.listen(address("10.0.0.1:80")).expect("it is free").address;
    let mut peers = [(); 2].map(|()| sim.connect_over(small(), &at));
    sim.settle();
    event_loop.turn(Some(Duration::ZERO)).expect("a tick");
    let (_, cx) = event_loop.parts();
    let ids = cx.connection_ids();
    cx.write(ids[0], &BYTES);
    drop(event_loop);
    let ends = peers.each_mut().map(|peer| (peer.expect_end().len(), peer.failure()));
    assert_eq!(ends.iter().filter(|end| **end == (0, None)).count(), 1, "{ends:?}");
    let is_reset = |end: &&(usize, Option<ErrorKind>)| end.0 < SENT && end.1 == Some(ErrorKind::ConnectionReset);
    assert_eq!(ends.iter().filter(is_reset).count(), 1, "{ends:?}");
}

#[test]
fn a_connection_may_have_a_linger_of_its_own() {
    for (linger, waits, is_whole) in [(60, 30, true), (60, 70, false), (1, 2, false)] {
        let (sim, node, mut peer, id) = stalled(Config::default(), Book::default());
        node.act(|cx| {
            cx.set_linger(id, SECOND * linger);
            cx.write(id, &BYTES);
            cx.close(id);
        });
        sim.run_for(SECOND * waits);
        if is_whole {
            peer.unstall();
            assert_eq!((peer.expect_end().len(), peer.failure()), (SENT, None));
            peer.finish();
            sim.settle();
            assert_eq!(reason(&node), CloseReason::Closed);
        } else {
            assert_eq!(reason(&node), CloseReason::TimedOut, "after {waits} s of {linger}");
            sees_a_reset(&mut peer);
        }
    }
}

#[test]
fn a_linger_set_on_a_closed_connection_counts_from_then_and_ends_with_it() {
    let (sim, node, mut peer, id) = stalled(Config::default(), Book::default());
    node.act(|cx| {
        cx.write(id, &BYTES);
        cx.close(id);
    });
    sim.run_for(SECOND * 4);
    node.act(|cx| cx.set_linger(id, SECOND * 30));
    sim.run_for(SECOND * 29);
    assert!(!node.is_empty());
    sim.run_for(SECOND * 2);
    assert_eq!(reason(&node), CloseReason::TimedOut);
    sees_a_reset(&mut peer);
    // The next connection, in the same slot, has the ordinary linger.
    let mut next = sim.connect_over(small(), address("10.0.0.1:80"));
    next.stall();
    sim.settle();
    let id = node.only();
    node.calls();
    node.act(|cx| {
        cx.write(id, &BYTES);
        cx.close(id);
    });
    sim.run_for(SECOND * 6);
    assert_eq!(reason(&node), CloseReason::TimedOut);
}

#[test]
fn a_rate_that_is_slower_than_the_linger_cuts_nothing_off() {
    let (_sim, node, mut peer, id) = stalled(Config { linger: ms(300), ..Config::default() }, Book::default());
    peer.unstall();
    node.act(|cx| {
        cx.set_rates(id, Rates { write: Some(Rate { bytes_per_second: 1, burst_bytes: 1 }), ..Rates::default() });
        cx.write(id, b"slowly");
        cx.close(id);
    });
    assert_eq!((peer.expect_end(), peer.failure()), (b"slowly".to_vec(), None));
}

/// Writes more than any buffer holds to each connection that it accepts, closes it, and reports the
/// reason of its end.
struct Orator(mpsc::Sender<CloseReason>);

impl Service for Orator {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.write(id, &vec![7; 8 * 1024 * 1024]);
        cx.close(id);
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        let _ = self.0.send(reason);
        cx.stop();
    }
}

#[test]
fn a_socket_of_the_operating_system_sees_the_reset_too() {
    let socket = SocketOptions { send_buffer_bytes: Some(64 * 1024), ..SocketOptions::default() };
    let config = Config { linger: ms(20), socket, ..Config::default() };
    let (sender, reasons) = mpsc::channel();
    let mut event_loop = EventLoop::new(config, Orator(sender)).expect("a loop");
    let Address::Inet(at) = event_loop.listen("127.0.0.1:0").expect("it is free").address else { panic!("a port") };
    let mut client = std::net::TcpStream::connect(at).expect("it listens");
    event_loop.run().expect("a good end");
    assert_eq!(reasons.recv(), Ok(CloseReason::TimedOut));
    let failure = client.read_to_end(&mut Vec::new()).expect_err("not all has come");
    assert_eq!(failure.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_peer_that_sees_an_ordinary_end_has_everything_whatever_the_network_does() {
    let mut resets = 0;
    for seed in 0..400 {
        let sim = Simulation::new(seed);
        let mut random = sim.random(0);
        sim.set_faults(Faults { slow_tick: [0.0, 0.02][random.below(2)], ..Faults::any(&mut random) });
        let node = Node::start(&sim, Config { drain_limit: SECOND, ..Config::default() }, Book::default());
        node.act(|cx| cx.listen(address("10.0.0.1:80")).expect("it is free"));
        let link = Link { buffer_bytes: 1 + random.below(20_000), ..Link::default() };
        let mut peers: Vec<_> = (0..6).map(|_| sim.connect_over(link.clone(), address("10.0.0.1:80"))).collect();
        sim.run_for(SECOND * 5);
        for id in node.act(|cx| cx.connection_ids()) {
            node.act(|cx| {
                cx.write(id, &BYTES);
                match random.below(5) {
                    0 => cx.close(id),
                    1 => cx.half_close(id),
                    2 => cx.set_deadline(id, SECOND * 2),
                    3 => cx.abort(id),
                    _ => cx.set_linger(id, SECOND),
                }
            });
        }
        for peer in &mut peers {
            match random.below(3) {
                0 => peer.stall(),
                1 => peer.finish(),
                _ => {}
            }
        }
        sim.run_for(random.time(SECOND * 12));
        peers.iter_mut().for_each(Peer::unstall);
        sim.run_for(random.time(SECOND));
        node.act(Context::stop);
        sim.run_for(SECOND * 60);
        assert!(!sim.is_running(node.id), "seed {seed}");
        for peer in &mut peers {
            let got = peer.take().len();
            resets += usize::from(peer.failure().is_some());
            let is_whole = !peer.is_ended() || peer.failure().is_some() || got == 0 || got == SENT;
            assert!(is_whole, "seed {seed}: {got} bytes, and an ordinary end\n{}", sim.trace());
        }
    }
    assert!(resets > 100, "{resets} resets");
}
