//! Half-closing, watermarks, limits: how a connection is slowed down, and how it ends.

mod common;

use std::io::ErrorKind;

use common::{Book, Call, Node, SECOND, address, ms};
use sealed::sim::{Link, Simulation};
use sealed::{Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Rates, Service};

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
    node.calls();
    node.act(|cx| {
        assert!(cx.write(id, b"all there is"));
        cx.half_close(id);
        assert!(!cx.write(id, b"too late"));
    });
    assert_eq!(peer.expect_end(), b"all there is");
    peer.send("and more");
    sim.run_for(SECOND * 60);
    assert_eq!(node.received(), b"and more");
    assert_eq!(node.calls(), [Call::Drained(id)]);
    peer.finish();
    sim.settle();
    assert_eq!(node.calls(), [Call::Ended(id), Call::Closed(id, CloseReason::Ended)]);
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
    assert_eq!(node.calls()[1..], [Call::Ended(id)]);
    node.act(|cx| {
        cx.write(id, b"answer");
        cx.half_close(id);
    });
    assert_eq!(peer.expect_end(), b"answer");
    sim.settle();
    assert_eq!(node.calls(), [Call::Closed(id, CloseReason::Ended)]);
}

#[test]
fn a_reset_shows_as_a_failure_and_loses_queued_output() {
    let (sim, node) = stage(Config::default(), Book::default());
    let connect = || {
        let peer = sim.connect(address("10.0.0.1:80"));
        sim.settle();
        let Some(Call::Accepted(id, _)) = node.calls().pop() else { panic!("accepted") };
        (peer, id)
    };
    let ((first, id), (second, other)) = (connect(), connect());
    let (peers, ids) = ([first, second], [id, other]);
    node.act(|cx| {
        cx.write(ids[0], b"half of it");
        cx.reset(ids[0]);
        cx.reset(ids[0]);
        cx.abort(ids[1]);
    });
    sim.settle();
    let aborted = CloseReason::Aborted;
    assert_eq!(node.calls(), [Call::Closed(ids[0], aborted), Call::Closed(ids[1], aborted)]);
    let failures = peers.map(|mut peer| (peer.take(), peer.failure()));
    assert_eq!(failures, [(vec![], Some(ErrorKind::ConnectionReset)), (vec![], None)]);
    assert!(node.is_empty());
}

#[test]
fn half_closing_sends_the_end_behind_all_queued_output() {
    let (sim, node) = stage(Config::default(), Book::default());
    sim.set_link(Link { buffer_bytes: 1_000, ..Link::default() });
    let mut peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.act(|cx| {
        cx.write(id, &[1; 12_000]);
        cx.half_close(id);
    });
    assert_eq!(peer.expect_end().len(), 12_000);
}

#[test]
fn a_closed_connection_is_gone_as_soon_as_its_peer_has_ended_too() {
    let (sim, node) = stage(Config::default(), Book::default());
    let link = Link { buffer_bytes: 1_000, ..Link::default() };
    let mut peer = sim.connect_over(link.clone(), address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    // The last bytes fill the link to a peer that does not read, so that nothing more can be
    // written.
    peer.stall();
    node.act(|cx| {
        cx.write(id, &vec![7; link.buffer_bytes]);
        cx.close(id);
    });
    sim.settle();
    assert!(!node.is_empty(), "the peer may still be sending");
    peer.finish();
    sim.settle();
    assert_eq!(node.calls().last(), Some(&Call::Closed(id, CloseReason::Closed)));
    assert!(node.is_empty());
}

#[test]
fn a_slow_peer_gets_all_output_of_a_closed_connection_even_if_the_kernel_reports_room_late() {
    let (sim, node) = stage(Config { linger: SECOND * 5, ..Config::default() }, Book::default());
    let link = Link { bandwidth: Some(1_000), buffer_bytes: 9_000, writable_room_bytes: 6_000, ..Link::default() };
    let mut peer = sim.connect_over(link, address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    // Three segments, three seconds each. Each of them frees some room, but the kernel reports room
    // only after two.
    for _ in 0..3 {
        node.act(|cx| cx.write(id, &[7; 3_000]));
        sim.run_for(ms(1));
    }
    node.act(|cx| {
        cx.write(id, &vec![7; 40_000]);
        cx.close(id);
    });
    assert_eq!(peer.expect_end().len(), 49_000);
    peer.finish();
    sim.settle();
    assert_eq!(node.calls().last(), Some(&Call::Closed(id, CloseReason::Closed)));
}

#[test]
fn a_deadline_that_a_service_moves_on_drained_does_not_expire_early() {
    let (sim, node) = stage(Config::default(), Book::default());
    let link = Link { bandwidth: Some(1_000), buffer_bytes: 9_000, writable_room_bytes: 9_000, ..Link::default() };
    let _peer = sim.connect_over(link, address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    for _ in 0..3 {
        node.act(|cx| cx.write(id, &[7; 3_000]));
        sim.run_for(ms(1));
    }
    // The rest fits once the first segment is gone, but nothing reports that.
    node.act(|cx| {
        cx.write(id, &[7; 2_000]);
        cx.set_deadline(id, SECOND * 5);
    });
    node.calls();
    node.look(|book, _| book.deadline_when_drained = Some(SECOND * 60));
    sim.run_for(SECOND * 10);
    assert_eq!(node.calls(), [Call::Drained(id)], "all is with the kernel, and its time has not come");
    sim.run_for(SECOND * 60);
    assert_eq!(node.calls(), [Call::Closed(id, CloseReason::TimedOut)]);
}

#[test]
fn large_output_is_sent_in_order_and_drained_is_called() {
    let (sim, node) = stage(Config::default(), Book::default());
    let mut peer = sim.connect_over(Link { buffer_bytes: 50_000, ..Link::default() }, address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.calls();
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    node.act(|cx| {
        assert!(cx.write(id, &bytes[..40_000]));
        assert_eq!(cx.queued(id), 0, "it is with the kernel");
        assert!(cx.write(id, &bytes[40_000..100_000]));
        assert!(cx.queued(id) > 0, "more than it takes");
        assert!(cx.write(id, &bytes[100_000..]));
    });
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        sim.settle();
        got.extend(peer.take());
    }
    assert!(got == bytes, "in order");
    assert_eq!(node.calls(), [Call::Drained(id)]);
    node.act(|cx| cx.write(id, &bytes[..40_000]));
    sim.settle();
    assert_eq!(node.calls(), [Call::Drained(id)], "drained is called for output that was sent at once as well");
    assert_eq!(node.act(|cx| cx.stats().bytes_sent), 240_000);
}

#[test]
fn writing_reports_the_high_mark_and_drained_the_low_mark() {
    let config = Config { output_high_bytes: 10_000, output_low_bytes: 4_000, ..Config::default() };
    let (sim, node) = stage(config, Book::default());
    sim.set_link(Link { buffer_bytes: 1_000, ..Link::default() });
    let mut peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.calls();
    peer.stall();
    node.act(|cx| {
        assert!(cx.write(id, &[1; 3_000]));
        assert!(cx.has_room(id));
    });
    sim.settle();
    assert_eq!(node.calls(), [], "no call below the low mark");
    node.act(|cx| assert!(!cx.write(id, &[2; 9_000]), "the high mark is passed"));
    sim.settle();
    assert_eq!((node.act(|cx| cx.queued(id)), node.calls()), (11_000, vec![]));
    peer.unstall();
    while node.calls().is_empty() {
        assert!(node.act(|cx| cx.queued(id)) > 4_000, "the call comes at the low mark");
        sim.run_for(ms(1));
    }
    assert!(node.act(|cx| cx.has_room(id)));
    sim.settle();
    assert_eq!(node.calls(), [], "one call");
    assert_eq!(peer.take().len(), 12_000);
}

#[test]
fn queued_output_may_reach_its_limit_and_no_more() {
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
    assert_eq!(node.calls().last(), Some(&Call::Closed(id, CloseReason::OutputFull)));
}

#[test]
fn a_peer_that_never_ends_is_cut_off_after_the_linger_and_the_loop_sleeps_meanwhile() {
    let (sim, node) = stage(Config { linger: SECOND * 3, ..Config::default() }, Book::default());
    let mut peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let (id, turns) = (node.only(), sim.turns());
    node.act(|cx| {
        cx.write(id, b"bye");
        cx.close(id);
    });
    assert_eq!(peer.expect_end(), b"bye");
    sim.run_for(SECOND * 4);
    assert_eq!(node.calls().last(), Some(&Call::Closed(id, CloseReason::Closed)));
    assert!(sim.turns() - turns < 20, "{} ticks", sim.turns() - turns);
}

#[test]
fn a_half_closed_connection_to_a_silent_peer_lets_its_loop_sleep_and_loses_nothing_in_the_end() {
    let (sim, node) = stage(Config::default(), Book::default());
    let mut peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let (id, turns) = (node.only(), sim.turns());
    node.act(|cx| cx.half_close(id));
    sim.run_for(SECOND * 60);
    assert!(sim.turns() - turns < 20, "{} ticks", sim.turns() - turns);
    node.act(|cx| cx.pause(id));
    peer.send(vec![7; 1_000_000]);
    peer.finish();
    sim.run_for(SECOND);
    assert_eq!(node.received().len(), 0);
    node.act(|cx| cx.resume(id));
    sim.settle();
    assert_eq!(node.received().len(), 1_000_000);
    assert_eq!(node.calls().last(), Some(&Call::Closed(id, CloseReason::Ended)));
    assert!(node.is_empty());
}

/// Takes one byte per call, and runs `between` after it.
struct Sipper {
    act: fn(&mut Context<Self>, ConnectionId),
    sipped: Vec<u8>,
    ended: bool,
}

impl Service for Sipper {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        assert!(!self.ended, "the end comes last");
        self.sipped.extend_from_slice(input.take(1));
        (self.act)(cx, id);
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.ended = true;
        cx.close(id);
    }
}

#[test]
fn untaken_input_stays_whatever_a_service_does_meanwhile() {
    let acts: [fn(&mut Context<Sipper>, ConnectionId); 3] = [
        // Asks for the rest at once.
        |cx, id| cx.resume(id),
        // Pauses, and resumes in the next tick.
        |cx, id| {
            cx.pause(id);
            cx.resume(id);
        },
        // Drops the rates, which were the reason to keep its buffers.
        |cx, id| {
            cx.set_rates(id, Rates::default());
            cx.resume(id);
        },
    ];
    for act in acts {
        let sim = Simulation::new(8);
        let sipper = Sipper { act, sipped: Vec::new(), ended: false };
        let mut event_loop = sim.event_loop(Config::default(), sipper).expect("a loop");
        let at = event_loop.listen("10.0.0.1:80").expect("it is free").address;
        let id = sim.start(event_loop);
        let mut peer = sim.connect(&at);
        peer.send("abcdefgh");
        sim.settle();
        let sipped = |event_loop: &mut EventLoop<Sipper>| event_loop.parts().0.sipped.clone();
        assert_eq!(sim.with(id, sipped).expect("it runs"), b"abcdefgh");
    }
}

#[test]
fn a_paused_connection_does_not_report_the_end() {
    let sim = Simulation::new(8);
    let sipper = Sipper { act: |cx, id| cx.pause(id), sipped: Vec::new(), ended: false };
    let mut event_loop = sim.event_loop(Config::default(), sipper).expect("a loop");
    let at = event_loop.listen("10.0.0.1:80").expect("it is free").address;
    let id = sim.start(event_loop);
    let mut peer = sim.connect(&at);
    peer.send("abcd");
    peer.finish();
    for _ in 0..4 {
        sim.settle();
        let ended = sim.with(id, |event_loop: &mut EventLoop<Sipper>| {
            let (sipper, cx) = event_loop.parts();
            let ended = sipper.ended;
            cx.connection_ids().into_iter().for_each(|id| cx.resume(id));
            ended
        });
        assert_eq!(ended, Some(false));
    }
    sim.settle();
    assert!(peer.is_over());
}

/// A service that takes nothing, and asks to see the input once more.
#[derive(Default)]
struct Insisting {
    looks: u32,
    other: u32,
}

impl Service for Insisting {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        if input.bytes() == b"other" {
            input.take_all();
            self.other += 1;
            return;
        }
        self.looks += 1;
        assert!(self.looks < 100_000, "no tick goes on without end");
        cx.resume(id);
    }
}

#[test]
fn a_service_that_keeps_resuming_does_not_starve_other_connections() {
    let sim = Simulation::new(8);
    let mut event_loop = sim.event_loop(Config::default(), Insisting::default()).expect("a loop");
    let at = event_loop.listen("10.0.0.1:80").expect("it is free").address;
    let id = sim.start(event_loop);
    let mut insisted_on = sim.connect(&at);
    insisted_on.send("abcd");
    sim.run_for(ms(1));
    let mut other = sim.connect(&at);
    other.send("other");
    let look = |event_loop: &mut EventLoop<Insisting>| (event_loop.service().looks, event_loop.service().other);
    assert!(sim.run_until(SECOND, || sim.with(id, look).expect("it runs").1 == 1));
    assert!(sim.with(id, look).expect("it runs").0 > 1, "and it is shown again");
}

/// A service that takes nothing before the peer's end, and everything then.
#[derive(Default)]
struct Keeper {
    left_at_the_end: Option<usize>,
    taken: Vec<u8>,
}

impl Service for Keeper {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        if self.left_at_the_end.is_some() {
            self.taken.extend_from_slice(input.take_all());
            cx.close(id);
        }
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.left_at_the_end = Some(cx.input_len(id));
        cx.resume(id);
    }
}

#[test]
fn input_left_at_the_end_can_still_be_taken() {
    let sim = Simulation::new(8);
    let mut event_loop = sim.event_loop(Config::default(), Keeper::default()).expect("a loop");
    let at = event_loop.listen("10.0.0.1:80").expect("it is free").address;
    let id = sim.start(event_loop);
    let mut peer = sim.connect(&at);
    peer.send("abc");
    sim.settle();
    peer.send("defgh");
    peer.finish();
    sim.settle();
    let state = |event_loop: &mut EventLoop<Keeper>| {
        let (keeper, cx) = event_loop.parts();
        (keeper.left_at_the_end, keeper.taken.clone(), cx.connections())
    };
    assert_eq!(sim.with(id, state).expect("it runs"), (Some(8), b"abcdefgh".to_vec(), 0));
}

/// Records the end and the deadline of connections, and then does what services do by default.
#[derive(Default)]
struct Logger {
    log: Vec<String>,
}

impl Service for Logger {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.set_deadline(id, SECOND);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        cx.write(id, input.take_all());
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.log.push("ended".to_owned());
        cx.close(id);
        assert!(!cx.is_open(id));
    }

    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.log.push("timed out".to_owned());
        cx.time_out(id);
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        self.log.push(format!("closed: {reason:?}"));
    }
}

#[test]
fn a_service_can_extend_the_default_behaviour() {
    let sim = Simulation::new(9);
    let mut event_loop = sim.event_loop(Config::default(), Logger::default()).expect("a loop");
    let at = event_loop.listen("10.0.0.1:80").expect("it is free").address;
    let id = sim.start(event_loop);
    let mut ends = sim.connect(&at);
    ends.send("all");
    ends.finish();
    assert_eq!(ends.expect_end(), b"all");
    let mut stays = sim.connect(&at);
    stays.expect_end();
    let log = sim.with(id, |event_loop: &mut EventLoop<Logger>| event_loop.service().log.clone());
    assert_eq!(log.expect("it runs"), ["ended", "closed: Ended", "timed out", "closed: TimedOut"]);
}
