//! Work that no loop owns ([`Workers::spawn`]), on threads and in a simulation.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use common::{Call, Node, SECOND, address};
use sealed::sim::Simulation;
use sealed::{WorkError, Workers};

#[test]
fn spawned_work_runs_on_threads_and_a_panic_costs_no_thread() {
    let workers = Workers::new(1, 10);
    let (to, from) = mpsc::channel();
    for number in 0..5 {
        let to = to.clone();
        let spawned = workers.spawn(move || {
            assert_ne!(number % 2, 0, "a planned panic of work");
            to.send(number).expect("the test waits");
        });
        spawned.expect("room");
    }
    workers.finish();
    assert_eq!(from.try_iter().collect::<Vec<_>>(), [1, 3]);
    assert!(matches!(workers.spawn(|| {}), Err(WorkError::Finished)));
}

#[test]
fn spawned_work_reports_by_a_mailbox() {
    let sim = Simulation::new(3);
    let node = Node::echo(&sim, &address("10.0.0.1:80"));
    let workers = sim.workers(1, 10);
    let mailbox = node.act(|cx| cx.mailbox());
    workers.spawn(|| panic!("a planned panic of work")).expect("room");
    workers.spawn(move || mailbox.post(7).expect("room")).expect("room");
    sim.run_for(SECOND);
    assert!(matches!(&node.calls()[..], [Call::Message(7)]));
}

#[test]
fn spawned_work_is_done_although_a_loop_is_killed() {
    let sim = Simulation::new(3);
    let node = Node::echo(&sim, &address("10.0.0.1:80"));
    let workers = sim.workers(1, 1);
    let done = Arc::new(AtomicU32::new(0));
    for _ in 0..2 {
        let done = done.clone();
        let work = move || {
            done.fetch_add(1, Ordering::Relaxed);
        };
        workers.spawn(work).expect("room");
    }
    assert!(matches!(workers.spawn(|| {}), Err(WorkError::Full)));
    sim.kill(node.id);
    sim.run_for(SECOND);
    assert_eq!(done.load(Ordering::Relaxed), 2);
}
