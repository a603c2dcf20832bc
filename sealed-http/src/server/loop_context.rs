//! The methods of [`sealed::Context`] that a handler can use, unchanged or slightly adapted to
//! HTTP.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "tls")]
use sealed::tls;
use sealed::{
    Address, Bound, Config, Connect, ConnectionId, Context, FutureId, GroupId, Job, Listen, ListenerId,
    ListeningSocket, Rates, Resolver, Service, Socket, Stats, Stopper, TimerId, Watch, WorkError, WorkId, Workers,
};

use crate::server::Due;
use crate::server::connection::{Connection, Marks, Phase};
use crate::server::handler::Handler;
use crate::server::http::Http;

/// Timers and deadlines.
impl<H: Handler> Http<'_, H> {
    /// Makes a timer expire this long after now: see [`sealed::Context::move_timer`].
    pub fn move_timer(&mut self, timer: TimerId, delay: Duration) -> bool {
        self.cx.move_timer(timer, delay)
    }

    /// Cancels a timer and returns its value: see [`sealed::Context::cancel_timer`].
    pub fn cancel_timer(&mut self, timer: TimerId) -> Option<H::Timer> {
        match self.cx.cancel_timer(timer)?.0 {
            Due::Handler(value) => Some(value),
            Due::Fetch(..) => None,
        }
    }

    /// Returns how many timers are set, including the time limits of [fetches](Self::fetch).
    pub fn timers(&self) -> usize {
        self.cx.timers()
    }

    /// Returns the time that is left until the deadline of an exchange, whenever
    /// [`set_deadline`](Self::set_deadline) could set one: see [`sealed::Context::deadline`].
    pub fn deadline(&self, id: ConnectionId) -> Option<Duration> {
        self.cx.deadline(id).filter(|_| self.has_own_deadline(id))
    }

    /// Clears the deadline of an exchange, whenever [`set_deadline`](Self::set_deadline) could set
    /// one.
    pub fn clear_deadline(&mut self, id: ConnectionId) {
        if self.has_own_deadline(id) {
            self.cx.clear_deadline(id);
        }
    }

    /// Adds a remark to the trace of a simulation: see [`sealed::Context::note`].
    pub fn note(&self, text: impl FnOnce() -> String) {
        self.cx.note(text);
    }

    /// Posts a message to this handler itself: see [`sealed::Context::defer`].
    pub fn defer(&mut self, message: H::Message) {
        self.cx.defer(message);
    }
}

/// Work on other threads, and futures.
impl<H: Handler> Http<'_, H> {
    /// Passes work that blocks to workers. [`Handler::message`] gets the message that it returns:
    /// see [`sealed::Context::offload`].
    ///
    /// # Errors
    /// If the workers refuse the work.
    pub fn offload(
        &mut self,
        workers: &Workers,
        work: impl FnOnce(&Job<H::Message>) -> H::Message + Send + 'static,
    ) -> Result<WorkId, WorkError> {
        self.cx.offload(workers, work)
    }

    /// Passes work that blocks to workers, for a connection: when the connection ends, the work is
    /// cancelled. See [`sealed::Context::offload_for`].
    ///
    /// # Errors
    /// If the connection is not open, or the workers refuse the work.
    pub fn offload_for(
        &mut self,
        id: ConnectionId,
        workers: &Workers,
        work: impl FnOnce(&Job<H::Message>) -> H::Message + Send + 'static,
    ) -> Result<WorkId, WorkError> {
        self.cx.offload_for(id, workers, work)
    }

    /// Cancels work, so that none of its messages is delivered any more: see
    /// [`sealed::Context::cancel_work`].
    pub fn cancel_work(&mut self, work: WorkId) -> bool {
        self.cx.cancel_work(work)
    }

    /// Returns the number of pieces of work whose results have not been delivered.
    pub fn works(&self) -> usize {
        self.cx.works()
    }

    /// Runs a future on the thread of the loop. [`Handler::message`] gets its output: see
    /// [`sealed::Context::run_future`].
    pub fn run_future(&mut self, future: impl Future<Output = H::Message> + Send + 'static) -> FutureId {
        self.cx.run_future(future)
    }

    /// Runs a future for a connection: when the connection ends, the future is dropped. Returns
    /// `None` if the connection is not open. See [`sealed::Context::run_future_for`].
    pub fn run_future_for(
        &mut self,
        id: ConnectionId,
        future: impl Future<Output = H::Message> + Send + 'static,
    ) -> Option<FutureId> {
        self.cx.run_future_for(id, future)
    }

    /// Drops a future: see [`sealed::Context::cancel_future`].
    pub fn cancel_future(&mut self, future: FutureId) -> bool {
        self.cx.cancel_future(future)
    }

    /// Returns the number of futures that have not completed.
    pub fn futures(&self) -> usize {
        self.cx.futures()
    }

    /// Looks up the IP addresses of a host without blocking the loop: see
    /// [`sealed::Context::resolve`].
    ///
    /// # Errors
    /// If the resolver's workers refuse the work.
    pub fn resolve(
        &mut self,
        resolver: &Resolver,
        host: &str,
        message: impl FnOnce(io::Result<Vec<IpAddr>>) -> H::Message + Send + 'static,
    ) -> Result<(), WorkError> {
        self.cx.resolve(resolver, host, message)
    }
}

/// Connections.
impl<H: Handler> Http<'_, H> {
    /// Returns whether the connection exists and this side has not closed it.
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.cx.is_open(id)
    }

    /// Returns whether a connection is paused.
    pub fn is_paused(&self, id: ConnectionId) -> bool {
        self.cx.is_paused(id)
    }

    /// Returns whether there is room for more output, as [`write`](Self::write) returns it.
    pub fn has_room(&self, id: ConnectionId) -> bool {
        self.cx.has_room(id)
    }

    /// Returns how many bytes were received from a connection and not yet consumed, including
    /// pipelined requests: see [`sealed::Context::input_len`].
    pub fn input_len(&self, id: ConnectionId) -> usize {
        self.cx.input_len(id)
    }

    /// Returns bytes of the current call as a value that can outlive the call: a piece of a body
    /// ([`Piece::Data`](crate::server::Piece::Data)) or of a response
    /// ([`Fetched::Data`](crate::client::Fetched::Data)), the body of a request, or the input of
    /// another protocol. Large bytes that have just been read are not copied: see
    /// [`sealed::Context::share`].
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.cx.share(part)
    }

    /// Queues shared bytes of a streamed response, or of another protocol, without copying them.
    /// Otherwise like [`write`](Self::write).
    pub fn write_bytes(&mut self, id: ConnectionId, bytes: Bytes) -> bool {
        match self.cx.state(id) {
            Some(held) if held.phase == Phase::Raw => self.cx.write_bytes(id, bytes),
            Some(held) if held.phase == Phase::Sized => {
                let count = self.within_length(id, bytes.len());
                self.shared.exchanges.sent(id, count);
                self.cx.write_bytes(id, bytes.slice(..count))
            }
            Some(held) if held.phase == Phase::Streaming && held.marks.has(Marks::OLD) => {
                self.shared.exchanges.sent(id, bytes.len());
                self.cx.write_bytes(id, bytes)
            }
            Some(held) if held.phase == Phase::Streaming && !bytes.is_empty() => {
                self.shared.exchanges.sent(id, bytes.len());
                self.cx.write(id, format!("{:x}\r\n", bytes.len()).as_bytes());
                self.cx.write_bytes(id, bytes);
                self.cx.write(id, b"\r\n")
            }
            Some(held) if held.phase == Phase::Streaming => self.cx.has_room(id),
            _ => false,
        }
    }

    /// Closes a connection at once with a reset, so that the peer sees a failure: see
    /// [`sealed::Context::reset`].
    pub fn reset(&mut self, id: ConnectionId) {
        self.cx.reset(id);
    }

    /// Closes all connections, each after its queued output has been sent, including those to
    /// upstreams. Requests on these fail, except that one that may be repeated is sent once more on
    /// a new connection.
    pub fn close_all(&mut self) {
        self.cx.close_all();
    }

    /// Sets the linger time of a connection: see [`sealed::Context::set_linger`].
    pub fn set_linger(&mut self, id: ConnectionId, linger: Duration) {
        self.cx.set_linger(id, linger);
    }

    /// Returns the address of the peer. Makes a system call.
    pub fn peer_addr(&self, id: ConnectionId) -> Option<Address> {
        self.cx.peer_addr(id)
    }

    /// Returns the local address of a connection. Makes a system call.
    pub fn local_addr(&self, id: ConnectionId) -> Option<Address> {
        self.cx.local_addr(id)
    }

    /// Returns the result of the TLS handshake: `None` before its end, and for a connection without
    /// TLS. Requires the feature `tls`.
    #[cfg(feature = "tls")]
    pub fn tls(&self, id: ConnectionId) -> Option<tls::Agreed> {
        self.cx.tls(id)
    }

    /// Starts a connection that speaks another protocol than HTTP, like one that was
    /// [switched](Self::upgrade). [`Handler::connected`] or [`Handler::closed`] reports the
    /// outcome, and [`Handler::raw`] receives the input. To send HTTP requests, use
    /// [`fetch`](Self::fetch).
    ///
    /// # Errors
    /// If no attempt to connect can be started, for example because the loop has
    /// [`sealed::Config::connections_max`] connections. No handler method is called then.
    pub fn connect(&mut self, connect: impl Into<Connect>, state: H::Connection) -> sealed::Result<ConnectionId> {
        self.cx.connect(connect, Connection::raw(state))
    }

    /// Takes over a connected socket from elsewhere, and waits for requests on it as on an accepted
    /// connection.
    ///
    /// # Errors
    /// If the loop has [`sealed::Config::connections_max`] connections, or cannot take over the
    /// socket.
    pub fn adopt(&mut self, socket: impl Into<Socket>, state: H::Connection) -> sealed::Result<ConnectionId> {
        let id = self.cx.adopt(socket, Connection::with(state))?;
        self.cx.set_deadline(id, self.shared.settings.request_timeout);
        Ok(id)
    }
}

/// Listeners.
impl<H: Handler> Http<'_, H> {
    /// Listens on an address: see [`sealed::Context::listen`].
    ///
    /// # Errors
    /// If no socket can be bound to the address, or the loop cannot add the listener.
    pub fn listen(&mut self, listen: impl Into<Listen>) -> sealed::Result<Bound> {
        self.cx.listen(listen)
    }

    /// Accepts connections from a socket that already listens: see
    /// [`sealed::Context::adopt_listener`].
    ///
    /// # Errors
    /// If the loop cannot take over the socket or add the listener.
    pub fn adopt_listener(&mut self, socket: impl Into<ListeningSocket>, how: Listen) -> sealed::Result<Bound> {
        self.cx.adopt_listener(socket, how)
    }

    /// Returns the address of a listener: `None` once the loop is shutting down.
    pub fn listen_addr(&self, listener: ListenerId) -> Option<Address> {
        self.cx.listen_addr(listener)
    }

    /// Returns the listener that accepted a connection: `None` for a connection that was started or
    /// adopted.
    pub fn listener(&self, id: ConnectionId) -> Option<ListenerId> {
        self.cx.listener(id)
    }

    /// Returns the number of connections of a listener.
    pub fn connections_of(&self, listener: ListenerId) -> usize {
        self.cx.connections_of(listener)
    }
}

/// Rates.
impl<H: Handler> Http<'_, H> {
    /// Limits a connection to these rates: see [`sealed::Context::set_rates`].
    pub fn set_rates(&mut self, id: ConnectionId, rates: Rates) {
        self.cx.set_rates(id, rates);
    }

    /// Creates a group whose connections share these rates: see [`sealed::Context::add_group`].
    pub fn add_group(&mut self, rates: Rates) -> GroupId {
        self.cx.add_group(rates)
    }

    /// Removes a group: see [`sealed::Context::remove_group`].
    pub fn remove_group(&mut self, group: GroupId) -> bool {
        self.cx.remove_group(group)
    }

    /// Returns the number of connections in a group.
    pub fn members(&mut self, group: GroupId) -> usize {
        self.cx.members(group)
    }

    /// Changes the rates of a group.
    pub fn set_group_rates(&mut self, group: GroupId, rates: Rates) {
        self.cx.set_group_rates(group, rates);
    }

    /// Moves a connection into a group, or removes it from its group.
    pub fn set_group(&mut self, id: ConnectionId, group: Option<GroupId>) {
        self.cx.set_group(id, group);
    }
}

/// The loop.
impl<H: Handler> Http<'_, H> {
    /// Returns the loop's limits.
    pub fn config(&self) -> &Config {
        self.cx.config()
    }

    /// Returns the statistics of the loop.
    pub fn stats(&self) -> Stats {
        self.cx.stats()
    }

    /// Returns a handle to the loop's counters, which any thread can read.
    pub fn watch(&self) -> Watch {
        self.cx.watch()
    }

    /// Adds another service to this loop, such as a second server, or a client or server of another
    /// protocol, and returns the context of that service: see [`sealed::Context::add_service`].
    ///
    /// # Errors
    /// If the loop has 256 services.
    pub fn add_service<T>(&mut self, config: Config, service: T) -> sealed::Result<&mut Context<T>>
    where
        T: Service<Connection: Send, Timer: Send> + Send,
    {
        self.cx.add_service(config, service)
    }

    /// Returns a handle with which any thread can stop this loop.
    pub fn stopper(&self) -> Stopper {
        self.cx.stopper()
    }
}
