//! The shutdown of a loop ends, whatever its service does.

mod common;

use std::time::Duration;

use common::{Node, SECOND, address};
use sealed::sim::Simulation;
use sealed::{CloseReason, Config, ConnectionId, Context, Input, Service};

/// Connects again whenever its connection has ended.
struct Reconnects;

impl Service for Reconnects {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        connect(cx);
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, input: &mut Input<'_>) {
        input.take_all();
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, (): (), _: CloseReason) {
        connect(cx);
    }
}

fn connect(cx: &mut Context<Reconnects>) {
    // An error is not an end: nothing calls the service again.
    let _ = cx.connect(address("10.0.0.1:80"), ());
}

#[test]
fn a_loop_whose_service_always_connects_again_ends_at_its_drain_limit() {
    let sim = Simulation::new(11);
    let _server = Node::echo(&sim, &address("10.0.0.1:80"));
    let config = Config { drain_limit: SECOND * 10, ..Config::default() };
    let event_loop = sim.event_loop(config, Reconnects).expect("a loop");
    let stopper = event_loop.stopper();
    let id = sim.start(event_loop);
    sim.run_for(SECOND);
    stopper.stop();
    sim.run_for(SECOND * 9);
    assert!(sim.is_running(id), "until then it may connect");
    let turns = sim.turns();
    sim.run_for(SECOND * 2);
    assert!(!sim.is_running(id), "{} turns since", sim.turns() - turns);
}

/// Listens again when the loop shuts down.
struct Relistens {
    refusal: Option<String>,
}

impl Service for Relistens {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn draining(&mut self, cx: &mut Context<Self>, _: Duration) {
        use std::error::Error as _;
        let refused = cx.listen("10.0.0.1:80").err();
        self.refusal = refused.and_then(|error| Some(error.source()?.to_string()));
    }
}

#[test]
fn a_loop_that_shuts_down_listens_no_more() {
    let sim = Simulation::new(11);
    let mut event_loop = sim.event_loop(Config::default(), Relistens { refusal: None }).expect("a loop");
    event_loop.listen("10.0.0.1:80").expect("it is free");
    event_loop.stopper().stop();
    assert!(!event_loop.turn(Some(Duration::ZERO)).expect("no failure"), "nothing is left to do");
    assert_eq!(event_loop.service().refusal.as_deref(), Some("the loop is shutting down"));
}
