//! How several services end with their loop: after a panic no service is called, and a service that
//! is added at the last moment still starts and ends properly.

mod common;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{SECOND, address, ms};
use sealed::sim::Simulation;
use sealed::{CloseReason, Config, ConnectionId, Context, Error, EventLoop, Input, Mailbox, PostError, Service};

type Log = Arc<Mutex<Vec<String>>>;
type Hook = Box<dyn FnMut(&mut Context<Scripted>) + Send>;

/// A service that records its calls, and does in one of them what a test wants.
struct Scripted {
    name: &'static str,
    log: Log,
    acts_in: &'static str,
    act: Hook,
    /// Leaves its connections to the drain limit.
    stays: bool,
}

impl Scripted {
    fn new(name: &'static str, log: &Log) -> Self {
        Self { name, log: log.clone(), acts_in: "", act: Box::new(|_| ()), stays: false }
    }

    fn acting(self, acts_in: &'static str, act: impl FnMut(&mut Context<Self>) + Send + 'static) -> Self {
        Self { acts_in, act: Box::new(act), ..self }
    }

    fn call(&mut self, cx: &mut Context<Self>, call: &str) {
        self.log.lock().expect("no panic while it is held").push(format!("{} {call}", self.name));
        if call.starts_with(self.acts_in) && !self.acts_in.is_empty() {
            (self.act)(cx);
        }
    }
}

impl Service for Scripted {
    type Connection = ();
    type Message = u32;
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        self.call(cx, "started");
    }

    fn connected(&mut self, cx: &mut Context<Self>, _: ConnectionId) {
        self.call(cx, "connected");
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        input.take_all();
    }

    fn message(&mut self, cx: &mut Context<Self>, _: u32) {
        self.call(cx, "message");
    }

    fn signalled(&mut self, cx: &mut Context<Self>, _: i32) {
        self.call(cx, "signalled");
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        self.call(cx, &format!("closed {reason:?}"));
    }

    fn draining(&mut self, cx: &mut Context<Self>, _: Duration) {
        self.call(cx, "draining");
        if !self.stays {
            cx.close_all();
        }
    }
}

fn take(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().expect("no panic while it is held"))
}

fn on_system(service: Scripted) -> EventLoop<Scripted> {
    EventLoop::new(Config::default(), service).expect("a loop")
}

fn add(event_loop: &mut EventLoop<Scripted>, service: Scripted) -> Mailbox<u32> {
    event_loop.add_service(Config::default(), service).expect("another service").mailbox()
}

fn assert_panicked(outcome: &sealed::Result<bool>) {
    assert!(matches!(outcome, Err(Error::Panicked(text)) if text == "a planned panic"), "{outcome:?}");
}

#[test]
fn after_a_panic_at_the_start_of_one_service_the_others_do_not_start() {
    for panics in ["one", "two", "three"] {
        let log = Log::default();
        let service = |name| {
            let service = Scripted::new(name, &log);
            if name == panics { service.acting("started", |_| panic!("a planned panic")) } else { service }
        };
        let mut event_loop = on_system(service("one"));
        add(&mut event_loop, service("two"));
        add(&mut event_loop, service("three"));
        assert_panicked(&event_loop.turn(Some(Duration::ZERO)));
        let started: Vec<_> = ["one started", "two started", "three started"].into();
        let last = started.iter().position(|call| call.starts_with(panics)).expect("one of them");
        assert_eq!(take(&log), started[..=last], "{panics}");
    }
}

#[test]
fn after_a_panic_in_draining_no_service_is_called() {
    let log = Log::default();
    let sim = Simulation::new(1);
    let _host = sim.listen(address("10.0.0.2:80")).expect("it is free");
    let first = Scripted { stays: true, ..Scripted::new("first", &log) };
    let mut event_loop = sim.event_loop(Config::default(), first).expect("a loop");
    add(&mut event_loop, Scripted::new("second", &log).acting("draining", |_| panic!("a planned panic")));
    add(&mut event_loop, Scripted::new("third", &log));
    event_loop.parts().1.connect(address("10.0.0.2:80"), ()).expect("started");
    assert!(event_loop.turn(Some(Duration::ZERO)).expect("no failure"));
    // The connection is made, and so is the next event of the first service.
    sim.run_for(SECOND);
    take(&log);
    event_loop.stopper().stop();
    assert_panicked(&event_loop.turn(Some(Duration::ZERO)));
    assert_eq!(take(&log), ["first draining", "second draining"]);
}

#[test]
fn after_a_panic_no_service_starts_when_it_is_looked_for() {
    let log = Log::default();
    let late = log.clone();
    let first = Scripted::new("first", &log).acting("message", move |cx| {
        cx.add_service(Config::default(), Scripted::new("late", &late)).expect("another service");
        panic!("a planned panic");
    });
    let mut event_loop = on_system(first);
    event_loop.mailbox().post(1).expect("room");
    assert_panicked(&event_loop.turn(Some(Duration::ZERO)));
    take(&log);
    assert!(event_loop.parts_of::<Scripted>().is_none());
    assert_eq!(take(&log), Vec::<String>::new());
}

#[test]
fn a_panic_outside_a_tick_closes_the_mailboxes_with_the_next_turn() {
    let log = Log::default();
    let mut event_loop = on_system(Scripted::new("first", &log));
    let second = Scripted::new("second", &log).acting("started", |_| panic!("a planned panic"));
    let mailbox = add(&mut event_loop, second);
    assert!(event_loop.parts_of::<Scripted>().is_some(), "it is there, though it has panicked");
    assert_panicked(&event_loop.turn(Some(Duration::ZERO)));
    assert_eq!(mailbox.post(1), Err(PostError::Gone(1)));
    assert_eq!(event_loop.mailbox().post(1), Err(PostError::Gone(1)));
}

#[test]
fn a_service_added_in_the_last_tick_starts_and_ends_with_the_loop() {
    let log = Log::default();
    let sim = Simulation::new(1);
    let host = sim.listen(address("10.0.0.2:80")).expect("it is free");
    let (late, posts) = (log.clone(), Arc::new(Mutex::new(None)));
    let to_late = posts.clone();
    let first = Scripted::new("first", &log).acting("draining", move |cx| {
        let added = cx.add_service(Config::default(), Scripted::new("late", &late)).expect("another service");
        let id = added.connect(address("10.0.0.2:80"), ()).expect("started");
        added.write(id, b"bye");
        *to_late.lock().expect("no panic while it is held") = Some(added.mailbox());
    });
    let event_loop = sim.event_loop(Config::default(), first).expect("a loop");
    let stopper = event_loop.stopper();
    let id = sim.start(event_loop);
    sim.run_for(SECOND);
    take(&log);
    stopper.stop();
    sim.run_for(SECOND);
    let mut peer = host.accept().expect("the late service has connected");
    peer.expect("bye");
    peer.finish();
    sim.run_for(SECOND);
    assert!(!sim.is_running(id));
    assert_eq!(take(&log), ["first draining", "late started", "late draining", "late closed Closed"]);
    let mailbox: Mailbox<u32> = posts.lock().expect("no panic while it is held").take().expect("it was added");
    assert_eq!(mailbox.post(1), Err(PostError::Gone(1)));
}

#[test]
fn a_loop_does_not_wait_for_a_service_that_does_not_delay_shutdowns() {
    let log = Log::default();
    let sim = Simulation::new(1);
    let (client, database) = (address("10.0.0.2:80"), address("10.0.0.3:80"));
    let [clients, databases] = [&client, &database].map(|address| sim.listen(address).expect("it is free"));
    let first = Scripted { stays: true, ..Scripted::new("first", &log) };
    let mut event_loop = sim.event_loop(Config::default(), first).expect("a loop");
    event_loop.parts().1.connect(&client, ()).expect("started");
    let beside = Scripted { stays: true, ..Scripted::new("beside", &log) };
    let beside = beside.acting("message", move |cx| {
        let id = cx.connection_ids()[0];
        cx.write(id, b"still");
    });
    let cx = event_loop.add_service(Config { delays_shutdown: false, ..Config::default() }, beside);
    let cx = cx.expect("another service");
    cx.connect(&database, ()).expect("started");
    let (mailbox, stopper) = (cx.mailbox(), event_loop.stopper());
    let id = sim.start(event_loop);
    sim.run_for(ms(10));
    let (mut client, mut database) = (clients.accept().expect("connected"), databases.accept().expect("connected"));
    stopper.stop();
    sim.run_for(ms(10));
    mailbox.post(1).expect("the loop runs");
    database.expect("still");
    assert!(sim.is_running(id));
    client.finish();
    sim.run_for(ms(10));
    assert!(!sim.is_running(id), "the loop waits for the database");
    assert!(database.is_over());
}

#[test]
fn a_service_added_late_has_the_rest_of_the_drain_limit_and_cannot_connect_after_it() {
    let log = Log::default();
    let sim = Simulation::new(1);
    let _host = sim.listen(address("10.0.0.2:80")).expect("it is free");
    let (late, outcome) = (log.clone(), Arc::new(Mutex::new(None)));
    let tried = outcome.clone();
    let first = Scripted { stays: true, ..Scripted::new("first", &log) };
    let first = first.acting("closed", move |cx| {
        let added = cx.add_service(Config::default(), Scripted::new("past", &late)).expect("another service");
        *tried.lock().expect("no panic while it is held") = Some(added.connect(address("10.0.0.2:80"), ()));
    });
    let config = Config { drain_limit: SECOND, linger: SECOND * 60, ..Config::default() };
    let mut event_loop = sim.event_loop(config.clone(), first).expect("a loop");
    event_loop.parts().1.connect(address("10.0.0.2:80"), ()).expect("started");
    let stopper = event_loop.stopper();
    let id = sim.start(event_loop);
    sim.run_for(ms(10));
    let stopped = sim.now();
    stopper.stop();
    sim.run_for(ms(800));
    // The loop has slept since the stop: the rest is less than the time since its last tick says.
    sim.with(id, |event_loop: &mut EventLoop<Scripted>| {
        let late = Scripted { stays: true, ..Scripted::new("late", &log) };
        let added = event_loop.add_service(config.clone(), late).expect("another service");
        added.connect(address("10.0.0.2:80"), ()).expect("started");
    });
    assert!(sim.run_until(SECOND * 10, || !sim.is_running(id)));
    let took = sim.now().saturating_sub(stopped);
    assert!(took >= SECOND && took < ms(1_100), "{took:?}");
    let outcome = outcome.lock().expect("no panic while it is held").take().expect("it was tried");
    assert!(matches!(&outcome, Err(Error::Connect { source, .. }) if source.kind() == ErrorKind::Other), "{outcome:?}");
}
