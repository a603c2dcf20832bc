//! A bounded queue between a loop and a reader that may block.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sealed::fault;

use super::loop_thread::LoopThread;
use super::subscription::{Event, Subscription};

/// The events of a subscription, in order, for a thread or a task that takes them at its own pace.
/// The subscription ends when this is dropped.
///
/// At most `capacity` events are queued here, and one more if it is the last. A reader that is
/// slower than its channels keeps only its position in them, like a slow client: no further events
/// accumulate for it. When it has taken half of the queued events, the loop resumes at its
/// position. If the channel no longer keeps the next message, the reader gets an [`Event::Gap`]. A
/// queued message keeps its data in memory: up to `capacity` times `limits.message_bytes_max`
/// bytes.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
    subscription: Subscription,
}

impl Events {
    pub(super) fn new(queue: Arc<Queue>, subscription: Subscription) -> Self {
        Self { queue, subscription }
    }

    /// Blocks this thread until there is an event. Returns `None` when the subscription is over.
    ///
    /// On the thread of an event loop, it does not block, and returns `None` if there is no event.
    pub fn recv(&mut self) -> Option<Event> {
        self.recv_until(None)
    }

    /// Blocks like [`recv`](Self::recv), but at most for the given time: `None` means that the time
    /// has passed, too.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Event> {
        self.recv_until(Instant::now().checked_add(timeout))
    }

    /// Returns the next event if there is one.
    pub fn try_recv(&mut self) -> Option<Event> {
        let event = self.queue.lock().events.pop_front();
        if event.is_some() {
            self.go_on();
        }
        event
    }

    /// Waits for an event asynchronously, under any runtime or none. Returns `None` when the
    /// subscription is over. No event is lost if the future is dropped.
    pub async fn recv_async(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls for an event like [`recv_async`](Self::recv_async), for adapters to streams.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.queue.lock();
        match state.events.pop_front() {
            Some(event) => {
                drop(state);
                self.go_on();
                Poll::Ready(Some(event))
            }
            None if state.is_over => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Returns whether the subscription is over and all of its events were taken.
    pub fn is_over(&self) -> bool {
        let state = self.queue.lock();
        state.is_over && state.events.is_empty()
    }

    /// Returns the number of queued events: at most `capacity`, and one more if it is the last.
    pub fn len(&self) -> usize {
        self.queue.lock().events.len()
    }

    /// Returns whether no event is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn recv_until(&mut self, deadline: Option<Instant>) -> Option<Event> {
        let mut state = self.queue.lock();
        let event = loop {
            if let Some(event) = state.events.pop_front() {
                break event;
            }
            if state.is_over || LoopThread::is_this() {
                return None;
            }
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.queue.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return None,
                Some(left) => self.queue.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        };
        drop(state);
        self.go_on();
        Some(event)
    }

    /// Resumes the loop after an event was taken, if the loop had stopped at a full queue and half
    /// of the queue is free again.
    fn go_on(&self) {
        let mut state = self.queue.lock();
        if !state.is_stalled || state.events.len() > self.queue.capacity / 2 {
            return;
        }
        state.is_stalled = false;
        drop(state);
        if fault!("stalled-reader-inside-not-resumed") {
            return;
        }
        // If the loop cannot be notified now, it is notified after a later event, and a sweep finds
        // the room anyway.
        if !self.subscription.resume() {
            self.queue.lock().is_stalled = true;
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.recv()
    }
}

/// The queue itself, which the loop and the reader share.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    arrived: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct QueueState {
    events: VecDeque<Event>,
    waker: Option<Waker>,
    /// Whether the loop has stopped at a full queue.
    is_stalled: bool,
    is_over: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), capacity: capacity.max(1) }
    }

    /// Returns whether there is room. If there is none, the reader notifies the loop as soon as
    /// there is.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.lock();
        state.is_stalled = state.events.len() >= self.capacity;
        !state.is_stalled
    }

    pub(super) fn push(&self, event: Event) {
        let is_last = event.is_last();
        let mut state = self.lock();
        state.events.push_back(event);
        self.notify(state, is_last);
    }

    /// Marks the end: no further events follow.
    pub(super) fn end(&self) {
        self.notify(self.lock(), true);
    }

    fn notify(&self, mut state: MutexGuard<'_, QueueState>, is_last: bool) {
        state.is_over |= is_last;
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Locks the state. Ignoring poison is safe, since no code panics while it changes the state.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
