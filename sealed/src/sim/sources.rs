//! Descriptors for sources, whose readiness the test sets.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use super::Simulation;
use super::handles::{Handle, Poller};
use super::network::DescriptorState;
use super::trace::DescriptorId;
use crate::error::{Error, Result};
use crate::source::Interest;

/// A descriptor for [`Context::add_source`](crate::Context::add_source), whose readiness the test
/// sets.
///
/// A service that uses a foreign descriptor reads and writes an object of its own: a pipe, the
/// connection of a library. In a test, a fake takes the place of that object: it has a `SimSource`,
/// and returns it from `as_fd`. The fake decides what a read or a write returns, and the
/// `SimSource` what the loop reports. Both can be one type with the real object, or the service is
/// generic over `F: AsFd + Read`.
///
/// The loop treats a `SimSource` as it treats a real descriptor: it reports readiness on change
/// (edge-triggered), and again when the interest is set, and [`Ready`](crate::Ready) means the
/// same. [`Faults::late_ready`](super::Faults::late_ready) and
/// [`Faults::spurious_ready`](super::Faults::spurious_ready) make reports late, or wrong as a
/// system's can be.
///
/// Clones are the same descriptor, as duplicates of a real one are: the fake has one, and the test
/// another. A real descriptor of `/dev/null` stands for it, so that it is an
/// [`AsFd`](std::os::fd::AsFd) like all others. Do not read from or write to that.
///
/// # Example
///
/// A pipe from a process that does not exist:
///
/// ```
/// use std::io::{self, ErrorKind, Read};
/// use std::os::fd::{AsFd, BorrowedFd};
/// use std::sync::mpsc::{Receiver, TryRecvError, channel};
///
/// use sealed::sim::{SimSource, Simulation};
/// use sealed::{Config, Context, EventLoop, Interest, Ready, Service, Source, SourceId};
/// # use sealed::{ConnectionId, Input};
///
/// /// The service: collects what it reads.
/// struct Collector<F: AsFd + Read> {
///     output: Option<Source<F>>,
///     text: Vec<u8>,
/// }
///
/// impl<F: AsFd + Read + 'static> Service for Collector<F> {
/// #     type Connection = ();
/// #     type Message = ();
/// #     type Timer = ();
/// #     fn received(&mut self, _: &mut Context<Self>, _: ConnectionId, _: &mut Input<'_>) {}
///     fn ready(&mut self, cx: &mut Context<Self>, source: SourceId, _: Ready) {
///         let Some(output) = &mut self.output else { return };
///         let mut chunk = [0; 4096];
///         match output.get_mut().read(&mut chunk) {
///             Ok(count) if count > 0 => {
///                 self.text.extend_from_slice(&chunk[..count]);
///                 cx.ready_again(source);
///             }
///             Err(error) if error.kind() == ErrorKind::WouldBlock => {}
///             _ => self.output = None,
///         }
///     }
/// }
///
/// /// The fake: each read returns one piece, and the end is that of the channel.
/// struct Pipe {
///     source: SimSource,
///     pieces: Receiver<&'static str>,
/// }
///
/// impl AsFd for Pipe {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.source.as_fd()
///     }
/// }
///
/// impl Read for Pipe {
///     fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
///         match self.pieces.try_recv() {
///             Ok(piece) => piece.as_bytes().read(buffer),
///             Err(TryRecvError::Disconnected) => Ok(0),
///             Err(TryRecvError::Empty) => {
///                 self.source.set_readable(false);
///                 Err(ErrorKind::WouldBlock.into())
///             }
///         }
///     }
/// }
///
/// let sim = Simulation::new(1);
/// let source = sim.source()?;
/// let (sender, pieces) = channel();
/// let pipe = Pipe { source: source.clone(), pieces };
/// let mut event_loop = sim.event_loop(Config::default(), Collector { output: None, text: Vec::new() })?;
/// let (collector, cx) = event_loop.parts();
/// collector.output = Some(cx.add_source(pipe, Interest::READABLE)?);
/// let id = sim.start(event_loop);
///
/// for piece in ["green ", "tea"] {
///     sender.send(piece)?;
///     source.set_readable(true);
///     sim.settle();
/// }
/// drop(sender);
/// source.end();
/// sim.settle();
/// let text = sim.with(id, |event_loop: &mut EventLoop<Collector<Pipe>>| event_loop.service().text.clone());
/// assert_eq!(text.as_deref(), Some(&b"green tea"[..]));
/// assert_eq!(source.interest(), None, "the service has dropped it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SimSource(Arc<Inner>);

struct Inner {
    handle: Handle,
    id: DescriptorId,
    /// The descriptor that stands for this one.
    file: File,
}

impl Simulation {
    /// Creates a descriptor for a source; at first it is ready for nothing. Works on Unix only.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Source`] if the process can open no more descriptors.
    pub fn source(&self) -> Result<SimSource> {
        let file = File::open("/dev/null").map_err(Error::Source)?;
        let id = self.net(|net| net.open_descriptor(file.as_raw_fd()));
        Ok(SimSource(Arc::new(Inner { handle: self.schedule.handle.clone(), id, file })))
    }
}

impl SimSource {
    /// Sets whether a read would succeed. Call this with `true` whenever more has come, even if not
    /// all has been read: a system reports that again. The fake calls it with `false` when it has
    /// nothing left to read, so that a later change of the interest does not report it.
    pub fn set_readable(&self, is_readable: bool) {
        self.set(is_readable, |state| state.readable = is_readable);
    }

    /// Sets whether a write would succeed. Call this with `true` whenever there is room again.
    pub fn set_writable(&self, is_writable: bool) {
        self.set(is_writable, |state| state.writable = is_writable);
    }

    /// Closes the other end: [`Ready::ended`](crate::Ready::ended) is reported from now on.
    pub fn end(&self) {
        self.set(true, |state| state.ended = true);
    }

    /// Puts the descriptor into an error state: [`Ready::failed`](crate::Ready::failed) is reported
    /// from now on.
    pub fn fail(&self) {
        self.set(true, |state| state.failed = true);
    }

    /// Returns the interest with which a loop waits for the descriptor, or `None` if it is not a
    /// source: the service has not added it, or dropped it.
    pub fn interest(&self) -> Option<Interest> {
        self.0.handle.lock().interest_in(self.0.id)
    }

    fn set(&self, is_more: bool, change: impl FnOnce(&mut DescriptorState)) {
        self.0.handle.lock().set_descriptor(self.0.id, is_more, change);
    }
}

impl AsFd for SimSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl fmt::Debug for SimSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimSource").field(&self.0.id).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Before the file is closed, after which another may get its number.
        self.handle.lock().close_descriptor(self.id);
    }
}

impl Poller {
    pub(crate) fn add_descriptor(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> std::io::Result<()> {
        self.handle().lock().add_descriptor(fd.as_raw_fd(), self.index(), token, interest)
    }

    pub(crate) fn change_descriptor(
        &self,
        fd: BorrowedFd<'_>,
        token: usize,
        interest: Interest,
    ) -> std::io::Result<()> {
        self.handle().lock().change_descriptor(fd.as_raw_fd(), self.index(), token, interest)
    }

    pub(crate) fn remove_descriptor(&self, fd: BorrowedFd<'_>) {
        self.handle().lock().remove_descriptor(fd.as_raw_fd());
    }
}
