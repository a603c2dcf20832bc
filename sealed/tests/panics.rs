//! What a panic in a service costs: the whole loop, which returns an error, or one connection if
//! the service decides so.

mod common;

use std::cell::Cell;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use common::{SECOND, address};
use sealed::sim::{LoopId, Peer, Simulation};
use sealed::{
    Address, CloseReason, Config, ConnectionId, Context, Error, EventLoop, Input, ListenerId, Panic, PostError,
    Service, TimerId,
};

/// A service that echoes, and panics in the call of this name.
#[derive(Default)]
struct Fragile {
    fails_in: Rc<Cell<&'static str>>,
    keeps: bool,
    fails_in_judging: bool,
    received: u32,
    panics: Vec<(Option<ConnectionId>, String)>,
    closed: Vec<CloseReason>,
}

impl Fragile {
    fn at(&self, call: &'static str) {
        if self.fails_in.get() == call {
            self.fails_in.set("");
            panic!("in {call}");
        }
    }
}

impl Service for Fragile {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn accepted(&mut self, _: &mut Context<Self>, _: ConnectionId, _: ListenerId, _: &Address) {
        self.at("accepted");
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        self.received += 1;
        self.at("received");
        cx.write(id, input.take_all());
        self.at("received, later");
    }

    fn ended(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.at("ended");
        cx.close(id);
        self.at("ended, later");
    }

    fn drained(&mut self, _: &mut Context<Self>, _: ConnectionId) {
        self.at("drained");
    }

    fn timed_out(&mut self, cx: &mut Context<Self>, id: ConnectionId) {
        self.at("timed_out");
        cx.close(id);
    }

    fn closed(&mut self, _: &mut Context<Self>, _: ConnectionId, (): (), reason: CloseReason) {
        self.closed.push(reason);
        self.at("closed");
    }

    fn message(&mut self, _: &mut Context<Self>, (): ()) {
        self.at("message");
    }

    fn expired(&mut self, _: &mut Context<Self>, _: TimerId, (): ()) {
        self.at("expired");
    }

    fn signalled(&mut self, _: &mut Context<Self>, _: i32) {
        self.at("signalled");
    }

    fn turned(&mut self, _: &mut Context<Self>) {
        self.at("turned");
    }

    fn panicked(&mut self, _: &mut Context<Self>, id: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        self.panics.push((id, payload.downcast_ref::<String>().cloned().unwrap_or_default()));
        assert!(!self.fails_in_judging, "in judging");
        if self.keeps { Ok(()) } else { Err(payload) }
    }
}

const AT: &str = "10.0.0.1:80";

fn stage(keeps: bool) -> (Simulation, EventLoop<Fragile>, Rc<Cell<&'static str>>) {
    let sim = Simulation::new(3);
    let fails_in = Rc::new(Cell::new(""));
    let fragile = Fragile { fails_in: fails_in.clone(), keeps, ..Fragile::default() };
    let mut event_loop = sim.event_loop(Config::default(), fragile).expect("a loop");
    event_loop.listen(AT).expect("it is free");
    (sim, event_loop, fails_in)
}

fn turn(event_loop: &mut EventLoop<Fragile>) -> sealed::Result<bool> {
    event_loop.turn(Some(Duration::ZERO))
}

#[test]
fn a_panic_ends_the_loop_with_an_error_and_each_turn_after_it() {
    let (sim, mut event_loop, fails_in) = stage(false);
    let mailbox = event_loop.mailbox();
    let mut peers = [(); 2].map(|()| sim.connect(address(AT)));
    sim.settle();
    assert!(turn(&mut event_loop).expect("all is well"));
    for peer in &mut peers {
        peer.send("hello");
    }
    sim.settle();
    fails_in.set("received");
    for _ in 0..3 {
        let outcome = turn(&mut event_loop);
        assert!(matches!(&outcome, Err(Error::Panicked(text)) if text == "in received"), "{outcome:?}");
        assert_eq!(mailbox.post(()), Err(PostError::Gone(())));
    }
    assert_eq!(event_loop.run().expect_err("it is over").to_string(), "an event loop panicked: in received");
    sim.settle();
    let service = event_loop.service();
    assert_eq!((service.received, service.panics.len()), (1, 1), "nothing is called any more");
    drop(event_loop);
    for peer in &mut peers {
        assert!(peer.expect_end().is_empty());
    }
}

#[test]
fn a_panic_outside_the_calls_of_a_service_propagates_and_the_loop_stays_broken() {
    /// A connection state whose `default` panics.
    struct Broken;

    #[derive(Debug)]
    struct Never;

    impl Default for Never {
        fn default() -> Self {
            panic!("no state")
        }
    }

    impl Service for Broken {
        type Connection = Never;
        type Message = ();
        type Timer = ();

        fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}
    }

    let sim = Simulation::new(3);
    let mut event_loop = sim.event_loop(Config::default(), Broken).expect("a loop");
    event_loop.listen(AT).expect("it is free");
    let _peer = sim.connect(address(AT));
    sim.settle();
    let unwound = catch_unwind(AssertUnwindSafe(|| event_loop.turn(Some(Duration::ZERO))));
    assert!(unwound.is_err());
    for _ in 0..2 {
        let outcome = event_loop.turn(Some(Duration::ZERO));
        assert!(matches!(outcome, Err(Error::Panicked(_))), "{outcome:?}");
    }
}

/// A loop that survives panics, and a peer that is served before and after the panic of another.
struct Kept {
    sim: Simulation,
    id: LoopId,
    fails_in: Rc<Cell<&'static str>>,
    bystander: Peer,
}

impl Kept {
    fn start() -> Self {
        let (sim, event_loop, fails_in) = stage(true);
        let id = sim.start(event_loop);
        let bystander = sim.connect(address(AT));
        sim.settle();
        Self { sim, id, fails_in, bystander }
    }

    fn look<R>(&self, look: impl FnOnce(&mut Fragile, &mut Context<Fragile>) -> R) -> R {
        let looked = self.sim.with(self.id, |event_loop: &mut EventLoop<Fragile>| {
            let (service, cx) = event_loop.parts();
            look(service, cx)
        });
        looked.expect("it runs")
    }

    /// Asserts that one panic was reported and that the loop goes on. Returns whether the panic was
    /// reported for a connection.
    fn goes_on(&mut self, call: &str) -> bool {
        self.bystander.send("still here");
        self.bystander.expect("still here");
        let panics = self.look(|service, _| std::mem::take(&mut service.panics));
        assert_eq!(panics.len(), 1, "{call}: {panics:?}");
        assert_eq!(panics[0].1, format!("in {call}"));
        panics[0].0.is_some()
    }
}

#[test]
fn a_service_that_keeps_its_loop_loses_only_the_connection() {
    for call in ["accepted", "received", "received, later", "ended", "ended, later", "drained", "timed_out"] {
        let mut kept = Kept::start();
        if call == "accepted" {
            kept.fails_in.set(call);
        }
        let mut peer = kept.sim.connect(address(AT));
        kept.sim.settle();
        kept.fails_in.set(call);
        peer.send("hello");
        if call.starts_with("ended") {
            kept.sim.settle();
            peer.finish();
        }
        if call == "timed_out" {
            kept.look(|_, cx| cx.connection_ids().iter().for_each(|id| cx.set_deadline(*id, SECOND)));
            kept.sim.run_for(SECOND * 2);
            // The bystander had a deadline too.
            kept.bystander = kept.sim.connect(address(AT));
        }
        kept.sim.settle();
        kept.fails_in.set("");
        assert!(kept.goes_on(call), "{call}: it is of a connection");
        let closed = kept.look(|service, _| std::mem::take(&mut service.closed));
        let lost = closed.iter().filter(|reason| **reason == CloseReason::Panicked).count();
        assert_eq!(lost, 1, "{call}: {closed:?}");
        if call != "timed_out" {
            peer.expect_end();
            assert_eq!(peer.failure(), Some(ErrorKind::ConnectionReset), "{call}");
        }
    }
}

#[test]
fn a_panic_in_closed_costs_nothing_more() {
    let mut kept = Kept::start();
    let peer = kept.sim.connect(address(AT));
    kept.sim.settle();
    kept.fails_in.set("closed");
    drop(peer);
    kept.sim.settle();
    assert!(kept.goes_on("closed"));
    assert_eq!(kept.look(|service, cx| (service.closed.len(), cx.connections())), (1, 1));
}

#[test]
fn a_loop_can_survive_a_panic_in_a_call_without_a_connection() {
    for call in ["message", "expired", "signalled", "turned"] {
        let mut kept = Kept::start();
        kept.fails_in.set(call);
        match call {
            "message" => kept.look(|_, cx| cx.defer(())),
            "expired" => kept.look(|_, cx| {
                cx.set_timer(SECOND, ());
            }),
            _ => kept.sim.signal(kept.id, 10),
        }
        kept.sim.run_for(SECOND * 2);
        assert!(!kept.goes_on(call), "{call}: it is of no connection");
        assert_eq!(kept.look(|service, cx| (service.closed.len(), cx.connections())), (0, 1));
    }
}

#[test]
fn a_panic_in_panicked_ends_the_loop() {
    let (sim, mut event_loop, fails_in) = stage(true);
    let _peer = sim.connect(address(AT));
    sim.settle();
    fails_in.set("accepted");
    event_loop.parts().0.fails_in_judging = true;
    let outcome = turn(&mut event_loop);
    assert!(matches!(&outcome, Err(Error::Panicked(text)) if text == "in judging"), "{outcome:?}");
}
