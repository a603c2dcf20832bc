//! Timers on the simulated network: values, periods, moving.

mod common;

use common::{Book, Node, SECOND, Told, ms};
use sealed::Config;
use sealed::sim::{Faults, Simulation};

fn node() -> (Simulation, Node) {
    let sim = Simulation::new(9);
    let node = Node::start(&sim, Config::default(), Book::default());
    sim.settle();
    (sim, node)
}

#[test]
fn a_timer_brings_its_value_and_a_cancelled_one_gives_it_back() {
    let (sim, node) = node();
    let (first, second) = node.act(|cx| (cx.set_timer(SECOND, 1), cx.set_timer(SECOND, 2)));
    assert_eq!(node.act(|cx| cx.timers()), 2);
    assert_eq!(node.act(|cx| cx.cancel_timer(first)), Some(1));
    assert_eq!(node.act(|cx| cx.cancel_timer(first)), None);
    sim.run_for(SECOND * 2);
    assert_eq!(node.told(), [Told::Expired(2)]);
    assert_eq!(node.act(|cx| (cx.cancel_timer(second), cx.timers())), (None, 0));
}

#[test]
fn a_moved_timer_runs_out_once_at_its_new_time() {
    let (sim, node) = node();
    let start = sim.now();
    let timer = node.act(|cx| cx.set_timer(SECOND, 1));
    sim.run_for(ms(900));
    assert!(node.act(|cx| cx.move_timer(timer, SECOND)));
    sim.run_for(SECOND * 5);
    let told = node.told_at();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].0.saturating_sub(start) >= ms(1_900) && told[0].0.saturating_sub(start) < ms(1_905),
        "{:?}",
        told[0].0.saturating_sub(start)
    );
    assert!(!node.act(|cx| cx.move_timer(timer, SECOND)));
}

#[test]
fn a_periodic_timer_does_not_drift_however_late_its_loop_is() {
    let (sim, node) = node();
    // A tick may come some milliseconds late.
    sim.set_faults(Faults { stall: 0.3, delay_max: ms(1), ..Faults::default() });
    let (start, timer) = node.act(|cx| (cx.now(), cx.set_interval(ms(10), 7)));
    sim.run_for(SECOND * 100 + ms(9));
    let told = node.told_at();
    assert_eq!(told.len(), 10_000);
    for (index, (at, what)) in told.iter().enumerate() {
        assert_eq!(*what, Told::Expired(7));
        let due = start + ms(10) * (index as u32 + 1);
        assert!(*at >= due && *at < due + ms(10), "{index}: due at {due:?}, told at {at:?}");
    }
    assert_eq!(node.act(|cx| cx.cancel_timer(timer)), Some(7));
    sim.run_for(SECOND);
    assert_eq!(node.told(), []);
}

#[test]
fn periods_that_a_loop_slept_through_are_left_out() {
    let (sim, node) = node();
    let start = node.act(|cx| {
        cx.set_interval(SECOND, 7);
        cx.now()
    });
    sim.run_for(ms(1_500));
    sim.jump(SECOND * 60);
    sim.run_for(SECOND * 2);
    let times: Vec<_> = node.told_at().into_iter().map(|(at, _)| at.saturating_sub(start)).collect();
    assert_eq!(times.len(), 4, "{times:?}");
    assert_eq!(times.iter().map(std::time::Duration::as_secs).collect::<Vec<_>>(), [1, 61, 62, 63]);
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
    assert_eq!(node.told(), [Told::Signal(10), Told::Message(1), Told::Message(2), Told::Message(3)]);
}
