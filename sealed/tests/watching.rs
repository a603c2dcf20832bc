//! A tick as another thread sees it while it runs: for how long, and in which step.

mod common;

use std::time::Duration;

use common::{SECOND, address, ms};
use sealed::sim::Simulation;
use sealed::{
    Address, CloseReason, Config, ConnectionId, Context, EventLoop, Input, ListenerId, Service, Step, TimerId, Watch,
};

/// Spends time in each call, and records what a watch shows at the end of the call.
struct Busy {
    sim: Simulation,
    seen: Vec<(Option<Step>, Duration)>,
}

impl Busy {
    fn work(&mut self, cx: &mut Context<Self>) {
        self.sim.spend(ms(10));
        let running = cx.watch().running().expect("a tick is running");
        self.seen.push((running.step, running.time));
    }
}

impl Service for Busy {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        self.work(cx);
    }

    fn accepted(&mut self, cx: &mut Context<Self>, _: ConnectionId, _: ListenerId, _: &Address) {
        self.work(cx);
    }

    fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
        cx.write(id, input.take_all());
        cx.defer(());
        cx.set_timer(SECOND, ());
        self.work(cx);
    }

    fn message(&mut self, cx: &mut Context<Self>, (): ()) {
        self.work(cx);
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (): ()) {
        self.work(cx);
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: ConnectionId, (): (), _: CloseReason) {
        self.work(cx);
    }
}

/// Records in each tick what the watch of another service shows.
struct Beside {
    watch: Watch,
    seen: Vec<Option<Step>>,
}

impl Service for Beside {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn turned(&mut self, _: &mut Context<Self>) {
        self.seen.push(self.watch.running().expect("a tick is running").step);
    }
}

#[test]
fn a_watch_shows_the_step_of_the_tick_that_is_running_and_its_time() {
    let sim = Simulation::new(2);
    let busy = Busy { sim: sim.clone(), seen: Vec::new() };
    let mut event_loop = sim.event_loop(Config::default(), busy).expect("a loop");
    event_loop.listen(address("10.0.0.1:80")).expect("it is free");
    let watch = event_loop.watch();
    let beside = Beside { watch: watch.clone(), seen: Vec::new() };
    event_loop.add_service(Config::default(), beside).expect("another service");
    let id = sim.start(event_loop);
    assert_eq!(watch.running(), None);
    let mut peer = sim.connect(address("10.0.0.1:80"));
    peer.send("hello");
    peer.expect("hello");
    sim.run_for(SECOND * 2);
    peer.finish();
    sim.run_for(SECOND);
    assert_eq!(watch.running(), None, "the loop waits");
    sim.with(id, |event_loop: &mut EventLoop<Busy>| {
        let seen = std::mem::take(&mut event_loop.parts().0.seen);
        let steps: Vec<_> = seen.iter().filter_map(|(step, _)| *step).collect();
        let wanted = [Step::Starting, Step::Connecting, Step::Reading, Step::Messages, Step::Timers, Step::Closing];
        assert_eq!(steps, wanted);
        assert!(seen.iter().all(|(_, time)| *time >= ms(10)), "{seen:?}");
        let (beside, _) = event_loop.parts_of::<Beside>().expect("it was added");
        assert!(!beside.seen.is_empty() && beside.seen.iter().all(Option::is_none), "{:?}", beside.seen);
    });
}
