//! Timers: deadlines of connections, timers of the service, and timers of the loop itself.

use std::time::Duration;

use slab::Slab;

use super::Context;
use crate::id::{ConnectionId, TimerId};
use crate::rate::Way;
use crate::service::Service;
use crate::shrink::Shrink;
use crate::slot::Slot;
use crate::wheel::{self, Nodes, Wheel};

/// The purpose of a timer.
#[derive(Debug)]
pub(crate) enum Due<T> {
    /// A one-shot timer of the service.
    Once(T),
    /// A periodic timer of the service.
    Repeated(T, Box<Rhythm<T>>),
    /// Starts an attempt with the next address.
    Dial(ConnectionId),
    /// Ends the time limit of a connection attempt or of a handshake.
    Limit(ConnectionId),
    /// Lets a connection continue, since its rate allows bytes to be read or written again.
    Pace(ConnectionId, Way),
}

/// The schedule of a periodic timer.
#[derive(Debug)]
pub(crate) struct Rhythm<T> {
    next: Duration,
    period: Duration,
    /// Clones the value for the next expiry. One-shot timers do not need `T: Clone`.
    clone: fn(&T) -> T,
}

#[derive(Debug)]
pub(crate) struct Timer<T> {
    node: wheel::Node,
    serial: u32,
    due: Due<T>,
}

/// All timers of one loop.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    held: Held<T>,
    pub(crate) wheel: Wheel,
    of_service: usize,
    shrink: Shrink,
}

#[derive(Debug)]
struct Held<T>(Slab<Timer<T>>);

impl<T> Nodes for Held<T> {
    fn node(&mut self, key: u32) -> &mut wheel::Node {
        &mut self.0[key as usize].node
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { held: Held(Slab::new()), wheel: Wheel::default(), of_service: 0, shrink: Shrink::default() }
    }
}

impl<T> Timers<T> {
    fn set(&mut self, now: Duration, delay: Duration, serial: u32, due: Due<T>) -> TimerId {
        self.of_service += usize::from(due.is_of_service());
        let slot = self.held.0.insert(Timer { node: wheel::Node::default(), serial, due }) as u32;
        self.wheel.arm(&mut self.held, slot, now, delay);
        TimerId { slot, serial }
    }

    fn find(&mut self, id: TimerId) -> Option<&mut Timer<T>> {
        self.held.0.get_mut(id.slot as usize).filter(|timer| timer.serial == id.serial)
    }

    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<Due<T>> {
        self.find(id)?;
        self.wheel.cancel(&mut self.held, id.slot);
        Some(self.remove(id.slot))
    }

    fn remove(&mut self, slot: u32) -> Due<T> {
        let due = self.held.0.remove(slot as usize).due;
        self.of_service -= usize::from(due.is_of_service());
        if self.shrink.is_due(1, self.held.0.len(), self.held.0.capacity()) {
            self.held.0.shrink_to_fit();
        }
        due
    }

    /// Removes and returns one timer that has expired; a periodic timer is armed again.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<(TimerId, Due<T>)> {
        let slot = self.wheel.expire(&mut self.held, now)?;
        let timer = &mut self.held.0[slot as usize];
        let id = TimerId { slot, serial: timer.serial };
        let Due::Repeated(value, rhythm) = &mut timer.due else { return Some((id, self.remove(slot))) };
        let value = (rhythm.clone)(value);
        let delay = rhythm.go_on(now);
        self.wheel.arm(&mut self.held, slot, now, delay);
        Some((id, Due::Once(value)))
    }
}

impl<T> Due<T> {
    fn is_of_service(&self) -> bool {
        matches!(self, Self::Once(_) | Self::Repeated(..))
    }
}

impl<T> Rhythm<T> {
    /// Advances to the next time after `now`, and returns how far away it is. Missed periods are
    /// skipped; the phase does not change.
    fn go_on(&mut self, now: Duration) -> Duration {
        let behind = now.saturating_sub(self.next).as_nanos() / self.period.as_nanos().max(1);
        let behind = if fault!("missed-periods-made-up") { 0 } else { behind };
        let periods = u32::try_from(behind + 1).unwrap_or(u32::MAX);
        self.next = self.next.saturating_add(self.period.saturating_mul(periods));
        if fault!("periodic-timer-drifts") {
            self.next = now.saturating_add(self.period);
        }
        self.next.saturating_sub(now)
    }
}

/// Timers of the service, and deadlines of connections.
impl<S: Service> Context<S> {
    /// Sets a one-shot timer: [`expired`](Service::expired) is called once, with `value`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sealed::{Context, Service, TimerId};
    ///
    /// enum Timer {
    ///     Retry { attempt: u32 },
    /// }
    ///
    /// fn retry_later<S: Service<Timer = Timer>>(cx: &mut Context<S>, attempt: u32) -> TimerId {
    ///     cx.set_timer(Duration::from_secs(1) * attempt, Timer::Retry { attempt })
    /// }
    ///
    /// /// Returns the attempt that the timer was set for, unless it has expired.
    /// fn give_up<S: Service<Timer = Timer>>(cx: &mut Context<S>, timer: TimerId) -> Option<u32> {
    ///     cx.cancel_timer(timer).map(|Timer::Retry { attempt }| attempt)
    /// }
    /// ```
    ///
    /// A delay of more than about 24 days is cut to that, and the timer expires too early. For a
    /// longer delay, store the time at which it ends, compare it with [`now`](Self::now) in
    /// `expired`, and set another timer for the rest.
    pub fn set_timer(&mut self, delay: Duration, value: S::Timer) -> TimerId {
        let serial = self.next_serial();
        self.timers.set(self.now, delay, serial, Due::Once(value))
    }

    /// Sets a periodic timer: [`expired`](Service::expired) is called after every `period`, each
    /// time with a clone of `value`.
    ///
    /// The timer does not drift: even if a call is late, the next one is due at its regular time.
    /// If the loop was delayed by more than a period, the missed calls are skipped. The period is
    /// at least 1 ms; do not use one of more than about 24 days, the longest delay of a timer.
    pub fn set_interval(&mut self, period: Duration, value: S::Timer) -> TimerId
    where
        S::Timer: Clone,
    {
        let period = period.max(Duration::from_millis(1));
        let rhythm = Box::new(Rhythm { next: self.now.saturating_add(period), period, clone: S::Timer::clone });
        let serial = self.next_serial();
        self.timers.set(self.now, period, serial, Due::Repeated(value, rhythm))
    }

    /// Moves a timer: it expires `delay` from now instead of at its earlier time. A periodic timer
    /// then continues from there with its period. Returns false if the timer no longer exists.
    pub fn move_timer(&mut self, timer: TimerId, delay: Duration) -> bool {
        let now = self.now;
        let Some(held) = self.timers.find(timer) else { return false };
        if let Due::Repeated(_, rhythm) = &mut held.due
            && !fault!("moved-timer-keeps-rhythm")
        {
            rhythm.next = now.saturating_add(delay);
        }
        let Timers { held, wheel, .. } = &mut self.timers;
        wheel.arm(held, timer.slot, now, delay);
        true
    }

    /// Cancels a timer and returns its value. Returns `None` if the timer has expired or been
    /// cancelled.
    pub fn cancel_timer(&mut self, timer: TimerId) -> Option<S::Timer> {
        match self.timers.cancel(timer)? {
            Due::Once(value) | Due::Repeated(value, _) => Some(value),
            _ => None,
        }
    }

    /// Returns the number of timers that the service has set.
    pub fn timers(&self) -> usize {
        self.timers.of_service
    }

    /// Sets the deadline of a connection, in place of an earlier one. When it passes,
    /// [`timed_out`](Service::timed_out) is called once. A longer delay than about 24
    /// days is cut to that.
    pub fn set_deadline(&mut self, id: ConnectionId, delay: Duration) {
        if self.connections.find(id).is_some_and(Slot::is_open) {
            self.connections.set_deadline(id.slot, self.now, delay);
        }
    }

    /// Returns the time that is left until the deadline of a connection; `None` if it has none, or
    /// is not open. The loop has rounded the deadline up to its resolution of 1 ms. If the service
    /// sets a deadline of the same length on each activity, the last activity was this length minus
    /// the time that is left ago.
    pub fn deadline(&self, id: ConnectionId) -> Option<Duration> {
        self.connections.find(id).filter(|slot| slot.is_open() || fault!("linger-seen-as-deadline"))?;
        self.connections.deadline(id.slot, self.now)
    }

    /// Removes the deadline of a connection.
    pub fn clear_deadline(&mut self, id: ConnectionId) {
        if self.connections.find(id).is_some_and(Slot::is_open) {
            self.connections.clear_deadline(id.slot);
        }
    }

    /// Sets a timer of the loop itself.
    pub(crate) fn set_due(&mut self, delay: Duration, due: Due<S::Timer>) -> TimerId {
        let serial = self.next_serial();
        self.timers.set(self.now, delay, serial, due)
    }
}
