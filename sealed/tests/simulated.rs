//! What a loop promises under every fault of a network, and what the simulation itself promises.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sealed::sim::{self, Faults, Link, LoopId, Peer, Simulation};
use sealed::{
    Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Mailbox, Place, Service,
    SocketOptions, TimerId,
};

const SECOND: Duration = Duration::from_secs(1);

fn address() -> SocketAddr {
    "10.0.0.1:7777".parse().expect("an address")
}

/// Sends back what it receives, a line at a time, and records which connections are open. It
/// answers some lines late, even if another connection has the slot by then.
#[derive(Default)]
struct Echo {
    book: Rc<RefCell<Book>>,
}

#[derive(Default)]
struct Book {
    open: HashMap<ConnectionId, u32>,
    reasons: Vec<CloseReason>,
    drained: u32,
}

impl Service for Echo {
    type Connection = u32;
    type Message = ();
    /// A late answer, and the connection that it is for.
    type Timer = (ConnectionId, Vec<u8>);

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        assert_eq!(self.book.borrow_mut().open.insert(id, 0), None, "an id is new");
        *cx.state_mut(id).expect("it is there") = id_number(id);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        assert!(self.book.borrow().open.contains_key(&id), "none is called after its end");
        while let Some(end) = input.bytes().iter().position(|byte| *byte == b'\n') {
            let line = input.take(end + 1).to_vec();
            if line.starts_with(b"late") {
                cx.set_timer(SECOND, (id, line));
            } else {
                cx.write(id, &line);
            }
        }
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (id, line): Self::Timer) {
        cx.write(id, &line);
        let known = self.book.borrow().open.contains_key(&id);
        assert!(known || !cx.is_open(id) && cx.state(id).is_none(), "an id is of one connection");
    }

    fn drained(&mut self, _: &mut Context<Self>, _: ConnectionId) {
        self.book.borrow_mut().drained += 1;
    }

    fn closed(&mut self, _: &mut Context<Self>, id: ConnectionId, state: u32, reason: CloseReason) {
        assert_eq!(state, id_number(id), "the state of that connection");
        assert!(self.book.borrow_mut().open.remove(&id).is_some(), "closed comes once");
        self.book.borrow_mut().reasons.push(reason);
    }
}

fn id_number(id: ConnectionId) -> u32 {
    format!("{id:?}").bytes().fold(7, |number, byte| number * 31 % 1_000_003 + u32::from(byte))
}

struct Stage {
    sim: Simulation,
    book: Rc<RefCell<Book>>,
    id: LoopId,
}

impl Stage {
    fn new(sim: Simulation, config: Config) -> Self {
        let book = Rc::new(RefCell::new(Book::default()));
        let mut event_loop = sim.event_loop(config, Echo { book: book.clone() }).expect("a loop");
        event_loop.listen(address()).expect("an address");
        let id = sim.start(event_loop);
        Self { sim, book, id }
    }

    fn look<R>(&self, look: impl FnOnce(&mut EventLoop<Echo>) -> R) -> R {
        self.sim.with(self.id, look).expect("it runs")
    }

    fn connected(&self) -> Peer {
        let peer = self.sim.connect(address());
        self.sim.settle();
        peer
    }
}

/// Lets many peers send lines and receive them back, while everything goes wrong. Returns a digest
/// of the run.
fn echo_in_a_storm(sim: &Simulation) -> u64 {
    let mut random = sim.random(0);
    let slow_tick = [0.0, 0.0, 0.02][random.below(3)];
    sim.set_faults(Faults { jump: 0.0, slow_tick, ..Faults::any(&mut random) });
    sim.set_link(Link { buffer_bytes: 1 + random.below(5_000), ..Link::default() });
    let (read_bytes_per_tick, read_buffer_bytes) = (1 + random.below(3_000), 1 + random.below(1_000));
    let stage = Stage::new(sim.clone(), Config { read_bytes_per_tick, read_buffer_bytes, ..Config::default() });
    let mut peers: Vec<(Peer, Vec<u8>, Vec<u8>)> = Vec::new();
    for round in 0..60 {
        match random.below(10) {
            0 if peers.len() < 20 => peers.push((sim.connect(address()), Vec::new(), Vec::new())),
            1 if !peers.is_empty() => drop(peers.swap_remove(random.below(peers.len()))),
            2 if !peers.is_empty() => peers.swap_remove(random.below(peers.len())).0.reset(),
            3 => sim.run_for(random.time(SECOND)),
            _ if peers.is_empty() => peers.push((sim.connect(address()), Vec::new(), Vec::new())),
            _ => {
                let index = random.below(peers.len());
                let (peer, sent, got) = &mut peers[index];
                let line = format!("{round} {}\n", "x".repeat(random.below(2_000)));
                peer.send(&line);
                sent.extend(line.bytes());
                if random.chance(0.1) {
                    // Its answer may come at any time; this connection carries nothing else.
                    let (mut hasty, ..) = peers.swap_remove(index);
                    hasty.send("late\n");
                    sim.run_for(random.time(SECOND));
                    continue;
                }
                got.extend(peer.take());
                sim.run_for(random.time(Duration::from_millis(50)));
            }
        }
    }
    sim.run_for(SECOND * 600);
    for (peer, sent, got) in &mut peers {
        got.extend(peer.take());
        assert!(sent.starts_with(got), "what comes back is what was sent");
        assert!(
            got == sent || peer.is_over(),
            "all of it comes back, or the connection ends: {} {}",
            got.len(),
            sent.len()
        );
    }
    // All leave, some of them without an end or a reset.
    for (mut peer, ..) in peers {
        if random.chance(0.5) {
            peer.vanish();
            sim.run_for(SECOND);
        }
    }
    sim.run_for(SECOND * 120);
    assert!(stage.book.borrow().open.is_empty(), "closed was called for all");
    assert_eq!(stage.look(|event_loop| event_loop.parts().1.connections()), 0);
    assert_eq!(sim.descriptors(), 1, "the listener alone");
    sim.digest()
}

#[test]
fn nothing_is_lost_repeated_or_left_behind_in_a_storm() {
    sim::check(0..400, |sim| {
        echo_in_a_storm(sim);
    });
}

#[test]
fn a_seed_determines_the_run() {
    let run = |seed| echo_in_a_storm(&Simulation::new(seed));
    let digests: Vec<u64> = (0..20).map(run).collect();
    assert_eq!(digests, (0..20).map(run).collect::<Vec<_>>());
    let distinct: std::collections::HashSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len());
}

/// Posts each number that it receives to the other loop, less one.
struct Relay {
    others: Vec<Mailbox<u32>>,
    arrived: Rc<RefCell<u32>>,
}

impl Service for Relay {
    type Connection = ();
    type Message = u32;
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        input.take_all();
    }

    fn message(&mut self, cx: &mut Context<Self>, message: u32) {
        if let Some(less) = message.checked_sub(1) {
            let to = cx.random() as usize % self.others.len();
            self.others[to].post(less).expect("room");
        } else {
            *self.arrived.borrow_mut() += 1;
        }
    }
}

#[test]
fn no_wake_up_is_lost_however_posting_and_taking_interleave() {
    sim::check(0..300, |sim| {
        let mut random = sim.random(0);
        let slow_tick = [0.0, 0.0, 0.02][random.below(3)];
        sim.set_faults(Faults { interleave: 0.5, slow_tick, ..Faults::any(&mut random) });
        let pool = sim.pool(Config { messages_per_tick: 1 + random.below(3), ..Config::default() }, 3).expect("a pool");
        let mailboxes = pool.mailboxes();
        let arrived = Rc::new(RefCell::new(0));
        let make = |place: Place<u32>| Relay { others: place.mailboxes, arrived: arrived.clone() };
        sim.start_pool(pool, make).expect("loops");
        for number in 0..20 {
            mailboxes[random.below(3)].post(number).expect("room");
        }
        sim.run_for(SECOND * 600);
        assert_eq!(*arrived.borrow(), 20);
    });
}

#[test]
fn an_idle_loop_does_not_turn() {
    let stage = Stage::new(Simulation::new(1), Config::default());
    let mut peers: Vec<Peer> = (0..100).map(|_| stage.connected()).collect();
    peers[0].send("half a line");
    stage.sim.settle();
    let turns = stage.sim.turns();
    stage.sim.run_for(SECOND * 3_600);
    assert_eq!(stage.sim.turns(), turns);
}

#[test]
fn failed_accepting_is_retried_without_spinning() {
    let stage = Stage::new(Simulation::new(1), Config::default());
    stage.sim.set_descriptors_max(stage.sim.descriptors() + 2);
    let mut peers: Vec<Peer> = (0..3).map(|_| stage.connected()).collect();
    let turns = stage.sim.turns();
    peers[2].send("hello\n");
    assert!(peers[2].is_silent_for(SECOND * 10));
    assert!(stage.sim.turns() - turns <= 110, "about one try each 100 ms: {}", stage.sim.turns() - turns);
    drop(peers.remove(0));
    peers[1].expect("hello\n");
    // A few failures in a row, with descriptors free.
    stage.sim.set_descriptors_max(usize::MAX);
    stage.sim.fail_accepts(5);
    let mut late = stage.sim.connect(address());
    late.send("late\n");
    late.expect("late\n");
}

#[test]
fn at_the_limit_of_connections_new_peers_wait_in_the_backlog() {
    let stage = Stage::new(Simulation::new(1), Config { connections_max: 2, backlog: 2, ..Config::default() });
    let mut peers: Vec<Peer> = (0..4).map(|_| stage.connected()).collect();
    peers[0].send("a\n");
    peers[0].expect("a\n");
    for late in &mut peers[2..] {
        assert!(late.is_silent_for(SECOND));
        late.send("b\n");
    }
    drop(peers.drain(..2));
    for mut late in peers {
        late.expect("b\n");
    }
}

#[test]
fn a_peer_that_vanishes_is_detected_within_silence_max() {
    let config = Config {
        socket: SocketOptions { silence_max: Some(SECOND * 60), ..SocketOptions::default() },
        ..Config::default()
    };
    let stage = Stage::new(Simulation::new(1), config);
    let mut peer = stage.connected();
    peer.vanish();
    stage.sim.run_for(SECOND * 59);
    assert_eq!(stage.book.borrow().open.len(), 1);
    stage.sim.run_for(SECOND * 2);
    assert_eq!(stage.book.borrow().reasons, [CloseReason::Failed(ErrorKind::TimedOut)]);
}

#[test]
fn a_stalled_peer_delays_no_other_peer_and_gets_everything_in_the_end() {
    let sim = Simulation::new(1);
    sim.set_link(Link { buffer_bytes: 10_000, ..Link::default() });
    let stage = Stage::new(sim.clone(), Config::default());
    let (mut stalled, mut other) = (stage.connected(), stage.connected());
    stalled.stall();
    let lines: String = (0..5_000).flat_map(|n| ["line ".to_owned(), n.to_string(), "\n".to_owned()]).collect();
    stalled.send(&lines);
    for _ in 0..20 {
        other.send("quick\n");
        other.expect("quick\n");
    }
    sim.settle();
    assert!(stalled.count_received() <= 10_000);
    stalled.unstall();
    assert_eq!(String::from_utf8(stalled.expect("line 4999\n")).expect("text"), lines);
    assert!(stage.book.borrow().drained > 0);
}

#[test]
fn half_closed_reset_and_refused_connections_are_distinguished() {
    let stage = Stage::new(Simulation::new(1), Config::default());
    let mut half = stage.connected();
    half.send("last\n");
    half.finish();
    assert_eq!(half.expect_end(), b"last\n");
    stage.connected().reset();
    stage.sim.settle();
    assert_eq!(stage.book.borrow().reasons, [CloseReason::Ended, CloseReason::Failed(ErrorKind::ConnectionReset)]);
    let mut nobody = stage.sim.connect("10.0.0.1:9".parse::<Address>().expect("an address"));
    nobody.expect_end();
    assert_eq!(nobody.failure(), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn peers_of_a_killed_loop_see_the_end_and_its_address_is_free_at_once() {
    let stage = Stage::new(Simulation::new(1), Config::default());
    let mut peer = stage.connected();
    stage.sim.kill(stage.id);
    peer.expect_end();
    assert_eq!(stage.sim.descriptors(), 0);
    let again = Stage::new(stage.sim.clone(), Config::default());
    let mut peer = again.connected();
    peer.send("hello\n");
    peer.expect("hello\n");
}

#[test]
fn links_have_latency_and_bandwidth() {
    let stage = Stage::new(Simulation::new(1), Config::default());
    let latency = Duration::from_millis(80);
    let slow = Link { latency_min: latency, latency_max: latency, bandwidth: Some(10_000), ..Link::default() };
    let mut peer = stage.sim.connect_over(slow, address());
    let start = stage.sim.now();
    peer.send("x\n");
    peer.expect("x\n");
    let took = stage.sim.now().saturating_sub(start);
    assert!(took >= latency * 4 && took < latency * 5, "there and back, twice: {took:?}");
    let start = stage.sim.now();
    peer.send(format!("{}\n", "y".repeat(9_999)));
    peer.expect("y\n");
    let took = stage.sim.now().saturating_sub(start);
    assert!(took >= SECOND * 2 && took < SECOND * 3, "a second each way: {took:?}");
}

/// Connects where the test orders, and records what happens.
#[derive(Default)]
struct Caller {
    calls: Vec<String>,
}

impl Service for Caller {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn connected(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.calls.push("connected".into());
        cx.write(id, b"hello\n");
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        self.calls.push(String::from_utf8_lossy(input.take_all()).into_owned());
        cx.close(id);
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        self.calls.push(format!("{reason:?}"));
    }
}

#[test]
fn loops_connect_to_one_another() {
    let stage = Stage::new(Simulation::new(1), Config::default());
    let caller = stage.sim.event_loop(Config::default(), Caller::default()).expect("a loop");
    let caller = stage.sim.start(caller);
    let call = |address: &str| {
        let address: Address = address.parse().expect("an address");
        stage.sim.with(caller, |event_loop: &mut EventLoop<Caller>| {
            event_loop.parts().1.connect(address, ()).expect("started");
        });
        stage.sim.run_for(SECOND * 10);
        let calls = stage
            .sim
            .with(caller, |event_loop: &mut EventLoop<Caller>| std::mem::take(&mut event_loop.parts().0.calls));
        calls.expect("it runs")
    };
    assert_eq!(call("10.0.0.1:7777"), ["connected", "hello\n", "Closed"]);
    assert_eq!(call("10.0.0.1:1"), ["NotConnected(ConnectionRefused)"]);
    // A loop can connect to the test as well.
    let host = stage.sim.listen("10.0.0.2:80".parse::<Address>().expect("an address")).expect("it is free");
    stage.sim.with(caller, |event_loop: &mut EventLoop<Caller>| {
        event_loop.parts().1.connect(host.address(), ()).expect("started");
    });
    stage.sim.settle();
    let mut other_end = host.accept().expect("a call");
    other_end.expect("hello\n");
    other_end.send("bye\n");
    assert_eq!(other_end.expect_end(), b"");
    drop(other_end);
    stage.sim.settle();
    assert_eq!(call("10.0.0.1:1")[..3], ["connected", "bye\n", "Closed"]);
    stage.sim.set_faults(Faults { slow_connect: 1.0, ..Faults::default() });
    assert_eq!(call("10.0.0.1:7777"), ["NotConnected(TimedOut)"]);
}

/// A service that closes no connection when its loop shuts down.
struct Host;

impl Service for Host {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        input.take_all();
    }

    fn draining(&mut self, _: &mut Context<Self>, _: Duration) {}
}

#[test]
fn loops_of_a_pool_end_together_and_a_second_stop_ends_them_at_once() {
    let sim = Simulation::new(1);
    let mut pool = sim.pool(Config { drain_limit: SECOND * 3_600, ..Config::default() }, 3).expect("a pool");
    pool.listen(address()).expect("an address");
    let stopper = pool.stopper();
    let loops = sim.start_pool(pool, |_| Host).expect("loops");
    let running = || loops.iter().filter(|id| sim.is_running(**id)).count();
    let mut guest = sim.connect(address());
    sim.settle();
    stopper.stop();
    sim.run_for(SECOND * 60);
    assert_eq!(running(), 3, "two have nobody, and wait for the third");
    stopper.stop();
    sim.settle();
    assert_eq!(running(), 0);
    guest.expect_end();
}

/// Writes much at once, and closes.
struct Orator;

const SPEECH: usize = 100_000;

impl Service for Orator {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, _: ListenerId, _: &Address) {
        cx.write(id, &vec![b'x'; SPEECH]);
        cx.close(id);
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        input.take_all();
    }
}

#[test]
fn a_closed_connection_sends_everything_to_a_slow_reader_and_gives_up_on_a_stalled_reader() {
    let sim = Simulation::new(1);
    let config = Config { linger: SECOND * 2, ..Config::default() };
    let mut event_loop = sim.event_loop(config, Orator).expect("a loop");
    event_loop.listen(address()).expect("an address");
    sim.start(event_loop);
    let slow = Link { bandwidth: Some(5_000), buffer_bytes: 4_000, ..Link::default() };
    let mut peer = sim.connect_over(slow.clone(), address());
    assert_eq!(peer.expect_end().len(), SPEECH, "in about 20 s");
    assert!(sim.now() > SECOND * 15, "{:?}", sim.now());
    let mut stalled = sim.connect_over(slow, address());
    stalled.stall();
    sim.run_for(SECOND * 5);
    assert_eq!(sim.descriptors(), 1, "the listener alone");
}
