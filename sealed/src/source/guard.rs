//! The guard of a source, which keeps a descriptor registered in the readiness queue of a loop.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use super::table::Table;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::id::SourceId;
use crate::net::{Queue, system};
use crate::service::Service;
use crate::token;

/// The events that a [`Source`] waits for. Errors are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Interest {
    /// There are bytes to read.
    pub const READABLE: Self = Self { readable: true, writable: false };
    /// There is room for bytes to write.
    pub const WRITABLE: Self = Self { readable: false, writable: true };
    /// Either of the two.
    pub const BOTH: Self = Self { readable: true, writable: true };
}

/// An object with a file descriptor whose readiness a loop reports: the pipe of a child process, an
/// inotify descriptor, the connection of a C library.
///
/// [`Context::add_source`] creates a source, and [`Service::ready`] gets its events. The service
/// reads from and writes to the object itself; the loop never touches the bytes.
///
/// A source is a guard: the service keeps it, in a field or a map, and the descriptor is registered
/// as long as the source exists. A source may be dropped anywhere: in `ready` for this very source,
/// between ticks, on another thread, after the loop has ended. The service then gets no more calls
/// for it, not even for an event that this tick has already reported, and the object is dropped
/// too, unless [`into_inner`](Self::into_inner) returns it. To wait for an object that remains
/// elsewhere, add a reference of its own, such as an `Arc`.
///
/// # Reading to the end
///
/// Readiness is reported on change (edge-triggered): once a descriptor has been reported as
/// readable, no more is reported for bytes that are left unread. A service therefore makes one of
/// these choices:
///
/// - It reads until the read returns [`WouldBlock`](std::io::ErrorKind::WouldBlock), the end or an
///   error. The descriptor has to be non-blocking: see [`set_nonblocking`](Self::set_nonblocking).
/// - It reads a part, so that others get their turn, and calls [`Context::ready_again`]. A service
///   that stops reading because its own output is full calls `ready_again` from
///   [`drained`](Service::drained). Calls for the source may come before that; the service
///   ignores them.
/// - It reads once, and calls [`set_interest`](Self::set_interest), after which the system reports
///   the rest. One read that follows a report does not block, so this is the way for a descriptor
///   that has to remain blocking, such as a terminal that other processes use as well.
///
/// # Example
///
/// A service that collects the output of a process:
///
/// ```
/// use std::io::{ErrorKind, Read};
/// use std::process::{ChildStdout, Command, Stdio};
///
/// use sealed::{Config, Context, EventLoop, Interest, Ready, Service, Source, SourceId};
/// # use sealed::{ConnectionId, Input};
///
/// #[derive(Default)]
/// struct Collector {
///     output: Option<Source<ChildStdout>>,
///     text: Vec<u8>,
/// }
///
/// impl Service for Collector {
/// #     type Connection = ();
/// #     type Message = ();
/// #     type Timer = ();
/// #     fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}
///     // The associated types and `received` are left out.
///     fn ready(&mut self, cx: &mut Context<Self>, source: SourceId, _: Ready) {
///         let Some(output) = &mut self.output else { return };
///         let mut chunk = [0; 4096];
///         match output.get_mut().read(&mut chunk) {
///             Ok(count) if count > 0 => {
///                 self.text.extend_from_slice(&chunk[..count]);
///                 cx.ready_again(source);
///             }
///             Err(error) if error.kind() == ErrorKind::WouldBlock => {}
///             _ => {
///                 self.output = None;
///                 cx.stop();
///             }
///         }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut child = Command::new("echo").arg("tea").stdout(Stdio::piped()).spawn()?;
/// let stdout = child.stdout.take().ok_or("it is piped")?;
/// let mut event_loop = EventLoop::new(Config::default(), Collector::default())?;
/// let (collector, cx) = event_loop.parts();
/// let output = cx.add_source(stdout, Interest::READABLE)?;
/// output.set_nonblocking(true)?;
/// collector.output = Some(output);
/// event_loop.run()?;
/// assert_eq!(event_loop.service().text, b"tea\n");
/// assert!(child.wait()?.success());
/// # Ok(())
/// # }
/// ```
pub struct Source<F: AsFd> {
    /// `None` only while the source is dropped.
    object: Option<F>,
    id: SourceId,
    token: usize,
    queue: Queue,
    table: Table,
}

impl<F: AsFd> Source<F> {
    /// Returns the id that [`Service::ready`] gets.
    pub fn id(&self) -> SourceId {
        self.id
    }

    /// Returns the object.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)] // only `into_inner` takes it
    pub fn get(&self) -> &F {
        self.object.as_ref().expect("a source has its object")
    }

    /// Returns the object, mutably. If the object gets another descriptor, as some libraries do
    /// when they reconnect, call [`set_interest`](Self::set_interest) next, which registers the new
    /// descriptor. Close the old descriptor and all duplicates of it, which child processes can
    /// have: systems report events of an open file as long as any descriptor for it is left, so
    /// those of the old one would be reported as events of the new one.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)] // only `into_inner` takes it
    pub fn get_mut(&mut self) -> &mut F {
        self.object.as_mut().expect("a source has its object")
    }

    /// Removes the source from its loop, and returns the object.
    #[allow(clippy::expect_used, clippy::missing_panics_doc)] // nothing else takes it
    pub fn into_inner(mut self) -> F {
        self.remove();
        self.object.take().expect("a source has its object")
    }

    /// Replaces the interest, or renews it if it is the same. Earlier reports are forgotten; the
    /// next tick reports what is ready then.
    ///
    /// If the object has a new descriptor, because the old one was closed, the new one is
    /// registered in its place.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Source`] if the system refuses the change; nothing has changed then.
    pub fn set_interest(&mut self, interest: Interest) -> Result<()> {
        if fault!("interest-not-changed") {
            return Ok(());
        }
        let changed = self.queue.change_descriptor(self.get().as_fd(), self.token, interest);
        changed.map_err(Error::Source)?;
        self.table.renew(self.id);
        Ok(())
    }

    /// Sets or clears the flag `O_NONBLOCK`, for objects of the standard library that have no
    /// method for it, such as the pipes of a child process.
    ///
    /// The flag belongs to the open file, which descriptors can share: the standard input, output
    /// and error of a process in a terminal are often one file, as are those of the shell that
    /// started the process. All of them become non-blocking together, and stay so after the process
    /// has ended. For such a descriptor, see [reading to the
    /// end](Self#reading-to-the-end).
    ///
    /// # Errors
    ///
    /// Returns [`Error::Source`] if the system refuses the change.
    pub fn set_nonblocking(&self, is_nonblocking: bool) -> Result<()> {
        system::set_nonblocking(self.get().as_fd(), is_nonblocking).map_err(Error::Source)
    }

    fn remove(&mut self) {
        if let Some(object) = self.object.as_ref().filter(|_| !fault!("source-left-registered")) {
            self.queue.remove_descriptor(object.as_fd());
        }
        // The slot is free for another source only now, when no more events come for this one.
        self.table.remove(self.id);
    }
}

impl<F: AsFd> AsFd for Source<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get().as_fd()
    }
}

impl<F: AsFd> Drop for Source<F> {
    fn drop(&mut self) {
        self.remove();
    }
}

impl<F: AsFd> fmt::Debug for Source<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Sources: objects with a file descriptor.
impl<S: Service> Context<S> {
    /// Makes the loop report the readiness of an object with a file descriptor to this service, by
    /// [`Service::ready`], as long as the returned [`Source`] exists. What is ready already is
    /// reported in the next tick. The object stays in the mode it is in: see
    /// [`Source::set_nonblocking`].
    ///
    /// Sources belong to no connection and do not count as one: while the loop drains, the service
    /// gets calls for them, but the loop does not wait for them. Works on Unix only.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Source`], which contains the error of the system. The object is dropped
    /// then; to keep it, add a reference. The kind of that error is
    ///
    /// - `PermissionDenied` on Linux for a file without readiness: a regular file, a directory,
    ///   `/dev/null`. Reads of such a file never wait for another process; use
    ///   [`Workers`](crate::Workers).
    /// - `AlreadyExists` on Linux if the descriptor is registered already, by another source.
    /// - `Unsupported` on a simulated network, except for the descriptor of a
    ///   `sealed::sim::SimSource`, which tests give to a service in place of a real one.
    pub fn add_source<F: AsFd>(&mut self, object: F, interest: Interest) -> Result<Source<F>> {
        let queue = self.registry.queue();
        let table = self.sources.table();
        let id = table.insert();
        let token = token::Registered::Foreign(id.slot as usize).token(self.registry.service());
        if let Err(error) = queue.add_descriptor(object.as_fd(), token, interest) {
            table.remove(id);
            return Err(Error::Source(error));
        }
        Ok(Source { object: Some(object), id, token, queue, table })
    }

    /// Requests a call of [`Service::ready`] for a source in the next tick, whether or not the
    /// system reports anything by then; the loop does not sleep before it. The
    /// [`Ready`](crate::Ready) of that call combines all reports since the interest was set.
    ///
    /// A service calls this if it has not read everything: to give others their turn, or because it
    /// can read again now. The call comes after those for sources that are already waiting for one.
    pub fn ready_again(&mut self, source: SourceId) {
        self.sources.ask(source);
    }
}
