//! Workers: threads for work that blocks, whose results reach a loop as messages. `threads.rs` runs
//! the work on threads; `sim/workers.rs` runs it in simulated time.

mod threads;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use self::threads::Threads;
use crate::caught;
use crate::id::WorkId;
use crate::mailbox::{Mail, Mailbox, PostError, Worked};
use crate::net::{Clock, Network, Waker};
#[cfg(feature = "sim")]
use crate::sim;

/// Work in the queue of the workers.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

/// A bounded pool of threads for work that blocks: files, a database driver, name resolution, a
/// long computation. Clones share the threads.
///
/// [`Context::offload`](crate::Context::offload) passes work to the workers. The message that the
/// work returns is delivered on the loop, so nothing in the service is shared with a thread.
///
/// Threads start when work needs them, and stay until the last clone is dropped and the queue is
/// empty. Waiting work starts in the order of all calls of `offload` and `spawn`.
///
/// ```
/// use sealed::{Config, ConnectionId, Context, EventLoop, Input, Service, Workers};
///
/// /// Answers each line with the size of the file of that name.
/// struct Sizes {
///     workers: Workers,
/// }
///
/// impl Service for Sizes {
///     type Connection = ();
///     type Message = (ConnectionId, String);
///     type Timer = ();
///
///     fn received(&mut self, cx: &mut Context<Self>, id: ConnectionId, input: &mut Input<'_>) {
///         let Some(line) = input.take_until(b'\n') else { return };
///         let path = String::from_utf8_lossy(line).trim_end().to_owned();
///         let work = cx.offload_for(id, &self.workers, move |_job| match std::fs::metadata(path) {
///             Ok(found) => (id, format!("{}\n", found.len())),
///             Err(error) => (id, format!("{error}\n")),
///         });
///         if work.is_err() {
///             cx.write(id, b"try again later\n");
///             return cx.close(id);
///         }
///         // The next line waits for this answer.
///         cx.pause(id);
///     }
///
///     fn message(&mut self, cx: &mut Context<Self>, (id, answer): (ConnectionId, String)) {
///         cx.write(id, answer.as_bytes());
///         // Shows the lines that were left.
///         cx.resume(id);
///     }
/// }
///
/// let workers = Workers::new(4, 1_000);
/// let event_loop = EventLoop::new(Config::default(), Sizes { workers })?;
/// # drop(event_loop);
/// # Ok::<(), sealed::Error>(())
/// ```
#[derive(Clone)]
pub struct Workers {
    crew: Crew,
}

#[derive(Clone)]
enum Crew {
    System {
        threads: Arc<Threads>,
        clock: Clock,
    },
    #[cfg(feature = "sim")]
    Simulated(Arc<sim::Crew>),
}

/// The number of a task in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// The reason why workers refuse work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The queue is full: as many pieces of work wait as [`Workers::new`] allows. Try again later.
    #[error("the queue of the workers is full")]
    Full,
    /// The connection for which the work would be done is not open.
    #[error("the connection is not open")]
    NotOpen,
    /// [`Workers::finish`] was called.
    #[error("the workers have finished")]
    Finished,
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl Workers {
    /// Creates workers with at most `threads` threads, but at least one; none is started yet. At
    /// most `waiting_max` pieces of work wait for a thread. A thread that has returned a result can
    /// be occupied for some microseconds more, so with a `waiting_max` of 0 work that follows at
    /// once can be refused.
    pub fn new(threads: usize, waiting_max: usize) -> Self {
        let threads = Arc::new(Threads::new(threads, waiting_max));
        Self { crew: Crew::System { threads, clock: Network::System.clock() } }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated(crew: sim::Crew) -> Self {
        Self { crew: Crew::Simulated(Arc::new(crew)) }
    }

    /// Queues work that reports its result by its own means, such as a [`Mailbox`]. It starts in
    /// the order of all calls, [`Context::offload`](crate::Context::offload) included. Any thread
    /// can call this.
    ///
    /// No loop owns the work: nothing cancels it, and it also runs after the loop that queued it
    /// has ended. In a simulation, work that was queued is done even if a loop is killed meanwhile.
    ///
    /// A panic of the work ends the work and nothing else. The panic hook of the process reports
    /// it; then the payload is dropped, and no service is notified. Work whose failure matters has
    /// to catch its panics and report them.
    ///
    /// # Errors
    ///
    /// Returns an error, and drops the work, if the queue is full, the workers have finished, or
    /// there is no thread.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<(), WorkError> {
        let task = move || {
            caught::run(work);
        };
        self.submit(Box::new(task), None).map(|_| ())
    }

    /// Returns the number of pieces of work that wait for a thread.
    pub fn waiting(&self) -> usize {
        match &self.crew {
            Crew::System { threads, .. } => threads.waiting(),
            #[cfg(feature = "sim")]
            Crew::Simulated(crew) => crew.waiting(),
        }
    }

    /// Refuses further work, and blocks until the threads have done all that was accepted. Call
    /// this after the loops have ended, so that the process does not end in the middle of a write.
    /// Work must not call it, because it would wait for itself. Simulated workers refuse work but
    /// do not block.
    pub fn finish(&self) {
        match &self.crew {
            Crew::System { threads, .. } => threads.finish(),
            #[cfg(feature = "sim")]
            Crew::Simulated(crew) => crew.finish(),
        }
    }

    /// Queues a task, on behalf of the loop that `asker` wakes, if any.
    #[cfg_attr(not(feature = "sim"), allow(unused_variables))] // a thread outlives a loop
    pub(crate) fn submit(&self, task: Task, asker: Option<&Waker>) -> Result<Ticket, WorkError> {
        match &self.crew {
            Crew::System { threads, .. } => threads.submit(task),
            #[cfg(feature = "sim")]
            Crew::Simulated(crew) => crew.submit(task, asker),
        }
    }

    /// Removes a task from the queue, if no thread has started it.
    pub(crate) fn withdraw(&self, ticket: Ticket) {
        let task = match &self.crew {
            Crew::System { threads, .. } => threads.withdraw(ticket),
            #[cfg(feature = "sim")]
            Crew::Simulated(crew) => crew.withdraw(ticket),
        };
        caught::discard(task);
    }

    pub(crate) fn clock(&self) -> Clock {
        match &self.crew {
            Crew::System { clock, .. } => clock.clone(),
            #[cfg(feature = "sim")]
            Crew::Simulated(crew) => crew.clock(),
        }
    }

    /// Returns the simulated workers behind this handle, if they are.
    #[cfg(feature = "sim")]
    pub(crate) fn as_simulated(&self) -> Option<&Arc<sim::Crew>> {
        match &self.crew {
            Crew::System { .. } => None,
            Crew::Simulated(crew) => Some(crew),
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// What a piece of work can do while it runs: ask whether it was cancelled, and report progress.
///
/// ```
/// use sealed::{ConnectionId, Context, Job, Service, WorkError, Workers};
///
/// enum Message {
///     Counted(ConnectionId, u64),
///     Done(ConnectionId),
/// }
///
/// /// Shows how to report progress and to stop early; the loop stands for real work.
/// fn count<S>(cx: &mut Context<S>, id: ConnectionId, workers: &Workers) -> Result<(), WorkError>
/// where
///     S: Service<Message = Message>,
/// {
///     cx.offload_for(id, workers, move |job: &Job<Message>| {
///         for number in (0..1_000_000_000).step_by(1_000_000) {
///             // If the mailbox is full, this report is left out.
///             let _ = job.report(Message::Counted(id, number));
///             if job.is_cancelled() {
///                 break;
///             }
///         }
///         Message::Done(id)
///     })?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Job<M> {
    id: WorkId,
    cancelled: Arc<AtomicBool>,
    mailbox: Mailbox<M>,
}

impl<M: Send + 'static> Job<M> {
    pub(crate) fn new(id: WorkId, cancelled: Arc<AtomicBool>, mailbox: Mailbox<M>) -> Self {
        Self { id, cancelled, mailbox }
    }

    /// Returns whether the work was [cancelled](crate::Context::cancel_work), its connection has
    /// ended, or its loop is gone: its messages reach nobody any more. (A connection that was
    /// closed ends when its last output has been sent.) Long work should check this
    /// from time to time, and return when it is true.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.mailbox.is_gone()
    }

    /// Sends a message to the service before the work is done. The messages of a piece of work
    /// arrive in order, and its result comes last. Never blocks.
    ///
    /// # Errors
    ///
    /// Returns [`PostError::Full`] with the message if the mailbox of the loop is full, and
    /// [`PostError::Gone`] if the work [is cancelled](Self::is_cancelled).
    #[allow(clippy::unreachable)] // an error contains what was sent
    pub fn report(&self, message: M) -> Result<(), PostError<M>> {
        if self.is_cancelled() {
            return Err(PostError::Gone(message));
        }
        let take = |mail| match mail {
            Mail::Work(worked) => match *worked {
                Worked::Progress(_, message) => message,
                _ => unreachable!("what was sent comes back"),
            },
            _ => unreachable!("what was sent comes back"),
        };
        let sent = self.mailbox.send(Mail::Work(Box::new(Worked::Progress(self.id, message))));
        sent.map_err(|refused| match refused {
            PostError::Full(mail) => PostError::Full(take(mail)),
            PostError::Gone(mail) => PostError::Gone(take(mail)),
        })
    }

    /// Runs the work, and posts the result.
    pub(crate) fn run(self, work: impl FnOnce(&Self) -> M) {
        if self.cancelled.load(Ordering::Acquire) {
            return;
        }
        let worked = match panic::catch_unwind(AssertUnwindSafe(|| work(&self))) {
            Ok(message) => Worked::Done(self.id, message),
            Err(payload) => Worked::Panicked(self.id, payload),
        };
        self.mailbox.send_result(worked);
    }
}
