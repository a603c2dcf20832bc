//! Mailboxes: a bounded queue into a loop. However many threads post, one wake-up is sent.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::{fmt, io};

use crate::address::Address;
use crate::id::{ConnectionId, ListenerId, WorkId};
use crate::net::{Stream, Waker};
use crate::resolver::LookupOutcome;
use crate::service::Panic;

/// Maximum number of messages taken from the queue at a time, so that posting threads are delayed
/// once per batch.
pub(crate) const BATCH: usize = 64;

/// Posts messages to one service of a loop, from any thread. Clones post to the same service.
///
/// Messages that one thread posts arrive in the order in which it posted them.
#[derive(Debug)]
pub struct Mailbox<M> {
    sender: mpsc::Sender<Mail<M>>,
    shared: Arc<Shared>,
}

/// An item in the mailbox of a loop.
#[derive(Debug)]
pub(crate) enum Mail<M> {
    /// A message for the service.
    Message(M),
    /// A connection that another loop of the pool accepted for this one. It is boxed because most
    /// items are smaller.
    Connection(Box<Handed>),
    /// A result from another thread.
    Work(Box<Worked<M>>),
}

/// A result from another thread.
#[derive(Debug)]
pub(crate) enum Worked<M> {
    /// A message of work that goes on.
    Progress(WorkId, M),
    /// The last message of work.
    Done(WorkId, M),
    /// Work that panicked.
    Panicked(WorkId, Panic),
    /// The addresses of a host, and the call that makes a message of them.
    Addresses(LookupOutcome, FromAddresses<M>),
    /// The addresses of a connection that is being made by name.
    Resolved(ConnectionId, LookupOutcome),
}

/// Makes a message of the outcome of a lookup.
pub(crate) struct FromAddresses<M>(pub(crate) Box<dyn FnOnce(io::Result<Vec<IpAddr>>) -> M + Send>);

impl<M> fmt::Debug for FromAddresses<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromAddresses").finish_non_exhaustive()
    }
}

/// A connection in transit from the loop that accepted it.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) stream: Stream,
    pub(crate) listener: ListenerId,
    pub(crate) peer: Address,
}

#[derive(Debug)]
struct Shared {
    waker: Waker,
    /// A wake-up has been sent and not handled yet; no other is needed.
    woken: AtomicBool,
    waiting: AtomicUsize,
    waiting_max: usize,
    /// The loop has ended or been dropped.
    gone: AtomicBool,
}

/// The error of a refused post, which contains the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PostError<M> {
    /// [`Config::mailbox_messages_max`](crate::Config::mailbox_messages_max) messages are waiting.
    /// Try again later.
    Full(M),
    /// The loop has ended or been dropped, and will not come back. While a loop is stopping, even a
    /// message that was accepted can be lost: nothing is delivered once
    /// [`EventLoop::run`](crate::EventLoop::run) has returned.
    Gone(M),
}

impl<M> fmt::Display for PostError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the mailbox is full",
            Self::Gone(_) => "the event loop is gone",
        })
    }
}

/// Shows no message, so that a message of any type can be in the error.
impl<M> fmt::Debug for PostError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Gone(_) => "Gone(..)",
        })
    }
}

impl<M> std::error::Error for PostError<M> {}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), shared: self.shared.clone() }
    }
}

impl<M> Mailbox<M> {
    /// Queues a message, and wakes the loop unless it has already been woken. Never blocks.
    ///
    /// # Errors
    ///
    /// Returns [`PostError::Full`] if the mailbox is full, and [`PostError::Gone`] if the loop has
    /// ended. Both return the message.
    #[allow(clippy::unreachable)] // an error contains what was sent
    pub fn post(&self, message: M) -> Result<(), PostError<M>> {
        self.send(Mail::Message(message)).map_err(|refused| match refused {
            PostError::Full(Mail::Message(message)) => PostError::Full(message),
            PostError::Gone(Mail::Message(message)) => PostError::Gone(message),
            PostError::Full(_) | PostError::Gone(_) => unreachable!("what was sent comes back"),
        })
    }

    /// Returns whether the loop has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    pub(crate) fn send(&self, mail: Mail<M>) -> Result<(), PostError<Mail<M>>> {
        self.send_within(self.shared.waiting_max, mail)
    }

    /// Sends a result. Results are limited by the requests for them, and not by the limit of the
    /// mailbox. If the loop is gone, nobody waits for the result.
    pub(crate) fn send_result(&self, worked: Worked<M>) {
        let waiting_max = if fault!("results-refused") { self.shared.waiting_max } else { usize::MAX };
        let _ = self.send_within(waiting_max, Mail::Work(Box::new(worked)));
    }

    fn send_within(&self, waiting_max: usize, mail: Mail<M>) -> Result<(), PostError<Mail<M>>> {
        if self.is_gone() && !fault!("gone-mailbox-says-full") {
            return Err(PostError::Gone(mail));
        }
        // Increment before sending: the loop must not decrement the count of a message that has not
        // been counted.
        let before = self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        if before >= waiting_max {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(PostError::Full(mail));
        }
        self.shared.waker.interleave();
        if let Err(mpsc::SendError(mail)) = self.sender.send(mail) {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(PostError::Gone(mail));
        }
        self.shared.waker.interleave();
        // A loop sleeps only after it has seen an empty queue, so the thread that posts the first
        // message after that wakes it.
        if before == 0 && !self.shared.woken.swap(true, Ordering::AcqRel) {
            self.shared.waker.interleave();
            self.shared.waker.wake();
        }
        Ok(())
    }
}

/// The loop's end of its mailbox.
#[derive(Debug)]
pub(crate) struct Inlet<M> {
    receiver: mpsc::Receiver<Mail<M>>,
    mailbox: Mailbox<M>,
}

impl<M> Inlet<M> {
    pub(crate) fn new(waker: Waker, waiting_max: usize) -> Self {
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::new(Shared {
            waker,
            woken: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            waiting_max,
            gone: AtomicBool::new(false),
        });
        Self { receiver, mailbox: Mailbox { sender, shared } }
    }

    /// Returns what wakes the loop.
    pub(crate) fn waker(&self) -> &Waker {
        &self.mailbox.shared.waker
    }

    pub(crate) fn mailbox(&self) -> &Mailbox<M> {
        &self.mailbox
    }

    /// Refuses all posts from now on.
    pub(crate) fn close(&self) {
        self.mailbox.shared.gone.store(true, Ordering::Release);
    }

    /// Allows posts to wake the loop again. Must be called before the queue is checked, so that a
    /// post after the check sends a wake-up.
    pub(crate) fn rearm(&self) {
        if self.mailbox.shared.woken.load(Ordering::Acquire) {
            self.mailbox.shared.woken.swap(false, Ordering::AcqRel);
        }
    }

    /// Appends at most `most` items from the queue to `batch`, and returns their number.
    pub(crate) fn take(&self, batch: &mut Vec<Mail<M>>, most: usize) -> usize {
        // A posting thread increments the count first and wakes the loop last.
        if self.is_empty() {
            return 0;
        }
        let before = batch.len();
        batch.extend(self.receiver.try_iter().take(most));
        let taken = batch.len() - before;
        self.mailbox.shared.waiting.fetch_sub(taken, Ordering::AcqRel);
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mailbox.shared.waiting.load(Ordering::Acquire) == 0
    }
}

impl<M> Drop for Inlet<M> {
    fn drop(&mut self) {
        self.close();
    }
}
