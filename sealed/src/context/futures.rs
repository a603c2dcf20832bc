//! Futures that a loop runs for a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Wake};

use super::Context;
use super::tied::Tied;
use crate::caught;
use crate::id::{ConnectionId, FutureId};
use crate::net::Waker;
use crate::service::Service;

/// A future whose output is a message.
pub(crate) type Boxed<M> = Pin<Box<dyn Future<Output = M> + Send>>;

/// The futures that a loop runs for a service.
pub(crate) struct Futures<M> {
    held: Tied<Held<M>>,
    /// `None` until the service has its first future.
    queue: Option<Arc<Queue>>,
}

struct Held<M> {
    /// `None` while the future is polled.
    future: Option<Boxed<M>>,
    task: Arc<Task>,
}

/// The futures to poll, which any thread may add to.
struct Queue {
    woken: Mutex<Vec<FutureId>>,
    waker: Waker,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Vec<FutureId>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a future calls when it can go on.
struct Task {
    id: FutureId,
    /// The future is in the queue.
    is_queued: AtomicBool,
    queue: Arc<Queue>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.queue.lock().push(self.id);
            if !fault!("woken-future-sleeps") {
                self.queue.waker.wake();
            }
        }
    }
}

impl<M> Default for Futures<M> {
    fn default() -> Self {
        Self { held: Tied::default(), queue: None }
    }
}

impl<M> fmt::Debug for Futures<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Futures").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl<M> Futures<M> {
    /// Returns whether a future is to be polled.
    pub(crate) fn is_any_woken(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.lock().is_empty())
    }

    /// Takes the futures to poll in this tick.
    pub(crate) fn take_woken(&self) -> Vec<FutureId> {
        self.queue.as_ref().map_or(Vec::new(), |queue| std::mem::take(&mut queue.lock()))
    }

    /// Takes a future out, to be polled, with the connection that it runs for.
    pub(crate) fn begin_poll(&mut self, id: FutureId) -> Option<(Boxed<M>, task::Waker, Option<ConnectionId>)> {
        let (held, connection) = self.held.find(id.slot, id.serial)?;
        // From now on, a wake-up leads to another poll.
        held.task.is_queued.store(false, Ordering::Release);
        Some((held.future.take()?, held.task.clone().into(), connection))
    }

    /// Puts back a future that waits.
    pub(crate) fn end_poll(&mut self, id: FutureId, future: Boxed<M>) {
        if let Some((held, _)) = self.held.find(id.slot, id.serial) {
            held.future = Some(future);
        }
    }

    pub(crate) fn remove(&mut self, id: FutureId) -> bool {
        self.held.remove(id.slot, id.serial).is_some()
    }

    /// Drops the futures that run for a connection.
    pub(crate) fn cancel_of(&mut self, connection: ConnectionId) {
        if fault!("future-outlives-connection") {
            return;
        }
        while let Some(held) = self.held.remove_one_of(connection) {
            caught::discard(held);
        }
    }
}

/// Futures.
impl<S: Service> Context<S> {
    /// Runs a future on the thread of the loop. Its output is delivered by
    /// [`message`](Service::message), never before the current call of the service has returned.
    /// Outputs do not count against the limit of the mailbox.
    ///
    /// This is for libraries that offer nothing but futures. The loop polls a future at most once
    /// in a tick, after the messages, if the future has been woken. The loop knows nothing of what
    /// the future waits for: a future that needs a runtime, such as one that uses tokio's timers or
    /// sockets, does not work here. Run it on that runtime in another thread, and post its output
    /// to a [mailbox](Self::mailbox). A future must not block, like every call of a service. It has
    /// no access to connections, so protocols are written with the calls of [`Service`]. To await
    /// one item after another, run the next future in `message`. Futures work on a simulated
    /// network as well, if only simulated loops and workers wake them.
    ///
    /// A panic in the future counts as one of the service. The loop does not wait for its futures:
    /// they are dropped when it ends.
    ///
    /// ```
    /// use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service};
    ///
    /// async fn question() -> u32 {
    ///     42
    /// }
    ///
    /// #[derive(Default)]
    /// struct Asks {
    ///     answer: Option<u32>,
    /// }
    ///
    /// impl Service for Asks {
    ///     type Connection = ();
    ///     type Message = u32;
    ///     type Timer = ();
    ///
    ///     fn started(&mut self, cx: &mut Context<Self>) {
    ///         cx.run_future(question());
    ///     }
    ///
    ///     fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}
    ///
    ///     fn message(&mut self, cx: &mut Context<Self>, answer: u32) {
    ///         self.answer = Some(answer);
    ///         cx.stop();
    ///     }
    /// }
    ///
    /// let mut event_loop = EventLoop::new(Config::default(), Asks::default())?;
    /// event_loop.run()?;
    /// assert_eq!(event_loop.service().answer, Some(42));
    /// # Ok::<(), sealed::Error>(())
    /// ```
    pub fn run_future(&mut self, future: impl Future<Output = S::Message> + Send + 'static) -> FutureId {
        self.begin_future(None, Box::pin(future))
    }

    /// Runs a future, as [`run_future`](Self::run_future) does, on behalf of a connection: when the
    /// connection ends, the future is dropped. Returns `None` if the connection is not open.
    pub fn run_future_for(
        &mut self,
        id: ConnectionId,
        future: impl Future<Output = S::Message> + Send + 'static,
    ) -> Option<FutureId> {
        self.is_open(id).then(|| self.begin_future(Some(id), Box::pin(future)))
    }

    fn begin_future(&mut self, connection: Option<ConnectionId>, future: Boxed<S::Message>) -> FutureId {
        let id = FutureId { slot: self.futures.held.vacant_slot(), serial: self.next_serial() };
        let waker = self.inlet.waker();
        let queue = self
            .futures
            .queue
            .get_or_insert_with(|| Arc::new(Queue { woken: Mutex::default(), waker: waker.clone() }))
            .clone();
        // The first poll comes in the next tick that delivers messages.
        queue.lock().push(id);
        let task = Arc::new(Task { id, is_queued: AtomicBool::new(true), queue });
        self.futures.held.insert(id.serial, connection, Held { future: Some(future), task });
        id
    }

    /// Drops a future. Returns false if it has completed, or was dropped before.
    pub fn cancel_future(&mut self, future: FutureId) -> bool {
        self.futures.remove(future)
    }

    /// Returns the number of futures that have not completed.
    pub fn futures(&self) -> usize {
        self.futures.held.len()
    }
}
