//! Timers on the simulated network: values, periods, moving.

mod common;

use std::time::Duration;

use common::{Book, Call, Node, SECOND, ms};
use sealed::sim::{Faults, LoopId, Simulation};
use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service, TimerId};

fn node() -> (Simulation, Node) {
    let sim = Simulation::new(9);
    let node = Node::start(&sim, Config::default(), Book::default());
    // Between two milliseconds, as the time mostly is.
    sim.run_for(Duration::from_micros(700));
    (sim, node)
}

#[test]
fn a_timer_delivers_its_value_and_cancelling_returns_it() {
    let (sim, node) = node();
    let (first, second) = node.act(|cx| (cx.set_timer(SECOND, 1), cx.set_timer(SECOND, 2)));
    assert_eq!(node.act(|cx| cx.timers()), 2);
    assert_eq!(node.act(|cx| cx.cancel_timer(first)), Some(1));
    assert_eq!(node.act(|cx| cx.cancel_timer(first)), None);
    sim.run_for(SECOND * 2);
    assert_eq!(node.calls(), [Call::Expired(2)]);
    assert_eq!(node.act(|cx| (cx.cancel_timer(second), cx.timers())), (None, 0));
}

#[test]
fn a_moved_timer_expires_once_at_its_new_time() {
    let (sim, node) = node();
    let start = sim.now();
    let timer = node.act(|cx| cx.set_timer(SECOND, 1));
    sim.run_for(ms(900));
    assert!(node.act(|cx| cx.move_timer(timer, SECOND)));
    sim.run_for(SECOND * 5);
    let calls = node.calls_at();
    assert_eq!(calls.len(), 1);
    assert!(
        calls[0].0.saturating_sub(start) >= ms(1_900) && calls[0].0.saturating_sub(start) < ms(1_905),
        "{:?}",
        calls[0].0.saturating_sub(start)
    );
    assert!(!node.act(|cx| cx.move_timer(timer, SECOND)));
}

#[test]
fn of_timers_due_together_all_but_the_cancelled_expire() {
    let (sim, node) = node();
    let timers: Vec<_> = node.act(|cx| (0..8).map(|value| cx.set_timer(SECOND, value)).collect());
    for timer in timers.iter().step_by(2) {
        node.act(|cx| cx.cancel_timer(*timer));
    }
    sim.run_for(SECOND * 2);
    let calls = node.calls();
    assert_eq!(calls.len(), 4);
    for value in [1, 3, 5, 7] {
        assert!(calls.contains(&Call::Expired(value)), "{value} of {calls:?}");
    }
}

#[test]
fn a_moved_periodic_timer_continues_from_its_new_time() {
    let (sim, node) = node();
    let (start, timer) = node.act(|cx| (cx.now(), cx.set_interval(SECOND, 7)));
    sim.run_for(ms(300));
    assert!(node.act(|cx| cx.move_timer(timer, SECOND)));
    sim.run_for(SECOND * 3 + ms(500));
    let calls = node.calls_at();
    assert_eq!(calls.len(), 3);
    for ((at, _), due) in calls.into_iter().zip([1_300, 2_300, 3_300].map(ms)) {
        let at = at.saturating_sub(start);
        assert!(at >= due && at < due + ms(5), "due at {due:?}, called at {at:?}");
    }
}

#[test]
fn a_periodic_timer_does_not_drift_however_late_its_loop_is() {
    let (sim, node) = node();
    // A tick may come some milliseconds late.
    sim.set_faults(Faults { stall: 0.3, delay_max: ms(1), ..Faults::default() });
    let (start, timer) = node.act(|cx| (cx.now(), cx.set_interval(ms(10), 7)));
    sim.run_for(SECOND * 100 + ms(9));
    let calls = node.calls_at();
    assert_eq!(calls.len(), 10_000);
    for (index, (at, what)) in calls.iter().enumerate() {
        assert_eq!(*what, Call::Expired(7));
        let due = start + ms(10) * (index as u32 + 1);
        assert!(*at >= due && *at < due + ms(10), "{index}: due at {due:?}, called at {at:?}");
    }
    assert_eq!(node.act(|cx| cx.cancel_timer(timer)), Some(7));
    sim.run_for(SECOND);
    assert_eq!(node.calls(), []);
}

#[test]
fn periods_that_a_loop_missed_are_skipped() {
    let (sim, node) = node();
    let start = node.act(|cx| {
        cx.set_interval(SECOND, 7);
        cx.now()
    });
    sim.run_for(ms(1_500));
    sim.jump(SECOND * 60);
    sim.run_for(SECOND * 2);
    let times: Vec<_> = node.calls_at().into_iter().map(|(at, _)| at.saturating_sub(start)).collect();
    assert_eq!(times.len(), 4, "{times:?}");
    assert_eq!(times.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 61, 62, 63]);
    assert!(times[2].subsec_millis() < 5, "back in its rhythm: {times:?}");
}

#[test]
fn deferred_work_and_signals_come_in_the_next_tick_in_order() {
    let (sim, node) = node();
    node.act(|cx| {
        cx.mailbox().post(3).expect("there is room");
        cx.defer(1);
        cx.defer(2);
    });
    sim.signal(node.id, 10);
    sim.settle();
    assert_eq!(node.calls(), [Call::Signal(10), Call::Message(1), Call::Message(2), Call::Message(3)]);
}

#[test]
fn deferred_work_needs_no_other_event() {
    let (sim, node) = node();
    node.act(|cx| cx.defer(1));
    sim.settle();
    assert_eq!(node.calls(), [Call::Message(1)]);
}

/// Does its work in steps, each of which defers the next.
#[derive(Default)]
struct Stepper {
    steps: u32,
    steps_of_tick: u32,
}

const STEPS: u32 = 100;

impl Service for Stepper {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn message(&mut self, cx: &mut Context<Self>, (): ()) {
        self.steps += 1;
        self.steps_of_tick += 1;
        if self.steps < STEPS {
            cx.defer(());
        }
    }

    fn turned(&mut self, _: &mut Context<Self>) {
        assert!(self.steps_of_tick <= 1, "others have their turn between two steps");
        self.steps_of_tick = 0;
    }
}

#[test]
fn work_that_defers_itself_runs_one_step_per_tick() {
    let sim = Simulation::new(9);
    let id = sim.start(sim.event_loop(Config::default(), Stepper::default()).expect("a loop"));
    sim.with(id, |event_loop: &mut EventLoop<Stepper>| event_loop.parts().1.defer(())).expect("it runs");
    sim.settle();
    assert_eq!(sim.with(id, |event_loop: &mut EventLoop<Stepper>| event_loop.service().steps), Some(STEPS));
}

/// Works for a while whenever one of its timers expires, and records how late each of them is.
struct Worker {
    sim: Simulation,
    work: Duration,
    late: Vec<Duration>,
}

impl Service for Worker {
    type Connection = ();
    type Message = ();
    /// The time at which it is due, and the period by which that advances.
    type Timer = (Duration, Duration);

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn message(&mut self, _: &mut Context<Self>, (): ()) {
        self.sim.spend(SECOND * 2);
    }

    fn expired(&mut self, cx: &mut Context<Self>, _: TimerId, (due, period): Self::Timer) {
        let due = if period.is_zero() { due } else { due + period * self.late.len() as u32 };
        self.late.push(cx.now().checked_sub(due).expect("no timer is early"));
        self.sim.spend(self.work);
    }
}

/// A loop with a [`Worker`].
struct Workplace {
    sim: Simulation,
    id: LoopId,
}

impl Workplace {
    fn new(work: Duration) -> Self {
        let sim = Simulation::new(9);
        let worker = Worker { sim: sim.clone(), work, late: Vec::new() };
        let id = sim.start(sim.event_loop(Config::default(), worker).expect("a loop"));
        Self { sim, id }
    }

    fn act<R>(&self, act: impl FnOnce(&mut Worker, &mut Context<Worker>) -> R) -> R {
        let acted = self.sim.with(self.id, |event_loop: &mut EventLoop<Worker>| {
            let (worker, cx) = event_loop.parts();
            act(worker, cx)
        });
        acted.expect("it runs")
    }

    fn late(&self) -> Vec<Duration> {
        self.act(|worker, _| worker.late.clone())
    }
}

#[test]
fn a_timer_is_not_late_by_the_length_of_the_tick_before() {
    for work in [0, 10, 15].map(ms) {
        let place = Workplace::new(work);
        place.act(|_, cx| cx.set_interval(ms(20), (cx.now() + ms(20), ms(20))));
        place.sim.run_for(SECOND * 2);
        let late = place.late();
        assert!(late.len() >= 99, "{} periods", late.len());
        assert!(late.iter().all(|late| *late < ms(2)), "with {work:?} of work: {late:?}");
    }
}

#[test]
fn a_delayed_loop_sleeps_no_longer_than_until_its_next_timer() {
    let place = Workplace::new(Duration::ZERO);
    place.act(|_, cx| {
        cx.set_timer(ms(2_500), (cx.now() + ms(2_500), Duration::ZERO));
        // Takes two seconds.
        cx.defer(());
    });
    place.sim.run_for(SECOND * 5);
    let late = place.late();
    assert!(late.len() == 1 && late[0] < ms(2), "{late:?}");
}

#[test]
fn the_deadline_of_a_connection_is_not_late_by_the_length_of_the_tick_before() {
    let (sim, node) = node();
    node.act(|cx| cx.listen(common::address("10.0.0.1:80")).expect("it is free"));
    let _peer = sim.connect(common::address("10.0.0.1:80"));
    sim.settle();
    let (id, start) = node.act(|cx| (cx.connection_ids()[0], cx.now()));
    node.calls();
    sim.set_faults(Faults { slow_tick: 1.0, delay_max: ms(200), ..Faults::default() });
    node.act(|cx| {
        cx.set_deadline(id, SECOND * 3);
        cx.defer(1);
    });
    sim.run_for(SECOND);
    sim.set_faults(Faults::default());
    sim.run_for(SECOND * 4);
    let calls = node.calls_at();
    let (at, _) = calls.iter().find(|(_, call)| matches!(call, Call::Closed(..))).expect("its time is up");
    assert!(at.saturating_sub(start) < SECOND * 3 + ms(2), "{calls:?}");
}

#[test]
fn times_of_any_length_are_accepted() {
    let sim = Simulation::new(9);
    let config = Config { drain_limit: Duration::MAX, accept_retry: Duration::MAX, ..Config::default() };
    let node = Node::start(&sim, config, Book::default());
    node.act(|cx| cx.listen(common::address("10.0.0.1:80")).expect("it is free"));
    let peer = sim.connect(common::address("10.0.0.1:80"));
    sim.fail_accepts(1);
    sim.settle();
    let timer = node.act(|cx| {
        cx.set_timer(Duration::MAX, 1);
        cx.set_interval(Duration::MAX, 2);
        cx.set_interval(SECOND, 3)
    });
    assert!(node.act(|cx| cx.move_timer(timer, Duration::MAX)));
    sim.run_for(SECOND * 3_600);
    node.act(Context::stop);
    sim.run_for(SECOND * 3_600);
    drop(peer);
    assert!(!sim.is_running(node.id));
}

#[test]
fn the_time_until_a_deadline_shows_the_last_activity() {
    let (sim, node) = node();
    node.act(|cx| cx.listen("10.0.0.1:80").expect("it is free"));
    let _peer = sim.connect(common::address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    let left = || node.act(|cx| cx.deadline(id));
    assert_eq!(left(), None);
    // Days away, it is in another level of the wheel.
    for limit in [SECOND * 10, SECOND * 3_600 * 24 * 20] {
        node.act(|cx| cx.set_deadline(id, limit));
        for idle in [Duration::ZERO, SECOND * 3, SECOND * 5] {
            sim.run_for(idle);
        }
        let idle = limit.saturating_sub(left().expect("a deadline"));
        assert!((ms(7_998)..=SECOND * 8).contains(&idle), "{idle:?}");
    }
    node.act(|cx| cx.clear_deadline(id));
    assert_eq!(left(), None);
    node.act(|cx| {
        cx.set_deadline(id, SECOND);
        cx.close(id);
    });
    assert_eq!(left(), None, "the linger time is not a deadline");
}
