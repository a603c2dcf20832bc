//! Futures that a loop runs: turns, wake-ups, cancellation, panics.

mod common;

use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use common::{Bomb, Book, Call, Node, SECOND, address};
use sealed::sim::Simulation;
use sealed::{CloseReason, Config, ConnectionId, Context, Error, EventLoop, Input, Pool, Service};

/// A value that a future waits for.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<(Option<u32>, Option<Waker>)>>);

impl Slot {
    fn set(&self, value: u32) {
        let mut slot = self.0.lock().expect("no panic while it is held");
        slot.0 = Some(value);
        if let Some(waker) = slot.1.take() {
            waker.wake();
        }
    }

    /// Wakes the future although there is no value.
    fn wake(&self) {
        if let Some(waker) = self.0.lock().expect("no panic while it is held").1.clone() {
            waker.wake();
        }
    }

    fn get(&self) -> impl Future<Output = u32> + Send + use<> {
        let slot = self.clone();
        poll_fn(move |cx| {
            let mut slot = slot.0.lock().expect("no panic while it is held");
            slot.1 = Some(cx.waker().clone());
            slot.0.take().map_or(Poll::Pending, Poll::Ready)
        })
    }
}

/// Increments a counter when it is dropped.
struct Counts(Arc<AtomicU32>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn stage() -> (Simulation, Node) {
    let sim = Simulation::new(9);
    let node = Node::echo(&sim, &address("10.0.0.1:80"));
    sim.settle();
    (sim, node)
}

#[test]
fn the_output_of_a_future_is_a_message_after_the_call_that_started_it() {
    let (sim, node) = stage();
    node.act(|cx| cx.run_future(async { 7 }));
    assert_eq!((node.calls(), node.act(|cx| cx.futures())), (vec![], 1));
    sim.settle();
    assert_eq!((node.calls(), node.act(|cx| cx.futures())), (vec![Call::Message(7)], 0));
}

#[test]
fn a_future_goes_on_when_it_is_woken() {
    let (sim, node) = stage();
    let (first, second) = (Slot::default(), Slot::default());
    let both = {
        let (first, second) = (first.get(), second.get());
        async move { first.await * 10 + second.await }
    };
    node.act(|cx| cx.run_future(both));
    sim.run_for(SECOND);
    first.set(4);
    sim.run_for(SECOND);
    assert_eq!(node.calls(), []);
    second.wake();
    second.wake();
    sim.run_for(SECOND);
    assert_eq!(node.calls(), []);
    second.set(2);
    sim.run_for(SECOND);
    assert_eq!(node.calls(), [Call::Message(42)]);
}

#[test]
fn a_future_that_always_wakes_itself_leaves_others_their_turn() {
    let (sim, node) = stage();
    let polls = Arc::new(AtomicU32::new(0));
    let counter = polls.clone();
    let busy = poll_fn(move |cx| {
        cx.waker().wake_by_ref();
        if counter.fetch_add(1, Ordering::Relaxed) < 10_000 { Poll::Pending } else { Poll::Ready(1) }
    });
    node.act(|cx| cx.run_future(busy));
    let turns = sim.turns();
    let mut peer = sim.connect(address("10.0.0.1:80"));
    peer.send("hello");
    peer.expect("hello");
    let polled = polls.load(Ordering::Relaxed);
    assert!(polled < 10_000, "the peer is answered meanwhile");
    assert!(u64::from(polled) <= sim.turns() - turns, "one poll in a tick");
    assert!(sim.run_until(SECOND * 10, || node.calls().contains(&Call::Message(1))));
}

#[test]
fn a_future_ends_with_the_connection_that_it_runs_for() {
    let (sim, node) = stage();
    let _peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.calls();
    let (slot, dropped) = (Slot::default(), Arc::new(AtomicU32::new(0)));
    let (waits, held) = (slot.get(), Counts(dropped.clone()));
    let future = async move {
        let _held = held;
        waits.await
    };
    node.act(|cx| cx.run_future_for(id, future)).expect("it is open");
    sim.settle();
    node.act(|cx| cx.abort(id));
    sim.settle();
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    slot.set(1);
    sim.settle();
    assert_eq!(node.calls(), [Call::Closed(id, CloseReason::Aborted)]);
    assert!(node.act(|cx| cx.run_future_for(id, async { 2 })).is_none());
}

#[test]
fn a_late_wake_up_of_a_cancelled_future_does_not_reach_the_next_in_its_slot() {
    let (sim, node) = stage();
    let slot = Slot::default();
    let cancelled = node.act(|cx| cx.run_future(slot.get()));
    sim.settle();
    let polls = Arc::new(AtomicU32::new(0));
    let counter = polls.clone();
    node.act(|cx| {
        assert!(cx.cancel_future(cancelled));
        assert!(!cx.cancel_future(cancelled), "it is cancelled already");
        cx.run_future(poll_fn(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Poll::<u32>::Pending
        }));
    });
    sim.settle();
    slot.set(1);
    sim.settle();
    assert_eq!((node.calls(), polls.load(Ordering::Relaxed)), (vec![], 1));
}

#[test]
fn another_thread_wakes_the_loop_and_a_panic_of_a_future_ends_it() {
    let slot = Slot::default();
    let mut event_loop = EventLoop::new(Config::default(), Book::default()).expect("a loop");
    event_loop.parts().1.run_future(slot.get());
    event_loop.turn(Some(SECOND * 60)).expect("no failure");
    let other = slot.clone();
    let thread = thread::spawn(move || other.set(5));
    while event_loop.service().calls.is_empty() {
        event_loop.turn(Some(SECOND * 60)).expect("no failure");
    }
    thread.join().expect("no panic");
    assert_eq!(event_loop.service().calls[0].1, Call::Message(5));
    let dropped = Arc::new(AtomicU32::new(0));
    let held = Counts(dropped.clone());
    event_loop.parts().1.run_future(async move {
        let _held = held;
        std::future::pending().await
    });
    event_loop.parts().1.run_future(async { panic!("a planned panic of a future") });
    let outcome = event_loop.run();
    assert!(matches!(&outcome, Err(Error::Panicked(text)) if text == "a planned panic of a future"), "{outcome:?}");
    drop(event_loop);
    assert_eq!(dropped.load(Ordering::Relaxed), 1, "what is left is dropped with the loop");
}

#[test]
fn a_panic_of_a_future_that_is_dropped_ends_no_more_than_a_panic_of_the_service() {
    let mut event_loop = EventLoop::new(Config::default(), Book::default()).expect("a loop");
    let held = Bomb(3);
    let future = async move {
        let _held = &held;
        1
    };
    event_loop.parts().1.run_future(future);
    let outcome = event_loop.run();
    assert!(matches!(outcome, Err(Error::Panicked(_))), "{outcome:?}");

    let (sim, node) = stage();
    let _peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.calls();
    let held = Bomb(3);
    let future = async move {
        let _held = held;
        std::future::pending().await
    };
    node.act(|cx| cx.run_future_for(id, future)).expect("it is open");
    sim.settle();
    node.act(|cx| cx.abort(id));
    sim.settle();
    assert_eq!(node.calls(), [Call::Closed(id, CloseReason::Aborted)]);
}

#[test]
fn a_panic_of_what_a_loop_leaves_is_an_error_of_its_pool() {
    let mut pool = Pool::new(Config::default(), NonZeroUsize::new(1)).expect("a pool");
    pool.listen("127.0.0.1:0").expect("an address");
    let stopper = pool.stopper();
    stopper.stop();
    let outcome = pool.run(|_| Leaves);
    assert!(matches!(outcome, Err(Error::Panicked(_))), "{outcome:?}");
}

/// Leaves a future that panics when it is dropped.
struct Leaves;

impl Service for Leaves {
    type Connection = ();
    type Message = ();
    type Timer = ();

    fn started(&mut self, cx: &mut Context<Self>) {
        let held = Bomb(2);
        cx.run_future(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
    }

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}
}
