//! The handles that a loop holds on the network: a poller, its wakers, and sockets. `net/` wraps
//! them.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::network::Net;
use super::schedule;
use super::trace::{End, Entry};
use crate::address::Address;
use crate::net::Readiness;
use crate::socket::SocketOptions;

/// The network, shared by all its handles. A simulation runs on one thread; the lock is there
/// because mailboxes and stoppers may be sent to other threads.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Mutex<Net>>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    pub(super) fn new(net: Net) -> Self {
        Self(Arc::new(Mutex::new(net)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the newest trace entries, one per line.
    pub(super) fn trace(&self, entries_max: usize) -> String {
        self.lock().trace.text(entries_max)
    }

    /// Returns the newest trace entries, unless the network is in use.
    pub(super) fn try_trace(&self, entries_max: usize) -> Option<String> {
        let net = match self.0.try_lock() {
            Ok(net) => net,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(net.trace.text(entries_max))
    }

    pub(crate) fn now(&self) -> Duration {
        self.lock().now
    }

    pub(crate) fn unix_time(&self) -> Duration {
        let net = self.lock();
        net.calendar_start + net.now
    }

    /// Adds a remark of a service to the trace.
    pub(crate) fn note(&self, text: String) {
        let mut net = self.lock();
        let node = net.running;
        net.note(Entry::Remarks { node, text });
    }

    pub(crate) fn pass(&self) {
        schedule::pass(self);
    }

    pub(crate) fn entropy(&self) -> u64 {
        self.lock().random.bits()
    }

    pub(crate) fn poller(&self) -> Poller {
        let index = self.lock().add_poller();
        Poller { handle: self.clone(), index }
    }

    pub(crate) fn connect(&self, host: IpAddr, address: &Address, silence_max: Option<Duration>) -> io::Result<Stream> {
        let end = self.lock().connect(host, address, silence_max)?;
        Ok(Stream { handle: self.clone(), end })
    }

    pub(crate) fn reserve_port(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        self.lock().reserve_port(address)
    }

    pub(crate) fn bind(
        &self,
        address: &Address,
        reuse_port: bool,
        backlog: i32,
        options: &SocketOptions,
    ) -> io::Result<Listener> {
        let (key, address) = self.lock().bind(address, reuse_port, backlog, options.silence_max)?;
        Ok(Listener { handle: self.clone(), key, address })
    }

    pub(super) fn peer(&self, address: &Address, from: &Address, link: Option<super::Link>) -> End {
        self.lock().connect_for_peer(address, from, link)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Poller {
    handle: Handle,
    index: u32,
}

impl Poller {
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    #[cfg(unix)]
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn take(&self, ready: &mut Vec<Readiness>) {
        self.handle.lock().take_ready(self.index, ready);
    }

    pub(crate) fn waker(&self, token: usize) -> Waker {
        Waker { handle: self.handle.clone(), poller: self.index, token }
    }

    pub(crate) fn add_listener(&self, listener: &Listener, token: usize) {
        self.handle.lock().listen(listener.key, self.index, token);
    }

    pub(crate) fn add_stream(&self, stream: &Stream, token: usize) {
        self.handle.lock().register(stream.end, self.index, token);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Waker {
    handle: Handle,
    poller: u32,
    token: usize,
}

impl Waker {
    pub(super) fn poller(&self) -> u32 {
        self.poller
    }

    pub(crate) fn wake(&self) {
        self.handle.lock().wake(self.poller, self.token);
    }

    pub(crate) fn interleave(&self) {
        schedule::interleave(&self.handle);
    }
}

#[derive(Debug)]
pub(crate) struct Stream {
    handle: Handle,
    end: End,
}

impl Stream {
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.handle.lock().read(self.end, buffer)
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.handle.lock().write(self.end, slices)
    }

    pub(crate) fn shut_down_writing(&self) {
        self.handle.lock().shut_down_writing(self.end);
    }

    pub(crate) fn reset_on_close(&self) {
        self.handle.lock().reset_on_close(self.end);
    }

    pub(crate) fn take_error(&self) -> io::Result<()> {
        match self.handle.lock().take_error(self.end) {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<Address> {
        self.handle.lock().remote(self.end)
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        self.handle.lock().local(self.end)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.handle.lock().close(self.end);
    }
}

#[derive(Debug)]
pub(crate) struct Listener {
    handle: Handle,
    key: u32,
    address: Address,
}

impl Listener {
    pub(crate) fn accept(&self) -> io::Result<(Stream, Address)> {
        let (end, peer) = self.handle.lock().accept(self.key)?;
        Ok((Stream { handle: self.handle.clone(), end }, peer))
    }

    pub(crate) fn local_addr(&self) -> Address {
        self.address.clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.lock().close_listener(self.key);
    }
}
