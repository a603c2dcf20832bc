//! The scheduler of a simulation: decides which loop runs next, in any order that threads could
//! take.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::Random;
use super::handles::Handle;
use super::trace::Entry;
use crate::error::Result;
use crate::event_loop::EventLoop;
use crate::service::Service;

/// Maximum duration of a tick, unless a fault or the service makes it longer. The mixture of short
/// and long ticks makes the amount of work that accumulates in between random.
const TICK_MAX: Duration = Duration::from_micros(50);
/// Maximum number of steps in one interruption.
const INTERLEAVED_MAX: usize = 20;
/// Maximum nesting depth of interruptions.
const DEPTH_MAX: u32 = 3;

/// A loop, independent of the type of its service.
pub(super) trait Turns: Any {
    /// Runs one tick. Returns whether another tick is to follow.
    fn turn(&mut self) -> Result<bool>;
    /// Returns when the loop runs next if no event occurs.
    fn next_time(&self) -> Option<Duration>;
    fn signal(&mut self, signal: i32);
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<S: Service> Turns for EventLoop<S> {
    fn turn(&mut self) -> Result<bool> {
        EventLoop::turn(self, Some(Duration::ZERO))
    }

    fn next_time(&self) -> Option<Duration> {
        self.wake_time()
    }

    fn signal(&mut self, signal: i32) {
        self.signalled.push(signal);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

pub(super) struct ScheduledLoop {
    /// `None` while the loop runs, and after it has ended.
    event_loop: Option<Box<dyn Turns>>,
    poller: u32,
    next_time: Option<Duration>,
    /// The loop's thread is busy until this time.
    busy_until: Duration,
    turns: u64,
}

pub(super) struct Schedule {
    pub(super) handle: Handle,
    nodes: RefCell<Vec<ScheduledLoop>>,
    depth: Cell<u32>,
    busiest: Cell<u64>,
    failure: RefCell<Option<crate::error::Error>>,
}

thread_local! {
    /// The schedule whose loop is running on this thread.
    static RUNNING: RefCell<Option<Rc<Schedule>>> = const { RefCell::new(None) };
}

/// Marks a loop as running, in place of the loop that it interrupts, until this guard is dropped,
/// even by a panic that a test catches.
struct Turn {
    schedule: Option<Rc<Schedule>>,
    node: Option<usize>,
}

impl Turn {
    fn begin(schedule: &Rc<Schedule>, index: usize) -> Self {
        schedule.depth.set(schedule.depth.get() + 1);
        let node = schedule.handle.lock().running.replace(index);
        Self { schedule: RUNNING.replace(Some(schedule.clone())), node }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(schedule) = RUNNING.replace(self.schedule.take()) {
            schedule.depth.set(schedule.depth.get() - 1);
            if !fault!("remark-of-another-loop") {
                schedule.handle.lock().running = self.node;
            }
        }
    }
}

/// Lets time pass, and other loops run, in the middle of the current loop's tick, with the
/// probability [`Faults::interleave`].
pub(super) fn interleave(handle: &Handle) {
    let Some(schedule) = RUNNING.with_borrow(Clone::clone) else { return };
    if schedule.depth.get() >= DEPTH_MAX {
        return;
    }
    let (steps, until) = {
        let mut net = handle.lock();
        let (chance, running) = (net.faults.interleave, net.running_index());
        let amounts = |random: &mut Random| (random.time(TICK_MAX), 1 + random.below(INTERLEAVED_MAX));
        let Some((time, steps)) = net.occurs_with("interleave", running, chance, amounts) else { return };
        let until = net.now + time;
        net.note(Entry::Interleaves);
        (steps, until)
    };
    for _ in 0..steps {
        if !schedule.step(until) {
            return;
        }
    }
}

/// Makes a loop's tick take long, while other loops run, with the probability
/// [`Faults::slow_tick`].
pub(super) fn pass(handle: &Handle) {
    let time = {
        let mut net = handle.lock();
        let (slow_tick, running) = (net.faults.slow_tick, net.running_index());
        let Some(time) = net.occurs_for("slow_tick", running, slow_tick) else { return };
        time
    };
    if let Some(schedule) = RUNNING.with_borrow(Clone::clone) {
        schedule.spend(time);
    }
}

impl Schedule {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            nodes: RefCell::new(Vec::new()),
            depth: Cell::new(0),
            busiest: Cell::new(0),
            failure: RefCell::new(None),
        }
    }

    pub(super) fn add(&self, event_loop: Box<dyn Turns>, poller: u32) -> usize {
        let now = self.handle.now();
        let mut nodes = self.nodes.borrow_mut();
        let event_loop = Some(event_loop);
        nodes.push(ScheduledLoop { event_loop, poller, next_time: Some(now), busy_until: now, turns: 0 });
        nodes.len() - 1
    }

    /// Removes a loop in its current state.
    pub(super) fn remove(&self, index: usize) -> Option<Box<dyn Turns>> {
        self.nodes.borrow_mut().get_mut(index)?.event_loop.take()
    }

    /// Returns the poller of a loop.
    pub(super) fn poller(&self, index: usize) -> Option<u32> {
        self.nodes.borrow().get(index).map(|node| node.poller)
    }

    pub(super) fn is_running(&self, index: usize) -> bool {
        self.nodes.borrow().get(index).is_some_and(|node| node.event_loop.is_some())
    }

    pub(super) fn turns(&self) -> u64 {
        self.nodes.borrow().iter().map(|node| node.turns).sum()
    }

    pub(super) fn busiest(&self) -> u64 {
        self.busiest.get()
    }

    pub(super) fn with<R>(&self, index: usize, look: impl FnOnce(&mut dyn Any) -> R) -> Option<R> {
        let mut event_loop = self.remove(index)?;
        let outer = self.handle.lock().running.replace(index);
        let result = look(event_loop.as_any());
        self.handle.lock().running = outer;
        self.put_back(index, event_loop);
        Some(result)
    }

    pub(super) fn signal(&self, index: usize, signal: i32) {
        if let Some(mut event_loop) = self.remove(index) {
            event_loop.signal(signal);
            self.put_back(index, event_loop);
        }
    }

    /// Executes one step, not later than `limit`. Returns false if `limit` is reached and no work
    /// is left.
    pub(super) fn step(self: &Rc<Self>, limit: Duration) -> bool {
        let runnable = self.runnable();
        let mut net = self.handle.lock();
        let due = net.next_event().is_some_and(|at| at <= net.now);
        let done = net.crews.next_time().is_some_and(|at| at <= net.now);
        if !runnable.is_empty() || due || done {
            let choice = net.random.below(runnable.len() + usize::from(due) + usize::from(done));
            match runnable.get(choice).copied() {
                None if done && choice == runnable.len() => {
                    let task = net.take_work();
                    // The task itself uses the network.
                    drop(net);
                    if let Some(task) = task {
                        task();
                    }
                }
                None => {
                    net.happen();
                }
                Some(index) => {
                    let stall = net.faults.stall;
                    if let Some(time) = net.occurs_for("stall", index as u32, stall) {
                        net.note(Entry::Stalls { node: index });
                        let until = net.now + time;
                        self.nodes.borrow_mut()[index].busy_until = until;
                    } else {
                        drop(net);
                        self.turn(index);
                    }
                }
            }
            return true;
        }
        let Some(then) = self.next_time(net.now, net.next_time()).filter(|then| *then < limit) else {
            net.now = net.now.max(limit);
            return false;
        };
        net.now = net.now.max(then);
        let (jump, longest) = (net.faults.jump, net.faults.jump_max);
        if let Some(by) = net.occurs_with("jump", 0, jump, |random| random.time(longest)) {
            net.note(Entry::Jumps { by });
            net.now += by;
        }
        true
    }

    /// Lets time pass within a tick. Other loops run meanwhile, unless the nesting limit is
    /// reached.
    pub(super) fn spend(self: &Rc<Self>, time: Duration) {
        let until = {
            let mut net = self.handle.lock();
            net.note(Entry::Spends { time });
            net.now.saturating_add(time)
        };
        while self.depth.get() < DEPTH_MAX && self.step(until) {}
        let mut net = self.handle.lock();
        net.now = net.now.max(until);
    }

    /// Returns whether no loop has work now.
    pub(super) fn is_idle(&self) -> bool {
        let net = self.handle.lock();
        let soon = net.now + Duration::from_millis(1);
        self.nodes.borrow().iter().all(|node| {
            node.event_loop.is_none() || !net.is_ready(node.poller) && node.next_time.is_none_or(|time| time > soon)
        })
    }

    /// Returns the loops whose threads could run now.
    fn runnable(&self) -> Vec<usize> {
        let net = self.handle.lock();
        let can = |node: &ScheduledLoop| {
            node.event_loop.is_some()
                && node.busy_until <= net.now
                && (net.is_ready(node.poller) || node.next_time.is_some_and(|time| time <= net.now))
        };
        let nodes = self.nodes.borrow();
        nodes.iter().enumerate().filter(|(_, node)| can(node)).map(|(index, _)| index).collect()
    }

    /// Returns the time of the next step: an event, a loop that runs by itself, or a loop that
    /// becomes free.
    fn next_time(&self, now: Duration, event: Option<Duration>) -> Option<Duration> {
        let nodes = self.nodes.borrow();
        let of_node = |node: &ScheduledLoop| {
            node.event_loop.as_ref()?;
            if node.busy_until > now { Some(node.busy_until) } else { node.next_time }
        };
        nodes.iter().filter_map(of_node).chain(event).min()
    }

    fn turn(self: &Rc<Self>, index: usize) {
        let Some(mut event_loop) = self.remove(index) else { return };
        let calls = {
            let mut net = self.handle.lock();
            net.note(Entry::Turn { node: index });
            net.calls
        };
        let outcome = {
            let _turn = Turn::begin(self, index);
            event_loop.turn()
        };
        let calls = self.handle.lock().calls - calls;
        self.busiest.set(self.busiest.get().max(calls));
        match outcome {
            Ok(true) => {
                self.put_back(index, event_loop);
                let mut net = self.handle.lock();
                let until = net.now + net.random.time(TICK_MAX);
                let node = &mut self.nodes.borrow_mut()[index];
                node.busy_until = until;
                node.turns += 1;
            }
            Ok(false) => self.handle.lock().note(Entry::Ended { node: index }),
            Err(error) => *self.failure.borrow_mut() = Some(error),
        }
    }

    /// Returns the error that a loop ended with, if one did.
    pub(super) fn take_failure(&self) -> Option<crate::error::Error> {
        self.failure.borrow_mut().take()
    }

    fn put_back(&self, index: usize, event_loop: Box<dyn Turns>) {
        let node = &mut self.nodes.borrow_mut()[index];
        node.next_time = event_loop.next_time();
        node.event_loop = Some(event_loop);
    }
}
