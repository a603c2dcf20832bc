//! What a store and its link to Redis tell each other. Both run on the thread of one loop: the link
//! takes commands at the end of each tick, after the gateway's part of it, and the store takes
//! events in the gateway's part.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::resp::Value;
use crate::engine::store::Wake;

/// An order of the store to its link.
#[derive(Debug)]
pub(crate) enum ToLink {
    /// Commands, encoded, for the connection of that number. They are dropped if that connection is
    /// gone. `commands` is the number of replies that they have: in RESP3, `SUBSCRIBE` and
    /// `UNSUBSCRIBE` have none, but are confirmed by pushes.
    Send { connection: u64, commands: usize, bytes: Vec<u8> },
    /// Give up the connection of that number, and make another. The reason is logged.
    Reset { connection: u64, why: Cow<'static, str> },
}

/// An event of the link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// A connection is ready: authenticated, its database selected, Redis checked, and the
    /// functions loaded.
    Up { connection: u64, run_id: Box<str> },
    /// The reply to the next command of those sent.
    Reply(Value),
    /// The elements of a push, in their order among the replies.
    Push(Vec<Value>),
    /// The connection is gone. Nothing of it follows.
    Down,
}

/// The commands that the link has not taken. Clones have the same queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinkPort(Arc<Mutex<VecDeque<ToLink>>>);

impl LinkPort {
    /// Queues an order. The link takes it at the end of the tick that calls the gateway; so this
    /// wakes nothing.
    pub(crate) fn post(&self, order: ToLink) {
        lock(&self.0).push_back(order);
    }

    pub(super) fn take(&self) -> VecDeque<ToLink> {
        std::mem::take(&mut *lock(&self.0))
    }
}

/// The events that the store has not taken, and a way to wake its loop. Clones have the same queue.
#[derive(Debug, Clone)]
pub(crate) struct LinkEvents {
    events: Arc<Mutex<VecDeque<LinkEvent>>>,
    wake: Wake,
}

impl LinkEvents {
    pub(crate) fn new(wake: Wake) -> Self {
        Self { events: Arc::default(), wake }
    }

    /// Queues an event, and wakes the loop.
    pub(crate) fn push(&self, event: LinkEvent) {
        self.push_before_end(event);
        (self.wake.0)();
    }

    /// Queues an event before the end of a tick, at which the store looks for events anyway.
    pub(super) fn push_before_end(&self, event: LinkEvent) {
        lock(&self.events).push_back(event);
    }

    pub(crate) fn take(&self) -> Option<LinkEvent> {
        lock(&self.events).pop_front()
    }
}

/// A panic of another holder leaves a queue as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
