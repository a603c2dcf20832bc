//! Half-closing, watermarks, limits: how a connection is slowed down, and how it ends.

mod common;

use std::io::ErrorKind;

use common::{Book, Node, SECOND, Told, address, ms};
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
fn a_reset_is_seen_as_a_failure_and_what_was_queued_is_lost() {
    let (sim, node) = stage(Config::default(), Book::default());
    let connect = || {
        let peer = sim.connect(address("10.0.0.1:80"));
        sim.settle();
        let Some(Told::Accepted(id, _)) = node.told().pop() else { panic!("accepted") };
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
    assert_eq!(node.told(), [Told::Closed(ids[0], aborted), Told::Closed(ids[1], aborted)]);
    let failures = peers.map(|mut peer| (peer.take(), peer.failure()));
    assert_eq!(failures, [(vec![], Some(ErrorKind::ConnectionReset)), (vec![], None)]);
    assert!(node.is_empty());
}

#[test]
fn half_closing_tells_the_end_behind_all_that_is_queued() {
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
    // The last bytes fill the way to a peer that does not read them, so that nothing more can be written.
    peer.stall();
    node.act(|cx| {
        cx.write(id, &vec![7; link.buffer_bytes]);
        cx.close(id);
    });
    sim.settle();
    assert!(!node.is_empty(), "the peer may still be sending");
    peer.finish();
    sim.settle();
    assert_eq!(node.told().last(), Some(&Told::Closed(id, CloseReason::Closed)));
    assert!(node.is_empty());
}

#[test]
fn a_slow_peer_gets_all_of_a_closed_connection_though_the_kernel_is_late_to_tell_of_room() {
    let (sim, node) = stage(Config { linger: SECOND * 5, ..Config::default() }, Book::default());
    let link = Link { bandwidth: Some(1_000), buffer_bytes: 9_000, room_told_bytes: 6_000, ..Link::default() };
    let mut peer = sim.connect_over(link, address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    // Three segments, three seconds each: there is some room after each of them, and word of it after two.
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
    assert_eq!(node.told().last(), Some(&Told::Closed(id, CloseReason::Closed)));
}

#[test]
fn a_deadline_that_a_service_moves_as_the_last_bytes_go_is_not_told_before_its_time() {
    let (sim, node) = stage(Config::default(), Book::default());
    let link = Link { bandwidth: Some(1_000), buffer_bytes: 9_000, room_told_bytes: 9_000, ..Link::default() };
    let _peer = sim.connect_over(link, address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    for _ in 0..3 {
        node.act(|cx| cx.write(id, &[7; 3_000]));
        sim.run_for(ms(1));
    }
    // What is left fits when the first segment has gone, and nobody tells.
    node.act(|cx| {
        cx.write(id, &[7; 2_000]);
        cx.set_deadline(id, SECOND * 5);
    });
    node.told();
    node.look(|book, _| book.deadline_when_drained = Some(SECOND * 60));
    sim.run_for(SECOND * 10);
    assert_eq!(node.told(), [Told::Drained(id)], "all is with the kernel, and its time has not come");
    sim.run_for(SECOND * 60);
    assert_eq!(node.told(), [Told::Closed(id, CloseReason::TimedOut)]);
}

#[test]
fn much_is_sent_without_waiting_in_order_and_drained_is_told() {
    let (sim, node) = stage(Config::default(), Book::default());
    let mut peer = sim.connect_over(Link { buffer_bytes: 50_000, ..Link::default() }, address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.told();
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
    assert_eq!(node.told(), [Told::Drained(id)]);
    node.act(|cx| cx.write(id, &bytes[..40_000]));
    sim.settle();
    assert_eq!(node.told(), [Told::Drained(id)], "what was sent at once is told of too");
    assert_eq!(node.act(|cx| cx.stats().bytes_sent), 240_000);
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
fn who_never_ends_is_cut_off_after_the_linger_and_the_loop_sleeps_meanwhile() {
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
    assert_eq!(node.told().last(), Some(&Told::Closed(id, CloseReason::Closed)));
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
    assert_eq!(node.told().last(), Some(&Told::Closed(id, CloseReason::Ended)));
    assert!(node.is_empty());
}

/// Takes a byte at a call, and does what it is told between.
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
fn what_is_left_stays_whatever_a_service_does_between() {
    let acts: [fn(&mut Context<Sipper>, ConnectionId); 3] = [
        // Asks for the rest at once.
        |cx, id| cx.resume(id),
        // Pauses, and goes on in the next tick.
        |cx, id| {
            cx.pause(id);
            cx.resume(id);
        },
        // Gives up what made it keep its buffers.
        |cx, id| {
            cx.set_rates(id, Rates::default());
            cx.resume(id);
        },
    ];
    for act in acts {
        let sim = Simulation::new(8);
        let sipper = Sipper { act, sipped: Vec::new(), ended: false };
        let mut event_loop = sim.event_loop(Config::default(), sipper).expect("a loop");
        let at = event_loop.listen("10.0.0.1:80").expect("it is free");
        let id = sim.start(event_loop);
        let mut peer = sim.connect(&at);
        peer.send("abcdefgh");
        sim.settle();
        let heard = |event_loop: &mut EventLoop<Sipper>| event_loop.parts().0.sipped.clone();
        assert_eq!(sim.with(id, heard).expect("it runs"), b"abcdefgh");
    }
}

#[test]
fn the_end_is_not_told_to_who_has_paused() {
    let sim = Simulation::new(8);
    let sipper = Sipper { act: |cx, id| cx.pause(id), sipped: Vec::new(), ended: false };
    let mut event_loop = sim.event_loop(Config::default(), sipper).expect("a loop");
    let at = event_loop.listen("10.0.0.1:80").expect("it is free");
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

/// Takes nothing, and asks to see it once more.
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
fn who_asks_again_and_again_starves_nobody() {
    let sim = Simulation::new(8);
    let mut event_loop = sim.event_loop(Config::default(), Insisting::default()).expect("a loop");
    let at = event_loop.listen("10.0.0.1:80").expect("it is free");
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

/// Takes nothing before the peer's end, and all of it then.
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
fn the_end_is_told_with_input_left_which_can_still_be_had() {
    let sim = Simulation::new(8);
    let mut event_loop = sim.event_loop(Config::default(), Keeper::default()).expect("a loop");
    let at = event_loop.listen("10.0.0.1:80").expect("it is free");
    let id = sim.start(event_loop);
    let mut peer = sim.connect(&at);
    peer.send("abc");
    sim.settle();
    peer.send("defgh");
    peer.finish();
    sim.settle();
    let heard = |event_loop: &mut EventLoop<Keeper>| {
        let (keeper, cx) = event_loop.parts();
        (keeper.left_at_the_end, keeper.taken.clone(), cx.connections())
    };
    assert_eq!(sim.with(id, heard).expect("it runs"), (Some(8), b"abcdefgh".to_vec(), 0));
}

/// Notes the end and the deadline of connections, and does then what services do by default.
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
        cx.close_ended(id);
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
fn a_service_can_add_to_what_it_does_by_default() {
    let sim = Simulation::new(9);
    let mut event_loop = sim.event_loop(Config::default(), Logger::default()).expect("a loop");
    let at = event_loop.listen("10.0.0.1:80").expect("it is free");
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
