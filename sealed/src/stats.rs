//! The counters of a loop, readable from any thread while the loop runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::net::Clock;

/// Number of buckets in the histogram of tick lengths.
const BUCKETS: usize = 32;

/// Counters of one service of a loop since the loop was started, at one moment.
///
/// Ticks are those of the loop. They are counted for its first service only; other services have 0
/// in [`ticks`](Self::ticks), [`tick_lengths`](Self::tick_lengths) and [`busy`](Self::busy).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Number of ticks.
    pub ticks: u64,
    /// Lengths of the ticks, each from the wake-up until the loop waits again.
    pub tick_lengths: Histogram,
    /// Total time spent in ticks; the rest of the time was spent waiting.
    pub busy: Duration,
    /// Current number of connections.
    pub connections: u64,
    /// Number of connections accepted.
    pub accepted: u64,
    /// Number of outgoing connections made.
    pub connected: u64,
    /// Number of connections that have ended, accepted or outgoing.
    pub closed: u64,
    /// How often accepting was paused, for lack of file descriptors or because `connections_max`
    /// was reached.
    pub accept_pauses: u64,
    /// Number of bytes read from connections.
    pub bytes_received: u64,
    /// Number of bytes of connections that the kernel has taken.
    pub bytes_sent: u64,
    /// Number of datagrams received, without those that were too long.
    pub datagrams_received: u64,
    /// Number of datagrams that the kernel has taken.
    pub datagrams_sent: u64,
    /// Number of datagrams that were dropped instead of sent, because there was no room for them,
    /// or because their socket was closed before the kernel took them.
    pub datagrams_dropped: u64,
    /// Number of received datagrams that were dropped because they were longer than their socket's
    /// limit.
    pub datagrams_too_long: u64,
    /// Number of messages taken from the mailbox.
    pub messages: u64,
    /// Number of timers of the service that have expired.
    pub timers_expired: u64,
}

/// A histogram of durations. The upper bound of each bucket is twice that of the one below it; the
/// first bucket ends at 1 µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Histogram {
    /// Returns the upper bound of each bucket and the number of durations in it. The last bucket is
    /// unbounded; its reported bound is nominal.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.counts.iter().enumerate().map(|(index, count)| (upper_bound(index), *count))
    }

    /// Returns the number of recorded durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns an upper bound of the `part`-quantile (0 to 1): the upper bound of the bucket that
    /// contains it. Returns zero if there are no durations.
    pub fn quantile(&self, part: f64) -> Duration {
        #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // a rank need not be exact
        let rank = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(Duration::ZERO, upper_bound)
    }
}

fn bucket(length: Duration) -> usize {
    let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
    (64 - micros.leading_zeros() as usize).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    Duration::from_micros(1 << bucket)
}

/// Reads the counters of a service from any thread, at any time. Clones watch the same service.
#[derive(Debug, Clone)]
pub struct Watch {
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
}

/// A tick in progress, as seen from another thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Running {
    /// Time since the tick began.
    pub time: Duration,
    /// The step in which the service is; `None` while the loop is between two steps, or busy with
    /// another service.
    pub step: Option<Step>,
}

/// A step of a tick. Each names the callbacks of which one is running, or none: a step has work of
/// the loop as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// [`Service::started`](crate::Service::started).
    Starting,
    /// [`Service::draining`](crate::Service::draining), and connections that the drain limit ends.
    Draining,
    /// [`Service::signalled`](crate::Service::signalled).
    Signals,
    /// New connections: [`Service::accepted`](crate::Service::accepted) and
    /// [`Service::connected`](crate::Service::connected). A connection that another loop of a pool
    /// accepted comes with the messages instead, and one whose TLS handshake ends with the input.
    Connecting,
    /// Input: [`Service::received`](crate::Service::received),
    /// [`Service::ended`](crate::Service::ended), [`Service::secured`](crate::Service::secured),
    /// [`Service::datagram`](crate::Service::datagram),
    /// [`Service::datagrams_drained`](crate::Service::datagrams_drained),
    /// [`Service::datagram_failed`](crate::Service::datagram_failed) and
    /// [`Service::ready`](crate::Service::ready).
    Reading,
    /// Messages: [`Service::message`](crate::Service::message), and the futures of the service.
    Messages,
    /// Deadlines and timers: [`Service::timed_out`](crate::Service::timed_out) and
    /// [`Service::expired`](crate::Service::expired). Before a deadline is reported, output is
    /// offered to the kernel once more, so [`Service::drained`](crate::Service::drained) may run.
    Timers,
    /// [`Service::turned`](crate::Service::turned).
    Turned,
    /// Output: [`Service::drained`](crate::Service::drained).
    Flushing,
    /// Ends of connections: [`Service::closed`](crate::Service::closed).
    Closing,
}

impl Step {
    const ALL: [Self; 10] = [
        Self::Starting,
        Self::Draining,
        Self::Signals,
        Self::Connecting,
        Self::Reading,
        Self::Messages,
        Self::Timers,
        Self::Turned,
        Self::Flushing,
        Self::Closing,
    ];
}

impl Watch {
    /// Returns the counters as of now. Each counter is exact, but they need not all be of the same
    /// moment.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Returns how long the current tick has been running, and in which step the service is.
    /// Returns `None` while the loop waits for events.
    ///
    /// A thread that looks from time to time finds callbacks that block the loop while they do so,
    /// whereas [`Stats::tick_lengths`] shows them only afterwards:
    ///
    /// ```
    /// use std::thread;
    /// use std::time::Duration;
    /// # use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service};
    /// # struct App;
    /// # impl Service for App {
    /// #     type Connection = ();
    /// #     type Message = ();
    /// #     type Timer = ();
    /// #     fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}
    /// # }
    ///
    /// const TICK_MAX: Duration = Duration::from_millis(500);
    ///
    /// let mut event_loop = EventLoop::new(Config::default(), App)?;
    /// let watch = event_loop.watch();
    /// thread::spawn(move || loop {
    ///     thread::sleep(TICK_MAX / 2);
    ///     if let Some(running) = watch.running().filter(|running| running.time > TICK_MAX) {
    ///         eprintln!("the loop has been busy for {:?}, in {:?}", running.time, running.step);
    ///     }
    /// });
    /// # event_loop.stopper().stop();
    /// event_loop.run()?;
    /// # Ok::<(), sealed::Error>(())
    /// ```
    pub fn running(&self) -> Option<Running> {
        let began = self.counters.began_ns.get().checked_sub(1)?;
        let time = self.clock.now().saturating_sub(Duration::from_nanos(began));
        let step = self.counters.step.get().checked_sub(1);
        Some(Running { time, step: step.and_then(|step| Step::ALL.get(step as usize).copied()) })
    }
}

/// A counter that only one thread changes. No other writer has to be excluded, so an update costs a
/// load and a store.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Release);
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The counters themselves, shared with all watches.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) ticks: Count,
    tick_lengths: [Count; BUCKETS],
    busy_ns: Count,
    pub(crate) connections: Count,
    pub(crate) accepted: Count,
    pub(crate) connected: Count,
    pub(crate) closed: Count,
    pub(crate) accept_pauses: Count,
    pub(crate) bytes_received: Count,
    pub(crate) bytes_sent: Count,
    pub(crate) datagrams_received: Count,
    pub(crate) datagrams_sent: Count,
    pub(crate) datagrams_dropped: Count,
    pub(crate) datagrams_too_long: Count,
    pub(crate) messages: Count,
    pub(crate) timers_expired: Count,
    /// Number of connections taken over from the loop that accepts for the pool.
    pub(crate) taken_over: Count,
    /// When the tick in progress began, in nanoseconds, plus 1; 0 while the loop waits.
    began_ns: Count,
    /// The number of the step in progress, plus 1; 0 between two steps.
    step: Count,
}

impl Counters {
    /// Records that a tick has begun.
    pub(crate) fn begin_tick(&self, now: Duration) {
        self.began_ns.set(now.as_nanos() as u64 + 1);
    }

    /// Records that the tick has ended.
    pub(crate) fn end_tick(&self) {
        self.step.set(0);
        if !fault!("tick-never-over") {
            self.began_ns.set(0);
        }
    }

    #[inline]
    pub(crate) fn enter(&self, step: Step) {
        self.step.set(step as u64 + 1);
    }

    #[inline]
    pub(crate) fn leave(&self) {
        if !fault!("step-never-left") {
            self.step.set(0);
        }
    }

    pub(crate) fn tick(&self, length: Duration) {
        self.ticks.add(1);
        self.tick_lengths[bucket(length)].add(1);
        self.busy_ns.add(length.as_nanos() as u64);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            ticks: self.ticks.get(),
            tick_lengths: Histogram { counts: std::array::from_fn(|index| self.tick_lengths[index].get()) },
            busy: Duration::from_nanos(self.busy_ns.get()),
            connections: self.connections.get(),
            accepted: self.accepted.get(),
            connected: self.connected.get(),
            closed: self.closed.get(),
            accept_pauses: self.accept_pauses.get(),
            bytes_received: self.bytes_received.get(),
            bytes_sent: self.bytes_sent.get(),
            datagrams_received: self.datagrams_received.get(),
            datagrams_sent: self.datagrams_sent.get(),
            datagrams_dropped: self.datagrams_dropped.get(),
            datagrams_too_long: self.datagrams_too_long.get(),
            messages: self.messages.get(),
            timers_expired: self.timers_expired.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let counters = Counters::default();
        for micros in [0, 1, 3, 3, 900] {
            counters.tick(Duration::from_micros(micros));
        }
        let lengths = counters.read().tick_lengths;
        assert_eq!(lengths.count(), 5);
        assert_eq!(lengths.quantile(0.0), Duration::from_micros(1));
        assert_eq!(lengths.quantile(0.5), Duration::from_micros(4));
        assert_eq!(lengths.quantile(1.0), Duration::from_micros(1024));
        assert_eq!(Histogram::default().quantile(0.99), Duration::ZERO);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
