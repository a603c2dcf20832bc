//! Very many timers: this project's wheel compared with others that do the same work.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service, TimerId};
use tokio::runtime::Runtime;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

/// The range of the delays, in milliseconds, of timers that are not to expire.
const FAR: u64 = 60_000;
/// The range of the delays, in milliseconds, of timers that are to expire.
const NEAR: u64 = 64;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The times for setting all, for moving all, and for cancelling all.
    Changing,
    /// The time for expiring all once every one of them is due. Each was set, and moved once.
    Firing,
}

/// A way to keep timers, numbered from 0. Each call passes many timers, as a service sets many
/// within a tick.
trait Timers {
    fn set(&mut self, timers: impl Iterator<Item = (usize, Duration)>);
    fn shift(&mut self, timers: impl Iterator<Item = (usize, Duration)>);
    fn cancel(&mut self, timers: impl Iterator<Item = usize>);
    /// Expires the timers that are due, until none is left or there were `wanted` of them, and
    /// returns their number.
    fn fire(&mut self, wanted: usize) -> usize;
}

/// Creates timers, and measures this many of them, in milliseconds.
pub type Measure = fn(usize, Part) -> Vec<f64>;

/// The ways to keep timers, that of this project first.
pub const WAYS: [(&str, Measure); 3] = [
    ("sealed", |count, part| measure(&mut Sealed::new(), count, part)),
    ("tokio `DelayQueue`", |count, part| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _entered = runtime.enter();
        measure(&mut Queue { runtime: &runtime, timers: DelayQueue::new(), keys: Vec::new() }, count, part)
    }),
    ("binary heap", |count, part| measure(&mut Heap::new(), count, part)),
];

fn measure(timers: &mut impl Timers, count: usize, part: Part) -> Vec<f64> {
    if part == Part::Changing {
        let set = timed(|| timers.set((0..count).map(|n| (n, delay(n, FAR)))));
        let moved = timed(|| timers.shift((0..count).map(|n| (scattered(n, count), delay(n + 1, FAR)))));
        let cancelled = timed(|| timers.cancel((0..count).map(|n| scattered(n, count))));
        return vec![set, moved, cancelled];
    }
    // No timer is to expire while others are still being set.
    let ahead = Duration::from_nanos(1_500) * count as u32;
    timers.set((0..count).map(|n| (n, ahead + delay(n, NEAR))));
    timers.shift((0..count).map(|n| (scattered(n, count), ahead + delay(n + 1, NEAR))));
    std::thread::sleep(ahead + Duration::from_millis(NEAR + 2));
    let fired = timed(|| {
        let mut left = count;
        while left > 0 {
            left -= timers.fire(left);
        }
    });
    vec![fired]
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1_000.0
}

/// Returns a delay that looks random, but is the same in each run.
fn delay(number: usize, most: u64) -> Duration {
    let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    Duration::from_millis(1 + mixed % most)
}

/// Maps the numbers below `count` to each other, so that neighbours end up far apart. `count` must
/// have no prime factors but 2 and 5.
fn scattered(number: usize, count: usize) -> usize {
    number * 7_368_787 % count
}

struct Sealed {
    event_loop: EventLoop<Counting>,
    ids: Vec<TimerId>,
}

#[derive(Default)]
struct Counting(usize);

impl Service for Counting {
    type Connection = ();
    type Message = ();
    type Timer = usize;

    fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}

    fn expired(&mut self, _: &mut Context<Self>, _: TimerId, _: usize) {
        self.0 += 1;
    }
}

impl Sealed {
    fn new() -> Self {
        let event_loop = EventLoop::new(Config::default(), Counting::default()).expect("a loop");
        Self { event_loop, ids: Vec::new() }
    }
}

impl Timers for Sealed {
    fn set(&mut self, timers: impl Iterator<Item = (usize, Duration)>) {
        let (_, cx) = self.event_loop.parts();
        self.ids.extend(timers.map(|(number, delay)| cx.set_timer(delay, number)));
    }

    fn shift(&mut self, timers: impl Iterator<Item = (usize, Duration)>) {
        let (_, cx) = self.event_loop.parts();
        timers.for_each(|(number, delay)| assert!(cx.move_timer(self.ids[number], delay)));
    }

    fn cancel(&mut self, timers: impl Iterator<Item = usize>) {
        let (_, cx) = self.event_loop.parts();
        timers.for_each(|number| assert!(cx.cancel_timer(self.ids[number]).is_some()));
    }

    fn fire(&mut self, _: usize) -> usize {
        self.event_loop.turn(Some(Duration::ZERO)).expect("a tick");
        std::mem::take(&mut self.event_loop.parts().0.0)
    }
}

struct Queue<'a> {
    runtime: &'a Runtime,
    timers: DelayQueue<usize>,
    keys: Vec<Key>,
}

impl Timers for Queue<'_> {
    fn set(&mut self, timers: impl Iterator<Item = (usize, Duration)>) {
        self.keys.extend(timers.map(|(number, delay)| self.timers.insert(number, delay)));
    }

    fn shift(&mut self, timers: impl Iterator<Item = (usize, Duration)>) {
        timers.for_each(|(number, delay)| self.timers.reset(&self.keys[number], delay));
    }

    fn cancel(&mut self, timers: impl Iterator<Item = usize>) {
        for number in timers {
            self.timers.remove(&self.keys[number]);
        }
    }

    fn fire(&mut self, wanted: usize) -> usize {
        self.runtime.block_on(async {
            for _ in 0..wanted {
                poll_fn(|cx| self.timers.poll_expired(cx)).await.expect("one more");
            }
        });
        wanted
    }
}

/// A heap that deletes lazily: an entry that was moved or cancelled stays in the heap until its
/// time, and is skipped then. Cancelling costs next to nothing; expiring bears the cost.
struct Heap {
    origin: Instant,
    entries: BinaryHeap<Reverse<(Duration, u32, u32)>>,
    /// For each timer, the number of its changes, of which only the last counts, and its value.
    serials: Vec<(u32, usize)>,
}

impl Heap {
    fn new() -> Self {
        Self { origin: Instant::now(), entries: BinaryHeap::new(), serials: Vec::new() }
    }
}

impl Timers for Heap {
    fn set(&mut self, timers: impl Iterator<Item = (usize, Duration)>) {
        let now = self.origin.elapsed();
        for (number, delay) in timers {
            self.serials.push((0, number));
            self.entries.push(Reverse((now + delay, number as u32, 0)));
        }
    }

    fn shift(&mut self, timers: impl Iterator<Item = (usize, Duration)>) {
        let now = self.origin.elapsed();
        for (number, delay) in timers {
            self.serials[number].0 += 1;
            self.entries.push(Reverse((now + delay, number as u32, self.serials[number].0)));
        }
    }

    fn cancel(&mut self, timers: impl Iterator<Item = usize>) {
        timers.for_each(|number| self.serials[number].0 += 1);
    }

    fn fire(&mut self, _: usize) -> usize {
        let now = self.origin.elapsed();
        let mut count = 0;
        while let Some(Reverse((due, number, serial))) = self.entries.peek() {
            if *due > now {
                break;
            }
            count += usize::from(self.serials[*number as usize].0 == *serial);
            self.entries.pop();
        }
        count
    }
}
