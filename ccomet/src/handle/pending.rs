//! An answer in transit from a loop to a handle.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use sealed::fault;

use super::HandleError;
use super::loop_thread::LoopThread;

/// An answer in transit. The request is executed even if this is dropped.
///
/// There are four ways to take the answer. All but `wait` also work on the thread of an event loop:
///
/// - [`wait`](Self::wait) blocks the thread until it arrives;
/// - `.await` waits asynchronously, under any runtime or none: it needs only a [`Waker`];
/// - [`then`](Self::then) passes it to a closure;
/// - [`try_take`](Self::try_take) returns it if it has arrived.
///
/// There is always an answer: [`HandleError::Unavailable`] after `times.reply_s` at the latest, and
/// [`HandleError::Stopped`] if the server ends or is dropped. Until the server
/// [runs](crate::Server::run), there is no time limit.
pub struct Pending<T> {
    slot: Arc<Slot<T>>,
}

/// The sender of an answer. If it is dropped without an answer, the answer is that the server has
/// ended.
pub(crate) struct Promise<T> {
    slot: Option<Arc<Slot<T>>>,
}

type Outcome<T> = Result<T, HandleError>;

struct Slot<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

enum State<T> {
    Waiting(Option<Waker>),
    Then(Box<dyn FnOnce(Outcome<T>) + Send>),
    Arrived(Outcome<T>),
    Taken,
}

impl<T> Pending<T> {
    /// Creates an answer and its sender.
    pub(crate) fn new() -> (Promise<T>, Self) {
        let slot = Arc::new(Slot { state: Mutex::new(State::Waiting(None)), arrived: Condvar::new() });
        (Promise { slot: Some(slot.clone()) }, Self { slot })
    }

    /// Creates an answer that has arrived already.
    pub(crate) fn ready(outcome: Result<T, HandleError>) -> Self {
        let state = Mutex::new(State::Arrived(outcome));
        Self { slot: Arc::new(Slot { state, arrived: Condvar::new() }) }
    }

    /// Blocks this thread until the answer arrives.
    ///
    /// On the thread of an event loop, it returns [`HandleError::OnLoop`] instead, unless the
    /// answer has arrived already: in a closure of a subscription, in
    /// [`on_call`](crate::Server::on_call), and in a test that simulates the server on its own
    /// thread.
    ///
    /// # Errors
    /// The error that the call describes, or those of [`Pending`].
    ///
    /// # Panics
    /// If [`try_take`](Self::try_take) has returned the answer already.
    pub fn wait(self) -> Result<T, HandleError> {
        let mut state = self.slot.lock();
        loop {
            if let Some(outcome) = state.take() {
                return outcome;
            }
            assert!(!matches!(*state, State::Taken), "the answer was taken already");
            if LoopThread::is_this() && !fault!("loop-waits-for-itself") {
                return Err(HandleError::OnLoop);
            }
            state = self.slot.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the answer if it has arrived. It is returned once: after that, do not use this value
    /// any more. [`wait`](Self::wait) and `.await` would panic.
    pub fn try_take(&mut self) -> Option<Result<T, HandleError>> {
        self.slot.lock().take()
    }

    /// Calls a closure with the answer: at once, if it has arrived; otherwise on the thread of the
    /// loop that sends it, where the closure must not block.
    pub fn then(self, f: impl FnOnce(Result<T, HandleError>) + Send + 'static) {
        let mut state = self.slot.lock();
        match state.take() {
            Some(outcome) => {
                drop(state);
                f(outcome);
            }
            None => *state = State::Then(Box::new(f)),
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, HandleError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        if let Some(outcome) = state.take() {
            return Poll::Ready(outcome);
        }
        assert!(!matches!(*state, State::Taken), "the answer was taken already");
        *state = State::Waiting(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<T> Promise<T> {
    /// Sends the answer, and wakes the thread or task that waits for it.
    pub(crate) fn give(mut self, outcome: Result<T, HandleError>) {
        if let Some(slot) = self.slot.take() {
            slot.put(outcome);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.put(Err(HandleError::Stopped));
        }
    }
}

impl<T> Slot<T> {
    /// Locks the state. Ignoring poison is safe, since no code panics while it changes the state.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, outcome: Outcome<T>) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Then(f) => {
                drop(state);
                f(outcome);
            }
            State::Waiting(waker) => {
                *state = State::Arrived(outcome);
                drop(state);
                self.arrived.notify_all();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            // There is one answer only.
            State::Arrived(_) | State::Taken => {}
        }
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<Outcome<T>> {
        match std::mem::replace(self, Self::Taken) {
            Self::Arrived(outcome) => Some(outcome),
            other => {
                *self = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn an_answer_is_taken_once_in_each_way() {
        let (promise, mut pending) = Pending::new();
        assert_eq!(pending.try_take(), None);
        promise.give(Ok(1));
        assert_eq!((pending.try_take(), pending.try_take()), (Some(Ok(1)), None));

        let (promise, pending) = Pending::new();
        let waiter = std::thread::spawn(move || pending.wait());
        promise.give(Ok(2));
        assert_eq!(waiter.join().expect("no panic"), Ok(2));

        let (sender, receiver) = mpsc::channel();
        let (promise, pending) = Pending::new();
        let late = sender.clone();
        pending.then(move |outcome| late.send(outcome).expect("a receiver"));
        assert!(receiver.try_recv().is_err());
        promise.give(Ok(3));
        Pending::ready(Ok(4)).then(move |outcome| sender.send(outcome).expect("a receiver"));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [Ok(3), Ok(4)]);
    }

    #[test]
    fn a_task_is_woken_by_its_last_waker() {
        let (promise, mut pending) = Pending::new();
        let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
        for count in [&first, &last] {
            let waker = Waker::from(count.clone());
            assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        promise.give(Ok(5));
        assert_eq!([&first, &last].map(|count| count.0.load(Ordering::SeqCst)), [0, 1]);
        let poll = Pin::new(&mut pending).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(poll, Poll::Ready(Ok(5)));
    }

    #[test]
    fn waiting_for_a_dropped_promise_or_on_a_loop_is_an_error() {
        let (promise, pending) = Pending::<()>::new();
        drop(promise);
        assert_eq!(pending.wait(), Err(HandleError::Stopped));
        let (promise, pending) = Pending::<()>::new();
        let here = LoopThread::mark();
        assert_eq!(pending.wait(), Err(HandleError::OnLoop));
        assert_eq!(Pending::ready(Ok(6)).wait(), Ok(6));
        drop(here);
        drop(promise);
        assert!(!LoopThread::is_this());
    }
}
