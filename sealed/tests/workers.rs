//! Work that blocks: results as messages, limits, cancellation, panics; on simulated workers and on
//! threads.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use common::{Bomb, Book, Call, Node, SECOND, address, ms};
use sealed::sim::{Faults, Simulation};
use sealed::{
    CloseReason, Config, ConnectionId, Context, Error, EventLoop, Input, Panic, PostError, Service, WorkError, Workers,
};

/// A service on the real clock that passes its messages on, and stops after the last one.
struct Forwards {
    to: mpsc::Sender<u32>,
    last: u32,
    keeps: bool,
    judged: u32,
}

impl Forwards {
    fn new(to: mpsc::Sender<u32>, last: u32) -> Self {
        Self { to, last, keeps: false, judged: 0 }
    }
}

impl Service for Forwards {
    type Connection = ();
    type Message = u32;
    type Timer = ();

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn message(&mut self, cx: &mut Context<Self>, message: u32) {
        self.to.send(message).expect("the test waits");
        if message == self.last {
            cx.stop();
        }
    }

    fn panicked(&mut self, cx: &mut Context<Self>, _: Option<ConnectionId>, payload: Panic) -> Result<(), Panic> {
        self.judged += 1;
        if !self.keeps {
            return Err(payload);
        }
        cx.stop();
        Ok(())
    }
}

fn stage(threads: usize, waiting_max: usize) -> (Simulation, Node, Workers) {
    let sim = Simulation::new(3);
    let node = Node::echo(&sim, &address("10.0.0.1:80"));
    let workers = sim.workers(threads, waiting_max);
    sim.settle();
    (sim, node, workers)
}

/// Returns a counter, and work that increments it and returns its number.
fn counted(number: u32) -> (Arc<AtomicU32>, impl FnOnce(&sealed::Job<u32>) -> u32 + Send + 'static) {
    let done = Arc::new(AtomicU32::new(0));
    let counter = done.clone();
    (done, move |_: &sealed::Job<u32>| {
        counter.fetch_add(1, Ordering::Relaxed);
        number
    })
}

#[test]
fn the_result_of_work_is_a_message_and_comes_after_its_reports() {
    let (sim, node, workers) = stage(1, 10);
    node.act(|cx| {
        let work = cx.offload(&workers, |job| {
            for step in 1..4 {
                job.report(step).expect("room");
            }
            4
        });
        work.expect("room");
        assert_eq!(cx.works(), 1);
    });
    assert_eq!(node.calls(), [], "no message arrives within the call");
    sim.settle();
    assert_eq!(node.calls(), [1, 2, 3, 4].map(Call::Message));
    assert_eq!(node.act(|cx| cx.works()), 0);
}

#[test]
fn a_thread_does_one_piece_of_work_at_a_time_and_others_wait_up_to_the_limit() {
    let (sim, node, workers) = stage(2, 3);
    let offloaded: Vec<bool> = node.act(|cx| (0..7).map(|n| cx.offload(&workers, move |_| n).is_ok()).collect());
    assert_eq!(offloaded, [true, true, true, true, true, false, false], "two run, three wait");
    assert_eq!(workers.waiting(), 3);
    let refused = node.act(|cx| cx.offload(&workers, |_| 9)).expect_err("the queue is full");
    assert!(matches!(refused, WorkError::Full), "{refused}");
    sim.settle();
    let mut messages = node.calls();
    messages.sort_by_key(|call| if let Call::Message(number) = call { *number } else { 99 });
    assert_eq!(messages, [0, 1, 2, 3, 4].map(Call::Message));
    assert!(node.act(|cx| cx.offload(&workers, |_| 9)).is_ok(), "there is room again");
}

#[test]
fn slow_work_holds_up_no_loop() {
    let (sim, node, workers) = stage(1, 10);
    sim.set_faults(Faults { slow_work: 1.0, delay_max: SECOND * 60, ..Faults::default() });
    node.act(|cx| cx.offload(&workers, |_| 7)).expect("room");
    let start = sim.now();
    let mut peer = sim.connect(address("10.0.0.1:80"));
    peer.send("hello");
    peer.expect("hello");
    assert!(sim.now().saturating_sub(start) < SECOND);
    assert!(!node.calls().contains(&Call::Message(7)));
    sim.run_for(SECOND * 60);
    assert!(node.calls().contains(&Call::Message(7)));
}

#[test]
fn cancelled_work_that_waits_is_not_done_and_frees_its_place() {
    let (sim, node, workers) = stage(1, 1);
    node.act(|cx| cx.offload(&workers, |_| 1)).expect("a free thread");
    let (done, work) = counted(2);
    let waits = node.act(|cx| cx.offload(&workers, work)).expect("room");
    assert!(node.act(|cx| cx.offload(&workers, |_| 3)).is_err());
    assert!(node.act(|cx| cx.cancel_work(waits)));
    assert!(!node.act(|cx| cx.cancel_work(waits)), "it is cancelled already");
    node.act(|cx| cx.offload(&workers, |_| 4)).expect("the place is free");
    sim.settle();
    assert_eq!(node.calls(), [1, 4].map(Call::Message));
    assert_eq!(done.load(Ordering::Relaxed), 0);
    assert_eq!(node.act(|cx| cx.works()), 0);
}

#[test]
fn nothing_of_cancelled_work_arrives_even_if_it_was_under_way() {
    let (sim, node, workers) = stage(1, 1);
    let work = node.act(|cx| {
        cx.offload(&workers, |job| {
            job.report(1).expect("room");
            2
        })
    });
    // The work is done, and its messages are in the mailbox.
    let mailbox = node.act(|cx| cx.mailbox());
    assert!(sim.run_until(SECOND, || sim.trace().contains("end work")), "it is done");
    node.act(|cx| assert!(cx.cancel_work(work.expect("room"))));
    mailbox.post(3).expect("room");
    sim.settle();
    assert_eq!(node.calls(), [Call::Message(3)]);
}

#[test]
fn work_ends_with_the_connection_that_it_is_done_for() {
    let (sim, node, workers) = stage(1, 10);
    let _peer = sim.connect(address("10.0.0.1:80"));
    sim.settle();
    let id = node.only();
    node.calls();
    let (done, work) = counted(2);
    node.act(|cx| {
        cx.offload_for(id, &workers, |_| 1).expect("room");
        cx.offload_for(id, &workers, work).expect("room");
        cx.offload(&workers, |_| 3).expect("room");
        cx.abort(id);
        assert!(matches!(cx.offload_for(id, &workers, |_| 4), Err(WorkError::NotOpen)));
    });
    sim.settle();
    assert_eq!(node.calls(), [Call::Closed(id, CloseReason::Aborted), Call::Message(3)]);
    assert_eq!(done.load(Ordering::Relaxed), 0, "it waited");
    assert_eq!(node.act(|cx| cx.works()), 0);
}

#[test]
fn results_arrive_even_if_the_mailbox_is_full_and_reports_are_refused() {
    let sim = Simulation::new(3);
    let config = Config { mailbox_messages_max: 2, ..Config::default() };
    let node = Node::start(&sim, config, Book::default());
    let workers = sim.workers(8, 8);
    let (refused, refusals) = mpsc::channel();
    let mailbox = node.act(|cx| cx.mailbox());
    node.act(|cx| {
        for number in 0..4 {
            let (mailbox, refused) = (mailbox.clone(), refused.clone());
            let work = cx.offload(&workers, move |job| {
                while mailbox.post(90).is_ok() {}
                refused.send(matches!(job.report(91), Err(PostError::Full(91)))).expect("the test waits");
                number
            });
            work.expect("room");
        }
    });
    sim.settle();
    let mut results: Vec<_> = node.calls().into_iter().filter(|call| *call != Call::Message(90)).collect();
    results.sort_by_key(|call| if let Call::Message(number) = call { *number } else { 99 });
    assert_eq!(results, [0, 1, 2, 3].map(Call::Message));
    assert_eq!(refusals.try_iter().collect::<Vec<_>>(), [true; 4]);
}

#[test]
fn a_loop_that_is_killed_takes_its_work_along_and_leaves_that_of_others() {
    let (sim, node, workers) = stage(1, 10);
    let other = Node::start(&sim, Config::default(), Book::default());
    let (done, work) = counted(1);
    node.act(|cx| cx.offload(&workers, work)).expect("room");
    other.act(|cx| cx.offload(&workers, |_| 2)).expect("room");
    sim.kill(node.id);
    sim.settle();
    assert_eq!(done.load(Ordering::Relaxed), 0);
    assert_eq!(other.calls(), [Call::Message(2)]);
}

#[test]
fn finished_workers_refuse_work() {
    let (_sim, node, workers) = stage(1, 10);
    workers.finish();
    assert!(matches!(node.act(|cx| cx.offload(&workers, |_| 1)), Err(WorkError::Finished)));
    let threads = Workers::new(1, 10);
    threads.finish();
    let (to, _from) = mpsc::channel();
    let mut event_loop = EventLoop::new(Config::default(), Forwards::new(to, 0)).expect("a loop");
    assert!(matches!(event_loop.parts().1.offload(&threads, |_| 1), Err(WorkError::Finished)));
}

#[test]
fn every_result_arrives_once_over_faults() {
    for seed in 0..200 {
        let sim = Simulation::new(seed);
        let faults = Faults::any(&mut sim.random(0));
        sim.set_faults(Faults { delay_max: ms(20), slow_tick: 0.05, ..faults });
        let node = Node::echo(&sim, &address("10.0.0.1:80"));
        let workers = sim.workers(3, 4);
        let mut random = sim.random(1);
        let (mut wanted, mut cancelled) = (Vec::new(), Vec::new());
        for number in 0..60 {
            let work = node.act(|cx| cx.offload(&workers, move |_| number));
            match work {
                Ok(work) if random.chance(0.2) => cancelled.push((work, number)),
                Ok(_) => wanted.push(number),
                Err(error) => assert!(matches!(error, WorkError::Full), "{error}"),
            }
            sim.run_for(random.time(ms(4)));
            if random.chance(0.3)
                && let Some((work, number)) = cancelled.pop()
                && !node.act(|cx| cx.cancel_work(work))
            {
                wanted.push(number); // its result has been delivered
            }
        }
        wanted.extend(cancelled.iter().map(|(_, number)| *number));
        sim.run_for(SECOND);
        let messages = node.calls().into_iter().filter_map(|call| match call {
            Call::Message(number) => Some(number),
            _ => None,
        });
        let mut messages: Vec<u32> = messages.collect();
        messages.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(messages, wanted, "seed {seed}\n{}", sim.trace());
        assert_eq!(node.act(|cx| cx.works()), 0, "seed {seed}");
    }
}

#[test]
fn threads_do_the_work_and_wake_the_loop() {
    let (to, from) = mpsc::channel();
    let workers = Workers::new(2, 100);
    let mut event_loop = EventLoop::new(Config::default(), Forwards::new(to, 10)).expect("a loop");
    // The two threads meet: neither could do both pieces of work.
    let meeting = Arc::new(std::sync::Barrier::new(2));
    for number in [1, 2] {
        let meeting = meeting.clone();
        let work = event_loop.parts().1.offload(&workers, move |_| {
            meeting.wait();
            number
        });
        work.expect("room");
    }
    let mut results = Vec::new();
    while results.len() < 2 {
        assert!(event_loop.turn(Some(SECOND * 60)).expect("no failure"));
        results.extend(from.try_iter());
    }
    event_loop.parts().1.offload(&workers, |_| 10).expect("room");
    event_loop.run().expect("no failure");
    results.extend(from.try_iter());
    results.sort_unstable();
    assert_eq!(results, [1, 2, 10]);
}

#[test]
fn finish_waits_for_all_work_even_after_the_loop_has_ended() {
    let (to, _from) = mpsc::channel();
    let workers = Workers::new(1, 100);
    let mut event_loop = EventLoop::new(Config::default(), Forwards::new(to, 0)).expect("a loop");
    let (go, gate) = mpsc::channel::<()>();
    let done = Arc::new(AtomicU32::new(0));
    let cancelled = Arc::new(AtomicU32::new(0));
    let first = cancelled.clone();
    let work = event_loop.parts().1.offload(&workers, move |job| {
        let _ = gate.recv();
        first.store(u32::from(job.is_cancelled()), Ordering::Relaxed);
        0
    });
    work.expect("room");
    drop(event_loop);
    drop(go);
    let threads = workers.clone();
    let counter = done.clone();
    // Work may own the workers.
    let (to, _from) = mpsc::channel();
    let mut other = EventLoop::new(Config::default(), Forwards::new(to, 0)).expect("a loop");
    for _ in 0..20 {
        let (threads, counter) = (threads.clone(), counter.clone());
        let work = other.parts().1.offload(&workers, move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            drop(threads);
            0
        });
        work.expect("room");
    }
    workers.finish();
    assert_eq!(done.load(Ordering::Relaxed), 20);
    assert_eq!(cancelled.load(Ordering::Relaxed), 1, "nobody waits for the result of a loop that is gone");
}

#[test]
fn work_under_way_sees_that_it_is_cancelled() {
    let (to, from) = mpsc::channel();
    let workers = Workers::new(1, 10);
    let mut event_loop = EventLoop::new(Config::default(), Forwards::new(to, 1)).expect("a loop");
    let (begun, begins) = mpsc::channel();
    let (go, gate) = mpsc::channel();
    let (saw, sees) = mpsc::channel();
    let work = event_loop.parts().1.offload(&workers, move |job| {
        begun.send(()).expect("the test waits");
        gate.recv().expect("the test lets it go on");
        saw.send((job.is_cancelled(), job.report(8))).expect("the test waits");
        9
    });
    begins.recv().expect("a thread");
    event_loop.parts().1.cancel_work(work.expect("room"));
    go.send(()).expect("the work waits");
    assert_eq!(sees.recv(), Ok((true, Err(PostError::Gone(8)))));
    event_loop.parts().1.offload(&workers, |_| 1).expect("room");
    event_loop.run().expect("no failure");
    assert_eq!(from.try_iter().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_panic_of_work_is_judged_like_one_of_the_service() {
    let run = |keeps: bool| {
        let (to, _from) = mpsc::channel();
        let workers = Workers::new(1, 10);
        let mut event_loop =
            EventLoop::new(Config::default(), Forwards { keeps, ..Forwards::new(to, 0) }).expect("a loop");
        let work = event_loop.parts().1.offload(&workers, |_| panic!("a planned panic of work"));
        work.expect("room");
        let outcome = event_loop.run();
        let again = event_loop.parts().1.offload(&workers, |_| 1);
        (outcome, again)
    };
    let (outcome, again) = run(false);
    assert!(matches!(&outcome, Err(Error::Panicked(text)) if text == "a planned panic of work"), "{outcome:?}");
    assert!(again.is_ok(), "the thread is not lost");
    let (outcome, _) = run(true);
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[test]
fn only_the_first_of_two_panics_is_judged_if_it_ends_the_loop() {
    let sim = Simulation::new(3);
    let workers = sim.workers(2, 0);
    let (to, _from) = mpsc::channel();
    let mut event_loop = sim.event_loop(Config::default(), Forwards::new(to, 0)).expect("a loop");
    for _ in 0..2 {
        event_loop.parts().1.offload(&workers, |_| panic!("a planned panic of work")).expect("room");
    }
    sim.run_for(SECOND);
    assert!(matches!(event_loop.turn(Some(ms(0))), Err(Error::Panicked(_))));
    assert_eq!(event_loop.service().judged, 1);
}

/// Posts a message when it is dropped.
struct Posts(sealed::Mailbox<u32>);

impl Drop for Posts {
    fn drop(&mut self) {
        self.0.post(7).expect("room");
    }
}

#[test]
fn work_that_is_refused_or_cancelled_can_use_the_loop_while_it_is_dropped() {
    let (sim, node, workers) = stage(1, 1);
    node.act(|cx| cx.offload(&workers, |_| 1)).expect("a free thread");
    let work = || {
        let posts = Posts(node.act(|cx| cx.mailbox()));
        move |_: &sealed::Job<u32>| {
            drop(posts);
            2
        }
    };
    let (waits, refused) = (work(), work());
    let waits = node.act(|cx| cx.offload(&workers, waits)).expect("room");
    assert!(node.act(|cx| cx.offload(&workers, refused)).is_err());
    assert!(node.act(|cx| cx.cancel_work(waits)));
    sim.settle();
    let mut messages = node.calls();
    messages.sort_by_key(|call| if let Call::Message(number) = call { *number } else { 99 });
    assert_eq!(messages, [1, 7, 7].map(Call::Message));
}

#[test]
fn panics_of_work_that_is_dropped_cost_neither_a_thread_nor_the_loop() {
    let (to, _from) = mpsc::channel();
    let workers = Workers::new(1, 10);
    let mut event_loop = EventLoop::new(Config::default(), Forwards::new(to, 0)).expect("a loop");
    let (go, gate) = mpsc::channel::<()>();
    let first = event_loop.parts().1.offload(&workers, move |_| {
        let _ = gate.recv();
        std::panic::panic_any(Bomb(2));
    });
    first.expect("room");
    let bomb = Bomb(3);
    let second = event_loop.parts().1.offload(&workers, move |_| {
        let bomb = &bomb;
        bomb.0
    });
    let second = second.expect("room");
    assert!(event_loop.parts().1.cancel_work(second));
    drop(event_loop);
    go.send(()).expect("the work waits");
    // The work panics for a loop that is gone: nobody but the thread has the payload.
    workers.finish();
}

#[test]
fn every_thread_takes_work_at_once_even_if_none_may_wait() {
    let (to, _from) = mpsc::channel();
    let workers = Workers::new(8, 0);
    let mut event_loop = EventLoop::new(Config::default(), Forwards::new(to, 0)).expect("a loop");
    let meeting = Arc::new(std::sync::Barrier::new(8));
    for _ in 0..8 {
        let meeting = meeting.clone();
        let work = event_loop.parts().1.offload(&workers, move |_| {
            meeting.wait();
            1
        });
        work.expect("a free thread");
    }
    workers.finish();
}
