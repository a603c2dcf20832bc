//! What happens later: a connection's deadline, timers, and what the loop itself has to do again.

use std::time::Duration;

use slab::Slab;

use super::Context;
use crate::id::{ConnectionId, TimerId};
use crate::rate::Way;
use crate::service::Service;
use crate::slot::Slot;
use crate::wheel::{self, Nodes, Wheel};

/// What a timer is for.
#[derive(Debug)]
pub(crate) enum Due<T> {
    /// The service's own, once.
    Once(T),
    /// The service's own, again and again.
    Repeated(T, Box<Rhythm<T>>),
    /// The next address is to be tried.
    Dial(ConnectionId),
    /// A connection, or its handshake, is to have been made.
    Limit(ConnectionId),
    /// A connection may go on, for there are bytes to read or write with.
    Pace(ConnectionId, Way),
}

/// When a periodic timer runs out.
#[derive(Debug)]
pub(crate) struct Rhythm<T> {
    next: Duration,
    period: Duration,
    /// Makes the value for the next time. The type may be one that cannot be cloned, as long as its timers run out once.
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
        Self { held: Held(Slab::new()), wheel: Wheel::default(), of_service: 0 }
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
        if self.held.0.is_empty() && self.held.0.capacity() > 64 {
            self.held.0.shrink_to_fit();
        }
        due
    }

    /// Takes out one timer that has run out; a periodic one is set anew.
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
    /// Goes on to the next time after `now`, and tells how far it is. Times that were missed are left out, and the
    /// others stay where they are.
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

impl<S: Service> Context<S> {
    /// Sets a timer, for which [`expired`](Service::expired) is called once, with this value. At most about 24 days.
    pub fn set_timer(&mut self, delay: Duration, value: S::Timer) -> TimerId {
        let serial = self.next_serial();
        self.timers.set(self.now, delay, serial, Due::Once(value))
    }

    /// Sets a timer, for which [`expired`](Service::expired) is called after every `period`, each time with this value.
    ///
    /// It does not drift: however late a call comes, the next is due where it would have been. Where the loop was held up
    /// for more than a period, what it missed is left out. At least 1 ms, at most about 24 days.
    pub fn set_interval(&mut self, period: Duration, value: S::Timer) -> TimerId
    where
        S::Timer: Clone,
    {
        let period = period.max(Duration::from_millis(1));
        let rhythm = Box::new(Rhythm { next: self.now.saturating_add(period), period, clone: S::Timer::clone });
        let serial = self.next_serial();
        self.timers.set(self.now, period, serial, Due::Repeated(value, rhythm))
    }

    /// Lets a timer run out this long after now instead of when it would have. Returns false where it is not there any more.
    /// A periodic one goes on from there with its period.
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

    /// Cancels a timer and hands its value back. One that has run out is not there any more, and nothing happens.
    pub fn cancel_timer(&mut self, timer: TimerId) -> Option<S::Timer> {
        match self.timers.cancel(timer)? {
            Due::Once(value) | Due::Repeated(value, _) => Some(value),
            _ => None,
        }
    }

    /// How many timers are set.
    pub fn timers(&self) -> usize {
        self.timers.of_service
    }

    /// Sets the deadline of a connection, in place of an earlier one. When it passes,
    /// [`timed_out`](Service::timed_out) is called, once. At most about 24 days.
    pub fn set_deadline(&mut self, id: ConnectionId, delay: Duration) {
        if self.slots.find(id).is_some_and(Slot::is_open) {
            self.deadlines.arm(&mut self.slots, id.slot, self.now, delay);
        }
    }

    /// Takes the deadline of a connection away.
    pub fn clear_deadline(&mut self, id: ConnectionId) {
        if self.slots.find(id).is_some_and(Slot::is_open) {
            self.deadlines.cancel(&mut self.slots, id.slot);
        }
    }

    /// Sets a timer of the loop's own.
    pub(crate) fn set_due(&mut self, delay: Duration, due: Due<S::Timer>) -> TimerId {
        let serial = self.next_serial();
        self.timers.set(self.now, delay, serial, due)
    }
}
