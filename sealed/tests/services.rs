//! Several services on one loop: each with its own connections, messages and timers.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use sealed::sim::{Faults, LoopId, Peer, Simulation};
use sealed::{
    Address, CloseReason, Config, ConnectionId, Context, Error, EventLoop, Input, ListenerId, Mailbox, Service, TimerId,
};

const SECOND: Duration = Duration::from_secs(1);

type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, text: impl Into<String>) {
    log.lock().expect("no panic while it was held").push(text.into());
}

fn noted(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().expect("no panic while it was held"))
}

/// Passes lines to the store, and its answers back.
struct Front {
    log: Log,
    answers: usize,
    store: Option<Mailbox<Question>>,
}

#[derive(Default)]
struct Caller {
    lines: usize,
}

impl Service for Front {
    type Connection = Caller;
    type Message = (ConnectionId, String);
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        note(&self.log, "front started");
        let store = Store { log: self.log.clone(), kept: Vec::new() };
        let store = cx.add_service(Config::default(), store).expect("a second service");
        store.listen("127.0.0.1:7002").expect("a port");
        self.store = Some(store.mailbox());
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        while let Some(line) = input.take_until(b'\n') {
            let text = String::from_utf8_lossy(line).trim_end().to_owned();
            let from = cx.mailbox();
            let store = self.store.as_ref().expect("a started service");
            store.post(Question { text, from, id }).expect("room");
            if let Some(caller) = cx.state_mut(id) {
                caller.lines += 1;
            }
        }
    }

    fn message(&mut self, cx: &mut Context<Self>, (id, answer): (ConnectionId, String)) {
        self.answers += 1;
        let lines = cx.state(id).map_or(0, |caller| caller.lines);
        cx.write(id, format!("{lines} {answer}\n").as_bytes());
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, _: Caller, reason: CloseReason) {
        note(&self.log, format!("front closed {reason:?}"));
    }
}

#[derive(Debug)]
struct Question {
    text: String,
    from: Mailbox<(ConnectionId, String)>,
    id: ConnectionId,
}

/// Stores the questions. Writes to its own connections how many there are.
struct Store {
    log: Log,
    kept: Vec<String>,
}

impl Service for Store {
    type Connection = u64;
    type Message = Question;
    type Timer = &'static str;

    fn started(&mut self, cx: &mut Context<Self>) {
        note(&self.log, "store started");
        cx.set_timer(SECOND, "a second");
    }

    fn accepted(&mut self, cx: &mut Context<Self>, id: ConnectionId, listener: ListenerId, _: &Address) {
        note(&self.log, format!("store accepted by {}", listener.index()));
        if let Some(state) = cx.state_mut(id) {
            *state = u64::MAX;
        }
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        assert_eq!(cx.state(id), Some(&u64::MAX), "the connection of another service");
        input.take_all();
        cx.write(id, format!("{} kept\n", self.kept.len()).as_bytes());
    }

    fn message(&mut self, _: &mut Context<Self>, question: Question) {
        let answer = (question.id, format!("{} {}", self.kept.len(), question.text));
        self.kept.push(question.text);
        // The front may be gone.
        let _ = question.from.post(answer);
    }

    fn expired(&mut self, _: &mut Context<Self>, _: TimerId, value: &'static str) {
        note(&self.log, format!("store expired after {value}"));
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, _: u64, reason: CloseReason) {
        note(&self.log, format!("store closed {reason:?}"));
    }

    fn draining(&mut self, cx: &mut Context<Self>, limit: Duration) {
        note(&self.log, format!("store draining for {:.0} s", limit.as_secs_f64()));
        cx.close_all();
    }
}

fn front(log: &Log) -> Front {
    Front { log: log.clone(), answers: 0, store: None }
}

fn start(sim: &Simulation) -> (LoopId, Log) {
    let log = Log::default();
    let mut event_loop = sim.event_loop(Config::default(), front(&log)).expect("a loop");
    event_loop.listen("127.0.0.1:7001").expect("a port");
    (sim.start(event_loop), log)
}

fn connect(sim: &Simulation, port: u16) -> Peer {
    sim.connect(Address::Inet(([127, 0, 0, 1], port).into()))
}

#[test]
fn services_have_connections_timers_and_messages_of_their_own_on_one_loop() {
    let sim = Simulation::new(1);
    let (id, log) = start(&sim);
    sim.settle();
    assert_eq!(noted(&log), ["front started", "store started"]);

    // The two connections have the same slot, each among those of its service.
    let (mut caller, mut looker) = (connect(&sim, 7001), connect(&sim, 7002));
    caller.send("one\ntwo\n");
    caller.expect("2 0 one\n2 1 two\n");
    looker.send("?");
    looker.expect("2 kept\n");
    sim.run_for(2 * SECOND);
    assert_eq!(noted(&log), ["store accepted by 0", "store expired after a second"]);

    let counts = sim.with(id, |event_loop: &mut EventLoop<Front>| {
        let (store, cx) = event_loop.parts_of::<Store>().expect("the added service");
        assert_eq!(store.kept, ["one", "two"]);
        let of_store = (cx.connections(), cx.stats().accepted, cx.stats().messages);
        let (front, cx) = event_loop.parts();
        assert_eq!(front.answers, 2);
        (of_store, (cx.connections(), cx.stats().accepted, cx.stats().messages))
    });
    assert_eq!(counts, Some(((1, 1, 2), (1, 1, 2))));
}

#[test]
fn a_question_to_another_service_is_answered_within_two_ticks() {
    let sim = Simulation::new(2);
    let (_, _) = start(&sim);
    let mut caller = connect(&sim, 7001);
    sim.settle();
    let turns = sim.turns();
    caller.send("one\n");
    caller.expect("1 0 one\n");
    // The tick that reads the question delivers it as well. The answer comes with the next tick at
    // the latest.
    assert!(sim.turns() - turns <= 2, "{} ticks", sim.turns() - turns);
}

#[test]
fn a_loop_ends_once_no_service_has_connections_left() {
    let sim = Simulation::new(3);
    let (id, log) = start(&sim);
    let mut looker = connect(&sim, 7002);
    looker.send("?");
    looker.expect("0 kept\n");
    noted(&log);
    // It reads no more, and sends no end: the loop waits for it until the limit.
    looker.vanish();
    let stopper = sim.with(id, |event_loop: &mut EventLoop<Front>| event_loop.stopper()).expect("a loop");
    stopper.stop();
    sim.run_for(2 * SECOND);
    assert!(sim.is_running(id), "a service has a connection left");
    assert_eq!(noted(&log), ["store draining for 10 s", "store expired after a second"]);
    sim.run_for(10 * SECOND);
    assert!(!sim.is_running(id));
    assert_eq!(noted(&log), ["store closed Closed"]);
}

#[test]
fn a_service_added_during_a_shutdown_shuts_down_with_the_loop() {
    struct Late(Log);

    impl Service for Late {
        type Connection = ();
        type Message = ();
        type Timer = ();

        fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
            input.take_all();
        }

        fn draining(&mut self, cx: &mut Context<Self>, _: Duration) {
            note(&self.0, "first draining");
            let store = Store { log: self.0.clone(), kept: Vec::new() };
            let store = cx.add_service(Config::default(), store).expect("a second service");
            assert!(store.listen("127.0.0.1:7002").is_err(), "it takes no connections");
        }
    }

    let (sim, log) = (Simulation::new(4), Log::default());
    let mut event_loop = sim.event_loop(Config::default(), Late(log.clone())).expect("a loop");
    event_loop.listen("127.0.0.1:7001").expect("a port");
    let stopper = event_loop.stopper();
    let id = sim.start(event_loop);
    let mut peer = connect(&sim, 7001);
    sim.settle();
    peer.stall();
    stopper.stop();
    sim.run_for(SECOND);
    assert_eq!(noted(&log), ["first draining", "store started", "store draining for 10 s"]);
    sim.run_for(10 * SECOND);
    assert!(!sim.is_running(id));
}

#[test]
fn a_panic_of_an_added_service_ends_the_loop_and_no_service_is_called_again() {
    let log = Log::default();
    let sim = Simulation::new(5);
    let mut event_loop = sim.event_loop(Config::default(), front(&log)).expect("a loop");
    let fragile = event_loop.add_service(Config::default(), Fragile(log.clone())).expect("a second service");
    let fragile = fragile.mailbox();
    event_loop.turn(Some(Duration::ZERO)).expect("a sound loop");
    noted(&log);
    fragile.post(()).expect("room");
    let outcome = event_loop.turn(Some(Duration::ZERO));
    assert!(matches!(&outcome, Err(Error::Panicked(message)) if message == "a bad message"), "{outcome:?}");
    assert!(matches!(event_loop.turn(None), Err(Error::Panicked(_))), "and it never turns again");
    assert_eq!(noted(&log), ["a message"]);
    assert!(fragile.post(()).is_err() && event_loop.mailbox().post((ids(), String::new())).is_err());
}

/// Returns an id without a connection.
fn ids() -> ConnectionId {
    let sim = Simulation::new(0);
    let mut event_loop = sim.event_loop(Config::default(), Fragile(Log::default())).expect("a loop");
    let (_, cx) = event_loop.parts();
    cx.connect(Address::Inet(([127, 0, 0, 1], 9).into()), ()).expect("an attempt")
}

struct Fragile(Log);

impl Service for Fragile {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        input.take_all();
    }

    fn message(&mut self, _: &mut Context<Self>, (): ()) {
        note(&self.0, "a message");
        panic!("a bad message");
    }

    fn turned(&mut self, _: &mut Context<Self>) {
        // It is called after the panic only if the last note is that of the panic.
        if self.0.lock().expect("no panic while it was held").last().is_some_and(|last| last == "a message") {
            note(&self.0, "turned");
        }
    }
}

#[test]
fn a_panic_at_the_start_of_a_service_ends_the_loop_at_once() {
    struct Broken;

    impl Service for Broken {
        type Connection = ();
        type Message = ();
        type Timer = ();

        fn started(&mut self, _: &mut Context<Self>) {
            panic!("no start");
        }

        fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
            input.take_all();
        }
    }

    let mut first = EventLoop::new(Config::default(), Broken).expect("a loop");
    let mut second = EventLoop::new(Config::default(), Fragile(Log::default())).expect("a loop");
    second.add_service(Config::default(), Broken).expect("a second service");
    let (sender, outcomes) = mpsc::channel();
    let other_sender = sender.clone();
    thread::spawn(move || sender.send(first.run()));
    thread::spawn(move || other_sender.send(second.run()));
    for _ in 0..2 {
        let outcome = outcomes.recv_timeout(60 * SECOND).expect("the loop ends");
        assert!(matches!(&outcome, Err(Error::Panicked(message)) if message == "no start"), "{outcome:?}");
    }
}

#[test]
fn services_that_added_services_add_get_their_own_events() {
    let (sim, log) = (Simulation::new(8), Log::default());
    let store = || Store { log: log.clone(), kept: Vec::new() };
    let mut event_loop = sim.event_loop(Config::default(), Fragile(log.clone())).expect("a loop");
    let added = event_loop.add_service(Config::default(), Fragile(log.clone())).expect("a second service");
    let nested = added.add_service(Config::default(), store()).expect("a third service");
    nested.listen("127.0.0.1:7003").expect("a port");
    event_loop.add_service(Config::default(), Fragile(log.clone())).expect("a fourth service");
    sim.start(event_loop);
    let mut peer = connect(&sim, 7003);
    peer.send("?");
    peer.expect("0 kept\n");
}

#[test]
fn a_loop_has_at_most_256_services() {
    let sim = Simulation::new(6);
    let log = Log::default();
    let mut event_loop = sim.event_loop(Config::default(), Fragile(log.clone())).expect("a loop");
    for number in 1..256 {
        let added = event_loop.add_service(Config::default(), Fragile(log.clone()));
        assert!(added.is_ok(), "service {number}");
    }
    let refused = event_loop.add_service(Config::default(), Fragile(log));
    assert!(matches!(refused, Err(Error::Create(_))));
}

#[test]
fn services_of_one_loop_get_their_own_bytes_whatever_the_network_does() {
    let mut answered = 0;
    for seed in 0..300 {
        let sim = Simulation::new(seed);
        let (id, _) = start(&sim);
        sim.settle();
        sim.set_faults(Faults::any(&mut sim.random(1)));
        let mut callers: Vec<_> = (0..3).map(|_| connect(&sim, 7001)).collect();
        let mut lookers: Vec<_> = (0..3).map(|_| connect(&sim, 7002)).collect();
        for round in 0..5 {
            for (number, caller) in callers.iter_mut().enumerate() {
                caller.send(format!("{number}.{round}\n"));
            }
            for looker in &mut lookers {
                looker.send("?");
            }
            sim.run_for(SECOND);
        }
        sim.set_faults(Faults::default());
        sim.run_for(60 * SECOND);
        assert!(sim.is_running(id), "seed {seed}\n{}", sim.trace());
        for (number, caller) in callers.iter_mut().enumerate() {
            let text = String::from_utf8(caller.take()).expect("text");
            // A connection that fails may leave a part of a line.
            for (round, line) in text.split_inclusive('\n').filter(|line| line.ends_with('\n')).enumerate() {
                assert!(line.ends_with(&format!(" {number}.{round}\n")), "seed {seed}: {text}");
                answered += 1;
            }
        }
        for looker in &mut lookers {
            let text = String::from_utf8(looker.take()).expect("text");
            let mut whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            assert!(whole.all(|line| line.ends_with(" kept\n")), "seed {seed}: {text}");
        }
    }
    assert!(answered > 1_000, "{answered} answers: the faults leave nothing to see");
}
