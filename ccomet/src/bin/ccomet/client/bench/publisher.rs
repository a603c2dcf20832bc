//! Publishers: each sends a message when it is due, or as soon as the previous one is answered.

use std::cmp::Reverse;
use std::time::Duration;

use sealed::{ConnectionId, Context};

use super::load::{Line, Load, Role};
use super::marker::Marked;

/// Messages that are sent within this time after they are due count from when they are sent: the
/// timers are no finer.
const FINENESS: Duration = Duration::from_millis(2);

/// The time that publishers have to connect before their first message is due.
pub(super) const HEAD_START: Duration = Duration::from_millis(200);

/// A publisher, with a connection of its own.
#[derive(Debug)]
pub(super) struct Publisher {
    /// Its number among the publishers of all loops.
    pub(super) number: usize,
    /// The number of its next message.
    pub(super) next: u32,
    /// When its next message is due.
    due: Duration,
    pub(super) connection: Option<ConnectionId>,
    is_connected: bool,
    is_waiting: bool,
    /// It has a message that is due, and no request under way.
    is_queued: bool,
}

impl Publisher {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            next: 0,
            due: Duration::ZERO,
            connection: None,
            is_connected: false,
            is_waiting: false,
            is_queued: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.is_waiting
    }
}

impl Load {
    /// Connects the publishers, and gives each its first time.
    pub(super) fn begin_publishing(&mut self, cx: &mut Context<Self>, until: Duration) {
        self.publishes_until = Some(until);
        let start = self.now() + HEAD_START;
        let step = self.interval() / self.plan.publishers.max(1) as u32;
        for publisher in &mut self.publishers {
            publisher.due = start + step * publisher.number as u32;
        }
        for index in 0..self.publishers.len() {
            self.dial(cx, Role::Publisher(index));
        }
    }

    /// Returns the time between two messages of a publisher.
    fn interval(&self) -> Duration {
        if self.plan.rate > 0.0 {
            Duration::from_secs_f64((f64::from(self.plan.publishers as u32) / self.plan.rate).min(86_400.0))
        } else {
            Duration::from_secs(86_400)
        }
    }

    /// Queues a publisher that can send, by the time of its next message.
    fn queue(&mut self, index: usize) {
        let Some(publisher) = self.publishers.get_mut(index) else { return };
        let can_send = publisher.is_connected && !publisher.is_waiting;
        if can_send && !std::mem::replace(&mut publisher.is_queued, true) {
            self.due.push(Reverse((publisher.due, index)));
        }
    }

    /// Sends what is due.
    pub(super) fn pace(&mut self, cx: &mut Context<Self>) {
        let Some(until) = self.publishes_until else { return };
        let now = self.now();
        if now >= until {
            return self.hush();
        }
        while let Some(Reverse((due, index))) = self.due.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            self.due.pop();
            self.send(cx, index, due, now);
        }
    }

    /// Ends publishing.
    pub(super) fn hush(&mut self) {
        self.publishes_until = None;
        self.due.clear();
    }

    fn send(&mut self, cx: &mut Context<Self>, index: usize, due: Duration, now: Duration) {
        let interval = self.interval();
        let Some(publisher) = self.publishers.get_mut(index) else { return };
        publisher.is_queued = false;
        let Some(connection) = publisher.connection.filter(|_| publisher.is_connected) else { return };
        let from = if now.saturating_sub(due) <= FINENESS { now } else { due };
        publisher.is_waiting = true;
        publisher.due = due + interval;
        let marked = Marked { publisher: publisher.number, number: publisher.next, due_us: from.as_micros() as u64 };
        let channel = publisher.number % self.plan.channels;
        let request = self.plan.publish(channel, &self.markers.message(marked, self.plan.size));
        cx.write(connection, request.as_bytes());
    }

    pub(super) fn publisher_connected(&mut self, cx: &mut Context<Self>, index: usize) {
        if let Some(publisher) = self.publishers.get_mut(index) {
            publisher.is_connected = true;
        }
        self.queue(index);
        self.pace(cx);
    }

    /// Takes the answer to a publication. Returns whether the connection goes on.
    pub(super) fn published(&mut self, cx: &mut Context<Self>, line: &mut Line, body: &[u8]) -> bool {
        let Role::Publisher(index) = line.role else { return false };
        let Some(publisher) = self.publishers.get_mut(index) else { return false };
        publisher.is_waiting = false;
        if (200..300).contains(&line.status) {
            publisher.next = publisher.next.saturating_add(1);
            self.tally.published += 1;
        } else {
            self.tally.refused += 1;
            self.refused("publish", line.status, body);
        }
        if !line.keeps_open {
            line.is_ending = true;
            return false;
        }
        self.queue(index);
        self.pace(cx);
        true
    }

    pub(super) fn publisher_gone(&mut self, index: usize, id: ConnectionId) {
        let Some(publisher) = self.publishers.get_mut(index).filter(|held| held.connection == Some(id)) else { return };
        (publisher.connection, publisher.is_connected) = (None, false);
        if std::mem::take(&mut publisher.is_waiting) {
            // The server may have accepted the message.
            publisher.next = publisher.next.saturating_add(1);
            self.tally.uncertain += 1;
        }
    }
}
